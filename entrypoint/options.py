"""The table of options, and the parser of each value.

The table is the only source for `settings.read` (which process 1 runs, in well under a millisecond), for the click
command in `cli.py` (help and shell completion) and for the table in docs/options.md. A test compares that one with it.
"""

from . import signals
from .parsed import PREFIX
from .signals import quote
from .units import INFINITY, parse_duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any


# --- Values: each parser takes the text and returns the value. It raises ValueError, which names what is accepted. ---


def grace(text: str) -> float | None:
    """Return a duration in seconds, or None for `auto`."""
    if text == "auto":
        return None
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ValueError(f"{error}, auto") from None


def limit(text: str) -> float | None:
    """Return a time limit in seconds; None, for no limit, if the text is 0 or `infinity`."""
    seconds = parse_duration(text)
    return seconds if 0 < seconds < INFINITY else None


def loop_watch(text: str) -> float | None:
    """Return a limit of 10ms or more in seconds, or None for 0 and `infinity`."""
    try:
        seconds = limit(text)
    except ValueError as error:
        raise ValueError(f"{error}, or 0 for off") from None
    if seconds is not None and seconds < 0.01:
        raise ValueError(f"{quote(text)} is too short; accepted: 10ms or more, or 0 for off")
    return seconds


def stop_signal(text: str) -> int | None:
    """Return a signal's number, or None for `auto`."""
    if text == "auto":
        return None
    try:
        return signals.parse(text)
    except ValueError as error:
        raise ValueError(f"{error}; or auto") from None


def file_path(text: str) -> str | None:
    """Return an absolute path, or None for `none`."""
    if text == "none":
        return None
    if not text.startswith("/"):
        raise ValueError(f"{quote(text)} is not an absolute path; accepted: an absolute path, or none")
    return text


def http_address(text: str) -> tuple[str, int] | None:
    """`127.0.0.1:8081` -> ("127.0.0.1", 8081); `[::]:8081` -> ("::", 8081); `:8081` -> ("", 8081); `none` -> None."""
    if text == "none":
        return None
    host, colon, port = text.rpartition(":")
    is_port = colon and port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65536
    address = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not is_port or (address and not _is_ip_address(address, in_brackets=address != host)) or host == "[]":
        accepted = ":8081 (loopback), 127.0.0.1:8081, 0.0.0.0:8081, [::]:8081, with a port from 1 to 65535; none"
        raise ValueError(f"{quote(text)} is not [ADDRESS]:PORT; accepted: {accepted}")
    return address, int(port)


def _is_ip_address(text: str, *, in_brackets: bool) -> bool:
    import _socket  # for those who set the option

    try:
        _socket.inet_pton(_socket.AF_INET6 if in_brackets else _socket.AF_INET, text)
        return True
    except (OSError, ValueError):  # a NUL in it
        return False


def schedule(text: str) -> tuple[tuple[int, float], ...]:
    """`TERM/20s/INT/5s/KILL` -> ((15, 20.0), (2, 5.0), (9, inf)): signals, each with the wait after it in seconds.

    The notation is that of start-stop-daemon(8) `--retry`, without its `forever`. A wait may be omitted between two
    signals (there is none) and at the end (it is infinite).
    """
    steps: list[tuple[int, float | None]] = []
    for entry in text.split("/"):
        if entry[:1].isdigit() or entry == "infinity":
            if not steps or steps[-1][1] is not None:
                raise ValueError(f"{quote(text)} has a wait without a signal before it; accepted: TERM/20s/INT/5s/KILL")
            steps[-1] = (steps[-1][0], parse_duration(entry))
            continue
        if steps and steps[-1][0] == signals.KILL:
            raise ValueError(f"{quote(text)} continues after KILL; accepted: KILL only as the last signal")
        try:
            steps.append((signals.parse(entry.removeprefix("-")), None))
        except ValueError as error:
            raise ValueError(f"{error}; a schedule has signals and waits, such as TERM/20s/INT/5s/KILL") from None
    waits = [0.0 if wait is None else wait for _, wait in steps[:-1]]
    return tuple(zip((number for number, _ in steps), [*waits, INFINITY], strict=True))


def signal_set(text: str) -> frozenset[int]:
    """`TERM,INT` -> {15, 2}; `EOF` -> {signals.EOF}; `none` -> the empty set."""
    if text == "none":
        return frozenset()
    names = text.split(",")
    try:
        return frozenset(signals.EOF if name.upper() == "EOF" else signals.parse_catchable(name) for name in names)
    except ValueError as error:
        raise ValueError(f"{error}, EOF, or none") from None


def report_signals(text: str) -> frozenset[int]:
    """`USR2` -> {12}; `none` -> the empty set."""
    if text == "none":
        return frozenset()
    try:
        return frozenset(map(signals.parse_catchable, text.split(",")))
    except ValueError as error:
        raise ValueError(f"{error}, or none") from None


def rewrite(text: str) -> tuple[int, int]:
    """`HUP:QUIT` -> (1, 3); `USR1:0` -> (10, 0), which drops the signal."""
    source, colon, target = text.partition(":")
    if not colon:
        accepted = "two signals, such as HUP:QUIT or 15:2; TO = 0 drops it"
        raise ValueError(f"{quote(text)} is not FROM:TO; accepted: {accepted}")
    return signals.parse_catchable(source), 0 if target == "0" else signals.parse(target)


def exit_code(text: str) -> int:
    """Return an exit code, 0 to 255."""
    if not (text.isascii() and text.isdigit() and len(text) < 4 and int(text) < 256):
        raise ValueError(f"{quote(text)} is not an exit code; accepted: 0 to 255")
    return int(text)


def boolean(text: str) -> bool:
    """Return the value of a switch's environment variable."""
    lower = text.lower()
    if lower in ("1", "true", "yes", "on"):
        return True
    if lower in ("0", "false", "no", "off"):
        return False
    raise ValueError(f"{quote(text)} is neither on nor off; accepted: 1, true, yes, on, 0, false, no, off")


def count(text: str) -> int:
    """Return how many times a flag such as -v counts, from its environment variable: 0 to 9, or a switch's value."""
    if text.isascii() and text.isdigit() and len(text) == 1:
        return int(text)
    try:
        return int(boolean(text))
    except ValueError:
        raise ValueError(f"{quote(text)} is not a count; accepted: 0 to 9") from None


def secret_name(text: str) -> str:
    """Return the name of a variable for a secret.

    PATH is refused: where a command is not found, the log shows it.
    """
    is_name = text.isascii() and ("x" + text[1:].replace("-", "_").replace(".", "_")).isidentifier()
    if not (is_name and text[:1].isidentifier() and len(text) <= 200) or text == "PATH":
        accepted = "up to 200 letters, digits and _ - . that begin with a letter or _, and not PATH"
        raise ValueError(f"{quote(text)} is not a name for a secret; accepted: {accepted}")
    return text


def choice(*values: str) -> "Callable[[str], str]":
    """Return a parser that accepts one of `values`."""

    def parse(text: str) -> str:
        if text not in values:
            raise ValueError(f"{quote(text)} is not valid; accepted: {', '.join(values)}")
        return text

    return parse


# --- The table. -----------------------------------------------------------------------------------------------------


class Option:
    """One row. `flags` take a value; each of `constants` stands for a value (`-g` for `--target group`).

    `many`: every occurrence adds a value. `counted`: every occurrence adds one (`-vv`).
    """

    __slots__ = ("constants", "counted", "default", "flags", "help", "many", "metavar", "name", "parse")

    def __init__(
        self,
        name: str,
        parse: "Callable[[str], Any]",
        default: str | None,
        help: str,
        *,
        metavar: str = "",
        flags: "Sequence[str]" = (),
        constants: "Mapping[str, str] | None" = None,
        many: bool = False,
        counted: bool = False,
    ) -> None:
        self.name, self.parse, self.default, self.help, self.metavar = name, parse, default, help, metavar
        self.flags, self.constants, self.many, self.counted = flags, constants or {}, many, counted

    @property
    def variable(self) -> str:
        """Return the name of its environment variable."""
        return PREFIX + self.name.upper()


OPTIONS = (
    Option(
        "grace",
        grace,
        "auto",
        "Time from the stop request to the last SIGKILL: 25s, 1m30s, 500ms, infinity or auto. "
        "auto is 10s, or no deadline on a platform that kills the container itself.",
        metavar="DURATION",
        flags=("-t", "--grace"),
    ),
    Option(
        "max_grace",
        parse_duration,
        "infinity",
        "Latest time for the last SIGKILL, counted from the stop request, if the agent asks for more time "
        "(EXTEND_TIMEOUT_USEC). It cannot be shorter than the grace.",
        metavar="DURATION",
        flags=("--max-grace",),
    ),
    Option(
        "platform_grace",
        limit,
        "0",
        "How long the platform itself waits, from the stop request to its SIGKILL. agent-init sends its own SIGKILL 2s "
        "before that at the latest, whatever the other options say; with --grace auto, exactly then. 0: not known.",
        metavar="DURATION",
        flags=("--platform-grace",),
    ),
    Option(
        "linger",
        parse_duration,
        "5s",
        "How long processes that the agent leaves behind have to exit after their stop signal; never past the grace.",
        metavar="DURATION",
        flags=("--linger",),
    ),
    Option(
        "orphans",
        limit,
        "0",
        "While the agent runs, stop orphans that were adopted longer ago than this: send their process tree the stop "
        "signal, and SIGKILL after --linger. 0 leaves them alone until the agent has exited.",
        metavar="DURATION",
        flags=("--orphans",),
    ),
    Option(
        "stop_signal",
        stop_signal,
        "auto",
        "The signal that asks the agent to stop: a name or number, such as INT, SIGINT or 2. auto: TERM, but INT for a "
        "program that handles INT and not TERM.",
        metavar="SIG|auto",
        flags=("--stop-signal",),
    ),
    Option(
        "stop_schedule",
        schedule,
        None,
        "Signals and waits, such as TERM/20s/INT/5s/ABRT/2s/KILL, in place of --grace and --stop-signal. "
        "Without KILL at the end there is no deadline.",
        metavar="SCHEDULE",
        flags=("--stop-schedule",),
    ),
    Option(
        "stop_on",
        signal_set,
        # PWR halts an LXC container (lxc.signal.halt in lxc.container.conf(5)); macOS has no such signal.
        "TERM,INT,PWR" if "PWR" in signals.NUMBERS else "TERM,INT",
        "The signals that request a stop, separated by commas; none turns agent-init into a plain forwarder. EOF is "
        "the end of stdin: its other end is gone, and the agent has read the rest.",
        metavar="SIG,...",
        flags=("--stop-on",),
    ),
    Option(
        "stop_delay",
        parse_duration,
        "0",
        "Time between the stop request and the stop signal, for a load balancer to stop sending work. "
        "It counts toward the grace.",
        metavar="DURATION",
        flags=("--stop-delay",),
    ),
    Option(
        "repeat",
        choice("ignore", "forward", "escalate"),
        "ignore",
        "What to do with a repeated stop request: only log it (ignore), pass it on (forward), or go to the next step "
        "of the schedule at once (escalate).",
        metavar="ignore|forward|escalate",
        flags=("--repeat",),
    ),
    Option(
        "rewrite",
        rewrite,
        None,
        "Replace signal FROM with TO, or drop it if TO is 0 (repeatable). If FROM requests a stop, TO replaces the "
        "stop signal.",
        metavar="FROM:TO",
        flags=("-r", "--rewrite"),
        many=True,
    ),
    Option(
        "target",
        choice("auto", "child", "group"),
        "auto",
        "Which process gets a signal: the agent, or what it runs if it is only a wrapper (auto); the agent alone "
        "(child, -c); the agent's process group (group, -g).",
        metavar="auto|child|group",
        flags=("--target",),
        constants={"-g": "group", "-c": "child", "--single-child": "child"},
    ),
    Option(
        "unhandled",
        choice("shield", "forward"),
        "shield",
        "What to do with a signal that nobody handles and that requests no stop: turn HUP and QUIT into a stop request "
        "and drop the others (shield), or send it anyway (forward, the default with --stop-on none).",
        metavar="shield|forward",
        flags=("--unhandled",),
    ),
    Option(
        "subreaper",
        boolean,
        None,
        "Adopt orphaned descendants (PR_SET_CHILD_SUBREAPER). On by default, except as process 1, which adopts them "
        "anyway.",
        constants={"-s": "on", "--subreaper": "on", "--no-subreaper": "off"},
    ),
    Option(
        "parent_death_signal",
        signals.parse,
        None,
        "The signal that agent-init gets when its own parent exits (PR_SET_PDEATHSIG): a name or number.",
        metavar="SIG",
        flags=("-p", "--parent-death-signal"),
    ),
    Option(
        "ok_exit",
        exit_code,
        None,
        "An exit code of the agent, 0 to 255, to turn into 0, such as 143 (repeatable).",
        metavar="CODE",
        flags=("-e", "--ok-exit"),
        many=True,
    ),
    Option(
        "notify",
        boolean,
        "on",
        "Turn off the NOTIFY_SOCKET (sd_notify) that the agent gets, and leave an inherited one as it is.",
        constants={"--no-notify": "off"},
    ),
    Option(
        "notify_access",
        choice("auto", "main", "all"),
        "auto",
        "Whose notify messages count: the agent's and its descendants', but READY, MAINPID and the like only from the "
        "agent, or from what it runs if it is only a wrapper (auto); only the agent's (main); every message of every "
        "descendant (all).",
        metavar="auto|main|all",
        flags=("--notify-access",),
    ),
    Option(
        "watchdog",
        limit,
        "0",
        "An agent that has sent READY=1 or a ping (WATCHDOG=1) and is then silent for this long is hung: report, "
        "SIGABRT, then the stop schedule. 0 turns the watchdog off.",
        metavar="DURATION",
        flags=("--watchdog",),
    ),
    Option(
        "ready_timeout",
        limit,
        "0",
        "An agent that has not sent READY=1 after this time is hung: report, SIGABRT, then the stop schedule. "
        "0 means no limit.",
        metavar="DURATION",
        flags=("--ready-timeout",),
    ),
    Option(
        "ready_file",
        file_path,
        "none",
        "A file that exists from READY=1 until a stop is requested, or the agent hangs or exits, for a probe such as "
        "`cat PATH`: an absolute path in a directory that exists, or none. It is removed at the start.",
        metavar="PATH|none",
        flags=("--ready-file",),
    ),
    Option(
        "report_on",
        report_signals,
        "none",
        "Signals, separated by commas, that make agent-init log a stall report, such as USR2. They have no other "
        "effect: they are not forwarded.",
        metavar="SIG,...|none",
        flags=("--report-on",),
    ),
    Option(
        "report_after",
        limit,
        "0",
        "Log one stall report this long after the stop request, whatever the deadline. 0 turns this off.",
        metavar="DURATION",
        flags=("--report-after",),
    ),
    Option(
        "control",
        boolean,
        "on",
        "Turn off the socket that answers agent-initctl.",
        constants={"--no-control": "off"},
    ),
    Option(
        "http",
        http_address,
        "none",
        "Serve probes and Prometheus metrics over HTTP on this IP address and port, from a process of its own. Without "
        "an address: on loopback. It needs `pip install 'agent-init[http]'`; see docs/http.md.",
        metavar="[ADDRESS]:PORT|none",
        flags=("--http",),
    ),
    Option(
        "stacks",
        boolean,
        "off",
        "Let every Python process of the agent report its stacks and tasks when a stop stalls. This puts a "
        "sitecustomize at the front of PYTHONPATH.",
        constants={"--stacks": "on"},
    ),
    Option(
        "loop_watch",
        loop_watch,
        "0",
        "Log which line of the agent blocks an event loop (asyncio, uvloop) for longer than this, such as 500ms, and "
        "for how long, in every Python process. It implies --stacks. 0 turns it off.",
        metavar="DURATION",
        flags=("--loop-watch",),
    ),
    Option(
        "secret",
        secret_name,
        None,
        "Read the file that the variable NAME_FILE names, such as /run/secrets/x, and give the agent its content as "
        "NAME, without NAME_FILE (repeatable).",
        metavar="NAME",
        flags=("--secret",),
        many=True,
    ),
    Option(
        "termination_log",
        file_path,
        "/dev/termination-log",
        "The file that gets the final message, after the agent's own: an absolute path, or none. The default path is "
        "used only if it exists.",
        metavar="PATH|none",
        flags=("--termination-log",),
    ),
    Option(
        "warn_reaped",
        boolean,
        "off",
        "Log each orphan that is reaped.",
        constants={"-w": "on", "--warn-reaped": "on"},
    ),
    Option(
        "verbose",
        count,
        "0",
        "Log more: each signal (-v), the agent's arguments too (-vv).",
        constants={"-v": "1", "--verbose": "1"},
        counted=True,
    ),
    Option(
        "quiet",
        count,
        "0",
        "Log less: warnings and errors only (-q), errors only (-qq).",
        constants={"-q": "1", "--quiet": "1"},
        counted=True,
    ),
    Option(
        "log_format",
        choice("text", "json"),
        "text",
        "Log as lines for people (text), or as one JSON object per line (json).",
        metavar="text|json",
        flags=("--log-format",),
    ),
    Option(
        "log_to",
        choice("stderr", "stdout"),
        "stderr",
        "Where to log. Some platforms count each line on stderr as an error. Do not log to stdout if the program "
        "speaks a protocol there, as an MCP server over stdio does.",
        metavar="stderr|stdout",
        flags=("--log-to",),
    ),
)

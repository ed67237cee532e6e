"""The table of options, and the parser of each value.

The table is the one source for `settings.read` (what process 1 runs, in well under a millisecond), the click command in
`cli.py` (help and shell completion) and the table in docs/options.md, which a test compares with it.
"""

from . import signals
from .signals import quote
from .units import INFINITY, parse_duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

PREFIX = "AGENT_INIT_"


# --- Values: each parser takes the text and returns the value, or raises ValueError saying what is accepted. ---------


def grace(text: str) -> float | None:
    """A duration, or None for `auto`."""
    if text == "auto":
        return None
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ValueError(f"{error}, auto") from None


def limit(text: str) -> float | None:
    """A duration after which something happens; None for 0 and `infinity`: it never does."""
    seconds = parse_duration(text)
    return seconds if 0 < seconds < INFINITY else None


def file_path(text: str) -> str | None:
    """An absolute path, or None for `none`."""
    if text == "none":
        return None
    if not text.startswith("/"):
        raise ValueError(f"{quote(text)} is no absolute path; accepted: one, or none")
    return text


def schedule(text: str) -> tuple[tuple[int, float], ...]:
    """`TERM/20s/INT/5s/KILL` -> ((15, 20.0), (2, 5.0), (9, inf)): signals, each with the wait that follows it.

    The notation is that of start-stop-daemon(8) `--retry`, without its `forever`. A wait may be left out between two
    signals (they follow each other at once) and at the end (that wait is endless).
    """
    steps: list[tuple[int, float | None]] = []
    for entry in text.split("/"):
        if entry[:1].isdigit() or entry == "infinity":
            if not steps or steps[-1][1] is not None:
                raise ValueError(f"{quote(text)} has a wait with no signal before it; accepted: TERM/20s/INT/5s/KILL")
            steps[-1] = (steps[-1][0], parse_duration(entry))
            continue
        if steps and steps[-1][0] == signals.KILL:
            raise ValueError(f"{quote(text)} goes on after KILL; accepted: KILL as the last signal")
        try:
            steps.append((signals.parse(entry.removeprefix("-")), None))
        except ValueError as error:
            raise ValueError(f"{error}; a schedule is signals and waits, such as TERM/20s/INT/5s/KILL") from None
    waits = [0.0 if wait is None else wait for _, wait in steps[:-1]]
    return tuple(zip((number for number, _ in steps), [*waits, INFINITY], strict=True))


def signal_set(text: str) -> frozenset[int]:
    """`TERM,INT` -> {15, 2}; `none` -> the empty set."""
    if text == "none":
        return frozenset()
    try:
        return frozenset(signals.parse_catchable(word) for word in text.split(","))
    except ValueError as error:
        raise ValueError(f"{error}; or none") from None


def rewrite(text: str) -> tuple[int, int]:
    """`HUP:QUIT` -> (1, 3); `USR1:0` -> (10, 0), which drops the signal."""
    source, colon, target = text.partition(":")
    if not colon:
        accepted = "two signals, such as HUP:QUIT or 15:2; TO = 0 drops it"
        raise ValueError(f"{quote(text)} is not FROM:TO; accepted: {accepted}")
    return signals.parse_catchable(source), 0 if target == "0" else signals.parse(target)


def exit_code(text: str) -> int:
    """0 to 255."""
    if not (text.isascii() and text.isdigit() and len(text) < 4 and int(text) < 256):
        raise ValueError(f"{quote(text)} is not an exit code; accepted: 0 to 255")
    return int(text)


def boolean(text: str) -> bool:
    """A switch's environment variable."""
    word = text.lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off"):
        return False
    raise ValueError(f"{quote(text)} is neither on nor off; accepted: 1, true, yes, on, 0, false, no, off")


def count(text: str) -> int:
    """How often a flag such as -v counts, as its environment variable says it."""
    if text.isascii() and text.isdigit() and len(text) == 1:
        return int(text)
    try:
        return int(boolean(text))
    except ValueError:
        raise ValueError(f"{quote(text)} is not a count; accepted: 0 to 9") from None


def choice(*words: str) -> "Callable[[str], str]":
    """A parser for one of `words`."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"{quote(text)} is not known; accepted: {', '.join(words)}")
        return text

    return parse


# --- The table. -----------------------------------------------------------------------------------------------------


class Option:
    """One row. `flags` take a value; `constants` are flags that stand for one (`-g` for `--target group`).

    `many`: may be given more than once, all of them count. `counted`: may be repeated to count higher (`-vv`).
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
        """Its environment variable."""
        return PREFIX + self.name.upper()


OPTIONS = (
    Option(
        "grace",
        grace,
        "auto",
        "Whole time from the stop request to the last SIGKILL: 25s, 1m30s, 500ms, infinity, or auto (10s; on a "
        "platform that ends the container itself, no limit but the platform's own).",
        metavar="DURATION",
        flags=("-t", "--grace"),
    ),
    Option(
        "max_grace",
        parse_duration,
        "infinity",
        "How far the agent may put off the last SIGKILL by asking for more time (EXTEND_TIMEOUT_USEC), counted from "
        "the stop request.",
        metavar="DURATION",
        flags=("--max-grace",),
    ),
    Option(
        "linger",
        parse_duration,
        "5s",
        "What descendants that outlive the agent get after their stop signal, never beyond the grace.",
        metavar="DURATION",
        flags=("--linger",),
    ),
    Option(
        "stop_signal",
        signals.parse,
        "TERM",
        "What the agent gets when it is to stop.",
        metavar="SIG",
        flags=("--stop-signal",),
    ),
    Option(
        "stop_schedule",
        schedule,
        None,
        "Signals and waits, such as TERM/20s/INT/5s/ABRT/2s/KILL, in place of --grace and --stop-signal. "
        "Where the last signal is not KILL, the last wait is endless.",
        metavar="SCHEDULE",
        flags=("--stop-schedule",),
    ),
    Option(
        "stop_on",
        signal_set,
        "TERM,INT",
        "Which signals are a stop request; none makes a pure forwarder.",
        metavar="SIG,...",
        flags=("--stop-on",),
    ),
    Option(
        "stop_delay",
        parse_duration,
        "0",
        "Wait between the stop request and the first signal, while a load balancer lets go; counts into the grace.",
        metavar="DURATION",
        flags=("--stop-delay",),
    ),
    Option(
        "repeat",
        choice("ignore", "forward", "escalate"),
        "ignore",
        "A second stop request: note it, pass it on, or go to the next step of the schedule at once.",
        metavar="ignore|forward|escalate",
        flags=("--repeat",),
    ),
    Option(
        "rewrite",
        rewrite,
        None,
        "Replace a signal, by names or numbers; TO = 0 drops it. For a stop request, TO is what the agent gets "
        "instead of the stop signal. Repeatable.",
        metavar="FROM:TO",
        flags=("-r", "--rewrite"),
        many=True,
    ),
    Option(
        "target",
        choice("auto", "child", "group"),
        "auto",
        "Who is signalled: the agent or, where it is a wrapper that does not handle the signal, the topmost "
        "descendants that do (auto); the agent only (child, -c); its process group (group, -g).",
        metavar="auto|child|group",
        flags=("--target",),
        constants={"-g": "group", "-c": "child", "--single-child": "child"},
    ),
    Option(
        "unhandled",
        choice("shield", "forward"),
        "shield",
        "A signal that is no stop request and that nobody handles: HUP and QUIT become a stop request and the rest "
        "is dropped (shield), or it is sent all the same (forward, the default with --stop-on none).",
        metavar="shield|forward",
        flags=("--unhandled",),
    ),
    Option(
        "subreaper",
        boolean,
        None,
        "Adopt orphaned descendants (PR_SET_CHILD_SUBREAPER); on unless agent-init is process 1, which adopts them "
        "anyway.",
        constants={"-s": "on", "--subreaper": "on", "--no-subreaper": "off"},
    ),
    Option(
        "parent_death_signal",
        signals.parse,
        None,
        "The signal that agent-init gets when its own parent dies (PR_SET_PDEATHSIG).",
        metavar="SIG",
        flags=("-p", "--parent-death-signal"),
    ),
    Option(
        "ok_exit",
        exit_code,
        None,
        "An exit code to turn into 0, such as 143. Repeatable.",
        metavar="CODE",
        flags=("-e", "--ok-exit"),
        many=True,
    ),
    Option(
        "notify",
        boolean,
        "on",
        "Offer the agent no NOTIFY_SOCKET (sd_notify), and leave an inherited one as it is.",
        constants={"--no-notify": "off"},
    ),
    Option(
        "notify_access",
        choice("main", "all"),
        "all",
        "Whose messages count: the agent's only (main), or its descendants' too (all).",
        metavar="main|all",
        flags=("--notify-access",),
    ),
    Option(
        "watchdog",
        limit,
        "0",
        "From its READY=1 or its first WATCHDOG=1 on, an agent that is silent for this long hangs: a report, ABRT, the "
        "rest of the schedule. 0: no watchdog.",
        metavar="DURATION",
        flags=("--watchdog",),
    ),
    Option(
        "ready_timeout",
        limit,
        "0",
        "The same for an agent that has not said READY=1 by then. 0: no limit.",
        metavar="DURATION",
        flags=("--ready-timeout",),
    ),
    Option(
        "stacks",
        boolean,
        "off",
        "Have every Python process of the agent tell its stacks and tasks when a stop stalls, by a sitecustomize in "
        "front of PYTHONPATH.",
        constants={"--stacks": "on"},
    ),
    Option(
        "termination_log",
        file_path,
        "/dev/termination-log",
        "The file that gets the last words where the agent did not end well, if it is there; none: no such file.",
        metavar="PATH|none",
        flags=("--termination-log",),
    ),
    Option(
        "warn_reaped",
        boolean,
        "off",
        "A line for each orphan that was reaped.",
        constants={"-w": "on", "--warn-reaped": "on"},
    ),
    Option(
        "verbose",
        count,
        "0",
        "Say more: each signal (-v), the agent's arguments too (-vv).",
        constants={"-v": "1", "--verbose": "1"},
        counted=True,
    ),
    Option(
        "quiet",
        count,
        "0",
        "Say less: warnings and errors only (-q), errors only (-qq).",
        constants={"-q": "1", "--quiet": "1"},
        counted=True,
    ),
    Option(
        "log_format",
        choice("text", "json"),
        "text",
        "Lines for people, or one JSON object a line.",
        metavar="text|json",
        flags=("--log-format",),
    ),
)

"""The ONE table of options, and the reader that process 1 uses.

From the table come: `read` here (what process 1 runs, in well under a millisecond, and what words every mistake), the
click command in `cli.py` (help, shell completion) and the README's option table, which a test holds to it.

Precedence: a flag, then its environment variable, then the default. An empty variable counts as not set.
"""

from .init import signals
from .init.signals import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

PREFIX = "AGENT_INIT_"
INFINITY = float("inf")
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
LONGEST = 366 * UNITS["d"]


class UsageError(Exception):
    """What was typed cannot be understood; the text is one line that names it and what is accepted."""


class InfoRequested(Exception):
    """Help, the version or a shell completion was asked for: `args[0]` is `help`, `version` or `complete`."""


# --- Values: each parser takes the text and returns the value, or raises ValueError saying what is accepted. ---------


def duration(text: str) -> float:
    """Seconds in `text`: `25s`, `1m30s`, `500ms`, `1.5h`, a bare number of seconds, or `infinity`."""
    if text == "infinity":
        return INFINITY
    seconds, number, rest = 0.0, "", text
    try:
        while rest:
            number = rest[: _span(rest, "0123456789.")]
            rest = rest[len(number) :]
            unit = rest[: _span(rest, "dhms")]
            rest = rest[len(unit) :]
            if not unit and number == text:  # a bare number
                unit = "s"
            seconds += float(number) * UNITS[unit]
    except (ValueError, KeyError):
        number = ""
    if not number:
        accepted = "25s, 1m30s, 500ms, 2h, a number of seconds, infinity"
        raise ValueError(f"{quote(text)} is not a duration; accepted: {accepted}")
    if seconds > LONGEST:
        raise ValueError(f"{quote(text)} is longer than a year; accepted: up to 366d, or infinity")
    return seconds


def _span(text: str, characters: str) -> int:
    return len(text) - len(text.lstrip(characters))


def grace(text: str) -> float | None:
    """A duration, or None for `auto`."""
    if text == "auto":
        return None
    try:
        return duration(text)
    except ValueError as error:
        raise ValueError(f"{error}, auto") from None


def limit(text: str) -> float | None:
    """A duration after which something happens; None for 0 and `infinity`: it never does."""
    seconds = duration(text)
    return seconds if 0 < seconds < INFINITY else None


def file_path(text: str) -> str | None:
    """An absolute path, or None for `none`."""
    if text == "none":
        return None
    if not text.startswith("/"):
        raise ValueError(f"{quote(text)} is no absolute path; accepted: one, or none")
    return text


def format_duration(seconds: float) -> str:
    """The other way round, for people: `1m30s`, `25s`, `2.5s`, `500ms`, `infinity`."""
    if seconds == INFINITY:
        return "infinity"
    if 0 < seconds < 0.9995:
        return f"{seconds * 1000:.3g}ms"
    if seconds < 59.95:
        return f"{seconds:.3g}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes else "") + (f"{rest}s" if rest else "")


def format_bytes(number: int) -> str:
    """For people: `64 MiB`, `1.5 GiB`."""
    return f"{number / (1 << 20):.3g} MiB" if number < 1 << 30 else f"{number / (1 << 30):.3g} GiB"


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
            steps[-1] = (steps[-1][0], duration(entry))
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
        duration,
        "infinity",
        "How far the agent may put off the last SIGKILL by asking for more time (EXTEND_TIMEOUT_USEC), counted from "
        "the stop request.",
        metavar="DURATION",
        flags=("--max-grace",),
    ),
    Option(
        "linger",
        duration,
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
        duration,
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
INFO_FLAGS = {"-h": "help", "--help": "help", "-V": "version", "--version": "version"}
COMPLETE_VARIABLE = "_AGENT_INIT_COMPLETE"

# Set for the agent, read by what runs in it: not ours to read.
STOP_SECONDS = PREFIX + "STOP_SECONDS"
RESPONDERS = PREFIX + "RESPONDERS"


REPORT_TIME = 1.5


def report_time(wait: float) -> float:
    """How much of the wait before a step is for a stall report, in seconds."""
    return min(REPORT_TIME, wait / 4)


class Settings:
    """What the user asked for, parsed; not to be changed. `sources` maps an option's name to where it came from.

    Durations are seconds, signals are numbers; `grace` is None for `auto`, `stop_schedule` None where it follows from
    the grace and the stop signal; `log_level` is 0 for warnings and errors, higher for more, -1 for errors only.
    """

    __slots__ = (
        *(option.name for option in OPTIONS if option.name not in ("verbose", "quiet")),
        "command",
        "log_level",
        "sources",
        "unknown",
    )

    if TYPE_CHECKING:
        grace: float | None
        max_grace: float
        linger: float
        stop_signal: int
        stop_schedule: tuple[tuple[int, float], ...] | None
        stop_on: frozenset[int]
        stop_delay: float
        repeat: str
        rewrite: dict[int, int]
        target: str
        unhandled: str
        subreaper: bool | None
        parent_death_signal: int | None
        ok_exit: frozenset[int]
        notify: bool
        notify_access: str
        watchdog: float | None
        ready_timeout: float | None
        stacks: bool
        termination_log: str | None
        warn_reaped: bool
        log_level: int
        log_format: str
        command: tuple[str, ...]
        sources: dict[str, str]
        unknown: tuple[str, ...]

    def __init__(self, **values: "Any") -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"settings do not change: {name}")

    @property
    def stop_seconds(self) -> float | None:
        """What the agent has from its stop signal on until we begin to act, in seconds; None: not for us to say."""
        whole = self.stop_schedule[0][1] if self.stop_schedule else self.grace
        if whole is None:
            return None
        wait = max(0.0, whole - self.stop_delay)
        return wait - report_time(wait)


# --- The reader. ----------------------------------------------------------------------------------------------------


def read(arguments: "Sequence[str]", environment: "Mapping[str, str]") -> Settings:
    """The settings in a command line (without the program's name) and an environment.

    Raises UsageError, or InfoRequested for help, version and completion.
    """
    if environment.get(COMPLETE_VARIABLE):
        raise InfoRequested("complete")
    texts: dict[str, list[str]] = {}
    sources: dict[str, str] = {}
    command = _read_flags(arguments, texts, sources)
    unknown = _read_variables(environment, texts, sources)
    if "stop_schedule" in texts:
        _exclude_schedule(texts, sources)

    values: dict[str, Any] = {}
    for option in OPTIONS:
        parsed = []
        for text in texts.get(option.name, () if option.default is None else (option.default,)):
            try:
                parsed.append(option.parse(text))
            except ValueError as error:
                raise UsageError(f"{sources[option.name]}: {error}") from None
        last = parsed[-1] if parsed else None
        values[option.name] = parsed if option.many else sum(parsed) if option.counted else last
    if not command:
        raise UsageError("no command was given; usage: agent-init [OPTIONS] [--] COMMAND [ARG]...")

    if not values["stop_on"] and "unhandled" not in sources:
        values["unhandled"] = "forward"
    values["rewrite"] = dict(values["rewrite"])
    values["ok_exit"] = frozenset(values["ok_exit"])
    values["log_level"] = max(-1, 1 + values.pop("verbose") - values.pop("quiet"))
    settings = Settings(**values, command=command, sources=sources, unknown=unknown)
    _refuse_contradictions(settings)
    return settings


def _refuse_contradictions(settings: Settings) -> None:
    """Raises UsageError where one option takes away what another asks for."""
    source = settings.sources
    for name in ("watchdog", "ready_timeout", "notify_access"):
        if name in source and not settings.notify and getattr(settings, name) is not None:
            raise UsageError(f"{source[name]} needs the notify socket, which {source['notify']} takes away")
    steps = settings.stop_schedule
    whole = sum(wait for _, wait in steps[:-1]) if steps else settings.grace
    if whole is not None and settings.max_grace < whole < INFINITY:
        raise UsageError(
            f"{source['max_grace']}: {format_duration(settings.max_grace)} is less than the {format_duration(whole)} "
            f"of {source['stop_schedule' if steps else 'grace']}; accepted: as much, or more"
        )


def _read_flags(arguments: "Sequence[str]", texts: dict[str, list[str]], sources: dict[str, str]) -> tuple[str, ...]:
    """Take the options from the front of `arguments`; what is left is the command."""
    taking = {flag: option for option in OPTIONS for flag in option.flags}
    constant = {flag: option for option in OPTIONS for flag in option.constants}
    words = list(arguments)
    while words and words[0].startswith("-") and words[0] != "-":
        word = words.pop(0)
        if word == "--":
            break
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
            rest: str | None = value if equals else None
        else:
            flag, rest = word[:2], word[2:] or None
        if flag in taking:
            if rest is None:
                if not words:
                    raise UsageError(f"{flag} needs a value: {taking[flag].metavar}")
                rest = words.pop(0)
            texts.setdefault(taking[flag].name, []).append(rest)
            sources[taking[flag].name] = flag
            continue
        if rest is not None and word.startswith("--") and (flag in constant or flag in INFO_FLAGS):
            raise UsageError(f"{flag} takes no value, {quote(rest)} was given")
        if flag in INFO_FLAGS:
            raise InfoRequested(INFO_FLAGS[flag])
        if flag not in constant:
            known = [*taking, *constant, *INFO_FLAGS]
            near = nearest(flag, [name for name in known if name.startswith("--") == flag.startswith("--")])
            hint = f"did you mean {near}? " if near else ""
            raise UsageError(f"there is no option {quote(flag)}; {hint}all options: agent-init --help")
        option = constant[flag]
        texts.setdefault(option.name, []).append(option.constants[flag])
        sources[option.name] = flag
        if rest is not None:  # bundled: what is left of -vvg
            words.insert(0, "-" + rest)
    return tuple(words)


def _read_variables(
    environment: "Mapping[str, str]", texts: dict[str, list[str]], sources: dict[str, str]
) -> tuple[str, ...]:
    """Fill in from the environment what no flag has said; returns those with our prefix that are none of ours."""
    ours = {option.variable: option for option in OPTIONS}
    unknown = []
    for variable in environment:
        if not variable.startswith(PREFIX) or variable in (STOP_SECONDS, RESPONDERS):
            continue
        if variable not in ours:
            unknown.append(variable)
        elif (text := environment[variable]) and ours[variable].name not in texts:
            option = ours[variable]
            texts[option.name] = text.replace(",", " ").split() if option.many else [text]
            sources[option.name] = variable
    return tuple(unknown)


def _exclude_schedule(texts: dict[str, list[str]], sources: dict[str, str]) -> None:
    """A schedule says what --grace and --stop-signal say: from the same source they contradict, else the flag wins."""
    chosen = sources["stop_schedule"]
    for name in ("grace", "stop_signal"):
        other = sources.get(name)
        if other is None:
            continue
        if other.startswith("-") == chosen.startswith("-"):
            raise UsageError(f"{chosen} and {other} exclude each other: the schedule holds signals and waits already")
        loser = name if chosen.startswith("-") else "stop_schedule"
        texts.pop(loser, None)
        sources.pop(loser, None)


def nearest(word: str, known: "Iterable[str]") -> str | None:
    """The one of `known` that `word` was most likely meant to be, or None where nothing is near."""
    ranked = sorted((_edits(word, other), other) for other in known)
    return ranked[0][1] if ranked and ranked[0][0] <= max(1, len(word.removeprefix(PREFIX)) // 3) else None


def _edits(a: str, b: str) -> int:
    """Levenshtein's distance; `difflib` would import `re`."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]

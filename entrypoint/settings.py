"""The settings, read from the command line and the environment with the table in `options`.

Precedence: a flag, then its environment variable, then the default. An empty variable counts as not set.
"""

import posix

from .options import OPTIONS
from .parsed import PREFIX, RESPONDERS, STOP_SECONDS, InfoRequested, Settings, UsageError
from .signals import name_of, quote
from .units import INFINITY, format_duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

INFO_FLAGS = {"-h": "help", "--help": "help", "-V": "version", "--version": "version"}
COMPLETE_VARIABLE = "_AGENT_INIT_COMPLETE"


# Variables of tini and dumb-init, left in an image whose entrypoint was switched to ours: the value that counts (None:
# any, even an empty one), and the option and its text that mean the same. Sources: parse_env in tini's src/tini.c, and
# parse_command in dumb-init's dumb-init.c, which compares with just these values.
OTHER_INITS = (
    ("TINI_KILL_PROCESS_GROUP", None, "target", "group"),
    ("DUMB_INIT_SETSID", "0", "target", "child"),
    ("TINI_SUBREAPER", None, "subreaper", "on"),
    ("TINI_VERBOSITY", None, "verbose", ""),  # see _tini_verbosity
    ("DUMB_INIT_DEBUG", "1", "verbose", "1"),
)


# --- The reader. ----------------------------------------------------------------------------------------------------


def read(arguments: "Sequence[str]", environment: "Mapping[str, str]") -> Settings:
    """Return the settings from a command line (without the program's name) and an environment.

    Raises UsageError for bad usage, and InfoRequested for help, version and completion.
    """
    if environment.get(COMPLETE_VARIABLE):
        raise InfoRequested("complete")
    texts: dict[str, list[str]] = {}
    sources: dict[str, str] = {}
    command = _read_flags(arguments, texts, sources)
    unknown = _read_variables(environment, texts, sources)
    _read_other_inits(environment, texts, sources)
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
        raise UsageError("no command given; usage: agent-init [OPTIONS] [--] COMMAND [ARG]...")

    if not values["stop_on"] and "unhandled" not in sources:
        values["unhandled"] = "forward"
    values["rewrite"] = dict(values["rewrite"])
    values["ok_exit"] = frozenset(values["ok_exit"])
    values["secret"] = tuple(dict.fromkeys(values["secret"]))
    values["log_level"] = max(-1, 1 + values.pop("verbose") - values.pop("quiet"))
    values["stacks"] = values["stacks"] or (values["loop_watch"] is not None and "stacks" not in sources)
    values["unknown"] = {name: nearest(name, [option.variable for option in OPTIONS]) for name in unknown}
    settings = Settings(**values, command=command, sources=sources)
    _refuse_contradictions(settings)
    return settings


def _refuse_contradictions(settings: Settings) -> None:
    """Raise UsageError if one option turns off what another one needs."""
    source = settings.sources
    for name in ("watchdog", "ready_timeout", "notify_access"):
        if name in source and not settings.notify and getattr(settings, name) is not None:
            raise UsageError(f"{source[name]} needs the notify socket, which {source['notify']} turns off")
    if settings.loop_watch is not None and not settings.stacks:
        raise UsageError(f"{source['loop_watch']} needs the stacks, which {source['stacks']} turns off")
    if settings.ready_file is not None and not settings.notify:
        raise UsageError(f"{source['ready_file']} needs the notify socket, which {source['notify']} turns off")
    if both := settings.report_on & settings.stop_on:
        name = name_of(min(both))
        raise UsageError(f"{source['report_on']}: {name} requests a stop; accepted: signals that do not (--stop-on)")
    if settings.orphans is not None and settings.subreaper is False and posix.getpid() != 1:
        raise UsageError(f"{source['orphans']} needs orphans to be adopted, which {source['subreaper']} turns off")
    steps = settings.stop_schedule
    whole = sum(wait for _, wait in steps[:-1]) if steps else settings.grace
    if whole is not None and settings.max_grace < whole < INFINITY:
        raise UsageError(
            f"{source['max_grace']}: {format_duration(settings.max_grace)} is less than the {format_duration(whole)} "
            f"of {source['stop_schedule' if steps else 'grace']}; accepted: the same or more"
        )


def _read_flags(arguments: "Sequence[str]", texts: dict[str, list[str]], sources: dict[str, str]) -> tuple[str, ...]:
    """Parse the options at the front of `arguments` and return the rest, which is the command."""
    taking = {flag: option for option in OPTIONS for flag in option.flags}
    constant = {flag: option for option in OPTIONS for flag in option.constants}
    remaining = list(arguments)
    while remaining and remaining[0].startswith("-") and remaining[0] != "-":
        argument = remaining.pop(0)
        if argument == "--":
            break
        if argument.startswith("--"):
            flag, equals, value = argument.partition("=")
            rest: str | None = value if equals else None
        else:
            flag, rest = argument[:2], argument[2:] or None
        if flag in taking:
            if rest is None:
                if not remaining:
                    raise UsageError(f"{flag} needs a value: {taking[flag].metavar}")
                rest = remaining.pop(0)
            texts.setdefault(taking[flag].name, []).append(rest)
            sources[taking[flag].name] = flag
            continue
        if rest is not None and argument.startswith("--") and (flag in constant or flag in INFO_FLAGS):
            raise UsageError(f"{flag} takes no value, but got {quote(rest)}")
        if flag in INFO_FLAGS:
            raise InfoRequested(INFO_FLAGS[flag])
        if flag not in constant:
            known = [*taking, *constant, *INFO_FLAGS]
            near = nearest(flag, [name for name in known if name.startswith("--") == flag.startswith("--")])
            hint = f"did you mean {near}? " if near else ""
            raise UsageError(f"unknown option {quote(flag)}; {hint}all options: agent-init --help")
        option = constant[flag]
        texts.setdefault(option.name, []).append(option.constants[flag])
        sources[option.name] = flag
        if rest is not None:  # a bundle: the rest of -vvg
            remaining.insert(0, "-" + rest)
    return tuple(remaining)


def _read_variables(
    environment: "Mapping[str, str]", texts: dict[str, list[str]], sources: dict[str, str]
) -> tuple[str, ...]:
    """Add values from the environment for options without a flag. Returns the variables that may be misspelt ones."""
    ours = {option.variable: option for option in OPTIONS}
    unknown = []
    for variable in environment:
        if not variable.startswith(PREFIX) or variable in (STOP_SECONDS, RESPONDERS):
            continue
        if variable not in ours:
            if not _is_service_link(variable, environment[variable]):
                unknown.append(variable)
        elif (text := environment[variable]) and ours[variable].name not in texts:
            option = ours[variable]
            texts[option.name] = text.replace(",", " ").split() if option.many else [text]
            sources[option.name] = variable
    return tuple(unknown)


def _read_other_inits(environment: "Mapping[str, str]", texts: dict[str, list[str]], sources: dict[str, str]) -> None:
    """Add what the variables of tini and dumb-init mean, for options without a flag or a variable of ours."""
    for variable, accepted, name, text in OTHER_INITS:
        value = environment.get(variable)
        if value is None or accepted not in (None, value):
            continue
        if variable == "TINI_VERBOSITY":
            name, text = _tini_verbosity(value)
        if name not in sources and (name not in ("verbose", "quiet") or not {"verbose", "quiet"} & sources.keys()):
            texts[name], sources[name] = [text], variable


def _tini_verbosity(text: str) -> tuple[str, str]:
    """Return the option and its text for a TINI_VERBOSITY: 0 errors, 1 warnings (its default), 2 info, 3 each signal.

    tini reads it with atoi(3) into an unsigned number: no digits mean 0, and a negative number is a large one. Its 4
    does not mean our -vv, which logs the agent's arguments: tini never logs those.
    """
    text = text.lstrip(" \t\n\v\f\r")
    digits = text.removeprefix("+")
    digits = digits[: len(digits) - len(digits.lstrip("0123456789"))]
    negative = text[:1] == "-" and text[1:2].isdigit()
    level = 3 if negative or len(digits) > 9 else min(int(digits or "0"), 3)
    return ("quiet", str(2 - level)) if level < 2 else ("verbose", str(level - 2))


def _is_service_link(variable: str, value: str) -> bool:
    """Whether Kubernetes made the variable for a Service called `agent-init`, or whose name begins with `agent-init-`.

    kubelet sets these for each Service of the namespace, as Docker does for a container's links
    (https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables):

        ..._SERVICE_HOST    ..._SERVICE_PORT    ..._SERVICE_PORT_<name of the port>
        ..._PORT=tcp://10.0.0.11:80    ..._PORT_80_TCP    ..._PORT_80_TCP_PROTO, _PORT and _ADDR
    """
    if variable.endswith("_SERVICE_HOST") or "_SERVICE_PORT_" in variable + "_":
        return True
    if variable.endswith("_PORT") and "://" in value:
        return True
    words = variable.split("_")
    return any(
        words[i] == "PORT"
        and words[i + 1].isdigit()
        and words[i + 2] in ("TCP", "UDP", "SCTP")
        and words[i + 3 :] in ([], ["PROTO"], ["PORT"], ["ADDR"])
        for i in range(len(words) - 2)
    )


def _exclude_schedule(texts: dict[str, list[str]], sources: dict[str, str]) -> None:
    """Refuse a schedule beside --grace or --stop-signal: it replaces both. If only one is a flag, that one wins."""
    chosen = sources["stop_schedule"]
    for name in ("grace", "stop_signal"):
        other = sources.get(name)
        if other is None:
            continue
        if other.startswith("-") == chosen.startswith("-"):
            raise UsageError(f"{chosen} and {other} exclude each other: the schedule already has the signals and waits")
        loser = name if chosen.startswith("-") else "stop_schedule"
        texts.pop(loser, None)
        sources.pop(loser, None)


def nearest(name: str, known: "Iterable[str]") -> str | None:
    """Return the one of `known` that is most like the misspelt `name`, or None if none is close."""
    ranked = sorted((_edit_distance(name, other), other) for other in known)
    return ranked[0][1] if ranked and ranked[0][0] <= max(1, len(name.removeprefix(PREFIX)) // 3) else None


def _edit_distance(a: str, b: str) -> int:
    """Return the Levenshtein distance. `difflib` does the like, but imports `re`, which costs start time."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]

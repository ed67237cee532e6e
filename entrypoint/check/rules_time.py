"""Rules about the time of a stop: what the platform, agent-init and the program have each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import signals
from ..parsed import KILL_BEFORE_PLATFORM
from ..units import INFINITY, format_duration
from . import frameworks
from .case import ERROR, NOTE, WARNING, Case, Finding
from .model import COMPOSE, FLY, IMAGE, KUBERNETES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .source import Place

LONGEST_CALL = 600.0  # seconds, in the lines that are proposed; nobody but the author knows the right figure
LONGEST_TASK = 60.0
LIVEKIT_END = 28.0  # from the end of LiveKit's drain to that of the worker, at most: docs/agents.md
STOPS = ("TERM", "INT", "QUIT")  # what servers and workers may take as a request to stop


def grace_above_platform(case: Case) -> Iterator[Finding]:
    """agent-init's deadline comes after the platform's: the log does not explain the end."""
    left, settings = case.container.seconds_after_hook, case.settings
    if left is None or settings is None:
        return
    waits = _platform_waits(case)
    if case.deadline is not None and case.deadline >= left:
        option = "stop_schedule" if settings.stop_schedule is not None else "grace"
        if settings.grace is None and settings.stop_schedule is None:
            option = "platform_grace"
        name = f"AGENT_INIT_{option.upper()}"
        reason = (
            f"{waits}: it kills the agent before agent-init does ({format_duration(case.deadline)}), without a log line"
        )
        yield Finding("grace-above-platform", ERROR, case.place_of(option), reason, _either(case, name, left))
    elif "max_grace" in settings.sources and left <= settings.max_grace < INFINITY and settings.platform_grace is None:
        reason = f"{waits}, so AGENT_INIT_MAX_GRACE of {format_duration(settings.max_grace)} is never reached"
        remedy = case.grace_line(settings.max_grace + KILL_BEFORE_PLATFORM)
        yield Finding("grace-above-platform", WARNING, case.place_of("max_grace"), reason, remedy)
    elif settings.platform_grace is not None and settings.platform_grace > left:
        reason = f"{waits}, not {format_duration(settings.platform_grace)}"
        remedy = case.option_line("platform_grace", format_duration(left))
        yield Finding("grace-above-platform", WARNING, case.place_of("platform_grace"), reason, remedy)


def _platform_waits(case: Case) -> str:
    whole, left = case.container.seconds, case.container.seconds_after_hook
    assert whole is not None
    assert left is not None
    default = " by default" if case.container.grace is None else ""
    waits = f"{case.platform.name} waits {format_duration(whole)}{default}"
    if left == whole:
        return waits
    most = "" if case.container.hook_is_known else "at most "
    return f"{waits}, {most}{format_duration(left)} after the preStop hook"


def _either(case: Case, name: str, left: float) -> str:
    """Return the line for the side that is too small, or for agent-init's if the platform's was set."""
    if case.container.grace is None and case.deadline is not None:
        wanted = case.deadline + KILL_BEFORE_PLATFORM
        if wanted <= (case.container.maximum or INFINITY):
            return case.grace_line(wanted)
    if name == "AGENT_INIT_GRACE":
        return _own_grace(case, left)
    return case.option_line("platform_grace", format_duration(left))


def _own_grace(case: Case, left: float) -> str:
    """Return the line that has agent-init send KILL before the platform does."""
    return case.option_line("grace", format_duration(left - min(KILL_BEFORE_PLATFORM, left / 4)))


def grace_one_side(case: Case) -> Iterator[Finding]:
    """Only the platform's figure was set: agent-init cannot explain the end."""
    grace, settings, left = case.container.grace, case.settings, case.container.seconds_after_hook
    if grace is None or settings is None or left is None or case.platform.wait is None or left <= KILL_BEFORE_PLATFORM:
        return
    if case.deadline is not None or "grace" in settings.sources or settings.stop_schedule is not None:
        return
    if not case.container.environment_is_known or not case.container.hook_is_known:
        return
    waits = _platform_waits(case)
    reason = f"{waits}, and agent-init has no grace: when the time is over, the log does not name what is left"
    yield Finding("grace-one-side", NOTE, grace.place, reason, _own_grace(case, left))


def delay_too_long(case: Case) -> Iterator[Finding]:
    """The stop delay leaves no time for the stop signal."""
    left, settings = case.container.seconds_after_hook, case.settings
    if left is None or settings is None or not settings.stop_delay or settings.stop_delay < left:
        return
    reason = f"{_platform_waits(case)}: the agent is killed before it gets its stop signal"
    wanted = settings.stop_delay + 30
    remedy = case.grace_line(wanted)
    if wanted > (case.container.maximum or INFINITY):
        remedy = case.option_line("stop_delay", format_duration(left / 2))
    yield Finding("delay-too-long", ERROR, case.place_of("stop_delay"), reason, remedy)


def prestop_too_long(case: Case) -> Iterator[Finding]:
    """The preStop hook uses up the whole grace."""
    hook, whole = case.container.hook, case.container.seconds
    if hook is None or whole is None or not hook.seconds or hook.seconds < whole:
        return
    default = " (the default)" if case.container.grace is None else ""
    reason = (
        f"the hook sleeps {format_duration(hook.seconds)} and the pod has {format_duration(whole)}{default}: "
        "the agent gets 2s after TERM"
    )
    yield Finding("prestop-too-long", ERROR, hook.place, reason, case.grace_line(30))


def platform_maximum(case: Case) -> Iterator[Finding]:
    """The platform waits no longer than its maximum."""
    grace, maximum = case.container.grace, case.container.maximum
    if grace is None or maximum is None or grace.value <= maximum:
        return
    reason = f"{case.platform.name} waits {format_duration(maximum)} at most"
    yield Finding("platform-maximum", ERROR, grace.place, reason, case.grace_line(maximum))


def drain_too_short(case: Case) -> Iterator[Finding]:
    """The program's own limit for its work is longer than the platform or agent-init waits."""
    use, time = case.use, case.time
    if use is None or time is None:
        return
    seconds, why = time
    if use.seconds is not None and (use.seconds > seconds or (use.is_livekit and use.seconds == seconds)):
        reason = (
            f"{use.framework.name} may finish its work for {format_duration(use.seconds)} ({use.written}), but {why}"
        )
        wanted = use.seconds + (LIVEKIT_END if use.is_livekit else 5)
        yield Finding("drain-too-short", WARNING, _place_of_time(case), reason, _longer(case, wanted))
    elif use.is_livekit and case.container.grace_is_default and case.platform is not IMAGE:
        if case.deadline is not None and case.deadline < (case.container.seconds or 0):
            return
        reason = f"{why}: a longer call is cut, nothing of it is saved, and the caller hears 20s of silence"
        yield Finding("drain-too-short", WARNING, _place_of_time(case), reason, _longer(case, LONGEST_CALL))


def _place_of_time(case: Case) -> Place:
    return case.container.grace.place if case.container.grace else case.container.place


def _longer(case: Case, seconds: float) -> str:
    if case.platform is IMAGE:
        return case.option_line("grace", format_duration(seconds))
    return case.grace_line(seconds)


def default_grace(case: Case) -> Iterator[Finding]:
    """A queue's worker has only the platform's default for its task."""
    use, time, container = case.use, case.time, case.container
    if use is None or time is None or use.framework.work != frameworks.TASKS or use.seconds is not None:
        return
    if not container.grace_is_default:
        return
    reason = f"{time[1]}: {use.framework.name} finishes its tasks, but a longer one is killed"
    yield Finding("default-grace", NOTE, container.place, reason, _longer(case, LONGEST_TASK))


def livekit_drain_timeout(case: Case) -> Iterator[Finding]:
    """A LiveKit worker waits longer for its calls than the platform waits for it, and cannot end them itself."""
    use, time = case.use, case.time
    if use is None or not use.is_livekit or time is None or use.written or case.platform is IMAGE:
        return
    seconds, why = time
    if case.container.grace_is_default:  # then the line for that is one with a longer figure
        if case.deadline is not None:
            return
        seconds = min(LONGEST_CALL, case.container.maximum or LONGEST_CALL)
    if use.command != "start" or not 40 < seconds < 3600 or not case.container.hook_is_known:
        return
    reason = f"{why}, and LiveKit drains for up to 1h: a longer call is killed. A limit of its own lets it end the call"
    remedy = case.replaced("start", "start", "--drain-timeout", f"{seconds - LIVEKIT_END:.0f}")
    yield Finding("livekit-drain-timeout", NOTE, case.container.words_place, reason, remedy)


def livekit_dev(case: Case) -> Iterator[Finding]:
    """`dev` does not drain."""
    use = case.use
    if use is None or not use.is_livekit or use.command != "dev":
        return
    severity = NOTE if case.platform is COMPOSE else WARNING
    remedy = case.replaced("dev", "start")
    reason = "`dev` does not drain: at a stop every call is over at once"
    yield Finding("livekit-dev", severity, case.container.words_place, reason, remedy)


def stop_signal(case: Case) -> Iterator[Finding]:
    """The stop signal is none that the program finishes its work for."""
    given = case.container.signal
    framework = case.use.framework if case.use else None
    if given is None and framework is not None and "INT" in framework.quick:
        yield from _default_of_fly(case, framework.name)
    if given is None or "$" in given.value:
        return
    try:
        number = signals.parse(given.value)
    except ValueError:
        accepted = "a signal's name or number, such as SIGTERM"
        yield Finding("stop-signal", ERROR, given.place, f"{given.value!r} is not a signal; accepted: {accepted}")
        return
    name = signals.name_of(number)
    if number in (signals.KILL, signals.STOP):
        reason = f"{name} cannot be handled: the agent gets no time to finish its work"
        yield Finding("stop-signal", ERROR, given.place, reason, _signal_line(case, "TERM"))
        return
    if case.settings is not None:
        if number in case.settings.stop_on or number in case.settings.rewrite:
            return
        if number not in (signals.HUP, signals.QUIT):
            reason = (
                f"agent-init does not take {name} as a stop request (--stop-on): nothing stops until the platform kills"
            )
            yield Finding("stop-signal", ERROR, given.place, reason, _signal_line(case, "TERM"))
            return
    if framework is not None and name in framework.quick:
        reason = f"{framework.name} takes {name} as a request to quit now: the work in hand is lost"
        yield Finding("stop-signal", WARNING, given.place, reason, _signal_line(case, framework.stop))
    elif framework is not None and name not in STOPS and not case.expects_agent_init:
        reason = f"{framework.name} does not take {name} as a stop request: it goes on until it is killed"
        yield Finding("stop-signal", WARNING, given.place, reason, _signal_line(case, framework.stop))


def _default_of_fly(case: Case, name: str) -> Iterator[Finding]:
    if case.platform is not FLY or case.expects_agent_init:
        return
    reason = f"Fly.io sends SIGINT unless kill_signal is set: {name} takes that as a request to quit now"
    yield Finding("stop-signal", NOTE, case.container.words_place, reason, 'kill_signal = "SIGTERM"')


def term_loses_work(case: Case) -> Iterator[Finding]:
    """A program that finishes its work for INT, and not for TERM, gets TERM."""
    use, given = case.use, case.container.signal
    if use is None or use.framework.stop == "TERM":
        return
    own = case.settings
    if own is not None:
        if own.stop_signal == signals.INT or own.stop_schedule or own.rewrite or "TERM" not in use.framework.quick:
            return
        remedy = case.option_line("stop_signal", "INT")
    elif case.expects_agent_init or given is not None or case.platform is FLY or not case.container.words:
        return
    else:
        remedy = _signal_line(case, "INT")
    reason = f"{use.framework.name} finishes its work for INT; TERM loses it"
    yield Finding("term-loses-work", WARNING, case.container.words_place, reason, remedy)


def _signal_line(case: Case, name: str) -> str:
    given = case.container.stop_signal
    if given is not None or not case.container.image_is_known:
        if case.platform is COMPOSE:
            return f"stop_signal: SIG{name}"
        if case.platform is FLY:
            return f'kill_signal = "SIG{name}"'
        if case.platform is KUBERNETES and given is not None:
            return f"stopSignal: SIG{name}"
    return f"STOPSIGNAL SIG{name}"

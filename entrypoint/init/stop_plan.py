"""How a stop goes, in signals and seconds: the arithmetic of it, on the steps of `stop_steps`.

Where a platform ends the container by itself, a default of ours must not cut calls short because an operator raised
the platform's figure and forgot ours. There `auto` means: no deadline of ours, and one report just before the limit
that the platform has unless raised. But the platform does not end a stop that it has not requested. The platform's
limit is the deadline of such a stop, and of every stop of an agent-init that was started by hand inside a container.
Not on Kubernetes, where the request may be part of a stop: a preStop hook is another process of the container.

Where the operator has told us the platform's figure (--platform-grace), there is a deadline of ours just before it.
"""

from ..platforms import DEFAULT_GRACE, KUBERNETES, SIGNAL_EVERY_PROCESS, is_there, recognise
from ..settings import UsageError
from ..signals import KILL, name_of
from ..units import INFINITY, format_duration
from .stop_steps import (
    MAX_REPORT_SECONDS,
    max_report_seconds,
    own_steps,
    report_seconds,
    seconds_to_kill,
    stop_signal,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..settings import Settings
    from .stop_steps import Steps

OUTSIDE, INSIDE, KERNEL = "outside", "inside", "kernel"  # where a stop request comes from, see `request_origin`
REPORT_BEFORE_LIMIT = 2.0  # seconds before the platform's limit; the report has to be complete by then
LAST_TERM_BEFORE_KILL = 2.0  # seconds; TERM to a process that was sent INT and has not exited
MIN_REPORT_SECONDS = 0.2  # in less time there is no report


class StopPlan:
    """The steps of a stop, and who ends it when time is up.

    `adapts`: the first step is TERM, or INT for a process that handles INT and not TERM. `steps`: signals, each with
    the wait that follows it, as `options.schedule` returns them. `grace`: seconds to the KILL, or infinity.
    `max_grace`: the same if the agent asks for more time. `why`: the grace and where it came from, as text for the
    first log line.

    `limit`: seconds that the platform waits by default where it ends the stop and we do not, else None.
    `limit_is_certain`: this limit was set for the container. `limit_report_after`: seconds from the request to the one
    report then. `report_seconds`: what a report may take. `platform`: its name and limit, as text. `waits`: how long it
    waits, as text. `has_hooks`: it may request the stop from inside. `platform_signals_all`: its name, if it sends TERM
    to every process itself.
    """

    __slots__ = (
        "adapts",
        "grace",
        "has_hooks",
        "limit",
        "limit_is_certain",
        "limit_report_after",
        "max_grace",
        "platform",
        "platform_signals_all",
        "report_seconds",
        "steps",
        "waits",
        "why",
    )

    def __init__(
        self,
        steps: tuple[tuple[int, float], ...],
        why: str,
        *,
        platform: str = "",
        limit: float | None = None,
    ) -> None:
        self.steps, self.why, self.platform, self.limit = steps, why, platform, limit
        self.allow_report(None)
        self.grace = seconds_to_kill(steps)
        self.max_grace = INFINITY
        self.adapts = self.has_hooks = self.limit_is_certain = False
        self.platform_signals_all = self.waits = ""

    def allow_report(self, cpus: float | None) -> None:
        """Give reports the time that they take with so many processors; None: enough."""
        self.report_seconds = max_report_seconds(cpus)
        before = REPORT_BEFORE_LIMIT + self.report_seconds - MAX_REPORT_SECONDS
        self.limit_report_after = None if self.limit is None else max(0.0, self.limit - before)

    def report_before(self, wait: float) -> float:
        """Return how much of the wait before a step is for a stall report, in seconds."""
        return report_seconds(wait, self.report_seconds)


def make(
    settings: "Settings",
    environment: "Mapping[str, str]",
    exists: "Callable[[str], bool]" = is_there,
    *,
    by_hand: bool = False,
) -> StopPlan:
    """Return the plan of a stop. Raises UsageError when the stop delay leaves no time for the stop signal.

    `by_hand`: agent-init was started inside a container that runs another program.
    """
    source = settings.sources.get
    platform = recognise(environment, exists)
    steps = own_steps(settings)
    if steps is not None:
        made = StopPlan(steps, _why(settings, steps))
    elif platform is not None:
        made = _of_platform(settings, *platform, by_hand=by_hand)
    else:
        steps = ((stop_signal(settings), DEFAULT_GRACE), (KILL, INFINITY))
        why = f"no platform recognised; {_not_set(settings)}"
        made = StopPlan(steps, f"grace {format_duration(DEFAULT_GRACE)} ({why})")
    made.max_grace = min(settings.max_grace, settings.latest_kill)
    made.adapts = settings.stop_signal is None and settings.stop_schedule is None
    if platform is not None and platform[0] in SIGNAL_EVERY_PROCESS:
        made.platform_signals_all = platform[0]
    first = made.steps[0][1]
    if settings.stop_delay and settings.stop_delay >= first:
        raise UsageError(
            f"{source('stop_delay')}: {format_duration(settings.stop_delay)} leaves no time for the stop signal; "
            f"accepted: a finite time of less than {format_duration(first)} ({made.why})"
        )
    return made


def _of_platform(settings: "Settings", name: str, seconds: float, whose: str, *, by_hand: bool) -> StopPlan:
    signal, limit = stop_signal(settings), format_duration(seconds)
    if by_hand and name != KUBERNETES:
        why = f"that of {name}, which does not stop what was started inside the container; {_not_set(settings)}"
        return StopPlan(((signal, settings.stop_delay + seconds), (KILL, INFINITY)), f"grace {limit}, {why}")
    aside = ", which may not stop what was started inside the container" if by_hand else ""
    why = f"grace: {name}'s own, {limit} {whose}{aside}; {_not_set(settings)}"
    steps = ((signal, INFINITY), (KILL, INFINITY))
    made = StopPlan(steps, why, platform=f"{name} ({limit} {whose})", limit=seconds)
    made.has_hooks = name == KUBERNETES
    made.limit_is_certain = whose == "as set"
    made.waits = f"{name} {'' if made.limit_is_certain else 'usually '}waits {limit}"
    return made


def _why(settings: "Settings", steps: "Steps") -> str:
    source = settings.sources.get
    platform = ""
    if settings.platform_grace is not None:
        platform = f"{format_duration(settings.platform_grace)} of the platform ({source('platform_grace')})"
    if settings.stop_schedule is not None:
        why = f"schedule {_as_text(settings.stop_schedule)} ({source('stop_schedule')})"
        return why if steps == settings.stop_schedule else f"{why}, cut to end before the {platform}"
    grace = f"grace {format_duration(steps[0][1])}"
    if settings.grace is None:
        return f"{grace}, to end before the {platform}; {_not_set(settings)}"
    if steps[0][1] < settings.grace:
        return f"{grace}, not {format_duration(settings.grace)} ({source('grace')}), to end before the {platform}"
    return f"{grace} ({source('grace')})"


def of_a_hang(plan: StopPlan, signal: int) -> "Steps":
    """Return the steps for an agent that hangs: `signal` for the stop signal, and always an end.

    Nobody else ends a hung agent: a wait without an end becomes the default grace, and the last step is KILL.
    """
    steps = [(number, DEFAULT_GRACE if wait == INFINITY else wait) for number, wait in plan.steps]
    steps[0] = (signal, steps[0][1])
    if len(steps) == 1 or steps[-1][0] != KILL:
        steps.append((KILL, INFINITY))
    return steps


def unknown_to_platform(plan: StopPlan, delay: float) -> "Steps":
    """Return the steps of a stop that the platform did not request, and so does not end: its limit becomes ours.

    It counts from the stop signal, after `delay` seconds.
    """
    assert plan.limit is not None
    return [(plan.steps[0][0], delay + plan.limit), (KILL, INFINITY)]


def with_grace(plan: StopPlan, grace: float) -> "Steps":
    """Return the steps of a stop with another grace, no longer than is allowed."""
    return [(plan.steps[0][0], min(grace, plan.max_grace)), (KILL, INFINITY)]


def time_of_last_term(now: float, kill: float) -> float:
    """Return when a process that was sent INT gets TERM as well: some seconds before the KILL, half-way at most."""
    return max(kill - LAST_TERM_BEFORE_KILL, middle(now, kill))


def middle(start: float, end: float) -> float:
    """Return the time half-way between two times."""
    return start + (end - start) / 2


def _not_set(settings: "Settings") -> str:
    return "--grace auto" if "grace" in settings.sources else "AGENT_INIT_GRACE not set"


def _as_text(steps: "Steps") -> str:
    texts = [text for number, wait in steps for text in (name_of(number), format_duration(wait))]
    return "/".join(texts[:-1])

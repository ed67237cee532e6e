"""How a stop goes, in signals and seconds: the arithmetic of it, on the steps of `stop_steps`.

`planning` makes the plan.
"""

from ..platforms import DEFAULT_GRACE
from ..signals import KILL
from ..units import INFINITY
from .stop_steps import MAX_REPORT_SECONDS, max_report_seconds, report_seconds, seconds_to_kill

TYPE_CHECKING = False
if TYPE_CHECKING:
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

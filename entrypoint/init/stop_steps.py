"""The steps of a stop as the settings have them. The agent's start waits for this, and not for the rest of the plan."""

from ..signals import KILL, TERM
from ..units import INFINITY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..parsed import Settings

    Steps = Sequence[tuple[int, float]]  # signals, each with the seconds to wait after it

MAX_REPORT_SECONDS = 1.5
# With less than ENOUGH_CPUS a report takes longer, up to SLOWEST_REPORT_SECONDS: it was measured to take 0.2 s of
# processor time, and an agent that hangs in a loop leaves it half of what there is.
ENOUGH_CPUS, SLOWEST_REPORT_SECONDS = 0.5, 10.0


def own_steps(settings: "Settings") -> "tuple[tuple[int, float], ...] | None":
    """Return the steps of a stop as the settings have them; None: the platform decides."""
    if settings.stop_schedule is not None:
        steps = settings.stop_schedule
    elif settings.grace is not None:
        steps = ((stop_signal(settings), settings.grace), (KILL, INFINITY))
    elif settings.platform_grace is not None:
        steps = ((stop_signal(settings), INFINITY), (KILL, INFINITY))
    else:
        return None
    latest = settings.latest_kill
    if seconds_to_kill(steps) <= latest:
        return steps
    kept: list[tuple[int, float]] = []
    due = 0.0
    for number, wait in steps:
        if due < latest:
            kept.append((number, min(wait, latest - due)))
        due += wait
    return (*kept, (KILL, INFINITY))


def stop_signal(settings: "Settings") -> int:
    """Return the stop signal; TERM for `auto`."""
    return TERM if settings.stop_signal is None else settings.stop_signal


def stop_seconds(settings: "Settings", cpus: float | None = None) -> float | None:
    """Return the seconds that the agent has from its stop signal until our first action; None: the platform decides.

    `cpus`: see `max_report_seconds`.
    """
    steps = own_steps(settings)
    if steps is None:
        return None
    wait = max(0.0, steps[0][1] - settings.stop_delay)
    return wait - report_seconds(wait, max_report_seconds(cpus))


def max_report_seconds(cpus: float | None) -> float:
    """Return what a report may take with so many processors, in seconds; None: with enough."""
    slower = 1.0 if not cpus else max(1.0, ENOUGH_CPUS / cpus)
    return min(MAX_REPORT_SECONDS * slower, SLOWEST_REPORT_SECONDS)


def report_seconds(wait: float, at_most: float = MAX_REPORT_SECONDS) -> float:
    """Return how much of the wait before a step is for a stall report, which may take `at_most`; all in seconds."""
    return min(at_most, wait / (4 if at_most == MAX_REPORT_SECONDS else 2))


def seconds_to_kill(steps: "Steps") -> float:
    """Return the seconds from the first of the steps to the final KILL; infinity where there is none."""
    return seconds_to_last(steps) if steps and steps[-1][0] == KILL else INFINITY


def seconds_to_last(steps: "Steps") -> float:
    """Return the seconds from the first of the steps to the last."""
    return sum(wait for _, wait in steps[:-1])


def with_delay(steps: "Steps", delay: float) -> "Steps":
    """Return the steps of a stop whose first signal is delayed: the delay counts into the grace."""
    (first, wait), *later = steps
    return [(first, wait - delay), *later]

"""How long the agent may take to stop: our own deadline, or the platform's.

Where a platform ends the container by itself, a default of ours must not cut calls short because an operator raised
the platform's figure and forgot a second one. There `auto` means: no deadline of ours, one report just before the
limit that the platform has unless raised.
"""

import os

from ..platforms import DEFAULT_GRACE, recognise
from ..settings import UsageError
from ..signals import KILL, name_of
from ..units import INFINITY, format_duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..settings import Settings

REPORT_BEFORE_LIMIT = 2.0  # seconds; the report has to be complete by then


class StopPlan:
    """How a stop will go: signals with the wait that follows each, and who ends it when time is up.

    `steps`: as `options.schedule` returns them. `report_after`: seconds from the request to the one report where the
    end is the platform's and not ours, else None. `grace`: seconds to the KILL, or infinity. `why`: the grace and
    where it came from, in words for the start line.
    """

    __slots__ = ("grace", "platform", "report_after", "steps", "why")

    def __init__(
        self, steps: tuple[tuple[int, float], ...], why: str, *, platform: str = "", report_after: float | None = None
    ) -> None:
        self.steps, self.why, self.platform, self.report_after = steps, why, platform, report_after
        self.grace = sum(wait for _, wait in steps[:-1]) if steps[-1][0] == KILL else INFINITY


def make(
    settings: "Settings", environment: "Mapping[str, str]", exists: "Callable[[str], bool]" = os.path.exists
) -> StopPlan:
    """The plan of a stop. Raises UsageError when the stop delay leaves no time for the stop signal."""
    source = settings.sources.get
    if settings.stop_schedule is not None:
        made = StopPlan(
            settings.stop_schedule, f"schedule {_spell(settings.stop_schedule)} ({source('stop_schedule')})"
        )
    elif settings.grace is not None:
        steps = ((settings.stop_signal, settings.grace), (KILL, INFINITY))
        made = StopPlan(steps, f"grace {format_duration(settings.grace)} ({source('grace')})")
    elif platform := recognise(environment, exists):
        name, seconds, whose = platform
        own = f"{format_duration(seconds)} {whose}"
        made = StopPlan(
            ((settings.stop_signal, INFINITY), (KILL, INFINITY)),
            f"grace: {name}'s own, {own}; {_not_set(settings)}",
            platform=f"{name} ({own})",
            report_after=max(0.0, seconds - REPORT_BEFORE_LIMIT),
        )
    else:
        steps = ((settings.stop_signal, DEFAULT_GRACE), (KILL, INFINITY))
        why = f"no platform recognised; {_not_set(settings)}"
        made = StopPlan(steps, f"grace {format_duration(DEFAULT_GRACE)} ({why})")
    first = made.steps[0][1]
    if settings.stop_delay and settings.stop_delay >= first:
        raise UsageError(
            f"{source('stop_delay')}: {format_duration(settings.stop_delay)} leaves no time for the stop signal; "
            f"accepted: a finite time of less than {format_duration(first)} ({made.why})"
        )
    return made


def _not_set(settings: "Settings") -> str:
    return "--grace auto" if "grace" in settings.sources else "AGENT_INIT_GRACE not set"


def _spell(steps: tuple[tuple[int, float], ...]) -> str:
    words = [word for number, wait in steps for word in (name_of(number), format_duration(wait))]
    return "/".join(words[:-1])

"""Makes the plan of a stop, once, from the settings and the platform.

Where a platform ends the container by itself, a default of ours must not cut calls short because an operator raised
the platform's figure and forgot ours. There `auto` means: no deadline of ours, and one report just before the limit
that the platform has unless raised. But the platform does not end a stop that it has not requested. The platform's
limit is the deadline of such a stop, and of every stop of an agent-init that was started by hand inside a container.
Not on Kubernetes, where the request may be part of a stop: a preStop hook is another process of the container.

Where the operator has told us the platform's figure (--platform-grace), there is a deadline of ours just before it.
"""

from ..parsed import UsageError
from ..platforms import DEFAULT_GRACE, KUBERNETES, SIGNAL_EVERY_PROCESS, is_there, recognise
from ..signals import KILL, name_of
from ..units import INFINITY, format_duration
from .stop_plan import StopPlan
from .stop_steps import own_steps, stop_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..parsed import Settings
    from .stop_steps import Steps


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


def _not_set(settings: "Settings") -> str:
    return "--grace auto" if "grace" in settings.sources else "AGENT_INIT_GRACE not set"


def _as_text(steps: "Steps") -> str:
    texts = [text for number, wait in steps for text in (name_of(number), format_duration(wait))]
    return "/".join(texts[:-1])

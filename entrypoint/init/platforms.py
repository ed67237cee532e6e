"""How long the agent may take to stop: our own deadline, or the platform's.

Where a platform ends the container by itself, a default of ours must not cut calls short because an operator raised
the platform's figure and forgot a second one. There `auto` means: no deadline of ours, one report just before the
limit that the platform has unless raised.

Figures are the platforms' documented defaults: how they are recognised and how long they wait.
"""

import os

from ..options import INFINITY, UsageError, format_duration
from .signals import KILL, name_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..options import Settings

DEFAULT_GRACE = 10.0
REPORT_BEFORE_LIMIT = 1.0

# (variable in the environment, platform, seconds it waits unless raised); the first that is set counts, so that the
# orchestrator goes before the engine below it.
BY_VARIABLE = (
    ("KUBERNETES_SERVICE_HOST", "Kubernetes", 30.0),
    ("ECS_CONTAINER_METADATA_URI_V4", "ECS", 30.0),
    ("K_SERVICE", "Cloud Run", 10.0),
    ("FLY_MACHINE_ID", "Fly.io", 5.0),
    ("FLY_APP_NAME", "Fly.io", 5.0),
    ("NOMAD_ALLOC_ID", "Nomad", 5.0),
    ("DYNO", "Heroku", 30.0),
    ("RENDER", "Render", 30.0),
    ("RAILWAY_DEPLOYMENT_DRAINING_SECONDS", "Railway", 3.0),
    ("RAILWAY_ENVIRONMENT_ID", "Railway", 3.0),
)
BY_FILE = (("/.dockerenv", "Docker", 10.0), ("/run/.containerenv", "Podman", 10.0))


def recognise(environment: "Mapping[str, str]", exists: "Callable[[str], bool]") -> tuple[str, float, str] | None:
    """The platform's name, how many seconds it waits, and whose figure that is; None where there is none."""
    for variable, platform, seconds in BY_VARIABLE:
        value = environment.get(variable)
        if not value:
            continue
        if platform == "Railway" and value.isascii() and value.isdigit():
            return platform, float(value), "as set"
        return platform, seconds, "unless raised"
    for path, platform, seconds in BY_FILE:
        if exists(path):
            return platform, seconds, "unless raised"
    return ("Podman", 10.0, "unless raised") if environment.get("container") == "podman" else None


class Plan:
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


def plan(
    settings: "Settings", environment: "Mapping[str, str]", exists: "Callable[[str], bool]" = os.path.exists
) -> Plan:
    """The plan of a stop. Raises UsageError when the stop delay leaves no time for the stop signal."""
    source = settings.sources.get
    if settings.stop_schedule is not None:
        made = Plan(settings.stop_schedule, f"schedule {_spell(settings.stop_schedule)} ({source('stop_schedule')})")
    elif settings.grace is not None:
        steps = ((settings.stop_signal, settings.grace), (KILL, INFINITY))
        made = Plan(steps, f"grace {format_duration(settings.grace)} ({source('grace')})")
    elif platform := recognise(environment, exists):
        name, seconds, whose = platform
        own = f"{format_duration(seconds)} {whose}"
        made = Plan(
            ((settings.stop_signal, INFINITY), (KILL, INFINITY)),
            f"grace: {name}'s own, {own}; {_not_set(settings)}",
            platform=f"{name} ({own})",
            report_after=max(0.0, seconds - REPORT_BEFORE_LIMIT),
        )
    else:
        steps = ((settings.stop_signal, DEFAULT_GRACE), (KILL, INFINITY))
        why = f"no platform recognised; {_not_set(settings)}"
        made = Plan(steps, f"grace {format_duration(DEFAULT_GRACE)} ({why})")
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

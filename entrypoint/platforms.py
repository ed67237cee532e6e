"""The platforms that kill a container themselves: how each is recognised, and how long it waits by default.

Process 1 and the runner in the agent both use this; the same environment gives both the same result. Imports nothing.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DEFAULT_GRACE = 10.0  # seconds, if no platform is recognised

# (variable in the environment, platform, seconds it waits by default, from the platform's documentation). The first
# variable that is set wins, and all of them win over a file: an orchestrator over the engine below it.
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
    """Return the platform's name, the seconds it waits, and `as set` or `unless raised`; None if none is recognised.

    `exists` returns whether a path exists. `as set`: the environment gives the figure. `unless raised`: the figure is
    the platform's default, and nothing in the container shows whether the operator has raised it.
    """
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

"""The platforms that kill a container themselves: how each is recognised, and how long it waits by default.

Process 1 and the runner in the agent both use this; the same environment gives both the same result. Imports nothing.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DEFAULT_GRACE = 10.0  # seconds, if no platform is recognised
KUBERNETES = "Kubernetes"  # its preStop hooks run inside the container, and may request the stop from there

# (variable in the environment, platform, seconds it waits by default, from the platform's documentation). The first
# variable that is set wins, and all of them win over a file: an orchestrator over the engine below it.
#
# Not recognised, because nothing in the container shows them:
# - AWS App Runner: PORT is its only documented variable, and its wait is documented nowhere
#   (https://github.com/aws/apprunner-roadmap issues 176, 202 and 256).
# - plain containerd: neither a variable nor a file. `nerdctl stop` waits 10 s, as our own default; with `ctr` the
#   operator sends each signal.
BY_VARIABLE = (
    # Container Apps runs on Kubernetes and shows that too, so it comes first. Variable:
    # https://learn.microsoft.com/azure/container-apps/environment-variables; wait (terminationGracePeriodSeconds):
    # https://learn.microsoft.com/azure/container-apps/application-lifecycle-management#shutdown
    ("CONTAINER_APP_NAME", "Azure Container Apps", 30.0),
    ("KUBERNETES_SERVICE_HOST", KUBERNETES, 30.0),
    ("ECS_CONTAINER_METADATA_URI_V4", "ECS", 30.0),
    # https://cloud.google.com/run/docs/container-contract: the variables of services and of jobs, and 10 s from TERM to
    # SIGKILL.
    ("K_SERVICE", "Cloud Run", 10.0),
    ("CLOUD_RUN_JOB", "Cloud Run jobs", 10.0),
    ("FLY_MACHINE_ID", "Fly.io", 5.0),
    ("FLY_APP_NAME", "Fly.io", 5.0),
    ("NOMAD_ALLOC_ID", "Nomad", 5.0),
    ("DYNO", "Heroku", 30.0),
    # https://modal.com/docs/guide/environment_variables: in every container, of a Function or a Sandbox. The wait is
    # the one for exit handlers (https://modal.com/docs/guide/lifecycle-functions#modalexit); it begins with an INT
    # (https://modal.com/docs/guide/preemption).
    ("MODAL_TASK_ID", "Modal", 30.0),
    ("RENDER", "Render", 30.0),
    ("RAILWAY_DEPLOYMENT_DRAINING_SECONDS", "Railway", 3.0),
    ("RAILWAY_ENVIRONMENT_ID", "Railway", 3.0),
)
BY_FILE = (("/.dockerenv", "Docker", 10.0), ("/run/.containerenv", "Podman", 10.0))

# They send TERM to every process of the container themselves (https://devcenter.heroku.com/articles/dynos#shutdown).
SIGNAL_EVERY_PROCESS = frozenset(("Heroku",))


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

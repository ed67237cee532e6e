"""The platforms that kill a container themselves: how each is recognised, and how long it waits by default.

Process 1 and the runner in the agent both use this; the same container gives both the same result.
"""

import posix

from . import paths

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
# (what there is in the container, platform, seconds it waits by default), see `is_there`. KUBERNETES_SERVICE_HOST is
# the API server's Service: a static pod of a kubelet without an API server has no such variable. But the kubelet mounts
# the termination log, and the control groups of pods are below `kubepods` (not seen in a cgroup namespace, the default
# on cgroups v2). The engine below the kubelet may leave its own file, so these come first.
KUBELETS_MOUNT = "a mount on /dev/termination-log"
KUBELETS_CGROUP = "kubepods in /proc/self/cgroup"
ENGINE_FILES = ("/.dockerenv", "/run/.containerenv")
BY_FILE = (
    (KUBELETS_MOUNT, KUBERNETES, 30.0),
    (KUBELETS_CGROUP, KUBERNETES, 30.0),
    (ENGINE_FILES[0], "Docker", 10.0),
    (ENGINE_FILES[1], "Podman", 10.0),
)
INITIAL_PID_NAMESPACE = "pid:[4026531836]"  # its inode is a constant of the kernel (include/linux/proc_ns.h)

# They send TERM to every process of the container themselves (https://devcenter.heroku.com/articles/dynos#shutdown).
SIGNAL_EVERY_PROCESS = frozenset(("Heroku",))


def recognise(environment: "Mapping[str, str]", exists: "Callable[[str], bool]") -> tuple[str, float, str] | None:
    """Return the platform's name, the seconds it waits, and `as set` or `unless raised`; None if none is recognised.

    `exists` returns whether a path exists, or one of the other things in BY_FILE: `is_there` does. `as set`: the
    environment gives the figure. `unless raised`: the figure is the platform's default, and nothing in the container
    shows whether the operator has raised it.
    """
    for variable, platform, seconds in BY_VARIABLE:
        value = environment.get(variable)
        if not value:
            continue
        if platform == "Railway" and value.isascii() and value.isdigit():
            return platform, float(value), "as set"
        return platform, seconds, "unless raised"
    for evidence, platform, seconds in BY_FILE:
        if exists(evidence):
            return platform, seconds, "unless raised"
    return ("Podman", 10.0, "unless raised") if environment.get("container") == "podman" else None


def is_there(evidence: str) -> bool:
    """Whether this container has what a row of BY_FILE names."""
    if evidence == KUBELETS_MOUNT:
        return _is_mount("/dev/termination-log")
    if evidence == KUBELETS_CGROUP:
        return b"kubepods" in paths.read_or_empty("/proc/self/cgroup")
    return paths.exists(evidence) and not (evidence in ENGINE_FILES and _is_left_over())


def _is_left_over() -> bool:
    """Whether an engine's file has come with an image that something else runs now: a virtual machine, WSL, chroot(8).

    Nothing but an engine with `--pid=host` runs containers in the initial PID namespace, and that mounts /etc/hostname.
    Every engine mounts /proc.
    """
    try:
        initial = posix.readlink("/proc/self/ns/pid") == INITIAL_PID_NAMESPACE
    except OSError:
        return not paths.exists("/proc/self")
    return initial and not _is_mount("/etc/hostname")


def _is_mount(path: str) -> bool:
    """Whether a file of another file system than its directory's is mounted there."""
    try:
        return posix.stat(path).st_dev != posix.stat(paths.dirname(path)).st_dev
    except OSError:
        return False

"""How each platform is recognised, and how long it waits before its own SIGKILL."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from entrypoint import platforms

if TYPE_CHECKING:
    from collections.abc import Callable

# From each platform's documentation: how it is recognised, and the seconds before its own SIGKILL.
TABLE: list[tuple[str, dict[str, str], tuple[str, ...], float]] = [
    ("Azure Container Apps", {"CONTAINER_APP_NAME": "agent"}, (), 30),
    ("Kubernetes", {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, (), 30),
    ("Cloud Run jobs", {"CLOUD_RUN_JOB": "agent"}, (), 10),
    ("Modal", {"MODAL_TASK_ID": "ta-1"}, (), 30),
    ("ECS", {"ECS_CONTAINER_METADATA_URI_V4": "http://169.254.170.2/v4/x"}, (), 30),
    ("Cloud Run", {"K_SERVICE": "agent"}, (), 10),
    ("Fly.io", {"FLY_MACHINE_ID": "1"}, (), 5),
    ("Fly.io", {"FLY_APP_NAME": "agent"}, (), 5),
    ("Nomad", {"NOMAD_ALLOC_ID": "1"}, (), 5),
    ("Heroku", {"DYNO": "worker.1"}, (), 30),
    ("Render", {"RENDER": "true"}, (), 30),
    ("Railway", {"RAILWAY_DEPLOYMENT_DRAINING_SECONDS": "3"}, (), 3),
    ("Railway", {"RAILWAY_ENVIRONMENT_ID": "0f2a"}, (), 3),
    ("Kubernetes", {}, (platforms.KUBELETS_MOUNT,), 30),
    ("Kubernetes", {}, (platforms.KUBELETS_CGROUP,), 30),
    ("Docker", {}, ("/.dockerenv",), 10),
    ("Podman", {}, ("/run/.containerenv",), 10),
    ("Podman", {"container": "podman"}, (), 10),
]


def recognise(*files: str, **environment: str) -> tuple[str, float, str] | None:
    return platforms.recognise(environment, lambda path: path in files)


@pytest.mark.parametrize(("name", "environment", "files", "seconds"), TABLE)
def test_a_platform_is_recognised_with_the_time_it_waits(
    name: str, environment: dict[str, str], files: tuple[str, ...], seconds: float
) -> None:
    whose = "as set" if "RAILWAY_DEPLOYMENT_DRAINING_SECONDS" in environment else "unless raised"
    assert recognise(*files, **environment) == (name, seconds, whose)


def test_every_variable_and_file_is_in_this_table() -> None:
    variables = {variable for _, environment, _, _ in TABLE for variable in environment}
    files = {path for _, _, paths, _ in TABLE for path in paths}
    assert {variable for variable, _, _ in platforms.BY_VARIABLE} == variables - {"container"}
    assert {path for path, _, _ in platforms.BY_FILE} == files


@pytest.mark.parametrize(
    ("value", "seconds", "whose"),
    [
        ("45", 45, "as set"),
        ("3", 3, "as set"),
        ("1", 1, "as set"),
        ("0", 0, "as set"),
        ("3600", 3600, "as set"),
        ("soon", 3, "unless raised"),
        ("-5", 3, "unless raised"),
        ("\u0663", 3, "unless raised"),
    ],
)
def test_railways_limit_is_the_value_of_its_variable(value: str, seconds: float, whose: str) -> None:
    assert recognise(RAILWAY_DEPLOYMENT_DRAINING_SECONDS=value) == ("Railway", seconds, whose)


def test_an_orchestrator_wins_over_the_engine_below_it() -> None:
    both = ("/.dockerenv", "/run/.containerenv")
    assert recognise(*both, platforms.KUBELETS_MOUNT) == ("Kubernetes", 30, "unless raised")
    assert recognise(*both, KUBERNETES_SERVICE_HOST="x") == ("Kubernetes", 30, "unless raised")
    assert recognise("/.dockerenv", NOMAD_ALLOC_ID="x") == ("Nomad", 5, "unless raised")


@pytest.mark.parametrize("variable", [name for name, _, _ in platforms.BY_VARIABLE])
def test_a_platform_is_not_recognised_by_an_empty_variable(variable: str) -> None:
    assert recognise(**{variable: ""}) is None


def test_similar_variables_are_not_a_platform() -> None:
    assert recognise(container="lxc", KUBERNETES_PORT="1", FLY="1") is None
    assert recognise() is None


# --- What there is in a container. ----------------------------------------------------------------------------------


class Stat:
    """Stands for os.stat_result."""

    def __init__(self, st_dev: int) -> None:
        self.st_dev = st_dev


@pytest.fixture
def container(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replace what there is: `mounts` are files with a device of their own among `files`."""

    def make(*files: str, mounts: tuple[str, ...] = (), cgroup: bytes = b"0::/\n", namespace: str = "pid:[1]") -> None:
        def stat(path: str) -> Stat:
            if path not in (*files, *mounts, "/dev", "/etc"):
                raise FileNotFoundError(path)
            return Stat(7 if path in mounts else 1)

        def readlink(path: str) -> str:
            assert path == "/proc/self/ns/pid"
            if not namespace:
                raise FileNotFoundError(path)
            return namespace

        def read(path: str) -> bytes:
            assert path == "/proc/self/cgroup"
            return cgroup

        # Only there: pytest itself needs them to report a failure.
        found = SimpleNamespace(exists=lambda path: path in files, dirname=os.path.dirname, read_or_empty=read)
        monkeypatch.setattr(platforms, "paths", found)
        monkeypatch.setattr(platforms, "posix", SimpleNamespace(stat=stat, readlink=readlink))

    return make


def recognised() -> str:
    found = platforms.recognise({}, platforms.is_there)
    return found[0] if found else ""


LOG = "/dev/termination-log"
INITIAL = platforms.INITIAL_PID_NAMESPACE


def test_a_pod_is_recognised_by_its_termination_log(container: Callable[..., None]) -> None:
    container("/.dockerenv", mounts=(LOG,))
    assert recognised() == "Kubernetes"
    container(LOG)  # a file that the image has, or the agent has made
    assert recognised() == ""
    container()
    assert recognised() == ""


@pytest.mark.parametrize(
    ("cgroup", "name"),
    [
        (b"0::/kubepods.slice/kubepods-burstable.slice/cri-containerd-1.scope\n", "Kubernetes"),
        (b"4:memory:/kubepods/burstable/pod1/2\n0::/\n", "Kubernetes"),
        (b"0::/system.slice/docker-1.scope\n", ""),
        (b"", ""),
    ],
)
def test_a_pod_is_recognised_by_its_control_group(container: Callable[..., None], cgroup: bytes, name: str) -> None:
    container(cgroup=cgroup)
    assert recognised() == name


@pytest.mark.parametrize(("file", "name"), [("/.dockerenv", "Docker"), ("/run/.containerenv", "Podman")])
def test_an_engines_file_without_the_engine_is_left_over(container: Callable[..., None], file: str, name: str) -> None:
    """In the initial PID namespace only `--pid=host` puts a container, and then /etc/hostname is a mount."""
    container(file)
    assert recognised() == name
    container(file, "/proc/self", namespace="")  # the kernel shows no namespaces
    assert recognised() == name
    container(file, namespace="")  # no /proc: a virtual machine, or chroot(8)
    assert recognised() == ""
    container(file, "/etc/hostname", namespace=INITIAL)
    assert recognised() == ""
    container(file, namespace=INITIAL)
    assert recognised() == ""
    container(file, mounts=("/etc/hostname",), namespace=INITIAL)
    assert recognised() == name

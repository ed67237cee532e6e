"""`examples/kubernetes.yaml`: valid by Kubernetes' own schemas, and run by Podman, which takes Kubernetes YAML.

What only a cluster shows (the kubelet's preStop hook, its probes and its termination grace period) is not shown here.
"""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Iterator
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from .conftest import without
from .container import await_true
from .engine import Engine, NoEngine
from .images import EXAMPLE, PROJECT
from .podman import Podman, private_podman

FILE = PROJECT / "examples" / "kubernetes.yaml"
DOCUMENTS: list[dict[str, Any]] = list(yaml.safe_load_all(FILE.read_text()))
NAMES = [document["metadata"]["name"] for document in DOCUMENTS]

VERSIONS = ["1.25", kubernetes_validate.latest_version()]  # what the example uses has been stable since before 1.25

PODS = {"agent-pod-0": ["agent"], "agent-pod-1": ["agent"], "agent-shared-pod-0": ["agent", "neighbour"]}
CONTAINERS = [f"{pod}-{container}" for pod, containers in PODS.items() for container in containers]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_the_schemas(document: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)

    misspelt = copy.deepcopy(document)
    pod = misspelt["spec"]["template"]["spec"]
    pod["terminationGracePeriodSecond"] = pod.pop("terminationGracePeriodSeconds")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(misspelt, version, strict=True)


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_the_numbers_keep_the_rule(document: dict[str, Any]) -> None:
    """preStop + AGENT_INIT_GRACE + 2 s at most terminationGracePeriodSeconds, for each container."""
    pod = document["spec"]["template"]["spec"]
    for container in pod["containers"]:
        (grace,) = [item["value"] for item in container["env"] if item["name"] == "AGENT_INIT_GRACE"]
        hook = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["sleep", "0"])
        assert re.fullmatch(r"\d+s", grace)
        assert float(hook[1]) + float(grace[:-1]) + 2 <= pod["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_the_restricted_pod_security_standard(document: dict[str, Any]) -> None:
    """What that standard demands of a pod, and a read-only root beyond it."""
    pod = document["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


@pytest.fixture(scope="module")
def podman(engine: Engine) -> Iterator[Podman]:
    """Podman with the example's image."""
    try:
        with private_podman() as podman:
            podman.load(engine, EXAMPLE)
            podman("tag", f"localhost/{EXAMPLE}:latest", "localhost/my-agent:1.0")
            yield podman
    except NoEngine as error:
        without(str(error))


@pytest.fixture
def played(podman: Podman) -> Iterator[Podman]:
    """The example, up and ready."""
    podman("kube", "play", "--network", "none", str(FILE))
    try:
        for container in CONTAINERS:
            await_true(lambda: "agent: ready" in podman.said(container), f"{container} is ready")  # noqa: B023
        yield podman
    finally:
        for container in CONTAINERS:
            print(f"--- {container}: {podman.state(container)['ExitCode']}\n{podman.said(container)}")
        podman("pod", "rm", "--all", "--force", "--time", "0")


@pytest.mark.parametrize("shared", [False, True], ids=["own-processes", "shared-processes"])
def test_each_agent_is_stopped_gracefully(played: Podman, shared: bool) -> None:
    """Calls finished, cleaned up, nobody killed; one or two agents in a pod, as process 1 or as subreaper."""
    containers = [container for container in CONTAINERS if ("shared" in container) == shared]
    asked = time.monotonic()
    if shared:
        request_stop(played, *containers)
    else:
        played("pod", "stop", "--time", "60", *(pod for pod in PODS if "shared" not in pod))
    assert time.monotonic() - asked < 30
    for container in containers:
        said = played.said(container)
        if not shared:
            assert played.state(container)["ExitCode"] == 0
        role, grace = ("subreaper", "55s") if shared else ("process 1", "50s")
        assert f"as {role}; grace {grace} (AGENT_INIT_GRACE)" in said
        assert "stop requested by TERM from" in said
        assert re.search(r"ended: the agent exited with code 0, .*; exit code 0", said)
        life, cleaned, _ = said.partition("agent: cleaned up after")
        assert cleaned
        assert re.findall(r"call (\d+) begins", life) == re.findall(r"call (\d+) ends", life)
        assert "warning" not in said
        assert "Traceback" not in said


def request_stop(podman: Podman, *containers: str) -> None:
    """TERM to each, and wait until agent-init tells its end.

    `podman stop` may end the pod's own process 1 with the first container (it takes the others for stopped), and that
    is the end of all in a shared process namespace; the kubelet lets the pod go last. A Deployment's containers are
    started again when they have ended, so look at what they said.
    """
    podman("kill", "--signal", "TERM", *containers)
    for container in containers:
        await_true(lambda: "agent-init: ended:" in podman.said(container), f"{container} has ended")  # noqa: B023


def test_a_neighbour_in_a_shared_pod_is_left_alone(played: Podman) -> None:
    """One container of the pod is stopped, and agent-init ends nobody's agent but its own."""
    played("stop", "--time", "60", "agent-shared-pod-0-agent")
    assert played.state("agent-shared-pod-0-agent")["ExitCode"] == 0
    assert "agent: cleaned up after" in played.said("agent-shared-pod-0-agent")
    neighbour = "agent-shared-pod-0-neighbour"
    calls = played.said(neighbour).count("begins")
    await_true(lambda: played.said(neighbour).count("begins") > calls, "the neighbour goes on working")
    assert "stop requested" not in played.said(neighbour)

    request_stop(played, neighbour)
    assert "agent: cleaned up after" in played.said(neighbour)


def test_confined_as_written(played: Podman) -> None:
    """What the security contexts say holds in the running containers."""
    for container in CONTAINERS:
        status = played("exec", container, "cat", "/proc/self/status").stdout
        found = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert found["Uid"].split() == ["1000"] * 4
        assert found["NoNewPrivs"] == "1"
        assert found["Seccomp"] == "2"  # a filter
        assert int(found["CapEff"], 16) == int(found["CapBnd"], 16) == 0
        assert "Read-only file system" in played("exec", container, "touch", "/app/x", check=False).stderr


def test_the_liveness_probe(played: Podman) -> None:
    """Podman keeps it as the container's health check; nothing but systemd would run it there, so ask for one."""
    for _ in range(3):
        played("healthcheck", "run", "agent-pod-0-agent")
    assert "warning" not in played.said("agent-pod-0-agent")

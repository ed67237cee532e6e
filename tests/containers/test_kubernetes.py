"""`examples/kubernetes`: checked against Kubernetes' schemas, and run by Podman, which accepts Kubernetes YAML.

The kubelet's preStop hook, probes and termination grace period need a cluster: see tests/kubernetes.
"""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from .conftest import skip_or_fail
from .container import wait_until
from .engine import Engine, NotAvailable
from .images import EXAMPLE, PROJECT
from .podman import Podman, private_podman

FOLDER = PROJECT / "examples" / "kubernetes"
BASE = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
HTTP = "http-probes.yaml"  # tests/kubernetes runs it: the image here has no HTTP server
FILES = [FOLDER / name for name in (*BASE["resources"], "shared-processes.yaml", HTTP)]
OBJECTS: list[dict[str, Any]] = [document for file in FILES for document in yaml.safe_load_all(file.read_text())]
DEPLOYMENTS = [found for found in OBJECTS if found["kind"] == "Deployment"]
NAMES = [document["metadata"]["name"] for document in DEPLOYMENTS]

VERSIONS = ["1.34", "1.35", "1.36", kubernetes_validate.latest_version()]

PODS = {"agent-pod-0": ["agent"], "agent-pod-1": ["agent"], "agent-shared-pod-0": ["agent", "neighbour"]}
CONTAINERS = [f"{pod}-{container}" for pod, containers in PODS.items() for container in containers]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("document", OBJECTS, ids=[f"{made['kind']}-{made['metadata']['name']}" for made in OBJECTS])
def test_example_matches_the_kubernetes_schema(document: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)

    misspelt = copy.deepcopy(document)
    misspelt["spec"]["podSelector"] = misspelt["spec"].pop("selector")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(misspelt, version, strict=True)


def test_base_has_every_file_but_the_shared_pod_and_the_one_with_http() -> None:
    assert {file.name for file in FILES} | {"kustomization.yaml"} == {file.name for file in FOLDER.iterdir()}


@pytest.mark.parametrize("document", DEPLOYMENTS, ids=NAMES)
def test_prestop_plus_grace_plus_2s_is_within_termination_grace_period(document: dict[str, Any]) -> None:
    """preStop + AGENT_INIT_GRACE + 2 s is at most terminationGracePeriodSeconds, for each container."""
    pod = document["spec"]["template"]["spec"]
    for container in pod["containers"]:
        (grace,) = [item["value"] for item in container["env"] if item["name"] == "AGENT_INIT_GRACE"]
        hook = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["sleep", "0"])
        assert re.fullmatch(r"\d+s", grace)
        assert float(hook[1]) + float(grace[:-1]) + 2 <= pod["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("document", DEPLOYMENTS, ids=NAMES)
def test_example_meets_the_restricted_pod_security_standard(document: dict[str, Any]) -> None:
    """The example meets the standard, and also has a read-only root."""
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
    except NotAvailable as error:
        skip_or_fail(str(error))


@pytest.fixture
def played(podman: Podman, tmp_path: Path) -> Iterator[Podman]:
    """Podman with the examples running and ready."""
    file = tmp_path / "deployments.yaml"
    file.write_text(yaml.safe_dump_all(found for found in DEPLOYMENTS if found["metadata"]["name"] != "agent-http"))
    podman("kube", "play", "--network", "none", str(file))
    try:
        for container in CONTAINERS:
            wait_until(lambda: "agent: ready" in podman.output(container), f"{container} is ready")  # noqa: B023
        yield podman
    finally:
        for container in CONTAINERS:
            print(f"--- {container}: {podman.state(container)['ExitCode']}\n{podman.output(container)}")
        podman("pod", "rm", "--all", "--force", "--time", "0")


@pytest.mark.parametrize("shared", [False, True], ids=["own-processes", "shared-processes"])
def test_each_agent_is_stopped_gracefully(played: Podman, shared: bool) -> None:
    """The calls are finished and nothing is killed, with agent-init as process 1 or, in a shared pod, as subreaper."""
    containers = [container for container in CONTAINERS if ("shared" in container) == shared]
    requested_at = time.monotonic()
    if shared:
        request_stop(played, *containers)
    else:
        played("pod", "stop", "--time", "60", *(pod for pod in PODS if "shared" not in pod))
    assert time.monotonic() - requested_at < 30
    for container in containers:
        output = played.output(container)
        if not shared:
            assert played.state(container)["ExitCode"] == 0
        role, grace = ("subreaper", "55s") if shared else ("process 1", "50s")
        assert f"as {role}; grace {grace} (AGENT_INIT_GRACE)" in output
        assert "stop requested by TERM from" in output
        assert re.search(r"ended: the agent exited with code 0, .*; exit code 0", output)
        before, cleaned_up, _ = output.partition("agent: cleaned up after")
        assert cleaned_up
        assert re.findall(r"call (\d+) begins", before) == re.findall(r"call (\d+) ends", before)
        assert "warning" not in output
        assert "Traceback" not in output


def request_stop(podman: Podman, *containers: str) -> None:
    """Send TERM to each container and wait for agent-init's final message.

    `podman stop` may stop the pod's process 1 with the first container, because it takes the others for stopped. In a
    shared PID namespace that kills every container; the kubelet stops the pod's process last. The containers of a
    Deployment are restarted when they exit, so this function looks at their logs and not at their state.
    """
    podman("kill", "--signal", "TERM", *containers)
    for container in containers:
        wait_until(lambda: "agent-init: ended:" in podman.output(container), f"{container} has ended")  # noqa: B023


def test_neighbour_in_a_shared_pod_is_left_alone(played: Podman) -> None:
    """One container of the pod is stopped; the agent of the other one continues."""
    played("stop", "--time", "60", "agent-shared-pod-0-agent")
    assert played.state("agent-shared-pod-0-agent")["ExitCode"] == 0
    assert "agent: cleaned up after" in played.output("agent-shared-pod-0-agent")
    neighbour = "agent-shared-pod-0-neighbour"
    calls = played.output(neighbour).count("begins")
    wait_until(lambda: played.output(neighbour).count("begins") > calls, "the neighbour goes on working")
    assert "stop requested" not in played.output(neighbour)

    request_stop(played, neighbour)
    assert "agent: cleaned up after" in played.output(neighbour)


def test_security_context_is_in_force(played: Podman) -> None:
    """The running containers have the properties of their security contexts."""
    for container in CONTAINERS:
        status = played("exec", container, "cat", "/proc/self/status").stdout
        found = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert found["Uid"].split() == ["1000"] * 4
        assert found["NoNewPrivs"] == "1"
        assert found["Seccomp"] == "2"  # a filter
        assert int(found["CapEff"], 16) == int(found["CapBnd"], 16) == 0
        assert "Read-only file system" in played("exec", container, "touch", "/app/x", check=False).stderr


def test_liveness_probe_succeeds(played: Podman) -> None:
    """Podman turns the probe into a health check. Only systemd would run it, so the test runs it itself."""
    for _ in range(3):
        played("healthcheck", "run", "agent-pod-0-agent")
    assert "warning" not in played.output("agent-pod-0-agent")

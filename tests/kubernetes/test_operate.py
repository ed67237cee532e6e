"""What docs/operate.md promises about a pod: agent-initctl, exec and HTTP probes, preStop hooks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from . import trial
from .cluster import Cluster
from .pods import Pod, Watch, create, find, seconds, wait_until

METRICS = 9101
EXEC = {"periodSeconds": 1, "timeoutSeconds": 30, "failureThreshold": 1}  # an interpreter's start on a busy machine


def made(watch: Watch, name: str, arguments: str, grace: int = 30, **more: Any) -> Pod:
    """A pod with agent-init. `container`, `pod`, `settings`: as in a trial."""
    return create(watch, trial.specification(name, trial.Trial("", arguments, "", grace=grace, **more), "agent-init"))


def ask(pod: Pod, *arguments: str, container: str = "agent") -> dict[str, Any]:
    """`kubectl exec POD -- agent-initctl status --json`."""
    command = ("exec", "-n", pod.namespace, pod.name, "-c", container, "--", "agent-initctl", *arguments)
    found: dict[str, Any] = json.loads(pod.cluster.kubectl(*command).stdout)
    return found


def is_ready(pod: Pod, container: str = "agent") -> bool:
    return bool(pod.statuses().get(container, {}).get("ready"))


def is_running(pod: Pod) -> bool:
    return "running" in pod.statuses().get("agent", {}).get("state", {})


def exec_probe(*arguments: str) -> dict[str, Any]:
    return {"readinessProbe": {"exec": {"command": ["agent-initctl", *arguments]}, **EXEC}}


def http_probe(path: str, **more: Any) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": METRICS}, "periodSeconds": 1, "timeoutSeconds": 10, **more}


HTTP_PROBES = {
    "startupProbe": http_probe("/startupz", failureThreshold=240),
    "readinessProbe": http_probe("/readyz", failureThreshold=1),
    "livenessProbe": http_probe("/livez", failureThreshold=10),
}
READINESS: dict[str, dict[str, Any]] = {
    "agent-initctl": {"container": exec_probe("ready")},
    "ready file": {
        "container": {
            "readinessProbe": {"exec": {"command": ["cat", "/run/agent/ready"]}, **EXEC},
            "volumeMounts": [{"name": "run", "mountPath": "/run/agent"}],
        },
        "pod": {"volumes": [{"name": "run", "emptyDir": {}}]},
        "settings": {"READY_FILE": "/run/agent/ready"},
    },
    "http": {"container": HTTP_PROBES, "settings": {"HTTP": f"0.0.0.0:{METRICS}"}},
}


@pytest.mark.parametrize("kind", READINESS)
def test_readiness_falls_at_the_stop_request(watch: Watch, kind: str) -> None:
    """It comes with READY=1, and falls while the agent still drains."""
    name = f"readiness-{kind.replace(' ', '-')}"
    pod = made(watch, name, "--notify --drain 25", grace=60, **READINESS[kind])
    wait_until(lambda: is_ready(pod), f"{kind}: ready: {pod.shown()}")
    assert pod.lines("ready")
    pod.exec("agent-initctl", "stop", "--grace", "50s")
    wait_until(lambda: not is_ready(pod), f"{kind}: not ready: {pod.shown()}")
    assert is_running(pod), pod.shown()
    wait_until(lambda: pod.end() is not None, f"the end of {name}: {pod.shown()}")
    assert trial.how_it_ended(pod) == "drained, 0"
    assert pod.restarts() == 0


def test_agent_that_does_not_send_ready_is_never_ready(watch: Watch) -> None:
    pod = made(watch, "unready", "", container=exec_probe("ready"))
    pod.wait_for_line("ready")
    asked = pod.cluster.kubectl("exec", pod.name, "--", "agent-initctl", "ready", check=False)
    assert (asked.returncode, asked.stdout[:9]) == (1, "not ready")
    assert not is_ready(pod)
    pod.delete()
    pod.wait_until_gone()


LIVENESS = {
    "agent-initctl": ({"exec": {"command": ["agent-initctl", "live"]}, "timeoutSeconds": 30}, {}),
    "http": (http_probe("/livez"), {"HTTP": f"0.0.0.0:{METRICS}"}),
}


@pytest.mark.parametrize("kind", LIVENESS)
def test_liveness_probe_restarts_an_agent_that_hangs(watch: Watch, kind: str) -> None:
    """Its own grace is long, for drains; so agent-init's watchdog has stopped it, and it would stay for an hour."""
    probe, settings = LIVENESS[kind]
    pod = made(
        watch,
        f"hung-{kind}",
        "--notify --ping 8 --on-term ignore",
        container={
            "livenessProbe": {**probe, "periodSeconds": 2, "failureThreshold": 2, "terminationGracePeriodSeconds": 3}
        },
        pod={"restartPolicy": "Always"},
        settings={"WATCHDOG": "4s", "GRACE": "1h", **settings},
    )
    wait_until(lambda: pod.restarts() > 0, f"a restart of {pod.name}: {pod.shown()}")
    assert pod.lines("got ABRT"), pod.shown()
    end = pod.end()
    assert end is not None
    assert end["exitCode"] == 137
    assert "no sign of life for 4s" in end["message"]
    pod.delete(gracePeriodSeconds=1)
    pod.wait_until_gone()


HOOK = {"lifecycle": {"preStop": {"exec": {"command": ["agent-initctl", "stop", "--wait"]}}}}


def test_pre_stop_hook_waits_for_the_drain(watch: Watch) -> None:
    """The drain begins with the hook, and lasts as long as it takes; nothing else is sent."""
    pod = made(watch, "hook", "--drain 12", container=HOOK)
    pod.wait_for_line("ready")
    pod.delete()
    pod.wait_until_gone()
    assert trial.how_it_ended(pod) == "drained, 0"
    assert pod.at("drained") - pod.at("got TERM") >= 12
    assert len(pod.lines("got TERM")) == 1
    assert pod.lines("requested by TERM from agent-initctl")


def test_pre_stop_hook_uses_the_whole_grace(watch: Watch) -> None:
    """The deadline is that of the pod, less what agent-init keeps for itself."""
    settings = {"PLATFORM_GRACE": "20s"}
    pod = made(watch, "hook-stubborn", "--on-term ignore", grace=20, container=HOOK, settings=settings)
    pod.wait_for_line("ready")
    pod.delete()
    pod.wait_until_gone()
    assert trial.how_it_ended(pod) == "killed, 137"
    end = pod.end()
    assert end is not None
    assert 16 < seconds(end["finishedAt"]) - pod.at("got TERM") < 22, pod.shown()
    assert "agent.py" in end["message"]


def test_each_container_of_a_shared_namespace_finds_its_own(cluster: Cluster, watch: Watch) -> None:
    """They share the network namespace, in which the sockets have their names, and here the pids too."""
    neighbour = {
        **trial.specification("x", trial.Trial("", "--drain 2", ""), "agent-init")["spec"]["containers"][0],
        "name": "neighbour",
    }
    for shared in (False, True):
        name = f"pair-{'shared' if shared else 'own'}"
        case: dict[str, Any] = {
            "pod": {"containers": [neighbour], "shareProcessNamespace": shared},
            "settings": {"GRACE": "11s"},
        }
        pod = made(watch, name, "--drain 1", **case)
        for container in ("agent", "neighbour"):
            pod.wait_for_line("ready", container)
        own = {container: ask(pod, "status", "--json", container=container) for container in ("agent", "neighbour")}
        assert own["agent"]["agent"]["command"][-1] == "1"
        assert own["neighbour"]["agent"]["command"][-1] == "2"
        pod.delete()
        pod.wait_until_gone()
        assert find(watch, f"trial={name}") == []

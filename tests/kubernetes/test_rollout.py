"""Calls through a Service during rollouts, with Kubernetes' own proxy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from . import trial
from .api import Object
from .cluster import Cluster
from .pods import Watch, find, wait_until
from .trials import PORT

pytestmark = pytest.mark.usefixtures("together")  # it would share the processors

CALLER = Path(__file__).parent / "programs" / "caller.py"
APPS = "/apis/apps/v1/namespaces/default/deployments"


def deployment(name: str, settings: dict[str, str], **more: object) -> Object:
    """Two HTTP agents that serve until they have ended, 0.1 s after their TERM."""
    probe = {"httpGet": {"path": "/ready", "port": PORT}, "periodSeconds": 1}
    case = trial.Trial(
        "", f"--http {PORT} --drain 0.1", "", container={"readinessProbe": probe, **more}, settings=settings
    )
    pod = trial.specification(name, case, "agent-init")["spec"]
    pod["restartPolicy"] = "Always"
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": 2,
            "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def calls_during_a_rollout(cluster: Cluster, watch: Watch, body: Object) -> tuple[int, list[str]]:
    """Roll a Deployment behind a Service once; return the number of calls, and how those that failed did."""
    name = body["metadata"]["name"]
    service = {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": PORT}]}
    made = cluster.api.create(
        "/api/v1/namespaces/default/services",
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": service},
    )
    cluster.api.create(APPS, body)
    cluster.kubectl("rollout", "status", f"deployment/{name}", "--timeout=240s")
    url = f"http://{made['spec']['clusterIP']}/call"
    get = f"import urllib.request; urllib.request.urlopen({url!r}, timeout=2)"
    wait_until(lambda: cluster.run("python3", "-c", get, check=False).returncode == 0, f"an answer from {url}")

    enter = ("nsenter", f"--target={cluster.first}", "--net", "--")
    caller = subprocess.Popen(
        [*enter, sys.executable, str(CALLER), url, "0.1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert caller.stdout
        caller.stdout.readline()
        old = find(watch, f"app={name}")
        cluster.kubectl("rollout", "restart", f"deployment/{name}")
        cluster.kubectl("rollout", "status", f"deployment/{name}", "--timeout=240s")
        for pod in old:
            pod.wait_until_gone()
        output, _ = caller.communicate()
    finally:
        caller.kill()
        caller.wait()
    cluster.api.delete(f"{APPS}/{name}")
    result = json.loads(output)
    return result["made"], result["failed"]


@pytest.mark.parametrize("how", ["delay", "hook"])
def test_no_call_fails_in_a_rollout_with_a_delay(cluster: Cluster, watch: Watch, how: str) -> None:
    """New calls arrive until the proxy has learnt that a pod is going. A delay, or a preStop hook, serves them."""
    settings, container = {"STOP_DELAY": "3s"}, {}
    if how == "hook":
        settings, container = {}, {"lifecycle": {"preStop": {"sleep": {"seconds": 3}}}}
    made, failed = calls_during_a_rollout(cluster, watch, deployment(f"with-{how}", settings, **container))
    print(f"{how}: {len(failed)} of {made} calls failed")
    assert made > 30
    assert not failed


def test_calls_fail_without_a_delay(cluster: Cluster, watch: Watch) -> None:
    """The reason for the delay; how many fail is a matter of luck."""
    made, failed = calls_during_a_rollout(cluster, watch, deployment("without", {}))
    print(f"no delay: {len(failed)} of {made} calls failed")
    assert made > 30

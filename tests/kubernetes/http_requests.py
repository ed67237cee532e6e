"""HTTP requests to a Service, all the time, while its pods are rolled. Kubernetes' own proxy (nftables) routes them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from . import deployments, trial
from .api import Object
from .cluster import NODE, PODS, Cluster
from .deployments import Deployment
from .pods import Watch, wait_until
from .trials import PORT

CALLER = Path(__file__).parent / "programs" / "http_caller.py"
INTERVAL = 0.05  # seconds between two requests
SERVICES = "/api/v1/namespaces/default/services"


@dataclass(frozen=True)
class Delay:
    """What a pod does at a stop before its agent gets TERM: settings of agent-init, and more of the container."""

    text: str
    settings: Mapping[str, str] = field(default_factory=dict)
    container: Mapping[str, object] = field(default_factory=dict)


NO_DELAY = Delay("nothing")


def stop_delay(seconds: int) -> Delay:
    return Delay(f"`AGENT_INIT_STOP_DELAY={seconds}s`", {"STOP_DELAY": f"{seconds}s"})


def hook(seconds: int) -> Delay:
    sleep = {"lifecycle": {"preStop": {"sleep": {"seconds": seconds}}}}
    return Delay(f"a preStop hook, `sleep: {{seconds: {seconds}}}`", container=sleep)


@dataclass(frozen=True)
class Requests:
    """`failed`: when, in seconds since the epoch, and why."""

    made: int
    failed: list[str]


def start_proxy(cluster: Cluster) -> None:
    """Start kube-proxy. It leaves the machine's connection tracking alone."""
    config = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": str(cluster.root / "kubeconfig")},
        "hostnameOverride": NODE,
        "clusterCIDR": PODS,
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
    file = cluster.root / "kube-proxy.yaml"
    file.write_text(yaml.safe_dump(config))
    cluster.start("kube-proxy", str(cluster.bin / "kube-proxy"), f"--config={file}")


def pod(name: str, delay: Delay) -> Object:
    """An HTTP agent that serves until 0.1 s after its TERM."""
    probe = {"httpGet": {"path": "/ready", "port": PORT}, "periodSeconds": 1, "timeoutSeconds": 10}
    container = {"readinessProbe": probe, **delay.container}
    case = trial.Trial("", f"--http {PORT} --drain 0.1", "", container=container, settings=delay.settings)
    spec: Object = trial.specification(name, case, "agent-init")["spec"]
    return {**spec, "restartPolicy": "Always"}


@contextmanager
def requested(cluster: Cluster, url: str) -> Iterator[list[Requests]]:
    """Request an address all the time; at the end the result is in the list."""
    enter = ("nsenter", f"--target={cluster.first}", "--net", "--")
    result: list[Requests] = []
    caller = subprocess.Popen(
        [*enter, sys.executable, str(CALLER), url, str(INTERVAL)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert caller.stdout
        caller.stdout.readline()
        yield result
        output, _ = caller.communicate(timeout=60)
        result.append(Requests(**json.loads(output)))
    finally:
        caller.kill()
        caller.wait()


def during_rollouts(watch: Watch, name: str, delay: Delay, rollouts: int) -> Requests:
    """Roll a Deployment of two HTTP agents behind a Service so often, and return what became of the requests."""
    cluster = watch.cluster
    service = {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": PORT}]}
    made = cluster.api.create(
        SERVICES, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": service}
    )
    url = f"http://{made['spec']['clusterIP']}/call"
    try_it = f"import urllib.request; urllib.request.urlopen({url!r}, timeout=5)"
    with deployments.deployed(watch, name, pod(name, delay)) as agents:
        wait_until(lambda: cluster.run("python3", "-c", try_it, check=False).returncode == 0, f"an answer of {url}")
        with requested(cluster, url) as result:
            for _ in range(rollouts):
                roll(agents)
    cluster.api.delete(f"{SERVICES}/{name}")
    return result[0]


def roll(agents: Deployment) -> None:
    """Roll them, and wait for the end of the old ones."""
    old = agents.pods()
    agents.begin_rollout()
    agents.finish_rollout()
    for pod in old:
        pod.wait_until_gone()

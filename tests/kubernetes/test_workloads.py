"""What Kubernetes' controllers make of the ends of agents: Jobs, Deployments, endpoints, disruption budgets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from . import trial
from .api import ApiError, Object
from .cluster import NODE, Cluster
from .conftest import PROJECT
from .pods import Pod, Watch, create, find, wait_until
from .trials import PORT

pytestmark = pytest.mark.usefixtures("together")  # they would share the processors

JOBS = "/apis/batch/v1/namespaces/default/jobs"


def job(
    cluster: Cluster, watch: Watch, name: str, arguments: str, init: str = "agent-init", **more: Any
) -> tuple[str, Pod]:
    """Create a Job that is not tried again; return its path and its pod."""
    settings: Mapping[str, str] = more.pop("settings", {})
    pod = trial.specification(name, trial.Trial("", arguments, "", settings=settings), init)
    template = {"metadata": {"labels": {"job": name}}, "spec": pod["spec"]}
    body = {"metadata": {"name": name}, "spec": {"backoffLimit": 0, "template": template, **more}}
    cluster.api.create(JOBS, {"apiVersion": "batch/v1", "kind": "Job", **body})
    return f"{JOBS}/{name}", wait_until(lambda: find(watch, f"job={name}"), f"the pod of {name}")[0]


def result(cluster: Cluster, path: str) -> str:
    """Complete or Failed, with the reason."""

    def look() -> str:
        found = cluster.api.get(path)["status"].get("conditions", ())
        return next((f"{c['type']} {c['reason']}" for c in found if c["type"] in ("Complete", "Failed")), "")

    return wait_until(look, f"the end of {path}")


@pytest.mark.parametrize("init", trial.INITS)
def test_job_gets_the_agents_exit_code(cluster: Cluster, watch: Watch, init: str) -> None:
    """0 completes it, another code fails it, and a podFailurePolicy sees the code."""
    name = f"codes-{init.replace(' ', '-')}"
    rule = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}
    jobs = {
        "Complete CompletionsReached": job(cluster, watch, f"{name}-0", "--exit-after 1", init),
        "Failed BackoffLimitExceeded": job(cluster, watch, f"{name}-3", "--exit-after 1 --code 3", init),
        "Failed PodFailurePolicy": job(
            cluster, watch, f"{name}-42", "--exit-after 1 --code 42", init, podFailurePolicy={"rules": [rule]}
        ),
    }
    for expected, (path, _) in jobs.items():
        assert result(cluster, path) == expected


def test_deleted_pod_of_a_job_counts_as_failed(cluster: Cluster, watch: Watch) -> None:
    """Also if its agent finishes its work: the controller does not wait for the exit code."""
    path, pod = job(cluster, watch, "deleted", "--drain 10")
    pod.wait_for_line("ready")
    pod.delete()
    assert result(cluster, path) == "Failed BackoffLimitExceeded"
    wait_until(lambda: pod.end() is not None, f"the end of {pod.name}: {pod.shown()}")
    assert trial.how_it_ended(pod) == "drained, 0"


def test_ok_exit_143_completes_an_interrupted_job(cluster: Cluster, watch: Watch) -> None:
    """A TERM that Kubernetes does not know of: with `-e 143` the Job counts as done, though its work was not."""
    path, pod = job(cluster, watch, "interrupted", "--on-term die")
    ok_path, ok_pod = job(cluster, watch, "interrupted-ok", "--on-term die", settings={"OK_EXIT": "143"})
    for interrupted in (pod, ok_pod):
        interrupted.wait_for_line("ready")
        interrupted.exec("sh", "-c", "kill -TERM 1")
    assert result(cluster, path) == "Failed BackoffLimitExceeded"
    assert result(cluster, ok_path) == "Complete CompletionsReached"


def test_draining_pod_leaves_the_endpoints_and_goes_on(cluster: Cluster, watch: Watch) -> None:
    """With a stop delay it still serves while the endpoint is already marked as not ready."""
    probe = {"httpGet": {"path": "/ready", "port": PORT}, "periodSeconds": 1}
    case = trial.Trial(
        "", f"--http {PORT} --drain 3", "", container={"readinessProbe": probe}, settings={"STOP_DELAY": "3s"}
    )
    service = {"metadata": {"name": "calls"}, "spec": {"selector": {"trial": "serving"}, "ports": [{"port": PORT}]}}
    cluster.api.create("/api/v1/namespaces/default/services", {"apiVersion": "v1", "kind": "Service", **service})
    pod = create(watch, trial.specification("serving", case, "agent-init"))

    def conditions() -> dict[str, bool]:
        slices = cluster.api.get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices")["items"]
        mine = [found for found in slices if found["metadata"]["labels"]["kubernetes.io/service-name"] == "calls"]
        points = [point for found in mine for point in found["endpoints"] or ()]
        return points[0]["conditions"] if points else {}

    wait_until(lambda: conditions().get("ready"), f"the endpoint is ready: {pod.shown()}")
    address = pod.state()["status"]["podIP"]
    pod.delete()
    wait_until(lambda: conditions() == {"ready": False, "serving": True, "terminating": True}, "it leaves")
    fetch = f"import urllib.request; print(urllib.request.urlopen('http://{address}:{PORT}/call').read())"
    assert "ok" in cluster.run("python3", "-c", fetch).stdout
    pod.wait_until_gone()
    assert trial.how_it_ended(pod) == "drained, 0"
    assert pod.at("got TERM") - pod.at("stop requested") > 2.5


@pytest.fixture(scope="module")
def example(cluster: Cluster, watch: Watch) -> list[Pod]:
    """The base of `examples/kubernetes`, unchanged, in a namespace that admits restricted pods only."""
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "example", "labels": label}}
    cluster.api.create("/api/v1/namespaces", namespace)
    cluster.kubectl("apply", "-n", "example", "-k", str(PROJECT / "examples" / "kubernetes"))
    for name in ("shared-processes.yaml", "http-probes.yaml"):
        cluster.kubectl("apply", "-n", "example", "-f", str(PROJECT / "examples" / "kubernetes" / name))
    return wait_until_available(watch)


def wait_until_available(watch: Watch, count: int = 2) -> list[Pod]:
    """Wait until the Deployment has so many ready pods, and no others; return them."""

    def look() -> list[Pod]:
        pods = find(watch, "app=agent", "example")
        return pods if len(pods) == count and all(pod.is_ready() for pod in pods) else []

    return wait_until(look, f"{count} ready pods: {[pod.shown() for pod in find(watch, 'app=agent', 'example')]}")


def assert_finished_its_calls(pod: Pod) -> None:
    pod.wait_until_gone()
    end = pod.end()
    assert end is not None
    assert end["exitCode"] == 0, pod.shown()
    lines = pod.lines("agent: ")
    assert {line.split()[2] for line in lines if line.endswith("begins")} == {
        line.split()[2] for line in lines if line.endswith("ends")
    }
    assert pod.lines("agent: cleaned up after")
    assert not pod.lines("warning")


def test_example_rolls_without_an_unfinished_call(cluster: Cluster, watch: Watch, example: list[Pod]) -> None:
    cluster.kubectl("-n", "example", "rollout", "restart", "deployment/agent")
    cluster.kubectl("-n", "example", "rollout", "status", "deployment/agent", "--timeout=240s")
    for pod in example:
        assert_finished_its_calls(pod)
    assert len(wait_until_available(watch)) == 2


def test_shared_example_stops_both_of_its_agents(cluster: Cluster, watch: Watch, example: list[Pod]) -> None:
    (pod,) = find(watch, "app=agent-shared", "example")
    for container in ("agent", "neighbour"):
        pod.wait_for_line("agent: ready", container)
    cluster.kubectl("-n", "example", "scale", "deployment/agent-shared", "--replicas=0")
    assert_finished_its_calls(pod)
    assert pod.lines("agent: cleaned up after", "neighbour")
    assert pod.lines("as subreaper")


def test_http_example_is_unready_before_its_agent_stops(cluster: Cluster, watch: Watch, example: list[Pod]) -> None:
    (pod,) = find(watch, "app=agent-http", "example")
    wait_until(pod.is_ready, f"ready: {pod.shown()}")
    address = pod.state()["status"]["podIP"]

    def fetch(path: str) -> str:
        """The status and the body."""
        code = "import http.client; c = http.client.HTTPConnection({!r}, 8081, timeout=20); c.request('GET', {!r}); "
        code += "r = c.getresponse(); print(r.status, r.read().decode())"
        return cluster.run("python3", "-c", code.format(address, path), check=False).stdout

    assert 'agent_init_state{agent_init_state="ready"} 1.0' in fetch("/metrics")
    cluster.kubectl("-n", "example", "scale", "deployment/agent-http", "--replicas=0")
    wait_until(lambda: fetch("/readyz").startswith("503"), f"503: {pod.shown()}")
    assert not pod.lines("agent: cleaned up after"), pod.shown()
    assert_finished_its_calls(pod)
    assert pod.at("agent: cleaned up after") - pod.at("stop requested") > 4.5
    assert pod.restarts() == 0


@pytest.mark.slow
def test_budget_of_the_example_limits_a_drain(cluster: Cluster, watch: Watch, example: list[Pod]) -> None:
    """`kubectl drain` evicts one agent, whose replacement has nowhere to go on this only node; then it waits."""
    first = wait_until_available(watch)
    drain = ("drain", NODE, "--pod-selector=app=agent", "--ignore-daemonsets", "--delete-emptydir-data")
    done = cluster.kubectl(*drain, "--timeout=25s", check=False)
    assert done.returncode != 0
    assert "disruption budget" in done.stderr
    evicted = [pod for pod in first if pod.state()["metadata"].get("deletionTimestamp")]
    assert len(evicted) == 1, done.stderr
    assert_finished_its_calls(evicted[0])

    cluster.kubectl("uncordon", NODE)
    again = wait_until_available(watch)
    assert {pod.uid for pod in first} - {pod.uid for pod in again} == {evicted[0].uid}


def test_drained_node_finishes_every_call(cluster: Cluster, watch: Watch) -> None:
    """Without a budget all pods are evicted at once, and each has its whole grace."""
    case = trial.Trial("", "--drain 5", "drained, 0")
    pods = {init: create(watch, trial.specification(f"node-{init.replace(' ', '-')}", case, init))
            for init in trial.INITS}  # fmt: skip
    for pod in pods.values():
        pod.wait_for_line("ready")
    names = ",".join(pod.name for pod in pods.values())
    cluster.kubectl("drain", NODE, f"--pod-selector=trial in ({names})", "--force", "--ignore-daemonsets")
    cluster.kubectl("uncordon", NODE)
    assert {init: trial.how_it_ended(pod) for init, pod in pods.items()} == dict.fromkeys(trial.INITS, "drained, 0")


def test_restricted_namespace_refuses_a_pod_that_is_not(cluster: Cluster, example: list[Pod]) -> None:
    pod: Object = trial.specification("refused", trial.Trial("", "", ""), "agent-init")
    with pytest.raises(ApiError, match="violates PodSecurity"):
        cluster.api.create("/api/v1/namespaces/example/pods", pod)

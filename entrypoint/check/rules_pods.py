"""Rules about pods and restarts."""

from __future__ import annotations

import re
from math import ceil, floor
from typing import TYPE_CHECKING

from .case import ERROR, NOTE, WARNING, Case, Finding
from .combine import OTHERS
from .frameworks import REQUESTS, TASKS
from .from_dockerfile import name_of
from .model import FLY, KUBERNETES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .model import Rollout
    from .source import Given

ROLLING = "rollingUpdate: {maxSurge: 1, maxUnavailable: 0}"
LOOPBACK = ("", "127.0.0.1", "::1", "localhost")  # agent-init listens there by default
PROCESS_1 = re.compile(r"\s1(?![\w.])")


def job_counts_as_complete(case: Case) -> Iterator[Finding]:
    """A Job whose agent was interrupted counts as complete."""
    if case.container.kind not in ("Job", "CronJob") or case.settings is None or 143 not in case.settings.ok_exit:
        return
    reason = "143 becomes 0: a Job that was interrupted counts as complete, and does not run again"
    yield Finding("job-counts-as-complete", ERROR, case.place_of("ok_exit"), reason, "no -e 143, no AGENT_INIT_OK_EXIT")


def livekit_restart(case: Case) -> Iterator[Finding]:
    """A LiveKit worker that has found no server gives up with exit code 0, and is not started again."""
    use, restart = case.use, case.container.restart
    if use is None or not use.is_livekit or restart is None:
        return
    if not restart.value.lower().replace("-", "").startswith("onfailure") or case.container.kind in ("Job", "CronJob"):
        return
    reason = "a LiveKit worker that finds no server gives up with exit code 0: it is not started again"
    lines = {KUBERNETES: "restartPolicy: Always", FLY: 'policy = "always"'}
    line = "condition: any" if case.container.restart_is_of_swarm else "restart: always"
    yield Finding("livekit-restart", WARNING, restart.place, reason, lines.get(case.platform, line))


def shared_processes(case: Case) -> Iterator[Finding]:
    """With a shared PID namespace agent-init adopts orphans only as a subreaper."""
    shared, settings = case.container.shared_processes, case.settings
    if shared is None or settings is None or settings.subreaper is not False:
        return
    reason = f"with {shared.value} agent-init is not process 1, and --no-subreaper leaves orphans to another one"
    yield Finding("shared-processes", WARNING, shared.place, reason, "no --no-subreaper, no AGENT_INIT_SUBREAPER")


def kills_process_1(case: Case) -> Iterator[Finding]:
    """A hook signals process 1, which is not the agent."""
    hook, shared = case.container.hook, case.container.shared_processes
    if hook is None or shared is None or not _signals_process_1(hook.text):
        return
    whose = "the host's" if "host" in shared.value else "the pod's own: all its containers end"
    reason = f"with {shared.value} process 1 is {whose}"
    yield Finding("kills-process-1", ERROR, hook.place, reason, "preStop: {exec: {command: [agent-initctl, stop]}}")


def _signals_process_1(text: str) -> bool:
    for command in re.split("[;&|]", text):
        found = re.search(r"\bkill\b", command)
        if found and PROCESS_1.search(command, found.end()):
            return True
    return False


def readiness_as_liveness(case: Case) -> Iterator[Finding]:
    """The liveness probe fails as soon as the agent is not ready, and has the container stopped."""
    probe = case.container.liveness
    if probe is None or not case.expects_agent_init:
        return
    ready_file = case.settings.ready_file if case.settings else None
    http = case.settings.http if case.settings else None
    text = " ".join(probe.command)
    if not (
        re.search(r"agent-initctl\b.*\bready\b", text)
        or (ready_file and ready_file in text)
        or (http and probe.port == str(http[1]) and probe.path == "/readyz")
    ):
        return
    reason = "an agent that is not ready (starting, stopping) is not dead: this probe has it stopped"
    yield Finding("readiness-as-liveness", ERROR, probe.place, reason, "exec: {command: [agent-initctl, live]}")


def loopback_probe(case: Case) -> Iterator[Finding]:
    """The kubelet cannot reach a server on the loopback interface."""
    http = case.settings.http if case.settings else None
    if http is None or http[0] not in LOOPBACK:
        return
    container = case.container
    for probe in (container.readiness, container.liveness, container.startup):
        if probe is not None and probe.port == str(http[1]) and probe.host not in LOOPBACK[1:]:
            reason = f"the kubelet cannot reach port {http[1]}, which agent-init opens on the loopback interface"
            remedy = case.variable_line("AGENT_INIT_HTTP", f"0.0.0.0:{http[1]}")
            yield Finding("loopback-probe", ERROR, probe.place, reason, remedy)


def rollout_gap(case: Case) -> Iterator[Finding]:
    """A rollout stops every pod before a new one is ready."""
    rollout, use = case.container.rollout, case.use
    takes_calls = use is not None and use.is_livekit
    if rollout is None or not (takes_calls or case.container.ports) or (use and use.framework.work == TASKS):
        return
    if name_of(case.container.image) in OTHERS:  # a database with one volume has to
        return
    if rollout.strategy is not None and rollout.strategy.value == "Recreate":
        if use or case.expects_agent_init:
            reason = "Recreate stops all pods before a new one starts: nothing serves meanwhile"
            yield Finding("rollout-gap", NOTE, rollout.strategy.place, reason, "type: RollingUpdate")
        return
    replicas = rollout.replicas.value if rollout.replicas else 1.0
    unavailable, surge = _of_pods(rollout.unavailable, replicas, floor), _of_pods(rollout.surge, replicas, ceil)
    given = rollout.unavailable or rollout.surge
    if unavailable is None or surge is None or given is None or not replicas:
        return
    if not surge and not unavailable:
        unavailable = 1.0  # so does Kubernetes, where 25 % are less than one pod
    if unavailable < replicas:
        return
    text = rollout.unavailable.value if rollout.unavailable else "25%"
    which = f"maxUnavailable: {text}" + ("" if surge else ", with maxSurge: 0,")
    if rollout.replicas is not None or text == "100%":
        reason = f"{which} lets {_pods(rollout)} stop before a new one is ready"
        yield Finding("rollout-gap", WARNING, given.place, reason, ROLLING)
        return
    reason = f"{which} lets the only pod stop before a new one is ready, unless another file has more replicas"
    yield Finding("rollout-gap", NOTE, given.place, reason, ROLLING)


def _of_pods(given: Given[str] | None, replicas: float, whole: Callable[[float], int]) -> float | None:
    """Return the number of pods in a number or a share of them, 25 % if it is not given; None: not known."""
    text = given.value if given else "25%"
    if re.fullmatch(r"\d{1,4}%", text):
        return float(whole(replicas * int(text[:-1]) / 100))
    return float(text) if re.fullmatch(r"\d{1,9}", text) else None


def _pods(rollout: Rollout) -> str:
    if rollout.replicas is None:
        return "all pods"
    return "the only pod" if rollout.replicas.value == 1 else f"all {rollout.replicas.value:g} pods"


def no_readiness_probe(case: Case) -> Iterator[Finding]:
    """A rollout goes on as soon as the new process exists, and stops the old pod."""
    container = case.container
    if container.kind != "Deployment" or container.is_fragment:
        return
    if container.readiness is not None or container.startup is not None:  # a pod that has not started is not ready
        return
    if container.rollout and container.rollout.strategy and container.rollout.strategy.value == "Recreate":
        return
    serves = container.ports and case.use is not None and case.use.framework.work == REQUESTS
    if not serves and not (case.use is not None and case.use.is_livekit):
        return
    what = "can answer" if serves else "can take a call"
    reason = f"without a readiness probe a rollout stops the old pod before {case.who} {what}"
    remedy = f"readinessProbe: {{tcpSocket: {{port: {container.port or 8000}}}}}" if serves else (
        "readinessProbe: {exec: {command: [test, -e, /tmp/ready]}}"
    )  # fmt: skip
    yield Finding("no-readiness-probe", WARNING, container.place, reason, remedy)

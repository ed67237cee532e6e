"""Rules about pods and restarts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .case import ERROR, NOTE, WARNING, Case, Finding
from .frameworks import REQUESTS
from .model import KUBERNETES

if TYPE_CHECKING:
    from collections.abc import Iterator

ROLLING = "rollingUpdate: {maxSurge: 1, maxUnavailable: 0}"
KILLS_PROCESS_1 = re.compile(r"\bkill\b[^;&|]*\s1(?![\w.])")


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
    line = "restartPolicy: Always" if case.platform is KUBERNETES else "restart: always"
    yield Finding("livekit-restart", WARNING, restart.place, reason, line)


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
    if hook is None or shared is None or not KILLS_PROCESS_1.search(hook.text):
        return
    whose = "the host's" if "host" in shared.value else "the pod's own: all its containers end"
    reason = f"with {shared.value} process 1 is {whose}"
    yield Finding("kills-process-1", ERROR, hook.place, reason, "preStop: {exec: {command: [agent-initctl, stop]}}")


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
    if http is None or http[0] not in ("", "127.0.0.1", "::1"):
        return
    for probe in (case.container.readiness, case.container.liveness):
        if probe is not None and probe.path and probe.port == str(http[1]):
            reason = f"the kubelet cannot reach port {http[1]}, which agent-init opens on the loopback interface"
            remedy = case.variable_line("AGENT_INIT_HTTP", f"0.0.0.0:{http[1]}")
            yield Finding("loopback-probe", ERROR, probe.place, reason, remedy)


def rollout_gap(case: Case) -> Iterator[Finding]:
    """A rollout stops every pod before a new one is ready."""
    rollout = case.container.rollout
    if rollout is None or not case.container.ports or not (case.use or case.expects_agent_init):
        return
    if rollout.strategy is not None and rollout.strategy.value == "Recreate":
        reason = "Recreate stops all pods before a new one starts: nothing serves meanwhile"
        yield Finding("rollout-gap", NOTE, rollout.strategy.place, reason, ROLLING)
        return
    unavailable, surge = rollout.unavailable, rollout.surge
    replicas = rollout.replicas.value if rollout.replicas else 1.0
    if unavailable is None or not replicas:
        return
    text = unavailable.value
    number = replicas * float(text[:-1]) / 100 // 1 if re.fullmatch(r"\d+%", text) else None
    number = float(text) if text.isdigit() else number
    if number is None or number < replicas or (rollout.replicas is None and text != "100%"):
        return
    more = "" if surge is None or surge.value not in ("0", "0%") else ", and maxSurge starts none before"
    reason = f"maxUnavailable: {text} lets all {replicas:g} pods stop before a new one is ready{more}"
    yield Finding("rollout-gap", WARNING, unavailable.place, reason, ROLLING)


def no_readiness_probe(case: Case) -> Iterator[Finding]:
    """A rollout goes on as soon as the new process exists, and stops the old pod."""
    container = case.container
    if container.kind != "Deployment" or container.readiness is not None or container.is_fragment:
        return
    if container.rollout and container.rollout.strategy and container.rollout.strategy.value == "Recreate":
        return
    serves = container.ports and case.use is not None and case.use.framework.work == REQUESTS
    if not serves and not (case.use is not None and case.use.is_livekit):
        return
    what = "can answer" if serves else "can take a call"
    reason = f"without a readiness probe a rollout stops the old pod before {case.who} {what}"
    remedy = "readinessProbe: {tcpSocket: {port: 8000}}" if serves else (
        "readinessProbe: {exec: {command: [test, -e, /tmp/ready]}}"
    )  # fmt: skip
    yield Finding("no-readiness-probe", WARNING, container.place, reason, remedy)

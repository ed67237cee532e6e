"""The trials on the cluster, by name.

All of `TOGETHER` run at the same time. Those of `CONTAINERD` and `KUBELET` run apart: that program is killed and
started again while their agents drain.
"""

from __future__ import annotations

from collections.abc import Mapping

from . import image
from .pods import Pod
from .trial import AGENT, INITS, Trial

KILLED = {"both": "killed, 137"}
PORT = 8080


def prestop(command: str) -> dict[str, object]:
    """A container with this preStop hook."""
    return {"lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", command]}}}}


def probe(kind: str, path: str, **more: object) -> dict[str, object]:
    """A container with this probe. It fails after two bad answers."""
    settings = {"initialDelaySeconds": 20, "periodSeconds": 1, "failureThreshold": 2, "timeoutSeconds": 5, **more}
    return {f"{kind}Probe": {"httpGet": {"path": path, "port": PORT}, **settings}}


def delete_within_5_s(pod: Pod) -> None:
    pod.delete(gracePeriodSeconds=5)


def nothing(pod: Pod) -> None:
    """The agent ends by itself, or the kubelet ends it."""


def has_ended(pod: Pod) -> bool:
    """The phase follows a moment after the container's own state."""
    return pod.end() is not None and pod.state()["status"]["phase"] in ("Succeeded", "Failed")


def has_restarted(pod: Pod) -> bool:
    return pod.restarts() >= 1 and pod.end() is not None


def exit_code(pod: Pod) -> str:
    """What Kubernetes shows of a container that was not stopped."""
    end = pod.end()
    assert end is not None
    return f"{end['reason']}, {end['exitCode']}, {pod.state()['status']['phase']}"


def exit_code_after_oom(pod: Pod) -> str:
    """The same without the reason: it is OOMKilled only if the report of that comes before the container's exit."""
    end = pod.end()
    assert end is not None
    assert end["reason"] in ("OOMKilled", "Error", "Completed"), end
    return f"{end['exitCode']}, {pod.state()['status']['phase']}"


def what_the_child_did(pod: Pod) -> str:
    lines = [line.removeprefix("child: ") for line in pod.lines("child: ")]
    end = pod.end()
    assert end is not None
    return f"the child {'drained' if 'drained' in lines else 'was killed'}, {end['exitCode']}"


def what_the_sidecar_did(pod: Pod) -> str:
    """When the sidecar got its TERM, and how both ended."""
    agent, sidecar = pod.end(), pod.end("sidecar")
    assert agent is not None
    assert sidecar is not None
    terms = [line.at for line in pod.log("sidecar") if line.text == "got TERM"]
    drained = [line.at for line in pod.log() if line.text == "drained"]
    order = "after the agent's end" if terms and drained and terms[0] > drained[0] else "too early"
    return f"TERM {order}; {agent['exitCode']} and {sidecar['exitCode']}"


def sidecar(init: str = "agent-init") -> dict[str, object]:
    """A pod with a native sidecar under this init."""
    container = {
        "name": "sidecar",
        "image": image.NAME,
        "imagePullPolicy": "Never",
        "restartPolicy": "Always",
        "command": [*INITS[init], *AGENT, "--drain=1"],
        "securityContext": {"runAsUser": 0},
    }
    return {"initContainers": [container]}


DELETIONS = {
    "grace-5": Trial("deleted with a grace of 5 s; the agent needs 2 s", "--drain 2", "drained, 0", grace=5),
    "grace-5-slow": Trial("the same; the agent needs 60 s", "--drain 60", "killed, 137", KILLED, grace=5),
    "grace-30": Trial("the default grace; the agent needs 15 s", "--drain 15", "drained, 0", grace=None),
    "grace-30-hangs": Trial("the same; the agent hangs", "--on-term ignore", "killed, 137", KILLED, grace=None),
    "explicit": Trial(
        "the same with `AGENT_INIT_GRACE=20s`", "--on-term ignore", "killed, 137", KILLED, settings={"GRACE": "20s"}
    ),
    "grace-120": Trial("a grace of 120 s, nothing set; the agent needs 45 s", "--drain 45", "drained, 0", grace=120),
    "delete-within-5": Trial(
        "`kubectl delete --grace-period 5`; the agent needs 60 s", "--drain 60", "killed, 137", KILLED,
        act=delete_within_5_s,
    ),
    "leaves-child": Trial(
        "the agent exits after 1 s and leaves a child that needs 2 s more", "--drain 1 --leave-child 3",
        "the child drained, 0", {"both": "the child was killed, 0"}, outcome=what_the_child_did,
    ),
}  # fmt: skip

HOOKS = {
    "prestop": Trial(
        "a preStop hook of 5 s, then 10 s of work, in 30 s", "--drain 10", "drained, 0", container=prestop("sleep 5")
    ),
    "prestop-too-long": Trial(
        "a preStop hook longer than the grace: TERM comes with 2 s left; the agent needs 10 s", "--drain 10",
        "killed, 137", KILLED, grace=8, container=prestop("sleep 60"),
    ),
    "sleep-action": Trial(
        "Kubernetes' own hook, `sleep: {seconds: 5}`", "--drain 5", "drained, 0",
        container={"lifecycle": {"preStop": {"sleep": {"seconds": 5}}}},
    ),
    "prestop-kill": Trial(
        "a preStop hook that sends TERM itself, `kill -TERM 1; sleep 5`", "--drain 10", "drained, 0",
        {"both": "call lost, 1"}, container=prestop("kill -TERM 1; sleep 5"),
    ),
    "stop-delay": Trial(
        "no hook, `AGENT_INIT_STOP_DELAY=5s`", "--drain 5", "drained, 0", settings={"STOP_DELAY": "5s"},
        inits=("agent-init",),
    ),
}  # fmt: skip

MEMORY = {"resources": {"limits": {"memory": "64Mi"}}}
ENDS = {
    "oom-agent": Trial(
        "the agent uses up the memory", "--eat agent", "137, Failed", container=MEMORY, act=nothing,
        is_over=has_ended, outcome=exit_code_after_oom, wait_for="",
    ),
    "oom-child": Trial(
        "a child uses it up, the agent exits with 7", "--eat child --code 7", "7, Failed", container=MEMORY,
        act=nothing, is_over=has_ended, outcome=exit_code_after_oom, wait_for="",
    ),
    "oom-child-0": Trial(
        "the same, the agent exits with 0", "--eat child", "0, Succeeded", container=MEMORY, act=nothing,
        is_over=has_ended, outcome=exit_code_after_oom, wait_for="",
    ),
    "liveness": Trial(
        "the liveness probe fails; the agent needs 5 s", f"--http {PORT} --hang 2 --drain 5", "drained, 0",
        pod={"restartPolicy": "Always"}, container=probe("liveness", "/live"), act=nothing, is_over=has_restarted,
        wait_for="",
    ),
    "liveness-own-grace": Trial(
        "the same, the probe has a grace of 2 s of its own", f"--http {PORT} --hang 2 --drain 20", "killed, 137",
        KILLED, pod={"restartPolicy": "Always"},
        container=probe("liveness", "/live", terminationGracePeriodSeconds=2), act=nothing, is_over=has_restarted,
        wait_for="",
    ),
    "startup": Trial(
        "the startup probe never succeeds; the agent needs 5 s", f"--http {PORT} --unready --drain 5", "drained, 0",
        pod={"restartPolicy": "Always"}, container=probe("startup", "/ready"), act=nothing, is_over=has_restarted,
        wait_for="",
    ),
}  # fmt: skip

RESTRICTED = {
    "securityContext": {
        "runAsUser": 1000,
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
}
KINDS_OF_POD = {
    "shared": Trial(
        "`shareProcessNamespace`", "--drain 5", "drained, 0", pod={"shareProcessNamespace": True}
    ),
    "shared-leaves-child": Trial(
        "the same; the agent leaves a child that needs 2 s more", "--drain 1 --leave-child 3", "the child drained, 0",
        {"both": "the child was killed, 0"}, pod={"shareProcessNamespace": True}, outcome=what_the_child_did,
    ),
    "restricted": Trial(
        "the restricted security standard, a read-only root", "--drain 5", "drained, 0", container=RESTRICTED,
    ),
    "tty": Trial("`tty: true`, `stdin: true`", "--drain 5", "drained, 0", container={"tty": True, "stdin": True}),
    "sidecar": Trial(
        "a native sidecar under agent-init; the agent needs 5 s", "--drain 5", "TERM after the agent's end; 0 and 0",
        pod=sidecar(), outcome=what_the_sidecar_did,
    ),
}  # fmt: skip

FALLBACK = {"terminationMessagePolicy": "FallbackToLogsOnError"}
MESSAGES = {  # not in the table: test_termination_message.py looks at what they leave
    "own-message": Trial(
        "the agent has written a message", "--message 'out of tokens' --code 3", "drained, 3", inits=("agent-init",)
    ),
    "own-message-killed": Trial(
        "the same, it is killed", "--message 'out of tokens' --on-term ignore", "killed, 137", settings={"GRACE": "5s"},
        inits=("agent-init",),
    ),
    "crash": Trial(
        "the agent crashes", "--exit-after 1 --crash", "Error, 1, Failed", container=FALLBACK, act=nothing,
        is_over=has_ended, outcome=exit_code,
    ),
    "crash-in-stop": Trial(
        "the agent crashes while it drains", "--drain 2 --crash", "drained, 1", container=FALLBACK,
    ),
}  # fmt: skip

TOGETHER = {**DELETIONS, **HOOKS, **ENDS, **KINDS_OF_POD, **MESSAGES}

LOST = {"both": "call lost, 1"}
CONTAINERD = {
    "containerd": Trial("containerd is killed and started again during the drain", "--drain 40", "drained, 0", LOST,
                        grace=60),
    "containerd-prestop": Trial("the same during a preStop hook of 10 s", "--drain 5", "drained, 0", grace=60,
                                container=prestop("echo hook >/proc/1/fd/1; sleep 10")),
}  # fmt: skip
KUBELET = {
    "kubelet": Trial("the kubelet is killed and started again during the drain", "--drain 15", "drained, 0", grace=60),
    "kubelet-prestop": Trial("the same during a preStop hook of 10 s", "--drain 5", "drained, 0", grace=60,
                             container=prestop("echo hook >/proc/1/fd/1; sleep 10")),
}  # fmt: skip

HEADINGS: Mapping[str, Mapping[str, Trial]] = {
    "Deletion": DELETIONS,
    "preStop hooks": HOOKS,
    "Memory and probes": ENDS,
    "Kinds of pods": KINDS_OF_POD,
    "Restarts of the node's programs": {**CONTAINERD, **KUBELET},
}
ALL: Mapping[str, Trial] = {**TOGETHER, **CONTAINERD, **KUBELET}


def await_the_stop(pod: Pod) -> None:
    """Wait until the agent drains, or its preStop hook runs."""
    pod.wait_for_line("hook" if ALL[pod.trial].container else "got TERM")

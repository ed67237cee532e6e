"""A trial: a pod, what happens to it, and how it ends. The same agent runs under each init.

The trials are data, in `trials.py`. They run at the same time, because pods mostly wait.
"""

from __future__ import annotations

import copy
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import image
from .api import Object
from .pods import PATIENCE, Pod, Watch, create, wait_until

INITS: Mapping[str, Sequence[str]] = {
    "agent-init": ("agent-init", "--"),
    "tini": ("tini", "--"),
    "no init": (),
}
AGENT = ("python", "/probe/agent.py")


def delete(pod: Pod) -> None:
    pod.delete()


def ended(pod: Pod) -> bool:
    return pod.is_gone()


def how_it_ended(pod: Pod) -> str:
    """What became of the call, and the exit code that Kubernetes shows."""
    end = pod.end()
    if end is None:
        return "no end was seen"
    lines = [line for line in pod.lines() if not line.startswith("child: ")]  # of the first, if it was restarted
    if "lost" in lines:
        call = "call lost"
    elif "drained" in lines:
        call = "drained"
    elif "got TERM" in lines:
        call = "killed"
    else:
        call = "killed without a TERM" if end["exitCode"] == 137 else "no TERM"
    reason = f", {end['reason']}" if end["reason"] not in ("Completed", "Error") else ""
    return f"{call}, {end['exitCode']}{reason}"


@dataclass(frozen=True)
class Trial:
    """`text`: what happens, for the table. `right`: the outcome under agent-init. `peers`: the outcome of the others.

    `container` and `pod` are merged into the pod's specification, `settings` are variables of agent-init.
    """

    text: str
    arguments: str
    right: str
    peers: Mapping[str, str] = field(default_factory=dict)
    grace: int | None = 30
    container: Mapping[str, Any] = field(default_factory=dict)
    pod: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    act: Callable[[Pod], None] = delete
    is_over: Callable[[Pod], bool] = ended
    outcome: Callable[[Pod], str] = how_it_ended
    inits: Sequence[str] = tuple(INITS)
    wait_for: str = "ready"

    def expected(self, init: str) -> str:
        return self.right if init == "agent-init" else self.peers.get(init, self.peers.get("both", self.right))


def specification(name: str, trial: Trial, init: str) -> Object:
    """The pod of a trial."""
    container: Object = {
        "name": "agent",
        "image": image.NAME,
        "imagePullPolicy": "Never",
        "command": [*INITS[init], *AGENT, *shlex.split(trial.arguments)],
        "env": [{"name": f"AGENT_INIT_{key}", "value": value} for key, value in trial.settings.items()],
        "securityContext": {"runAsUser": 0},
    }
    spec: Object = {"restartPolicy": "Never", "enableServiceLinks": True, "dnsPolicy": "Default"}
    if trial.grace is not None:
        spec["terminationGracePeriodSeconds"] = trial.grace
    merge(container, trial.container)
    spec["containers"] = [container]
    merge(spec, trial.pod)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"trial": name}}, "spec": spec}


def merge(into: Object, more: Mapping[str, Any]) -> None:
    """Merge `more` into an object; a list is appended."""
    for key, value in more.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            merge(into[key], value)
        elif isinstance(value, list) and isinstance(into.get(key), list):
            into[key] += copy.deepcopy(value)
        else:
            into[key] = copy.deepcopy(value)


Key = tuple[str, str]  # the name of a trial, and the init


def create_pods(watch: Watch, trials: Mapping[str, Trial], namespace: str = "default") -> dict[Key, Pod]:
    """Create the pods of all these trials under each init."""
    return {
        (name, init): create(
            watch, specification(f"{name}-{init.replace(' ', '-')}", trial, init), namespace, trial=name
        )
        for name, trial in trials.items()
        for init in trial.inits
    }


def wait_until_ready(trials: Mapping[str, Trial], pods: Mapping[Key, Pod]) -> None:
    for (name, _), pod in pods.items():
        if trials[name].wait_for:
            pod.wait_for_line(trials[name].wait_for)


def stop(trials: Mapping[str, Trial], pods: Mapping[Key, Pod]) -> None:
    """Do to each pod what its trial says."""
    for (name, _), pod in pods.items():
        trials[name].act(pod)


def wait_until_over(trials: Mapping[str, Trial], pods: Mapping[Key, Pod]) -> dict[Key, str]:
    """Wait until all are over; return the outcomes. What is over is removed."""
    outcomes: dict[Key, str] = {}

    def look() -> bool:
        for key in pods.keys() - outcomes.keys():
            pod, trial = pods[key], trials[key[0]]
            if trial.is_over(pod):
                outcomes[key] = trial.outcome(pod)
                if not pod.is_gone():
                    pod.delete(gracePeriodSeconds=1)
        return len(outcomes) == len(pods)

    try:
        wait_until(look, "the end of every pod", 2 * PATIENCE)
    except AssertionError as error:
        raise AssertionError(
            f"{error}; not over: {[pods[key].shown() for key in pods.keys() - outcomes.keys()]}"
        ) from None
    return outcomes

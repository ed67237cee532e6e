"""Run the trials, most of them at the same time."""

from __future__ import annotations

from dataclasses import dataclass

from . import trial, trials
from .pods import Pod, Watch
from .trial import Key


@dataclass
class Run:
    """Trials that have run: their pods, and what became of them."""

    pods: dict[Key, Pod]
    outcomes: dict[Key, str]


def run_together(watch: Watch) -> Run:
    """Run those that need nothing but their pods."""
    at_once = {name: case for name, case in trials.TOGETHER.items() if not case.wait_for}
    others = {name: case for name, case in trials.TOGETHER.items() if case.wait_for}
    pods = trial.create_pods(watch, others)
    trial.wait_until_ready(others, pods)
    trial.stop(others, pods)
    pods |= trial.create_pods(watch, at_once)  # now, so that their probes do not fail for want of processor time
    return Run(pods, trial.wait_until_over(trials.TOGETHER, pods))


def run_restarts(watch: Watch) -> Run:
    """Run those during which containerd is killed and started again, then those with the kubelet."""
    both = {**trials.CONTAINERD, **trials.KUBELET}
    pods = trial.create_pods(watch, both)
    trial.wait_until_ready(both, pods)
    outcomes: dict[Key, str] = {}
    cluster = watch.cluster
    for group, restart in ((trials.CONTAINERD, cluster.restart_containerd), (trials.KUBELET, cluster.restart_kubelet)):
        chosen = {key: pod for key, pod in pods.items() if key[0] in group}
        trial.stop(group, chosen)
        for pod in chosen.values():
            trials.await_the_stop(pod)
        restart()
        outcomes |= trial.wait_until_over(group, chosen)
    return Run(pods, outcomes)

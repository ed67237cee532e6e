"""Deployments under test: create, roll and remove them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .api import Object
from .pods import Pod, Watch, find, wait_until

PATH = "/apis/apps/v1/namespaces/default/deployments"
ROLLOUT = "--timeout=280s"  # on a busy machine


def body(name: str, pod: Object) -> Object:
    """A Deployment of two pods with this specification. A new pod is ready before an old one is stopped."""
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


class Deployment:
    def __init__(self, watch: Watch, name: str) -> None:
        self.watch, self.name = watch, name

    def pods(self) -> list[Pod]:
        """Those that exist, also the stopping ones."""
        return find(self.watch, f"app={self.name}")

    def begin_rollout(self) -> None:
        self.watch.cluster.kubectl("rollout", "restart", f"deployment/{self.name}")

    def finish_rollout(self) -> None:
        """Wait until the new pods are ready. The old ones may still be stopping."""
        self.watch.cluster.kubectl("rollout", "status", f"deployment/{self.name}", ROLLOUT)


@contextmanager
def deployed(watch: Watch, name: str, pod: Object) -> Iterator[Deployment]:
    """A Deployment whose pods are ready; at the end it is removed, and its pods have stopped."""
    watch.cluster.api.create(PATH, body(name, pod))
    made = Deployment(watch, name)
    try:
        made.finish_rollout()
        yield made
    finally:
        watch.cluster.api.delete(f"{PATH}/{name}")
        wait_until(lambda: not made.pods(), f"the end of the pods of {name}")

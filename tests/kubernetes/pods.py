"""Pods under test: what the API shows of them, also when they are gone, and their logs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from .api import ApiError, Object
from .cluster import Cluster

T = TypeVar("T")
PATIENCE = 240.0  # seconds to wait for a thing that must happen, on a busy machine


def wait_until(look: Callable[[], T], what: str, within: float = PATIENCE) -> T:
    """Call `look` until its value is true, and return it. Raises AssertionError after `within` seconds."""
    deadline = time.monotonic() + within
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {within:.0f} s: {what}"
        time.sleep(0.1)
    return found


def seconds(text: str) -> float:
    """A time of the API or of a log, as seconds since the epoch."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{fraction or 0}"[:11])


@dataclass(frozen=True)
class Line:
    at: float  # seconds since the epoch
    stream: str
    text: str


class Watch:
    """Follows all pods: keeps each state, and a link to each container's log, which the kubelet removes."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.kept = cluster.root / "kept-logs"
        self.kept.mkdir()
        self.states: dict[str, list[Object]] = {}  # by uid
        self.gone: dict[str, float] = {}
        self._version = self._list()
        for follow in (self._run, self._keep_all_logs):
            threading.Thread(target=follow, daemon=True).start()

    def _list(self) -> str:
        return str(self.cluster.api.get("/api/v1/pods")["metadata"]["resourceVersion"])

    def _run(self) -> None:
        while True:
            try:
                for event in self.cluster.api.watch("/api/v1/pods", self._version):
                    self._handle(event)
            except (OSError, ApiError, ValueError):
                if not self.cluster.root.exists():
                    return
            time.sleep(0.2)

    def _handle(self, event: Object) -> None:
        if event["type"] == "ERROR":  # the version is too old
            self._version = self._list()
            return
        pod = event["object"]
        self._version = pod["metadata"]["resourceVersion"]
        uid = pod["metadata"]["uid"]
        self.keep_logs(pod)
        if event["type"] == "DELETED":
            self.gone[uid] = time.time()
        self.states.setdefault(uid, []).append(pod)

    def folder(self, pod: Object) -> Path:
        meta = pod["metadata"]
        return self.cluster.root / "pod-logs" / f"{meta['namespace']}_{meta['name']}_{meta['uid']}"

    def _keep_all_logs(self) -> None:
        """The kubelet removes the log of a restarted container, whenever it likes."""
        while self.cluster.root.exists():
            for folder in (self.cluster.root / "pod-logs").glob("*_*_*"):
                namespace, name, uid = folder.name.split("_")
                with suppress(OSError):
                    self.keep_logs({"metadata": {"namespace": namespace, "name": name, "uid": uid}})
            time.sleep(0.3)

    def keep_logs(self, pod: Object) -> None:
        for log in self.folder(pod).glob("*/*.log"):
            with suppress(FileExistsError, FileNotFoundError):
                os.link(log, self.kept / f"{pod['metadata']['uid']}_{log.parent.name}_{log.name}")


@dataclass
class Pod:
    """One pod, of a trial if named. `deleted_at`: when its deletion was requested, in seconds since the epoch."""

    watch: Watch
    namespace: str
    name: str
    uid: str
    trial: str = ""
    deleted_at: float = 0.0

    @property
    def cluster(self) -> Cluster:
        return self.watch.cluster

    @property
    def path(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"

    # --- Observe it. ---

    def states(self) -> list[Object]:
        return list(self.watch.states.get(self.uid, ()))

    def state(self) -> Object:
        """The last state; an empty one at the beginning."""
        return self.states()[-1] if self.states() else {"status": {}, "metadata": {}}

    def statuses(self, state: Object | None = None) -> dict[str, Object]:
        """The statuses of the containers by name, those of sidecars too."""
        status = (state or self.state())["status"]
        both = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
        return {found["name"]: found for found in both}

    def end(self, container: str = "agent") -> Object | None:
        """How the container ended: exitCode, reason, finishedAt, message. The first time, if it was restarted."""
        for state in self.states():
            found = self.statuses(state).get(container, {})
            for ended in (found.get("lastState", {}).get("terminated"), found.get("state", {}).get("terminated")):
                if isinstance(ended, dict):
                    return ended
        return None

    def restarts(self, container: str = "agent") -> int:
        return int(self.statuses().get(container, {}).get("restartCount", 0))

    def is_gone(self) -> bool:
        return self.uid in self.watch.gone

    def is_ready(self) -> bool:
        conditions = {c["type"]: c["status"] for c in self.state()["status"].get("conditions", ())}
        return conditions.get("Ready") == "True"

    def log(self, container: str = "agent", number: int = 0) -> list[Line]:
        """What the container has printed. `number`: of its restart."""
        self.watch.keep_logs({"metadata": {"namespace": self.namespace, "name": self.name, "uid": self.uid}})
        file = self.watch.kept / f"{self.uid}_{container}_{number}.log"
        if not file.exists():
            return []
        rows = [row.split(" ", 3) for row in file.read_text(errors="replace").splitlines()]
        return [Line(seconds(row[0]), row[1], row[3].rstrip("\r")) for row in rows if len(row) == 4]

    def lines(self, text: str = "", container: str = "agent", number: int = 0) -> list[str]:
        return [line.text for line in self.log(container, number) if text in line.text]

    def at(self, text: str, container: str = "agent", number: int = 0) -> float:
        """When it printed the first line with this text, in seconds since the epoch."""
        return next(line.at for line in self.log(container, number) if text in line.text)

    def shown(self) -> str:
        text = f"--- {self.namespace}/{self.name}: {self.statuses()}"
        for file in sorted(self.watch.kept.glob(f"{self.uid}_*")):
            text += f"\n--- {file.name.partition('_')[2]}:\n{file.read_text(errors='replace')[-6000:]}"
        return text

    # --- Wait, and act on it. ---

    def wait_for_line(self, text: str, container: str = "agent", number: int = 0) -> float:
        wait_until(lambda: self.lines(text, container, number), f"{text!r} of {self.name}: {self.shown()}")
        return self.at(text, container, number)

    def wait_until_gone(self) -> None:
        wait_until(self.is_gone, f"the end of {self.name}: {self.shown()}")

    def delete(self, **options: Any) -> None:
        """Request the deletion. `gracePeriodSeconds` in place of the pod's own."""
        self.deleted_at = time.time()
        self.cluster.api.delete(self.path, **options)

    def exec(self, *argv: str) -> None:
        self.cluster.kubectl("exec", "-n", self.namespace, self.name, "-c", "agent", "--", *argv)


def create(watch: Watch, body: Object, namespace: str = "default", trial: str = "") -> Pod:
    made = watch.cluster.api.create(f"/api/v1/namespaces/{namespace}/pods", body)
    return Pod(watch, namespace, made["metadata"]["name"], made["metadata"]["uid"], trial)


def find(watch: Watch, selector: str, namespace: str = "default") -> list[Pod]:
    """The pods that exist with these labels."""
    listed = watch.cluster.api.get(f"/api/v1/namespaces/{namespace}/pods?labelSelector={quote(selector)}")
    return [Pod(watch, namespace, pod["metadata"]["name"], pod["metadata"]["uid"]) for pod in listed["items"]]

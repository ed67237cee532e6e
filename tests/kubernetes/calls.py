"""A Deployment of LiveKit workers, and callers that call it all the time, through LiveKit's own server.

The server, the workers and the callers are those of tests/livekit; all are in the cluster's network.
"""

from __future__ import annotations

import itertools
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.agents import environments
from tests.containers.images import PYTHON
from tests.livekit import outcome, server
from tests.livekit.outcome import Outcome
from tests.livekit.trial import EXAMPLE, PROGRAMS, Caller, read

from . import deployments, image
from .api import Object, in_network
from .cluster import Cluster
from .deployments import Deployment
from .holder import ADDRESS
from .pods import Pod, Watch, wait_until

PORTS = (7880, 7881, 7882)
RELEASE = "livekit"  # an environment of tests/agents
LINES: Sequence[Sequence[float]] = ((15, 40, 25), (30, 20, 45))  # seconds of the calls, one after the other
GRACE = 180  # seconds of the pod; the workers end calls 28 s before agent-init's deadline (examples/livekit)
ACROSS = "across-the-restart"  # the room of the call during which containerd is restarted
CALL_SECONDS = 300.0  # the longest time that a call may take, with the agent's start on a busy machine

INITS = {"agent-init": ("agent-init", "--"), "tini": ("tini", "--")}


class Server:
    """LiveKit's server in the cluster's network, and what callers need of it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.url = f"ws://{ADDRESS}:{PORTS[0]}"
        self.variables = server.variables(self.url)
        self.enter = ("nsenter", f"--target={cluster.first}", "--net", "--pid", "--")
        cluster.start("livekit", *server.command(ADDRESS, *PORTS))
        wait_until(lambda: in_network(cluster.first, self._answers), "an answer of LiveKit's server")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{ADDRESS}:{PORTS[0]}", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def pod(livekit: Server, init: str, records: Path) -> Object:
    """The worker of examples/livekit with the voice of tests/livekit. It is ready when it can take a call."""
    folders = {
        "packages": environments.packages(RELEASE, PYTHON),
        "example": EXAMPLE,
        "programs": PROGRAMS,
        "records": records,
    }
    variables = {
        **livekit.variables,
        "PYTHONPATH": "/packages:/example",
        "CALL_RECORDS": "/records",
        "READY_FILE": "/tmp/ready",
        "MAX_LOAD": "inf",  # two cores for all of it
        "AGENT_INIT_GRACE": f"{GRACE - 10}s",
    }
    container = {
        "name": "agent",
        "image": image.NAME,
        "imagePullPolicy": "Never",
        "command": [*INITS[init], "python", "/programs/voice_agent.py", "start"],
        "env": [{"name": name, "value": value} for name, value in variables.items()],
        "securityContext": {"runAsUser": 0},
        "readinessProbe": {"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 2, "timeoutSeconds": 10},
        "volumeMounts": [{"name": name, "mountPath": f"/{name}"} for name in folders],
    }
    return {
        "terminationGracePeriodSeconds": GRACE,
        "containers": [container],
        "volumes": [{"name": name, "hostPath": {"path": str(folder)}} for name, folder in folders.items()],
    }


@dataclass(frozen=True)
class Tally:
    """`begun`: an agent has answered. `cut`: it was gone before the caller hung up. `unanswered`: no agent came."""

    begun: int
    cut: int
    not_saved: int
    unanswered: int


class Calls:
    """Callers: two lines with one call after the other, and others that are asked for."""

    def __init__(self, livekit: Server, folder: Path) -> None:
        self._server, self._folder = livekit, folder
        self._rooms: list[str] = []
        self._stopped = threading.Event()
        self._lines = [threading.Thread(target=self._line, args=(n,), daemon=True) for n in range(len(LINES))]

    def begin(self, room: str, seconds: float = float("inf")) -> Caller:
        self._rooms.append(room)
        return Caller(self._server, self._folder, room, seconds=seconds, enter=self._server.enter)

    def start(self) -> None:
        """Start the lines, and wait until each has a call."""
        for line in self._lines:
            line.start()
        first = [f"line-{number}-0" for number in range(len(LINES))]
        wait_until(lambda: all(self.agents(room, "begun") for room in first), "the first calls")

    def _line(self, number: int) -> None:
        for count, seconds in enumerate(itertools.cycle(LINES[number])):
            if self._stopped.is_set():
                return
            self.begin(f"line-{number}-{count}", seconds).wait(CALL_SECONDS)

    def stop(self) -> None:
        """No new calls; wait for the end of those that there are."""
        self._stopped.set()
        for line in self._lines:
            line.join()

    def agents(self, room: str, event: str = "") -> list[dict[str, object]]:
        """The agent's records of a call."""
        return read(self._folder / f"{room}.agent", event)

    def tally(self) -> Tally:
        """Count the calls. All are over, and so are their workers."""
        ends = [self._end(room) for room in self._rooms if self.agents(room, "begun")]
        return Tally(
            begun=len(ends),
            cut=sum(end.left or not seen for end, seen in ends),
            not_saved=sum(not end.saved for end, _ in ends),
            unanswered=len(self._rooms) - len(ends),
        )

    def _end(self, room: str) -> tuple[Outcome, bool]:
        """How a call ended, and whether the agent has seen the caller leave."""
        ended = outcome.of(read(self._folder / f"{room}.caller"), self.agents(room))
        return ended, bool(self.agents(room, "caller left"))

    def shown(self) -> str:
        """The records of all calls."""
        files = sorted(file for file in self._folder.iterdir() if file.suffix in (".agent", ".caller", ".log"))
        return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')[-4000:]}" for file in files)


@contextmanager
def workers_with_calls(watch: Watch, livekit: Server, init: str) -> Iterator[tuple[Deployment, Calls]]:
    """A Deployment with calls all the time; at the end all calls are over and all pods gone."""
    name = f"workers-under-{init}"
    folder = watch.cluster.root / name
    folder.mkdir()
    calls = Calls(livekit, folder)
    with deployments.deployed(watch, name, pod(livekit, init, folder)) as made:
        try:
            calls.start()
            yield made, calls
        finally:
            calls.stop()


def roll(workers: Deployment) -> None:
    workers.begin_rollout()
    workers.finish_rollout()


def roll_and_restart_containerd(workers: Deployment, calls: Calls) -> None:
    """A rollout; containerd is killed and started again while a worker drains that has a call in hand.

    The call lasts until the kubelet has stopped the container once more, and the caller has heard more answers or none.
    """
    caller = calls.begin(ACROSS)
    wait_until(lambda: caller.answers() >= 2, f"the call: {calls.shown()}")
    (begun,) = calls.agents(ACROSS, "begun")
    workers.begin_rollout()
    (busy,) = (pod for pod in workers.pods() if pod.name == begun["host"])
    busy.wait_for_line("draining worker")
    workers.watch.cluster.restart_containerd()
    wait_until(lambda: was_stopped_again(busy), f"a second TERM: {busy.shown()}")
    again = time.time()
    wait_until(lambda: caller.answers(again) >= 3 or caller.records("hung up"), f"the call: {calls.shown()}")
    caller.hang_up()
    workers.finish_rollout()


def was_stopped_again(stopping: Pod) -> bool:
    """Whether agent-init has logged the second TERM, or the worker has died of it."""
    return bool(stopping.lines("stop already in progress")) or stopping.end() is not None

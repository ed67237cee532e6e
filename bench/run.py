"""One run: an init as process 1 of a new PID namespace with an agent, observed from outside."""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import subprocess
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .contenders import Init

PATIENCE = 20.0  # seconds until a wait has failed


class Failed(click.ClickException):
    """A run failed."""


@dataclass(frozen=True)
class Place:
    """What all runs share: a directory for their files, the compiled probe, and the environment."""

    directory: Path
    probe: Path
    environment: Mapping[str, str]


class Run:
    """An init as process 1, with an agent. `pid` is its pid as seen from here."""

    def __init__(
        self,
        place: Place,
        init: Init,
        *agent: object,
        launch: str = "launch",
        variables: Mapping[str, str] | None = None,
        wrapper: Sequence[str] = (),
    ) -> None:
        """`agent`: role and argument of the probe; `launch`: the probe's role that starts the init; `wrapper`: a
        command in front of the agent.
        """
        self.name, self._port = init.name, init.port
        self._place = place
        self._stamps: dict[str, list[int]] = defaultdict(list)
        self._rest = b""
        self._path = place.directory / "fifo"
        self._shared = place.directory / "fifo.shared"
        self._go = place.directory / "fifo.go"
        for path in (self._path, self._shared, self._go):
            path.unlink(missing_ok=True)
        os.mkfifo(self._path)
        self._fifo = os.open(self._path, os.O_RDWR | os.O_NONBLOCK)  # a writer of our own: no end of file
        role, *arguments = map(str, agent)
        argv = init.argv([*wrapper, str(place.probe), role, str(self._path), *arguments])
        self._stderr = (place.directory / "stderr").open("w+b")
        self._launcher = self._start(launch, *argv, variables={**init.variables, **(variables or {})})
        self.pid = 0

    def _start(self, role: str, *argv: str, variables: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [self._place.probe, role, self._path, *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._stderr,
            env={**self._place.environment, **(variables or {})},
        )

    def __enter__(self) -> Run:
        try:
            self.pid = self.stamp("pid")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the launcher; process 1 dies with it, and everything else with process 1."""
        self._launcher.kill()
        self._launcher.wait()
        end = time.monotonic() + PATIENCE
        while self.pid and not self._is_dead() and time.monotonic() < end:
            time.sleep(0.001)  # so that the end of a large tree disturbs no other run
        os.close(self._fifo)
        self._stderr.close()

    # --- Stamps. ----------------------------------------------------------------------------------------------------

    def stamp(self, name: str, patience: float = PATIENCE) -> int:
        """Wait for a stamp and return its number, each once. Raises Failed after `patience` seconds."""
        end = time.monotonic() + patience
        while not self._stamps[name]:
            over = bool(self._stamps["end"])
            if over or not select.select([self._fifo], [], [], max(0.0, end - time.monotonic()))[0]:
                self._stderr.seek(0)
                stderr = self._stderr.read().decode(errors="replace").strip().rpartition("\n")[2][-200:]
                raise Failed(f"no {name!r} in time; last line on stderr: {stderr or 'none'}")
            self._read()
        return self._stamps[name].pop(0)

    def stamps(self, name: str) -> list[int]:
        """Return the numbers of all stamps with this name that have arrived and were not returned yet."""
        while select.select([self._fifo], [], [], 0)[0]:
            self._read()
        return self._stamps.pop(name, [])

    def _read(self) -> None:
        *lines, self._rest = (self._rest + os.read(self._fifo, 65536)).split(b"\n")
        for line in lines:
            stamp, number = line.split()
            self._stamps[stamp.decode()].append(int(number))

    @property
    def exited_on_term(self) -> int:
        """How many processes of the tree received a TERM and exited."""
        return self._counters[2]

    @property
    def last(self) -> int:
        """When the agent has exited, in nanoseconds (monotonic clock)."""
        return self._counters[0]

    @property
    def _counters(self) -> tuple[int, ...]:
        """What the processes share, as the probe has it."""
        return struct.unpack("qii", self._shared.read_bytes())

    # --- Signals. ---------------------------------------------------------------------------------------------------

    def signal(self, number: int) -> int:
        """Send a signal to process 1; return the time before it, in nanoseconds (monotonic clock)."""
        sent = time.monotonic_ns()
        os.kill(self.pid, number)
        return sent

    def forward(self) -> float:
        """Send USR1; return the microseconds until the agent's handler ran."""
        sent = self.signal(signal.SIGUSR1)
        return (self.stamp("got") - sent) / 1e3

    def burst(self, number: int, count: int) -> tuple[int, float]:
        """Send many signals at once; return how many the agent has received so far, and the seconds that took."""
        with self._start("send", str(self.pid), str(number), str(count)) as sender:
            sent = self.stamp("first-sent")
            self.stamp("last-sent")
            sender.wait(PATIENCE)
        self.settle()
        end = time.monotonic() + PATIENCE
        while self._agent_has_pending():
            if time.monotonic() > end:
                raise Failed("signals of the agent stay pending")
            time.sleep(0.01)
        time.sleep(0.1)  # the agent reports every 20 ms
        arrived, last = self.stamps("arrived"), self.stamps("last-arrival")
        return (arrived[-1], (last[-1] - sent) / 1e9) if arrived else (0, 0.0)

    def go(self) -> None:
        """Let the orphans exit."""
        self._go.touch()

    # --- Observations. ----------------------------------------------------------------------------------------------

    def overhead(self) -> list[int]:
        """Return the pids of the init's own processes: process 1 and, with s6, its helpers."""
        first = psutil.Process(self.pid)
        children = first.children(recursive=True) if self.name == "s6-svscan" else []
        return [self.pid, *(child.pid for child in children if child.name() != self._place.probe.name)]

    def switches(self) -> int:
        """Return the number of context switches of the init so far: one for each wake-up."""
        lines = [line for status in self._tasks("status") for line in status.splitlines()]
        return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)

    def cpu(self) -> float:
        """Return the CPU time of the init so far, in milliseconds."""
        return sum(int(times.split()[0]) for times in self._tasks("schedstat")) / 1e6

    def memory(self) -> dict[str, float]:
        """Return its private memory and PSS in MiB, from `smaps_rollup` (proc(5))."""
        private = proportional = 0.0
        for pid in self.overhead():
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
            size = {name: int(value.split()[0]) / 1024 for name, value in (line.split(":") for line in lines)}
            private += size["Private_Clean"] + size["Private_Dirty"]
            proportional += size["Pss"]
        return {"private": private, "pss": proportional}

    def settle(self, seconds: float = 0.1) -> None:
        """Wait until the init has started completely, and slept for `seconds`."""
        end = time.monotonic() + PATIENCE
        while self._port and not _listens(self._port):
            if time.monotonic() > end:
                raise Failed(f"nothing listens on port {self._port}")
            time.sleep(0.01)
        seen = -1
        while (now := self.switches()) != seen or not self._is_asleep():
            if time.monotonic() > end:
                raise Failed("the init does not come to rest")
            seen = now
            time.sleep(seconds)

    def _is_asleep(self) -> bool:
        return all(stat.rpartition(")")[2].split()[0] == "S" for stat in self._tasks("stat"))

    def _agent_has_pending(self) -> bool:
        first = psutil.Process(self.pid)
        for process in (first, *first.children(recursive=True)):
            if process.name() == self._place.probe.name:
                status = Path(f"/proc/{process.pid}/status").read_text()
                return any(line.startswith("ShdPnd:") and int(line[7:], 16) for line in status.splitlines())
        return False

    def _is_dead(self) -> bool:
        """Whether process 1 is gone or a zombie."""
        try:
            return psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    def _tasks(self, file: str) -> Iterator[str]:
        for pid in self.overhead():
            for task in Path(f"/proc/{pid}/task").iterdir():
                yield (task / file).read_text()


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE):
            return True
    except OSError:
        return False

"""One run: an init as process 1 of a fresh PID namespace, with an agent, and what can be read of it from outside."""

from __future__ import annotations

import os
import select
import signal
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

PATIENCE = 20.0  # seconds; a wait that takes longer has failed


class Failed(click.ClickException):
    """A run did not go as it should."""


@dataclass(frozen=True)
class Place:
    """What all runs have in common: the compiled probe, a directory for their files, the environment they are given."""

    directory: Path
    probe: Path
    environment: Mapping[str, str]


class Run:
    """An init as process 1, with an agent. `pid` is its pid as seen from here; `told` waits for what was stamped."""

    def __init__(
        self,
        place: Place,
        init: Init,
        *agent: object,
        launch: str = "launch",
        variables: Mapping[str, str] | None = None,
        wrapper: Sequence[str] = (),
    ) -> None:
        """`agent`: the probe's role and argument; `launch`: the probe's way to start it; `wrapper`: words before."""
        self.name = init.name
        self._place = place
        self._records: dict[str, list[int]] = defaultdict(list)
        self._rest = b""
        self._path = place.directory / "fifo"
        self._shared = place.directory / "fifo.shared"
        self._go = place.directory / "fifo.go"
        for path in (self._path, self._shared, self._go):
            path.unlink(missing_ok=True)
        os.mkfifo(self._path)
        self._fifo = os.open(self._path, os.O_RDWR | os.O_NONBLOCK)  # with a writer always there it has no end of file
        role, *arguments = map(str, agent)
        words = init.words([*wrapper, str(place.probe), role, str(self._path), *arguments])
        self._said = (place.directory / "stderr").open("w+b")
        self._launcher = self._start(launch, *words, variables={**init.variables, **(variables or {})})
        self.pid = 0

    def _start(self, role: str, *words: str, variables: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [self._place.probe, role, self._path, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._said,
            env={**self._place.environment, **(variables or {})},
        )

    def __enter__(self) -> Run:
        try:
            self.pid = self.told("pid")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Everything dies with process 1, and that with its launcher."""
        self._launcher.kill()
        self._launcher.wait()
        end = time.monotonic() + PATIENCE
        while self.pid and not self._is_dead() and time.monotonic() < end:
            time.sleep(0.001)  # a large tree takes its time, which belongs into no other run
        os.close(self._fifo)
        self._said.close()

    # --- What is told. ----------------------------------------------------------------------------------------------

    def told(self, word: str, patience: float = PATIENCE) -> int:
        """The number that came with `word`; each is returned once. Raises Failed when it does not come in time."""
        end = time.monotonic() + patience
        while not self._records[word]:
            over = bool(self._records["end"])
            if over or not select.select([self._fifo], [], [], max(0.0, end - time.monotonic()))[0]:
                self._said.seek(0)
                said = self._said.read().decode(errors="replace").strip().rpartition("\n")[2][-200:]
                raise Failed(f"waited in vain for {word!r}; its last words: {said or 'none'}")
            self._read()
        return self._records[word].pop(0)

    def all_told(self, word: str) -> list[int]:
        """The numbers that came with `word` and were not asked for, without waiting."""
        while select.select([self._fifo], [], [], 0)[0]:
            self._read()
        return self._records.pop(word, [])

    def _read(self) -> None:
        *lines, self._rest = (self._rest + os.read(self._fifo, 65536)).split(b"\n")
        for line in lines:
            name, number = line.split()
            self._records[name.decode()].append(int(number))

    @property
    def ended_by_request(self) -> int:
        """How many processes of the tree got a TERM and ended by themselves."""
        return int(struct.unpack("ii", self._shared.read_bytes())[1])

    # --- To it. -----------------------------------------------------------------------------------------------------

    def signal(self, number: int) -> int:
        """Send one; returns the time, in nanoseconds."""
        sent = time.monotonic_ns()
        os.kill(self.pid, number)
        return sent

    def forwarded(self) -> float:
        """How long a signal takes to the agent's handler, in microseconds."""
        sent = self.signal(signal.SIGUSR1)
        return (self.told("got") - sent) / 1e3

    def burst(self, number: int, count: int) -> tuple[int, float]:
        """Send many signals: how many the agent has got by now, and seconds from the first to the last arrival."""
        with self._start("send", str(self.pid), str(number), str(count)) as sender:
            sent = self.told("first-sent")
            self.told("last-sent")
            sender.wait(PATIENCE)
        self.settle()
        end = time.monotonic() + PATIENCE
        while self._agent_has_pending():
            if time.monotonic() > end:
                raise Failed("the agent does not get through its signals")
            time.sleep(0.01)
        time.sleep(0.1)  # it tells every 20 ms
        arrived, last = self.all_told("arrived"), self.all_told("last-arrival")
        return (arrived[-1], (last[-1] - sent) / 1e9) if arrived else (0, 0.0)

    def go(self) -> None:
        """Let the agent do what it is ready for."""
        self._go.touch()

    # --- What can be seen. ------------------------------------------------------------------------------------------

    def overhead(self) -> list[int]:
        """The pids of all that is not the agent's: process 1 and, with s6, what it needs besides."""
        first = psutil.Process(self.pid)
        children = first.children(recursive=True) if self.name == "s6-svscan" else []
        return [self.pid, *(child.pid for child in children if child.name() != self._place.probe.name)]

    def switches(self) -> int:
        """How often its threads have left the processor until now: once for each wake-up."""
        lines = [line for status in self._tasks("status") for line in status.splitlines()]
        return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)

    def cpu(self) -> float:
        """Milliseconds of processor time until now."""
        return sum(int(times.split()[0]) for times in self._tasks("schedstat")) / 1e6

    def memory(self) -> dict[str, float]:
        """MiB, from `smaps_rollup` (proc(5))."""
        private = proportional = 0.0
        for pid in self.overhead():
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
            size = {name: int(value.split()[0]) / 1024 for name, value in (line.split(":") for line in lines)}
            private += size["Private_Clean"] + size["Private_Dirty"]
            proportional += size["Pss"]
        return {"private": private, "pss": proportional}

    def settle(self, still: float = 0.1) -> None:
        """Wait until it has slept for `still` seconds."""
        end = time.monotonic() + PATIENCE
        seen = -1
        while (now := self.switches()) != seen or not self._sleeps():
            if time.monotonic() > end:
                raise Failed("does not come to rest")
            seen = now
            time.sleep(still)

    def _sleeps(self) -> bool:
        return all(stat.rpartition(")")[2].split()[0] == "S" for stat in self._tasks("stat"))

    def _agent_has_pending(self) -> bool:
        first = psutil.Process(self.pid)
        for process in (first, *first.children(recursive=True)):
            if process.name() == self._place.probe.name:
                status = Path(f"/proc/{process.pid}/status").read_text()
                return any(line.startswith("ShdPnd:") and int(line[7:], 16) for line in status.splitlines())
        return False

    def _is_dead(self) -> bool:
        """Also as a zombie, which lasts until whoever adopted it looks after it."""
        try:
            return psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    def _tasks(self, file: str) -> Iterator[str]:
        for pid in self.overhead():
            for task in Path(f"/proc/{pid}/task").iterdir():
                yield (task / file).read_text()

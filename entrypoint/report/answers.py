"""Ask all processes at once for their stacks and tasks. `entrypoint/agent/responder.py` answers."""

from __future__ import annotations

import codecs
import itertools
import os
import select
import socket
import struct
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from .by_proc import cpu_seconds  # abstract sockets are Linux's, and so is /proc

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_PROCESSES_ASKED = 64
MAX_ANSWER_BYTES = {"": 1 << 17, "tasks": 1 << 23, "loops": 1 << 17}  # by what is asked for
RETRY_SECONDS = 0.02  # a process that forks has no socket for a moment
MAX_ATTEMPTS = 4
NUMBERS = itertools.count()  # of our connections
DECODE = codecs.getdecoder("unicode_escape")  # looked up now: a process that has become another user may not be able to


class Process(Protocol):
    """What is needed of a process; see `processes`."""

    @property
    def pid(self) -> int: ...
    @property
    def inner_pid(self) -> int: ...
    @property
    def is_dead(self) -> bool: ...
    @property
    def is_agent(self) -> bool: ...
    @property
    def is_python(self) -> bool: ...


@dataclass(frozen=True)
class Frame:
    """One stack frame. `line` is 0 if unknown."""

    file: str
    line: int
    function: str


@dataclass
class StackGroup:
    """Threads or tasks with the same stack. `frames` has the innermost frame last; a number is that many frames cut."""

    is_task: bool
    count: int
    names: str
    flags: frozenset[str]
    awaits: str = ""
    loop: str = ""
    frames: list[Frame | int] = field(default_factory=list)


@dataclass(frozen=True)
class Lags:
    """How late the loops of a process turned (--loop-watch), in seconds, and how often one was blocked.

    `counts[n]` lags are at most `bounds[n]`, and longer than the bound before; the last of `counts` has no bound.
    """

    limit: float
    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float
    blocked: int


@dataclass(frozen=True)
class Loop:
    """An event loop that runs: its thread, and for how many seconds it has been blocked where, or 0 and nothing."""

    thread: str
    blocked: float
    where: str


@dataclass
class Answer:
    """What one process sent. `threads_cut` and `tasks_cut` count what did not fit; `is_complete`: the end arrived.

    `lags` is None if its event loops are not watched.
    """

    version: str = ""
    lags: Lags | None = None
    loops: list[Loop] = field(default_factory=list)
    threads: list[StackGroup] = field(default_factory=list)
    tasks: list[StackGroup] = field(default_factory=list)
    threads_cut: int = 0
    tasks_cut: int = 0
    is_complete: bool = False


@dataclass(frozen=True)
class NoAnswer:
    """The process has a socket but sent nothing for `seconds`. `cpu`: seconds of CPU time it used in that time."""

    seconds: float
    cpu: float | None


def ask(prefix: str, processes: Iterable[Process], seconds: float, what: str = "") -> dict[int, Answer | NoAnswer]:
    """Return the answers by pid, after `seconds` at the latest. A process without a socket is not included.

    `prefix`: the request's `responders`. `what`: `tasks` for every task on its own, `loops` for the event loops only;
    without it, the stacks of threads and tasks, and the event loops.
    """
    query = _Query(prefix, processes, seconds, what)
    query.run()
    return query.results()


class _Query:
    """The connections to all processes asked, and what each has sent."""

    def __init__(self, prefix: str, processes: Iterable[Process], seconds: float, what: str) -> None:
        alive = [process for process in processes if not process.is_dead]
        alive.sort(key=lambda process: not (process.is_agent or process.is_python))
        self._prefix, self._what = prefix, what
        self._began = time.monotonic()
        self._deadline = self._began + max(0.0, seconds)
        self._unconnected = alive[:MAX_PROCESSES_ASKED]
        self._attempts = 0
        self._connections: dict[int, tuple[int, socket.socket]] = {}  # by descriptor: pid, socket
        self._received: dict[int, bytes] = {}  # by pid
        self._cpu_before: dict[int, float | None] = {}  # by pid
        self._silent: set[int] = set()
        self._poll = select.poll()

    def run(self) -> None:
        """Connect and read until everything has arrived or the time is up."""
        while True:
            if self._will_retry() and time.monotonic() >= self._began + self._attempts * RETRY_SECONDS:
                self._connect_all()
            remaining = self._deadline - time.monotonic()
            if remaining <= 0 or not (self._connections or self._will_retry()):
                return
            seconds = min(remaining, RETRY_SECONDS) if self._will_retry() else remaining
            for fd, _ in self._poll.poll(seconds * 1000):
                self._read(fd)

    def results(self) -> dict[int, Answer | NoAnswer]:
        """Return the answers by pid."""
        silent = self._silent | {pid for pid, _ in self._connections.values() if not self._received[pid]}
        took = time.monotonic() - self._began
        found: dict[int, Answer | NoAnswer] = {}
        for pid, data in self._received.items():
            if pid not in silent and data:
                found[pid] = parse(data)
        for pid in silent:
            before, after = self._cpu_before[pid], cpu_seconds(pid)
            found[pid] = NoAnswer(took, None if before is None or after is None else after - before)
        return found

    def _will_retry(self) -> bool:
        return bool(self._unconnected) and self._attempts < MAX_ATTEMPTS

    def _connect_all(self) -> None:
        self._attempts += 1
        refused = []
        for process in self._unconnected:
            try:
                connection = _connect(self._prefix, process, self._what)
            except BlockingIOError:  # the backlog is full: the process does not answer others either
                self._silent.add(process.pid)
            except OSError:
                refused += [process] if process.is_python else []
            else:
                if connection is not None:
                    self._connections[connection.fileno()] = process.pid, connection
                    self._received[process.pid] = b""
                    self._poll.register(connection, select.POLLIN)
            self._cpu_before.setdefault(process.pid, cpu_seconds(process.pid))
        self._unconnected = refused

    def _read(self, fd: int) -> None:
        """Read what has arrived on one connection; close it when the answer is complete or too long."""
        pid, connection = self._connections[fd]
        try:
            block = connection.recv(65536)
        except OSError:
            block = b""
        self._received[pid] += block
        received = self._received[pid]
        if not block or len(received) > MAX_ANSWER_BYTES[self._what] or received.endswith(b"\nend\n"):
            self._poll.unregister(fd)
            del self._connections[fd]
            connection.close()


def _connect(prefix: str, process: Process, what: str) -> socket.socket | None:
    """Return a connection to the process's socket, or None if another process listens there. Raises OSError."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        if what:
            connection.bind(f"\0{prefix[1:]}/{os.getpid()}-{next(NUMBERS)}/{what}")
        connection.connect(f"\0{prefix[1:]}/{process.inner_pid}")
        peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        if struct.unpack("3i", peer)[0] == process.pid:
            return connection
    except OSError:
        connection.close()
        raise
    connection.close()
    return None


def parse(data: bytes) -> Answer:
    """Return what a responder sent. An incomplete answer gives what arrived; malformed lines are skipped."""
    answer = Answer()
    group: StackGroup | None = None
    for line in data.decode("ascii", "replace").split("\n"):
        kind, *fields = line.split("\t")
        try:
            if kind == "process":
                answer.version = _unescape(fields[1])
            elif kind == "lags":
                bounds, counts = tuple(map(float, fields[1].split(","))), tuple(map(int, fields[2].split(",")))
                answer.lags = Lags(float(fields[0]), bounds, counts, float(fields[3]), int(fields[4]))
            elif kind == "loop":
                answer.loops.append(Loop(_unescape(fields[0]), float(fields[1]), _unescape(fields[2])))
            elif kind == "thread":
                group = StackGroup(False, int(fields[0]), _unescape(fields[1]), frozenset(fields[3].split()))
                answer.threads.append(group)
            elif kind == "task":
                awaits, flags, loop = _unescape(fields[2]), frozenset(fields[3].split()), _unescape(fields[4])
                group = StackGroup(True, int(fields[0]), _unescape(fields[1]), flags, awaits, loop)
                answer.tasks.append(group)
            elif kind == "frame" and group is not None:
                group.frames.append(Frame(_unescape(fields[0]), int(fields[1]), _unescape(fields[2])))
            elif kind == "skip" and group is not None:
                group.frames.append(int(fields[0]))
            elif kind == "left":
                answer.threads_cut, answer.tasks_cut = int(fields[0]), int(fields[1])
            elif kind == "end":
                answer.is_complete = True
        except (ValueError, IndexError):  # UnicodeDecodeError is a ValueError
            continue
    return answer


def _unescape(text: str) -> str:
    return DECODE(text.encode("ascii", "replace"))[0]

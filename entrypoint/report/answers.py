"""Ask the processes that can answer what they are doing (`entrypoint/agent/responder.py`), all at once."""

from __future__ import annotations

import select
import socket
import struct
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil

from .processes import cpu_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .processes import Process

MOST = 64  # processes that are asked
LONGEST = 1 << 17  # bytes of an answer
AGAIN_AFTER = 0.02  # seconds: a process that forks has no socket for a moment
TRIES = 4


@dataclass(frozen=True)
class Frame:
    file: str
    line: int
    function: str


@dataclass
class Alike:
    """Threads or tasks with the same stack, the innermost frame last."""

    is_task: bool
    count: int
    names: str
    flags: frozenset[str]
    awaits: str = ""
    loop: str = ""
    frames: list[Frame | int] = field(default_factory=list)  # a number: so many are left out


@dataclass
class Answer:
    """What a process told."""

    version: str = ""
    threads: list[Alike] = field(default_factory=list)
    tasks: list[Alike] = field(default_factory=list)
    threads_left: int = 0
    tasks_left: int = 0
    is_whole: bool = False


@dataclass(frozen=True)
class Silence:
    """It has a socket and did not answer in `seconds`; it used `cpu` seconds of a processor meanwhile."""

    seconds: float
    cpu: float | None


def ask(prefix: str, processes: Iterable[Process], seconds: float) -> Mapping[int, Answer | Silence]:
    """Answers by pid; a process without a socket is not among them."""
    began = time.monotonic()
    end = began + max(0.0, seconds)
    candidates = sorted((p for p in processes if not p.is_dead), key=lambda p: not (p.is_agent or p.is_python))[:MOST]
    open_ones: dict[int, tuple[Process, socket.socket]] = {}
    read: dict[int, bytes] = {}
    used: dict[int, float | None] = {}
    silent: set[int] = set()
    poll = select.poll()
    tries = 0
    while True:
        if candidates and tries < TRIES and time.monotonic() >= began + tries * AGAIN_AFTER:
            tries += 1
            refused = []
            for process in candidates:
                try:
                    connected = _connect(prefix, process)
                except BlockingIOError:  # others wait already, in vain: it does not answer
                    silent.add(process.pid)
                except OSError:
                    refused += [process] if process.is_python else []
                else:
                    if connected is not None:
                        open_ones[connected.fileno()] = process, connected
                        read[process.pid] = b""
                        poll.register(connected, select.POLLIN)
                used.setdefault(process.pid, _cpu(process.pid))
            candidates = refused
        is_asking = bool(candidates) and tries < TRIES
        left = end - time.monotonic()
        if left <= 0 or not (open_ones or is_asking):
            break
        for fd, _ in poll.poll(min(left, AGAIN_AFTER if is_asking else left) * 1000):
            process, connected = open_ones[fd]
            try:
                block = connected.recv(65536)
            except OSError:
                block = b""
            read[process.pid] += block
            if not block or len(read[process.pid]) > LONGEST or read[process.pid].endswith(b"\nend\n"):
                poll.unregister(fd)
                del open_ones[fd]
                connected.close()
    silent |= {process.pid for process, _ in open_ones.values() if not read[process.pid]}
    took = time.monotonic() - began
    found: dict[int, Answer | Silence] = {}
    for pid, data in read.items():
        if pid not in silent and data:
            found[pid] = parse(data)
    for pid in silent:
        before, after = used[pid], _cpu(pid)
        found[pid] = Silence(took, None if before is None or after is None else after - before)
    return found


def _connect(prefix: str, process: Process) -> socket.socket | None:
    """A connection to its socket; None where somebody else listens under that name. Raises OSError."""
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connected.setblocking(False)
        connected.connect(f"\0{prefix[1:]}/{process.inner_pid}")
        peer = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        if struct.unpack("3i", peer)[0] == process.pid:
            return connected
    except OSError:
        connected.close()
        raise
    connected.close()
    return None


def _cpu(pid: int) -> float | None:
    try:
        return cpu_time(psutil.Process(pid))
    except psutil.Error:
        return None


def parse(data: bytes) -> Answer:
    """What a responder sent; of an answer that was cut short, what came."""
    answer = Answer()
    last: Alike | None = None
    for line in data.decode("ascii", "replace").split("\n"):
        kind, *fields = line.split("\t")
        try:
            if kind == "process":
                answer.version = _text(fields[1])
            elif kind == "thread":
                last = Alike(False, int(fields[0]), _text(fields[1]), frozenset(fields[3].split()))
                answer.threads.append(last)
            elif kind == "task":
                awaits, flags, loop = _text(fields[2]), frozenset(fields[3].split()), _text(fields[4])
                last = Alike(True, int(fields[0]), _text(fields[1]), flags, awaits, loop)
                answer.tasks.append(last)
            elif kind == "frame" and last is not None:
                last.frames.append(Frame(_text(fields[0]), int(fields[1]), _text(fields[2])))
            elif kind == "skip" and last is not None:
                last.frames.append(int(fields[0]))
            elif kind == "left":
                answer.threads_left, answer.tasks_left = int(fields[0]), int(fields[1])
            elif kind == "end":
                answer.is_whole = True
        except (ValueError, IndexError):  # UnicodeDecodeError too
            continue
    return answer


def _text(escaped: str) -> str:
    return escaped.encode("ascii", "replace").decode("unicode_escape")

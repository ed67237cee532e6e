"""The processes below process 1, as they can be seen from outside: psutil, and what it does not tell, from /proc."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

TICKS = os.sysconf("SC_CLK_TCK")
MOST = 1000  # processes that are looked at


@dataclass(frozen=True)
class Process:
    """What can be told of a process; None where that cannot be seen."""

    pid: int
    inner_pid: int  # as the process itself has it: another one in a PID namespace of its own
    parent: int
    parent_name: str
    is_agent: bool
    name: str
    age: float | None  # seconds
    state: str  # psutil's word
    threads: int | None
    cpu: float | None  # seconds since the moment of the request's `cpu`, or since its own start
    is_cpu_since: bool  # the first of these
    memory: int | None  # bytes (RSS)
    waits_in: str  # a function of the kernel's; "" where it does not wait, or that cannot be seen
    is_python: bool
    arguments: tuple[str, ...]

    @property
    def is_dead(self) -> bool:
        """A zombie: its parent has not asked for its exit code."""
        return self.state in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


def below(root: int, agent: int, used: Mapping[str, tuple[int, int]], *, arguments: bool) -> list[Process]:
    """The descendants of `root` but ourselves, each after its parent. `used`: the request's `cpu`."""
    try:
        top = psutil.Process(root)
        descendants = top.children(recursive=True)
    except psutil.Error:
        return []
    children: dict[int, list[psutil.Process]] = {}
    names = {root: "agent-init"}
    for process in descendants[:MOST]:
        if process.pid != os.getpid():
            with suppress(psutil.Error):
                children.setdefault(process.ppid(), []).append(process)
                names[process.pid] = process.name()
    found: list[Process] = []
    waiting = sorted(children.pop(root, []), key=lambda process: process.pid == agent)
    while waiting:
        process = waiting.pop()
        with suppress(psutil.NoSuchProcess):
            found.append(_look(process, names, agent, used, arguments))
        waiting += sorted(children.pop(process.pid, []), key=lambda child: -child.pid)
    return found


def _look(
    process: psutil.Process, names: Mapping[int, str], agent: int, used: Mapping[str, tuple[int, int]], arguments: bool
) -> Process:
    """Raises NoSuchProcess."""
    with process.oneshot():
        parent = process.ppid()
        state = process.status()
        name = process.name()
        start = _start(process.pid)
        since = used.get(str(process.pid))
        is_known = since is not None and since[0] == start
        cpu = cpu_time(process)
        if cpu is not None and since is not None and is_known:
            cpu -= since[1] / TICKS
        return Process(
            pid=process.pid,
            inner_pid=_inner_pid(process.pid),
            parent=parent,
            parent_name=names.get(parent, "?"),
            is_agent=process.pid == agent,
            name=name,
            age=_age(process, start),
            state=state,
            threads=_seen(process.num_threads),
            cpu=None if cpu is None else max(0.0, cpu),
            is_cpu_since=is_known,
            memory=_seen(lambda: int(process.memory_info().rss)),
            waits_in=waits_in(process.pid),
            is_python="python" in name or "python" in os.path.basename(_seen(process.exe) or ""),
            arguments=tuple(_seen(process.cmdline) or ()) if arguments else (),
        )


def _seen(look: Callable[[], T]) -> T | None:
    """None where we may not look, or there is nothing to see. Raises NoSuchProcess."""
    try:
        return look()
    except (psutil.AccessDenied, psutil.ZombieProcess, OSError):
        return None


def is_alive(pid: int) -> bool:
    """Whether it is still there, and no zombie."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.Error:
        return False


def cpu_time(process: psutil.Process) -> float | None:
    """Seconds that it has used of the processors, user and system."""
    times = _seen(process.cpu_times)
    return None if times is None else times.user + times.system


def waits_in(pid: int) -> str:
    """The function of the kernel in which its main thread waits (proc(5), wchan)."""
    found = _read(f"/proc/{pid}/wchan")
    return "" if found == "0" else found


def _start(pid: int) -> int | None:
    """When it started, in clock ticks since boot: the name of a process that no other one has."""
    fields = _read(f"/proc/{pid}/stat").rpartition(") ")[2].split()
    return int(fields[19]) if len(fields) > 19 else None


def _age(process: psutil.Process, start: int | None) -> float:
    if start is not None and hasattr(time, "CLOCK_BOOTTIME"):
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - start / TICKS)
    return max(0.0, time.time() - process.create_time())


def _inner_pid(pid: int) -> int:
    for line in _read(f"/proc/{pid}/status").splitlines():
        if line.startswith("NSpid:"):
            return int(line.split()[-1])
    return pid


def _read(path: str) -> str:
    """A small file of /proc; "" where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="backslashreplace") as file:
            return file.read(4096)
    except OSError:
        return ""

"""The processes below process 1 as seen from outside: psutil, and /proc for what psutil does not offer."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import psutil

from entrypoint import titles

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
MAX_PROCESSES = 1000  # inspected


@dataclass(frozen=True)
class Process:
    """What is known about a process. None: not readable."""

    pid: int
    inner_pid: int  # its pid in its own PID namespace
    parent: int
    parent_name: str
    is_agent: bool
    name: str
    title: str  # see `titles`
    age: float | None  # seconds
    state: str  # one of psutil.STATUS_*
    threads: int | None
    cpu: float | None  # seconds of CPU time, since the baseline or since the process started
    is_cpu_since_baseline: bool
    memory: int | None  # bytes (RSS)
    wait_channel: str  # kernel function (proc(5), wchan); "" if it does not wait or the kernel does not show it
    is_python: bool
    arguments: tuple[str, ...]

    @property
    def is_dead(self) -> bool:
        """Whether it is a zombie: it has ended and its parent has not reaped it."""
        return self.state in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


def descendants(
    root: int, agent: int, cpu_baseline: Mapping[str, tuple[int, int]], *, arguments: bool
) -> list[Process]:
    """Return the descendants of `root` except this process, each after its parent.

    `cpu_baseline`: the request's `cpu`. `arguments`: whether to include program arguments.
    """
    try:
        found = psutil.Process(root).children(recursive=True)
    except psutil.Error:
        return []
    children: dict[int, list[psutil.Process]] = {}
    names = {root: "agent-init"}
    for process in found[:MAX_PROCESSES]:
        if process.pid != os.getpid():
            with suppress(psutil.Error):
                children.setdefault(process.ppid(), []).append(process)
                names[process.pid] = titles.of(process.name(), _read_or_none(process.cmdline) or ())
    inspected: list[Process] = []
    stack = sorted(children.pop(root, []), key=lambda process: process.pid == agent)
    while stack:
        process = stack.pop()
        with suppress(psutil.NoSuchProcess):
            inspected.append(_inspect(process, names, agent, cpu_baseline, arguments))
        stack += sorted(children.pop(process.pid, []), key=lambda child: -child.pid)
    return inspected


def _inspect(
    process: psutil.Process,
    names: Mapping[int, str],
    agent: int,
    cpu_baseline: Mapping[str, tuple[int, int]],
    arguments: bool,
) -> Process:
    """Raises NoSuchProcess."""
    with process.oneshot():
        parent = process.ppid()
        state = process.status()
        name = process.name()
        start = _start_ticks(process.pid)
        baseline = cpu_baseline.get(str(process.pid))
        is_same = baseline is not None and baseline[0] == start  # the pid may have been reused
        cpu = cpu_seconds(process)
        if cpu is not None and baseline is not None and is_same:
            cpu -= baseline[1] / TICKS_PER_SECOND
        return Process(
            pid=process.pid,
            inner_pid=_inner_pid(process.pid),
            parent=parent,
            parent_name=names.get(parent, "?"),
            is_agent=process.pid == agent,
            name=name,
            title=titles.of_child(names.get(process.pid, name), names.get(parent, "")),
            age=_age(process, start),
            state=state,
            threads=_read_or_none(process.num_threads),
            cpu=None if cpu is None else max(0.0, cpu),
            is_cpu_since_baseline=is_same,
            memory=_read_or_none(lambda: int(process.memory_info().rss)),
            wait_channel=wait_channel(process.pid),
            is_python="python" in name or "python" in os.path.basename(_read_or_none(process.exe) or ""),
            arguments=tuple(_read_or_none(process.cmdline) or ()) if arguments else (),
        )


def _read_or_none(read: Callable[[], T]) -> T | None:
    """Return what `read` returns, or None if that is not permitted or not there. Raises NoSuchProcess."""
    try:
        return read()
    except (psutil.AccessDenied, psutil.ZombieProcess, OSError):
        return None


def is_alive(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.Error:
        return False


def cpu_seconds(process: psutil.Process) -> float | None:
    """Return the CPU time it has used, user and system, in seconds; None if not readable. Raises NoSuchProcess."""
    times = _read_or_none(process.cpu_times)
    return None if times is None else times.user + times.system


def wait_channel(pid: int) -> str:
    """Return the kernel function that its main thread waits in (proc(5), wchan), or ""."""
    found = _read_file(f"/proc/{pid}/wchan")
    return "" if found == "0" else found


def _start_ticks(pid: int) -> int | None:
    """Return its start time in clock ticks since boot. Pid and start time together identify a process."""
    fields = _read_file(f"/proc/{pid}/stat").rpartition(") ")[2].split()
    return int(fields[19]) if len(fields) > 19 else None


def _age(process: psutil.Process, start: int | None) -> float:
    if start is not None and hasattr(time, "CLOCK_BOOTTIME"):
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - start / TICKS_PER_SECOND)
    return max(0.0, time.time() - process.create_time())


def _inner_pid(pid: int) -> int:
    for line in _read_file(f"/proc/{pid}/status").splitlines():
        if line.startswith("NSpid:"):
            return int(line.split()[-1])
    return pid


def _read_file(path: str) -> str:
    """Return the first 4096 characters of a file in /proc, or "" if it is not readable."""
    try:
        with open(path, encoding="utf-8", errors="backslashreplace") as file:
            return file.read(4096)
    except OSError:
        return ""

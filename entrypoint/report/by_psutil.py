"""What psutil shows of the processes. `by_proc` has the same functions for where it is not installed."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

import psutil

from .states import State

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def tree(root: int, most: int) -> list[tuple[int, int, str]]:
    """Return pid, parent and name of each descendant of `root`, of at most `most`."""
    found = []
    try:
        descendants = psutil.Process(root).children(recursive=True)
    except psutil.Error:
        return []
    for process in descendants[:most]:
        with suppress(psutil.Error):
            found.append((process.pid, process.ppid(), process.name()))
    return found


def look(pid: int, *, arguments: bool) -> State | None:
    """Return how a process is; None if it is gone. `arguments`: whether to include program arguments."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            return State(
                state=str(process.status()),
                created=process.create_time(),
                threads=_read_or_none(process.num_threads),
                cpu=_cpu_seconds(process),
                memory=_read_or_none(lambda: int(process.memory_info().rss)),
                program=_read_or_none(process.exe) or "",
                arguments=tuple(_read_or_none(process.cmdline) or ()) if arguments else (),
            )
    except psutil.NoSuchProcess:
        return None


def cpu_seconds(pid: int) -> float | None:
    """Return the CPU time it has used, user and system, in seconds; None if not readable, or if it is gone."""
    try:
        return _cpu_seconds(psutil.Process(pid))
    except psutil.Error:
        return None


def _cpu_seconds(process: psutil.Process) -> float | None:
    times = _read_or_none(process.cpu_times)
    return None if times is None else times.user + times.system


def _read_or_none(read: Callable[[], T]) -> T | None:
    """Return what `read` returns, or None if that is not permitted or not there. Raises NoSuchProcess."""
    try:
        return read()
    except (psutil.AccessDenied, psutil.ZombieProcess, OSError):
        return None

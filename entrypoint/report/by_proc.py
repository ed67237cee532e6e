"""What /proc shows of the processes, for where psutil is not installed: as much as process 1 itself looks at.

`by_psutil` has the same functions.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from .states import DEAD, DISK_SLEEP, RUNNING, SLEEPING, STOPPED, TRACING_STOP, ZOMBIE, State

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
STATES = {  # proc(5), /proc/<pid>/stat
    "R": RUNNING,
    "S": SLEEPING,
    "D": DISK_SLEEP,
    "T": STOPPED,
    "t": TRACING_STOP,
    "Z": ZOMBIE,
    "X": DEAD,
}


class Stat(NamedTuple):
    """Some of the fields of /proc/<pid>/stat. `start`: its start time, in clock ticks since boot."""

    name: str
    state: str
    parent: int
    cpu_ticks: int
    threads: int
    start: int


def tree(root: int, most: int) -> list[tuple[int, int, str]]:
    """Return pid, parent and name of each descendant of `root`, of at most `most`."""
    children: dict[int, list[tuple[int, int, str]]] = {}
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        if stat := read_stat(pid):
            children.setdefault(stat.parent, []).append((pid, stat.parent, stat.name))
    found: list[tuple[int, int, str]] = []
    generation = children.pop(root, [])
    while generation:
        found += generation
        generation = [child for pid, _, _ in generation for child in children.pop(pid, [])]
    return found[:most]


def look(pid: int, *, arguments: bool) -> State | None:
    """Return how a process is; None if it is gone. Without its memory and its arguments."""
    stat = read_stat(pid)
    if stat is None:
        return None
    try:
        program = os.readlink(f"/proc/{pid}/exe")
    except OSError:  # not permitted, or a zombie
        program = ""
    state = STATES.get(stat.state, stat.state)
    cpu = stat.cpu_ticks / TICKS_PER_SECOND
    return State(state, created=None, threads=stat.threads, cpu=cpu, memory=None, program=program, arguments=())


def cpu_seconds(pid: int) -> float | None:
    """Return the CPU time it has used, user and system, in seconds; None if it is gone."""
    stat = read_stat(pid)
    return stat.cpu_ticks / TICKS_PER_SECOND if stat else None


def read_stat(pid: int) -> Stat | None:
    """Return what /proc/<pid>/stat has (proc(5)); None if the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="backslashreplace") as file:
            line = file.read()
    except OSError:
        return None
    before, _, after = line.rpartition(") ")  # the name may hold anything, parentheses too
    fields = after.split()
    if len(fields) < 20:
        return None
    name, cpu_ticks = before.partition(" (")[2], int(fields[11]) + int(fields[12])
    return Stat(name, fields[0], int(fields[1]), cpu_ticks, threads=int(fields[17]), start=int(fields[19]))


def inner_pid(pid: int) -> int:
    """Return its pid in its own PID namespace; the pid itself if that is not known."""
    for line in read_file(f"/proc/{pid}/status").splitlines():
        if line.startswith("NSpid:"):
            return int(line.split()[-1])
    return pid


def read_file(path: str) -> str:
    """Return the first 4096 characters of a file in /proc, or "" if it is not readable."""
    try:
        with open(path, encoding="utf-8", errors="backslashreplace") as file:
            return file.read(4096)
    except OSError:
        return ""

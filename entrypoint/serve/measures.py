"""What anybody can read of the processes below agent-init and of its control group."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NamedTuple

from ..init import cgroup, procfs

if TYPE_CHECKING:
    from .state import State

MIN_AGE = 1.0  # seconds that a look at all processes serves,
SHARE = 50  # ... and so many times as long as it has taken
TICKS, PAGE_BYTES = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


class Tree:
    """agent-init and what is below it, without this process. Each figure is None where /proc cannot be read.

    `started`: the start times of those below agent-init that have not exited, by pid. `processes`: how many they are.
    `cpu_seconds`: processor time, that of children which were reaped too. `resident_bytes`: the sum of what each has in
    memory; shared pages count for each process that has them.
    """

    def __init__(self, root: int) -> None:
        self._root, self._next_look = root, 0.0
        self.started: dict[int, int] = {}
        self.processes: int | None = None
        self.cpu_seconds: float | None = None
        self.resident_bytes: int | None = None

    def look(self) -> Tree:
        """Look, if the last time is long enough ago."""
        now = time.monotonic()
        if now >= self._next_look:
            self._look()
            self._next_look = now + max(MIN_AGE, (time.monotonic() - now) * SHARE)
        return self

    def _look(self) -> None:
        try:
            found = {pid: figures for pid in procfs.pids() if pid != os.getpid() and (figures := _figures(pid))}
        except OSError:
            found = {}
        if self._root not in found:
            self.processes = self.cpu_seconds = self.resident_bytes = None
            self.started = {}
            return
        children: dict[int, list[int]] = {}
        for pid, figures in found.items():
            children.setdefault(figures.parent, []).append(pid)
        tree = [self._root]
        for pid in tree:  # grows meanwhile
            tree += children.pop(pid, ())
        of_tree = [found[pid] for pid in tree]
        self.started = {pid: found[pid].start for pid in tree[1:] if found[pid].is_alive}
        self.processes = len(self.started)
        # Each child's time moves to its parent when it is reaped: during a look it may be in neither.
        self.cpu_seconds = max(self.cpu_seconds or 0.0, sum(figures.ticks for figures in of_tree) / TICKS)
        self.resident_bytes = sum(figures.pages for figures in of_tree) * PAGE_BYTES


class _Figures(NamedTuple):
    """Of one process: `start` and `ticks` in clock ticks, `pages` resident ones."""

    parent: int
    is_alive: bool
    ticks: int
    start: int
    pages: int


def _figures(pid: int) -> _Figures | None:
    """Return what `stat` has of a process (proc(5)); None if it is gone."""
    try:
        line = procfs.read_file(f"/proc/{pid}/stat")
        fields = line[line.rindex(b")") + 2 :].split()
        ticks = sum(map(int, fields[11:15]))
        return _Figures(int(fields[1]), fields[0] not in b"ZX", ticks, int(fields[19]), int(fields[21]))
    except (OSError, ValueError, IndexError):
        return None


class Memory(cgroup.Memory):
    """The memory of the control group."""

    def oom_kills(self, state: State) -> int | None:
        """Return how many processes of the group the OOM killer has ended since agent-init's first look."""
        kills = self.new_kills
        return None if kills is None else kills + self.kills_before - state.oom_before


class Measures:
    """Both, for the same agent-init."""

    def __init__(self) -> None:
        self._tree = Tree(os.getppid())
        self.memory = Memory()

    @property
    def tree(self) -> Tree:
        """Return the tree's figures, which may be a second old or, where looks take long, older."""
        return self._tree.look()

"""The processes below process 1 as seen from outside: by psutil, if it is installed, and by what else is in /proc."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from entrypoint import titles

from .by_proc import TICKS_PER_SECOND, inner_pid, read_file, read_stat
from .states import GONE

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from .states import State

MISSING_PSUTIL = ""  # why it cannot be imported
try:
    from .by_psutil import cpu_seconds as cpu_seconds
    from .by_psutil import look, tree
except ImportError as error:
    from .by_proc import cpu_seconds as cpu_seconds
    from .by_proc import look, tree

    MISSING_PSUTIL = str(error)

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
    state: str  # see `states`
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
        return self.state in GONE


def descendants(
    root: int,
    agent: int,
    cpu_baseline: Mapping[str, tuple[int, int]],
    *,
    arguments: bool,
    helpers: Collection[int] = (),
) -> list[Process]:
    """Return the descendants of `root` except this process, each after its parent.

    `cpu_baseline`: the request's `cpu`. `arguments`: whether to include program arguments. `helpers`: agent-init's own
    processes, which are left out.
    """
    children: dict[int, list[tuple[int, int]]] = {}  # by their parent: pid and parent
    names, shown = {root: "agent-init"}, {root: "agent-init"}  # as the kernel has them; as they are shown
    for pid, parent, name in tree(root, MAX_PROCESSES):
        if pid != os.getpid() and pid not in helpers:
            children.setdefault(parent, []).append((pid, parent))
            names[pid], shown[pid] = name, titles.of(name, read_file(f"/proc/{pid}/cmdline").split("\0")[:-1])
    inspected: list[Process] = []
    stack = sorted(children.pop(root, []), key=lambda child: child[0] == agent)
    while stack:
        pid, parent = stack.pop()
        if state := look(pid, arguments=arguments):
            inspected.append(_process(pid, parent, names[pid], shown, pid == agent, state, cpu_baseline))
        stack += sorted(children.pop(pid, []), reverse=True)
    return inspected


def _process(
    pid: int,
    parent: int,
    name: str,
    shown: Mapping[int, str],
    is_agent: bool,
    state: State,
    cpu_baseline: Mapping[str, tuple[int, int]],
) -> Process:
    stat = read_stat(pid)
    start = stat.start if stat else None  # with the pid it identifies a process
    baseline = cpu_baseline.get(str(pid))
    is_same = baseline is not None and baseline[0] == start  # the pid may have been reused
    cpu = state.cpu
    if cpu is not None and baseline is not None and is_same:
        cpu -= baseline[1] / TICKS_PER_SECOND
    return Process(
        pid=pid,
        inner_pid=inner_pid(pid),
        parent=parent,
        parent_name=shown.get(parent, "?"),
        is_agent=is_agent,
        name=name,
        title=titles.of_child(shown[pid], shown.get(parent, "")),
        age=_age(start, state.created),
        state=state.state,
        threads=state.threads,
        cpu=None if cpu is None else max(0.0, cpu),
        is_cpu_since_baseline=is_same,
        memory=state.memory,
        wait_channel=wait_channel(pid),
        is_python="python" in name or "python" in os.path.basename(state.program),
        arguments=state.arguments,
    )


def is_alive(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    state = look(pid, arguments=False)
    return state is not None and state.state not in GONE


def wait_channel(pid: int) -> str:
    """Return the kernel function that its main thread waits in (proc(5), wchan), or ""."""
    found = read_file(f"/proc/{pid}/wchan")
    return "" if found == "0" else found


def _age(start: int | None, created: float | None) -> float | None:
    if start is not None and hasattr(time, "CLOCK_BOOTTIME"):
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - start / TICKS_PER_SECOND)
    return None if created is None else max(0.0, time.time() - created)

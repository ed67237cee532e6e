"""How a process is at one moment, as `by_psutil` and `by_proc` return it."""

from __future__ import annotations

from typing import NamedTuple

# As psutil names them.
RUNNING, SLEEPING = "running", "sleeping"
DISK_SLEEP, STOPPED, TRACING_STOP = "disk-sleep", "stopped", "tracing-stop"
ZOMBIE, DEAD = "zombie", "dead"
GONE = ZOMBIE, DEAD


class State(NamedTuple):
    """None or empty: not readable, or not known without psutil."""

    state: str
    created: float | None  # seconds since the epoch
    threads: int | None
    cpu: float | None  # seconds of CPU time since the process started
    memory: int | None  # bytes (RSS)
    program: str  # path of its executable
    arguments: tuple[str, ...]

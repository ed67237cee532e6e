"""Read the state of a process from /proc (proc(5)), without using agent-init's own code."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from tests.support.init import until

if TYPE_CHECKING:
    from tests.support.init import Init

# A program that keeps what it inherits, writes nothing and dies of the first TERM.
IDLE = ["sleep", "1000"]
PYTHON = Path(sys.executable).name  # the name of a process that runs this interpreter


def children_of(init: Init) -> list[psutil.Process]:
    """Its children that have not exited, the oldest first.

    What it forks for itself for a moment, at the start, is none of them: it has its argv, or none while it exits.
    """
    process = psutil.Process(init.pid)
    own: list[list[str]] = [[], process.cmdline()]
    found = []
    for child in process.children():
        with suppress(psutil.NoSuchProcess):  # it has exited, and may have been reaped
            if child.cmdline() not in own:
                found.append((child.create_time(), child.pid, child))
    return [child for _, _, child in sorted(found, key=lambda item: item[:2])]


def wait_for_agent(init: Init, name: str = "sleep") -> int:
    """Wait until the agent has executed the program `name` and sleeps; return its pid.

    Until it sleeps, the dynamic loader still has files open. It is the oldest child: agent-init's helpers are younger.
    """

    def running() -> int | None:
        for child in children_of(init):
            opened, _, fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(") ")
            state, environment_end = fields.split()[0], int(fields.split()[48])  # exec sets env_end last
            if opened.endswith(f"({name}"):
                return child.pid if environment_end and state == "S" else None
        return None

    def seen() -> int | None:
        try:
            return running()
        except (psutil.Error, OSError):
            return None

    return int(until(seen, f"the agent {name!r}; stderr:\n{init.stderr}"))


def status(pid: int) -> dict[str, str]:
    """The fields of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def signals_in_mask(pid: int, field: str) -> set[str]:
    """The names of the signals in a mask of the process: SigBlk, SigIgn, SigCgt or SigPnd."""
    mask = int(status(pid)[field], 16)
    numbers = {number for number in range(1, 65) if mask & 1 << (number - 1)}
    return {signal.Signals(n).name.removeprefix("SIG") if n in set(signal.Signals) else str(n) for n in numbers}


def descriptors(pid: int) -> dict[int, str]:
    """The open descriptors of the process and the file that each refers to; none of a zombie."""
    found = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found[int(entry.name)] = str(entry.readlink())
        except FileNotFoundError:
            continue  # closed in the meantime
    return found


# Put in front of a command, this runs it as another user, who may still read the interpreter of the tests.
AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
AS_NOBODY += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]

# The variables that agent-init adds to the agent's environment; tests/process1/test_notify.py tests them.
ADDED_VARIABLES = (b"NOTIFY_SOCKET=", b"AGENT_INIT_RESPONDERS=", b"AGENT_INIT_STOP_SECONDS=")


def environment(pid: int, *, with_added: bool = False) -> bytes:
    """The environment that the process was started with, byte for byte; agent-init's own only `with_added`."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return b"\0".join(entry for entry in entries if with_added or not entry.startswith(ADDED_VARIABLES))


def inner_pid(pid: int) -> int:
    """The pid of the process in its own namespace."""
    return int(status(pid)["NSpid"].split()[-1])


def group(pid: int) -> int:
    return os.getpgid(pid)

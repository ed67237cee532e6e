"""What /proc tells of a process from outside, without a part of agent-init in between (proc(5))."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from tests.support.init import until

if TYPE_CHECKING:
    from tests.support.init import Init

# A program that changes nothing of what it is given, ends by the first TERM and leaves no other trace.
IDLE = ["sleep", "1000"]


def agent_of(init: Init, name: str = "sleep") -> int:
    """The pid of the agent, awaited until it has become the program `name` and waits for something to happen.

    Before that, the dynamic loader has files open for a moment.
    """

    def running() -> int | None:
        for child in psutil.Process(init.pid).children():
            opened, _, fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(") ")
            state, environment_end = fields.split()[0], int(fields.split()[48])  # the last that exec fills in
            if opened.endswith(f"({name}") and environment_end and state == "S":
                return child.pid
        return None

    def seen() -> int | None:
        try:
            return running()
        except (psutil.Error, OSError):
            return None

    return int(until(seen, f"the agent {name!r}; agent-init said:\n{init.stderr}"))


def status(pid: int) -> dict[str, str]:
    """The fields of its `status`."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def masked(pid: int, field: str) -> set[str]:
    """The names of the signals in one of its masks: SigBlk, SigIgn, SigCgt or SigPnd."""
    mask = int(status(pid)[field], 16)
    numbers = {number for number in range(1, 65) if mask & 1 << (number - 1)}
    return {signal.Signals(n).name.removeprefix("SIG") if n in set(signal.Signals) else str(n) for n in numbers}


def descriptors(pid: int) -> dict[int, str]:
    """Its open descriptors and what each leads to."""
    found = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found[int(entry.name)] = str(entry.readlink())
        except FileNotFoundError:
            continue  # closed meanwhile
    return found


# In front of a command: another user, which may still read the interpreter that the tests run with.
AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
AS_NOBODY += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]

# What agent-init adds to the agent's environment, see tests/process1/test_notify.py.
OFFERED = (b"NOTIFY_SOCKET=", b"AGENT_INIT_RESPONDERS=", b"AGENT_INIT_STOP_SECONDS=")


def environment(pid: int, *, offered: bool = False) -> bytes:
    """What it was started with, byte for byte, but for what agent-init offers to its agent, unless `offered`."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return b"\0".join(entry for entry in entries if offered or not entry.startswith(OFFERED))


def inner_pid(pid: int) -> int:
    """Its pid as it knows it itself."""
    return int(status(pid)["NSpid"].split()[-1])


def group(pid: int) -> int:
    return os.getpgid(pid)

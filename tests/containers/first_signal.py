"""TERM in the first milliseconds of process 1, sent from outside its container."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from tests.support.proc import signals_in_mask

from .container import TIMEOUT, Container, Containers

PROMISED = 0.0015  # seconds from its exec, after which no TERM is lost
MAX_STARTS = 30
DELAYS = (0, 1, 2, 4, 8, 16)  # milliseconds after that: the two execs, the interpreter's start, the agent's


def assert_no_stop_is_lost(containers: Containers) -> None:
    """Each container gets its TERM a little later; none may run on.

    The promise is kept if one start was as quick: what runs beside it can keep process 1 from its first system call, or
    us from seeing it. So there are more starts until one is.
    """
    blocked_after = [_lose_no_stop(containers, delay) for delay in DELAYS]
    while min(blocked_after) > PROMISED and len(blocked_after) < MAX_STARTS:
        blocked_after.append(_lose_no_stop(containers, 0))
    assert min(blocked_after) <= PROMISED, blocked_after


def _lose_no_stop(containers: Containers, delay: int) -> float:
    """Start a container and stop it by a TERM `delay` milliseconds after it has blocked signals.

    Return the seconds from the exec of agent-init to that moment, at most.
    """
    sleeper = ("python", "-c", "import time; time.sleep(99)")
    container = containers.start("create", "--env", "AGENT_INIT_LOG_FORMAT=json", containers.image, *sleeper)
    blocked_after = _start_and_signal(container, delay / 1000)
    ended = container.wait_for_exit()
    # It was killed by TERM, or after that by INT, which ends most programs that do not handle TERM.
    assert ended.code in (143, 130), (delay, container.errors())
    container.event("stop-requested")
    return blocked_after


def _start_and_signal(container: Container, delay: float) -> float:
    """Start it, and send TERM `delay` seconds after its process 1 has blocked signals.

    Return the seconds from the exec of agent-init to that moment, at most.
    """
    identity = container.inspect()["Id"]
    known = set(_processes())
    command = ["docker", "start", container.name]
    with subprocess.Popen(command, env=container.engine.environment, stdout=subprocess.DEVNULL):
        end = time.monotonic() + TIMEOUT
        pid = 0
        while not pid:
            assert time.monotonic() < end, "it has no process"
            new = set(_processes()) - known
            pid = next((process for process in new if _is_first(process, identity)), 0)
        # Until its exec it is runc. Where that was not seen, nothing is known about the time.
        executed, now = -math.inf, time.monotonic()
        while _name(pid).startswith("runc"):
            executed, now = now, time.monotonic()
            assert now < end, "it does not become agent-init"
        while not {"TERM", "USR1"} <= signals_in_mask(pid, "SigBlk"):
            assert time.monotonic() < end, "it blocks no signals"
        blocked = time.monotonic()
        while time.monotonic() < blocked + delay:
            continue
        os.kill(pid, signal.SIGTERM)
    return blocked - executed


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _is_first(pid: int, identity: str) -> bool:
    """Whether it is process 1 of that container; it may be about to end."""
    with suppress(OSError):
        if identity not in Path(f"/proc/{pid}/cgroup").read_text():
            return False
        status = Path(f"/proc/{pid}/status").read_text()
        return any(line.startswith("NSpid:") and line.split()[2:] == ["1"] for line in status.splitlines())
    return False

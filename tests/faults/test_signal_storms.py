"""Many signals of every kind, from many senders, at every stage of a run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults.stop_scenarios import PROGRAMS
from tests.support.init import until

if TYPE_CHECKING:
    from tests.conftest import Start
    from tests.support.init import Init

SENDERS = 8
ROUNDS = 5
BLOCKING = ["env", "--block-signal"]

# glibc reserves signals 32 and 33 and lets nobody block them. For process 1 the kernel discards them, because it does
# not handle them; a subreaper dies of them.
ALL = sorted(set(range(1, 65)) - {signal.SIGKILL, signal.SIGSTOP})
RESERVED_BY_LIBC = {32, 33}
# When a continue signal is sent, the kernel discards pending stop signals, and the reverse (signal(7), kill(2)).
JOB_CONTROL = {signal.SIGCONT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
REAL_TIME = [number for number in ALL if number >= signal.SIGRTMIN]

# Counts signals with sigwaitinfo(2), so that the interpreter coalesces none.
COUNTING = """
every = signal.valid_signals()
signal.pthread_sigmask(signal.SIG_BLOCK, every)
log('ready')
counts = {}
while (number := signal.sigwaitinfo(every).si_signo) != ENDING:
    counts[number] = counts.get(number, 0) + 1
log('counts', counts=counts)
leave(7)
"""


def storm(pid: int, numbers: list[int], *, rounds: int) -> subprocess.Popen[bytes]:
    """Start a process that sends all of `numbers` in `rounds` rounds (0: until `pid` has exited)."""
    argv = [sys.executable, "-I", "-S", str(PROGRAMS / "signal_storm.py"), str(pid), str(rounds), *map(str, numbers)]
    return subprocess.Popen(argv)


def counts(init: Init) -> dict[int, int]:
    return {int(number): count for number, count in init.wait_for_event("counts")["counts"].items()}


def test_every_signal_from_eight_senders_is_forwarded(start_in_role: Start) -> None:
    """With --stop-on none each signal arrives at least once, and each real-time signal as often as it was sent."""
    init = start_in_role("--stop-on", "none", agent=COUNTING.replace("ENDING", "signal.SIGRTMAX"))
    init.wait_for_event("ready")
    numbers = [n for n in ALL if n != signal.SIGRTMAX and (init.process1 or n not in RESERVED_BY_LIBC)]
    senders = [storm(init.pid, numbers, rounds=ROUNDS) for _ in range(SENDERS)]
    assert [sender.wait(60) for sender in senders] == [0] * SENDERS
    init.signal("RTMAX")  # the last of all: pending signals are delivered by number
    arrived = counts(init)
    assert init.wait() == 7
    expected = set(numbers) - RESERVED_BY_LIBC - {signal.SIGCHLD}  # that one is process 1's own
    assert arrived.keys() - {signal.SIGCHLD} - JOB_CONTROL == expected - JOB_CONTROL
    real_time = expected & set(REAL_TIME)
    assert {n: arrived[n] for n in real_time} == dict.fromkeys(real_time, SENDERS * ROUNDS)
    assert all(arrived.get(n, 0) <= SENDERS * ROUNDS for n in expected)
    assert not init.lines("unexpected")


def test_every_signal_from_eight_senders_is_one_stop_request(start_in_role: Start) -> None:
    """TERM, INT, HUP and QUIT are among them. The agent gets one TERM, and the full grace."""
    waits = "time.sleep(1); log('pending', n=sorted(signal.sigpending())); leave(7)"
    agent = COUNTING.replace("ENDING", "signal.SIGTERM").replace("leave(7)", waits)
    init = start_in_role("-t", "30s", agent=agent)
    init.wait_for_event("ready")
    numbers = [n for n in ALL if init.process1 or n not in RESERVED_BY_LIBC]
    senders = [storm(init.pid, numbers, rounds=ROUNDS) for _ in range(SENDERS)]
    for sender in senders:
        sender.wait(60)
    assert init.wait() == 7
    assert signal.SIGTERM not in init.wait_for_event("pending")["n"], "TERM came twice"
    assert signal.SIGTERM not in counts(init)
    assert len(init.lines("stop requested")) == 1
    assert not init.lines("SIGKILL")


# Signals that would kill or stop the agent; none of them is a stop request.
HARMFUL = [
    int(getattr(signal, f"SIG{name}"))
    for name in ("USR1", "USR2", "ALRM", "PIPE", "TSTP", "TTIN", "WINCH", "CHLD", "CONT", "ABRT", "SEGV")
]


@pytest.mark.parametrize("options", [[], ["-v"]], ids=["", "verbose"])
def test_signal_storm_from_start_to_exit(start_in_role: Start, options: list[str]) -> None:
    """Signals arrive during the interpreter's start, the agent's exec and start, the stop and the exit."""
    agent = "orphan('daemon', \"on('TERM', leave); ready()\"); on('TERM', lambda: leave(7, after=0.3)); ready()"
    init = start_in_role(*options, "-t", "30s", "--linger", "20s", agent=agent, before=BLOCKING)
    until(lambda: _blocks(init.pid), "env to block them")
    senders = [storm(init.pid, HARMFUL, rounds=0) for _ in range(2)]
    try:
        init.wait_for_event("ready")
        init.wait_for_event("ready", "daemon")
        init.signal("TERM")
        assert init.wait(60) == 7
    finally:
        for sender in senders:
            sender.terminate()
            sender.wait(10)
    assert init.events() == ["ready", "TERM", "end"]
    assert init.events("daemon") == ["ready", "TERM", "end"]
    assert not init.lines("unexpected")


def _blocks(pid: int) -> bool:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigBlk"))
    return bool(int(line.split()[1], 16) & 1 << (signal.SIGUSR1 - 1))


def test_flood_of_unhandled_signals_does_not_delay_a_stop(start_in_role: Start) -> None:
    """Real-time signals queue up by the thousand, and agent-init must look for a handler before it drops one."""
    agent = "[child(f'idle {n}', 'forever()') for n in range(60)]; on('TERM', lambda: leave(7)); ready()"
    init = start_in_role("-t", "30s", "--linger", "100ms", agent=agent)
    init.wait_for_event("ready")
    senders = [storm(init.pid, [int(signal.SIGRTMIN) + 2], rounds=0) for _ in range(2)]
    try:
        init.wait_for_line("RTMIN+2 from")
        requested_at = time.monotonic()
        init.signal("TERM")
        init.wait_for_event("TERM")
        assert time.monotonic() - requested_at < 5
        assert init.wait() == 7
    finally:
        for sender in senders:
            sender.terminate()
            sender.wait(10)


def test_storm_of_stop_requests_reaches_the_agent_once(start_in_role: Start) -> None:
    """Several senders send TERM and INT until agent-init has exited."""
    requests = [int(signal.SIGTERM), int(signal.SIGINT)]
    init = start_in_role("-t", "30s", agent="on('INT'); on('TERM', lambda: leave(7, after=0.7)); ready()")
    init.wait_for_event("ready")
    senders = [storm(init.pid, requests, rounds=0) for _ in range(4)]
    try:
        assert init.wait(60) == 7
    finally:
        for sender in senders:
            sender.terminate()
            sender.wait(10)
    assert init.events() == ["ready", "TERM", "end"]
    assert len(init.lines("stop requested")) == 1


@pytest.mark.parametrize("names", [("INT", "TERM"), ("TERM", "INT"), ("TERM", "HUP", "QUIT", "INT")], ids=str)
def test_simultaneous_stop_requests_reach_the_agent_once(start_in_role: Start, names: tuple[str, ...]) -> None:
    """All of them are pending when process 1 reads its signals."""
    init = start_in_role("-t", "20s", agent="on('INT'); on('TERM', lambda: leave(7, after=0.2)); ready()")
    init.wait_for_event("ready")
    os.kill(init.pid, signal.SIGSTOP)
    for name in names:
        init.signal(name)
    os.kill(init.pid, signal.SIGCONT)
    assert init.wait() == 7
    assert init.events() == ["ready", "TERM", "end"]
    assert len(init.lines("stop requested")) == 1
    assert len(init.lines("already in progress")) == len(names) - 1


def test_signal_storm_does_not_grow_memory(start_in_role: Start) -> None:
    """Process 1 uses no more memory after 50,000 signals than after the first 5,000."""
    init = start_in_role("-t", "20s", agent="ignore('USR1', 'RTMIN+2'); on('TERM', lambda: leave(7)); ready()")
    init.wait_for_event("ready")
    sizes = []
    for rounds in (2500, 25000):
        assert storm(init.pid, [int(signal.SIGUSR1), int(signal.SIGRTMIN) + 2], rounds=rounds).wait(60) == 0
        until(lambda: _is_idle(init.pid), "the queue to be empty")
        sizes.append(_private_memory(init.pid))
    init.signal("TERM")
    assert init.wait() == 7
    assert sizes[1] - sizes[0] < 256, sizes  # KiB


def _is_idle(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    pending = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigPnd", "ShdPnd"))]
    return not any(pending) and "State:\tS" in status


def _private_memory(pid: int) -> int:
    """The private memory of a process in KiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private"))

"""Signals in great number, of every kind, from many senders, at every time of an agent's life."""

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

# glibc keeps 32 and 33 for itself and lets nobody block them: process 1 is safe from them (the kernel discards what it
# does not handle), a subreaper is not.
ALL = sorted(set(range(1, 65)) - {signal.SIGKILL, signal.SIGSTOP})
LIBCS = {32, 33}
# Of these the kernel throws away what is pending when one of the opposite kind is sent (signal(7), kill(2)).
JOB_CONTROL = {signal.SIGCONT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
REAL_TIME = [number for number in ALL if number >= signal.SIGRTMIN]

# Counts what it gets by sigwaitinfo(2): each one of the real-time signals, and none coalesced by an interpreter.
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
    """A process that sends all of them, again and again (0: until there is nobody to send them to)."""
    words = [sys.executable, "-I", "-S", str(PROGRAMS / "storm.py"), str(pid), str(rounds), *map(str, numbers)]
    return subprocess.Popen(words)


def counts(init: Init) -> dict[int, int]:
    return {int(number): count for number, count in init.event("counts")["counts"].items()}


def test_every_signal_from_eight_senders_at_once(started: Start) -> None:
    """A pure forwarder: each signal arrives, and of the real-time signals every single one."""
    init = started("--stop-on", "none", agent=COUNTING.replace("ENDING", "signal.SIGRTMAX"))
    init.event("ready")
    numbers = [n for n in ALL if n != signal.SIGRTMAX and (init.process1 or n not in LIBCS)]
    senders = [storm(init.pid, numbers, rounds=ROUNDS) for _ in range(SENDERS)]
    assert [sender.wait(60) for sender in senders] == [0] * SENDERS
    init.signal("RTMAX")  # signals queue up in the order of their numbers
    arrived = counts(init)
    assert init.wait() == 7
    expected = set(numbers) - LIBCS - {signal.SIGCHLD}  # that one is process 1's own
    assert arrived.keys() - {signal.SIGCHLD} - JOB_CONTROL == expected - JOB_CONTROL
    real_time = expected & set(REAL_TIME)
    assert {n: arrived[n] for n in real_time} == dict.fromkeys(real_time, SENDERS * ROUNDS)
    assert all(arrived.get(n, 0) <= SENDERS * ROUNDS for n in expected)
    assert not init.lines("unexpected")


def test_every_signal_from_eight_senders_is_one_stop_request(started: Start) -> None:
    """TERM, INT, HUP and QUIT are among them; the agent gets one TERM, and its time."""
    waits = "time.sleep(1); log('pending', n=sorted(signal.sigpending())); leave(7)"
    agent = COUNTING.replace("ENDING", "signal.SIGTERM").replace("leave(7)", waits)
    init = started("-t", "30s", agent=agent)
    init.event("ready")
    numbers = [n for n in ALL if init.process1 or n not in LIBCS]
    senders = [storm(init.pid, numbers, rounds=ROUNDS) for _ in range(SENDERS)]
    for sender in senders:
        sender.wait(60)
    assert init.wait() == 7
    assert signal.SIGTERM not in init.event("pending")["n"], "TERM came twice"
    assert signal.SIGTERM not in counts(init)
    assert len(init.lines("stop requested")) == 1
    assert not init.lines("SIGKILL")


# No stop request among them; some that would kill, some that would stop.
HARMFUL = [
    int(getattr(signal, f"SIG{name}"))
    for name in ("USR1", "USR2", "ALRM", "PIPE", "TSTP", "TTIN", "WINCH", "CHLD", "CONT", "ABRT", "SEGV")
]


@pytest.mark.parametrize("options", [[], ["-v"]], ids=["", "verbose"])
def test_a_storm_from_the_first_moment_to_the_last(started: Start, options: list[str]) -> None:
    """During the interpreter's start, the agent's exec, its own start, the stop, and the end."""
    agent = "orphan('daemon', \"on('TERM', leave); ready()\"); on('TERM', lambda: leave(7, after=0.3)); ready()"
    init = started(*options, "-t", "30s", "--linger", "20s", agent=agent, before=BLOCKING)
    until(lambda: _blocks(init.pid), "env to block them")
    senders = [storm(init.pid, HARMFUL, rounds=0) for _ in range(2)]
    try:
        init.event("ready")
        init.event("ready", "daemon")
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


def test_a_flood_that_nobody_handles_does_not_hold_up_a_stop(started: Start) -> None:
    """Real-time signals queue up by the thousand, and to drop one it has to be known that nobody wants it."""
    agent = "[child(f'idle {n}', 'forever()') for n in range(60)]; on('TERM', lambda: leave(7)); ready()"
    init = started("-t", "30s", "--linger", "100ms", agent=agent)
    init.event("ready")
    senders = [storm(init.pid, [int(signal.SIGRTMIN) + 2], rounds=0) for _ in range(2)]
    try:
        init.said("RTMIN+2 from")
        asked = time.monotonic()
        init.signal("TERM")
        init.event("TERM")
        assert time.monotonic() - asked < 5
        assert init.wait() == 7
    finally:
        for sender in senders:
            sender.terminate()
            sender.wait(10)


def test_a_storm_of_stop_requests(started: Start) -> None:
    """From several sides at once and until the very end; the agent hears of it once."""
    requests = [int(signal.SIGTERM), int(signal.SIGINT)]
    init = started("-t", "30s", agent="on('INT'); on('TERM', lambda: leave(7, after=0.7)); ready()")
    init.event("ready")
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
def test_several_requests_in_the_same_instant(started: Start, names: tuple[str, ...]) -> None:
    """They are all there when process 1 looks."""
    init = started("-t", "20s", agent="on('INT'); on('TERM', lambda: leave(7, after=0.2)); ready()")
    init.event("ready")
    os.kill(init.pid, signal.SIGSTOP)
    for name in names:
        init.signal(name)
    os.kill(init.pid, signal.SIGCONT)
    assert init.wait() == 7
    assert init.events() == ["ready", "TERM", "end"]
    assert len(init.lines("stop requested")) == 1
    assert len(init.lines("under way already")) == len(names) - 1


def test_a_storm_costs_no_memory(started: Start) -> None:
    """What process 1 holds after 50,000 signals is what it held after the first 5,000."""
    init = started("-t", "20s", agent="ignore('USR1', 'RTMIN+2'); on('TERM', lambda: leave(7)); ready()")
    init.event("ready")
    sizes = []
    for rounds in (2500, 25000):
        assert storm(init.pid, [int(signal.SIGUSR1), int(signal.SIGRTMIN) + 2], rounds=rounds).wait(60) == 0
        until(lambda: _rests(init.pid), "the queue to be empty")
        sizes.append(_private(init.pid))
    init.signal("TERM")
    assert init.wait() == 7
    assert sizes[1] - sizes[0] < 256, sizes  # KiB


def _rests(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    pending = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigPnd", "ShdPnd"))]
    return not any(pending) and "State:\tS" in status


def _private(pid: int) -> int:
    """KiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private"))

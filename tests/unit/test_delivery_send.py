"""Signals to exactly one process: never to another one that has its pid by now."""

from __future__ import annotations

import errno
import os
import posix
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from entrypoint.init import procfs
from entrypoint.init.delivery import send

if TYPE_CHECKING:
    from collections.abc import Iterator

    from entrypoint.init.procfs import Process

TERM, USR1, USR2 = int(signal.SIGTERM), int(signal.SIGUSR1), int(signal.SIGUSR2)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that handles USR1 and ignores USR2, and is ready."""
    code = (
        "import os, signal, time; signal.signal(signal.SIGUSR1, lambda *_: os.write(1, b'1\\n')); "
        "signal.signal(signal.SIGUSR2, signal.SIG_IGN); os.write(1, b'0\\n'); time.sleep(100)"
    )
    with subprocess.Popen([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE) as started:
        assert started.stdout
        started.stdout.readline()
        yield started
        started.kill()


def look(child: subprocess.Popen[bytes]) -> Process:
    found = procfs.look(child.pid)
    assert found is not None
    return found


def refuse_pidfd(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Make pidfd_open(2) fail, unless `how` is `by pidfd`."""

    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    if how == "no such call":
        monkeypatch.delattr(posix, "pidfd_open")
    elif how == "refused":
        monkeypatch.setattr(posix, "pidfd_open", refuse)
    elif how == "only its signal refused":
        monkeypatch.setattr("_signal.pidfd_send_signal", refuse)


HOW = pytest.mark.parametrize("how", ["by pidfd", "refused", "only its signal refused"])


@pytest.mark.parametrize("how", ["by pidfd", "refused", "only its signal refused", "no such call"])
def test_all_signals_reach_the_process(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes], how: str
) -> None:
    opened = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        refuse_pidfd(patch, how)
        assert send(look(child), USR1)
        assert child.stdout
        assert child.stdout.readline() == b"1\n"
        assert send(look(child), USR1, USR2, TERM)
    assert -child.wait(20) == TERM  # from Python 3.15 on by pidfd_open(2)
    assert len(os.listdir("/proc/self/fd")) == opened


@HOW
def test_nothing_is_sent_to_another_process_with_the_pid(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes], how: str
) -> None:
    refuse_pidfd(monkeypatch, how)
    before = look(child)
    before.start -= 1
    assert not send(before, TERM)
    time.sleep(0.02)
    assert child.poll() is None


@HOW
def test_nothing_is_sent_to_reaped_pids(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes], how: str
) -> None:
    before = look(child)
    child.kill()
    child.wait()
    refuse_pidfd(monkeypatch, how)
    assert not send(before, TERM)


@HOW
def test_nothing_is_sent_to_a_zombie(monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes], how: str) -> None:
    before = look(child)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    refuse_pidfd(monkeypatch, how)
    assert not send(before, TERM)


@HOW
def test_a_process_that_exits_between_the_look_and_the_signal_is_not_reached(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes], how: str
) -> None:
    before, real = look(child), procfs.look

    def look_and_end(pid: int) -> Process | None:
        found = real(pid)
        child.kill()
        child.wait()
        return found

    refuse_pidfd(monkeypatch, how)
    opened = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(procfs, "look", look_and_end)
    assert not send(before, TERM)
    assert len(os.listdir("/proc/self/fd")) == opened


@HOW
def test_a_process_that_exits_by_the_first_signal_was_reached(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes], how: str
) -> None:
    """As it is gone, the SIGCONT after a stop signal cannot be sent."""
    process = look(child)
    refuse_pidfd(monkeypatch, how)
    if how == "by pidfd":
        name, module = "pidfd_send_signal", sys.modules["_signal"]
    else:
        name, module = "kill", posix
    real, sent = getattr(module, name), []

    def send_and_wait(target: int, number: int) -> None:
        real(target, number)
        sent.append(number)
        child.wait()

    monkeypatch.setattr(module, name, send_and_wait)
    assert send(process, TERM, USR1)
    assert sent == [TERM]


@HOW
def test_a_process_that_may_not_be_signalled_is_an_error(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes], how: str
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    process = look(child)
    refuse_pidfd(monkeypatch, how)
    opened = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr("_signal.pidfd_send_signal", refuse)
    monkeypatch.setattr("posix.kill", refuse)
    with pytest.raises(PermissionError):
        send(process, TERM)
    assert len(os.listdir("/proc/self/fd")) == opened
    monkeypatch.undo()


@HOW
def test_a_process_that_may_not_be_signalled_any_more_was_reached(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes], how: str
) -> None:
    """It has changed its user after the first signal."""
    sent: list[int] = []

    def refuse_the_second(_: int, number: int) -> None:
        if sent:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        sent.append(number)

    process = look(child)
    refuse_pidfd(monkeypatch, how)
    monkeypatch.setattr("_signal.pidfd_send_signal" if how == "by pidfd" else "posix.kill", refuse_the_second)
    assert send(process, USR1, USR2, TERM)
    assert sent == [USR1]
    monkeypatch.undo()


def test_without_proc_a_pidfd_is_enough(monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes]) -> None:
    before = look(child)
    monkeypatch.setattr(procfs, "MOUNTED", False)
    assert send(before, TERM)
    assert -child.wait(20) == TERM


def test_without_proc_a_refused_signal_is_an_error(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes]
) -> None:
    before = look(child)
    monkeypatch.setattr(procfs, "MOUNTED", False)
    refuse_pidfd(monkeypatch, "only its signal refused")
    with pytest.raises(PermissionError):
        send(before, TERM)


def test_without_proc_a_pid_is_not_enough(monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes]) -> None:
    before = look(child)
    monkeypatch.setattr(procfs, "MOUNTED", False)
    refuse_pidfd(monkeypatch, "refused")
    assert not send(before, TERM)
    time.sleep(0.02)
    assert child.poll() is None

"""Where signals are read from when signalfd(2) cannot be had. The real thing is in tests/process1."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from entrypoint.init import libc, signalfd
from entrypoint.init.signals import KILL, PIPE, STOP, VALID, XFSZ

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

USR1 = int(signal.SIGUSR1)


class Interpreter:
    """Takes the place of `_signal`, so that the tests' own process keeps its handlers and its mask."""

    SIG_SETMASK = signal.SIG_SETMASK

    def __init__(self) -> None:
        self.wakeup = -1
        self.handled: dict[int, Callable[..., object]] = {}
        self.masks: list[object] = []

    def set_wakeup_fd(self, fd: int, *, warn_on_full_buffer: bool) -> None:
        assert not warn_on_full_buffer  # it would write to stderr, and might wait there
        self.wakeup = fd

    def signal(self, number: int, handler: Callable[..., object]) -> None:
        if number == USR1:
            raise OSError("not to be had")
        if number > 60:
            raise ValueError("no such signal")
        self.handled[number] = handler

    def pthread_sigmask(self, how: int, mask: tuple[int, ...]) -> None:
        self.masks.append((how, mask, frozenset(self.handled)))


@pytest.fixture
def interpreter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Interpreter]:
    fake = Interpreter()
    monkeypatch.setattr(signalfd, "_signal", fake)
    yield fake
    if fake.wakeup >= 0:
        os.close(fake.wakeup)


@pytest.mark.parametrize("refusal", ["returns -1", "raises"])
def test_without_signalfd_the_interpreter_takes_them(
    monkeypatch: pytest.MonkeyPatch, interpreter: Interpreter, refusal: str
) -> None:
    def call(name: str, *_: object) -> int:
        assert name == "signalfd"
        if refusal == "raises":
            raise OSError
        return -1

    monkeypatch.setattr(libc, "call", call)
    source = signalfd.open_source()
    assert isinstance(source, signalfd.WakeupFd)
    os.close(source.fd)


def test_one_that_cannot_be_handled_does_not_keep_the_others_from_it(interpreter: Interpreter) -> None:
    source = signalfd.WakeupFd()
    wanted = frozenset(number for number in VALID if number <= 60) - {USR1, KILL, STOP, PIPE, XFSZ}
    assert interpreter.handled.keys() == wanted
    assert all(handler(15, None) is None for handler in interpreter.handled.values())
    # The mask is opened when all are in place: what was pending is not lost.
    assert interpreter.masks == [(signal.SIG_SETMASK, (), wanted)]
    os.close(source.fd)


def test_they_come_in_order_and_nothing_is_known_of_their_senders(interpreter: Interpreter) -> None:
    source = signalfd.WakeupFd()
    inbox: list[signalfd.Received] = []
    source.read(inbox)  # nothing there: does not block
    assert inbox == []
    os.write(interpreter.wakeup, bytes([15, 10, 15, 64]))
    source.read(inbox)
    assert [received.number for received in inbox] == [15, 10, 15, 64]
    assert {received.pid for received in inbox} == {None}
    assert not any(received.by_kernel for received in inbox)
    assert not os.get_blocking(interpreter.wakeup)  # of a storm some are lost, and no handler waits
    os.close(source.fd)

"""The source of signals: signalfd(2), or the interpreter's wake-up descriptor where there is no such call."""

from __future__ import annotations

import os
import posix
import signal
import struct
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from entrypoint.init import libc, signalfd
from entrypoint.signals import CHLD, CONT, KILL, OF_WRITES, STOP, VALID
from tests.support.fresh_interpreter import output_of
from tests.support.world import failing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

USR1 = int(signal.SIGUSR1)


class Interpreter:
    """In the place of `_signal`, so that the tests' own process keeps its handlers and its mask."""

    SIG_SETMASK = signal.SIG_SETMASK

    def __init__(self) -> None:
        self.wakeup = -1
        self.handled: dict[int, Callable[..., object]] = {}
        self.masks: list[object] = []

    def set_wakeup_fd(self, fd: int, *, warn_on_full_buffer: bool) -> None:
        assert not warn_on_full_buffer  # the warning goes to stderr, and the write might block
        self.wakeup = fd

    def signal(self, number: int, handler: Callable[..., object]) -> None:
        if number == USR1:
            raise OSError("refused")
        if number > 60:
            raise ValueError("no such signal")
        self.handled[number] = handler

    def pthread_sigmask(self, how: int, mask: tuple[int, ...]) -> None:
        self.masks.append((how, mask, frozenset(self.handled)))


@pytest.fixture
def blocked() -> Iterator[None]:
    """All signals are blocked in this thread; those that a test leaves pending are discarded."""
    before = signal.pthread_sigmask(signal.SIG_SETMASK, VALID)
    yield
    while signal.sigtimedwait(VALID, 0):
        pass
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.mark.usefixtures("blocked")
def test_every_catchable_signal_is_received_with_its_sender() -> None:
    source = signalfd.open_source()
    assert isinstance(source, signalfd.SignalFd)
    source.begin()
    for numbers in (VALID - {KILL, STOP, CONT}, {CONT}):  # CONT discards a pending TSTP and the reverse (signal(7))
        for number in numbers:
            signal.pthread_kill(threading.get_ident(), number)
        inbox: list[signalfd.Received] = []
        for _ in range(4):
            source.read(inbox)
        assert sorted(received.number for received in inbox) == sorted(numbers)
        assert {(received.pid, received.by_kernel) for received in inbox} == {(os.getpid(), False)}
    os.close(source.fd)


# In a process with one thread, as process 1 has: a test runner may have another one, which would get the SIGCHLD.
BY_A_CHILD = """
import os, posix, signal, types
from entrypoint.init import libc, signalfd
from entrypoint.signals import VALID

made = []
real_call, real_descriptor = libc.call, libc.descriptor

def descriptor(*arguments):
    made.append("by a child")
    fd = real_descriptor(*arguments)
    if AS_IN_GVISOR:
        os.close(fd)
        fd, writer = os.pipe()
        writers.append(writer)
    return fd

def call(*arguments):
    made.append("by us")
    return real_call(*arguments)

writers = []
libc.descriptor, libc.call = descriptor, call
signalfd.posix = types.SimpleNamespace(**{**vars(posix), "getpid": lambda: 1})
signal.pthread_sigmask(signal.SIG_SETMASK, VALID)
source = signalfd.SignalFd()
inbox = []
source.read(inbox)
print(*made, *(received.number for received in inbox), sep=", ")
"""


@pytest.mark.parametrize("as_in_gvisor", [False, True], ids=["", "as in gVisor"])
def test_as_process_1_a_child_makes_the_descriptor(as_in_gvisor: bool) -> None:
    """If it does not show our signals, we make one ourselves."""
    script = BY_A_CHILD.replace("AS_IN_GVISOR", str(as_in_gvisor))
    expected = f"by a child, by us, {CHLD}" if as_in_gvisor else f"by a child, {CHLD}"
    assert output_of(script) == f"{expected}\n"


def test_a_childs_descriptor_that_does_not_show_our_signals_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    (theirs, writer), (own, other) = os.pipe(), os.pipe()
    with monkeypatch.context() as patch:
        patch.setattr(posix, "getpid", lambda: 1)
        patch.delitem(sys.modules, "_ctypes", raising=False)
        patch.setattr(libc, "descriptor", lambda *_: theirs)
        patch.setattr(libc, "call", lambda *_: own)
        assert signalfd.SignalFd().fd == own
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(theirs)
    for fd in (writer, own, other):
        os.close(fd)


@pytest.mark.parametrize("order", ["little", "big"])
def test_number_code_and_pid_are_read_in_either_byte_order(monkeypatch: pytest.MonkeyPatch, order: str) -> None:
    reader, writer = os.pipe()
    monkeypatch.setattr(libc, "call", lambda *_: reader)
    monkeypatch.setattr(sys, "byteorder", order)
    source = signalfd.SignalFd()
    signals = [(2, 0x80, 0), (15, 0, 0x01020304), (20, 0x80, 7), (64, 0x01000080, 0xFFFFFFFF), (1, -0x80, 1)]
    layout = ("<" if order == "little" else ">") + "IiiI112x"
    os.write(writer, b"".join(struct.pack(layout, number, 0, code, pid) for number, code, pid in signals))
    inbox: list[signalfd.Received] = []
    source.read(inbox)
    assert [(each.number, each.by_kernel, each.pid) for each in inbox] == [
        (number, code == 0x80, pid) for number, code, pid in signals
    ]
    os.close(reader)
    os.close(writer)


@pytest.mark.usefixtures("blocked")
def test_an_empty_signalfd_does_not_block() -> None:
    source = signalfd.SignalFd()
    inbox: list[signalfd.Received] = []
    source.read(inbox)
    assert inbox == []
    os.close(source.fd)


@pytest.mark.usefixtures("blocked")
def test_a_single_signal_can_be_done_without_a_list() -> None:
    source = signalfd.SignalFd()
    assert source.peek() == 0
    signal.pthread_kill(threading.get_ident(), USR1)
    assert [source.peek(), source.peek()] == [USR1, USR1]
    source.size = 0
    assert source.peek() == 0
    inbox: list[signalfd.Received] = []
    for numbers in ([USR1], [USR1, signal.SIGUSR2]):
        for number in numbers:
            signal.pthread_kill(threading.get_ident(), number)
        assert source.peek() == (USR1 if len(numbers) == 1 else 0)
        source.read(inbox)
        assert [received.number for received in inbox] == numbers
        inbox.clear()
    os.close(source.fd)


@pytest.mark.usefixtures("blocked")
@pytest.mark.parametrize(("queued", "more"), [(0, False), (1, False), (31, False), (32, True), (40, True)])
def test_whether_more_may_have_come_than_were_read(queued: int, more: bool) -> None:
    """Realtime signals queue up (signal(7))."""
    source = signalfd.SignalFd()
    for _ in range(queued):
        signal.raise_signal(signal.SIGRTMIN)
    inbox: list[signalfd.Received] = []
    source.read(inbox)
    assert (len(inbox), source.may_have_more) == (min(queued, signalfd.AT_ONCE), more)
    source.read(inbox)
    assert (len(inbox), source.may_have_more) == (queued, False)
    os.close(source.fd)


@pytest.mark.usefixtures("blocked")
def test_signals_that_were_read_are_not_lost_for_want_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    source = signalfd.SignalFd()
    signal.pthread_kill(threading.get_ident(), USR1)
    inbox: list[signalfd.Received] = []

    def fail(*_: object) -> signalfd.Received:
        raise MemoryError

    with monkeypatch.context() as full:
        full.setattr(signalfd, "Received", fail)
        with pytest.raises(MemoryError):
            source.read(inbox)
    assert inbox == []
    assert source.may_have_more
    source.read(inbox)
    assert [received.number for received in inbox] == [USR1]
    assert not source.may_have_more
    os.close(source.fd)


def test_what_came_through_the_wakeup_descriptor_is_not_lost_for_want_of_memory(
    monkeypatch: pytest.MonkeyPatch, interpreter: Interpreter
) -> None:
    source = signalfd.WakeupFd()
    os.write(interpreter.wakeup, bytes([15, 10]))
    assert source.peek() == 0
    inbox: list[signalfd.Received] = []
    with monkeypatch.context() as full:
        full.setattr(signalfd, "Received", failing(signalfd.Received, MemoryError()))
        with pytest.raises(MemoryError):
            source.read(inbox)
    source.read(inbox)
    assert [received.number for received in inbox] == [15, 10]
    os.close(source.fd)


@pytest.fixture
def interpreter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Interpreter]:
    fake = Interpreter()
    monkeypatch.setattr(signalfd, "_signal", fake)
    yield fake
    if fake.wakeup >= 0:
        os.close(fake.wakeup)


@pytest.mark.parametrize("refusal", ["returns -1", "raises"])
def test_without_signalfd_the_wakeup_descriptor_is_used(
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


def test_a_signal_that_cannot_be_handled_does_not_prevent_the_others(interpreter: Interpreter) -> None:
    source = signalfd.WakeupFd()
    wanted = frozenset(number for number in VALID if number <= 60) - {USR1, KILL, STOP} - OF_WRITES
    assert interpreter.masks == []  # what could still fail comes first
    source.begin()
    assert interpreter.handled.keys() == wanted
    assert all(handler(15, None) is None for handler in interpreter.handled.values())
    # Signals are unblocked when all handlers are in place, so that no pending one is lost.
    assert interpreter.masks == [(signal.SIG_SETMASK, (), wanted)]
    os.close(source.fd)


def test_the_wakeup_descriptor_keeps_the_order_and_knows_no_senders(interpreter: Interpreter) -> None:
    source = signalfd.WakeupFd()
    inbox: list[signalfd.Received] = []
    source.read(inbox)  # empty: does not block
    assert inbox == []
    os.write(interpreter.wakeup, bytes([15, 10, 15, 64]))
    source.read(inbox)
    assert [received.number for received in inbox] == [15, 10, 15, 64]
    assert {received.pid for received in inbox} == {None}
    assert not any(received.by_kernel for received in inbox)
    assert not os.get_blocking(interpreter.wakeup)  # of too many signals some are lost, but no handler blocks
    os.close(source.fd)

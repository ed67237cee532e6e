"""Where process 1 reads its signals from: one descriptor for all of them (signalfd(2)), or the next best thing."""

import _signal
import os
import sys

from . import libc
from .signals import KILL, PIPE, STOP, VALID, XFSZ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Received:
    """A signal as it came: `number`, and where the kernel says so, the sender's `pid` and the `code` (si_code).

    `pid` is 0 for a sender outside of our PID namespace, None where the platform does not tell.
    """

    __slots__ = ("code", "number", "pid")

    def __init__(self, number: int, pid: int | None = None, code: int = 0) -> None:
        self.number, self.pid, self.code = number, pid, code

    @property
    def by_kernel(self) -> bool:
        """True for what a terminal sends (si_code is SI_KERNEL, sigaction(2))."""
        return self.code == 0x80


class SignalFd:
    """All catchable signals through one descriptor, in the kernel's order, with their senders (signalfd(2)).

    They have to be blocked already. Raises OSError where the system has no such call.
    """

    SIZE = 128  # struct signalfd_siginfo

    def __init__(self) -> None:
        mask = sum(1 << (number - 1) for number in VALID).to_bytes(128, sys.byteorder)
        self.fd = libc.call("signalfd", -1, mask, os.O_CLOEXEC | os.O_NONBLOCK)
        if self.fd < 0:
            raise OSError("signalfd failed")

    def read(self) -> list[Received]:
        """What is there now. Raises BlockingIOError when it is nothing."""
        block = os.read(self.fd, self.SIZE * 32)
        return [Received(*self._fields(block[at : at + 16])) for at in range(0, len(block), self.SIZE)]

    @staticmethod
    def _fields(start: bytes, integer: "Callable[..., int]" = int.from_bytes) -> tuple[int, int, int]:
        """ssi_signo, ssi_pid and ssi_code; between the first and the last of them lies ssi_errno."""
        order = sys.byteorder
        return integer(start[:4], order), integer(start[12:], order), integer(start[8:12], order, signed=True)


class WakeupFd:
    """The same by Python's own handlers, for macOS and wherever signalfd cannot be had: no senders.

    The mask is opened here; what was pending until now is delivered to the handlers.
    """

    def __init__(self) -> None:
        self.fd, writer = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(writer, False)
        _signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in VALID - {KILL, STOP, PIPE, XFSZ}:  # these come of our own writes, and are ignored
            try:
                _signal.signal(number, _nothing)
            except (OSError, ValueError):
                continue
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())

    def read(self) -> list[Received]:
        """What is there now. Raises BlockingIOError when it is nothing."""
        return [Received(number) for number in os.read(self.fd, 4096)]


def _nothing(*_: object) -> None:
    """A handler has to be there for the wake-up descriptor to be written."""


def open_source() -> SignalFd | WakeupFd:
    """The best source of signals that this system has. Raises OSError when there is none (no descriptor left)."""
    try:
        return SignalFd()
    except OSError:
        return WakeupFd()

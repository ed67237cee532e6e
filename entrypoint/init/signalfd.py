"""Where process 1 reads its signals from: one descriptor for all of them (signalfd(2)), or the next best thing."""

import _signal
import os
import sys

from ..signals import KILL, OF_WRITES, STOP, VALID
from . import libc


class Received:
    """A signal as it came: its `number` and, read only when asked for, what the kernel says of its sender.

    `info` is the beginning of a struct signalfd_siginfo (ssi_signo, ssi_errno, ssi_code, ssi_pid; 4 bytes each), empty
    where the platform does not tell.
    """

    __slots__ = ("_info", "number")

    def __init__(self, number: int, info: bytes = b"") -> None:
        self.number, self._info = number, info

    @property
    def pid(self) -> int | None:
        """The sender's pid: 0 if it is outside of our PID namespace, None if that is not known."""
        return int.from_bytes(self._info[12:16], sys.byteorder) if self._info else None

    @property
    def by_kernel(self) -> bool:
        """True for what a terminal sends (si_code is SI_KERNEL, sigaction(2))."""
        return int.from_bytes(self._info[8:12], sys.byteorder) == 0x80


class SignalFd:
    """All catchable signals through one descriptor, in the kernel's order, with their senders (signalfd(2)).

    They have to be blocked already. Raises OSError where the system has no such call.
    """

    SIZE = 128  # struct signalfd_siginfo

    def __init__(self) -> None:
        mask = sum(1 << (number - 1) for number in VALID).to_bytes(8, sys.byteorder).ljust(128, b"\0")
        self.fd = libc.call("signalfd", -1, mask, os.O_CLOEXEC | os.O_NONBLOCK)
        if self.fd < 0:
            raise OSError("signalfd failed")
        self._block = b""

    def read(self, inbox: list[Received]) -> None:
        """Add what is there now to `inbox`. Where that raises MemoryError, the next call adds it."""
        try:
            self._block = self._block or os.read(self.fd, self.SIZE * 32)
        except BlockingIOError:
            return
        block = self._block
        low = 0 if sys.byteorder == "little" else 3  # the byte of ssi_signo that holds it: there are 64 of them
        inbox += [Received(block[at + low], block[at : at + 16]) for at in range(0, len(block), self.SIZE)]
        self._block = b""


class WakeupFd:
    """The same by Python's own handlers, for macOS and wherever signalfd cannot be had: no senders.

    The mask is opened here; what was pending until now is delivered to the handlers.
    """

    def __init__(self) -> None:
        self.fd, writer = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(writer, False)
        _signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in VALID - {KILL, STOP} - OF_WRITES:  # these may be of our own writes, and are ignored
            try:
                _signal.signal(number, _nothing)
            except (OSError, ValueError):
                continue
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())

    def read(self, inbox: list[Received]) -> None:
        """Add what is there now to `inbox`."""
        try:
            inbox += [Received(number) for number in os.read(self.fd, 4096)]
        except BlockingIOError:
            return


def _nothing(*_: object) -> None:
    """A handler has to be there for the wake-up descriptor to be written."""


def open_source() -> SignalFd | WakeupFd:
    """The best source of signals that this system has. Raises OSError when there is none (no descriptor left)."""
    try:
        return SignalFd()
    except OSError:
        return WakeupFd()

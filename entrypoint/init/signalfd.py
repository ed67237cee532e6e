"""The source of process 1's signals: one descriptor for all of them (signalfd(2)), or Python's wake-up descriptor."""

import _io
import _signal
import posix
import select
import sys

from ..signals import KILL, OF_WRITES, STOP, VALID
from . import libc

SIZE = 128  # bytes of a struct signalfd_siginfo
AT_ONCE = 32  # signals that one read(2) of the signalfd returns


class Received:
    """A received signal: its `number` and, decoded only when asked for, its sender.

    `info`: the first 16 bytes of a struct signalfd_siginfo (ssi_signo, ssi_errno, ssi_code, ssi_pid; 4 bytes each);
    empty if the platform does not report them.
    """

    __slots__ = ("_info", "number")

    def __init__(self, number: int, info: bytes = b"") -> None:
        self.number, self._info = number, info

    @property
    def pid(self) -> int | None:
        """The sender's pid: 0 if it is outside our PID namespace, None if not known."""
        return int.from_bytes(self._info[12:16], sys.byteorder) if self._info else None

    @property
    def by_kernel(self) -> bool:
        """Whether the kernel sent it, as for a terminal (si_code is SI_KERNEL, sigaction(2))."""
        return int.from_bytes(self._info[8:12], sys.byteorder) == 0x80


class SignalFd:
    """All catchable signals through one descriptor, in the kernel's order, with their senders (signalfd(2)).

    They must be blocked already. `fd`: the launcher's. Without one, raises OSError where the system has no such call.
    """

    def __init__(self, fd: int | None = None) -> None:
        self.fd = _signalfd() if fd is None else fd
        self._low = 0 if sys.byteorder == "little" else 3  # the byte of ssi_signo that is used: there are 64 signals
        # The buffer is made now, as there may be no memory for one later; and readinto, unlike read, does not raise an
        # exception where there is nothing to read.
        self._readinto = _io.FileIO(self.fd, "rb", closefd=False).readinto
        self._buffer = bytearray(SIZE * AT_ONCE)
        self.size = 0  # bytes that were read into the buffer and are in no inbox yet
        self.may_have_more = False  # the last read(2) has filled the buffer, or its signals are in no inbox yet

    def begin(self) -> None:
        """Nothing is left to do before the first `read`."""

    def peek(self) -> int:
        """Return the signal that has come, or 0 if there is none, or more than one.

        It stays the first for `read`, unless `size` is set to 0.
        """
        if not self.size:
            self.size = self._readinto(self._buffer) or 0
        return self._buffer[self._low] if self.size == SIZE else 0

    def read(self, inbox: list[Received]) -> None:
        """Append the signals that have come to `inbox`. If that raises MemoryError, the next call appends them."""
        if not self.size:
            self.size = self._readinto(self._buffer) or 0
        buffer = self._buffer
        self.may_have_more = True  # until these are in the inbox
        if self.size == SIZE:  # mostly
            inbox.append(Received(buffer[self._low], bytes(buffer[:16])))
            self.size, self.may_have_more = 0, False
            return
        # gVisor returns 130 bytes for a record of 128: a rest that is shorter than a record is none.
        starts = range(0, self.size - SIZE + 1, SIZE)
        inbox += [Received(buffer[at + self._low], bytes(buffer[at : at + 16])) for at in starts]
        self.size, self.may_have_more = 0, self.size >= len(buffer)


def _signalfd() -> int:
    """Call signalfd(2). Raises OSError.

    As process 1 a child calls it, as `_ctypes` would take memory for good. Its exit is a signal that our end of the
    descriptor must show: in gVisor it would show the signals of the process that has called.
    """
    mask = sum(1 << (number - 1) for number in VALID).to_bytes(8, sys.byteorder).ljust(128, b"\0")
    arguments = "signalfd", -1, mask, posix.O_CLOEXEC | posix.O_NONBLOCK
    fd = -1
    if posix.getpid() == 1 and "_ctypes" not in sys.modules:
        fd = libc.descriptor(*arguments)
        if fd >= 0 and not _is_readable(fd):
            posix.close(fd)
            fd = -1
    if fd < 0:
        fd = libc.call(*arguments)
    if fd < 0:
        raise OSError("signalfd failed")
    return fd


def _is_readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


class WakeupFd:
    """The same by Python's own handlers, for macOS and wherever there is no signalfd(2); senders are not known.

    Signals are unblocked by `begin`, and those that were pending go to the handlers then: not before all is set up that
    could fail, or the signals would be lost with it.
    """

    def __init__(self) -> None:
        self.fd, writer = posix.pipe()
        posix.set_blocking(self.fd, False)
        posix.set_blocking(writer, False)
        _signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in VALID - {KILL, STOP} - OF_WRITES:  # our own failed writes cause these; they stay ignored
            try:
                _signal.signal(number, _nothing)
            except (OSError, ValueError):
                continue
        self._file = _io.FileIO(self.fd, "rb", closefd=False)
        self._buffer = bytearray(4096)
        self.size = 0  # see SignalFd
        self.may_have_more = True

    def peek(self) -> int:
        """Return 0: `read` returns all signals."""
        return 0

    def begin(self) -> None:
        """Unblock all signals."""
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())

    def read(self, inbox: list[Received]) -> None:
        """Append the signals that have come to `inbox`. If that raises MemoryError, the next call appends them."""
        if not self.size:
            self.size = self._file.readinto(self._buffer) or 0
        inbox += [Received(self._buffer[at]) for at in range(self.size)]
        self.size = 0


def _nothing(*_: object) -> None:
    """A handler must exist for the wake-up descriptor to be written."""


def open_source(fd: int | None = None) -> SignalFd | WakeupFd:
    """Return the best source of signals that this system has; `fd`: the signalfd that the launcher has made, if any.

    Raises OSError if there is none (no descriptor left).
    """
    try:
        return SignalFd(fd)
    except OSError:
        return WakeupFd()

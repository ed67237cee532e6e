"""Signals: their names, the ones that can be caught, and a descriptor they are read from (signalfd(2)).

`_signal` is the built-in half of `signal`; the other half imports `enum`, which costs more than all of this package.
"""

import _signal
import os
import sys

from . import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

KILL, STOP, CONT, CHLD = int(_signal.SIGKILL), int(_signal.SIGSTOP), int(_signal.SIGCONT), int(_signal.SIGCHLD)
TERM, INT, HUP, QUIT = int(_signal.SIGTERM), int(_signal.SIGINT), int(_signal.SIGHUP), int(_signal.SIGQUIT)
JOB_CONTROL = frozenset(map(int, (_signal.SIGTSTP, _signal.SIGTTIN, _signal.SIGTTOU)))

# Sent to a process that does not handle them, these change nothing (signal(7), "Ign" and "Cont").
HARMLESS = frozenset(map(int, (_signal.SIGCONT, _signal.SIGWINCH, _signal.SIGURG)))

NAMES: dict[int, str] = {}
NUMBERS: dict[str, int] = {}
for _name in dir(_signal):
    if _name.startswith("SIG") and _name[3] != "_" and isinstance(_number := getattr(_signal, _name), int):
        NUMBERS[_name[3:]] = _number
        if _name not in ("SIGCLD", "SIGPOLL", "SIGIOT"):  # older names for CHLD, IO and ABRT
            NAMES[_number] = _name[3:]
VALID = frozenset(map(int, _signal.valid_signals()))

ACCEPTED = "a signal's name or number, such as TERM, SIGTERM, 15 or RTMIN+3"


def quote(text: str) -> str:
    """What the user typed, for a message: quoted, on one line, cut where it is long."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def name_of(number: int) -> str:
    """`15` -> `TERM`, `37` -> `RTMIN+3`; a number without a name stays a number."""
    if number in NAMES:
        return NAMES[number]
    first, last = NUMBERS.get("RTMIN", 0), NUMBERS.get("RTMAX", 0)
    return f"RTMIN+{number - first}" if first < number < last else str(number)


def parse(text: str) -> int:
    """The signal that `text` names: `TERM`, `sigterm`, `15`, `RTMIN+3`, `RTMAX-1`.

    Raises ValueError, saying what is accepted.
    """
    word = text.upper().removeprefix("SIG")
    base, sign, offset = word.partition("+" if "+" in word else "-")
    if word.isascii() and word.isdigit() and len(word) < 4:
        number = int(word)
    elif base in ("RTMIN", "RTMAX") and sign and offset.isascii() and offset.isdigit() and len(offset) < 4:
        number = NUMBERS.get(base, 0) + (int(offset) if sign == "+" else -int(offset))
        if not NUMBERS.get("RTMIN", 1) <= number <= NUMBERS.get("RTMAX", 0):
            number = 0
    else:
        number = NUMBERS.get(word, 0)
    if number not in VALID:
        raise ValueError(f"{quote(text)} is not a signal; accepted: {ACCEPTED}")
    return number


def parse_catchable(text: str) -> int:
    """As `parse`, without KILL and STOP, which nobody can catch, and CHLD, which process 1 needs for itself."""
    number = parse(text)
    if number in (KILL, STOP, CHLD):
        raise ValueError(f"{quote(text)} cannot be caught as a request; accepted: any signal but KILL, STOP and CHLD")
    return number


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

    def read(self) -> "Iterator[Received]":
        """What is there now. Raises BlockingIOError when it is nothing."""
        block = os.read(self.fd, self.SIZE * 32)
        number = int.from_bytes
        for at in range(0, len(block), self.SIZE):
            yield Received(
                number(block[at : at + 4], sys.byteorder),  # ssi_signo, ssi_errno, ssi_code, ssi_pid
                number(block[at + 12 : at + 16], sys.byteorder),
                number(block[at + 8 : at + 12], sys.byteorder, signed=True),
            )


class WakeupFd:
    """The same by Python's own handlers, for macOS and wherever signalfd cannot be had: no senders.

    The mask is opened here; what was pending until now is delivered to the handlers.
    """

    def __init__(self) -> None:
        self.fd, writer = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(writer, False)
        _signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in VALID - {KILL, STOP}:
            try:
                _signal.signal(number, _nothing)
            except (OSError, ValueError):
                continue
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())

    def read(self) -> "Iterator[Received]":
        """What is there now. Raises BlockingIOError when it is nothing."""
        return map(Received, os.read(self.fd, 4096))


def _nothing(*_: object) -> None:
    """A handler has to be there for the wake-up descriptor to be written."""


def open_source() -> SignalFd | WakeupFd:
    """The best source of signals that this system has. Raises OSError when there is none (no descriptor left)."""
    try:
        return SignalFd()
    except OSError:
        return WakeupFd()

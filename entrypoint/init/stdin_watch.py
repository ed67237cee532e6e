"""The end of stdin as a stop request (--stop-on EOF): for a server over stdio, whose client is gone.

Nothing is read: stdin is the agent's. poll(2) reports a hang-up when the other end is closed, which may be before the
agent has read what is left; so the stop waits for that. A hang-up lasts: after the first report it is not polled for
any more, or process 1 would wake up again and again.
"""

import _stat
import posix
import select
import sys

from ..signals import EOF
from .signalfd import Received
from .spare_memory import NO_MEMORY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..parsed import Settings
    from .loop import Loop

STDIN = 0
LOOK_EVERY, MAX_LOOK_AFTER = 0.1, 5.0  # seconds to the next look at how much is left, at first and later
# Seconds from the last read to the stop request: most servers exit by themselves at the end of their input, and a stop
# signal that came at the same time would change their exit code.
PAUSE = 0.5
# For a socket whose peer has only shut down its side (poll(2)); elsewhere a hang-up is always reported.
EVENTS = getattr(select, "POLLRDHUP", 0)


def start(settings: "Settings", loop: "Loop", inbox: list[Received], catch_up: "Callable[[], object]") -> None:
    """Watch stdin if `settings` ask for it and it can end; then put EOF into `inbox` and call `catch_up`."""
    if EOF in settings.stop_on and _can_end():
        StdinWatch(loop, inbox, catch_up).watch()


def _can_end() -> bool:
    """Whether there is another end that can go: not for a file, a directory or /dev/null."""
    try:
        kind = posix.fstat(STDIN).st_mode
    except OSError:
        return False
    return _stat.S_ISFIFO(kind) or _stat.S_ISSOCK(kind) or posix.isatty(STDIN)


class StdinWatch:
    """Waits for the hang-up, then for the agent to read the rest, then for PAUSE."""

    __slots__ = ("_catch_up", "_inbox", "_look_after", "_loop", "_paused")

    def __init__(self, loop: "Loop", inbox: list[Received], catch_up: "Callable[[], object]") -> None:
        self._loop, self._inbox, self._catch_up = loop, inbox, catch_up
        self._paused = False
        self._look_after = LOOK_EVERY

    def watch(self) -> None:
        """Wait for the hang-up."""
        self._loop.add_reader(STDIN, self._hung_up, EVENTS)

    def _hung_up(self) -> None:
        self._look()
        self._loop.remove_reader(STDIN)  # only now: if the above failed, poll reports the hang-up again

    def _look(self) -> None:
        try:
            if _unread():
                self._loop.call_at(self._loop.time() + self._look_after, self._look)
                self._look_after = min(2 * self._look_after, MAX_LOOK_AFTER)  # it may never read the rest
                return
            if not self._paused:
                self._loop.call_at(self._loop.time() + PAUSE, self._look)
                self._paused = True
                return
            self._inbox.append(Received(EOF))
        except NO_MEMORY:
            self.watch()
            raise
        self._catch_up()


def _unread() -> int:
    """Return how many bytes of stdin the agent has not read yet; 0 if that is not known."""
    try:
        import fcntl
        import termios

        return int.from_bytes(fcntl.ioctl(STDIN, termios.FIONREAD, bytes(4)), sys.byteorder)
    except (ImportError, OSError):  # a terminal that was hung up: EIO
        return 0

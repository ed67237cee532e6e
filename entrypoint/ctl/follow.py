"""A connection that lasts: what follows the log waits for its next line, or until nobody reads what it prints."""

from __future__ import annotations

import select
import sys
import time

from .connection import Connection


class Follower(Connection):
    """A connection whose packets may come hours later. `end`: when to stop waiting (time.monotonic), or None.

    `ask` raises BrokenPipeError as soon as nobody reads our stdout, as the next write may be as far away, and
    TimeoutError at the end.
    """

    def __init__(self, pid: int, timeout: float, end: float | None) -> None:
        """`timeout`: for the connection itself."""
        super().__init__(pid, timeout)
        self._end = end
        self.wait_at_most(None)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._poll.register(sys.stdout, 0)  # POLLERR, POLLHUP: the other end of a pipe, socket or terminal is gone

    def _receive(self) -> bytes:
        while True:
            left = None if self._end is None else self._end - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError
            found = self._poll.poll(None if left is None else left * 1000)
            if any(fd == self._socket.fileno() for fd, _ in found):  # the last packets are printed, if they can be
                return super()._receive()
            if found:
                raise BrokenPipeError

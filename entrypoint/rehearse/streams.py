"""Reads the output of a run as it comes, with the time of each line."""

from __future__ import annotations

import os
import selectors
import time
from typing import TYPE_CHECKING

from .records import NULLS, Line

if TYPE_CHECKING:
    from collections.abc import Callable

READ_AT_ONCE = 65536
MAX_LINE_BYTES = 1 << 20  # a longer one is cut


class Streams:
    """The open pipes of a run; `on_line` is called with each complete line, and with an unfinished one at the end."""

    def __init__(self, on_line: Callable[[Line], None]) -> None:
        self._on_line = on_line
        self._selector = selectors.DefaultSelector()
        self._rest: dict[int, bytes] = {}
        self._paused: dict[int, str] = {}

    def add(self, fd: int, name: str) -> None:
        """Read this descriptor, and close it at its end."""
        os.set_blocking(fd, False)
        self._rest[fd] = b""
        self._selector.register(fd, selectors.EVENT_READ, name)

    def read(self, timeout: float) -> None:
        """Wait for output for so many seconds at most, and read what there is."""
        if not self._selector.get_map():
            time.sleep(timeout)
            return
        for key, _ in self._selector.select(timeout):
            self._read(key.fd, key.data)

    def pause(self, fd: int) -> None:
        """Stop reading, and fill the pipe up. It may have been closed at the other end."""
        if fd not in self._rest:
            return
        self._paused[fd] = self._selector.unregister(fd).data
        writer = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK)
        try:
            for size in (os.sysconf("SC_PAGE_SIZE"), 1):  # a pipe is full when its last page is
                while os.write(writer, NULLS.encode() * size):
                    pass
        except BlockingIOError:
            pass
        finally:
            os.close(writer)

    def resume(self, fd: int) -> None:
        """Go on reading."""
        if fd in self._paused:
            self._selector.register(fd, selectors.EVENT_READ, self._paused.pop(fd))

    def close(self) -> None:
        """Read what is left without waiting, and close everything."""
        for fd in tuple(self._paused):
            self.resume(fd)
        for _ in range(64):  # a process that was not ended might go on for ever
            ready = self._selector.select(0)
            for key, _ in ready:
                self._read(key.fd, key.data)
            if not ready:
                break
        for key in list(self._selector.get_map().values()):
            self._end(key.fd, key.data)
        self._selector.close()

    def _read(self, fd: int, name: str) -> None:
        try:
            block = os.read(fd, READ_AT_ONCE)
        except BlockingIOError:
            return
        now = time.monotonic()
        *lines, rest = (self._rest[fd] + block.replace(NULLS.encode(), b"")).split(b"\n")
        self._rest[fd] = rest
        for line in lines:
            self._emit(now, name, line)
        if len(rest) > MAX_LINE_BYTES:
            self._rest[fd] = b""
            self._emit(now, name, rest)
        if not block:
            self._end(fd, name)

    def _end(self, fd: int, name: str) -> None:
        self._selector.unregister(fd)
        if rest := self._rest.pop(fd, b""):
            self._emit(time.monotonic(), name, rest)
        os.close(fd)

    def _emit(self, now: float, name: str, line: bytes) -> None:
        self._on_line(Line(now, name, line.decode("utf-8", "backslashreplace").rstrip("\r")))

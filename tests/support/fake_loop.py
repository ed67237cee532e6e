"""A loop that runs nothing by itself: a test calls its readers and timers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class FakeLoop:
    """In the loop's place. Its clock stands still unless it is set."""

    def __init__(self) -> None:
        self.now = 0.0
        self.readers: dict[int, Callable[[], object]] = {}
        self.timers: list[tuple[float, Callable[[], object]]] = []

    def time(self) -> float:
        return self.now

    def add_reader(self, fd: int, callback: Callable[[], object]) -> None:
        self.readers[fd] = callback

    def remove_reader(self, fd: int) -> None:
        self.readers.pop(fd, None)

    def call_at(self, when: float, callback: Callable[[], object]) -> object:
        self.timers.append((when, callback))
        return callback

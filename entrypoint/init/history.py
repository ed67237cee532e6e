"""The last lines of the log, for `agent-initctl events`, and who wants each new one.

A record is kept as it was passed to the log. It is turned into JSON when somebody asks for it, which most never do.
"""

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Record = tuple[float, int, str, str, dict[str, object]]

MAX_BYTES = 65536  # of all records, as far as their texts and fields go
OVERHEAD_BYTES = 160  # of a record: a tuple, and a dictionary


class History:
    """`followers` are called with each new record, and do not raise. `is_followed`: whether any of them wants it."""

    __slots__ = ("_bytes", "_kept", "followers", "is_followed")

    def __init__(self) -> None:
        self._kept: list[tuple[int, Record]] = []  # each with its size
        self.followers: list[Callable[[Record], object]] = []
        self.is_followed: Callable[[], bool] = bool  # False
        self._bytes = 0

    @property
    def records(self) -> "list[Record]":
        """The oldest first; each has its time (seconds since the epoch), level, event, text and fields."""
        return [record for _, record in self._kept]

    def add(self, level: int, event: str, text: str, fields: dict[str, object]) -> None:
        """Add a record, and drop the oldest ones that there is no more space for. May raise MemoryError."""
        record = time.time(), level, event, text, fields
        size = _size(record)
        # A sum may fail too, for want of memory, so each is made before the change that it is about.
        total = self._bytes + size
        self._kept.append((size, record))
        self._bytes = total
        while self._bytes > MAX_BYTES:
            total = self._bytes - self._kept[0][0]
            del self._kept[0]
            self._bytes = total
        for follower in tuple(self.followers):
            follower(record)


def _size(record: "Record") -> int:
    _, _, _, text, fields = record
    return OVERHEAD_BYTES + len(text) + len(str(fields))

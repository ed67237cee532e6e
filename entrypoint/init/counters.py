"""What process 1 counts, for who asks: signals by their number, orphans, clients that were refused."""

from ..signals import VALID

SIZE = max(VALID) + 1


class Counters:
    """`forwarded`, `dropped`: signals, each list by number. `reaped`: orphans. `refused`: clients, see `control`."""

    __slots__ = ("dropped", "forwarded", "reaped", "refused")

    def __init__(self) -> None:
        self.forwarded = [0] * SIZE
        self.dropped = [0] * SIZE
        self.reaped = self.refused = 0

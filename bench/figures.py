"""What is measured: the figures, their targets, and what only breakage could reach."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .contenders import FLOOR, REFERENCE

TREES = (1, 100, 5000)  # processes, while signals are forwarded
ORPHANS = (200, 2000, 20_000)
STOPPED = (10, 1000, 10_000)  # processes in a tree that is stopped
BURST = 100_000


@dataclass(frozen=True)
class Figure:
    """Something that is measured; those of one title differ in `at` and make one table.

    The target holds for agent-init's median: at most `limit`, or `limit` times what `of` takes. `broken` is the same
    for `--check`: far beyond what a busy machine makes of it.
    """

    title: str
    unit: str = ""
    at: str = ""
    size: int = 0  # where `at` is on the axis of a plot
    limit: float = math.inf
    broken: float = math.inf
    of: str = ""
    more_is_better: bool = False
    tail: bool = False  # its 99th percentile matters too
    share: bool = False  # of 0 and 100 %, where the mean tells more than the median

    @property
    def target(self) -> str:
        """In words."""
        if self.limit == math.inf:
            return ""
        return f"at most {self.limit:g} x {self.of}" if self.of else f"at most {self.limit:g} {self.unit}".rstrip()


def _signal(size: int) -> Figure:
    title = "One forwarded signal of many in a row, sender to handler"
    return Figure(title, "us", f"{size:,} in the tree", size, limit=2, broken=10, of=REFERENCE, tail=True)


def _wrapped(size: int) -> Figure:
    title = "One forwarded signal to an agent behind a shell, which has to be looked through"
    return Figure(title, "us", f"{size:,} in the tree", size, tail=True)


def _memory(title: str, limit: float = math.inf, broken: float = math.inf) -> dict[str, Figure]:
    at = {"rest": "at rest", "orphans": f"after {ORPHANS[-1]:,} orphans", "signals": f"after {BURST:,} signals, twice"}
    return {key: Figure(title, "MiB", text, limit=limit, broken=broken) for key, text in at.items()}


def _burst(title: str, unit: str = "", *, more_is_better: bool = False) -> dict[str, Figure]:
    at = {"coalescing": "USR1, which coalesces", "queued": "RTMIN+3, which queues"}
    return {key: Figure(title, unit, text, more_is_better=more_is_better) for key, text in at.items()}


def _sized(title: str, unit: str, sizes: tuple[int, ...], what: str, *, more: bool = False) -> dict[str, Figure]:
    return {
        str(size): Figure(title, unit, f"{size:,} {what}", size, more_is_better=more, broken=math.inf) for size in sizes
    }


FIGURES: dict[str, Figure] = {
    "start": Figure("Start to the agent's first instruction", "ms", limit=1.25, broken=4, of=FLOOR),
    "safe": Figure("Start to the moment from which no TERM is lost", "ms"),
    "lost": Figure("TERM sent in that moment that did not end it", "%", limit=0, broken=0, share=True),
    "whole": Figure("Whole run of a command that ends at once", "ms"),
    "exit": Figure("The agent's exit to the init's", "ms", limit=3, broken=60),
    **{f"signal/{size}": _signal(size) for size in TREES},
    "signal-rested": Figure("One forwarded signal after 2 ms of rest, sender to handler", "us", tail=True),
    **{f"wrapped/{size}": _wrapped(size) for size in TREES},
    **{f"arrived/{k}": f for k, f in _burst(f"Arrived of a burst of {BURST:,} signals", more_is_better=True).items()},
    **{f"burst/{k}": f for k, f in _burst("Burst: first sent to last arrived", "ms").items()},
    **{f"orphans/{k}": f for k, f in _sized("Orphans reaped a second", "", ORPHANS, "at once", more=True).items()},
    **{
        f"zombie/{k}": f
        for k, f in _sized("Longest time that an orphan was a zombie", "ms", ORPHANS, "at once").items()
    },
    **{f"private/{key}": figure for key, figure in _memory("Private memory", 4, 6).items()},
    **{f"pss/{key}": figure for key, figure in _memory("Proportional share of memory (PSS)").items()},
    "wakeups": Figure("Wake-ups in 30 idle seconds (`--quick`: 3)", limit=0, broken=20),
    "cpu": Figure("Processor time in 30 idle seconds (`--quick`: 3)", "ms"),
    **{f"stop/{k}": f for k, f in _sized("Graceful stop of a tree, TERM to end", "ms", STOPPED, "processes").items()},
    **{
        f"asked/{k}": f
        for k, f in _sized(
            "How many of a stopped tree ended by a TERM, not by a KILL", "", STOPPED, "processes", more=True
        ).items()
    },
    **{
        f"kill/{k}": f
        for k, f in _sized(
            "A tree that ignores TERM: from the deadline, or a SIGKILL from outside, to the end",
            "ms",
            STOPPED,
            "processes",
        ).items()
    },
    "deadline": Figure("How late a deadline of 1 s is", "ms", limit=50, broken=500),
}

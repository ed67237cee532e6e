"""What is measured: the figures, their targets, and the limits for `--check`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from .contenders import FLOOR, REFERENCE, WITH_PYTHONPATH

TREES = (1, 100, 5000)  # processes, while signals are forwarded
ORPHANS = (200, 2000, 20_000)
STOPPED = (10, 1000, 10_000)  # processes in a tree that is stopped
BURST = 100_000
ALONE, ELSEWHERE = "without clients", "another flooded"  # what a flood is compared with


@dataclass(frozen=True)
class Figure:
    """A figure. Figures with the same title differ in `at` and make one section of tables.

    The target holds for agent-init's median: at most `limit`, or `limit` times the median of the init `of`. `broken` is
    the limit for `--check`, far above what a busy machine causes.
    """

    title: str
    unit: str = ""
    at: str = ""
    size: int = 0  # `at` on the axis of a plot
    limit: float = math.inf
    broken: float = math.inf
    of: str = ""
    more_is_better: bool = False
    has_tail: bool = False  # show the 99th percentile too
    is_share: bool = False  # samples are 0 or 100 %: use the mean

    @property
    def target(self) -> str:
        """Return the target as text, "" if there is none."""
        if self.limit == math.inf:
            return ""
        return f"at most {self.limit:g} x {self.of}" if self.of else f"at most {self.limit:g} {self.unit}".rstrip()


def _signal(size: int) -> Figure:
    title = "Forwarded signal, back to back, sender to handler"
    limit = 3 if size == 100 else 2
    return Figure(title, "us", f"{size:,} in the tree", size, limit=limit, broken=10, of=REFERENCE, has_tail=True)


def _wrapped(size: int) -> Figure:
    title = "Forwarded signal to an agent behind a shell"
    return Figure(title, "us", f"{size:,} in the tree", size, has_tail=True)


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
    "start": Figure("Start to the agent's first instruction", "ms", limit=1.2, broken=4, of=FLOOR),
    "safe": Figure("Start until a TERM is no longer lost", "ms", limit=1.5, broken=60),
    "lost": Figure("TERM sent at that moment and lost", "%", limit=0, broken=0, is_share=True),
    "whole": Figure("Complete run of a command that exits at once", "ms"),
    "exit": Figure("From the agent's exit to the init's exit", "ms", limit=1.5, broken=60),
    **{f"signal/{size}": _signal(size) for size in TREES},
    "signal-rested": Figure("Forwarded signal after 2 ms of rest, sender to handler", "us", has_tail=True),
    "flood": Figure(
        "Forwarded signal after 2 ms of rest, while ten clients flood the control socket",
        "us",
        limit=1.5,
        broken=10,
        of=ELSEWHERE,
        has_tail=True,
    ),
    **{
        f"probe/{name}": Figure("Probe with agent-initctl, from its start to its exit", "ms", name, 0, 1.3, 4, FLOOR)
        for name in ("live", "ready")
    },
    **{f"wrapped/{size}": _wrapped(size) for size in TREES},
    **{
        f"arrived/{k}": f
        for k, f in _burst(f"Signals that arrived of a burst of {BURST:,}", more_is_better=True).items()
    },
    **{f"burst/{k}": f for k, f in _burst("Burst: first sent to last arrived", "ms").items()},
    **{f"orphans/{k}": f for k, f in _sized("Orphans reaped per second", "", ORPHANS, "at once", more=True).items()},
    **{f"zombie/{k}": f for k, f in _sized("Longest time an orphan was a zombie", "ms", ORPHANS, "at once").items()},
    **{f"private/{key}": figure for key, figure in _memory("Private memory", 4, 6).items()},
    **{f"pss/{key}": figure for key, figure in _memory("Proportional share of memory (PSS)").items()},
    "wakeups": Figure("Wake-ups in 30 idle seconds (3 with `--quick`)", limit=0, broken=20),
    "cpu": Figure("Processor time in 30 idle seconds (3 with `--quick`)", "ms"),
    **{
        f"stop/{k}": f
        for k, f in _sized("Graceful stop of a tree, from TERM to the init's exit", "ms", STOPPED, "processes").items()
    },
    **{
        f"asked/{k}": f
        for k, f in _sized(
            "Processes of a stopped tree that exited on TERM", "", STOPPED, "processes", more=True
        ).items()
    },
    **{
        f"kill/{k}": f
        for k, f in _sized(
            "Tree that ignores TERM: from the deadline, or an outside SIGKILL, to the init's exit",
            "ms",
            STOPPED,
            "processes",
        ).items()
    },
    "deadline": Figure("Delay of a 1 s deadline", "ms", limit=50, broken=500),
}


def figure_of(key: str, init: str) -> Figure:
    """Return a figure with the target for this init: with PYTHONPATH, the start may take longer."""
    return replace(FIGURES[key], limit=1.3) if (key, init) == ("start", WITH_PYTHONPATH) else FIGURES[key]

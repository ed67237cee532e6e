"""How late the agent's event loops turn (--loop-watch). Its processes are asked when somebody asks for the metrics.

Each process counts for itself and answers on a socket of its own (`agent/responder.py`), to root and to its own user;
the server runs as that one. Process 1 has no part in it.

A process that hangs answers late or never. So a thread asks, and for ASK_SECONDS at most: other requests are answered
meanwhile, and the metrics show how many processes were silent.
"""

from __future__ import annotations

import math
import time
from concurrent.futures.thread import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from ..report import answers, by_proc

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from ..report.answers import Answer, Lags, NoAnswer
    from .measures import Tree
    from .state import Source

    Identity = tuple[int, int]  # pid and start time

ASK_SECONDS = 1.0  # that a scrape waits for the agent's processes
MIN_AGE = 1.0  # seconds that their answers serve,
SHARE = 5  # ... and so many times as long as it took to get them: 5 s where a process hangs
MAX_CLASSES, MAX_COUNT = 100, 1 << 53  # of lags: what a process sends is not to be relied on


class Asked(NamedTuple):
    """A process, as `answers.ask` takes it."""

    pid: int
    inner_pid: int
    is_dead: bool = False
    is_agent: bool = False
    is_python: bool = True


class Loops:
    """Asks, and keeps what was answered. `version`: how often there was an answer.

    `lags`: those of all processes that are watched or were; None while there is none. `blocked_seconds`: for how long
    the loop is blocked that is blocked the longest, or 0. `can_answer`: whether any process ever had a socket for it.
    `silent`: how many of those have not answered in time.
    """

    def __init__(self, source: Source, tree: Tree, loop: asyncio.AbstractEventLoop) -> None:
        self._source, self._tree, self._loop = source, tree, loop
        self._thread = ThreadPoolExecutor(1)
        self._waiting: list[Callable[[], None]] = []
        self._began = self._next = 0.0
        self._inner_pids: dict[Identity, int] = {}
        self._present: dict[Identity, Lags] = {}
        self._bounds: tuple[float, ...] = ()  # of the classes
        self._past: list[Lags] = []  # of processes that have exited: at most one
        self.lags: Lags | None = None
        self.blocked_seconds, self.can_answer, self.silent, self.version = 0.0, False, 0, 0

    def ask(self, then: Callable[[], None]) -> None:
        """Call `then` when the figures are fresh: at once, or after ASK_SECONDS at the latest."""
        responders, now = self._source.state.responders, time.monotonic()
        if not responders or (now < self._next and not self._waiting):
            then()
            return
        tree = self._tree.look()
        if tree.processes is None:  # which are left is not known
            then()
            return
        self._waiting.append(then)
        if len(self._waiting) == 1:
            self._began = now
            try:
                future = self._loop.run_in_executor(self._thread, self._ask, responders, tree.started)
                future.add_done_callback(partial(self._answered, tree.started))
            except RuntimeError:  # no thread to be had (the pids limit)
                self._thread = ThreadPoolExecutor(1)  # the old one would ask when it gets its thread
                self._answer_all()

    def _ask(self, responders: str, started: dict[int, int]) -> dict[int, Answer | NoAnswer]:
        """Return the answers of all processes that listen, by pid. Runs in a thread."""
        names = listening(responders)
        if not names:
            return {}
        known = self._inner_pids
        self._inner_pids = {process: known.get(process) or by_proc.inner_pid(process[0]) for process in started.items()}
        asked = [Asked(pid, inner) for (pid, _), inner in self._inner_pids.items() if inner in names]
        return answers.ask(responders, asked, ASK_SECONDS, "loops")

    def _answered(self, started: dict[int, int], done: asyncio.Future[dict[int, Answer | NoAnswer]]) -> None:
        now = time.monotonic()
        self._next = now + max(MIN_AGE, (now - self._began) * SHARE)
        if error := done.exception():
            self._loop.call_exception_handler({"message": "event loops: cannot ask", "exception": error})
        else:
            self.note(done.result(), started)
        self._answer_all()

    def _answer_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        for then in waiting:
            self._loop.call_soon(then)  # one that fails holds up no other

    def note(self, found: dict[int, Answer | NoAnswer], started: dict[int, int]) -> None:
        """Take the answers, by pid. `started`: the start times of the processes that there are, by pid.

        No count falls when a process exits or executes another program.
        """
        self.version += 1
        self.blocked_seconds, self.silent = 0.0, 0
        self.can_answer = self.can_answer or bool(found)
        for pid, answer in found.items():
            if isinstance(answer, answers.NoAnswer):
                self.silent += 1
            elif answer.lags is not None and self._is_sound(answer.lags):
                self.blocked_seconds = max(self.blocked_seconds, *(loop.blocked for loop in answer.loops), 0.0)
                process = pid, started[pid]
                before = self._present.get(process)
                if before is not None and sum(before.counts) > sum(answer.lags.counts):
                    self._past.append(before)
                self._present[process] = answer.lags
        for process in [process for process in self._present if started.get(process[0]) != process[1]]:
            self._past.append(self._present.pop(process))
        if self._past:
            self._past = [together(self._past)]
        if self._past or self._present:
            self.lags = together([*self._past, *self._present.values()])

    def _is_sound(self, lags: Lags) -> bool:
        """Whether they are a histogram, with the same classes as the first ones."""
        is_one = (
            0 < len(lags.bounds) == len(lags.counts) - 1 < MAX_CLASSES
            and all(lower < upper for lower, upper in pairwise((0.0, *lags.bounds, math.inf)))
            and all(0 <= count < MAX_COUNT for count in (*lags.counts, lags.blocked))
            and 0 <= lags.sum < math.inf
        )
        if is_one and not self._bounds:
            self._bounds = lags.bounds
        return is_one and lags.bounds == self._bounds


def together(several: Iterable[Lags]) -> Lags:
    """Return the sums."""
    first, *others = several
    for one in others:
        first = answers.Lags(
            first.limit,
            first.bounds,
            tuple(map(sum, zip(first.counts, one.counts, strict=True))),
            first.sum + one.sum,
            first.blocked + one.blocked,
        )
    return first


def listening(responders: str) -> set[int]:
    """Return the pids, each in its own PID namespace, that have a socket with this prefix (/proc/net/unix, proc(5))."""
    found: set[int] = set()
    try:
        with open("/proc/net/unix", encoding="utf-8", errors="backslashreplace") as file:
            for line in file:
                _, is_one, number = line.rstrip("\n").partition(f" {responders}/")
                if is_one and number.isascii() and number.isdigit():
                    found.add(int(number))
    except OSError:
        pass
    return found

"""Failures of agent-init's own parts: one does not stop the others, and each is logged once, with its count later.

Without memory a part fails at every attempt, a hundred times a second. The reserve gives the next attempts the memory
that they need for a log line, a list of processes, or the state of an event.
"""

from .console import ERROR, Console
from .fallback import describe_error
from .loop import Loop
from .spare_memory import NO_MEMORY, OF_SUPERVISOR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SILENCE = 60.0  # seconds after a line in which the same one is only counted
MAX_TEXTS = 16  # different lines that are remembered
RESERVE_AGAIN = 1.0  # seconds after the last failure for want of memory


class Faults:
    """Logs failures, and keeps the reserve. `console` is where they are logged."""

    __slots__ = ("_console", "_counts", "_no_memory", "_no_memory_at", "_no_memory_logged", "_reserve")

    def __init__(self, console: Console) -> None:
        self._console = console
        self._counts: dict[str, tuple[float, int]] = {}  # by text: when it was logged, and how often not since then
        self._no_memory = console.line(ERROR, "unexpected", "unexpected: out of memory; continuing")
        self._no_memory_logged = False
        self._no_memory_at = 0.0  # the last failure for want of memory; 0 while the reserve is there
        self._reserve = OF_SUPERVISOR

    def guarded(self, step: "Callable[..., object]", *arguments: object) -> None:
        """Call one part so that its failure does not stop the others."""
        try:
            step(*arguments)
        except Exception as error:
            self.log(error)

    def log(self, error: BaseException) -> None:
        """Log a failure, or count it. Does not raise."""
        try:
            if isinstance(error, NO_MEMORY):
                self._reserve.release()
                self._no_memory_at = Loop.time()
            self._log(describe_error(error))
        except Exception:  # no memory even for that: a line that was made before
            if not self._no_memory_logged:
                self._no_memory_logged = True
                self._console.write(self._no_memory)

    def _log(self, text: str) -> None:
        now = Loop.time()
        logged_at, count = self._counts.get(text, (now - SILENCE, 0))
        if now < logged_at + SILENCE:
            self._counts[text] = logged_at, count + 1
            return
        if text not in self._counts and len(self._counts) >= MAX_TEXTS:
            self._log_count(next(iter(self._counts)))
        self._counts[text] = now, 0
        again = f" ({count + 1} times since the last such line)" if count else ""
        self._console.log(ERROR, "unexpected", f"unexpected {text}{again}; continuing")

    def log_counts(self) -> None:
        """Log how often each failure was repeated since its line. May raise MemoryError."""
        for text in tuple(self._counts):
            self._log_count(text)

    def _log_count(self, text: str) -> None:
        _, count = self._counts.pop(text)
        if count:
            self._console.log(ERROR, "unexpected", f"unexpected {text}: {count} more time{'s' if count > 1 else ''}")

    def replenish(self) -> None:
        """Take the reserve again, unless memory was short a moment ago."""
        if self._no_memory_at and Loop.time() >= self._no_memory_at + RESERVE_AGAIN:
            try:
                self._reserve.take()
                self._no_memory_at = 0.0
            except NO_MEMORY:
                self._no_memory_at = Loop.time()

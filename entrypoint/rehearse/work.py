"""The work that an agent has in hand when it is stopped: --work, from its start until its outcome is known."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .. import signals, units
from . import beside
from .up import NotUp

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .journal import Journal
    from .options import Options
    from .streams import Streams

BEGINS_WITHIN = 1.0  # seconds
WAITS_WITHIN = 10.0  # what computes longer does not wait for the agent
LOOKS = 4  # that find it waiting, one after the other
BETWEEN_LOOKS = 0.02
WORK_WAS_OVER = "the work had ended before the stop request"


class Work:
    """The work of one run; without --work there is none, and nothing is done.

    `was_over`: it had ended before the stop request. Else `code`: its exit code, and `cut`: it had not ended in time.
    """

    def __init__(
        self, options: Options, journal: Journal, wait_until: Callable[[float, Callable[[], bool]], None]
    ) -> None:
        """Start nothing yet. `wait_until`: waits until a time by the monotonic clock, or until something is true."""
        self._options, self._journal, self._wait_until = options, journal, wait_until
        self._command: beside.Command | None = None
        self.was_over = self.cut = False
        self.code: int | None = None

    def begin(self, environment: Mapping[str, str], streams: Streams, **variables: str) -> None:
        """Start it, and wait for --work-up; without that, until it has printed something, or for a second, and waits.

        `variables`: for its environment, as `beside.Command` takes them. Raises NotUp, OSError.
        """
        line, wanted = self._options.work, self._options.work_up
        if line is None:
            return
        self._command = beside.Command(line, environment, **variables)
        streams.add(self._command.output, "work")
        self._journal.add_event("note", "the work begins")
        end = time.monotonic() + (BEGINS_WITHIN if wanted is None else self._options.up_timeout)
        self._wait_until(end, lambda: self._journal.work_begun or not self.is_running())
        if wanted is None:
            self._await_waiting(self._command, end + WAITS_WITHIN)
        elif not self._journal.work_begun and self.is_running():
            waited = units.format_duration(self._options.up_timeout)
            raise NotUp(f"the work did not print {signals.quote(wanted)} within {waited}")
        self.check()

    def _await_waiting(self, command: beside.Command, end: float) -> None:
        """Wait until it waits: for the agent, as a rule. What still starts is no work in hand."""
        waiting = 0
        while waiting < LOOKS and self.is_running() and time.monotonic() < end:
            self._wait_until(time.monotonic() + BETWEEN_LOOKS, lambda: not self.is_running())
            waiting = waiting + 1 if command.is_waiting() else 0

    def check(self) -> None:
        """See whether it goes on, as it should when the stop is requested. Raises NotUp if it has failed."""
        code = None if self._command is None else self._command.exit_code()
        if code:
            raise NotUp(f"the work failed before a stop was requested, with exit code {code}")
        self.was_over = code == 0

    def is_running(self) -> bool:
        """Whether it has begun, and not ended."""
        return self._command is not None and self._command.exit_code() is None

    def await_end(self) -> None:
        """Wait for its end, for so long as it may take after the agent's."""
        if self._command is None:
            return
        self._wait_until(time.monotonic() + self._options.work_timeout, lambda: not self.is_running())
        if self.was_over:
            self._journal.add_event("note", WORK_WAS_OVER)
            return
        self.code = self._command.exit_code()
        self.cut = self.code is None
        text = "the work had not ended, and was killed" if self.cut else f"exit code {self.code}"
        self._journal.add_event("work-end", text)

    def end(self) -> None:
        """End it with all that it has started, and wait for that."""
        if self._command is not None:
            self._command.end()

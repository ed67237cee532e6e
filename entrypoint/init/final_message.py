"""The final message: what the termination log is to hold, from the stop request to the end.

A platform may kill process 1 at any time of a stop, and the file outlives that. So the message is written when the stop
is requested, and again with each line about its progress. At the end it holds only what the platform cannot know: the
deadline, who was left and what it was doing, who requested the stop, a hang, the OOM killer. It is removed at every end
that it does not explain: with a message of ours nobody would look for the agent's own, or for a traceback in the log.
"""

import time

from .termination_log import MAX_BYTES, TerminationLog

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..parsed import Settings

# The exit code alone does not show that it was one of these (`Lifecycle._find_cause`).
UNKNOWN_TO_PLATFORM = frozenset("deadline escalated stop-signal oom killed lost".split())
ESCALATED = frozenset("step deadline".split())  # events after which the stop did not go well


class FinalMessage:
    """The message, and the file. `changed`: it is to be written again."""

    __slots__ = (
        "_begun_at",
        "_events",
        "_exit",
        "_file",
        "_is_escalated",
        "_report",
        "_request",
        "_settings",
        "_status",
        "_waits",
        "changed",
    )

    def __init__(self, settings: "Settings", platform_waits: str = "") -> None:
        """`platform_waits`: how long the platform waits, as text; may be empty."""
        self._waits = platform_waits
        self._settings, self._file = settings, TerminationLog(settings)
        self._request: tuple[str, str] | None = None  # the time of day, and who requested it
        self._begun_at = 0.0  # monotonic clock
        self._exit = ""  # how the agent has ended, if others are left
        self._status = ""
        self._events: list[str] = []
        self._report: list[str] = []  # the latest stall report
        self._is_escalated = False
        self.changed = False

    @property
    def is_written(self) -> bool:
        """Whether the file holds it, as far as we know."""
        return self._file.is_written

    def stop_begins(self, requested_by: str) -> None:
        """A stop begins, or goes on without the agent. `requested_by`: empty for a hang, or after an exit."""
        self.changed = True
        if self._request is None:
            self._begun_at = time.monotonic()
            self._request = _time_of_day(), requested_by

    def progress(self, status: str | None) -> None:
        """The stop goes on. `status`: the last that the agent has sent; None if that is not known."""
        self._status = self._status if status is None else status
        self.changed = True

    def agent_left(self, how: str) -> None:
        """The agent has ended, and left others behind."""
        self._exit, self.changed = how, True

    def add(self, event: str, text: str) -> None:
        """Add the line of an event that says what went wrong."""
        self._is_escalated = self._is_escalated or event in ESCALATED
        _append(self._events, text)
        self.changed = True

    def report_begins(self) -> None:
        """A new stall report replaces the former one."""
        self._report = []

    def report_line(self, line: str) -> None:
        """Add a line of a stall report. The file is written when the report is complete."""
        _append(self._report, line)

    def write(self, running: "Callable[[], str]") -> str:
        """Write it while the stop goes on. Return why that failed, or nothing.

        `running` returns as text what is still running. It is not called where there is no file.
        """
        self.changed = False
        if self._request is None or not self._settings.has_termination_log:
            return ""
        since, requested_by = self._request
        parts = [f"stopping since {since}{f', requested by {requested_by}' if requested_by else ''}"]
        if self._exit:
            parts.append(f"the agent {self._exit}")
        seconds = int(time.monotonic() - self._begun_at)
        parts.append(f"{f'after {seconds}s ' if seconds else ''}{running()}")
        if self._waits and requested_by:
            parts.append(self._waits)
        if self._status:
            parts.append(f'last status: "{self._status}"')
        self._file.write(["; ".join(parts), *self._events, *self._report])
        return self._file.error

    def end(self, text: str, facts: "dict[str, Any]") -> str:
        """Write it for the last time, or remove it; `text` and `facts`: of the last line of the log."""
        self.changed = False
        if not self._explains(facts):
            self._file.write(())
            return self._file.error
        lines = [text]
        if self._request is not None and self._request[1]:
            lines.append(f"stop requested at {self._request[0]} by {self._request[1]}")
        self._file.write([*lines, *self._events, *self._report])
        return self._file.error

    def _explains(self, facts: "dict[str, Any]") -> bool:
        """Whether it explains this end."""
        ending = facts["ending"]
        if ending is not None and ending.oom_kills:
            return True
        forwarded = facts["cause"] == "signal" and ending.kill_forwarded
        unknown = facts["hung"] or facts.get("cut") or facts["cause"] in UNKNOWN_TO_PLATFORM or forwarded
        return bool(facts["code"]) and (unknown or ending is None or self._is_escalated)


def _append(lines: list[str], line: str) -> None:
    """Add a line, if any of it could be written."""
    if sum(map(len, lines)) < MAX_BYTES:
        lines.append(line)


def _time_of_day() -> str:
    """Return the time as `12:03:04 UTC`; clocks of containers are set to UTC."""
    seconds = int(time.time()) % 86400
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02} UTC"

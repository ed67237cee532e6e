"""Keeps what comes in during a run, also in files: the agent's lines, agent-init's records, and events."""

from __future__ import annotations

import dataclasses
import json
import time
from collections import deque
from typing import TYPE_CHECKING

from . import records
from .model import Event

if TYPE_CHECKING:
    from pathlib import Path

    from .records import Line, Record
    from .up import Signs

MAX_LINES = 100_000  # that are kept to be judged: the last ones
# Records that are events of a run, and of which kind.
EVENT_KINDS = {"deadline": "deadline", "linger-over": "kill", "escalated": "signal", "interrupted": "signal"}
SENT = tuple("stop-requested looked-through handles-by-now last-term wrapper-stays held-back forwarded".split())
EVENT_KINDS |= dict.fromkeys(SENT, "signal")
EVENT_KINDS |= dict.fromkeys(("lingering", "wrapper-left", "stop-repeated", "left-to-others", "shielded"), "note")


class Journal:
    """What was taken in of one run so far.

    `lines`: of the agent. `grace`: in seconds, as agent-init has logged it; None: there is no deadline, or it has not
    logged it yet. `work_begun`: the work has printed what was awaited.
    """

    def __init__(self, folder: Path, signs: Signs, work_up: str) -> None:
        """Open output.log, events.jsonl and work.log in the folder. Raises OSError.

        `signs`: of the agent's start; what a line or a record shows is added to them. `work_up`: the text that is
        awaited of the work; any line has an empty one.
        """
        self.lines: deque[Line] = deque(maxlen=MAX_LINES)
        self.records: list[Record] = []
        self.events: list[Event] = []
        self.grace: float | None = None
        self.work_begun = False
        self._signs, self._work_up = signs, work_up
        self._output = (folder / "output.log").open("w", encoding="utf-8", errors="backslashreplace")
        self._log = (folder / "events.jsonl").open("w", encoding="utf-8")
        self._work_log = (folder / "work.log").open("w", encoding="utf-8", errors="backslashreplace")

    def close(self) -> None:
        """Close the files. Raises OSError: the disk may be full."""
        for file in (self._output, self._log, self._work_log):
            file.close()

    def add_line(self, line: Line) -> None:
        """Take in a line of the agent, of agent-init or of the work."""
        if line.stream == "work":
            self.work_begun = self.work_begun or self._work_up in line.text
            self._work_log.write(f"{self.seconds(line.at):9.3f} {line.text}\n")
            return
        rest, record = records.split(line) if line.stream == "err" else (line, None)
        if record is not None:
            self._add_record(record)
        if rest is not None:
            self.lines.append(rest)
            if self._signs.up_at is None:
                self._signs.texts.append((rest.at, rest.text))
            self._signs.active_at = rest.at
            self._output.write(f"{self.seconds(rest.at):9.3f} {rest.stream} {rest.text}\n")

    def _add_record(self, record: Record) -> None:
        self.records.append(record)
        self._log.write(json.dumps(record.fields) + "\n")
        if record.event == "started":
            grace = record.fields.get("grace")
            self.grace = float(grace) if isinstance(grace, int | float) else None
        elif record.event == "ready":
            self._signs.ready_at = record.at
        if kind := EVENT_KINDS.get(record.event):
            self.add_event(kind, record.message, record.at)

    def add_event(self, kind: str, text: str, at: float | None = None, pid: int | None = None) -> None:
        """Add something that happened. `kind`, `text`, `pid`: as `Event` has them. `at`: None is now."""
        event = Event(self.seconds(time.monotonic() if at is None else at), kind, text, pid)
        self.events.append(event)
        self._log.write(json.dumps(dataclasses.asdict(event)) + "\n")

    def record(self, event: str) -> Record | None:
        """Return agent-init's first record of this event; None: there is none yet."""
        return next((record for record in self.records if record.event == event), None)

    def seconds(self, at: float) -> float:
        """Return a time by the monotonic clock as seconds since the agent's start, to the millisecond."""
        return round(max(0.0, at - self._signs.started), 3)

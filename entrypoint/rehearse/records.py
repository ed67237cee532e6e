"""The two kinds of lines in a run's output: those of the agent, and agent-init's own records (docs/log.md)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

# agent-init writes each record with one write(2), with these keys first. The agent may have left an unfinished line.
BEGINNING = '{"time": "'
KEYS = ["time", "level", "severity", "event", "message"]
NULLS = "\0"  # what the rehearsal itself fills a pipe with


@dataclass(frozen=True)
class Line:
    """A line of output, without its end. `at`: when it came, by the monotonic clock."""

    at: float
    stream: str  # "out", "err", or "work"
    text: str


@dataclass(frozen=True)
class Record:
    """A record of agent-init's log."""

    at: float  # when it came, by the monotonic clock
    event: str
    message: str
    fields: dict[str, Any] = field(default_factory=dict)

    def texts(self, name: str) -> tuple[str, ...]:
        """Return the field with this name, if it is a list of texts; else nothing."""
        value = self.fields.get(name)
        return tuple(map(str, value)) if isinstance(value, list) else ()


def split(line: Line) -> tuple[Line | None, Record | None]:
    """Return what the agent has written of a line of stderr, and the record of agent-init's in it."""
    start = line.text.find(BEGINNING)
    if start < 0:
        return line, None
    try:
        found = json.loads(line.text[start:])
    except ValueError:
        return line, None
    if not isinstance(found, dict) or list(found)[: len(KEYS)] != KEYS:
        return line, None
    record = Record(line.at, str(found["event"]), str(found["message"]), found)
    return (Line(line.at, line.stream, line.text[:start]) if start else None), record

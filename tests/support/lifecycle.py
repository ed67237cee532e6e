"""Helpers for tests of the state machine: make one, let time pass, and sort its actions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from entrypoint import settings as reader
from entrypoint.init import planning
from entrypoint.init.actions import Action, Log
from entrypoint.init.exit_status import Ending
from entrypoint.init.lifecycle import Lifecycle

if TYPE_CHECKING:
    from entrypoint.init.cgroup import Memory


def make(*flags: str, environment: dict[str, str] | None = None, now: float = 0.0) -> Lifecycle:
    """Return the life of an agent started at `now` with these options, on no platform but the environment's."""
    settings = reader.read([*flags, "agent"], environment or {})
    return Lifecycle(settings, planning.make(settings, environment or {}, lambda _path: False), now)


class OomKills:
    """Stands for the container's memory, of which an Ending reads these: bytes, and a count since the start."""

    def __init__(self, new_kills: int | None, limit: int | None = None, peak: int | None = None) -> None:
        self.new_kills, self.limit, self.peak = new_kills, limit, peak


def exited(code: int, memory: OomKills | None = None) -> Ending:
    """Return the ending of an agent that exited with this code."""
    return Ending(code << 8, _as_memory(memory))


def killed(number: int = 9, memory: OomKills | None = None, *, kill_forwarded: bool = False) -> Ending:
    """Return the ending of an agent that this signal killed."""
    return Ending(number, _as_memory(memory), kill_forwarded=kill_forwarded)


def _as_memory(memory: OomKills | None) -> Memory | None:
    return memory  # type: ignore[return-value]


def run_until(life: Lifecycle, end: float) -> list[tuple[float, Action]]:
    """Tick whenever a timer is due, up to `end`; return the actions, each with its time."""
    done = []
    while life.due <= end:
        now = life.due
        done += [(now, action) for action in life.tick(now)]
    return done


def without_logs(actions: list[Action]) -> list[Action]:
    """Return the actions that are more than a log entry."""
    return [action for action in actions if not isinstance(action, Log)]


def kinds(actions: list[Action]) -> list[str]:
    """Return the class names of the actions that are more than a log entry."""
    return [type(action).__name__ for action in without_logs(actions)]


def logs(actions: list[Action]) -> list[Log]:
    """Return the log entries."""
    return [action for action in actions if isinstance(action, Log)]


def events(actions: list[Action]) -> list[str]:
    """Return the names of the events that are logged."""
    return [log.event for log in logs(actions)]


def facts(actions: list[Action]) -> dict[str, Any]:
    """Return the facts of the only log entry."""
    [log] = logs(actions)
    return log.facts

"""The state machine by itself: one to try, and what it wants done."""

from __future__ import annotations

from entrypoint import settings as reader
from entrypoint.init import stop_plan as plan
from entrypoint.init.lifecycle import Action, Lifecycle, Say


def make(*flags: str, environment: dict[str, str] | None = None) -> Lifecycle:
    """That of an agent started at 0.0 with these options, on no platform but the environment's."""
    settings = reader.read([*flags, "agent"], environment or {})
    return Lifecycle(settings, plan.make(settings, environment or {}, lambda _path: False), 0.0)


def run_until(life: Lifecycle, end: float) -> list[tuple[float, Action]]:
    """Tick whenever something is due, up to `end`."""
    done = []
    while life.due <= end:
        now = life.due
        done += [(now, action) for action in life.tick(now)]
    return done


def done(actions: list[Action]) -> list[Action]:
    """All but what is said."""
    return [action for action in actions if not isinstance(action, Say)]


def kinds(actions: list[Action]) -> list[str]:
    return [type(action).__name__ for action in done(actions)]


def said(actions: list[Action]) -> list[str]:
    """The events that are told."""
    return [action.event for action in actions if isinstance(action, Say)]


def text(actions: list[Action]) -> str:
    """Of the only line."""
    [line] = [action.text for action in actions if isinstance(action, Say)]
    return line

"""The trials, by kind: a module for each, with a list `TRIALS`. Its docstring's first line goes into docs/field.md."""

from __future__ import annotations

from types import ModuleType

from tests.field.trial import Trial
from tests.field.trials import (
    agents,
    around,
    exits_first,
    forwards,
    helpers,
    look_through,
    notify,
    pumps,
    relays,
    sandboxes,
    stays,
    stop_signal,
)
from tests.field.wrappers import WRAPPERS

KINDS: dict[str, tuple[str, ModuleType]] = {
    "stop_signal": ("The stop signal", stop_signal),
    "exits_first": ("Wrappers that exit first", exits_first),
    "forwards": ("Forwarders that exit first", forwards),
    "look_through": ("Wrappers that catch the signal", look_through),
    "stays": ("Wrappers that stay", stays),
    "relays": ("Relays", relays),
    "pumps": ("Launchers that read the agent's output", pumps),
    "helpers": ("Helpers", helpers),
    "notify": ("The notify socket", notify),
    "sandboxes": ("Sandboxes", sandboxes),
    "around": ("Before and around the agent", around),
    "agents": ("What agents do themselves", agents),
}


def about(kind: str) -> str:
    """What the trials of this kind have in common."""
    return str(KINDS[kind][1].__doc__).splitlines()[0]


def of(kind: str) -> list[Trial]:
    trials: list[Trial] = KINDS[kind][1].TRIALS
    return trials


ALL: dict[str, Trial] = {f"{kind}: {trial.name}": trial for kind in KINDS for trial in of(kind)}

# The agent behind each wrapper: the same stop for all of them.
WRAPPED: dict[str, Trial] = {f"wrapper: {name}": wrapper.trial for name, wrapper in WRAPPERS.items()}

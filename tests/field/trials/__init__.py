"""The trials, by kind. Each module has its kind's heading as its docstring's first line, and `TRIALS`."""

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
    relays,
    sandboxes,
    stays,
    stop_signal,
)

KINDS: dict[str, ModuleType] = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        stop_signal, exits_first, forwards, look_through, stays, relays, helpers, notify, sandboxes, around, agents,
    )
}  # fmt: skip


def heading(kind: str) -> str:
    return str(KINDS[kind].__doc__).splitlines()[0]


def of(kind: str) -> list[Trial]:
    trials: list[Trial] = KINDS[kind].TRIALS
    return trials


ALL: dict[str, Trial] = {f"{kind}: {trial.name}": trial for kind in KINDS for trial in of(kind)}

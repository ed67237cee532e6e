"""What the pytest plug-in runs, and what a test gets from it. `agent_init_pytest.py` is what pytest itself loads."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import units
from . import rehearsal, scenarios, summary, table, up
from .advice import lost
from .model import Advice, Rehearsal, Run, Verdict
from .options import MAX_COUNT, Options
from .text import printable, shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WIDTH = 100
REPR = 230  # columns; pytest cuts off more


@dataclass(frozen=True, repr=False)
class Rehearsed:
    """A rehearsal, for assertions. Scenarios that no agent can win count in `runs` alone."""

    result: Rehearsal

    @property
    def runs(self) -> tuple[Run, ...]:
        """Every run, with what was seen of it."""
        return self.result.runs

    @property
    def advice(self) -> tuple[Advice, ...]:
        """What to write, and where."""
        return self.result.advice

    @property
    def judged(self) -> tuple[Run, ...]:
        """The runs that count: of scenarios that an agent can win, and that could be tried."""
        return tuple(run for run in self.runs if run.scenario.counts and run.verdict in (Verdict.HELD, Verdict.LOST))

    @property
    def held(self) -> bool:
        """Whether all of these held. False if there is none."""
        return bool(self.judged) and self.result.held

    @property
    def kept_all_work(self) -> bool:
        """Whether each of these kept its work: with `work`, as it reports; at least, none was killed or left any.

        What an agent owes nobody, such as work whose dependency is gone, does not count. False if no work
        was in hand at any stop request.
        """
        if self.result.work is not None and all(run.work_kept is None for run in self.judged):
            return False
        return bool(self.judged) and not any(lost(run) for run in self.judged)

    @property
    def ended_by_itself(self) -> bool:
        """Whether none of these was killed."""
        return bool(self.judged) and not any(run.killed for run in self.judged)

    @property
    def longest_drain(self) -> float:
        """The longest time of these from the stop request to the end, in seconds; infinity if none has ended.

        Also of those that were killed; not of scenarios that hold up the drain themselves, or cut it.
        """
        longest = summary.longest_drain(run for run in self.judged if run.scenario.measures)
        return math.inf if longest is None else longest

    def __str__(self) -> str:
        """Return the table of `agent-initctl rehearse`."""
        return table.render(self.result, WIDTH)

    def __repr__(self) -> str:
        """Return it in short: pytest shows it in the message of an assertion."""
        command = shorten(printable(shlex.join(self.result.command)), 60)
        return shorten(f"<rehearsal of {command}: {summary.sentence(self.result)}", REPR - 1) + ">"


class Silent:
    """A progress that nobody watches."""

    def begins(self, runs: int, folder: Path) -> None:
        """Do nothing."""

    def run_begins(self, title: str) -> None:
        """Do nothing."""

    def run_ends(self, run: Run) -> None:
        """Do nothing."""


def rehearse(command: str | Sequence[str], **given: Any) -> Rehearsed:
    """Rehearse the stop of an agent. Raises ValueError for what is not accepted, RuntimeError if it cannot be done."""
    argv = shlex.split(command) if isinstance(command, str) else [str(word) for word in command]
    if not argv:
        raise ValueError("no command; accepted: a line such as 'python agent.py', or its words")
    options = _options(given)
    try:
        return Rehearsed(rehearsal.rehearse(argv, options, Silent()))
    except rehearsal.Failure as failure:
        raise RuntimeError(str(failure)) from None


def _options(given: dict[str, Any]) -> Options:
    """Return the options, from values or from the texts that the command takes."""
    unknown = [name for name in given if name not in ACCEPTED]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is not an option; accepted: {', '.join(ACCEPTED)}")
    values = {}
    for name, value in given.items():
        target, convert = ACCEPTED[name]
        if value is not None:
            try:
                values[target] = convert(value)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{name}={value!r}: {error}") from None
    return Options(**values)


def _seconds(value: object) -> float:
    seconds = units.parse_duration(value) if isinstance(value, str) else float(value)  # type: ignore[arg-type]
    if not 0 < seconds < units.INFINITY:
        raise ValueError("accepted: a finite time above 0, in seconds or such as 25s")
    return seconds


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("accepted: a command line")
    return value


def _count(value: object) -> int:
    if type(value) is not int or not 0 < value <= MAX_COUNT:
        raise TypeError(f"accepted: a number from 1 to {MAX_COUNT}")
    return value


def _seed(value: object) -> int:
    if type(value) is not int or value < 0:
        raise TypeError("accepted: a number from 0")
    return value


def _ways(value: object) -> tuple[scenarios.Way, ...]:
    return scenarios.parse(value if isinstance(value, str) else ",".join(value))  # type: ignore[arg-type]


def _path(value: object) -> Path:
    return Path(value)  # type: ignore[arg-type]


# The options by the names of the command's, with the field of `Options`, and how a value becomes one.
ACCEPTED: dict[str, tuple[str, Callable[[object], Any]]] = {
    "up": ("up", lambda value: up.parse(_text(value))),
    "work": ("work", _text),
    "break_": ("break_dependency", _text),
    "mend": ("mend", _text),
    "scenarios": ("ways", _ways),
    "runs": ("runs", _count),
    "parallel": ("parallel", _count),
    "seed": ("seed", _seed),
    "grace": ("grace", _seconds),
    "up_timeout": ("up_timeout", _seconds),
    "work_timeout": ("work_timeout", _seconds),
    "keep": ("keep", _path),
    "stdin": ("keep_stdin", bool),
    "no_namespace": ("subreaper", bool),
}

"""The ways in which platforms stop an agent, as data: what is sent and when, what is done before, what is judged."""

from __future__ import annotations

import shlex
import signal
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from .. import units
from .model import Scenario

if TYPE_CHECKING:
    from collections.abc import Sequence

TERM, INT, HUP = signal.SIGTERM, signal.SIGINT, signal.SIGHUP
EARLY_SHARES = (0.05, 0.15, 0.30, 0.50)  # of the time that a start takes


class Before(StrEnum):
    """What is done just before the stop request."""

    NOTHING = ""
    KILL_CHILD = "child"
    STOP_READING = "reader"  # of stdout
    BREAK = "break"  # run --break
    TAKE_MEMORY = "memory"


class Judged(StrEnum):
    """What counts against an agent, beside that it was killed or left processes behind."""

    WORK = "work"
    EXIT_CODE = "exit code"
    TRACEBACKS = "tracebacks"


EVERYTHING = frozenset(Judged)


@dataclass(frozen=True)
class Way:
    """One scenario, and how it is played.

    `signals`: to agent-init, each with the seconds after the request. `shell`: the line that `sh -c` runs. `options`:
    more options of agent-init. `grace_share`: of the drain that was measured, as the grace.
    """

    scenario: Scenario
    signals: tuple[tuple[float, int], ...] = ((0.0, TERM),)
    to_all: bool = False
    early: bool = False
    before: Before = Before.NOTHING
    judged: frozenset[Judged] = EVERYTHING
    shell: str = ""
    grace_share: float | None = None
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As `--scenarios` takes it."""
        return self.scenario.name

    def command(self, command: Sequence[str]) -> tuple[str, ...]:
        """Return the command to run for the agent's."""
        return ("sh", "-c", self.shell.format(shlex.join(command))) if self.shell else tuple(command)


def _way(name: str, title: str, like: str, *, counts: bool = True, measures: bool = True, **more: object) -> Way:
    return Way(Scenario(name, title, like, counts, measures), **more)  # type: ignore[arg-type]


TERM_ONCE = _way("term", "TERM", "docker stop, a Kubernetes rollout, ECS, Cloud Run")

# A dead child or a dependency that is gone is a reason for errors, for an exit code, and for lost work. What an agent
# owes nobody but itself is to end.
ONLY_THE_END: frozenset[Judged] = frozenset()

WAYS: tuple[Way, ...] = (
    TERM_ONCE,
    _way("int", "INT", "STOPSIGNAL SIGINT, Modal, Nomad's exec drivers", signals=((0.0, INT),)),
    _way(
        "term-twice",
        "TERM twice, 1 s apart",
        "a container runtime that was restarted during the stop",
        signals=((0.0, TERM), (1.0, TERM)),
    ),
    _way("term-to-all", "TERM to every process", "Heroku, systemd's KillMode=control-group", counts=False, to_all=True),
    _way(
        "early",
        "TERM before it is up",
        "a rollout that is cancelled",
        measures=False,
        early=True,
        judged=frozenset((Judged.TRACEBACKS,)),
    ),
    _way("hup", "HUP", "a terminal that is closed", signals=((0.0, HUP),)),
    _way(
        "kill-child",
        "KILL of a child, then TERM",
        "the OOM killer, a crash in native code",
        before=Before.KILL_CHILD,
        judged=ONLY_THE_END,
    ),
    _way(
        "grace-too-short",
        "TERM, half the time it needs",
        "a platform's default",
        counts=False,
        measures=False,
        grace_share=0.5,
    ),
    _way(
        "stdout-full",
        "TERM while nobody reads stdout",
        "a log driver or collector that is stuck for seconds",
        measures=False,
        before=Before.STOP_READING,
    ),
    _way(
        "dependency-gone",
        "TERM while a dependency is gone",
        "a database or broker that is stopped first (docker compose down)",
        before=Before.BREAK,
        judged=ONLY_THE_END,
    ),
    _way(
        "oom",
        "TERM, then no memory",
        "a memory limit that the drain exceeds",
        counts=False,
        measures=False,
        before=Before.TAKE_MEMORY,
        judged=ONLY_THE_END,
    ),
    _way("sh-c", "TERM, behind sh -c", "the shell form of CMD", shell="{}"),
    _way("sh-c-stays", "TERM, behind a shell that stays", "an entrypoint script without exec", shell="{}; exit $?"),
)
NAMES = {way.name: way for way in WAYS}

STOP_SIGNAL, GRACE, STOP_DELAY = "--stop-signal", "--grace", "--stop-delay"


def retries(grace: float | None, *, killed: bool) -> tuple[Way, ...]:
    """Return a plain TERM with other options, to be tried where the defaults have lost something: the best ones first.

    `grace`: of the other runs, in seconds. `killed`: the agent was; a later signal would not help it.
    """
    # INT may end an agent in the middle of the drain for which it had too little time: the time comes first.
    tried = [] if grace is None else [(GRACE, units.format_duration(2 * grace))]
    tried.append((STOP_SIGNAL, "INT"))
    if not killed:
        tried.append((STOP_DELAY, "3s"))
    return tuple(_retry(*options) for options in tried)


def _retry(*options: str) -> Way:
    text = " ".join(options)
    return _way(
        f"term {text}", f"TERM, with {text}", "tried, as TERM has lost something", counts=False, options=options
    )


@dataclass(frozen=True)
class Planned:
    """One run to be done. `share`: of the start, where the stop comes early."""

    way: Way
    number: int
    share: float | None = None
    reason: str = ""  # why it cannot be done


def parse(text: str) -> tuple[Way, ...]:
    """`term,hup` -> these two, in the order of the table. Raises ValueError, which names what is accepted."""
    wanted = [name for name in text.split(",") if name]
    unknown = [name for name in wanted if name not in NAMES]
    if unknown or not wanted:
        what = f"{unknown[0]!r} is not a scenario" if unknown else f"{text!r} names no scenario"
        raise ValueError(f"{what}; accepted: {', '.join(NAMES)}, separated by commas")
    return tuple(way for way in WAYS if way.name in wanted)

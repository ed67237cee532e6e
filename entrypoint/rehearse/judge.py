"""From what was seen of a run to its verdict. Pure: no clock, no process, no file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import signals, units
from . import broken
from .model import BrokenLine, Verdict
from .scenarios import INT, ONLY_THE_END, TERM, Judged, Way

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .records import Line, Record

DEADLINE, LINGER_OVER, REPORT, ENDED = "deadline", "linger-over", "report", "ended"
KILLS = frozenset((DEADLINE, LINGER_OVER))
MAX_NAMED = 4


@dataclass(frozen=True)
class Facts:
    """What was seen of a run. Times by the monotonic clock; None: it did not happen.

    `sent`: the signals that agent-init was sent. `work_code`: the exit code of --work; None
    without one. `work_cut`: it had not ended in time. `given_up`: the rehearsal's own patience was over. `skipped`: why
    it was not done. `problem`: why the agent was not stopped, as it should have been.
    `goes_on`: the signal requested no stop, so the agent reloads or restarts when TERM comes after it.
    """

    way: Way
    started: float
    requested: float | None
    ended: float | None
    exit_code: int | None
    lines: Sequence[Line] = ()
    records: Sequence[Record] = ()
    sent: frozenset[int] = frozenset()
    work_code: int | None = None
    work_cut: bool = False
    given_up: bool = False
    skipped: str = ""
    problem: str = ""
    goes_on: bool = False


@dataclass(frozen=True)
class Judgement:
    """The part of a `Run` that is concluded."""

    verdict: Verdict
    reasons: tuple[str, ...]
    killed: bool
    work_kept: bool | None
    left_over: tuple[str, ...]
    held_up_by: str | None
    broken_lines: tuple[BrokenLine, ...]
    interrupted: bool


def judge(facts: Facts) -> Judgement:
    """Return the verdict on a run, with its reasons."""
    what = ONLY_THE_END if facts.goes_on else facts.way.judged
    left_over = _left_over(facts.records)
    killed = facts.given_up or (not left_over and any(record.event == DEADLINE for record in facts.records))
    lines = _broken_lines(facts, what)
    work_kept = None if facts.work_code is None and not facts.work_cut else facts.work_code == 0 and not facts.work_cut
    reasons = [
        *([facts.problem] if facts.problem else ()),
        *(_reasons_of_end(facts) if killed else ()),
        *([f"left {_named(left_over)} behind, killed after the linger time"] if left_over else ()),
        *(_reasons_of_work(facts) if Judged.WORK in what else ()),
        *_reasons_of_lines(lines),
        *(_reasons_of_code(facts) if not killed and Judged.EXIT_CODE in what else ()),
    ]
    if facts.skipped:
        verdict, reasons = Verdict.SKIPPED, [facts.skipped]
    elif not facts.way.scenario.counts:
        verdict = Verdict.INFORMATIONAL
    else:
        verdict = Verdict.LOST if reasons else Verdict.HELD
    held_up_by = _held_up_by(facts.records) if killed else None
    interrupted = any(record.event == ENDED and record.fields.get("by_int") is True for record in facts.records)
    return Judgement(verdict, tuple(reasons), killed, work_kept, left_over, held_up_by, lines, interrupted)


def _left_over(records: Sequence[Record]) -> tuple[str, ...]:
    """Return what had to be killed after the agent itself had exited.

    What ends by itself then, or at the signal that it gets, is no loss: agent-init waits for it.
    """
    exited = False
    for record in records:
        exited = exited or record.event in ("lingering", "older-left")
        if exited and record.event in KILLS:
            return record.texts("processes")
    return ()


def _reasons_of_end(facts: Facts) -> list[str]:
    if facts.given_up:
        return ["was still there long after the deadline, and the rehearsal has killed it"]
    for record in facts.records:
        if record.event == DEADLINE:
            after = units.format_duration(round(record.at - (facts.requested or record.at), 1))
            running = record.texts("processes")
            still = f"; still running: {_named(running)}" if running else ""
            return [f"killed at the deadline, {after} after the stop request{still}"]
    return []


def _reasons_of_work(facts: Facts) -> list[str]:
    if facts.work_cut:
        return ["the work had not ended some time after the agent, and was ended"]
    return [f"the work failed, with exit code {facts.work_code}"] if facts.work_code else []


def _reasons_of_lines(lines: Sequence[BrokenLine]) -> list[str]:
    if not lines:
        return []
    first, more = lines[0], len(lines) - 1
    others = f", and {more} more line{'s' if more > 1 else ''}" if more else ""
    return [f'printed "{first.line[:160]}" after the stop request{others}']


def _reasons_of_code(facts: Facts) -> list[str]:
    code = facts.exit_code
    if code is None or code in {0, *(128 + number for number in facts.sent | {TERM, INT})}:
        return []
    if code > 128 and (code - 128) in signals.VALID:
        return [f"ended by {signals.name_of(code - 128)} (exit code {code})"]
    return [f"exited with code {code}"]


def _broken_lines(facts: Facts, judged: frozenset[Judged]) -> tuple[BrokenLine, ...]:
    if facts.requested is None:
        return ()
    found = broken.find(facts.lines, facts.requested, facts.started)
    if Judged.TRACEBACKS in judged:
        return found
    return tuple(line for line in found if line.rule not in broken.OF_ERRORS)


def _held_up_by(records: Sequence[Record]) -> str | None:
    """Return the first line of the stall report, without its beginning."""
    found = next((record.message for record in records if record.event == REPORT), None)
    return None if found is None else found.removeprefix("report: ")


def _named(processes: Sequence[str]) -> str:
    more = len(processes) - MAX_NAMED
    return ", ".join(processes[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")

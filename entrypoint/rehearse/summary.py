"""What the runs of a scenario have in common, and what all of them come to: for each of the outputs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from ..units import format_duration
from .model import Advice, Rehearsal, Run, Scenario, Verdict
from .text import plural, printable

if TYPE_CHECKING:
    from collections.abc import Iterable

NOTHING = "-"
REASONS = 3  # different ones for each scenario
BROKEN_LINES = 3  # for each of these


@dataclass(frozen=True)
class Row:
    """A scenario in the table. The texts are safe to print, and short."""

    scenario: Scenario
    runs: tuple[Run, ...]
    verdict: Verdict  # of all runs: LOST if one was, SKIPPED if all were
    title: str
    ended: str  # "by itself", "killed", "killed 2/5"
    drain: str  # "1.2s"; the median and the longest of several: "1.2/3s"
    exit_code: str  # "0", "0,143"
    work: str  # "kept", "lost", "lost 2/5"
    left_over: str  # the number of processes, the highest of several runs
    outcome: str  # "held", "LOST", "LOST 2/5", "info", "skipped"

    @property
    def fields(self) -> tuple[str, ...]:
        """What follows the title, in the order of `HEADINGS`."""
        return (self.ended, self.drain, self.exit_code, self.work, self.left_over, self.outcome)


HEADINGS = ("ended", "drain", "exit", "work", "left", "verdict")


def rows(rehearsal: Rehearsal) -> list[Row]:
    """Return a row for each scenario, in the order of their first runs."""
    return [row(scenario, rehearsal.of(scenario)) for scenario in rehearsal.scenarios]


def row(scenario: Scenario, runs: tuple[Run, ...]) -> Row:
    """Return the row for a scenario."""
    tried = [run for run in runs if run.verdict is not Verdict.SKIPPED]
    ended = [run for run in tried if run.killed or run.end_at is not None]
    worked = [run for run in tried if run.work_kept is not None]
    drains = [run.drain for run in tried if run.drain is not None]
    codes = Counter(run.exit_code for run in tried if run.exit_code is not None)
    left = max((len(run.left_over) for run in ended), default=None)
    verdict = _verdict(scenario, runs)
    return Row(
        scenario=scenario,
        runs=runs,
        verdict=verdict,
        title=printable(scenario.title) or printable(scenario.name),
        ended=_share("killed", sum(run.killed for run in ended), len(ended), "by itself"),
        drain=_drain(drains),
        exit_code=",".join(str(code) for code, _ in codes.most_common(3)) or NOTHING,
        work=_share("lost", sum(not run.work_kept for run in worked), len(worked), "kept"),
        left_over=NOTHING if left is None else str(left),
        outcome=_outcome(verdict, runs),
    )


def _share(word: str, number: int, of: int, otherwise: str) -> str:
    """Return the word with how many it is true of, or the other word if it is true of none."""
    if not of:
        return NOTHING
    if not number:
        return otherwise
    return word if number == of else f"{word} {number}/{of}"


def _drain(drains: list[float]) -> str:
    if not drains:
        return NOTHING
    if len(drains) == 1:
        return seconds(drains[0])
    return f"{_number(median(drains))}/{_number(max(drains))}s"


def _number(drain: float) -> str:
    return f"{round(drain, 2):.3g}" if drain < 999 else str(round(drain))


def seconds(drain: float) -> str:
    """Return a drain for people, to a hundredth of a second: what is finer differs from run to run."""
    return format_duration(round(drain, 2))


def _verdict(scenario: Scenario, runs: tuple[Run, ...]) -> Verdict:
    seen = {run.verdict for run in runs}
    if seen == {Verdict.SKIPPED}:
        return Verdict.SKIPPED
    if not scenario.counts:
        return Verdict.INFORMATIONAL
    return next((verdict for verdict in (Verdict.LOST, Verdict.HELD) if verdict in seen), Verdict.INFORMATIONAL)


def _outcome(verdict: Verdict, runs: tuple[Run, ...]) -> str:
    if verdict is Verdict.LOST:
        return _share("LOST", sum(run.verdict is Verdict.LOST for run in runs), len(runs), "")
    return "info" if verdict is Verdict.INFORMATIONAL else verdict.value


def reasons(of: Row) -> list[str]:
    """Return why a scenario did not hold: the same reason of several runs once, with its number of runs."""
    failed = [run for run in of.runs if run.reasons or run.verdict is Verdict.LOST]
    counted = Counter(reason for run in failed for reason in dict.fromkeys(run.reasons))
    several = len(of.runs) > 1
    found = [
        f"{number} of {plural(len(of.runs), 'run')}: {printable(reason)}" if several else printable(reason)
        for reason, number in counted.most_common()
    ]
    if len(found) <= REASONS:
        return found
    return [*found[:REASONS], f"and {plural(len(found) - REASONS, 'other reason')}"]


def evidence(of: Row) -> list[str]:
    """Return what was seen in a scenario that did not hold: the stall report's top line, the broken log lines.

    From the first run that has them: the others mostly show the same. No line that a reason has quoted.
    """
    found = []
    lost = [run for run in of.runs if run.verdict is Verdict.LOST]
    stalled = next((run for run in lost if run.held_up_by), None)
    if stalled:
        found.append(f"held up by {printable(stalled.held_up_by or '')}")
    broken = next((run for run in lost if run.broken_lines), None)
    if broken:
        lines = [line for line in broken.broken_lines if not any(line.line in reason for reason in broken.reasons)]
        found += [
            f"log, {since_request(broken, line.seconds)}: {printable(line.line).strip()}"
            for line in lines[:BROKEN_LINES]
        ]
        more = len(lines) - BROKEN_LINES
        found += [f"and {plural(more, 'line')} like these"] if more > 0 else []
    return found


def since_request(run: Run, at: float) -> str:
    """Return a time of a run for people: `1.2s after the request`, or after the start where there was no request."""
    if run.request_at is None:
        return f"{seconds(at)} after the start"
    difference = at - run.request_at
    return f"{seconds(abs(difference))} {'before' if difference < 0 else 'after'} the request"


def sentence(rehearsal: Rehearsal) -> str:
    """Return the result in one sentence."""
    all_rows = rows(rehearsal)
    counting = [row for row in all_rows if row.scenario.counts and row.verdict is not Verdict.SKIPPED]
    lost = [row for row in counting if row.verdict is Verdict.LOST]
    skipped = sum(row.verdict is Verdict.SKIPPED for row in all_rows)
    measured = [run for row in counting for run in row.runs if row.scenario.measures and not run.killed]
    longest = longest_drain(measured)
    number = "the scenario that counts" if len(counting) == 1 else f"all {len(counting)} scenarios that count"
    if not counting:
        text = "Nothing was judged: no scenario that counts was run"
    elif lost:
        names = "; ".join(row.title for row in lost[:4]) + ("; ..." if len(lost) > 4 else "")
        of = number.replace("all ", f"{len(lost)} of ")
        text = f"Lost: {of} did not hold ({names})"
    else:
        text = f"Held: {number}"
    if longest is not None:
        text += f"; the longest drain was {seconds(longest)}"
    if skipped:
        text += f"; {skipped} skipped"
    return text + "."


def advice(rehearsal: Rehearsal) -> dict[str, list[Advice]]:
    """Return the lines to write, by where they go, in the order of the first of each."""
    grouped: dict[str, list[Advice]] = {}
    for line in rehearsal.advice:
        grouped.setdefault(line.where, []).append(line)
    return grouped


def longest_drain(runs: Iterable[Run]) -> float | None:
    """Return the seconds of the longest drain, or None if no run has one."""
    return max((run.drain for run in runs if run.drain is not None), default=None)

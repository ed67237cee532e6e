"""What is kept of a rehearsal: as much as the table shows, as JSON in `results/`."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from entrypoint.rehearse import advice, summary
from entrypoint.rehearse.model import Rehearsal, Run, Verdict
from entrypoint.rehearse.scenarios import INT, TERM, TERM_ONCE

RESULTS = Path(__file__).with_name("results")
SENT = re.compile(r"^([A-Z][A-Z0-9]*) sent to ")
OPTIONS = {variable: option for option, variable in advice.VARIABLES.items()}
SIGNAL_CODES = {128 + TERM, 128 + INT}  # `-e 143` turns both into 0, the second one where agent-init chose INT


@dataclass(frozen=True)
class Result:
    """A row's rehearsal. `lost`, `informational`: scenarios by name, each with the first reason; `drain`: seconds.

    `chosen`: the signal that agent-init chose for TERM, if it was another one. `ends_by_signal`: its exit code is 143,
    or 130.
    `line`: the options that keep what is lost without them; `lost_with_line` has what is lost nevertheless.
    """

    versions: tuple[str, ...]
    command: str
    date: str
    held: tuple[str, ...]
    lost: dict[str, str]
    informational: dict[str, str]
    skipped: dict[str, str]
    drain: float | None
    chosen: str = ""
    ends_by_signal: bool = False
    line: str = ""
    lost_with_line: dict[str, str] | None = None

    def write(self, name: str) -> None:
        """Keep it."""
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    def loses_more_than(self, before: Result) -> bool:
        """Whether a scenario is lost that was not before: without options, or with those of `line`."""
        with_line, with_line_before = self.lost_with_line or {}, before.lost_with_line or {}
        return bool(self.lost.keys() - before.lost.keys() or with_line.keys() - with_line_before.keys())


def read(name: str) -> Result | None:
    """Return the result of a row; None if there is none."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return None
    found = json.loads(path.read_text())
    return Result(**{**found, "versions": tuple(found["versions"]), "held": tuple(found["held"])})


def summarise(rehearsal: Rehearsal, versions: tuple[str, ...]) -> Result:
    """Return what is kept of a rehearsal."""
    verdicts: dict[Verdict, dict[str, str]] = {verdict: {} for verdict in Verdict}
    for row in summary.rows(rehearsal):
        reasons = (reason for run in row.runs for reason in run.reasons)
        verdicts[row.verdict][row.scenario.name] = next(reasons, "")
    measured = [run for run in rehearsal.runs if run.scenario.counts and run.scenario.measures and not run.killed]
    drain = summary.longest_drain(measured)
    return Result(
        versions=versions,
        command=" ".join(rehearsal.command),
        date=rehearsal.began[:10],
        held=tuple(verdicts[Verdict.HELD]),
        lost=verdicts[Verdict.LOST],
        informational=verdicts[Verdict.INFORMATIONAL],
        skipped=verdicts[Verdict.SKIPPED],
        drain=None if drain is None else round(drain, 1),
        chosen=_chosen(rehearsal),
        ends_by_signal=any(run.exit_code in SIGNAL_CODES for run in _plain(rehearsal)),
        line=options(variables_of(rehearsal)),
    )


def variables_of(rehearsal: Rehearsal) -> dict[str, str]:
    """Return the variables that the rehearsal advises where a plain TERM has lost something."""
    lines = [advised.line.partition("=") for advised in rehearsal.advice]
    return {name: value for name, _, value in lines if name in OPTIONS}


def options(variables: Mapping[str, str]) -> str:
    """Return variables of agent-init as options."""
    return " ".join(f"{OPTIONS[name]} {value}" for name, value in variables.items())


def _plain(rehearsal: Rehearsal) -> tuple[Run, ...]:
    """Return the runs with one TERM."""
    return rehearsal.of(TERM_ONCE.scenario)


def _chosen(rehearsal: Rehearsal) -> str:
    """Return the signal that agent-init sent in the place of TERM; an empty text if it sent TERM."""
    texts = [event.text for run in _plain(rehearsal) for event in run.events if event.kind == "signal"]
    sent = {found[1] for text in texts if (found := SENT.search(text))}
    return ", ".join(sorted(sent - {"TERM"}))


def with_line(without: Result, tried: Result) -> Result:
    """Return the result of a rehearsal, with what was lost and how the agent ended with the advised options."""
    return dataclasses.replace(
        without, lost_with_line=tried.lost, drain=tried.drain, ends_by_signal=tried.ends_by_signal
    )

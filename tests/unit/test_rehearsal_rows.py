"""The table in docs/agents.md is made of the results that are kept, and each row has its files."""

from __future__ import annotations

import re
import subprocess

import pytest

from entrypoint.rehearse import scenarios
from entrypoint.rehearse.model import Advice, Event, Rehearsal, Scenario, Verdict
from tests.rehearsals import __main__ as rehearsals
from tests.rehearsals import play, result, table
from tests.rehearsals.rows import QUICK, QUICK_SCENARIOS, REHEARSED, ROWS, Row
from tests.support.rehearsals import run

KEPT = {row: kept for row in REHEARSED.values() if (kept := result.read(row.name))}
SCRIPTS = pytest.mark.parametrize("row", REHEARSED.values(), ids=list(REHEARSED))


def test_page_has_the_table_of_the_results() -> None:
    assert table.written() == table.rendered()


def test_every_result_and_every_script_has_a_row() -> None:
    assert table.stale_results() == []
    assert table.scripts_without_a_row() == []
    assert len(REHEARSED) == len([row for row in ROWS if row.script])


def test_every_row_has_a_script_or_a_reason() -> None:
    assert [row.title for row in ROWS if bool(row.script) == bool(row.reason)] == []


@SCRIPTS
def test_scripts_files_are_there(row: Row) -> None:
    text = row.path.read_text()
    subprocess.run(["sh", "-n", row.path], check=True)
    named = re.findall(
        r"\b[\w-]+\.(?:py|mjs|sh)\b", text.replace("agent:app", "agent.py").replace("wsgi:app", "wsgi.py")
    )
    assert [name for name in named if not (row.path.parent / name).exists()] == []
    assert '"$@"' in text
    assert all("==" in first for first in row.requirements[:1]), "the first package has its version"


@pytest.mark.parametrize(("row", "kept"), KEPT.items(), ids=[row.name for row in KEPT])
def test_result_is_of_the_version_in_the_script(row: Row, kept: result.Result) -> None:
    if row.requirements:
        assert kept.versions == row.requirements
    tried = {name.partition(" --")[0] for name in (*kept.held, *kept.lost, *kept.informational, *kept.skipped)}
    assert tried <= set(scenarios.NAMES)
    assert not set(kept.held) & set(kept.lost)
    assert kept.command in " ".join(row.path.read_text().split())


def test_quick_share_is_a_share() -> None:
    assert set(QUICK) <= set(REHEARSED)
    assert len(scenarios.parse(QUICK_SCENARIOS)) == 3


def test_a_row_says_what_is_lost_and_what_keeps_it() -> None:
    kept = result.Result(
        versions=("waiter[fast]==1.0", "other"),
        command="waiter app",
        date="2026-11-26",
        held=("early",),
        lost={"term": "the work failed", "sh-c": "the work failed"},
        informational={"term-to-all": "the work failed"},
        skipped={},
        drain=2.04,
        ends_by_signal=True,
        line="--stop-signal INT",
        lost_with_line={"sh-c": "the work failed"},
    )
    assert table.cells("waiter", kept) == [
        "waiter",
        "waiter 1.0",
        "2026-11-26",
        "1 of 3",
        "`term`, `sh-c`",
        "lost",
        "2 s",
        "`agent-init --stop-signal INT -e 143 -- waiter app`; then lost: `sh-c`",
    ]


def rehearsal(verdict: Verdict = Verdict.HELD, exit_code: int = 0, signal: str = "TERM") -> Rehearsal:
    """A rehearsal of TERM, with an advice if it is lost. In others the agent was killed, or there was no drain."""
    reasons = () if verdict is Verdict.HELD else ("the work failed, with exit code 18", "printed a traceback")
    sent = (Event(2.0, "signal", f"{signal} sent to python (2)", 2),)
    other = Scenario("oom", "TERM, then no memory", "", counts=False)
    gone = Scenario("dependency-gone", "TERM while a dependency is gone", "", counts=True)
    return Rehearsal(
        command=("waiter", "app"),
        work="curl",
        up="tcp:8000",
        seed=1,
        runs=(
            run(scenarios.TERM_ONCE.scenario, verdict=verdict, reasons=reasons, exit_code=exit_code, events=sent),
            run(other, drain=9.0, verdict=Verdict.INFORMATIONAL),
            run(scenarios.NAMES["hup"].scenario, drain=30.0, verdict=Verdict.LOST, killed=True, reasons=("killed",)),
            run(gone, drain=None, verdict=Verdict.SKIPPED, reasons=("no --break CMD",)),
        ),
        advice=(
            Advice("Kubernetes", "terminationGracePeriodSeconds: 30", ""),
            *(() if verdict is Verdict.HELD else (Advice("environment", "AGENT_INIT_STOP_SIGNAL=INT", ""),)),
        ),
        began="2026-11-26T10:00:00Z",
    )


def test_what_is_kept_of_a_rehearsal() -> None:
    kept = result.summarise(rehearsal(Verdict.LOST), ("waiter==1.0",))
    assert kept == result.Result(
        versions=("waiter==1.0",),
        command="waiter app",
        date="2026-11-26",
        held=(),
        lost={"term": "the work failed, with exit code 18", "hup": "killed"},
        informational={"oom": ""},
        skipped={"dependency-gone": "no --break CMD"},
        drain=1.2,
        line="--stop-signal INT",
    )


@pytest.mark.parametrize(("exit_code", "signal"), [(143, "TERM"), (130, "INT")])
def test_an_agent_that_ends_by_the_signal_has_e_143_in_its_line(exit_code: int, signal: str) -> None:
    kept = result.summarise(rehearsal(exit_code=exit_code, signal=signal), ())
    assert table.cells("waiter", kept)[-1].startswith("`agent-init -e 143 -- waiter app`")
    assert kept.chosen == ("" if signal == "TERM" else signal)


def test_the_line_has_what_was_seen_with_its_options() -> None:
    without = result.summarise(rehearsal(Verdict.LOST), ())
    kept = result.with_line(without, result.summarise(rehearsal(exit_code=130), ()))
    line = "`agent-init --stop-signal INT -e 143 -- waiter app`; then lost: `hup`"
    assert table.cells("waiter", kept)[-1] == line


def test_a_loss_that_is_new_is_more_than_before() -> None:
    before = result.summarise(rehearsal(Verdict.LOST), ())
    held = result.with_line(before, result.summarise(rehearsal(), ()))
    lost = result.with_line(before, before)
    assert before.loses_more_than(result.summarise(rehearsal(), ()))
    assert lost.loses_more_than(held)
    assert not held.loses_more_than(lost)
    assert not lost.loses_more_than(lost)


def test_one_row_that_fails_does_not_keep_the_others_from_being_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def fail(row: Row, *_: str) -> Rehearsal:
        tried.append(row.name)
        raise play.Failed("no port")

    monkeypatch.setattr(play, "play", fail)
    monkeypatch.setattr(Row, "missing", lambda _: "")
    assert rehearsals.main([]) == 1
    assert tried == list(QUICK)


@pytest.mark.parametrize(("ci", "code"), [("true", 1), ("", 0)])
def test_on_ci_a_row_that_is_skipped_is_a_failure(monkeypatch: pytest.MonkeyPatch, ci: str, code: int) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(Row, "missing", lambda _: "redis-server")
    assert rehearsals.main([]) == code

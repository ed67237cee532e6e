"""The table in docs/agents.md is made of the results that are kept, and each row has its files."""

from __future__ import annotations

import re
import subprocess

import pytest

from entrypoint.rehearse import scenarios
from tests.rehearsals import result, table
from tests.rehearsals.rows import EXAMPLES, QUICK, QUICK_SCENARIOS, REHEARSED, ROWS, Row

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
    assert all("==" in row.requirements[0] for _ in row.requirements[:1]), "the first package has its version"


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
    assert (EXAMPLES / "README.md").exists()


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

"""docs/field.md and docs/wrappers.md have a row for each trial and wrapper; README quotes their sums.

`python -m tests.field.table` writes all three.
"""

from __future__ import annotations

from collections import Counter

import pytest

from tests.field import failing, table, trials
from tests.field.running import INITS
from tests.field.wrappers import WRAPPERS

Rows = dict[str, dict[str, str]]  # case to init to cell


def rows(text: str) -> Rows:
    """The rows of all tables, without those of the sums. The last columns are those of the inits."""
    found: Rows = {}
    kind = ""
    headings = {heading: name for name, (heading, _) in trials.KINDS.items()}
    for line in text.splitlines():
        if line.startswith("## "):
            kind = f"{headings[line.removeprefix('## ')]}: "
        cells = [cell.strip().replace("&#124;", "|") for cell in line.split("|")[1:-1]]
        if not cells or cells[0] in ("case", "wrapper", "---") or cells[0].startswith("**"):
            continue
        assert kind + cells[0] not in found
        found[kind + cells[0]] = dict(zip(INITS, cells[-len(INITS) :], strict=True))
    return found


def count(table: Rows) -> str:
    right = Counter(init for row in table.values() for init, cell in row.items() if cell == "right")
    return ", ".join(f"{init} {right[init]}" for init in INITS) + f", of {len(table)}"


FIELD = rows(table.FIELD_PAGE.read_text())
WRAPPED = rows(table.WRAPPER_PAGE.read_text())


def test_the_page_of_trials_lists_exactly_the_trials() -> None:
    assert list(FIELD) == list(trials.ALL)


def test_the_page_of_wrappers_lists_exactly_the_wrappers() -> None:
    assert list(WRAPPED) == list(WRAPPERS)


@pytest.mark.parametrize(
    ("found", "expected"), [(FIELD, failing.TRIALS), (WRAPPED, failing.WRAPPERS)], ids=["trials", "wrappers"]
)
def test_the_pages_and_the_tests_agree_on_what_fails(found: Rows, expected: dict[str, str]) -> None:
    ends_its_child = {name for name, wrapper in WRAPPERS.items() if wrapper.ends_its_child}
    wrong = {name for name, row in found.items() if row["agent-init"] != "right"}
    assert wrong - ends_its_child == set(expected)


def test_the_sums_are_those_of_the_rows() -> None:
    assert f"All cases: {count(FIELD)}." in table.FIELD_PAGE.read_text()
    assert f"Drained: {count(WRAPPED)}." in table.WRAPPER_PAGE.read_text()


def test_the_readme_quotes_the_sums() -> None:
    quoted = table.SUMS.search(table.README.read_text())
    assert quoted
    assert table.quoted(table.FIELD_PAGE.read_text(), table.WRAPPER_PAGE.read_text()) in quoted[0]

"""Each system call that process 1 makes is refused for good, by a seccomp filter: see `refused_calls`.

Here each pair of a call and an error is tried in one place of four, another one for the next pair;
`python -m tests.faults.refused_calls` tries all, and writes the table of docs/reliability.md.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.faults import refused_calls
from tests.faults.refused_calls import ERRORS, NO_PROGRAM, NO_PYTHON, PLACES

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif(bool(refused_calls.missing()), reason="gcc builds the agent, and strace finds the calls"),
    pytest.mark.skipif(os.geteuid() != 0, reason="a filter keeps sudo and the like from working, except for root"),
]

PARTS = 4


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("agent")
    directory.chmod(0o777)
    return refused_calls.build_agent(directory)


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory, agent: Path) -> dict[str, int]:
    directory = tmp_path_factory.mktemp("survey")
    directory.chmod(0o777)
    return refused_calls.survey(directory, agent)


@pytest.mark.parametrize("part", range(PARTS))
def test_a_refused_call_is_done_without_or_explained(
    tmp_path: Path, agent: Path, calls: dict[str, int], part: int
) -> None:
    tmp_path.chmod(0o777)
    pairs = [(call, error) for call in calls for error in ERRORS]
    written = refused_calls.cells_of_page() if refused_calls.made_with() in refused_calls.PAGE.read_text() else {}
    wrong = []
    for index in range(part, len(pairs), PARTS):
        call, error = pairs[index]
        place = PLACES[(index // PARTS + part) % len(PLACES)]
        outcome = refused_calls.attempt(tmp_path, agent, call, calls[call], error, place)
        why = refused_calls.why_nothing_works(agent, calls[call], error) if outcome.wrong else ""
        expected = written.get((call, error), outcome.kind)
        as_written = (why or outcome.kind) in expected.split(" or ") or expected in (NO_PROGRAM, NO_PYTHON)
        if not as_written or (outcome.wrong and not why):
            wrong.append(f"{call} {error}, {place}: {why} {outcome}; the page says {expected!r}")
    assert not wrong, "\n".join(wrong)


def test_the_page_has_the_calls_that_are_known_to_be_refused() -> None:
    """Those of the profiles that were in use, and of sandboxes."""
    cells = refused_calls.cells_of_page()
    assert set(cells.values()) <= set(refused_calls.right_cells())
    for call in ("clone3", "pidfd_open", "pidfd_send_signal", "prctl", "signalfd4", "recvmsg", "kill"):
        for error in ERRORS:
            assert cells[call, error] == "graceful", call

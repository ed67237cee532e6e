"""Every allocation that agent-init makes after the spawn fails once."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import pytest

from tests.faults.stop_scenarios import SCENARIOS, Failures, Run, python

if TYPE_CHECKING:
    from pathlib import Path

PARTS = 12
RUNS = [("graceful", True), ("stubborn", True), ("lingering", True), ("stubborn", False)]


def run_with_failure(directory: Path, scenario: str, site: str, *, process1: bool) -> Run:
    program = python("allocation_failure.py", site, str(directory / "report"))
    return Run(directory, SCENARIOS[scenario], process1=process1, program=program)


def survey(directory: Path, scenario: str, *, process1: bool) -> list[str]:
    """The lines of agent-init that run after the spawn, in the order in which they first run."""
    for name in ("first", "survey"):
        run = run_with_failure(directory / name, scenario, "survey", process1=process1)
        try:
            run.wait_until_ready()
            run.send_signals()
            run.wait_for_usr1()
            run.check(*run.stop())
        finally:
            run.init.close()
    return (directory / "survey" / "report").read_text().splitlines()


@pytest.mark.skipif(not importlib.util.find_spec("_testcapi"), reason="this Python cannot make an allocation fail")
@pytest.mark.timeout(400)
@pytest.mark.parametrize("part", range(PARTS))
def test_stop_succeeds_when_one_allocation_fails(tmp_path: Path, part: int) -> None:
    """The first allocation after each line of agent-init fails, in the first scenario that reaches the line."""
    tmp_path.chmod(0o777)
    tried: set[str] = set()
    failures, injected, wanted = Failures(), 0, 0
    for scenario, process1 in RUNS:
        here = tmp_path / f"{scenario} {process1}"
        new = [site for site in survey(here, scenario, process1=process1) if site not in tried]
        tried.update(new)
        for number, site in enumerate(new[part::PARTS]):
            run = run_with_failure(here / str(number), scenario, site, process1=process1)
            with failures.of(f"{scenario} {site}", run):
                run.wait_until_ready()
                run.send_signals()
                run.wait_for_usr1()
                run.check(*run.stop())
            wanted += 1
            injected += (here / str(number) / "report").exists()
    failures.assert_none()
    assert injected >= 0.7 * wanted, "too few failures were injected"

"""Without memory: at each place of ours where it is asked for, and in a control group that the agent has used up."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import pytest

from tests.faults.stop_scenarios import SCENARIOS, Failures, Run, python

if TYPE_CHECKING:
    from pathlib import Path

PARTS = 12
FORMS = [("graceful", True), ("stubborn", True), ("lingering", True), ("stubborn", False)]


def forgetful(directory: Path, scenario: str, site: str, *, process1: bool) -> Run:
    program = python("forgetful.py", site, str(directory / "report"))
    return Run(directory, SCENARIOS[scenario], process1=process1, program=program)


def survey(directory: Path, scenario: str, *, process1: bool) -> list[str]:
    """The lines of ours that are run after the spawn, in the order of their first time."""
    for name in ("first", "survey"):
        run = forgetful(directory / name, scenario, "survey", process1=process1)
        try:
            run.begin()
            run.pass_on()
            run.arrived()
            run.check(*run.stop())
        finally:
            run.init.close()
    return (directory / "survey" / "report").read_text().splitlines()


@pytest.mark.skipif(not importlib.util.find_spec("_testcapi"), reason="this Python cannot make an allocation fail")
@pytest.mark.timeout(400)
@pytest.mark.parametrize("part", range(PARTS))
def test_each_allocation_that_fails_once(tmp_path: Path, part: int) -> None:
    """At the first allocation after each line of ours, in the first of the lives that comes there."""
    tmp_path.chmod(0o777)
    tried: set[str] = set()
    failures, came, wanted = Failures(), 0, 0
    for scenario, process1 in FORMS:
        here = tmp_path / f"{scenario} {process1}"
        new = [site for site in survey(here, scenario, process1=process1) if site not in tried]
        tried.update(new)
        for number, site in enumerate(new[part::PARTS]):
            run = forgetful(here / str(number), scenario, site, process1=process1)
            with failures.of(f"{scenario} {site}", run):
                run.begin()
                run.pass_on()
                run.arrived()
                run.check(*run.stop())
            wanted += 1
            came += (here / str(number) / "report").exists()
    failures.none()
    assert came >= 0.7 * wanted, "hardly anything was made to fail"

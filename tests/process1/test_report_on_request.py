"""--report-on and --report-after: stall reports before the deadline is near, with no other effect."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.control import ask, wait_until_served
from tests.support.proc import PYTHON, wait_for_agent

if TYPE_CHECKING:
    from tests.conftest import Start


def test_a_signal_has_a_report_made_and_is_not_forwarded(start_in_role: Start) -> None:
    init = start_in_role("--report-on", "USR2", agent="on('USR1'); on('USR2'); on('TERM', leave); ready()")
    init.wait_for_event("ready")
    init.signal("USR2")
    assert "USR2" in init.wait_for_line("report requested")
    init.wait_for_line("report: python")
    init.signal("USR1")
    init.wait_for_event("USR1")
    assert "USR2" not in init.events()
    assert not init.lines("stop requested")
    init.signal("TERM")
    assert init.wait() == 0


def test_by_agent_initctl_too(start: Start) -> None:
    init = start("--report-on", "USR2", agent="on('USR2'); on('TERM', leave); ready()")
    init.wait_for_event("ready")
    wait_until_served(init)
    assert ask(init, "signal", "USR2").returncode == 0
    init.wait_for_line("report: python")
    assert "USR2" not in init.events()
    init.signal("TERM")
    assert init.wait() == 0


def test_during_a_stop_without_a_deadline(start: Start) -> None:
    init = start("--report-on", "USR2", "-t", "infinity", agent="on('TERM'); ready()")
    init.wait_for_event("ready")
    init.signal("TERM")
    init.wait_for_event("TERM")
    init.signal("USR2")
    init.wait_for_line("report: python")
    os.kill(wait_for_agent(init, PYTHON), signal.SIGKILL)
    assert init.wait() == 137


@pytest.mark.parametrize("grace", ["24h", "infinity"])
def test_after_a_time_of_the_stop_whatever_the_deadline(start_in_role: Start, grace: str) -> None:
    init = start_in_role("--report-after", "1s", "-t", grace, agent="on('TERM'); ready()")
    init.wait_for_event("ready")
    assert not init.lines("report")
    init.signal("TERM")
    init.wait_for_line("report: python")
    os.kill(wait_for_agent(init, PYTHON), signal.SIGKILL)
    assert init.wait() == 137
    assert len(init.lines("report: python")) == 1


def test_an_agent_that_exits_before_makes_no_report(start: Start) -> None:
    init = start("--report-after", "10s", agent="on('TERM', leave); ready()")
    init.wait_for_event("ready")
    init.signal("TERM")
    assert init.wait() == 0
    assert not init.lines("report")

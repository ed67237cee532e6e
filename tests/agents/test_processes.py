"""Agents with child processes: `multiprocessing` pools, and MCP servers on stdin and stdout."""

from __future__ import annotations

import pytest

from . import stop_scenarios
from .conftest import PROGRAMS, Start
from .stop_scenarios import StopScenario


@pytest.mark.parametrize("scenario", stop_scenarios.ALL, ids=str)
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_pool_workers_finish_their_work(start: Start, method: str, scenario: StopScenario) -> None:
    """The workers handle no signal, so TERM to the group would kill them. agent-init does not signal them."""
    agent = start("plain", scenario.wrap(("python", str(PROGRAMS / "pool.py"), method)))
    agent.wait_for_event("work 0 begun")
    agent.wait_for_event("work 1 begun")
    scenario.stop(agent)
    agent.must_exit(0)
    agent.must_log_once("work 0 done", "work 1 done", "answers read", "cleaned up", "ended")
    agent.must_leave_nothing()


@pytest.mark.parametrize("scenario", stop_scenarios.ALL, ids=str)
def test_mcp_servers_end_when_stdin_closes(start: Start, scenario: StopScenario) -> None:
    """The tool's answer is awaited. Then each server exits because its stdin is closed, not by a signal."""
    agent = start("mcp", scenario.wrap(("python", str(PROGRAMS / "mcp_agent.py"))))
    agent.wait_for_event("tool begun")
    scenario.stop(agent)
    agent.must_exit(0)
    agent.must_log_once("tool done", "answer read", "cleaned up", "ended")
    assert agent.count("server closed") == 2
    agent.must_leave_nothing()


def test_leftover_mcp_server_gets_term_and_cleans_up(start: Start) -> None:
    """The agent dies. A server that ignores the closed stdin gets TERM and time for its clean-up."""
    agent = start("mcp", ("python", str(PROGRAMS / "mcp_agent.py"), "die"), options=["--warn-reaped"])
    agent.wait_for_event("stubborn ready")
    agent.wait_for_event("tool begun")
    stop_scenarios.TERM.stop(agent)
    assert agent.wait_for_exit() == 7
    agent.must_log_once("stubborn cleaned up")

"""Agents that have processes of their own: `multiprocessing` pools, and MCP servers on stdin and stdout."""

from __future__ import annotations

import pytest

from . import stop_scenarios
from .conftest import PROGRAMS, Start
from .stop_scenarios import StopScenario


@pytest.mark.parametrize("scenario", stop_scenarios.ALL, ids=str)
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_pool(start: Start, method: str, scenario: StopScenario) -> None:
    """The pool's processes handle no signal: TERM to the group would kill them at work. They are left alone."""
    agent = start("plain", scenario.wrap(("python", str(PROGRAMS / "pool.py"), method)))
    agent.wait("work 0 begun")
    agent.wait("work 1 begun")
    scenario.stop(agent)
    agent.must_end(0)
    agent.must_say("work 0 done", "work 1 done", "answers read", "cleaned up", "ended")
    agent.must_kill_nothing()


@pytest.mark.parametrize("scenario", stop_scenarios.ALL, ids=str)
def test_mcp(start: Start, scenario: StopScenario) -> None:
    """A tool's answer is awaited, then each server ends because its stdin does, not by a signal."""
    agent = start("mcp", scenario.wrap(("python", str(PROGRAMS / "toolbox.py"))))
    agent.wait("tool begun")
    scenario.stop(agent)
    agent.must_end(0)
    agent.must_say("tool done", "answer read", "cleaned up", "ended")
    assert agent.said("server closed") == 2
    agent.must_kill_nothing()


def test_mcp_server_left_behind(start: Start) -> None:
    """An agent that dies leaves its servers. One that does not notice still gets TERM, and time for its clean-up."""
    agent = start("mcp", ("python", str(PROGRAMS / "toolbox.py"), "die"), options=["--warn-reaped"])
    agent.wait("stubborn ready")
    agent.wait("tool begun")
    stop_scenarios.TERM.stop(agent)
    assert agent.wait_ended() == 7
    agent.must_say("stubborn cleaned up")

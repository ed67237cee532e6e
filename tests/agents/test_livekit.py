"""The LiveKit worker of `examples/livekit`, with a call in hand that goes on after the stop was requested."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIGTERM

import pytest

from . import stop_scenarios
from .conftest import Start
from .environments import PROJECT
from .livekit import HANGS_UP_AFTER, OF_THE_CALL, Server
from .process1 import Agent
from .stop_scenarios import StopScenario

EXAMPLE = str(PROJECT / "examples" / "livekit" / "agent.py")
WORKER = ("python", EXAMPLE, "start")

# A traceback of 1.0.12 and 1.0.13, now and then: it looks at the memory of a call's process that has just ended.
RACE = "Failed to get memory info for process"

LATEST = "livekit"
FIRST = ("livekit-1.0.12", "livekit-1.0.13")
RELEASES = pytest.mark.parametrize("release", [LATEST, *FIRST])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "server")
    yield server
    server.close()


@pytest.fixture
def idle_server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "server", "idle")
    yield server
    server.close()


def in_a_call(start: Start, server: Server, release: str, scenario: StopScenario, *options: str) -> Agent:
    agent = start(release, scenario.wrap(WORKER), options=options, variables=server.variables)
    agent.wait_logged("call answered")
    return agent


def hang_up_later(server: Server, agent: Agent, since: float) -> None:
    """The caller goes on for a while. Nobody may have ended the call meanwhile."""
    time.sleep(max(0.0, since + HANGS_UP_AFTER - time.monotonic()))
    assert "agent left the room" not in server.said(), f"the call was cut off\n{agent.story()}"
    server.hang_up()


def must_end_well(agent: Agent, server: Server) -> None:
    agent.must_end(0, known=RACE)
    for words in OF_THE_CALL:
        assert agent.output().count(words) == 1, f"{words!r}\n{agent.story()}"
    assert "agent left the room" in server.said()
    assert "job JS_FAILED" not in server.said()
    agent.must_kill_nothing()


@RELEASES
@pytest.mark.parametrize("scenario", stop_scenarios.ALL, ids=str)
def test_stopped_in_a_call(start: Start, server: Server, release: str, scenario: StopScenario) -> None:
    agent = in_a_call(start, server, release, scenario)
    since = time.monotonic()
    scenario.stop(agent)
    hang_up_later(server, agent, since)
    must_end_well(agent, server)


def test_call_is_lost_when_the_group_is_signalled(start: Start, server: Server) -> None:
    """Why the group is not signalled: the fork server dies of TERM, and takes the processes of the calls with it."""
    agent = in_a_call(start, server, LATEST, stop_scenarios.TERM, "--target", "group")
    agent.signal(SIGTERM)
    agent.wait_ended()
    assert "call saved" not in agent.output()


@pytest.mark.parametrize("release", FIRST)
def test_call_outlived_a_signalled_group(start: Start, server: Server, release: str) -> None:
    """These had no fork server: the worker is the parent of the calls' processes, and those ignore TERM and INT."""
    agent = in_a_call(start, server, release, stop_scenarios.TERM, "--target", "group")
    since = time.monotonic()
    agent.signal(SIGTERM)
    hang_up_later(server, agent, since)
    assert agent.wait_ended() == 0
    assert "call saved" in agent.output()


@RELEASES
def test_call_is_lost_when_the_stop_is_passed_on_twice(start: Start, server: Server, release: str) -> None:
    """Why a repeat is not passed on: the worker ends at once, with code 1."""
    agent = in_a_call(start, server, release, stop_scenarios.TERM, "--repeat", "forward")
    agent.signal(SIGTERM)
    agent.wait_logged("draining worker")
    agent.signal(SIGTERM)
    assert agent.wait_ended() == 1
    assert "call saved" not in agent.output()


@RELEASES
def test_stopped_before_it_has_a_handler(start: Start, idle_server: Server, release: str) -> None:
    agent = start(release, WORKER, variables=idle_server.variables)
    agent.wait_started()
    agent.signal(SIGTERM)
    agent.must_end(143)


@RELEASES
def test_stopped_without_a_call(start: Start, idle_server: Server, release: str) -> None:
    """With nothing in hand the drain is over at once."""
    agent = start(release, WORKER, variables=idle_server.variables)
    agent.wait_logged("registered worker")
    agent.signal(SIGTERM)
    agent.must_end(0)


def test_stopped_between_handler_and_registration(start: Start, idle_server: Server) -> None:
    agent = start(LATEST, WORKER, variables=idle_server.variables)
    agent.wait_logged("starting worker")
    agent.signal(SIGTERM)
    agent.must_end(0)

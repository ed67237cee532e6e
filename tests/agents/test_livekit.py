"""The LiveKit worker of `examples/livekit`, stopped during a call that continues after the stop request."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIGTERM

import pytest

from . import stop_scenarios
from .conftest import Start
from .environments import PROJECT
from .livekit import CALL_LINES, HANG_UP_AFTER, Server
from .process1 import Agent
from .stop_scenarios import StopScenario

EXAMPLE = str(PROJECT / "examples" / "livekit" / "agent.py")
WORKER = ("python", EXAMPLE, "start")

# 1.0.12 and 1.0.13 sometimes log this traceback: they read the memory of a job process that has just exited.
KNOWN_RACE = "Failed to get memory info for process"

# A job process that crashes in its native library as it exits, after the call was saved: LiveKit counts it as failed.
CRASH_AT_EXIT = re.compile(r"process exited with non-zero exit code -(6|11)\b")

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


def start_with_a_call(start: Start, server: Server, release: str, scenario: StopScenario, *options: str) -> Agent:
    agent = start(release, scenario.wrap(WORKER), options=options, variables=server.variables)
    agent.wait_for_output("call answered")
    return agent


def hang_up_later(server: Server, agent: Agent, since: float) -> None:
    """Hang up some time after `since`. Until then the call must go on."""
    time.sleep(max(0.0, since + HANG_UP_AFTER - time.monotonic()))
    assert "agent left the room" not in server.output(), f"the call was cut off\n{agent.transcript()}"
    server.hang_up()


def must_finish_the_call(agent: Agent, server: Server) -> None:
    agent.must_exit(0, known=KNOWN_RACE)
    for line in CALL_LINES:
        assert agent.output().count(line) == 1, f"{line!r}\n{agent.transcript()}"
    assert "agent left the room" in server.output()
    failed = "job JS_FAILED" in server.output() and not CRASH_AT_EXIT.search(agent.output())
    assert not failed, f"{server.output()}\n{agent.transcript()}"
    agent.must_leave_nothing()


@RELEASES
@pytest.mark.parametrize("scenario", stop_scenarios.ALL, ids=str)
def test_call_is_finished_before_the_worker_stops(
    start: Start, server: Server, release: str, scenario: StopScenario
) -> None:
    agent = start_with_a_call(start, server, release, scenario)
    since = time.monotonic()
    scenario.stop(agent)
    hang_up_later(server, agent, since)
    must_finish_the_call(agent, server)


def test_call_is_lost_when_the_group_is_signalled(start: Start, server: Server) -> None:
    """This is why the group is not signalled: the processes of the calls die of TERM themselves.

    Their code ignores TERM if it is first imported in a process of a call, but the fork server has imported it before.
    """
    agent = start_with_a_call(start, server, LATEST, stop_scenarios.TERM, "--target", "group")
    agent.signal(SIGTERM)
    agent.wait_for_exit()
    assert "call saved" not in agent.output()


@pytest.mark.parametrize("release", FIRST)
def test_call_survives_when_the_group_is_signalled_in_1_0(start: Start, server: Server, release: str) -> None:
    """These releases have no fork server, so the processes of the calls ignore TERM and INT."""
    agent = start_with_a_call(start, server, release, stop_scenarios.TERM, "--target", "group")
    since = time.monotonic()
    agent.signal(SIGTERM)
    hang_up_later(server, agent, since)
    assert agent.wait_for_exit() == 0
    assert "call saved" in agent.output()


@RELEASES
def test_call_is_lost_when_the_stop_is_passed_on_twice(start: Start, server: Server, release: str) -> None:
    """This is why a repeated request is not passed on: the worker exits at once, with code 1."""
    agent = start_with_a_call(start, server, release, stop_scenarios.TERM, "--repeat", "forward")
    agent.signal(SIGTERM)
    agent.wait_for_output("draining worker")
    agent.signal(SIGTERM)
    assert agent.wait_for_exit() == 1
    assert "call saved" not in agent.output()


@RELEASES
def test_worker_stopped_before_it_has_a_handler(start: Start, idle_server: Server, release: str) -> None:
    agent = start(release, WORKER, variables=idle_server.variables)
    agent.wait_for_start()
    agent.signal(SIGTERM)
    agent.must_end_at_once()


@RELEASES
def test_idle_worker_stops_at_once(start: Start, idle_server: Server, release: str) -> None:
    """Without a call the drain is over at once."""
    agent = start(release, WORKER, variables=idle_server.variables)
    agent.wait_for_output("registered worker")
    agent.signal(SIGTERM)
    agent.must_exit(0)


def test_worker_stopped_before_it_registers_exits_cleanly(start: Start, idle_server: Server) -> None:
    agent = start(LATEST, WORKER, variables=idle_server.variables)
    agent.wait_for_output("starting worker")
    agent.signal(SIGTERM)
    agent.must_exit(0)

"""The LiveKit worker of `examples/livekit`, with a call in hand that goes on after the stop was requested."""

from __future__ import annotations

import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from signal import SIGTERM

import pytest

from . import ways
from .conftest import PROGRAMS, Start
from .environments import PROJECT, environment
from .process1 import PATIENCE, Agent
from .ways import Way

EXAMPLE = str(PROJECT / "examples" / "livekit" / "agent.py")
WORKER = ("python", EXAMPLE, "start")
HANGS_UP_AFTER = 4.0  # seconds from the stop
OF_THE_CALL = ("transcript closed", "look-up finished", "call saved")

# A traceback of 1.0.13, now and then: it looks at the memory of a call's process that has just ended.
RACE = "Failed to get memory info for process"

LATEST = "livekit"
RELEASES = pytest.mark.parametrize("release", [LATEST, "livekit-1.0.13"])


class Server:
    """The far end, in a process of its own."""

    def __init__(self, log: Path, *arguments: str) -> None:
        self._log = log
        with log.open("wb") as out:
            program = [environment("livekit-server").python, str(PROGRAMS / "livekit_server.py"), *arguments]
            self._process = subprocess.Popen(program, stdout=out, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + PATIENCE
        while "\n" not in self.said():
            assert time.monotonic() < deadline, "the stand-in server does not start"
            time.sleep(0.01)
        self.port = int(self.said().split()[0])

    @property
    def variables(self) -> dict[str, str]:
        return {
            "LIVEKIT_URL": f"ws://127.0.0.1:{self.port}",
            "LIVEKIT_API_KEY": "key",
            "LIVEKIT_API_SECRET": "a secret that is long enough for it",
            "PORT": "0",
            "MAX_LOAD": "inf",
        }

    def said(self) -> str:
        return self._log.read_text()

    def hang_up(self) -> None:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/hangup", method="POST")
        urllib.request.urlopen(request, timeout=PATIENCE).close()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


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


def in_a_call(start: Start, server: Server, release: str, way: Way, *options: str) -> Agent:
    agent = start(release, way.wrap(WORKER), options=options, variables=server.variables)
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
@pytest.mark.parametrize("way", ways.ALL, ids=str)
def test_stopped_in_a_call(start: Start, server: Server, release: str, way: Way) -> None:
    agent = in_a_call(start, server, release, way)
    since = time.monotonic()
    way.stop(agent)
    hang_up_later(server, agent, since)
    must_end_well(agent, server)


def test_call_is_lost_when_the_group_is_signalled(start: Start, server: Server) -> None:
    """Why the group is not signalled: the fork server dies of TERM, and takes the processes of the calls with it."""
    agent = in_a_call(start, server, LATEST, ways.TERM, "--target", "group")
    agent.signal(SIGTERM)
    agent.wait_ended()
    assert "call saved" not in agent.output()


@RELEASES
def test_call_is_lost_when_the_stop_is_passed_on_twice(start: Start, server: Server, release: str) -> None:
    """Why a repeat is not passed on: the worker ends at once, with code 1."""
    agent = in_a_call(start, server, release, ways.TERM, "--repeat", "forward")
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

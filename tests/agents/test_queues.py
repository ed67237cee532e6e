"""Workers of task queues that are stopped with a task in hand: it is finished, once."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from signal import SIGTERM

import pytest

from . import stop_scenarios
from .conftest import PROGRAMS, Start
from .environments import environment
from .process1 import PATIENCE, Agent
from .stop_scenarios import StopScenario

CELERY = ("celery", "--app", "tasks", "worker", "--pool", "prefork", "--concurrency", "2", "--loglevel", "info")
CALM = "Warm shutdown"


def celery(start: Start, tmp_path: Path, scenario: StopScenario, *options: str) -> Agent:
    agent = start("celery", scenario.wrap(CELERY), options=options, variables={"AGENT_QUEUE": str(tmp_path / "queue")})
    agent.wait("task begun")
    return agent


@pytest.mark.parametrize("scenario", stop_scenarios.STOPS, ids=str)
def test_celery(start: Start, tmp_path: Path, scenario: StopScenario) -> None:
    """A prefork pool dies of a group's TERM, and a second signal makes the shutdown a cold one; it gets neither."""
    agent = celery(start, tmp_path, scenario)
    scenario.stop(agent)
    agent.must_end(0)
    agent.must_say("task done", "worker closed")
    assert agent.said("child closed") == 2
    assert CALM in agent.output()


def test_celery_quit(start: Start, tmp_path: Path) -> None:
    """Celery handles QUIT, as its cold shutdown, so it would get it; `--stop-on` makes a warm one of it."""
    agent = celery(start, tmp_path, stop_scenarios.QUIT, "--stop-on", "TERM,INT,QUIT")
    stop_scenarios.QUIT.stop(agent)
    agent.must_end(0)
    agent.must_say("task done", "worker closed")


def test_celery_quit_is_cold_unless_told(start: Start, tmp_path: Path) -> None:
    """What the option above is for: Celery's own answer to QUIT breaks the task off."""
    agent = celery(start, tmp_path, stop_scenarios.QUIT)
    stop_scenarios.QUIT.stop(agent)
    agent.wait_ended()
    assert agent.said("task done") == 0
    assert "Cold shutdown" in agent.output()


def test_celery_hup_restarts(start: Start, tmp_path: Path) -> None:
    """Celery handles HUP: it finishes what it has and executes itself again, as the same process."""
    agent = celery(start, tmp_path, stop_scenarios.HUP)
    stop_scenarios.HUP.stop(agent)
    agent.wait("task begun", times=2)
    assert agent.said("task done") == 1
    stop_scenarios.TERM.stop(agent)
    agent.must_end(0)
    assert agent.said("task done") == 2


def test_celery_stopped_while_starting(start: Start, tmp_path: Path) -> None:
    agent = start("celery", CELERY, variables={"AGENT_QUEUE": str(tmp_path / "queue")})
    agent.wait_started()
    stop_scenarios.TERM.stop(agent)
    agent.must_end(143)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[str]:
    """A real Redis on a socket of its own, as the far end of Dramatiq."""
    server = shutil.which("redis-server")
    if server is None:
        if os.environ.get("CI") == "true":
            pytest.fail("redis-server is not installed", pytrace=False)
        pytest.skip("redis-server is not installed: Dramatiq has no broker between processes without a service")
    socket = tmp_path / "redis.sock"
    running = subprocess.Popen(
        [server, "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(tmp_path)],
        stdout=subprocess.DEVNULL,
    )
    yield f"unix://{socket}"
    running.terminate()
    running.wait()


DRAMATIQ = ("dramatiq", "actors", "--processes", "2", "--threads", "2")


def dramatiq(start: Start, redis: str, scenario: StopScenario, *options: str) -> Agent:
    variables = {"AGENT_REDIS": redis}
    agent = start("dramatiq", scenario.wrap(DRAMATIQ), options=options, variables=variables)
    agent.wait("process booted", times=2)
    send(agent, redis)
    agent.wait("message begun")
    return agent


def send(agent: Agent, redis: str) -> None:
    """Put a message into the queue from outside."""
    subprocess.run(
        [environment("dramatiq").python, str(PROGRAMS / "actors.py")],
        env={**os.environ, "AGENT_REDIS": redis, "AGENT_EVENTS": str(agent.folder / "events")},
        check=True,
        timeout=PATIENCE,
    )


@pytest.mark.parametrize("scenario", [*stop_scenarios.STOPS, stop_scenarios.QUIT], ids=str)
def test_dramatiq(start: Start, redis: str, scenario: StopScenario) -> None:
    agent = dramatiq(start, redis, scenario)
    scenario.stop(agent)
    agent.must_end(0)
    agent.must_say("message done")
    assert agent.said("worker closed") == 2


def test_dramatiq_hup_restarts(start: Start, redis: str) -> None:
    """Dramatiq handles HUP: the workers finish what they have, and it executes itself again."""
    agent = dramatiq(start, redis, stop_scenarios.HUP)
    stop_scenarios.HUP.stop(agent)
    agent.wait("process booted", times=4)
    agent.wait_handles(SIGTERM)
    agent.must_say("message done")
    stop_scenarios.TERM.stop(agent)
    agent.must_end(0)


def test_dramatiq_stopped_while_starting(start: Start, redis: str) -> None:
    agent = start("dramatiq", DRAMATIQ, variables={"AGENT_REDIS": redis})
    agent.wait_started()
    stop_scenarios.TERM.stop(agent)
    agent.must_end(143)

"""Workers of task queues that are stopped during a task: the task is finished, once."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from signal import SIGTERM

import pytest

from . import stop_scenarios
from .conftest import PROGRAMS, Start
from .environments import environment
from .process1 import TIMEOUT, Agent
from .stop_scenarios import StopScenario

CELERY = ("celery", "--app", "tasks", "worker", "--pool", "prefork", "--concurrency", "2", "--loglevel", "info")
WARM_SHUTDOWN = "Warm shutdown"


def celery(start: Start, tmp_path: Path, scenario: StopScenario, *options: str) -> Agent:
    agent = start("celery", scenario.wrap(CELERY), options=options, variables={"AGENT_QUEUE": str(tmp_path / "queue")})
    agent.wait_for_event("task begun")
    return agent


@pytest.mark.parametrize("scenario", stop_scenarios.STOPS, ids=str)
def test_celery_finishes_its_task(start: Start, tmp_path: Path, scenario: StopScenario) -> None:
    """TERM to the group would kill the pool, and a second signal would make the shutdown cold. Celery gets neither."""
    agent = celery(start, tmp_path, scenario)
    scenario.stop(agent)
    agent.must_exit(0)
    agent.must_log_once("task done", "worker closed")
    assert agent.count("child closed") == 2
    assert WARM_SHUTDOWN in agent.output()


def test_celery_finishes_its_task_on_quit_with_stop_on(start: Start, tmp_path: Path) -> None:
    """Celery handles QUIT as a cold shutdown. With `--stop-on` QUIT becomes a warm one."""
    agent = celery(start, tmp_path, stop_scenarios.QUIT, "--stop-on", "TERM,INT,QUIT")
    stop_scenarios.QUIT.stop(agent)
    agent.must_exit(0)
    agent.must_log_once("task done", "worker closed")


def test_celery_quit_aborts_the_task_without_stop_on(start: Start, tmp_path: Path) -> None:
    """Without the option QUIT is forwarded, and Celery aborts the task."""
    agent = celery(start, tmp_path, stop_scenarios.QUIT)
    stop_scenarios.QUIT.stop(agent)
    agent.wait_for_exit()
    assert agent.count("task done") == 0
    assert "Cold shutdown" in agent.output()


def test_celery_hup_restarts(start: Start, tmp_path: Path) -> None:
    """Celery handles HUP: it finishes its task and executes itself again, in the same process."""
    agent = celery(start, tmp_path, stop_scenarios.HUP)
    stop_scenarios.HUP.stop(agent)
    agent.wait_for_event("task begun", times=2)
    assert agent.count("task done") == 1
    stop_scenarios.TERM.stop(agent)
    agent.must_exit(0)
    assert agent.count("task done") == 2


def test_celery_stopped_during_startup(start: Start, tmp_path: Path) -> None:
    agent = start("celery", CELERY, variables={"AGENT_QUEUE": str(tmp_path / "queue")})
    agent.wait_for_start()
    stop_scenarios.TERM.stop(agent)
    agent.must_end_at_once()


DRAMATIQ = ("dramatiq", "actors", "--processes", "2", "--threads", "2")


def dramatiq(start: Start, redis: str, scenario: StopScenario, *options: str) -> Agent:
    variables = {"AGENT_REDIS": redis}
    agent = start("dramatiq", scenario.wrap(DRAMATIQ), options=options, variables=variables)
    agent.wait_for_event("process booted", times=2)
    send(agent, redis)
    agent.wait_for_event("message begun")
    return agent


def send(agent: Agent, redis: str) -> None:
    """Put a message into the queue."""
    subprocess.run(
        [environment("dramatiq").python, str(PROGRAMS / "actors.py")],
        env={**os.environ, "AGENT_REDIS": redis, "AGENT_EVENTS": str(agent.folder / "events")},
        check=True,
        timeout=TIMEOUT,
    )


@pytest.mark.parametrize("scenario", [*stop_scenarios.STOPS, stop_scenarios.QUIT], ids=str)
def test_dramatiq_finishes_its_message(start: Start, redis: str, scenario: StopScenario) -> None:
    agent = dramatiq(start, redis, scenario)
    scenario.stop(agent)
    agent.must_exit(0)
    agent.must_log_once("message done")
    assert agent.count("worker closed") == 2


def test_dramatiq_hup_restarts(start: Start, redis: str) -> None:
    """Dramatiq handles HUP: the workers finish their messages, and it executes itself again."""
    agent = dramatiq(start, redis, stop_scenarios.HUP)
    stop_scenarios.HUP.stop(agent)
    agent.wait_for_event("process booted", times=4)
    agent.wait_for_handler(SIGTERM)
    agent.must_log_once("message done")
    stop_scenarios.TERM.stop(agent)
    agent.must_exit(0)


def test_dramatiq_stopped_during_startup(start: Start, redis: str) -> None:
    agent = start("dramatiq", DRAMATIQ, variables={"AGENT_REDIS": redis})
    agent.wait_for_start()
    stop_scenarios.TERM.stop(agent)
    agent.must_end_at_once()

"""Workers of Huey, arq and rq that are stopped during a task."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from . import stop_scenarios
from .conftest import PROGRAMS, Start
from .environments import environment
from .process1 import TIMEOUT, Agent
from .stop_scenarios import StopScenario


def send(kind: str, agent: Agent, variables: dict[str, str]) -> None:
    """Put a task into the queue and wait until it has begun."""
    subprocess.run(
        [environment(kind).python, str(PROGRAMS / f"{kind}_tasks.py")],
        env={**os.environ, **variables, "AGENT_EVENTS": str(agent.folder / "events")},
        check=True,
        timeout=TIMEOUT,
    )
    agent.wait_for_event("task begun")


# --- Huey. ----------------------------------------------------------------------------------------------------------

HUEY = ("huey_consumer", "huey_tasks.queue", "--workers", "2")


def huey(start: Start, tmp_path: Path, scenario: StopScenario, *options: str) -> Agent:
    variables = {"AGENT_QUEUE": str(tmp_path / "queue")}
    agent = start("huey", scenario.wrap(HUEY), options=options, variables=variables)
    agent.wait_for_event("worker ready", times=2)  # until then INT ends it, as any program
    send("huey", agent, variables)
    return agent


@pytest.mark.parametrize("scenario", [*stop_scenarios.STOPS, stop_scenarios.QUIT], ids=str)
def test_huey_finishes_its_task_with_int(start: Start, tmp_path: Path, scenario: StopScenario) -> None:
    agent = huey(start, tmp_path, scenario, "--stop-signal", "INT")
    scenario.stop(agent)
    agent.must_exit(0)
    agent.must_log_once("task done")


def test_huey_aborts_its_task_with_term(start: Start, tmp_path: Path) -> None:
    agent = huey(start, tmp_path, stop_scenarios.TERM)
    stop_scenarios.TERM.stop(agent)
    agent.wait_for_exit()
    assert agent.count("task done") == 0


def test_huey_hup_restarts(start: Start, tmp_path: Path) -> None:
    agent = huey(start, tmp_path, stop_scenarios.HUP, "--stop-signal", "INT")
    stop_scenarios.HUP.stop(agent)
    agent.wait_for_event("worker ready", times=3)  # two of the first start
    agent.must_log_once("task done")
    stop_scenarios.TERM.stop(agent)
    agent.must_exit(0)


# --- arq. -----------------------------------------------------------------------------------------------------------

ARQ = ("arq", "arq_tasks.WorkerSettings")


def arq(start: Start, redis: str, scenario: StopScenario, wait: str) -> Agent:
    variables = {"AGENT_REDIS": redis, "AGENT_WAIT": wait}
    agent = start("arq", scenario.wrap(ARQ), variables=variables)
    agent.wait_for_event("worker ready")
    send("arq", agent, variables)
    return agent


@pytest.mark.parametrize("scenario", stop_scenarios.ALL, ids=str)
def test_arq_finishes_its_task_with_job_completion_wait(start: Start, redis: str, scenario: StopScenario) -> None:
    agent = arq(start, redis, scenario, "30")
    scenario.stop(agent)
    agent.must_exit(0)
    agent.must_log_once("task done", "worker closed")


def test_arq_cancels_its_task_without_job_completion_wait(start: Start, redis: str) -> None:
    """The task is in the queue again, for the next worker."""
    agent = arq(start, redis, stop_scenarios.TERM, "0")
    stop_scenarios.TERM.stop(agent)
    agent.wait_for_exit()
    assert agent.count("task done") == 0
    agent.must_log_once("worker closed")


# --- rq. ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", stop_scenarios.ALL, ids=str)
def test_rq_finishes_its_task(start: Start, redis: str, scenario: StopScenario) -> None:
    agent = start("rq", scenario.wrap(("rq", "worker", "--url", redis)), variables={"AGENT_REDIS": redis})
    agent.wait_for_output("Listening on")
    send("rq", agent, {"AGENT_REDIS": redis})
    scenario.stop(agent)
    agent.must_exit(0)
    agent.must_log_once("task done")

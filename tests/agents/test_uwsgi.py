"""uWSGI, stopped during a response."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from . import stop_scenarios
from .conftest import PROGRAMS, Start
from .http_client import get
from .process1 import TIMEOUT, Agent
from .stop_scenarios import StopScenario

UWSGI = ("uwsgi", "--wsgi-file", str(PROGRAMS / "wsgi.py"), "--master", "--processes", "2")
GRACEFUL = ("--hook-master-start", "unix_signal:15 gracefully_kill_them_all")


def uwsgi(start: Start, port: int, scenario: StopScenario, *flags: str) -> tuple[Agent, Future[str]]:
    """Start it and begin the slow request."""
    agent = start("uwsgi", scenario.wrap((*UWSGI, "--http-socket", f"127.0.0.1:{port}", *flags)))

    def ready() -> bool | None:
        try:
            return bool(get(port, "/ready"))
        except OSError:
            return None

    agent.until(ready, f"an answer on port {port}")
    time.sleep(1)  # a worker that has only just started misses the master's request to end
    thread = ThreadPoolExecutor(1)
    answer = thread.submit(get, port, "/slow")
    thread.shutdown(wait=False)
    agent.wait_for_event("request begun")
    return agent, answer


@pytest.mark.parametrize("scenario", stop_scenarios.STOPS, ids=str)
def test_uwsgi_finishes_its_response_with_a_hook_for_term(start: Start, port: int, scenario: StopScenario) -> None:
    agent, answer = uwsgi(start, port, scenario, *GRACEFUL)
    scenario.stop(agent)
    agent.must_exit(0)
    assert answer.result(TIMEOUT) == "whole"
    agent.must_log_once("request done")


def test_uwsgi_cuts_its_response_off_with_die_on_term(start: Start, port: int) -> None:
    agent, answer = uwsgi(start, port, stop_scenarios.TERM, "--die-on-term")
    stop_scenarios.TERM.stop(agent)
    agent.wait_for_exit()
    assert agent.count("request done") == 0
    assert answer.exception(TIMEOUT) is not None or answer.result(TIMEOUT) != "whole"


def test_uwsgi_kills_its_workers_on_term_without_options(start: Start, port: int) -> None:
    """It would reload then, and does not end."""
    agent, answer = uwsgi(start, port, stop_scenarios.TERM)
    stop_scenarios.TERM.stop(agent)
    agent.wait_for_output("brutally killing workers")
    agent.wait_for_output("buried")
    assert agent.count("request done") == 0
    assert answer.exception(TIMEOUT) is not None or answer.result(TIMEOUT) != "whole"

"""Web servers that are stopped during a response: the client receives the complete response."""

from __future__ import annotations

import signal
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from . import stop_scenarios
from .conftest import Start
from .http_client import get
from .process1 import TIMEOUT, Agent
from .stop_scenarios import StopScenario

PIECES = 5  # as in programs/web.py
WHOLE = "".join(f"piece {piece}\n" for piece in range(PIECES)) + "whole\n"


def begin_slow_request(agent: Agent, port: int, workers: int = 1) -> Future[str]:
    """Wait until all workers serve, then request the slow response and wait until the server has begun it."""
    agent.wait_for_event("lifespan begun", times=workers)

    def ready() -> bool | None:
        try:
            get(port, "/ready")
        except OSError:
            return None
        return True

    agent.until(ready, f"an answer on port {port}")
    thread = ThreadPoolExecutor(1)
    answer = thread.submit(get, port, "/slow")
    thread.shutdown(wait=False)
    agent.wait_for_event("request begun", times=agent.count("request done") + 1)
    return answer


UVICORN = ("uvicorn", "web:app", "--host", "127.0.0.1", "--port")


@pytest.mark.parametrize("scenario", stop_scenarios.ALL, ids=str)
def test_uvicorn_finishes_its_response(start: Start, scenario: StopScenario, port: int) -> None:
    """Since 0.29 uvicorn dies of the signal that stopped it, hence `-e 143`."""
    agent = start("web", scenario.wrap((*UVICORN, str(port))), options=["-e", "143"])
    answer = begin_slow_request(agent, port)
    scenario.stop(agent)
    assert answer.result(TIMEOUT) == WHOLE
    agent.must_exit(0)
    agent.must_log_once("request done", "lifespan closed")


WORKERS = ("--workers", "2")


@pytest.mark.parametrize("scenario", stop_scenarios.STOPS, ids=str)
def test_uvicorn_workers_finish_their_responses(start: Start, scenario: StopScenario, port: int) -> None:
    agent = start("web", scenario.wrap((*UVICORN, str(port), *WORKERS)))
    answer = begin_slow_request(agent, port, workers=2)
    scenario.stop(agent)
    assert answer.result(TIMEOUT) == WHOLE
    agent.must_exit(0)
    agent.must_log_once("request done")
    assert agent.count("lifespan closed") == 2


GUNICORN = ("gunicorn", "-k", "uvicorn_worker.UvicornWorker", "-w", "2", "web:app", "-b")


@pytest.mark.parametrize("scenario", stop_scenarios.STOPS, ids=str)
def test_gunicorn_finishes_its_responses(start: Start, scenario: StopScenario, port: int) -> None:
    """INT would be gunicorn's quick shutdown, but gunicorn always gets TERM, once."""
    agent = start("web", scenario.wrap((*GUNICORN, f"127.0.0.1:{port}")))
    answer = begin_slow_request(agent, port, workers=2)
    scenario.stop(agent)
    assert answer.result(TIMEOUT) == WHOLE
    agent.must_exit(0)
    agent.must_log_once("request done")
    assert agent.count("lifespan closed") == 2


SERVERS_WITH_WORKERS = pytest.mark.parametrize(
    "command", [(*UVICORN, "PORT", *WORKERS), (*GUNICORN, "127.0.0.1:PORT")], ids=["uvicorn", "gunicorn"]
)


@SERVERS_WITH_WORKERS
def test_servers_with_workers_stop_gracefully_on_quit_with_stop_on(
    start: Start, command: tuple[str, ...], port: int
) -> None:
    """Both handle QUIT, so without `--stop-on` it would be forwarded.

    uvicorn does not stop on it, and gunicorn's quick shutdown waits for a worker that does not stop either.
    """
    argv = [word.replace("PORT", str(port)) for word in command]
    agent = start("web", argv, options=["--stop-on", "TERM,INT,QUIT"])
    answer = begin_slow_request(agent, port, workers=2)
    stop_scenarios.QUIT.stop(agent)
    assert answer.result(TIMEOUT) == WHOLE
    agent.must_exit(0)
    agent.must_log_once("request done")


@SERVERS_WITH_WORKERS
def test_servers_with_workers_restart_on_hup(start: Start, command: tuple[str, ...], port: int) -> None:
    """Both handle HUP: new workers take over while the old ones finish."""
    argv = [word.replace("PORT", str(port)) for word in command]
    agent = start("web", argv)
    answer = begin_slow_request(agent, port, workers=2)
    stop_scenarios.HUP.stop(agent)
    assert answer.result(TIMEOUT) == WHOLE
    agent.until(lambda: agent.count("lifespan closed") == 2 or None, "both old workers to end")
    answer = begin_slow_request(agent, port, workers=4)
    stop_scenarios.TERM.stop(agent)
    assert answer.result(TIMEOUT) == WHOLE
    agent.must_exit(0)


@pytest.mark.parametrize("command", [UVICORN, GUNICORN], ids=["uvicorn", "gunicorn"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_stop_before_the_handler_is_installed(
    start: Start, command: tuple[str, ...], number: signal.Signals, port: int
) -> None:
    address = str(port) if command is UVICORN else f"127.0.0.1:{port}"
    agent = start("web", (*command, address))
    agent.wait_for_start()
    agent.signal(number)
    agent.must_end_at_once()

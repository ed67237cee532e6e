"""Web servers that are stopped while they answer: the answer arrives whole."""

from __future__ import annotations

import http.client
import signal
import socket
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from . import stop_scenarios
from .conftest import Start
from .process1 import PATIENCE, Agent
from .stop_scenarios import StopScenario

PIECES = 5  # as in programs/web.py
WHOLE = "".join(f"piece {piece}\n" for piece in range(PIECES)) + "whole\n"


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def get(port: int, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def ask(agent: Agent, port: int, workers: int = 1) -> Future[str]:
    """Wait until the server answers with all its workers, then ask for the slow answer and wait until it is in hand."""
    agent.wait("lifespan begun", times=workers)

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
    agent.wait("request begun", times=agent.said("request done") + 1)
    return answer


UVICORN = ("uvicorn", "web:app", "--host", "127.0.0.1", "--port")


@pytest.mark.parametrize("scenario", stop_scenarios.ALL, ids=str)
def test_uvicorn(start: Start, scenario: StopScenario, port: int) -> None:
    """Since 0.29 uvicorn ends by the signal that stopped it, hence the `-e 143`."""
    agent = start("web", scenario.wrap((*UVICORN, str(port))), options=["-e", "143"])
    answer = ask(agent, port)
    scenario.stop(agent)
    assert answer.result(PATIENCE) == WHOLE
    agent.must_end(0)
    agent.must_say("request done", "lifespan closed")


WORKERS = ("--workers", "2")


@pytest.mark.parametrize("scenario", stop_scenarios.STOPS, ids=str)
def test_uvicorn_workers(start: Start, scenario: StopScenario, port: int) -> None:
    agent = start("web", scenario.wrap((*UVICORN, str(port), *WORKERS)))
    answer = ask(agent, port, workers=2)
    scenario.stop(agent)
    assert answer.result(PATIENCE) == WHOLE
    agent.must_end(0)
    agent.must_say("request done")
    assert agent.said("lifespan closed") == 2


GUNICORN = ("gunicorn", "-k", "uvicorn_worker.UvicornWorker", "-w", "2", "web:app", "-b")


@pytest.mark.parametrize("scenario", stop_scenarios.STOPS, ids=str)
def test_gunicorn(start: Start, scenario: StopScenario, port: int) -> None:
    """INT is gunicorn's quick shutdown, but it never sees it: what stops it is always TERM, and once."""
    agent = start("web", scenario.wrap((*GUNICORN, f"127.0.0.1:{port}")))
    answer = ask(agent, port, workers=2)
    scenario.stop(agent)
    assert answer.result(PATIENCE) == WHOLE
    agent.must_end(0)
    agent.must_say("request done")
    assert agent.said("lifespan closed") == 2


SEVERAL = pytest.mark.parametrize(
    "command", [(*UVICORN, "PORT", *WORKERS), (*GUNICORN, "127.0.0.1:PORT")], ids=["uvicorn", "gunicorn"]
)


@SEVERAL
def test_workers_quit(start: Start, command: tuple[str, ...], port: int) -> None:
    """Both handle QUIT, so it would reach them: uvicorn does nothing about it, gunicorn's quick shutdown waits for a
    worker that does not know it. `--stop-on` makes a graceful stop of it."""
    place = [word.replace("PORT", str(port)) for word in command]
    agent = start("web", place, options=["--stop-on", "TERM,INT,QUIT"])
    answer = ask(agent, port, workers=2)
    stop_scenarios.QUIT.stop(agent)
    assert answer.result(PATIENCE) == WHOLE
    agent.must_end(0)
    agent.must_say("request done")


@SEVERAL
def test_workers_hup(start: Start, command: tuple[str, ...], port: int) -> None:
    """Servers with workers handle HUP: it reaches them, and new workers take over while the old ones finish."""
    place = [word.replace("PORT", str(port)) for word in command]
    agent = start("web", place)
    answer = ask(agent, port, workers=2)
    stop_scenarios.HUP.stop(agent)
    assert answer.result(PATIENCE) == WHOLE
    agent.until(lambda: agent.said("lifespan closed") == 2 or None, "both old workers to end")
    answer = ask(agent, port, workers=4)
    stop_scenarios.TERM.stop(agent)
    assert answer.result(PATIENCE) == WHOLE
    agent.must_end(0)


@pytest.mark.parametrize("command", [UVICORN, GUNICORN], ids=["uvicorn", "gunicorn"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_stopped_while_starting(start: Start, command: tuple[str, ...], number: signal.Signals, port: int) -> None:
    where = str(port) if command is UVICORN else f"127.0.0.1:{port}"
    agent = start("web", (*command, where))
    agent.wait_started()
    agent.signal(number)
    agent.must_end(128 + signal.SIGTERM)

"""Calls through LiveKit's own server. Run these with `pytest -n 6 tests/livekit`: they mostly wait.

They need root or user namespaces, tini, Go for the server's build, and PyPI for the first run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pytest

from tests.support import go_programs

from .server import Server, binary
from .trial import AGENT_INIT, TINI, VOICE, Caller, Worker

HERE = Path(__file__).parent
TEST_TIMEOUT = 1800  # seconds, including the server that the first test may have to build


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.timeout(TEST_TIMEOUT))


@pytest.fixture(scope="session")
def _binary() -> None:
    try:
        binary()
    except go_programs.BuildFailed as failure:
        pytest.fail(str(failure), pytrace=False)


@pytest.fixture
def server(_binary: None, tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.kill()


class StartCall(Protocol):
    def __call__(
        self,
        release: str,
        command: Sequence[str] = ...,
        *,
        init: Sequence[str] = ...,
        answers: int = ...,
        **variables: str,
    ) -> tuple[Worker, Caller]: ...


@pytest.fixture
def start_call(server: Server, tmp_path: Path) -> Iterator[StartCall]:
    """Start a worker, then a caller, and wait until the caller has heard the agent as often as `answers`."""
    running: list[Worker | Caller] = []

    def start(
        release: str,
        command: Sequence[str] = VOICE,
        *,
        init: Sequence[str] = AGENT_INIT,
        answers: int = 2,
        **variables: str,
    ) -> tuple[Worker, Caller]:
        if init == TINI and shutil.which("tini") is None:
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("tini is not installed")
        worker = Worker(server, tmp_path, release, command, init=init, **{"AGENT_INIT_GRACE": "90s", **variables})
        running.append(worker)
        worker.until(lambda: "registered worker" in worker.output(), "the worker's registration")
        caller = Caller(server, tmp_path)
        running.append(caller)
        worker.until(lambda: caller.records("agent joined"), "the agent in the room")
        worker.until(lambda: caller.answers() >= answers, f"{answers} answers of the agent")
        return worker, caller

    yield start
    for one in running:
        one.close()

"""Agents built on real frameworks, under a real process 1.

Run these with `pytest tests/agents`. They need Linux, root or user namespaces, and PyPI for the first run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import pytest

from tests.support.ports import free_port

from .environments import environment
from .process1 import Agent

HERE = Path(__file__).parent
PROGRAMS = HERE / "programs"
TEST_TIMEOUT = 600  # seconds, including the environment that the first test has to create


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.timeout(TEST_TIMEOUT))


class Start(Protocol):
    def __call__(
        self, kind: str, command: Sequence[str], *, options: Sequence[str] = ..., variables: Mapping[str, str] = ...
    ) -> Agent: ...


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a command under agent-init, with the programs folder on PYTHONPATH and a grace that no test uses up."""
    running: list[Agent] = []

    def start(
        kind: str, command: Sequence[str], *, options: Sequence[str] = (), variables: Mapping[str, str] = {}
    ) -> Agent:
        folder = tmp_path / f"agent{len(running)}"
        folder.mkdir()
        variables = {"PYTHONPATH": str(PROGRAMS), "AGENT_INIT_GRACE": "60s", **variables}
        agent = Agent(environment(kind), command, options, folder, variables)
        running.append(agent)
        return agent

    yield start
    for agent in running:
        agent.kill()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[str]:
    """A Redis server on a Unix socket, as a queue's broker."""
    server = shutil.which("redis-server")
    if server is None:
        if os.environ.get("CI") == "true":
            pytest.fail("redis-server is not installed", pytrace=False)
        pytest.skip("redis-server is not installed: the queue has no broker between processes without a service")
    socket = tmp_path / "redis.sock"
    running = subprocess.Popen(
        [server, "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(tmp_path)],
        stdout=subprocess.DEVNULL,
    )
    yield f"unix://{socket}"
    running.terminate()
    running.wait()


@pytest.fixture
def port() -> int:
    return free_port()

"""A stop that stalls in a real agent: the stall report names the place."""

from __future__ import annotations

import re
from signal import SIGTERM
from typing import TYPE_CHECKING

import pytest

from .environments import PROJECT
from .livekit import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import Start

CALL = str(PROJECT / "tests" / "reports" / "programs" / "livekit_call.py")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "server")
    yield server
    server.close()


@pytest.mark.parametrize("release", ["livekit", "livekit-1.0.13"])
def test_stall_report_names_a_shutdown_callback_that_never_returns(start: Start, server: Server, release: str) -> None:
    """Its stack is the first one, in the process of the call. The agent is unchanged."""
    options = ("--stacks", "--grace", "20s")
    agent = start(release, ("python", CALL, "start"), options=options, variables=server.variables)
    agent.wait_for_output("call answered")
    agent.signal(SIGTERM)
    agent.wait_for_output("draining worker")
    server.hang_up()
    agent.wait_for_output("saving")
    assert agent.wait_for_exit() == 137
    lines = [str(record["message"]) for record in agent.log() if record["event"] == "report"]
    place = next(at for at, line in enumerate(lines) if "in answer.<locals>.save_summary: await" in line)
    head = next(at for at in range(place, -1, -1) if re.search(r"pid \d+, ", lines[at]))
    (job,) = re.findall(r"pid (\d+), task ", lines[head])
    (worker,) = [line for line in lines if ", the agent, " in line]
    assert f"(pid {job})" not in worker
    assert any(re.search(rf"\(pid {job}\), child of (python|forkserver)", line) for line in lines), lines
    assert sum(map(len, lines[: place + 1])) < 4096, "it does not fit into /dev/termination-log"

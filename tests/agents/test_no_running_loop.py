"""The failure this project grew from, for the record: `RuntimeError: no running event loop`.

It happens inside the agent's process when its loop ends before its coroutines do. No signal is needed for it, so no
process 1 can mend it; a runner that cancels and awaits what is left can.
"""

from __future__ import annotations

from signal import SIGTERM

import pytest

from .conftest import PROGRAMS, Start
from .livekit import Server
from .process1 import Agent
from .test_livekit import server

__all__ = ["server"]

FAILURE = "RuntimeError: no running event loop"


def test_smallest_form(start: Start) -> None:
    """No signal anywhere: it ends by itself, with code 0 even."""
    agent = start("plain", ["python", str(PROGRAMS / "no_running_loop.py")])
    assert agent.wait_ended() == 0
    assert FAILURE in agent.output()
    assert "call saved" not in agent.output()


def test_smallest_form_awaited(start: Start) -> None:
    agent = start("plain", ["python", str(PROGRAMS / "no_running_loop.py"), "awaited"])
    agent.must_end(0)
    assert "call saved" in agent.output()


def a_careless_call(start: Start, server: Server, release: str) -> Agent:
    """A call whose task nobody awaits, ended by the caller; only then is the worker stopped."""
    agent = start(release, ["python", str(PROGRAMS / "careless.py"), "start"], variables=server.variables)
    agent.wait_logged("call answered")
    server.hang_up()
    agent.until(lambda: "job JS_SUCCESS" in server.said() or None, "the end of the call")
    agent.signal(SIGTERM)
    assert agent.wait_ended() == 0
    return agent


def test_livekit_says_it(start: Start, server: Server) -> None:
    agent = a_careless_call(start, server, "livekit-0.12.16")
    assert FAILURE in agent.output()
    assert "listener closed" not in agent.output()


@pytest.mark.parametrize("release", ["livekit-1.0.13", "livekit-1.8.5"])
def test_livekit_is_silent(start: Start, server: Server, release: str) -> None:
    """The message is gone, the cause is not: the task's clean-up is dropped without a word."""
    agent = a_careless_call(start, server, release)
    assert FAILURE not in agent.output()
    assert "listener closed" not in agent.output()


@pytest.mark.parametrize("release", ["livekit-1.8.6", "livekit"])
def test_livekit_awaits_it(start: Start, server: Server, release: str) -> None:
    """From 1.8.6 on the job's process cancels and awaits what is left, as `asyncio.run` does."""
    agent = a_careless_call(start, server, release)
    assert FAILURE not in agent.output()
    assert "listener closed" in agent.output()

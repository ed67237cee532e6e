"""The failure that this project started from: `RuntimeError: no running event loop`.

It happens inside the agent's process when its event loop is closed before its coroutines have finished. It needs no
signal, so no process 1 can prevent it. A runner that cancels and awaits pending tasks can.
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


def test_loop_closed_with_a_pending_task_raises_no_running_event_loop(start: Start) -> None:
    """Without any signal the program exits by itself, even with code 0."""
    agent = start("plain", ["python", str(PROGRAMS / "no_running_loop.py")])
    assert agent.wait_for_exit() == 0
    assert FAILURE in agent.output()
    assert "call saved" not in agent.output()


def test_asyncio_run_awaits_the_pending_task(start: Start) -> None:
    agent = start("plain", ["python", str(PROGRAMS / "no_running_loop.py"), "awaited"])
    agent.must_exit(0)
    assert "call saved" in agent.output()


def call_with_an_unawaited_task(start: Start, server: Server, release: str) -> Agent:
    """Run a call with a task that nobody awaits. The caller hangs up, then the worker is stopped."""
    agent = start(release, ["python", str(PROGRAMS / "unawaited_task.py"), "start"], variables=server.variables)
    agent.wait_for_output("call answered")
    server.hang_up()
    agent.until(lambda: "job JS_SUCCESS" in server.output() or None, "the end of the call")
    agent.signal(SIGTERM)
    assert agent.wait_for_exit() == 0
    return agent


def test_old_livekit_logs_no_running_event_loop(start: Start, server: Server) -> None:
    agent = call_with_an_unawaited_task(start, server, "livekit-0.12.16")
    assert FAILURE in agent.output()
    assert "listener closed" not in agent.output()


@pytest.mark.parametrize("release", ["livekit-1.0.13", "livekit-1.8.5"])
def test_livekit_drops_the_pending_task_silently(start: Start, server: Server, release: str) -> None:
    """The message no longer appears, but the task's clean-up is still lost."""
    agent = call_with_an_unawaited_task(start, server, release)
    assert FAILURE not in agent.output()
    assert "listener closed" not in agent.output()


@pytest.mark.parametrize("release", ["livekit-1.8.6", "livekit"])
def test_new_livekit_awaits_the_pending_task(start: Start, server: Server, release: str) -> None:
    """Since 1.8.6 the job's process cancels and awaits pending tasks, like `asyncio.run`."""
    agent = call_with_an_unawaited_task(start, server, release)
    assert FAILURE not in agent.output()
    assert "listener closed" in agent.output()

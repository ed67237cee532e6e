"""How an agent ends: after a stop request, by itself, and when parts of it refuse to end."""

from __future__ import annotations

import re
import subprocess
import time
from typing import TYPE_CHECKING, Protocol

import pytest

from tests.support.init import PATIENCE

from .agents import PROGRAM, SETUPS, Agent
from .pythons import environment

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Start


class Begin(Protocol):
    def __call__(self, kind: str, grace: float | None = None, **variables: str) -> Agent: ...


@pytest.fixture(params=SETUPS)
def begin(request: pytest.FixtureRequest, start: Start, tmp_path: Path) -> Begin:
    """Start an agent, in each setup."""
    return lambda kind, grace=None, **variables: Agent(start, tmp_path, kind, grace, request.param, **variables)


@pytest.fixture
def alone(start: Start, tmp_path: Path) -> Begin:
    return lambda kind, grace=None, **variables: Agent(start, tmp_path, kind, grace, "alone", **variables)


# --- A stop request. --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signal", ["TERM", "INT"])
def test_main_is_cancelled_and_awaited(begin: Begin, signal: str) -> None:
    agent = begin("plain", 20)
    agent.stop(signal)
    assert agent.init.wait() == 0
    assert agent.lines == ["ready", "cleaned", "returned None"]
    assert not agent.stderr


@pytest.mark.parametrize("kind", ["watches", "polls", "waits_elsewhere"])
def test_main_that_watches_the_request_ends_by_itself(begin: Begin, kind: str) -> None:
    agent = begin(kind, 20)
    agent.stop()
    assert agent.init.wait() == 0
    assert agent.lines == ["ready", "asked", "cleaned", "returned result"]


def test_runs_in_other_threads_are_stopped_too(alone: Begin) -> None:
    """Signals come to the main thread only."""
    agent = alone("runs_elsewhere", 5)
    agent.stop()
    assert agent.init.wait() == 0
    assert agent.lines == ["ready", "other's", "None", "returned result"]
    assert not agent.stderr


def test_drain_comes_first(begin: Begin) -> None:
    agent = begin("drains", 20)
    agent.stop()
    assert agent.init.wait() == 0
    assert agent.lines == ["ready", "drain: 18s", "drained", "cleaned", "returned None"]  # 20 s, less the reserve


def test_drain_runs_beside_a_main_that_ends_by_itself(alone: Begin) -> None:
    agent = alone("drains_and_watches", 20)
    agent.stop()
    assert agent.init.wait() == 0
    assert sorted(agent.lines[1:-1]) == ["asked", "cleaned", "drain: 18s", "drained"]
    assert agent.lines[-1] == "returned result"


def test_drain_finishes_after_a_main_that_returns_at_once(alone: Begin) -> None:
    agent = alone("drains_and_returns", 20)
    agent.stop()
    assert agent.init.wait() == 0
    assert agent.lines == ["ready", "drain: 18s", "drained", "returned result"]


def test_drain_is_cancelled_in_time(alone: Begin) -> None:
    agent = alone("drains_without_end", 2)
    began = agent.stop()
    assert agent.init.wait() == 0
    assert time.monotonic() - began > 1.4
    assert agent.lines == ["ready", "drain", "drain cancelled", "cleaned", "returned None"]
    assert "the drain did not end within its time; cancelling it" in agent.stderr


def test_main_that_watches_is_cancelled_in_time(alone: Begin) -> None:
    agent = alone("waits_for_ever", 2)
    began = agent.stop()
    assert agent.init.wait() == 0
    assert time.monotonic() - began > 1.4
    assert agent.lines[-2:] == ["cancelled, 0.0s left", "returned None"]


def test_an_error_of_the_drain_is_raised(alone: Begin) -> None:
    agent = alone("drain_fails", 20)
    agent.stop()
    assert agent.init.wait() == 1
    assert agent.lines == ["ready", "cleaned"]
    assert agent.stderr.endswith("ValueError: the drain failed\n")


def test_an_error_of_mains_clean_up_is_raised(alone: Begin) -> None:
    agent = alone("fails_when_stopped", 20)
    agent.stop()
    assert agent.init.wait() == 1
    assert agent.stderr.endswith("ValueError: the clean-up failed\n")


def test_further_signals_are_only_logged(alone: Begin) -> None:
    agent = alone("drains", 20, LOG="1")
    agent.stop()
    agent.until_printed("drain: 18s")
    for signal in ("TERM", "INT", "INT"):
        agent.init.signal(signal)
        time.sleep(0.02)  # the kernel keeps one of a kind
    assert agent.init.wait() == 0
    assert agent.lines[1:] == ["drain: 18s", "drained", "cleaned", "returned None"]
    assert agent.init.lines("SIGTERM: stop requested, 20.0s left")
    assert len(agent.init.lines("stop already in progress")) == 3


def test_the_handler_raises_nothing(alone: Begin) -> None:
    agent = alone("swallows_the_first_exception", 20)
    agent.stop("INT")
    assert agent.init.wait() == 0
    assert agent.lines == ["ready", "cleaned", "returned None"]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_request_before_the_loop_runs_is_kept(alone: Begin, loop: str) -> None:
    """uvloop receives signals only from there on."""
    agent = alone("asked_before_the_loop_runs", 20, LOOP=loop)
    assert agent.init.wait() == 0
    assert agent.lines == [f"loop {loop}", "returned None"]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_handler_that_the_agent_sets_goes_before_ours(alone: Begin, loop: str) -> None:
    agent = alone("handles_term_itself", 20, LOOP=loop)
    agent.stop()
    assert agent.init.wait() == 0
    assert agent.lines == ["ready", "drained False", "returned result"]


# --- The end. ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "code", "last"), [("fails", 1, "ValueError: main failed\n"), ("exits", 7, "")])
def test_errors_and_exits_are_as_with_asyncio_run(begin: Begin, kind: str, code: int, last: str) -> None:
    agent = begin(kind)
    assert agent.init.wait() == code
    assert agent.stderr.endswith(last)
    assert bool(agent.stderr) == bool(last)


def test_main_that_cancels_itself_is_as_with_asyncio_run(alone: Begin) -> None:
    agent = alone("cancels_itself")
    assert agent.init.wait() == 1
    assert agent.stderr.endswith("asyncio.exceptions.CancelledError\n")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_loop_stop_does_not_skip_the_end(alone: Begin, loop: str) -> None:
    """As with `asyncio.run` it is an error only if main has not returned."""
    agent = alone("stops_the_loop_and_returns", LOOP=loop)
    assert agent.init.wait() == 0
    assert agent.lines == ["cleaned", "returned result"]
    assert not agent.stderr
    agent = alone("stops_the_loop", LOOP=loop)
    assert agent.init.wait() == 1
    assert agent.lines == ["cleaned", "cleaned up"]
    assert agent.stderr.endswith("RuntimeError: Event loop stopped before Future completed.\n")


def test_exit_in_a_task_still_lets_main_clean_up(alone: Begin) -> None:
    agent = alone("task_exits")
    assert agent.init.wait() == 7
    assert agent.lines == ["cleaned"]
    assert not agent.stderr


def test_main_that_refuses_to_end(alone: Begin) -> None:
    agent = alone("refuses", 2)
    began = agent.stop()
    assert agent.init.wait() == 1
    assert time.monotonic() - began < 5
    assert agent.lines == ["ready", "refused", "refused"]
    log, _, traceback = agent.stderr.partition("Traceback")
    assert re.search(r'task main did not end .* it was in:\n  File ".*stops.py", line \d+, in refuses\n', log)
    assert "await asyncio.sleep(3600)" in log
    assert traceback.endswith("TimeoutError: the agent's main did not end when it was cancelled\n")


def test_clean_up_that_hangs_in_a_gather_is_logged_and_a_failure(alone: Begin) -> None:
    """It is cancelled once: not once by `gather` and once by us, which would break it off silently."""
    agent = alone("gathers_who_hang", 2)
    agent.stop()
    assert agent.init.wait() == 1
    assert agent.lines == ["ready", "saving"]
    for name, place in (("saves", "gathers_who_hang.<locals>.saves"), ("main", "gathers_who_hang")):
        assert f"task {name} did not end when it was cancelled; it was in:" in agent.stderr
        assert f"in {place.rpartition('.')[2]}\n" in agent.stderr


@pytest.mark.parametrize(
    ("kind", "place"), [("stubborn_task", "refuses"), ("very_stubborn_task", "refuses_everything")]
)
def test_task_that_refuses_to_end(begin: Begin, kind: str, place: str) -> None:
    agent = begin(kind, 2)
    assert agent.init.wait() == 0
    assert agent.lines[-1] == "returned None"
    assert "task stubborn did not end when it was cancelled" in agent.stderr
    assert f"in {place}\n" in agent.stderr
    assert "pending" not in agent.stderr.replace("waiting for <Future pending", "")
    assert "no running event loop" not in agent.stderr


@pytest.mark.parametrize(
    ("kind", "thread"),
    [("stuck_thread", "asyncio_0"), ("stuck_loop_in_a_thread", "asyncio_0"), ("stuck_in_own_daemon_pool", "mine_0")],
)
def test_a_stuck_thread_does_not_hold_the_process(begin: Begin, kind: str, thread: str) -> None:
    began = time.monotonic()
    agent = begin(kind, 2)
    assert agent.init.wait() == 0
    assert time.monotonic() - began < 10
    assert agent.lines[-1] == "returned result"
    assert f"thread {thread} is stuck and is left behind; it is in:" in agent.stderr
    assert "in get_stuck" in agent.stderr
    assert "no running event loop" not in agent.stderr


def test_a_stuck_executor_of_the_agents_is_logged(alone: Begin) -> None:
    """The interpreter joins its threads when it ends; `run` itself does not wait for them without limit."""
    agent = alone("stuck_in_own_executor", 2)
    agent.until_printed("returned result")
    assert "an executor that the agent has set is stuck; the process cannot end before its threads do" in agent.stderr
    assert agent.init.wait() == 0  # the thread ends when `run` has returned


def test_calls_in_an_executor_of_the_agents_are_finished(alone: Begin) -> None:
    agent = alone("work_in_own_executor")
    assert agent.init.wait() == 0
    assert agent.lines == ["cleaned", "returned result"]
    assert not agent.stderr


def test_stacks_of_running_threads_are_not_read(python: str) -> None:
    """CPython 3.11 and 3.12 may crash on that, depending on the place in the coroutine."""
    command = [python, str(PROGRAM), "others_execute"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "returned result\n", "")


def test_calls_in_the_default_executor_are_finished(begin: Begin) -> None:
    agent = begin("work_in_a_thread")
    assert agent.init.wait() == 0
    assert agent.lines == ["cleaned", "returned result"]

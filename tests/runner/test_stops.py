"""How an agent ends: when it is asked to, and when it does not want to."""

from __future__ import annotations

import re
import subprocess
import time
from typing import TYPE_CHECKING, Protocol

import pytest

from tests.support.init import PATIENCE

from .agents import PROGRAM, WAYS, Agent
from .pythons import environment

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Start


class Begin(Protocol):
    def __call__(self, kind: str, grace: float | None = None, **variables: str) -> Agent: ...


@pytest.fixture(params=WAYS)
def begin(request: pytest.FixtureRequest, start: Start, tmp_path: Path) -> Begin:
    """Start an agent, in each way."""
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
def test_main_that_looks_after_the_stop_is_left_alone(begin: Begin, kind: str) -> None:
    agent = begin(kind, 20)
    agent.stop()
    assert agent.init.wait() == 0
    assert agent.lines == ["ready", "asked", "cleaned", "returned result"]


def test_runs_in_other_threads_are_asked_too(alone: Begin) -> None:
    """Signals come to the main thread alone."""
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


def test_drain_beside_a_main_that_ends_by_itself(alone: Begin) -> None:
    agent = alone("drains_and_watches", 20)
    agent.stop()
    assert agent.init.wait() == 0
    assert sorted(agent.lines[1:-1]) == ["asked", "cleaned", "drain: 18s", "drained"]
    assert agent.lines[-1] == "returned result"


def test_drain_after_a_main_that_returns_at_once(alone: Begin) -> None:
    agent = alone("drains_and_returns", 20)
    agent.stop()
    assert agent.init.wait() == 0
    assert agent.lines == ["ready", "drain: 18s", "drained", "returned result"]


def test_drain_is_broken_off_in_time(alone: Begin) -> None:
    agent = alone("drains_without_end", 2)
    began = agent.stop()
    assert agent.init.wait() == 0
    assert time.monotonic() - began > 1.4
    assert agent.lines == ["ready", "drain", "drain cancelled", "cleaned", "returned None"]
    assert "the drain has not ended within its time" in agent.stderr


def test_main_that_watches_is_cancelled_in_time(alone: Begin) -> None:
    agent = alone("waits_for_ever", 2)
    began = agent.stop()
    assert agent.init.wait() == 0
    assert time.monotonic() - began > 1.4
    assert agent.lines[-2:] == ["cancelled, 0.0s left", "returned None"]


def test_failing_drain_is_told(alone: Begin) -> None:
    agent = alone("drain_fails", 20)
    agent.stop()
    assert agent.init.wait() == 1
    assert agent.lines == ["ready", "cleaned"]
    assert agent.stderr.endswith("ValueError: the drain failed\n")


def test_failing_clean_up_is_told(alone: Begin) -> None:
    agent = alone("fails_when_stopped", 20)
    agent.stop()
    assert agent.init.wait() == 1
    assert agent.stderr.endswith("ValueError: the clean-up failed\n")


def test_further_signals_are_noted(alone: Begin) -> None:
    agent = alone("drains", 20, LOG="1")
    agent.stop()
    agent.until_said("drain: 18s")
    for signal in ("TERM", "INT", "INT"):
        agent.init.signal(signal)
        time.sleep(0.02)  # the kernel keeps one of a kind
    assert agent.init.wait() == 0
    assert agent.lines[1:] == ["drain: 18s", "drained", "cleaned", "returned None"]
    assert agent.init.lines("SIGTERM: stop requested, 20.0s left")
    assert len(agent.init.lines("a stop is under way already")) == 3


def test_nothing_is_raised_in_the_handler(alone: Begin) -> None:
    agent = alone("swallows_the_first_exception", 20)
    agent.stop("INT")
    assert agent.init.wait() == 0
    assert agent.lines == ["ready", "cleaned", "returned None"]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_asked_before_the_loop_runs(alone: Begin, loop: str) -> None:
    """uvloop hears of signals only from there on."""
    agent = alone("asked_before_the_loop_runs", 20, LOOP=loop)
    assert agent.init.wait() == 0
    assert agent.lines == [f"loop {loop}", "returned None"]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_handler_of_the_agents_own_comes_first(alone: Begin, loop: str) -> None:
    agent = alone("handles_term_itself", 20, LOOP=loop)
    agent.stop()
    assert agent.init.wait() == 0
    assert agent.lines == ["ready", "drained False", "returned result"]


# --- The end. ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "code", "last"), [("fails", 1, "ValueError: main failed\n"), ("exits", 7, "")])
def test_as_asyncio_run(begin: Begin, kind: str, code: int, last: str) -> None:
    agent = begin(kind)
    assert agent.init.wait() == code
    assert agent.stderr.endswith(last)
    assert bool(agent.stderr) == bool(last)


def test_cancelled_by_itself_as_asyncio_run(alone: Begin) -> None:
    agent = alone("cancels_itself")
    assert agent.init.wait() == 1
    assert agent.stderr.endswith("asyncio.exceptions.CancelledError\n")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_the_loop_is_stopped_by_main(alone: Begin, loop: str) -> None:
    """As with `asyncio.run` that is an error only of a main which has not returned; the end is gone through."""
    agent = alone("stops_the_loop_and_returns", LOOP=loop)
    assert agent.init.wait() == 0
    assert agent.lines == ["cleaned", "returned result"]
    assert not agent.stderr
    agent = alone("stops_the_loop", LOOP=loop)
    assert agent.init.wait() == 1
    assert agent.lines == ["cleaned", "cleaned up"]
    assert agent.stderr.endswith("RuntimeError: Event loop stopped before Future completed.\n")


def test_exit_in_a_task_ends_main_in_good_order(alone: Begin) -> None:
    agent = alone("task_exits")
    assert agent.init.wait() == 7
    assert agent.lines == ["cleaned"]
    assert not agent.stderr


def test_main_that_refuses(alone: Begin) -> None:
    agent = alone("refuses", 2)
    began = agent.stop()
    assert agent.init.wait() == 1
    assert time.monotonic() - began < 5
    assert agent.lines == ["ready", "refused", "refused"]
    told, _, traceback = agent.stderr.partition("Traceback")
    assert re.search(r'task main did not end .* it was in:\n  File ".*stops.py", line \d+, in refuses\n', told)
    assert "await asyncio.sleep(3600)" in told
    assert traceback.endswith("TimeoutError: the agent's main did not end when it was cancelled\n")


def test_clean_up_that_hangs_below_a_gather_is_named_and_no_good_end(alone: Begin) -> None:
    """It is cancelled once, not once by `gather` and once by us: the second would break it off without a word."""
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
def test_task_that_refuses(begin: Begin, kind: str, place: str) -> None:
    agent = begin(kind, 2)
    assert agent.init.wait() == 0
    assert agent.lines[-1] == "returned None"
    assert "task stubborn did not end when it was cancelled" in agent.stderr
    assert f"in {place}\n" in agent.stderr
    assert "pending" not in agent.stderr.replace("waiting for <Future pending", "")
    assert "no running event loop" not in agent.stderr


@pytest.mark.parametrize(("kind", "thread"), [("stuck_thread", "asyncio_0"), ("stuck_in_own_executor", "mine_0")])
def test_thread_that_is_stuck(begin: Begin, kind: str, thread: str) -> None:
    began = time.monotonic()
    agent = begin(kind, 2)
    assert agent.init.wait() == 0
    assert time.monotonic() - began < 10
    assert agent.lines[-1] == "returned result"
    assert f"thread {thread} is stuck in the executor and is left" in agent.stderr
    assert "in _worker" in agent.stderr


def test_what_other_threads_execute_is_not_looked_into(python: str) -> None:
    """CPython 3.11 and 3.12 may crash then, in some of many places in a coroutine."""
    command = [python, str(PROGRAM), "others_execute"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "returned result\n", "")


def test_work_in_a_thread_is_finished(begin: Begin) -> None:
    agent = begin("work_in_a_thread")
    assert agent.init.wait() == 0
    assert agent.lines == ["cleaned", "returned result"]

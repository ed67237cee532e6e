"""After `run` nothing is left suspended: each known shape of the failure, in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from .pythons import environment

PROGRAM = Path(__file__).parent / "programs" / "leftovers.py"

# How often the clean-up has to run to its end; None: any number of times, as nothing can resume it.
SHAPES = {
    "task": 1,
    "forgotten_task": 3,
    "task_not_begun": 1,
    "held_coroutine": 1,
    "coroutine_in_a_cycle": 1,
    "nested_coroutines": 2,
    "clean_up_starts_tasks": 6,
    "clean_up_awaits_a_task": 1,
    "idle_generator": 1,
    "dropped_generator": 1,
    "dropped_generator_that_saves": 1,
    "generator_in_its_finally": 1,
    "generator_half_way": 1,
    "generator_in_a_forgotten_task": 1,
    "generator_whose_consumer_was_closed": None,  # before 3.13
    "loop_in_a_thread": 1,
}
# The shapes that `asyncio.run` leaves suspended.
NOISY = (
    "forgotten_task",
    "held_coroutine",
    "coroutine_in_a_cycle",
    "nested_coroutines",
    "clean_up_starts_tasks",
    "generator_in_its_finally",
)
FAILURE = re.compile("no running event loop|Event loop is closed|Task was destroyed but it is pending")


def outcome(python: str, shape: str, loop: str, how: str) -> subprocess.CompletedProcess[str]:
    command = [python, str(PROGRAM), shape, loop, how]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60)


def must_be_clean(done: subprocess.CompletedProcess[str], shape: str) -> None:
    assert not done.stderr, done.stdout
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    times = SHAPES[shape]
    assert lines == ["cleaned"] * (len(lines) - 1 if times is None else times) + ["end"]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_is_left_suspended(python: str, shape: str, loop: str) -> None:
    must_be_clean(outcome(python, shape, loop, "returns"), shape)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_is_left_suspended_after_a_stop(shape: str, loop: str) -> None:
    must_be_clean(outcome(sys.executable, shape, loop, "stopped"), shape)


@pytest.mark.parametrize("shape", NOISY)
def test_the_shape_fails_with_asyncio_run(shape: str) -> None:
    """Otherwise the tests above would prove nothing."""
    done = outcome(sys.executable, shape, "asyncio", "plain")
    assert FAILURE.search(done.stderr) or "left:" in done.stdout, done

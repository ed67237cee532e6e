"""After `run` nothing is in mid-air: each known shape of the failure, in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from .pythons import environment

PROGRAM = Path(__file__).parent / "programs" / "shapes.py"

# How often the clean-up is to run to its end.
SHAPES = {
    "task": 1,
    "forgotten_task": 3,
    "task_not_begun": 1,
    "held_coroutine": 1,
    "held_coroutine_that_yields": 1,
    "coroutine_in_a_cycle": 1,
    "nested_coroutines": 2,
    "clean_up_starts_tasks": 6,
    "clean_up_awaits_a_task": 1,
    "idle_generator": 1,
    "dropped_generator": 1,
    "dropped_generator_that_saves": 1,
    "generator_in_its_finally": 1,
    "generator_in_its_finally_step_gone": 1,
    "generator_half_way": 1,
    "generator_in_a_forgotten_task": 1,
    "generator_whose_consumer_was_closed": None,  # nothing resumes it before 3.13
    "nested_loop": 1,
    "nested_loop_closed_too_early": 2,
    "nested_loop_closed_too_early_and_collected": 2,
    "nested_loop_never_closed": 2,
    "nested_loop_in_a_thread_of_its_own": 2,
    "nested_loop_without_end": 1,
}
# Those that `asyncio.run` does not bring to their end without a word either.
NOISY = (
    "forgotten_task",
    "held_coroutine",
    "coroutine_in_a_cycle",
    "nested_coroutines",
    "clean_up_starts_tasks",
    "generator_in_its_finally",
    "generator_in_its_finally_step_gone",
    "nested_loop_closed_too_early",
    "nested_loop_closed_too_early_and_collected",
    "nested_loop_never_closed",
    "nested_loop_in_a_thread_of_its_own",
)
FAILURE = re.compile("no running event loop|Event loop is closed|Task was destroyed but it is pending")


def outcome(python: str, shape: str, loop: str, how: str) -> subprocess.CompletedProcess[str]:
    command = [python, str(PROGRAM), shape, loop, how]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60)


def must_be_clean(done: subprocess.CompletedProcess[str], shape: str) -> None:
    assert not re.sub("^the end waits for asyncio_0, .*\n", "", done.stderr), done.stdout
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    times = SHAPES[shape]
    assert lines == ["cleaned"] * (len(lines) - 1 if times is None else times) + ["end"]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_in_mid_air(python: str, shape: str, loop: str) -> None:
    must_be_clean(outcome(python, shape, loop, "returns"), shape)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_in_mid_air_after_a_stop(shape: str, loop: str) -> None:
    must_be_clean(outcome(sys.executable, shape, loop, "stopped"), shape)


@pytest.mark.parametrize("shape", NOISY)
def test_the_shape_fails_with_plain_asyncio(shape: str) -> None:
    """Otherwise it would show nothing."""
    done = outcome(sys.executable, shape, "asyncio", "plain")
    assert FAILURE.search(done.stderr) or "left:" in done.stdout, done

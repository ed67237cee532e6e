"""Reports of agents that hang in each way: they name the place."""

from __future__ import annotations

import os
import re
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.init import until

from .running import PROGRAMS

if TYPE_CHECKING:
    from tests.conftest import Start

    from .conftest import Run
    from .running import Program

HANG = str(PROGRAMS / "hang.py")
CHILDREN = str(PROGRAMS / "children.py")
LOOPS = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])


def hanging(run: Run, *words: str, python: str = sys.executable) -> Program:
    """The agent, asked to stop."""
    program = run(HANG, *words, python=python)
    assert program.line() == "ready"
    os.kill(program.pid, signal.SIGTERM)
    return program


def at(lines: list[str], words: str) -> int:
    """The number of the line with these words."""
    return next(number for number, line in enumerate(lines) if words in line)


@LOOPS
def test_a_task_that_never_ends(run: Run, loop: str) -> None:
    lines = hanging(run, "task", loop).reported("in flush_recordings: await asyncio.Event().wait()")
    assert at(lines, "main thread: waits in its event loop") < at(lines, "task Task-1")
    assert at(lines, "task Task-1") < at(lines, "in main:") < at(lines, "in Event.wait"), "the innermost is the last"


@LOOPS
def test_an_endless_loop(run: Run, loop: str) -> None:
    lines = hanging(run, "loop", loop).reported("in compress")
    assert at(lines, "main thread:") < at(lines, "in flush_recordings") < at(lines, "in compress")
    assert any("task Task-1, is running" in line for line in lines)


@LOOPS
def test_a_stuck_executor(run: Run, loop: str) -> None:
    lines = hanging(run, "executor", loop).reported("in upload: time.sleep(100)", "in flush_recordings")
    assert at(lines, "_0:") < at(lines, "in upload")


@LOOPS
def test_code_in_c_that_holds_the_gil(run: Run, loop: str) -> None:
    lines = hanging(run, "gil", loop).reported("did not answer within 1s: code in C holds the GIL")
    assert re.search(r"used \d\.\d\ds of a processor meanwhile", lines[at(lines, "did not answer")])


def test_a_thread_that_the_interpreter_waits_for(run: Run) -> None:
    lines = hanging(run, "thread").reported("in upload")
    assert (
        at(lines, "main thread:") < at(lines, "in _shutdown") < at(lines, "thread uploader:") < at(lines, "in upload")
    )


def test_a_task_that_swallows_its_cancellation(run: Run) -> None:
    lines = hanging(run, "refuses").reported("task stubborn, cancelled, goes on:", "awaits task stubborn")
    assert at(lines, "task stubborn, cancelled") < at(lines, "in hold_on: await asyncio.sleep(100)")


def test_tasks_alike_are_told_of_once(run: Run) -> None:
    lines = hanging(run, "many").reported("12 tasks (", "awaits 12 of 12")
    assert sum("in close_call" in line for line in lines) == 1


def test_every_version(run: Run, python: str) -> None:
    """Through what has no attribute that tells what it awaits: an asynchronous generator."""
    lines = hanging(run, "generator", python=python).reported("in words: await asyncio.sleep(100)")
    assert at(lines, "in main:") < at(lines, "in flush_recordings: async for") < at(lines, "in words:")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing(run: Run, python: str, method: str) -> None:
    """Two alike are told of together, and what multiprocessing runs for itself is known for what it is."""
    program = run(CHILDREN, method, python=python)
    assert program.line() == "ready"

    helpers = {"fork": [], "spawn": ["resource tracker"], "forkserver": ["fork server", "resource tracker"]}[method]

    def together() -> list[str]:
        """The report, once each process has got to where it stays."""
        lines = program.report()
        told = sorted(line.rpartition("multiprocessing's ")[2] for line in lines if "is multiprocessing's" in line)
        workers = [line for line in lines if re.match(r"pid \d+, \d+, main thread:", line)]
        return lines if workers and told == helpers and "in serve_caller: time.sleep(100)" in "".join(lines) else []

    lines = until(together, f"both workers in one, and {helpers}")
    assert not any("no stacks from" in line or "did not answer" in line for line in lines), lines


def test_under_process_1(start: Start) -> None:
    """--stacks: the report comes before the SIGKILL."""
    init = start("--stacks", "--grace", "6s", command=["--", sys.executable, HANG, "task"])
    until(lambda: init.outer.stdout and init.outer.stdout.readline(), "ready")
    init.signal("TERM")
    assert init.wait() == 137
    lines = init.lines()
    place = at(lines, "in flush_recordings: await asyncio.Event().wait()")
    assert at(lines, "the agent") < at(lines, "task Task-1") < place < at(lines, "SIGKILL; still there")
    assert " since the stop, " in lines[at(lines, ", the agent, ")]

"""The report names the place where an agent hangs, for each way of hanging."""

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


def hanging(run: Run, *arguments: str, python: str = sys.executable) -> Program:
    """Run `hang.py` and ask it to stop."""
    program = run(HANG, *arguments, python=python)
    assert program.line() == "ready"
    os.kill(program.pid, signal.SIGTERM)
    return program


def at(lines: list[str], text: str) -> int:
    """Return the index of the first line with this text."""
    return next(number for number, line in enumerate(lines) if text in line)


@LOOPS
def test_a_task_that_never_ends(run: Run, loop: str) -> None:
    lines = hanging(run, "task", loop).report_with("in flush_recordings: await asyncio.Event().wait()")
    assert at(lines, "main thread: idle in its event loop") < at(lines, "task Task-1")
    assert at(lines, "task Task-1") < at(lines, "in main:") < at(lines, "in Event.wait"), "the innermost frame is last"


@LOOPS
def test_an_endless_loop(run: Run, loop: str) -> None:
    lines = hanging(run, "loop", loop).report_with("in compress")
    assert at(lines, "main thread:") < at(lines, "in flush_recordings") < at(lines, "in compress")
    assert any("task Task-1, running" in line for line in lines)


@LOOPS
def test_a_stuck_executor(run: Run, loop: str) -> None:
    lines = hanging(run, "executor", loop).report_with("in upload: time.sleep(100)", "in flush_recordings")
    assert at(lines, "_0:") < at(lines, "in upload")


@LOOPS
def test_native_code_that_holds_the_gil(run: Run, loop: str) -> None:
    lines = hanging(run, "gil", loop).report_with("did not answer within 1s: native code holds the GIL")
    assert re.search(r"used \d\.\d\ds of CPU time meanwhile", lines[at(lines, "did not answer")])


def test_a_non_daemon_thread_that_delays_the_exit(run: Run) -> None:
    lines = hanging(run, "thread").report_with("in upload")
    assert (
        at(lines, "main thread:") < at(lines, "in _shutdown") < at(lines, "thread uploader:") < at(lines, "in upload")
    )


def test_a_task_that_ignores_its_cancellation(run: Run) -> None:
    lines = hanging(run, "refuses").report_with("task stubborn, cancelled but not finished:", "awaits task stubborn")
    assert at(lines, "task stubborn, cancelled") < at(lines, "in hold_on: await asyncio.sleep(100)")


def test_tasks_with_the_same_stack_are_reported_once(run: Run) -> None:
    lines = hanging(run, "many").report_with("12 tasks (", "awaits 12 of 12")
    assert sum("in close_call" in line for line in lines) == 1


def test_an_async_generator_on_every_version(run: Run, python: str) -> None:
    """An asynchronous generator has no attribute that names what it awaits; the stack goes through it all the same."""
    lines = hanging(run, "generator", python=python).report_with("in chunks: await asyncio.sleep(100)")
    assert at(lines, "in main:") < at(lines, "in flush_recordings: async for") < at(lines, "in chunks:")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing(run: Run, python: str, method: str) -> None:
    """Workers with the same stack share their lines, and multiprocessing's own helpers are named as such."""
    program = run(CHILDREN, method, python=python)
    assert program.line() == "ready"

    helpers = {"fork": [], "spawn": ["resource tracker"], "forkserver": ["fork server", "resource tracker"]}[method]

    def complete_report() -> list[str]:
        """Return the report if every process has reached the place where it stays, else []."""
        lines = program.report()
        named = sorted(line.rpartition("multiprocessing's ")[2] for line in lines if "is multiprocessing's" in line)
        workers = [line for line in lines if re.match(r"pid \d+, \d+, main thread:", line)]
        return lines if workers and named == helpers and "in serve_caller: time.sleep(100)" in "".join(lines) else []

    lines = until(complete_report, f"both workers in one line, and {helpers}")
    assert not any("no stacks from" in line or "did not answer" in line for line in lines), lines


def test_the_report_precedes_the_kill(start: Start) -> None:
    """Under process 1, with --stacks."""
    init = start("--stacks", "--grace", "6s", command=["--", sys.executable, HANG, "task"])
    until(lambda: init.outer.stdout and init.outer.stdout.readline(), "ready")
    init.signal("TERM")
    assert init.wait() == 137
    lines = init.lines()
    place = at(lines, "in flush_recordings: await asyncio.Event().wait()")
    assert at(lines, "the agent") < at(lines, "task Task-1") < place < at(lines, "SIGKILL; still running")
    assert " since the stop, " in lines[at(lines, ", the agent, ")]

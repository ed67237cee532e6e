"""A forked child is no part of its parent's run: signals to it are its own, and so is a stop."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.init import PATIENCE

from .pythons import environment

PROGRAM = Path(__file__).parent / "programs" / "forks.py"
LOOPS = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])


def output(python: str, kind: str, loop: str) -> list[str]:
    command = [python, "-W", "ignore::DeprecationWarning", str(PROGRAM), kind, loop]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@LOOPS
def test_children_that_are_terminated_end_and_their_parent_goes_on(python: str, loop: str) -> None:
    assert output(python, "terminates", loop) == ["ended by {-15}"]


@LOOPS
def test_a_child_may_run_too(python: str, loop: str) -> None:
    assert output(python, "child_runs", loop) == ["the child's", "exit code 0"]


@LOOPS
def test_handlers_in_a_child_are_those_before(python: str, loop: str) -> None:
    child = ["True True", "False None", "mine", "exit code 0"]
    assert output(python, "handlers", loop) == [*child, *child, "asked"]

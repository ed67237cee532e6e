"""A forked child is not part of its parent's run: it has its own signals and its own stop."""

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
def test_terminate_ends_a_child_and_not_its_parent(python: str, loop: str) -> None:
    assert output(python, "terminates", loop) == ["ended by {-15}"]


@LOOPS
def test_a_child_can_call_run(python: str, loop: str) -> None:
    assert output(python, "child_runs", loop) == ["the child's", "exit code 0"]


@LOOPS
def test_a_child_has_the_handlers_from_before_run(python: str, loop: str) -> None:
    child = ["True True", "False", "mine", "exit code 0"]
    assert output(python, "handlers", loop) == [*child, *child, "asked"]

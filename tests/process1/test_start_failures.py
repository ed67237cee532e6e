"""Failures during the start that hardly ever happen: agent-init is run with one function that fails."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import entrypoint

if TYPE_CHECKING:
    from tests.conftest import Start
    from tests.support.init import Init

PACKAGE = str(Path(entrypoint.__file__).parents[1])

# Like `first.py`, with the statements `troubles` that make a function fail.
PROGRAM = """
import _signal, os, sys
_signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
sys.path.insert(0, {package!r})
from entrypoint import start
from entrypoint.init import own_process, spawn, supervisor

def failing(real, *errors):
    left = list(errors)
    def call(*arguments, **more):
        if left:
            raise left.pop(0)
        return real(*arguments, **more)
    return call

{troubles}
os._exit(start.main(sys.argv[1:], {package!r}))
"""


def program(directory: Path, troubles: str) -> list[str]:
    script = directory / "agent-init"
    script.write_text(PROGRAM.format(package=PACKAGE, troubles=troubles))
    return [sys.executable, "-I", "-S", str(script)]


def assert_exits(init: Init, code: int) -> None:
    assert init.wait() == code
    assert not init.remaining_processes()


@pytest.mark.parametrize("part", ["own_process.adopt", "spawn.spawn"])
def test_failure_before_the_start_is_one_line_and_exit_code_125(
    start_in_role: Start, tmp_path: Path, part: str
) -> None:
    troubles = f"{part} = failing({part}, MemoryError('no memory at all'))"
    init = start_in_role(command=["sleep", "1000"], program=program(tmp_path, troubles))
    assert_exits(init, 125)
    assert init.stderr == "agent-init: error: cannot start: no memory at all\n"


def test_another_attempt_needs_no_file(start_in_role: Start, tmp_path: Path) -> None:
    """What is used only once was freed, and the package may be replaced at that moment."""
    tmp_path.chmod(0o777)
    made = tmp_path / "lib"
    shutil.copytree(Path(PACKAGE) / "entrypoint", made / "entrypoint", ignore=shutil.ignore_patterns("__pycache__"))
    troubles = f"""
from entrypoint.init import signalfd
genuine = signalfd.open_source
def open_source(fd):
    signalfd.open_source = genuine
    os.rename({str(made)!r}, {str(tmp_path / "gone")!r})
    raise OSError("no descriptor left")
signalfd.open_source = open_source
"""
    script = tmp_path / "agent-init"
    script.write_text(PROGRAM.format(package=str(made), troubles=troubles))
    init = start_in_role(
        agent="on('TERM', lambda: leave(5)); ready()", program=[sys.executable, "-I", "-S", str(script)]
    )
    init.wait_for_event("ready")
    init.wait_for_line("no descriptor left")
    init.signal("TERM")
    assert_exits(init, 5)
    assert init.lines("stop requested by TERM")


def test_failed_supervisor_construction_is_retried(start_in_role: Start, tmp_path: Path) -> None:
    """The agent already runs; the stop request stays pending."""
    troubles = "supervisor.Supervisor = failing(supervisor.Supervisor, MemoryError(), OSError('no'), ImportError('no'))"
    init = start_in_role(agent="on('TERM', lambda: leave(5)); ready()", program=program(tmp_path, troubles))
    init.wait_for_event("ready")
    init.signal("TERM")
    assert_exits(init, 5)
    assert init.wait_for_line("stop requested by TERM")


def test_exit_code_of_an_agent_that_exits_before_the_supervisor_exists(start_in_role: Start, tmp_path: Path) -> None:
    troubles = "supervisor.Supervisor = failing(None, *[MemoryError()] * 100_000)"
    init = start_in_role(agent="time.sleep(0.2); leave(6)", program=program(tmp_path, troubles))
    assert_exits(init, 6)
    assert init.lines()[0].startswith("error: cannot supervise the agent: MemoryError")
    assert init.lines()[-1] == "error: ended without a supervisor; exit code 6"
    assert len(init.lines()) == 3

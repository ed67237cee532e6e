"""What hardly ever goes wrong, in a real run: of a program that is agent-init with one part that fails."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import entrypoint

if TYPE_CHECKING:
    from tests.conftest import Start
    from tests.support.init import Init

PACKAGE = str(Path(entrypoint.__file__).parents[1])

# As `__main__.py`, and `troubles`: where it takes a change of the part that is to fail.
PROGRAM = """
import _signal, os, sys
_signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
sys.path.insert(0, {package!r})
from entrypoint import start
from entrypoint.init import spawn as process, supervisor

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


def ends(init: Init, code: int) -> None:
    assert init.wait() == code
    assert not init.left()


@pytest.mark.parametrize("part", ["adopt", "spawn"])
def test_whatever_fails_before_the_start_is_one_line_and_125(started: Start, tmp_path: Path, part: str) -> None:
    troubles = f"process.{part} = failing(process.{part}, MemoryError('no memory at all'))"
    init = started(command=["sleep", "1000"], program=program(tmp_path, troubles))
    ends(init, 125)
    assert init.stderr == "agent-init: error: cannot start: no memory at all\n"


def test_a_supervisor_that_cannot_be_made_at_first_is_made_later(started: Start, tmp_path: Path) -> None:
    """The agent runs by then; a stop request waits in the kernel."""
    troubles = "supervisor.Supervisor = failing(supervisor.Supervisor, MemoryError(), OSError('no'), ImportError('no'))"
    init = started(agent="on('TERM', lambda: leave(5)); ready()", program=program(tmp_path, troubles))
    init.event("ready")
    init.signal("TERM")
    ends(init, 5)
    assert init.said("stop requested by TERM")


def test_an_agent_that_ends_while_no_supervisor_can_be_made_is_answered_for(started: Start, tmp_path: Path) -> None:
    troubles = "supervisor.Supervisor = failing(None, *[MemoryError()] * 1000); start.BEFORE_RETRY = 0.0001"
    init = started(agent="time.sleep(0.2); leave(6)", program=program(tmp_path, troubles))
    ends(init, 6)
    assert init.stderr == ""

"""Agents that have started helpers: the stop signal is for the agent, not for what it uses.

Node handles TERM from birth, and so do databases and X servers. Beside an agent that does not handle it they must not
be taken for the program behind a wrapper, or the agent would never be signalled.
"""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.field import display, install
from tests.field.programs.helped import HELPERS
from tests.support.init import PATIENCE, clean_environment

if TYPE_CHECKING:
    from tests.conftest import Start
    from tests.support.init import Init

HELPED = Path(__file__).parent / "programs" / "helped.py"
GRACE = 8.0
AT_ONCE = 3.0  # seconds; the clean-up of 0.3 s included, and clearly before half of the grace
KINDS = ("asyncio", "uvloop", "sync")
OVER_PIPES = ("mcp server", "mcp server behind a shell", "transcoder", "transcoder, stdin inherited", "playwright")
BESIDE = ("redis", "redis, inherited", "xvfb", "xvfb, inherited")
SIGNALS = ("TERM", "INT", "auto")


def command(kind: str, helper: str) -> list[str]:
    """The agent, in an interpreter that has what it needs."""
    if helper == "playwright":
        python = str(install.helpers() / "bin" / "python")
    else:
        python = sys.executable
        program = HELPERS[helper][0][0]
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: python -m tests.field.install")
    if not Path(python).exists():
        pytest.skip("the environment for helpers is missing: python -m tests.field.install")
    return [python, str(HELPED), kind, helper]


def stop(start: Start, tmp_path: Path, argv: list[str], stop_signal: str) -> tuple[Init, int, float]:
    """Start it, stop it; the run, the exit code, and the seconds from TERM to the end of the agent itself."""
    options = ["-t", f"{GRACE:g}s", "--stop-signal", stop_signal]
    number = display.free()
    init = start(*options, command=argv, env=clean_environment(FIELD_DISPLAY=f":{number}"), cwd=tmp_path)
    init.wait_for_event("ready")
    agent = next(p for p in psutil.Process(init.pid).children(recursive=True) if str(HELPED) in p.cmdline()[:2])
    time.sleep(0.2)  # the agent comes to rest where it waits
    began = time.monotonic()
    init.signal("TERM")
    agent.wait(PATIENCE)
    seconds = time.monotonic() - began
    code = init.wait()
    display.clean(number)
    return init, code, seconds


def assert_signalled(init: Init, code: int, stop_signal: str) -> None:
    """The agent ended as without helpers: TERM's default action, or KeyboardInterrupt."""
    assert (code, "cleaned" in init.events()) == ((143, False) if stop_signal == "TERM" else (130, True)), init.stderr


@pytest.mark.parametrize("stop_signal", SIGNALS)
@pytest.mark.parametrize("helper", OVER_PIPES)
@pytest.mark.parametrize("kind", KINDS)
def test_an_agent_is_signalled_at_once_beside_a_helper_on_its_pipes(
    start: Start, tmp_path: Path, kind: str, helper: str, stop_signal: str
) -> None:
    init, code, seconds = stop(start, tmp_path, command(kind, helper), stop_signal)
    assert_signalled(init, code, stop_signal)
    assert seconds < AT_ONCE


@pytest.mark.parametrize("stop_signal", SIGNALS)
@pytest.mark.parametrize("helper", BESIDE)
@pytest.mark.parametrize("kind", KINDS)
def test_an_agent_is_signalled_in_time_beside_a_helper_that_shares_its_output(
    start: Start, tmp_path: Path, kind: str, helper: str, stop_signal: str
) -> None:
    init, code, seconds = stop(start, tmp_path, command(kind, helper), stop_signal)
    assert_signalled(init, code, stop_signal)
    assert seconds < GRACE / 2 + 1


@pytest.mark.parametrize("kind", KINDS)
def test_an_agent_is_signalled_at_half_of_the_grace_period_when_its_helper_stays(
    start: Start, tmp_path: Path, kind: str
) -> None:
    init, code, seconds = stop(start, tmp_path, command(kind, "stubborn"), "TERM")
    assert_signalled(init, code, "TERM")
    assert GRACE / 2 - 0.1 < seconds < GRACE / 2 + 1


@pytest.mark.parametrize("kind", KINDS)
def test_an_agent_that_handles_the_stop_signal_is_signalled_at_once(start: Start, tmp_path: Path, kind: str) -> None:
    init, code, seconds = stop(start, tmp_path, command(kind, "stubborn"), "INT")
    assert_signalled(init, code, "INT")
    assert seconds < AT_ONCE


@pytest.mark.parametrize("stop_signal", SIGNALS)
def test_an_agent_with_a_helper_is_signalled_behind_a_shell(start: Start, tmp_path: Path, stop_signal: str) -> None:
    line = shlex.join(command("asyncio", "mcp server"))
    init, code, seconds = stop(start, tmp_path, ["sh", "-c", f"{line}; exit $?"], stop_signal)
    assert_signalled(init, code, stop_signal)
    assert seconds < AT_ONCE

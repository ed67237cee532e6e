"""What process 1 does when its own files are removed, replaced or unreadable while the agent runs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.init import actor_line, until

if TYPE_CHECKING:
    from tests.conftest import Start
    from tests.support.init import Init

PACKAGE = Path(__file__).parents[2] / "entrypoint"


def replace(package: Path) -> None:
    """Put another version in its place, none of whose modules goes with those that are loaded."""
    for file in package.rglob("*.pyc"):
        file.unlink()
    for file in package.rglob("*.py"):
        file.write_text("raise SyntaxError('a module of another version was loaded')\n")


GONE: dict[str, Callable[[Path], object]] = {"removed": shutil.rmtree, "replaced": replace}


@pytest.fixture(params=sorted(GONE))
def gone(request: pytest.FixtureRequest) -> Callable[[Path], object]:
    """Does something to the installation."""
    return GONE[request.param]


@pytest.fixture
def start_copy(start_in_role: Start, tmp_path: Path, gone: Callable[[Path], object]) -> Start:
    """Start agent-init from a copy of the package, which is gone as soon as the agent is ready."""

    def run(*options: str, agent: str = "", command: list[str] | None = None, **more: Any) -> Init:
        shutil.copytree(PACKAGE, tmp_path / "entrypoint")
        program = [sys.executable, "-I", "-S", str(tmp_path / "entrypoint" / "__main__.py")]
        init = start_in_role(*options, agent=agent, command=command, program=program, **more)
        init.wait_for(lambda: init.records(event="ready"), "ready")
        init.wait_for_line("started")
        until(lambda: "poll" in Path(f"/proc/{init.pid}/wchan").read_text(), "process 1 to come to rest")
        gone(tmp_path / "entrypoint")
        return init

    return run


def test_signals_are_forwarded_or_dropped_as_before(start_copy: Start) -> None:
    init = start_copy(agent="on('HUP'); on('TERM', lambda: leave(7)); ready()")
    init.signal("USR1")  # it would end the agent
    init.wait_for_line("USR1")
    init.signal("HUP")
    init.wait_for_event("HUP")
    init.signal("TERM")
    assert init.wait() == 7
    assert init.events() == ["ready", "HUP", "TERM", "end"]
    assert "dropped: no process handles it" in init.wait_for_line("USR1")
    assert not init.lines("unexpected")
    assert not init.lines("cannot")


def test_the_stop_signal_goes_to_the_program_behind_a_shell(start_copy: Start) -> None:
    agent = actor_line("agent", "on('INT', lambda: leave(7)); ready()")
    init = start_copy("-t", "20s", "--", "sh", "-c", f"{agent}; exit $?")
    init.signal("TERM")
    assert init.wait() == 7
    assert init.lines("INT sent to")
    assert not init.lines("unexpected")


def test_what_the_agent_leaves_behind_gets_the_stop_signal(start_copy: Start) -> None:
    init = start_copy(agent="orphan('work', 'on(\"TERM\", leave); ready()'); on('TERM', lambda: leave(7)); forever()")
    init.signal("TERM")
    assert init.wait() == 7
    assert init.events("work") == ["ready", "TERM", "end"]
    assert not init.lines("unexpected")

"""--ready-file: it exists while the agent is ready, and is gone before the agent gets the stop signal."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.init import until
from tests.support.proc import PYTHON, wait_for_agent

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Start

READY = "on('USR1', lambda: notify('READY=1'))"


def test_it_exists_from_ready_to_the_stop_request(start_in_role: Start, tmp_path: Path) -> None:
    """The handler of the agent looks. A file of an earlier life is removed at the start."""
    path = tmp_path / "run" / "ready"
    path.parent.mkdir()
    path.write_text("of an earlier life")
    code = f"on('TERM', lambda: leave(3 if os.path.lexists({str(path)!r}) else 4)); {READY}; ready()"
    init = start_in_role("--ready-file", str(path), agent=code)
    init.wait_for_event("ready")
    assert not path.exists()
    init.signal("USR1")
    until(path.exists, "the file")
    assert path.read_text() == ""
    init.signal("TERM")
    assert init.wait() == 4, init.stderr
    assert not path.exists()


def test_it_is_gone_during_the_stop_delay(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "ready"
    init = start("--ready-file", str(path), "--stop-delay", "50s", "-t", "60s", agent="notify('READY=1'); ready()")
    until(path.exists, "the file")
    init.signal("TERM")
    until(lambda: not path.exists(), "its end")
    assert "TERM" not in init.events()
    os.kill(wait_for_agent(init, PYTHON), signal.SIGKILL)
    assert init.wait() == 137


def test_it_is_gone_at_a_hang(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "ready"
    code = f"on('ABRT', lambda: leave(3 if os.path.lexists({str(path)!r}) else 4)); notify('READY=1'); ready()"
    init = start("--ready-file", str(path), "--watchdog", "1s", agent=code)
    until(path.exists, "the file")
    assert init.wait() == 4
    assert not path.exists()


@pytest.mark.parametrize("end", ["leave(5)", "os.kill(os.getpid(), 9)"])
def test_it_is_gone_after_the_agents_exit(start_in_role: Start, tmp_path: Path, end: str) -> None:
    path = tmp_path / "ready"
    code = f"on('USR2', lambda: {end}); notify('READY=1'); ready()"
    init = start_in_role("--ready-file", str(path), agent=code)
    until(path.exists, "the file")
    init.signal("USR2")
    assert init.wait() in (5, 137)
    assert not path.exists()


def test_it_comes_once(start: Start, tmp_path: Path) -> None:
    """Another READY=1, after a reload say, is no reason to make it again; nor is one during the stop."""
    path = tmp_path / "ready"
    code = (
        "on('USR1', lambda: notify('READY=1')); on('TERM', lambda: (notify('READY=1'), log('told'))); on('INT', leave)"
    )
    init = start("--ready-file", str(path), "--stop-schedule", "TERM/60s/KILL", agent=f"{code}; ready()")
    init.wait_for_event("ready")
    init.signal("USR1")
    until(path.exists, "the file")
    init.signal("USR1")
    until(lambda: init.events().count("USR1") == 2, "the second one")
    init.signal("TERM")
    init.wait_for_event("told")
    os.kill(wait_for_agent(init, PYTHON), signal.SIGINT)
    assert init.wait() == 0
    assert not path.exists()
    assert not init.lines("ready file")


def test_a_link_in_its_place_is_replaced_and_not_followed(start: Start, tmp_path: Path) -> None:
    path, target = tmp_path / "ready", tmp_path / "target"
    target.write_text("kept")
    path.symlink_to(target)
    init = start("--ready-file", str(path), agent="on('TERM', leave); notify('READY=1'); ready()")
    until(lambda: path.exists() and not path.is_symlink(), "the file")
    init.signal("TERM")
    assert init.wait() == 0
    assert target.read_text() == "kept"


def test_a_link_that_comes_before_ready_is_not_followed(start: Start, tmp_path: Path) -> None:
    path, target = tmp_path / "ready", tmp_path / "target"
    init = start("--ready-file", str(path), agent=f"on('TERM', leave); {READY}; ready()")
    init.wait_for_event("ready")
    path.symlink_to(target)
    init.signal("USR1")
    assert "File exists" in init.wait_for_line("ready file")
    assert not target.exists()
    init.signal("TERM")
    assert init.wait() == 0


PROBLEMS = {"missing/ready": "No such file or directory", "folder": "Is a directory"}


@pytest.mark.parametrize("name", PROBLEMS)
def test_where_it_cannot_be_made_one_line_says_why_and_the_agent_runs(start: Start, tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    init = start("--ready-file", str(tmp_path / name), agent="on('TERM', leave); notify('READY=1'); ready()")
    init.wait_for_line("the agent is ready")
    line = init.wait_for_line("ready file")
    assert name in line
    init.signal("TERM")
    assert init.wait() == 0

"""Source lines are read with the permissions of the process that names the file."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from entrypoint.report.sources import Sources

from .running import Program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import Run

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="dropping privileges requires root")

# Its stack has a frame in a file of its choice, and one in its own file. Prints `ready` when it is there.
AGENT = """
import os, sys, time
def wait():
    print('ready', flush=True)
    while True: time.sleep(9)  # its own line
names = {}
exec(compile('def call(function): function()', sys.argv[1], 'exec'), names)
exec(sys.argv[2])
names['call'](wait)
"""
DROP = "os.setgroups([]); os.setgid(65534); os.setuid(65534)"


@pytest.fixture
def place() -> Iterator[Path]:
    """Return a world-readable directory with the program, and a secret that only root can read."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    (directory / "agent.py").write_text(AGENT)
    (directory / "secret").write_text("root:hunter2\n")
    (directory / "secret").chmod(0o600)
    yield directory
    shutil.rmtree(directory)


def agent(run: Run, place: Path, file: object, prepare: str, **more: Any) -> Program:
    """Run the agent with a frame in `file`, after the statements `prepare`."""
    program = run(str(place / "agent.py"), str(file), prepare, **more)
    assert program.line() == "ready"
    return program


def report_text(program: Program) -> str:
    return "\n".join(program.report_with("agent.py:5 in wait"))


def test_a_file_that_the_agent_may_not_read(run: Run, place: Path) -> None:
    text = report_text(agent(run, place, place / "secret", DROP))
    assert "secret:1 in call" in text
    assert "hunter2" not in text
    assert "# its own line" in text


def test_a_directory_that_the_agent_may_not_enter(run: Run, place: Path) -> None:
    (place / "closed").mkdir(mode=0o700)
    (place / "closed" / "open").write_text("root:hunter2\n")
    assert "hunter2" not in report_text(agent(run, place, place / "closed" / "open", DROP))


def test_supplementary_groups_apply(run: Run, place: Path) -> None:
    os.chown(place / "secret", 0, 4242)
    (place / "secret").chmod(0o640)
    for groups, may_read in (("[4242]", True), ("[4243]", False)):
        text = report_text(agent(run, place, place / "secret", DROP.replace("[]", groups)))
        assert ("hunter2" in text) == may_read


def test_an_agent_that_dropped_its_privileges_and_ran_another_program(run: Run, place: Path) -> None:
    again = f"if os.getuid() == 0: {DROP}; os.execv(sys.executable, [sys.executable, *sys.argv])"
    text = report_text(agent(run, place, place / "secret", again, python="/usr/bin/python3"))
    assert "hunter2" not in text
    assert "# its own line" in text


def test_root_without_its_capabilities(run: Run, place: Path) -> None:
    """It may not read another user's file."""
    os.chown(place / "secret", 4242, 4242)
    drop = "os.execvp('setpriv', ['setpriv', '--bounding-set', '-all', sys.executable, *sys.argv[:2], ''])"
    text = report_text(agent(run, place, place / "secret", drop))
    assert "secret:1 in call" in text
    assert "hunter2" not in text
    assert "hunter2" in report_text(agent(run, place, place / "secret", ""))


def test_an_agent_with_another_root(run: Run, place: Path) -> None:
    """A file that is not below its root is not read from ours."""
    (place / "jail").mkdir()
    program = agent(run, place, place / "secret", f"os.chroot({str(place / 'jail')!r}); os.chdir('/')")
    assert "hunter2" not in report_text(program)


def test_only_regular_files_are_opened(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a device can have an effect, and files in /proc describe the process that reads them."""
    os.mkfifo(place / "pipe")
    (place / "link").symlink_to("/dev/null")
    opened = []
    monkeypatch.setattr(os, "open", lambda path, *_: opened.append(path))
    sources = Sources(os.getpid())
    for file in (place / "pipe", place / "link", place, "/dev/zero", "/proc/self/environ", "a\0b"):
        assert sources.line(str(file), 1) == ""
    assert not opened


def test_the_reporter_regains_its_own_identity(place: Path) -> None:
    program = Program([str(place / "agent.py"), "/none", DROP], python=sys.executable, stacks=False)
    program.line()
    before = os.getresuid(), os.getresgid(), os.getgroups()
    assert Sources(program.pid).line(str(place / "secret"), 1) == ""
    program.close()
    assert (os.getresuid(), os.getresgid(), os.getgroups()) == before
    assert Sources(os.getpid()).line(str(place / "secret"), 1) == "root:hunter2"

"""Lines of source come with no more power than the process has that names the file."""

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

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="to give up privileges takes root")

# It says so when it has begun; its stack has a line of a file that it names, and one of its own.
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
    """A directory that everybody can look into, with the program there, and a secret that only root can read."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    (made / "agent.py").write_text(AGENT)
    (made / "secret").write_text("root:hunter2\n")
    (made / "secret").chmod(0o600)
    yield made
    shutil.rmtree(made)


def agent(run: Run, place: Path, file: object, how: str, **more: Any) -> Program:
    program = run(str(place / "agent.py"), str(file), how, **more)
    assert program.line() == "ready"
    return program


def text(program: Program) -> str:
    return "\n".join(program.reported("agent.py:5 in wait"))


def test_a_file_that_the_agent_may_not_read(run: Run, place: Path) -> None:
    told = text(agent(run, place, place / "secret", DROP))
    assert "secret:1 in call" in told
    assert "hunter2" not in told
    assert "# its own line" in told


def test_a_directory_that_the_agent_may_not_enter(run: Run, place: Path) -> None:
    (place / "closed").mkdir(mode=0o700)
    (place / "closed" / "open").write_text("root:hunter2\n")
    assert "hunter2" not in text(agent(run, place, place / "closed" / "open", DROP))


def test_groups_count(run: Run, place: Path) -> None:
    os.chown(place / "secret", 0, 4242)
    (place / "secret").chmod(0o640)
    for groups, may in (("[4242]", True), ("[4243]", False)):
        told = text(agent(run, place, place / "secret", DROP.replace("[]", groups)))
        assert ("hunter2" in told) == may


def test_an_agent_that_dropped_its_privileges_and_ran_another_program(run: Run, place: Path) -> None:
    again = f"if os.getuid() == 0: {DROP}; os.execv(sys.executable, [sys.executable, *sys.argv])"
    told = text(agent(run, place, place / "secret", again, python="/usr/bin/python3"))
    assert "hunter2" not in told
    assert "# its own line" in told


def test_root_without_its_capabilities(run: Run, place: Path) -> None:
    """Another user's file is none that it may read."""
    os.chown(place / "secret", 4242, 4242)
    drop = "os.execvp('setpriv', ['setpriv', '--bounding-set', '-all', sys.executable, *sys.argv[:2], ''])"
    told = text(agent(run, place, place / "secret", drop))
    assert "secret:1 in call" in told
    assert "hunter2" not in told
    assert "hunter2" in text(agent(run, place, place / "secret", ""))


def test_another_root(run: Run, place: Path) -> None:
    """A file that its root does not have is not taken from ours."""
    (place / "jail").mkdir()
    program = agent(run, place, place / "secret", f"os.chroot({str(place / 'jail')!r}); os.chdir('/')")
    assert "hunter2" not in text(program)


def test_what_is_no_file_is_not_opened(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To open a device may do something; and what is in /proc tells of whoever reads it."""
    os.mkfifo(place / "pipe")
    (place / "link").symlink_to("/dev/null")
    opened = []
    monkeypatch.setattr(os, "open", lambda path, *_: opened.append(path))
    sources = Sources(os.getpid())
    for file in (place / "pipe", place / "link", place, "/dev/zero", "/proc/self/environ", "a\0b"):
        assert sources.line(str(file), 1) == ""
    assert not opened


def test_our_rights_are_ours_again(place: Path) -> None:
    program = Program([str(place / "agent.py"), "/none", DROP], python=sys.executable, stacks=False)
    program.line()
    before = os.getresuid(), os.getresgid(), os.getgroups()
    assert Sources(program.pid).line(str(place / "secret"), 1) == ""
    program.close()
    assert (os.getresuid(), os.getresgid(), os.getgroups()) == before
    assert Sources(os.getpid()).line(str(place / "secret"), 1) == "root:hunter2"

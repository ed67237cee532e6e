"""Ends that get a hint: an agent that has replaced itself, or that may have exited because its parent is pid 1."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.init import AGENT_INIT, actor

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Start
    from tests.support.init import Init

HINT = "runs the same program"
PARENT = "if it exits because its parent has pid 1, start it as a shell's child"

# Restarts itself once, in the way that the first argument names; the second one then runs until TERM.
RESTARTS = """
import os, signal, socket, subprocess, sys, time
how, log = sys.argv[1:3]
again = [sys.executable, *sys.argv[:1], "once more", log]
if how == "detached":
    subprocess.Popen(again, start_new_session=True)
elif how == "same group":
    subprocess.Popen(again)
elif how == "daemon":
    if os.fork():
        os._exit(0)
    os.setsid()
    how = "once more"
elif how == "exec":
    os.execv(sys.executable, again)
elif how == "mainpid":
    child = subprocess.Popen(again, start_new_session=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.sendto(b"MAINPID=%d" % child.pid, os.environ["NOTIFY_SOCKET"].replace("@", "\\0"))
elif how == "other":
    subprocess.Popen(["sleep", "100"], start_new_session=True)
elif how == "fails":
    subprocess.Popen(again, start_new_session=True)
    sys.exit(3)
if how == "once more":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
    with open(log, "a") as file:
        file.write("up\\n")
    while True:
        time.sleep(0.05)
if how != "detached":
    with open(log) as file:  # both are there at once
        while not file.read() and how in ("same group", "mainpid"):
            time.sleep(0.02)
"""


@pytest.fixture
def program(tmp_path: Path) -> list[str]:
    (tmp_path / "restarts.py").write_text(RESTARTS)
    (tmp_path / "log").touch()
    return [sys.executable, str(tmp_path / "restarts.py")]


@pytest.mark.parametrize("how", ["detached", "same group", "daemon"])
def test_agent_that_replaces_itself_is_recognised(
    start_in_role: Start, tmp_path: Path, program: list[str], how: str
) -> None:
    init = start_in_role(command=[*program, how, str(tmp_path / "log")])
    assert init.wait() in (0, 5)
    line = init.wait_for_line(HINT)
    assert line.startswith("warning: the agent exited without a stop request, while python")
    assert "exec" in line
    assert "MAINPID=" in line
    assert not init.lines(PARENT)


def test_agent_behind_a_shell_that_replaces_itself_is_recognised(
    start_in_role: Start, tmp_path: Path, program: list[str]
) -> None:
    line = f"{' '.join(program)} detached {tmp_path / 'log'}; exit $?"
    init = start_in_role(command=["sh", "-c", line])
    assert init.wait() == 0
    assert init.lines(HINT)


@pytest.mark.parametrize("how", ["exec", "mainpid"])
def test_remedies(start_in_role: Start, tmp_path: Path, program: list[str], how: str) -> None:
    """With these the successor is the agent."""
    log = tmp_path / "log"
    init = start_in_role("-t", "20s", command=[*program, how, str(log)])
    init.wait_for(log.read_text, "the successor")
    if how == "mainpid":
        init.wait_for_line("is the agent now")
    init.signal("TERM")
    assert init.wait() == 5
    assert not init.lines(HINT)


@pytest.mark.parametrize("how", ["other", "fails"])
def test_other_ends_get_no_hint(start_in_role: Start, tmp_path: Path, program: list[str], how: str) -> None:
    """Another program is left behind, or the agent has failed."""
    init = start_in_role(command=[*program, how, str(tmp_path / "log")])
    assert init.wait() == (3 if how == "fails" else 0)
    assert init.lines("left processes behind")
    assert not init.lines(HINT)


def test_agent_that_was_asked_to_stop_gets_no_hint(start_in_role: Start) -> None:
    agent = "orphan('tool', \"on('TERM', lambda: leave(0)); ready()\"); on('TERM', lambda: leave(0)); ready()"
    init = start_in_role("-t", "20s", agent=agent)
    init.wait_for_event("ready", "tool")
    init.wait_for_event("ready")
    init.signal("TERM")
    assert init.wait() == 0
    assert init.lines("left processes behind")
    assert not init.lines(HINT)
    assert not init.lines(PARENT)


# --- The parent is process 1. ---------------------------------------------------------------------------------------

MINDS = (
    "import os, sys, time; print('works' if os.getppid() != 1 else 'exits', flush=True); time.sleep(float(sys.argv[1]))"
)


def output(init: Init) -> str:
    assert init.outer.stdout
    return str(init.outer.stdout.read().decode())


def test_agent_that_exits_at_once_gets_a_hint_as_a_child_of_process_1(start: Start) -> None:
    init = start(command=[sys.executable, "-S", "-c", MINDS, "0"])
    assert init.wait() == 0
    assert output(init) == "exits\n"
    assert PARENT in init.lines("ended: ")[0]


@pytest.mark.parametrize(
    "between", [["sh", "-c", '"$@"; exit $?', "sh"], [str(AGENT_INIT), "-q", "--"]], ids=["sh", "init"]
)
def test_process_between_is_the_remedy(start: Start, between: list[str]) -> None:
    init = start(command=["--", *between, sys.executable, "-S", "-c", MINDS, "0"])
    assert init.wait() == 0
    assert output(init) == "works\n"


@pytest.mark.parametrize(("seconds", "process1"), [("1.1", True), ("0", False)], ids=["later", "subreaper"])
def test_no_hint_for_a_longer_run_or_another_parent(start: Start, seconds: str, process1: bool) -> None:
    init = start(command=[sys.executable, "-S", "-c", MINDS, seconds], process1=process1)
    assert init.wait() == 0
    assert not init.lines(PARENT)


def test_no_hint_for_a_failure(start: Start, tmp_path: Path) -> None:
    init = start(command=["--", *actor(tmp_path / "events.jsonl", "agent", "leave(1)")])
    assert init.wait() == 1
    assert not init.lines(PARENT)

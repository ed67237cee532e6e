"""Why it ended: in the last line, and in the termination log that an orchestrator keeps (/dev/termination-log)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

import entrypoint
from tests.support.init import clean_environment

if TYPE_CHECKING:
    from tests.conftest import Start
    from tests.support.init import Init

STUBBORN = "ignore('TERM'); tell('STATUS=busy'); ready()"
WAYS = [
    pytest.param("leave(0)", 0, "exited with code 0", "exited", id="exits"),
    pytest.param("leave(3)", 3, "exited with code 3", "exited", id="fails"),
    pytest.param("os.kill(os.getpid(), 11)", 139, "was killed by SIGSEGV", "signal", id="crashes"),
    pytest.param("os.kill(os.getpid(), 9)", 137, "somebody else did", "killed", id="is killed"),
    pytest.param("tell('WATCHDOG=trigger'); ready()", 134, "after it was found to hang", "watchdog", id="hangs"),
]


@pytest.mark.parametrize(("agent", "code", "words", "cause"), WAYS)
def test_the_end_is_explained(started: Start, tmp_path: Path, agent: str, code: int, words: str, cause: str) -> None:
    log = tmp_path / "termination-log"
    init = started("--log-format", "json", "--termination-log", str(log), agent=agent)
    assert init.wait() == code
    end = json.loads(init.stderr.splitlines()[-1])
    assert (end["event"], end["code"], end["cause"]) == ("ended", code, cause)
    if words == "somebody else did" and words not in end["message"]:
        words = "which agent-init did not send"  # where no control group tells of the OOM killer
    assert words in end["message"]
    assert log.exists() == bool(code)
    if code:
        assert log.read_text().splitlines()[0] == end["message"]


def test_the_deadline_is_explained_with_who_was_left(started: Start, tmp_path: Path) -> None:
    log = tmp_path / "termination-log"
    log.write_text("of an earlier life " * 1000)
    init = started(
        "-t", "400ms", "--termination-log", str(log), agent="child('x', \"ignore('TERM'); ready()\");" + STUBBORN
    )
    init.event("ready")
    init.event("ready", "x")
    init.signal("TERM")
    assert init.wait() == 137
    first, *more = log.read_text().splitlines()
    assert first.startswith("ended: the agent was killed by SIGKILL when its time was up, ")
    assert "; there when it was sent: python" in first
    assert 'its last status: "busy"' in first
    assert any("after the stop request, SIGKILL; still there" in line for line in more)
    assert "of an earlier life" not in log.read_text()


def test_a_kill_from_outside_is_told_as_that(started: Start, tmp_path: Path) -> None:
    init = started("--termination-log", "none", agent="ready()")
    init.event("ready")
    psutil.Process(init.pid).children()[0].kill()
    assert init.wait() == 137
    assert "agent-init" in init.said("ended: the agent was killed by SIGKILL, which")


def test_the_log_is_cut_to_what_an_orchestrator_keeps(started: Start, tmp_path: Path) -> None:
    log = tmp_path / "termination-log"
    steps = "/".join("USR1/10ms" for _ in range(150))
    agent = "on('USR1'); on('TERM'); ready()"
    init = started("--stop-schedule", f"TERM/10ms/{steps}/KILL", "--termination-log", str(log), agent=agent)
    init.event("ready")
    init.signal("TERM")
    assert init.wait() == 137
    text = log.read_bytes()
    assert 3500 < len(text) <= 4096
    assert text.startswith(b"ended: ")


def test_a_log_that_is_not_there_is_not_made_unless_it_is_named(started: Start) -> None:
    path = Path("/dev/termination-log")
    if path.exists():
        pytest.skip("this machine has one")
    init = started(agent="leave(3)")
    assert init.wait() == 3
    assert not path.exists()


@pytest.mark.parametrize("place", ["missing/log", "", "fifo"])
def test_a_log_that_cannot_be_written_holds_nothing_up(started: Start, tmp_path: Path, place: str) -> None:
    import os

    os.mkfifo(tmp_path / "fifo")
    init = started("--termination-log", str(tmp_path / place), agent="leave(3)")
    assert init.wait() == 3


def test_a_command_that_cannot_be_run_is_told_there_too(started: Start, tmp_path: Path) -> None:
    log = tmp_path / "termination-log"
    init = started("--termination-log", str(log), command=["--", "no-such-program"])
    assert init.wait() == 127
    assert log.read_text().startswith("cannot run 'no-such-program': not found in PATH")


@pytest.mark.parametrize("well", [False, True])
def test_before_a_platform_kills_us_the_log_is_written(started: Start, tmp_path: Path, well: bool) -> None:
    """There is no last line then. Where the agent ends well after all, the log says nothing."""
    log = tmp_path / "termination-log"
    platform = clean_environment(RAILWAY_DEPLOYMENT_DRAINING_SECONDS="3")
    agent = "on('TERM'); on('USR1', leave); ready()"
    init = started("--termination-log", str(log), agent=agent, env=platform, may_leave=True)
    init.event("ready")
    init.signal("TERM")
    init.wait_for(lambda: log.exists() and "report: " in log.read_text(), "a report in the termination log")
    assert "Railway (3s as set)" in log.read_text().splitlines()[0]
    if well:
        init.signal("USR1")
        assert init.wait() == 0
        assert log.read_text() == ""
    else:
        init.signal("KILL")
        init.wait()
        assert "report: " in log.read_text()
        for process in init.left():
            process.kill()


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        pytest.param(["-r", "USR1:KILL", "--unhandled", "forward"], ["USR1"], id="rewritten"),
        pytest.param(["-r", "INT:KILL", "--repeat", "forward"], ["TERM", "INT"], id="at a second request"),
    ],
)
def test_a_kill_that_was_passed_on_is_told_as_that(started: Start, options: list[str], sent: list[str]) -> None:
    init = started(*options, "-t", "20s", agent="on('TERM'); ready()")
    init.event("ready")
    for name in sent:
        init.signal(name)
        init.wait_for(lambda: init.outer.poll() is not None or init.events()[-1] == "TERM", name)
    assert init.wait() == 137
    assert "was killed by SIGKILL, which was passed on to it, " in init.lines("ended: ")[0]


def test_a_signal_that_is_dropped_takes_no_room_in_the_termination_log(started: Start, tmp_path: Path) -> None:
    log = tmp_path / "termination-log"
    init = started("-t", "3s", "--termination-log", str(log), agent="on('TERM'); ready()")
    init.event("ready")
    init.signal("TERM")
    init.event("TERM")
    for _ in range(60):  # as many as would fill it; some may come as one
        before = len(init.lines("dropped"))
        if init.outer.poll() is None:
            init.signal("USR1")
        init.wait_for(partial(dropped_more, init, before), "the line")
    assert init.wait() == 137
    assert "dropped" not in log.read_text()
    assert "SIGKILL; still there: python" in log.read_text()


def test_the_termination_log_is_not_written_through_a_link(started: Start, tmp_path: Path) -> None:
    """Whoever may write to its directory could have root's process 1 write anywhere."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("as it was")
    log = tmp_path / "termination-log"
    log.symlink_to(elsewhere)
    init = started("--termination-log", str(log), agent="leave(3)")
    assert init.wait() == 3
    assert elsewhere.read_text() == "as it was"


def test_a_termination_log_beyond_the_limit_of_a_file_tells_nobody(start: Start, tmp_path: Path) -> None:
    """The kernel sends XFSZ with the error (RLIMIT_FSIZE, getrlimit(2)): it is not passed on to the agent.

    A shell whose command has ended runs its traps in the order of their numbers: PWR's is the later one.
    """
    log = tmp_path / "termination-log"
    log.touch()
    agent = "trap 'echo got XFSZ' XFSZ; trap 'echo got PWR; exit 0' PWR; trap '' TERM; while :; do sleep 0.1; done"
    init = start(
        "--termination-log",
        str(log),
        command=["bash", "-c", agent],
        process1=False,
        before=["prlimit", "--fsize=0"],
        env=clean_environment(RAILWAY_DEPLOYMENT_DRAINING_SECONDS="2"),
        stderr=subprocess.STDOUT,
    )
    out = init.outer.stdout
    assert out is not None
    said = [out.readline()]
    init.signal("TERM")
    while b"report: sleep" not in said[-1]:  # by then it was written once
        said.append(out.readline())
    init.signal("PWR")
    said += out.readlines()
    assert init.wait() == 0
    assert b"got PWR\n" in said
    assert b"got XFSZ\n" not in said


def test_modules_that_cannot_be_kept_compiled_tell_nobody(start: Start, tmp_path: Path) -> None:
    """The interpreter writes them in process 1, and the kernel answers with XFSZ as above."""
    copy = tmp_path / "copy" / "entrypoint"
    shutil.copytree(entrypoint.__path__[0], copy, ignore=shutil.ignore_patterns("__pycache__"))
    init = start(
        command=["--", "bash", "-c", "trap 'echo got XFSZ' XFSZ; trap 'exit 0' TERM; while :; do sleep 0.1; done"],
        process1=False,
        before=["prlimit", "--fsize=0"],
        program=[sys.executable, "-I", "-S", str(copy / "__main__.py")],
        stderr=subprocess.STDOUT,
    )
    out = init.outer.stdout
    assert out is not None
    said = [out.readline()]  # the start line: all is loaded by then
    init.signal("TERM")
    said += out.readlines()
    assert init.wait() in (0, 143)  # the trap may come late
    assert b"ended: " in said[-1]
    assert b"XFSZ" not in b"".join(said)
    assert not list(copy.rglob("*.pyc"))


def test_a_reporter_that_is_stopped_has_not_ended(started: Start) -> None:
    """It is killed when its time is up, and is none of those that the agent left behind."""
    init = started("-t", "2s", "-w", "--watchdog", "1s", agent="on('ABRT'); tell('WATCHDOG=1'); ready()")
    reporter = init.wait_for(lambda: reporters(init.pid), "a reporter")[0]
    reporter.suspend()
    init.event("ABRT")
    init.wait_for(lambda: not reporter.is_running(), "its end")
    assert init.wait() == 137
    assert not init.lines("reaped orphan")


def dropped_more(init: Init, before: int) -> bool:
    """Further signals were told as dropped; or it is over."""
    return len(init.lines("dropped")) > before or init.outer.poll() is not None


def reporters(pid: int) -> list[psutil.Process]:
    """Those that make a report for the process."""
    found = []
    for child in psutil.Process(pid).children():
        try:
            found += [child] if any("entrypoint/report" in word for word in child.cmdline()) else []
        except psutil.Error:
            continue
    return found

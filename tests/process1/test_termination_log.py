"""The final message and the termination log (/dev/termination-log) say why the agent exited."""

from __future__ import annotations

import json
import os
import re
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
from tests.support.proc import children_of

if TYPE_CHECKING:
    from tests.conftest import Start
    from tests.support.init import Init

STUBBORN = "ignore('TERM'); notify('STATUS=busy'); ready()"
EXITS = [
    pytest.param("leave(0)", 0, "exited with code 0", "exited", False, id="exits"),
    pytest.param("leave(3)", 3, "exited with code 3", "exited", False, id="fails"),
    pytest.param("os.kill(os.getpid(), 11)", 139, "was killed by SIGSEGV", "signal", False, id="crashes"),
    pytest.param("os.kill(os.getpid(), 9)", 137, "killed by SIGKILL", "killed", True, id="is killed"),
    pytest.param(
        "notify('WATCHDOG=trigger'); ready()", 134, "after the hang was detected", "watchdog", True, id="hangs"
    ),
]


@pytest.mark.parametrize(("agent", "code", "text", "cause", "explains"), EXITS)
def test_final_message_explains_what_the_platform_cannot_know(
    start_in_role: Start, tmp_path: Path, agent: str, code: int, text: str, cause: str, explains: bool
) -> None:
    log = tmp_path / "termination-log"
    init = start_in_role("--log-format", "json", "--termination-log", str(log), agent=agent)
    assert init.wait() == code
    end = json.loads(init.stderr.splitlines()[-1])
    assert (end["event"], end["code"], end["cause"]) == ("ended", code, cause)
    assert text in end["message"]
    if explains:
        assert log.read_text().splitlines()[0] == end["message"]
    else:
        assert not log.exists() or log.read_text() == ""


@pytest.mark.parametrize("mode", ["w", "a"])
def test_agents_own_message_stays(start_in_role: Start, tmp_path: Path, mode: str) -> None:
    """Before the stop request, at it, and while agent-init ends the stop."""
    log = tmp_path / "termination-log"
    write = f"print('lost the database', file=open({str(log)!r}, {mode!r}))"
    agent = f"on('TERM', lambda: {write}); on('USR1', lambda: ({write}, log('wrote'))); ready()"
    init = start_in_role("-t", "2s", "--termination-log", str(log), agent=agent)
    init.wait_for_event("ready")
    init.signal("USR1")
    init.wait_for_event("wrote")
    assert log.read_text() == "lost the database\n"
    init.signal("TERM")
    assert init.wait() == 137
    lines = log.read_text().splitlines()
    own = 2 if mode == "a" else 1
    assert lines[:own] == ["lost the database"] * own
    assert lines[own].startswith("agent-init: ended: the agent was killed by SIGKILL at the deadline, ")
    assert lines[own + 1].startswith("stop requested at ")
    assert "lost" not in "".join(lines[own:])


@pytest.mark.parametrize("code", [0, 1])
def test_end_by_itself_during_a_stop_leaves_only_the_agents_message(
    start_in_role: Start, tmp_path: Path, code: int
) -> None:
    """Where the file is empty, Kubernetes can show the log's last lines: a traceback."""
    log = tmp_path / "termination-log"
    log.write_text("")
    agent = f"on('TERM'); on('USR1', lambda: leave({code})); ready()"
    init = start_in_role("-t", "20s", "--termination-log", str(log), agent=agent)
    init.wait_for_event("ready")
    init.signal("TERM")
    init.wait_for(lambda: "stopping since " in log.read_text(), "the message")
    init.signal("USR1")
    assert init.wait() == code
    assert log.read_text() == ""


def test_message_is_there_from_the_stop_request_on(start_in_role: Start, tmp_path: Path) -> None:
    """A SIGKILL from outside leaves no time for one."""
    log = tmp_path / "termination-log"
    agent = "child('x', \"ignore('TERM'); ready()\"); on('TERM'); ready()"
    init = start_in_role("-t", "60s", "--termination-log", str(log), agent=agent, allow_leftovers=True)
    init.wait_for_event("ready", "x")
    init.wait_for_event("ready")
    init.signal("TERM")
    init.wait_for_event("TERM")
    init.wait_for(lambda: log.exists() and log.read_text(), "the message")
    init.signal("KILL")
    init.wait()
    [line] = log.read_text().splitlines()
    assert re.match(r"stopping since \d\d:\d\d:\d\d UTC, requested by TERM from .*; still running: python", line)
    assert line.count("python") >= 2
    for process in init.remaining_processes():
        process.kill()


def test_default_file_of_a_pod(start: Start, tmp_path: Path) -> None:
    """It is a mount: it can be neither replaced nor removed. A pod needs no other evidence of Kubernetes."""
    log = tmp_path / "termination-log"
    log.touch()
    init = start(agent="on('TERM'); on('USR1', leave); ready()", before=pod(log))
    init.wait_for_event("ready")
    assert "Kubernetes's own, 30s unless raised" in init.wait_for_line("started ")
    init.signal("TERM")
    init.wait_for(lambda: "stopping since " in log.read_text(), "the message")
    assert log.read_text().endswith("; Kubernetes usually waits 30s\n")
    init.signal("USR1")
    assert init.wait() == 0
    assert log.read_text() == ""


def test_failure_to_write_is_logged_once(start_in_role: Start, tmp_path: Path) -> None:
    agent = "on('TERM'); on('USR1'); ready()"
    init = start_in_role(
        "--stop-schedule", "TERM/300ms/USR1/300ms/KILL", "--termination-log", str(tmp_path), agent=agent
    )
    init.wait_for_event("ready")
    init.signal("TERM")
    assert init.wait() == 137
    [line] = init.lines("termination log")
    assert line == f"warning: cannot write the termination log {tmp_path}: Is a directory"


def test_full_disk_keeps_the_agents_message(start: Start, tmp_path: Path) -> None:
    """A file system of one page: the agent's message fits, ours does not."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f'mount -t tmpfs -o size=4096 none {disk} && exec "$@"'
    agent = f"open({str(disk / 'log')!r}, 'w').write('x' * 4000); on('TERM'); ready()"
    options = ("-t", "500ms", "--termination-log", str(disk / "log"))
    init = start(*options, agent=agent, before=[*needs_root(), "sh", "-c", mount, "sh"])
    init.wait_for_event("ready")
    kept = Path(f"/proc/{init.pid}/root{disk}/log")
    init.signal("TERM")
    init.wait_for_event("TERM")
    assert kept.read_text()[:4000] == "x" * 4000
    assert init.wait() == 137


def test_final_message_lists_the_processes_left_at_the_deadline(start_in_role: Start, tmp_path: Path) -> None:
    log = tmp_path / "termination-log"
    log.write_text("of an earlier life " * 1000)
    os.utime(log, (1, 1))
    init = start_in_role(
        "-t", "400ms", "--termination-log", str(log), agent="child('x', \"ignore('TERM'); ready()\");" + STUBBORN
    )
    init.wait_for_event("ready")
    init.wait_for_event("ready", "x")
    init.signal("TERM")
    assert init.wait() == 137
    first, *more = log.read_text().splitlines()
    assert first.startswith("ended: the agent was killed by SIGKILL at the deadline, ")
    assert "; running when it was sent: python" in first
    assert 'its last status: "busy"' in first
    assert any("after the stop request, SIGKILL; still running" in line for line in more)
    assert "of an earlier life" not in log.read_text()


def test_kill_by_another_process_is_reported_as_such(start_in_role: Start, tmp_path: Path) -> None:
    init = start_in_role("--termination-log", "none", agent="ready()")
    init.wait_for_event("ready")
    children_of(init)[0].kill()
    assert init.wait() == 137
    assert "agent-init" in init.wait_for_line("ended: the agent was killed by SIGKILL (")


def test_termination_log_is_limited_to_4096_bytes(start_in_role: Start, tmp_path: Path) -> None:
    log = tmp_path / "termination-log"
    steps = "/".join("USR1/10ms" for _ in range(150))
    agent = "on('USR1'); on('TERM'); ready()"
    init = start_in_role("--stop-schedule", f"TERM/10ms/{steps}/KILL", "--termination-log", str(log), agent=agent)
    init.wait_for_event("ready")
    init.signal("TERM")
    assert init.wait() == 137
    text = log.read_bytes()
    assert 3500 < len(text) <= 4096
    assert text.startswith(b"ended: ")


def test_missing_default_termination_log_is_not_created(start_in_role: Start) -> None:
    path = Path("/dev/termination-log")
    if path.exists():
        pytest.skip("this machine has one")
    init = start_in_role(agent="os.kill(os.getpid(), 9)")
    assert init.wait() == 137
    assert not path.exists()
    assert not init.lines("termination log")


@pytest.mark.parametrize("place", ["missing/log", "", "fifo"])
def test_unwritable_termination_log_does_not_delay_the_exit(start_in_role: Start, tmp_path: Path, place: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    init = start_in_role("--termination-log", str(tmp_path / place), agent="os.kill(os.getpid(), 9)")
    assert init.wait() == 137
    assert len(init.lines("cannot write the termination log")) == 1


def test_failed_start_is_written_to_the_termination_log(start_in_role: Start, tmp_path: Path) -> None:
    log = tmp_path / "termination-log"
    init = start_in_role("--termination-log", str(log), command=["--", "no-such-program"])
    assert init.wait() == 127
    assert log.read_text().startswith("cannot run 'no-such-program': not found in PATH")


@pytest.mark.parametrize("well", [False, True])
def test_report_before_the_platform_limit_is_in_the_termination_log(
    start_in_role: Start, tmp_path: Path, well: bool
) -> None:
    """The platform's SIGKILL leaves no time for a final message. If the agent exits well, the log is emptied."""
    log = tmp_path / "termination-log"
    platform = clean_environment(RAILWAY_DEPLOYMENT_DRAINING_SECONDS="3")
    agent = "on('TERM'); on('USR1', leave); ready()"
    init = start_in_role("--termination-log", str(log), agent=agent, env=platform, allow_leftovers=True)
    init.wait_for_event("ready")
    init.signal("TERM")
    init.wait_for(lambda: log.exists() and "report: " in log.read_text(), "a report in the termination log")
    assert "; Railway waits 3s" in log.read_text().splitlines()[0]
    assert init.lines("Railway (3s as set) ends its wait")
    if well:
        init.signal("USR1")
        assert init.wait() == 0
        assert log.read_text() == ""
    else:
        init.signal("KILL")
        init.wait()
        assert "report: " in log.read_text()
        for process in init.remaining_processes():
            process.kill()


@pytest.mark.parametrize("has_file", [False, True])
def test_report_at_a_guessed_limit_goes_where_it_is_kept(start_in_role: Start, tmp_path: Path, has_file: bool) -> None:
    """One line in the log where the file has the rest: the drain may be a good one."""
    log = tmp_path / "termination-log"
    options = ("--termination-log", str(log) if has_file else "none")
    env = clean_environment(FLY_MACHINE_ID="1")
    init = start_in_role(*options, agent="on('TERM'); on('USR1', leave); ready()", env=env)
    init.wait_for_event("ready")
    init.signal("TERM")
    near = init.wait_for_line("after the stop request the agent is still running; Fly.io (5s unless raised)")
    if has_file:
        init.wait_for(lambda: "report: " in log.read_text(), "a report in the termination log")
        assert log.read_text().splitlines()[0].endswith("; Fly.io usually waits 5s")
        assert "agent is still running" not in log.read_text()
        assert not near.startswith("warning: ")
    else:
        assert init.wait_for_line("report: ")
    init.signal("USR1")
    assert init.wait() == 0
    assert bool(init.lines("report: ")) is not has_file


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        pytest.param(["-r", "USR1:KILL", "--unhandled", "forward"], ["USR1"], id="rewritten"),
        pytest.param(["-r", "INT:KILL", "--repeat", "forward"], ["TERM", "INT"], id="at a second request"),
    ],
)
def test_forwarded_kill_is_reported_as_such(start_in_role: Start, options: list[str], sent: list[str]) -> None:
    init = start_in_role(*options, "-t", "20s", agent="on('TERM'); ready()")
    init.wait_for_event("ready")
    for name in sent:
        init.signal(name)
        init.wait_for(lambda: init.outer.poll() is not None or init.events()[-1] == "TERM", name)
    assert init.wait() == 137
    assert "was killed by SIGKILL, which agent-init forwarded, " in init.lines("ended: ")[0]


def test_dropped_signals_do_not_fill_the_termination_log(start_in_role: Start, tmp_path: Path) -> None:
    log = tmp_path / "termination-log"
    init = start_in_role("-t", "3s", "--termination-log", str(log), agent="on('TERM'); ready()")
    init.wait_for_event("ready")
    init.signal("TERM")
    init.wait_for_event("TERM")
    for _ in range(60):  # enough to fill it; some may coalesce
        before = len(init.lines("dropped"))
        if init.outer.poll() is None:
            init.signal("USR1")
        init.wait_for(partial(dropped_more, init, before), "the line")
    assert init.wait() == 137
    assert "dropped" not in log.read_text()
    assert "SIGKILL; still running: python" in log.read_text()


def test_termination_log_is_not_written_through_a_symlink(start_in_role: Start, tmp_path: Path) -> None:
    """A user who can write to its directory could make root's process 1 write to any file."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("as it was")
    log = tmp_path / "termination-log"
    log.symlink_to(elsewhere)
    init = start_in_role("--termination-log", str(log), agent="os.kill(os.getpid(), 9)")
    assert init.wait() == 137
    assert elsewhere.read_text() == "as it was"


def test_xfsz_from_writing_the_termination_log_is_not_forwarded(start: Start, tmp_path: Path) -> None:
    """The kernel sends XFSZ to the writer of a file that is too large (RLIMIT_FSIZE, getrlimit(2)).

    When its command has exited, a shell runs pending traps in the order of the signal numbers: PWR comes later.
    """
    log = tmp_path / "termination-log"
    log.touch()
    agent = "trap 'echo got XFSZ' XFSZ; trap 'echo got PWR; exit 0' PWR; trap '' TERM; while :; do sleep 0.1; done"
    init = start(
        "--termination-log",
        str(log),
        "--stop-on",
        "TERM",
        command=["bash", "-c", agent],
        process1=False,
        before=["prlimit", "--fsize=0"],
        env=clean_environment(RAILWAY_DEPLOYMENT_DRAINING_SECONDS="2"),
        stderr=subprocess.STDOUT,
    )
    out = init.outer.stdout
    assert out is not None
    lines = [out.readline()]
    init.signal("TERM")
    while b"goes on waiting" not in lines[-1]:  # the log is written once before that line
        lines.append(out.readline())
    init.signal("PWR")
    lines += out.readlines()
    assert init.wait() == 0
    assert b"got PWR\n" in lines
    assert b"got XFSZ\n" not in lines


def test_xfsz_from_writing_bytecode_is_not_forwarded(start: Start, tmp_path: Path) -> None:
    """Python writes .pyc files in process 1; the kernel sends XFSZ as above."""
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
    lines = [out.readline()]  # the start line: all modules are loaded by then
    init.signal("TERM")
    lines += out.readlines()
    assert init.wait() in (0, 143)  # the trap may come late
    assert b"ended: " in lines[-1]
    assert b"XFSZ" not in b"".join(lines)
    assert not list(copy.rglob("*.pyc"))


def test_stopped_reporter_is_killed_and_not_counted_as_an_orphan(start_in_role: Start) -> None:
    """It is killed when its time is up, and is not one of the agent's leftover processes."""
    init = start_in_role("-t", "700ms", "-w", "--watchdog", "500ms", agent="on('ABRT'); notify('WATCHDOG=1'); ready()")
    reporter = init.wait_for(lambda: reporters(init.pid), "a reporter")[0]
    reporter.suspend()
    init.wait_for_event("ABRT")
    init.wait_for(lambda: not reporter.is_running(), "its end")
    assert init.wait() == 137
    assert not init.lines("reaped orphan")


def needs_root() -> list[str]:
    """A prefix for a command that mounts: nothing, for root."""
    if os.getuid() != 0:
        pytest.skip("needs root")
    return []


def pod(log: Path) -> list[str]:
    """A prefix for a command: as in a container of a pod, `log` is mounted on the default file."""
    script = """
        made=$(mktemp -d) && mount -t tmpfs none "$made" &&
        cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom "$made" && touch "$made/termination-log" &&
        mount --bind "$0" "$made/termination-log" && mount --move "$made" /dev && rmdir "$made" && exec "$@"
    """
    return [*needs_root(), "sh", "-c", script, str(log)]


def dropped_more(init: Init, before: int) -> bool:
    """More dropped signals have been logged, or agent-init has exited."""
    return len(init.lines("dropped")) > before or init.outer.poll() is not None


def reporters(pid: int) -> list[psutil.Process]:
    """The children of the process that make a stall report."""
    found = []
    for child in psutil.Process(pid).children():
        try:
            found += [child] if any("entrypoint/report" in word for word in child.cmdline()) else []
        except psutil.Error:
            continue
    return found

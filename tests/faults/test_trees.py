"""What an agent and its descendants can be: many, hidden, held, of another user, or somebody else by now."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support.init import until
from tests.support.proc import inner_pid, status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Start
    from tests.support.init import Init

LATE = 8.0  # two hundred others may start beside it; how exact a deadline is, tests/process1 shows
AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
AS_NOBODY += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]

# All of them end by themselves, should agent-init fail to end them.
FORKER = """
ignore('TERM', 'INT', 'HUP', 'QUIT')
end = time.monotonic() + 15
log('ready')
while time.monotonic() < end:
    if os.fork() == 0:
        if {detached}:
            os.setsid()
            if os.fork():
                os._exit(0)
            time.sleep(0.02)
        os._exit(0)
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
"""


def stopped_on_time(init: Init, grace: float, *, code: int = 137, more: float = 0.0) -> None:
    asked = time.monotonic()
    init.signal("TERM")
    assert init.wait() == code
    assert grace <= time.monotonic() - asked < grace + more + LATE


@pytest.mark.parametrize("detached", [False, True], ids=["children", "daemons"])
def test_forking_without_pause_while_it_is_stopped(started: Start, detached: bool) -> None:
    forker = FORKER.format(detached=detached)
    init = started("-t", "700ms", agent=f"child('second', {forker!r}); {forker}")
    init.event("ready")
    init.event("ready", "second")
    stopped_on_time(init, 0.7)
    assert not init.lines("unexpected")


def test_a_daemon_whose_main_thread_has_ended_is_stopped_as_any_other(started: Start) -> None:
    """It looks like a zombie (pthread_exit(3), "Notes"), and works on in another thread."""
    daemon = """
import ctypes, threading
on('TERM')
threading.Thread(target=lambda: [log('ready'), forever_in_a_thread()]).start()
ctypes.CDLL(None).pthread_exit(None)
""".replace("forever_in_a_thread()", "time.sleep(100)")
    init = started("-t", "20s", "--linger", "300ms", agent=f"orphan('daemon', {daemon!r}); on('TERM', leave); ready()")
    init.event("ready")
    init.event("ready", "daemon")
    init.signal("TERM")
    assert init.wait() == 0
    assert init.lines("the agent exited with code 0, and left processes behind; TERM to them")
    assert init.lines("the time to linger is over, SIGKILL")
    assert not init.lines("gave up waiting")


def test_among_more_processes_than_are_listed_nobody_is_left_behind(start: Start) -> None:
    """The agent ends while a report is made, and has a daemon; more than a thousand others are none of ours."""
    others = [subprocess.Popen(["sleep", "60"]) for _ in range(1010)]
    try:
        daemon = "on('TERM', leave); ready()"
        agent = f"orphan('daemon', {daemon!r}); on('TERM'); on('USR1', leave); ready()"
        init = start("-t", "4s", "--linger", "2s", agent=agent, process1=False)
        init.event("ready")
        init.event("ready", "daemon")
        init.signal("TERM")
        init.event("TERM")
        init.wait_for(lambda: len(psutil.Process(init.pid).children()) == 3, "the reporter")
        init.signal("USR1")
        assert init.wait() == 0
        assert init.events("daemon") == ["ready", "TERM", "end"]
    finally:
        for other in others:
            other.kill()
            other.wait()


def test_processes_that_vanish_while_proc_is_read(started: Start) -> None:
    """The agent has gone; what it left behind comes and goes faster than it can be listed."""
    forker = FORKER.format(detached=True)
    agent = f"[orphan(f'forker {{n}}', {forker!r}) for n in range(3)]; on('USR1', lambda: leave(6)); ready()"
    init = started("--linger", "1s", agent=agent)
    for name in ("agent", *(f"forker {n}" for n in range(3))):
        init.event("ready", name)
    init.signal("USR1")
    assert init.wait() == 6
    assert "left processes behind" in init.said("left processes behind")
    assert not init.lines("unexpected")


# --- Held by somebody. ----------------------------------------------------------------------------------------------

HOLD = """
import ctypes, os, sys, time
assert ctypes.CDLL(None, use_errno=True).ptrace(16, int(sys.argv[1]), 0, 0) == 0, os.strerror(ctypes.get_errno())
print("held", flush=True)
time.sleep(60)
"""


def test_a_traced_agent_is_stopped_as_any_other(started: Start) -> None:
    if not shutil.which("strace"):
        pytest.skip("strace traces it")
    init = started("-t", "20s", agent="on('USR1'); on('TERM', lambda: leave(7, after=0.2)); ready()")
    agent = init.event("ready")["pid"]
    outside = agent_from_outside(init, agent)
    words = ["strace", "-o", os.devnull, "-p", str(outside)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr
        assert "attached" in tracer.stderr.readline()
        for name in ("USR1", "TERM"):
            init.signal(name)
            init.event(name)
        assert init.wait() == 7
    assert init.events() == ["ready", "USR1", "TERM", "end"]


def test_an_agent_held_by_a_debugger_is_killed_on_time(started: Start) -> None:
    """The debugger lies outside of the tree and does not let go: not even the agent's end can be waited for.

    agent-init ends; the kernel keeps a namespace until the last process in it could be waited for.
    """
    init = started("-t", "500ms", agent="on('TERM', leave); ready()")
    outside = agent_from_outside(init, init.event("ready")["pid"])
    words = [sys.executable, "-c", HOLD, str(outside)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as debugger:
        assert debugger.stdout
        assert debugger.stdout.readline() == b"held\n"
        try:
            asked = time.monotonic()
            init.signal("TERM")
            init.said("ended")
            assert 0.5 <= time.monotonic() - asked < 0.5 + 0.4 + LATE
        finally:
            debugger.kill()
    assert init.wait() == 137
    assert init.lines("gave up")
    assert init.events() == ["ready"]


def test_a_tree_that_holds_itself(started: Start) -> None:
    """An heir traces the agent; the agent can act on nothing."""
    hold = "import ctypes; assert ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0; log('held'); ready()"
    init = started("-t", "500ms", agent=f"on('TERM', leave); child('heir', {hold!r}); ready()")
    init.event("held", "heir")
    stopped_on_time(init, 0.5)


def test_an_agent_that_sits_in_vfork(started: Start, tmp_path: Path) -> None:
    """Its child waits for a pipe before its exec; until then nothing but SIGKILL reaches the agent (vfork(2))."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    spawn = f"os.posix_spawn('/bin/true', ['true'], {{}}, file_actions=[(os.POSIX_SPAWN_OPEN, 9, {str(fifo)!r}, 0, 0)])"
    init = started("-t", "500ms", agent=f"on('TERM', leave); log('ready'); {spawn}")
    agent = agent_from_outside(init, init.event("ready")["pid"])
    until(lambda: status(agent)["State"].startswith("D"), "the agent to wait for its child's exec")
    stopped_on_time(init, 0.5)
    assert init.events() == ["ready"]


def agent_from_outside(init: Init, pid: int) -> int:
    """The pid by which we know the process that calls itself `pid`."""
    children = psutil.Process(init.pid).children(recursive=True)
    return next(child.pid for child in children if inner_pid(child.pid) == pid)


# --- Of another user. -----------------------------------------------------------------------------------------------


def test_children_that_change_their_user(started: Start) -> None:
    if os.getuid() != 0:
        pytest.skip("to become another user takes root")
    child = "ignore('TERM'); log('ready'); os.setgid(65534); os.setuid(65534); log = print; forever()"
    family = f"child('other', {child!r}); orphan('daemon', {child!r})"
    init = started("-t", "500ms", agent=f"ignore('TERM'); {family}; ready()")
    for name in ("agent", "other", "daemon"):
        init.event("ready", name)
    stopped_on_time(init, 0.5)


@pytest.fixture
def becomes_root(tmp_path: Path) -> Iterator[Path]:
    """A program that makes root of whoever runs it, as sudo does."""
    program = tmp_path / "setpriv"
    shutil.copy(shutil.which("setpriv") or "setpriv", program)
    program.chmod(0o4755)
    yield program
    program.unlink()


def test_what_may_not_be_signalled_does_not_hold_up_the_end(started: Start, becomes_root: Path) -> None:
    """agent-init is nobody, its agent has become root: the kernel refuses every signal, SIGKILL too."""
    if os.getuid() != 0:
        pytest.skip("to become another user takes root")
    command = [str(becomes_root), "--reuid=0", "sleep", "20"]
    init = started("-t", "500ms", command=command, before=AS_NOBODY, may_leave=True)
    init.said("started")
    agent = until(lambda: [p for p in psutil.Process(init.pid).children() if p.name() == "sleep"], "the agent")[0]
    assert agent.uids().real == 0
    try:
        stopped_on_time(init, 0.5, more=0.4)
        assert init.lines("cannot send TERM")
        assert "gave up" in init.said("gave up")
    finally:
        if agent.is_running():
            agent.kill()


def test_where_proc_hides_other_users(start: Start, tmp_path: Path) -> None:
    """hidepid=2, and agent-init is not root: it sees its own, and that is what it needs."""
    if os.getuid() != 0:
        pytest.skip("to become another user takes root")
    hide = ["sh", "-c", 'mount -o remount,hidepid=2 /proc && exec "$@"', "sh"]
    heir = "on('TERM', lambda: leave(0, after=0.2)); ready()"
    agent = f"child('heir', {heir!r}); on('TERM', lambda: leave(7)); ready()"
    (tmp_path / "events.jsonl").touch()
    (tmp_path / "events.jsonl").chmod(0o666)
    init = start("-t", "20s", agent=agent, before=[*hide, *AS_NOBODY])
    init.event("ready")
    init.event("ready", "heir")
    init.signal("USR2")
    init.said("USR2 from outside the container dropped")
    init.signal("TERM")
    assert init.wait() == 7
    assert init.events("heir") == ["ready", "TERM", "end"]


# --- Ends. ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_all_children_end_within_one_sigchld(started: Start, number: signal.Signals) -> None:
    """Among them the agent: its exit code is the one that counts."""
    init = started("-t", "20s", agent="[orphan(f'daemon {n}', 'ready()') for n in range(3)]; ready()")
    init.event("ready")
    for n in range(3):
        init.event("ready", f"daemon {n}")
    children = psutil.Process(init.pid).children()
    assert len(children) == 4
    os.kill(init.pid, signal.SIGSTOP)
    for child in children:
        child.send_signal(number)
    for child in children:
        until(lambda: child.status() == psutil.STATUS_ZOMBIE, "a zombie")  # noqa: B023
    os.kill(init.pid, signal.SIGCONT)
    assert init.wait() == 128 + number
    assert not init.lines("left processes behind")


# --- Somebody else by now. ------------------------------------------------------------------------------------------

# Takes the pid of the agent once that is free (ns_last_pid is the one given last), and notes what it gets.
SUCCESSOR = """
def succeed():
    for _ in range(100):
        with open('/proc/sys/kernel/ns_last_pid', 'w') as last:
            last.write(str({agent} - 1))
        if (pid := os.fork()) == 0:
            if os.getpid() != {agent}:
                os._exit(0)
            os.setsid()
            os.execv(sys.executable, [sys.executable, '-S', sys.argv[0], LOG, 'successor', NOTES_ALL])
        if pid == {agent}:
            return
        os.waitpid(pid, 0)
    log('in vain')

NOTES_ALL = "[on(n) for n in ('TERM', 'INT', 'HUP', 'USR1', 'CONT', 'QUIT')]; ready()"
on('TERM', succeed)
ready()
"""


@pytest.mark.parametrize("mode", ["process 1", "subreaper"])
def test_who_has_the_agents_pid_after_it_gets_nothing(start: Start, mode: str) -> None:
    """The agent is gone and reaped; a process that is given its pid is somebody else."""
    below = ["sh", "-c", '"$@"; exit $?', "sh"] if mode == "subreaper" else []
    pid = 3 if below else 2
    heir = SUCCESSOR.format(agent=pid)
    agent = f"assert os.getpid() == {pid}; child('heir', {heir!r}, session=True); on('USR1', lambda: leave(6)); ready()"
    init = start("-v", "--linger", "1500ms", agent=agent, before=below)
    init.event("ready")
    init.event("ready", "heir")
    process1 = psutil.Process(init.pid)
    one = process1.children()[0] if below else process1
    one.send_signal(signal.SIGUSR1)
    assert init.event("ready", "successor")["pid"] == pid
    for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        one.send_signal(number)
    assert init.wait() == 6
    assert init.lines("under way already")
    assert init.events("successor") == ["ready"]
    assert init.events("heir") == ["ready", "TERM"]


def test_no_pid_is_signalled_after_it_was_reaped(start: Start, tmp_path: Path) -> None:
    """Where pids come round every few hundred forks, as process 1 itself tells the kernel (strace)."""
    if not shutil.which("strace"):
        pytest.skip("strace shows what is sent to whom")
    trace = tmp_path / "trace"
    small = ["sh", "-c", 'echo 400 >/proc/sys/kernel/pid_max; exec "$@"', "sh"]
    agent = """
on('USR1'); on('TERM', lambda: leave(7))
log('ready')
for _ in range(1500):
    if (pid := os.fork()) == 0:
        if os.fork() == 0:
            os.setsid()
            time.sleep(0.001)
            os._exit(0)
        os._exit(0)
    os.waitpid(pid, 0)
child('heir', "ignore('TERM'); ready()", session=True)
log('done')
forever()
"""
    init = start("-t", "20s", "--linger", "300ms", agent=agent, before=small)
    init.event("ready")
    words = ["strace", "-o", str(trace), "-e", "trace=wait4,waitid,kill,tgkill,pidfd_open,pidfd_send_signal"]
    with subprocess.Popen([*words, "-p", str(init.pid)], stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr
        assert "attached" in tracer.stderr.readline()
        while not init.records("agent", "done"):
            init.signal("USR1")
            time.sleep(0.01)
        init.event("ready", "heir")
        init.signal("TERM")
        assert init.wait() == 7
    reaped: set[int] = set()
    times = 0
    sent = 0
    for line in trace.read_text().splitlines():
        if done := re.match(r"wait4\(-1, .*\) += ([1-9]\d*)$", line):
            reaped.add(int(done[1]))
            times += 1
        elif kill := re.match(r"kill\((-?\d+), SIG\w+\)", line):
            sent += 1
            assert abs(int(kill[1])) not in reaped - {1}, line
    assert times > 2 * len(reaped), "the pids did not come round"
    assert sent >= 3

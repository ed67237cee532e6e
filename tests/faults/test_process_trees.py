"""Difficult process trees: many processes, hidden ones, traced ones, other users' ones, reused pids."""

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

TOLERANCE = 3.0  # seconds, on a busy machine. tests/process1 checks deadlines more closely
AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
AS_NOBODY += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]

# It exits by itself after 15 s if agent-init fails to kill it.
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


def assert_stops_on_time(init: Init, grace: float, *, code: int = 137, more: float = 0.0) -> None:
    requested_at = time.monotonic()
    init.signal("TERM")
    assert init.wait() == code
    assert grace <= time.monotonic() - requested_at < grace + more + TOLERANCE


@pytest.mark.crowd
@pytest.mark.parametrize("detached", [False, True], ids=["children", "daemons"])
def test_agent_that_forks_without_pause_is_stopped_on_time(start_in_role: Start, detached: bool) -> None:
    forker = FORKER.format(detached=detached)
    init = start_in_role("-t", "700ms", agent=f"child('second', {forker!r}); {forker}")
    init.wait_for_event("ready")
    init.wait_for_event("ready", "second")
    assert_stops_on_time(init, 0.7)
    assert not init.lines("unexpected")


def test_daemon_whose_main_thread_has_exited_is_stopped(start_in_role: Start) -> None:
    """It looks like a zombie (pthread_exit(3), "Notes") but another thread still runs."""
    daemon = """
import ctypes, threading
on('TERM')
threading.Thread(target=lambda: [log('ready'), forever_in_a_thread()]).start()
ctypes.CDLL(None).pthread_exit(None)
""".replace("forever_in_a_thread()", "time.sleep(100)")
    init = start_in_role(
        "-t", "20s", "--linger", "300ms", agent=f"orphan('daemon', {daemon!r}); on('TERM', leave); ready()"
    )
    init.wait_for_event("ready")
    init.wait_for_event("ready", "daemon")
    init.signal("TERM")
    assert init.wait() == 0
    assert init.lines("the agent exited with code 0; it left processes behind: TERM to them")
    assert init.lines("linger time is over, SIGKILL")
    assert not init.lines("gave up waiting")


@pytest.mark.crowd
def test_leftover_daemon_is_stopped_among_a_thousand_other_processes(start: Start) -> None:
    """The agent exits while a report is made, and leaves a daemon. More than 1000 unrelated processes exist."""
    others = [subprocess.Popen(["sleep", "60"]) for _ in range(1010)]
    try:
        daemon = "on('TERM', leave); ready()"
        agent = f"orphan('daemon', {daemon!r}); on('TERM'); on('USR1', leave); ready()"
        init = start("-t", "4s", "--linger", "2s", agent=agent, process1=False)
        init.wait_for_event("ready")
        init.wait_for_event("ready", "daemon")
        init.signal("TERM")
        init.wait_for_event("TERM")
        init.wait_for(lambda: len(psutil.Process(init.pid).children()) == 3, "the reporter")
        init.signal("USR1")
        assert init.wait() == 0
        assert init.events("daemon") == ["ready", "TERM", "end"]
    finally:
        for other in others:
            other.kill()
            other.wait()


def test_processes_that_exit_while_proc_is_read_do_no_harm(start_in_role: Start) -> None:
    """The agent has exited. Its leftover processes come and go faster than they can be listed."""
    forker = FORKER.format(detached=True)
    agent = f"[orphan(f'forker {{n}}', {forker!r}) for n in range(3)]; on('USR1', lambda: leave(6)); ready()"
    init = start_in_role("--linger", "1s", agent=agent)
    for name in ("agent", *(f"forker {n}" for n in range(3))):
        init.wait_for_event("ready", name)
    init.signal("USR1")
    assert init.wait() == 6
    assert "left processes behind" in init.wait_for_line("left processes behind")
    assert not init.lines("unexpected")


# --- Processes that are traced or blocked. --------------------------------------------------------------------------

HOLD = """
import ctypes, os, sys, time
assert ctypes.CDLL(None, use_errno=True).ptrace(16, int(sys.argv[1]), 0, 0) == 0, os.strerror(ctypes.get_errno())
print("held", flush=True)
time.sleep(60)
"""


def test_traced_agent_is_stopped(start_in_role: Start) -> None:
    if not shutil.which("strace"):
        pytest.skip("strace traces it")
    init = start_in_role("-t", "20s", agent="on('USR1'); on('TERM', lambda: leave(7, after=0.2)); ready()")
    agent = init.wait_for_event("ready")["pid"]
    outside = agent_from_outside(init, agent)
    argv = ["strace", "-o", os.devnull, "-p", str(outside)]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr
        assert "attached" in tracer.stderr.readline()
        for name in ("USR1", "TERM"):
            init.signal(name)
            init.wait_for_event(name)
        assert init.wait() == 7
    assert init.events() == ["ready", "USR1", "TERM", "end"]


def test_agent_held_by_a_debugger_does_not_delay_the_exit(start_in_role: Start) -> None:
    """A debugger outside the tree does not let go of the agent, so the agent cannot even be reaped.

    agent-init exits. The kernel keeps the namespace until its last process has been reaped.
    """
    init = start_in_role("-t", "500ms", agent="on('TERM', leave); ready()")
    outside = agent_from_outside(init, init.wait_for_event("ready")["pid"])
    argv = [sys.executable, "-c", HOLD, str(outside)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as debugger:
        assert debugger.stdout
        assert debugger.stdout.readline() == b"held\n"
        try:
            requested_at = time.monotonic()
            init.signal("TERM")
            init.wait_for_line("ended")
            assert 0.5 <= time.monotonic() - requested_at < 0.5 + 2.0 + TOLERANCE
        finally:
            debugger.kill()
    assert init.wait() == 137
    assert init.lines("gave up")
    assert init.events() == ["ready"]


def test_agent_traced_by_its_child_is_stopped_on_time(start_in_role: Start) -> None:
    """While it is traced and stopped, the agent cannot handle signals."""
    hold = "import ctypes; assert ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0; log('held'); ready()"
    init = start_in_role("-t", "500ms", agent=f"on('TERM', leave); child('child', {hold!r}); ready()")
    init.wait_for_event("held", "child")
    assert_stops_on_time(init, 0.5)


def test_agent_blocked_in_vfork_is_stopped_on_time(start_in_role: Start, tmp_path: Path) -> None:
    """Its child opens a FIFO before its exec; until then only SIGKILL reaches the agent (vfork(2))."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    spawn = f"os.posix_spawn('/bin/true', ['true'], {{}}, file_actions=[(os.POSIX_SPAWN_OPEN, 9, {str(fifo)!r}, 0, 0)])"
    init = start_in_role("-t", "500ms", agent=f"on('TERM', leave); log('ready'); {spawn}")
    agent = agent_from_outside(init, init.wait_for_event("ready")["pid"])
    until(lambda: status(agent)["State"].startswith("D"), "the agent to wait for its child's exec")
    assert_stops_on_time(init, 0.5)
    assert init.events() == ["ready"]


def agent_from_outside(init: Init, pid: int) -> int:
    """The pid in our namespace of the process whose pid is `pid` inside."""
    children = psutil.Process(init.pid).children(recursive=True)
    return next(child.pid for child in children if inner_pid(child.pid) == pid)


# --- Processes of another user. -------------------------------------------------------------------------------------


def test_children_that_changed_their_user_are_stopped_on_time(start_in_role: Start) -> None:
    if os.getuid() != 0:
        pytest.skip("changing the user takes root")
    child = "ignore('TERM'); log('ready'); os.setgid(65534); os.setuid(65534); log = print; forever()"
    family = f"child('other', {child!r}); orphan('daemon', {child!r})"
    init = start_in_role("-t", "500ms", agent=f"ignore('TERM'); {family}; ready()")
    for name in ("agent", "other", "daemon"):
        init.wait_for_event("ready", name)
    assert_stops_on_time(init, 0.5)


@pytest.fixture
def setuid_program(tmp_path: Path) -> Iterator[Path]:
    """A copy of setpriv with the set-user-ID bit: it runs as root, like sudo."""
    program = tmp_path / "setpriv"
    shutil.copy(shutil.which("setpriv") or "setpriv", program)
    program.chmod(0o4755)
    yield program
    program.unlink()


def test_process_that_may_not_be_signalled_does_not_delay_the_exit(start_in_role: Start, setuid_program: Path) -> None:
    """agent-init runs as nobody and its agent has become root: the kernel refuses every signal, even SIGKILL."""
    if os.getuid() != 0:
        pytest.skip("changing the user takes root")
    command = [str(setuid_program), "--reuid=0", "sleep", "20"]
    init = start_in_role("-t", "500ms", command=command, before=AS_NOBODY, allow_leftovers=True)
    init.wait_for_line("started")
    agent = until(lambda: [p for p in psutil.Process(init.pid).children() if p.name() == "sleep"], "the agent")[0]
    assert agent.uids().real == 0
    try:
        assert_stops_on_time(init, 0.5, more=2.0)
        assert init.lines("cannot send TERM")
        assert "gave up" in init.wait_for_line("gave up")
    finally:
        if agent.is_running():
            agent.kill()


def test_agent_is_stopped_with_hidepid(start: Start, tmp_path: Path) -> None:
    """With hidepid=2 an agent-init that is not root sees only its own user's processes, which is enough."""
    if os.getuid() != 0:
        pytest.skip("changing the user takes root")
    hide = ["sh", "-c", 'mount -o remount,hidepid=2 /proc && exec "$@"', "sh"]
    leftover = "on('TERM', lambda: leave(0, after=0.2)); ready()"
    agent = f"child('leftover', {leftover!r}); on('TERM', lambda: leave(7)); ready()"
    (tmp_path / "events.jsonl").touch()
    (tmp_path / "events.jsonl").chmod(0o666)
    init = start("-t", "20s", agent=agent, before=[*hide, *AS_NOBODY])
    init.wait_for_event("ready")
    init.wait_for_event("ready", "leftover")
    init.signal("USR2")
    init.wait_for_line("USR2 from outside the container dropped")
    init.signal("TERM")
    assert init.wait() == 7
    assert init.events("leftover") == ["ready", "TERM", "end"]


# --- Simultaneous exits. --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_exit_code_is_the_agents_when_all_children_exit_together(start_in_role: Start, number: signal.Signals) -> None:
    """The SIGCHLDs of the agent and of three orphans coalesce into one."""
    init = start_in_role("-t", "20s", agent="[orphan(f'daemon {n}', 'ready()') for n in range(3)]; ready()")
    init.wait_for_event("ready")
    for n in range(3):
        init.wait_for_event("ready", f"daemon {n}")
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


# --- Reused pids. ---------------------------------------------------------------------------------------------------

# Starts a process with the agent's pid once that is free (ns_last_pid is the pid given last). It logs its signals.
TAKES_THE_PID = """
def take_pid():
    for _ in range(100):
        with open('/proc/sys/kernel/ns_last_pid', 'w') as last:
            last.write(str({agent} - 1))
        if (pid := os.fork()) == 0:
            if os.getpid() != {agent}:
                os._exit(0)
            os.setsid()
            os.execv(sys.executable, [sys.executable, '-S', sys.argv[0], LOG, 'new owner', LOGS_ALL])
        if pid == {agent}:
            return
        os.waitpid(pid, 0)
    log('in vain')

LOGS_ALL = "[on(n) for n in ('TERM', 'INT', 'HUP', 'USR1', 'CONT', 'QUIT')]; ready()"
on('TERM', take_pid)
ready()
"""


@pytest.mark.parametrize("mode", ["process 1", "subreaper"])
def test_process_that_reuses_the_agents_pid_is_not_signalled(start: Start, mode: str) -> None:
    """The agent has been reaped, and an unrelated process has its pid."""
    below = ["sh", "-c", '"$@"; exit $?', "sh"] if mode == "subreaper" else []
    pid = 3 if below else 2
    pid_taker = TAKES_THE_PID.format(agent=pid)
    check = f"assert os.getpid() == {pid}"
    agent = f"{check}; child('pid_taker', {pid_taker!r}, session=True); on('USR1', lambda: leave(6)); ready()"
    init = start("-v", "--linger", "1500ms", agent=agent, before=below)
    init.wait_for_event("ready")
    init.wait_for_event("ready", "pid_taker")
    process1 = psutil.Process(init.pid)
    one = process1.children()[0] if below else process1
    one.send_signal(signal.SIGUSR1)
    assert init.wait_for_event("ready", "new owner")["pid"] == pid
    for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        one.send_signal(number)
    assert init.wait() == 6
    assert init.lines("already in progress")
    assert init.events("new owner") == ["ready"]
    assert init.events("pid_taker") == ["ready", "TERM"]


def test_nothing_is_sent_to_reaped_pids(start: Start, tmp_path: Path) -> None:
    """With a small pid_max pids are reused every few hundred forks. strace shows process 1's kill(2) calls."""
    if not shutil.which("strace"):
        pytest.skip("strace shows which signal is sent to which pid")
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
child('leftover', "ignore('TERM'); ready()", session=True)
log('done')
forever()
"""
    init = start("-t", "20s", "--linger", "300ms", agent=agent, before=small)
    init.wait_for_event("ready")
    argv = ["strace", "-o", str(trace), "-e", "trace=wait4,waitid,kill,tgkill,pidfd_open,pidfd_send_signal"]
    with subprocess.Popen([*argv, "-p", str(init.pid)], stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr
        assert "attached" in tracer.stderr.readline()
        while not init.records("agent", "done"):
            init.signal("USR1")
            time.sleep(0.01)
        init.wait_for_event("ready", "leftover")
        init.signal("TERM")
        assert init.wait() == 7
    reaped: set[int] = set()
    reaps = 0
    sent = 0
    for line in trace.read_text().splitlines():
        if done := re.match(r"wait4\(-1, .*\) += ([1-9]\d*)$", line):
            reaped.add(int(done[1]))
            reaps += 1
        elif kill := re.match(r"kill\((-?\d+), SIG\w+\)", line):
            sent += 1
            assert abs(int(kill[1])) not in reaped - {1}, line
    assert reaps > 2 * len(reaped), "the pids were not reused"
    assert sent >= 3

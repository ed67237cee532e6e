"""With a terminal on stdin the agent is the foreground job, job control works, and no signal arrives twice."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pexpect
import psutil
import pytest

from tests.support.init import AGENT_INIT, NAMESPACE, actor, clean_environment, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Terminal = Callable[..., "pexpect.spawn[str]"]

PROMPT = "agent-prompt> "


@pytest.fixture(params=["process 1", "session leader"])
def terminal(request: pytest.FixtureRequest) -> Iterator[Terminal]:
    """Run agent-init in a new terminal."""
    spawned: list[pexpect.spawn[str]] = []

    def run(*arguments: str) -> pexpect.spawn[str]:
        front = NAMESPACE if request.param == "process 1" else []
        child: pexpect.spawn[str] = pexpect.spawn(
            [*front, str(AGENT_INIT), *arguments][0],
            [*front, str(AGENT_INIT), *arguments][1:],
            env={**clean_environment(), "TERM": "dumb", "PS1": PROMPT},
            encoding="utf-8",
            timeout=30,
            echo=False,
        )
        spawned.append(child)
        return child

    yield run
    for child in spawned:
        child.close(force=True)


def wait_for_exit(child: pexpect.spawn[str]) -> int:
    """Wait for the program in the terminal and return its exit code."""
    child.expect(pexpect.EOF)
    child.wait()
    return int(child.exitstatus if child.exitstatus is not None else 128 + (child.signalstatus or 0))


def wait_for_event(log: Path, event: str) -> None:
    """Wait for an event of the agent."""
    until(lambda: log.exists() and f'"{event}"' in log.read_text(), event)


def wait_for_program(child: pexpect.spawn[str], name: str) -> None:
    """Wait until a descendant of the terminal's program runs `name`."""
    top = psutil.Process(child.pid)
    until(lambda: [p for p in top.children(recursive=True) if p.name() == name], name)


def test_ctrl_c_reaches_the_agent_once(terminal: Terminal, tmp_path: Path) -> None:
    log = tmp_path / "events"
    child = terminal(
        "-t",
        "20s",
        "--",
        *actor(log, "agent", "on('INT'); on('TERM', lambda: leave(3)); print('up', flush=True); ready()"),
    )
    child.expect("up")
    wait_for_event(log, "ready")
    child.sendintr()
    wait_for_event(log, "INT")
    child.sendcontrol("\\")  # QUIT: its default action
    assert wait_for_exit(child) == 131
    assert log.read_text().count('"INT"') == 1


def test_interactive_shell_has_job_control(terminal: Terminal) -> None:
    child = terminal("-q", "bash", "--norc", "--noprofile", "-i")
    child.expect_exact(PROMPT)
    child.sendline("sleep 100")
    wait_for_program(child, "sleep")
    child.sendintr()
    child.expect_exact(PROMPT)
    child.sendline("echo rc=$?")
    child.expect("rc=130")
    child.expect_exact(PROMPT)
    child.sendline("sleep 101")
    wait_for_program(child, "sleep")
    child.sendcontrol("z")
    child.expect("Stopped")
    child.expect_exact(PROMPT)
    child.sendline("jobs; kill %1; fg 2>/dev/null; echo over")
    child.expect("sleep 101")
    child.expect("over")
    child.expect_exact(PROMPT)
    child.sendline("exit 7")
    assert wait_for_exit(child) == 7


def test_agent_reads_from_the_terminal(terminal: Terminal) -> None:
    child = terminal("-q", "--", "sh", "-c", "read line; echo got $line; exit 4")
    child.sendline("hello")
    child.expect("got hello")
    assert wait_for_exit(child) == 4


def test_ctrl_z_without_a_job_control_shell_is_undone(terminal: Terminal, tmp_path: Path) -> None:
    log = tmp_path / "events"
    child = terminal("--", *actor(log, "agent", "on('CONT'); print('up', flush=True); ready()"))
    child.expect("up")
    wait_for_event(log, "ready")
    child.sendcontrol("z")
    wait_for_event(log, "CONT")
    child.sendintr()
    assert wait_for_exit(child) == 130


def test_hangup_of_the_terminal_reaches_the_agent_once(tmp_path: Path) -> None:
    """The kernel sends SIGHUP only to the leader of the session, and that is agent-init."""
    log = tmp_path / "events"
    arguments = [
        "-t",
        "20s",
        "--",
        *actor(log, "agent", "on('HUP'); on('TERM'); on('USR1', lambda: leave(0)); ready()"),
    ]
    child: pexpect.spawn[str] = pexpect.spawn(str(AGENT_INIT), arguments, env=clean_environment(), encoding="utf-8")
    try:
        wait_for_event(log, "ready")
        os.close(child.child_fd)
        wait_for_event(log, "HUP")
        os.kill(int(child.pid or 0), signal.SIGUSR1)
        until(lambda: not child.isalive(), "the end")
        assert child.exitstatus == 0
        events = log.read_text()
        assert events.count('"HUP"') == 1
        assert '"TERM"' not in events
    finally:
        child.closed, child.child_fd = True, -1
        if child.isalive():
            os.kill(int(child.pid or 0), signal.SIGKILL)


@pytest.fixture
def shell() -> Iterator[pexpect.spawn[str]]:
    """A shell with job control, at its prompt."""
    child: pexpect.spawn[str] = pexpect.spawn(
        "bash",
        ["--norc", "--noprofile", "-i"],
        env={**clean_environment(), "TERM": "dumb", "PS1": PROMPT},
        encoding="utf-8",
        timeout=30,
        echo=False,
    )
    try:
        child.expect_exact(PROMPT)
        yield child
    finally:
        child.close(force=True)


def test_job_of_a_shell_can_be_suspended_and_continued(shell: pexpect.spawn[str], tmp_path: Path) -> None:
    """Ctrl-Z stops agent-init and its agent like any job, and `fg` continues both."""
    log = tmp_path / "events"
    line = " ".join(f"'{word}'" for word in actor(log, "agent", 'on("USR1"); print("up", flush=True); ready()'))
    shell.sendline(f"{AGENT_INIT} -q -- {line}; echo rc=$?")
    shell.expect("up")
    wait_for_event(log, "ready")
    shell.sendcontrol("z")
    shell.expect("Stopped")
    shell.expect_exact(PROMPT)
    shell.sendline("fg")
    shell.expect("agent-init")
    init = until(lambda: psutil.Process(shell.pid).children(), "agent-init")[0]
    until(lambda: {p.status() for p in [init, *init.children()]} == {psutil.STATUS_SLEEPING}, "both to go on")
    shell.sendintr()
    shell.expect_exact(PROMPT)
    shell.sendline("echo rc=$?")
    shell.expect("rc=130")
    # The shell has the terminal again, and a script can read from it after agent-init has exited.
    shell.sendline(f"bash -c '{AGENT_INIT} -q true; read line; echo script read $line'")
    time.sleep(0.5)
    shell.sendline("this")
    shell.expect("script read this")
    # In the background agent-init does not take the terminal.
    shell.expect_exact(PROMPT)
    shell.sendline(f"{AGENT_INIT} -q sleep 0.2 & wait; echo still here")
    shell.expect("still here")


def foreground(shell: pexpect.spawn[str]) -> int:
    """The foreground process group of the terminal."""
    return os.tcgetpgrp(shell.child_fd)


def wait_for_job(shell: pexpect.spawn[str]) -> tuple[psutil.Process, psutil.Process]:
    """Wait for agent-init and its agent."""
    [init] = until(lambda: psutil.Process(shell.pid).children(), "agent-init")
    [agent] = until(init.children, "the agent")
    return init, agent


def move_to_background(shell: pexpect.spawn[str], agent: psutil.Process) -> None:
    """Suspend the job and continue it with `bg`.

    The agent must not start children: a process in vfork(2) cannot be stopped, with or without agent-init.
    """
    until(lambda: foreground(shell) == agent.pid, "the agent to have the terminal")
    shell.sendcontrol("z")
    shell.expect("Stopped")
    shell.expect_exact(PROMPT)
    shell.sendline("bg")
    shell.expect_exact(PROMPT)
    until(lambda: agent.status() == psutil.STATUS_SLEEPING, "the agent to go on")


def test_background_job_does_not_take_the_terminal_when_it_exits(shell: pexpect.spawn[str]) -> None:
    """It is continued in the background and exits there while another job has the terminal."""
    shell.sendline(f"{AGENT_INIT} -q -- sleep 100")
    init, agent = wait_for_job(shell)
    move_to_background(shell, agent)
    shell.sendline("cat")
    until(lambda: foreground(shell) not in (shell.pid, init.pid, agent.pid), "cat to have the terminal")
    owner = foreground(shell)
    agent.terminate()
    init.wait(30)
    assert foreground(shell) == owner
    shell.sendeof()
    shell.expect_exact(PROMPT)


def test_job_brought_to_the_foreground_can_be_suspended_again(shell: pexpect.spawn[str]) -> None:
    """A shell sends no signal to a running job that `fg` brings to the foreground, or CONT (bash 5.3)."""
    shell.sendline(f"{AGENT_INIT} -q -- sleep 100")
    init, agent = wait_for_job(shell)
    move_to_background(shell, agent)
    shell.sendline("fg")
    # A Ctrl-Z before the shell has sent its CONT, and waits, would be undone by that, whatever the job is.
    waits = psutil.Process(shell.pid).status
    until(
        lambda: foreground(shell) in (init.pid, agent.pid) and waits() == psutil.STATUS_SLEEPING,
        "the job to be in the foreground",
    )
    shell.sendcontrol("z")
    shell.expect("Stopped")
    shell.expect_exact(PROMPT)
    assert {init.status(), agent.status()} == {psutil.STATUS_STOPPED}
    shell.sendline("fg")
    until(lambda: foreground(shell) == agent.pid, "the agent to have the terminal")
    shell.sendintr()
    shell.expect_exact(PROMPT)


def test_ctrl_z_just_after_fg_is_not_undone(shell: pexpect.spawn[str]) -> None:
    """The agent gets the shell's CONT once, when it gets the terminal, and no second time after the Ctrl-Z."""
    shell.sendline(f"{AGENT_INIT} -q -- sleep 100")
    _, agent = wait_for_job(shell)
    until(lambda: foreground(shell) == agent.pid, "the agent to have the terminal")
    for _ in range(5):
        shell.sendcontrol("z")
        shell.expect("Stopped")
        shell.expect_exact(PROMPT)
        shell.sendline("fg")
        end = time.monotonic() + 30
        while foreground(shell) != agent.pid or agent.status() != psutil.STATUS_SLEEPING:  # without a pause
            assert time.monotonic() < end
    shell.sendintr()
    shell.expect_exact(PROMPT)


def test_job_started_in_the_background_can_read_after_fg(shell: pexpect.spawn[str], tmp_path: Path) -> None:
    go = tmp_path / "go"
    line = f"echo up; until test -e {go}; do sleep 0.1; done; read line; echo got $line"
    shell.sendline(f"{AGENT_INIT} -q -- sh -c '{line}' &")
    shell.expect("up")
    init, agent = wait_for_job(shell)
    shell.sendline("fg")
    # bash 5.3 sends CONT to a running job too, and then the agent has the terminal at once.
    until(lambda: foreground(shell) in (init.pid, agent.pid), "the job to be in the foreground")
    go.touch()
    shell.sendline("hello")
    shell.expect("got hello")
    shell.expect_exact(PROMPT)

"""A terminal on stdin: the agent is in its foreground, job control works, nothing arrives twice."""

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
    """Run agent-init in a terminal of its own; `outer` words go in front."""
    spawned: list[pexpect.spawn[str]] = []

    def run(*words: str) -> pexpect.spawn[str]:
        front = NAMESPACE if request.param == "process 1" else []
        child: pexpect.spawn[str] = pexpect.spawn(
            [*front, str(AGENT_INIT), *words][0],
            [*front, str(AGENT_INIT), *words][1:],
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


def ended(child: pexpect.spawn[str]) -> int:
    """The exit code of what ran in the terminal."""
    child.expect(pexpect.EOF)
    child.wait()
    return int(child.exitstatus if child.exitstatus is not None else 128 + (child.signalstatus or 0))


def logged(log: Path, event: str) -> None:
    """Wait for an event of the agent's."""
    until(lambda: log.exists() and f'"{event}"' in log.read_text(), event)


def running(child: pexpect.spawn[str], name: str) -> None:
    """Wait for a program to run below the terminal's session."""
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
    logged(log, "ready")
    child.sendintr()
    logged(log, "INT")
    child.sendcontrol("\\")  # QUIT: its default action
    assert ended(child) == 131
    assert log.read_text().count('"INT"') == 1


def test_an_interactive_shell_has_job_control(terminal: Terminal) -> None:
    child = terminal("-q", "bash", "--norc", "--noprofile", "-i")
    child.expect_exact(PROMPT)
    child.sendline("sleep 100")
    running(child, "sleep")
    child.sendintr()
    child.expect_exact(PROMPT)
    child.sendline("echo rc=$?")
    child.expect("rc=130")
    child.expect_exact(PROMPT)
    child.sendline("sleep 101")
    running(child, "sleep")
    child.sendcontrol("z")
    child.expect("Stopped")
    child.expect_exact(PROMPT)
    child.sendline("jobs; kill %1; fg 2>/dev/null; echo over")
    child.expect("sleep 101")
    child.expect("over")
    child.expect_exact(PROMPT)
    child.sendline("exit 7")
    assert ended(child) == 7


def test_the_agent_reads_the_terminal(terminal: Terminal) -> None:
    child = terminal("-q", "--", "sh", "-c", "read line; echo got $line; exit 4")
    child.sendline("hello")
    child.expect("got hello")
    assert ended(child) == 4


def test_ctrl_z_does_not_hang_an_agent_that_nobody_could_continue(terminal: Terminal, tmp_path: Path) -> None:
    log = tmp_path / "events"
    child = terminal("--", *actor(log, "agent", "on('CONT'); print('up', flush=True); ready()"))
    child.expect("up")
    logged(log, "ready")
    child.sendcontrol("z")
    logged(log, "CONT")
    child.sendintr()
    assert ended(child) == 130


def test_a_hang_up_reaches_the_agent_once(tmp_path: Path) -> None:
    """The kernel tells the leader of the session only, and that is agent-init."""
    log = tmp_path / "events"
    words = ["-t", "20s", "--", *actor(log, "agent", "on('HUP'); on('TERM'); on('USR1', lambda: leave(0)); ready()")]
    child: pexpect.spawn[str] = pexpect.spawn(str(AGENT_INIT), words, env=clean_environment(), encoding="utf-8")
    try:
        logged(log, "ready")
        os.close(child.child_fd)
        logged(log, "HUP")
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
    """One with job control, at its prompt."""
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


def test_as_a_job_of_a_shell_it_can_be_suspended_and_continued(shell: pexpect.spawn[str], tmp_path: Path) -> None:
    """Ctrl-Z stops agent-init with its agent, as it would any job, and `fg` continues both."""
    log = tmp_path / "events"
    line = " ".join(f"'{word}'" for word in actor(log, "agent", 'on("USR1"); print("up", flush=True); ready()'))
    shell.sendline(f"{AGENT_INIT} -q -- {line}; echo rc=$?")
    shell.expect("up")
    logged(log, "ready")
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
    # The terminal is the shell's again, and a script that goes on after agent-init can read from it.
    shell.sendline(f"bash -c '{AGENT_INIT} -q true; read line; echo script read $line'")
    time.sleep(0.5)
    shell.sendline("this")
    shell.expect("script read this")
    # In the background it leaves the terminal alone.
    shell.expect_exact(PROMPT)
    shell.sendline(f"{AGENT_INIT} -q sleep 0.2 & wait; echo still here")
    shell.expect("still here")


def foreground(shell: pexpect.spawn[str]) -> int:
    """The process group that has the terminal."""
    return os.tcgetpgrp(shell.child_fd)


def job(shell: pexpect.spawn[str]) -> tuple[psutil.Process, psutil.Process]:
    """agent-init and its agent, awaited."""
    [init] = until(lambda: psutil.Process(shell.pid).children(), "agent-init")
    [agent] = until(init.children, "the agent")
    return init, agent


def into_the_background(shell: pexpect.spawn[str], agent: psutil.Process) -> None:
    """The agent must be none that starts children: one that sits in vfork(2) cannot be stopped, with us or without."""
    until(lambda: foreground(shell) == agent.pid, "the agent to have the terminal")
    shell.sendcontrol("z")
    shell.expect("Stopped")
    shell.expect_exact(PROMPT)
    shell.sendline("bg")
    shell.expect_exact(PROMPT)


def test_it_does_not_take_the_terminal_from_who_has_it_at_its_end(shell: pexpect.spawn[str]) -> None:
    """Continued in the background it ends there: the terminal is another's, who may be reading from it."""
    shell.sendline(f"{AGENT_INIT} -q -- sleep 100")
    init, agent = job(shell)
    into_the_background(shell, agent)
    until(lambda: agent.status() == psutil.STATUS_SLEEPING, "the agent to go on")
    shell.sendline("cat")
    until(lambda: foreground(shell) not in (shell.pid, init.pid, agent.pid), "cat to have the terminal")
    has_it = foreground(shell)
    agent.terminate()
    init.wait(30)
    assert foreground(shell) == has_it
    shell.sendeof()
    shell.expect_exact(PROMPT)


def test_brought_to_the_foreground_the_agent_can_be_suspended_again(shell: pexpect.spawn[str]) -> None:
    """Of `fg` to a job that runs, a shell says nothing to it."""
    shell.sendline(f"{AGENT_INIT} -q -- sleep 100")
    init, agent = job(shell)
    into_the_background(shell, agent)
    shell.sendline("fg")
    until(lambda: foreground(shell) in (init.pid, agent.pid), "the job to be in the foreground")
    shell.sendcontrol("z")
    shell.expect("Stopped")
    shell.expect_exact(PROMPT)
    assert {init.status(), agent.status()} == {psutil.STATUS_STOPPED}
    shell.sendline("fg")
    until(lambda: foreground(shell) == agent.pid, "the agent to have the terminal")
    shell.sendintr()
    shell.expect_exact(PROMPT)


def test_started_in_the_background_it_can_read_once_it_is_in_front(shell: pexpect.spawn[str], tmp_path: Path) -> None:
    go = tmp_path / "go"
    line = f"echo up; until test -e {go}; do sleep 0.1; done; read line; echo got $line"
    shell.sendline(f"{AGENT_INIT} -q -- sh -c '{line}' &")
    shell.expect("up")
    init, _ = job(shell)
    shell.sendline("fg")
    until(lambda: foreground(shell) == init.pid, "the job to be in the foreground")
    go.touch()
    shell.sendline("hello")
    shell.expect("got hello")
    shell.expect_exact(PROMPT)

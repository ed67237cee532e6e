"""`docker run -it`: Ctrl-C reaches the agent once, and a shell has its job control."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pexpect

from .container import RECORDER, WITHIN, Containers
from .images import PROBE

PROMPT = "ready> "
JOB = "sh -c 'echo up; exec sleep 1000'"  # when it says so, it has the foreground


@contextmanager
def interactive(containers: Containers, *command: str, name: str) -> Iterator[pexpect.spawn[str]]:
    """`docker run -it` in a terminal of its own, 24 lines of 120 columns."""
    arguments = ["run", "--interactive", "--tty", "--rm", "--name", name, "--network", "none", "--env", "TERM=dumb"]
    environment = {**containers.engine.environment, "TERM": "dumb"}
    terminal = pexpect.spawn(
        "docker", [*arguments, PROBE, *command], env=environment, encoding="utf-8", timeout=WITHIN, dimensions=(24, 120)
    )
    try:
        yield terminal
    finally:
        terminal.close(force=True)
        containers.engine("rm", "--force", name, check=False)


def test_ctrl_c_reaches_the_agent_once(containers: Containers) -> None:
    """The terminal sends INT to the foreground group, which is the agent's: that is the agent's stop, and all of it."""
    with interactive(containers, *RECORDER, "--code=4", name="agent-init-ctrl-c") as terminal:
        terminal.expect_exact("ready\r\n")
        terminal.sendintr()
        terminal.expect_exact("cleaned up\r\n")
        said = terminal.before
        terminal.expect(pexpect.EOF)
        terminal.close()
    assert said is not None
    assert re.findall(r"got (\w+)", said) == ["INT"]
    assert terminal.exitstatus == 4


def test_ctrl_c_twice(containers: Containers) -> None:
    """What is typed is the user's will: the agent gets the second one too."""
    with interactive(containers, *RECORDER, "--cleanup=3", name="agent-init-ctrl-c-twice") as terminal:
        terminal.expect_exact("ready\r\n")
        terminal.sendintr()
        terminal.expect_exact("got INT\r\n")
        terminal.sendintr()
        terminal.expect_exact("got INT\r\n")
        terminal.expect_exact("cleaned up\r\n")
        terminal.expect(pexpect.EOF)
        terminal.close()
    assert terminal.exitstatus == 0


def test_a_shell_works_as_ever(containers: Containers) -> None:
    """Foreground, Ctrl-C, Ctrl-Z, background and back, and the shell's own exit code."""
    with interactive(containers, "bash", "--norc", "--noediting", "-i", name="agent-init-shell") as terminal:
        terminal.expect(r"\$ ")
        assert "no job control" not in (terminal.before or "")
        terminal.sendline(f"PS1='{PROMPT[:2]}''{PROMPT[2:]}'")  # so that the echo is not taken for the prompt
        terminal.expect_exact(PROMPT)

        terminal.sendintr()  # at the prompt it is the shell's, and ends nothing
        terminal.expect_exact(PROMPT)

        terminal.sendline(JOB)
        terminal.expect_exact("up\r\n")
        terminal.sendintr()
        terminal.expect_exact(PROMPT)
        terminal.sendline("echo code $?")
        terminal.expect_exact("code 130\r\n")
        terminal.expect_exact(PROMPT)

        terminal.sendline(JOB)
        terminal.expect_exact("up\r\n")
        terminal.sendcontrol("z")
        terminal.expect_exact("Stopped")
        terminal.expect_exact(PROMPT)
        terminal.sendline("bg; jobs -r")
        terminal.expect_exact("Running")
        terminal.expect_exact(PROMPT)
        terminal.sendline("fg")
        terminal.expect_exact(JOB)
        terminal.sendintr()
        terminal.expect_exact(PROMPT)

        terminal.sendline("exit 7")
        terminal.expect(pexpect.EOF)
        terminal.close()
    assert terminal.exitstatus == 7


def test_docker_stop_of_a_session(containers: Containers) -> None:
    """The session's terminal is no reason to wait for Docker's SIGKILL."""
    with interactive(containers, *RECORDER, name="agent-init-session") as terminal:
        terminal.expect_exact("ready\r\n")
        containers.engine("stop", "--time", "60", "agent-init-session")
        terminal.expect_exact("got TERM\r\n")
        terminal.expect_exact("cleaned up\r\n")
        terminal.expect(pexpect.EOF)
        terminal.close()
    assert terminal.exitstatus == 0


def test_the_size_of_the_terminal(containers: Containers) -> None:
    """The agent's terminal is the user's, its size and the news of a change included."""
    with interactive(containers, *RECORDER, name="agent-init-size") as terminal:
        terminal.expect_exact("ready\r\n")
        terminal.setwinsize(30, 100)
        terminal.expect_exact("got WINCH\r\n")
        terminal.sendintr()
        terminal.expect(pexpect.EOF)
        terminal.close()
    assert terminal.exitstatus == 0

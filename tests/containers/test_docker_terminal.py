"""`docker run -it`: Ctrl-C reaches the agent once, and a shell has job control."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pexpect

from .container import RECORDER, TIMEOUT, Containers
from .images import PROBE

PROMPT = "ready> "
JOB = "sh -c 'echo up; exec sleep 1000'"  # when it prints `up`, it is in the foreground


@contextmanager
def interactive(containers: Containers, *command: str, name: str) -> Iterator[pexpect.spawn[str]]:
    """`docker run -it` in a new terminal of 24 lines and 120 columns."""
    arguments = ["run", "--interactive", "--tty", "--rm", "--name", name, "--network", "none", "--env", "TERM=dumb"]
    environment = {**containers.engine.environment, "TERM": "dumb"}
    terminal = pexpect.spawn(
        "docker",
        [*arguments, PROBE, *command],
        env=environment,
        encoding="utf-8",
        timeout=TIMEOUT,
        dimensions=(24, 120),
    )
    try:
        yield terminal
    finally:
        terminal.close(force=True)
        containers.engine("rm", "--force", name, check=False)


def test_ctrl_c_reaches_the_agent_once(containers: Containers) -> None:
    """The terminal sends INT to the foreground group, which is the agent's. agent-init adds nothing."""
    with interactive(containers, *RECORDER, "--code=4", name="agent-init-ctrl-c") as terminal:
        terminal.expect_exact("ready\r\n")
        terminal.sendintr()
        terminal.expect_exact("cleaned up\r\n")
        output = terminal.before
        terminal.expect(pexpect.EOF)
        terminal.close()
    assert output is not None
    assert re.findall(r"got ((?!WINCH)\w+)", output) == ["INT"]  # the engine may change the size of the terminal
    assert terminal.exitstatus == 4


def test_second_ctrl_c_reaches_the_agent_too(containers: Containers) -> None:
    """Signals from the terminal are not filtered."""
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


def test_interactive_shell_has_job_control(containers: Containers) -> None:
    """Ctrl-C, Ctrl-Z, `bg`, `fg`, and the shell's exit code."""
    with interactive(containers, "bash", "--norc", "--noediting", "-i", name="agent-init-shell") as terminal:
        terminal.expect(r"\$ ")
        assert "no job control" not in (terminal.before or "")
        terminal.sendline(f"PS1='{PROMPT[:2]}''{PROMPT[2:]}'")  # the echo must not match the prompt
        terminal.expect_exact(PROMPT)

        terminal.sendintr()  # at the prompt it goes to the shell, which continues
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


def test_docker_stop_of_an_interactive_session(containers: Containers) -> None:
    """The agent in an interactive session stops gracefully."""
    with interactive(containers, *RECORDER, name="agent-init-session") as terminal:
        terminal.expect_exact("ready\r\n")
        containers.engine("stop", "--time", "60", "agent-init-session")
        terminal.expect_exact("got TERM\r\n")
        terminal.expect_exact("cleaned up\r\n")
        terminal.expect(pexpect.EOF)
        terminal.close()
    assert terminal.exitstatus == 0


def test_change_of_the_terminal_size_reaches_the_agent(containers: Containers) -> None:
    """The agent gets WINCH when the size of the user's terminal changes."""
    with interactive(containers, *RECORDER, name="agent-init-size") as terminal:
        terminal.expect_exact("ready\r\n")
        terminal.setwinsize(30, 100)
        terminal.expect_exact("got WINCH\r\n")
        terminal.sendintr()
        terminal.expect(pexpect.EOF)
        terminal.close()
    assert terminal.exitstatus == 0

"""Completion of agent-initctl in the real shells."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import click
import pexpect
import pytest

from entrypoint.ctl import commands
from tests.support.control import AGENT_INITCTL
from tests.support.init import clean_environment

if TYPE_CHECKING:
    from pathlib import Path

LINES = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "-i"],
}
SETUP = {
    "bash": 'eval "$(_AGENT_INITCTL_COMPLETE=bash_source agent-initctl)"',
    "zsh": 'autoload -U compinit; compinit -D; eval "$(_AGENT_INITCTL_COMPLETE=zsh_source agent-initctl)"',
    "fish": "_AGENT_INITCTL_COMPLETE=fish_source agent-initctl | source",
}


WORDS = {
    "ext": "extend",
    "stop --wa": "stop --wait",
    "signal TER": "signal TERM",
    "check Dock": "check Dockerfile",
    "check other Dock": "check other Dockerfile",
    "rehearse --html Dock": "rehearse --html Dockerfile",
}


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_tab_completes_commands_options_signals_and_files(shell: str, tmp_path: Path) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    env = clean_environment(PATH=f"{AGENT_INITCTL.parent}:/usr/bin:/bin", HOME=str(tmp_path), TERM="dumb", PS1="$ ")
    (tmp_path / "Dockerfile").touch()
    command, *arguments = LINES[shell]
    child = pexpect.spawn(command, arguments, env=env, cwd=tmp_path, encoding="utf-8", timeout=60, dimensions=(24, 200))
    try:
        child.sendline(SETUP[shell] + "; echo do''ne")
        child.expect_exact("done")
        for typed, completed in WORDS.items():
            child.send(f": && agent-initctl {typed}\t")
            child.expect_exact(f"agent-initctl {completed}")
            child.send("\x15")  # Ctrl-U: delete the line
    finally:
        child.close(force=True)


def test_only_signals_that_a_process_can_catch_are_offered() -> None:
    command = commands._signal
    offered = {item.value for item in commands.Signal().shell_complete(click.Context(command), command.params[-1], "")}
    assert {"TERM", "USR2"} < offered
    assert not offered & {"KILL", "STOP", "CHLD", "CLD"}


def test_fish_completes_commands_options_signals_and_files(tmp_path: Path) -> None:
    if not shutil.which("fish"):
        pytest.skip("fish is not installed")
    env = clean_environment(PATH=f"{AGENT_INITCTL.parent}:/usr/bin:/bin", HOME=str(tmp_path))
    (tmp_path / "Dockerfile").touch()
    for typed, completed in WORDS.items():
        line = f"{SETUP['fish']}; complete -C 'agent-initctl {typed}'"
        command = ["fish", "--no-config", "-c", line]
        ran = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert completed.split()[-1] in [found.split("\t")[0] for found in ran.stdout.splitlines()], ran

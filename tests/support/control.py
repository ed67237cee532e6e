"""Run the real agent-initctl, as people and platforms do."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

from tests.support.init import AGENT_INIT, clean_environment, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.support.init import Init

AGENT_INITCTL = AGENT_INIT.with_name("agent-initctl")
PERMISSION_DENIED = (
    "agent-initctl: permission denied: agent-init answers root and its own user, from inside its container\n"
)
DIES_WITH_PARENT = ["setpriv", "--pdeathsig=KILL"]  # nsenter(1) waits for it
NOT_ROOT = [] if os.getuid() == 0 else ["--user", "--preserve-credentials"]


def argv(init: Init, *arguments: str, program: Sequence[str] = (str(AGENT_INITCTL),)) -> list[str]:
    """The command that asks this agent-init: by its pid; where it is a process 1, from within, as `docker exec`."""
    if not init.process1:
        return [*program, *arguments, f"--pid={init.pid}"]
    enter = ["nsenter", f"--target={init.pid}", "--pid", "--mount", *NOT_ROOT]
    return [*enter, "--", *DIES_WITH_PARENT, *program, *arguments]


def ask(init: Init, *arguments: str, before: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Ask it, with the command `before` in front, and wait for the answer."""
    command = [*argv(init, *arguments)]
    at = command.index(str(AGENT_INITCTL))
    command[at:at] = before
    return subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=60)


def begin(init: Init, *arguments: str) -> subprocess.Popen[str]:
    """Ask it, and do not wait."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(argv(init, *arguments), env=clean_environment(), **pipes)


def status(init: Init) -> dict[str, Any]:
    """The JSON object of `status`."""
    ran = ask(init, "status", "--json")
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def wait_until_served(init: Init) -> None:
    """Wait until it answers: its socket is opened just after the agent's start."""
    until(lambda: ask(init, "live").returncode == 0, f"an answer; stderr:\n{init.stderr}")


def records(text: str) -> Iterator[dict[str, Any]]:
    """The records of `events`."""
    return map(json.loads, text.splitlines())

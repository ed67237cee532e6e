"""Signals behind genuine relays and shells: which ones reach the agent, and how a stop ends."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
from typing import TYPE_CHECKING

import pytest

from tests.field.place import Place
from tests.field.running import Build, init, running
from tests.field.wrappers import WRAPPERS
from tests.support.init import until

if TYPE_CHECKING:
    from collections.abc import Callable

RELAYS = [
    "uv",
    "npm start",
    "npx",
    "yarn",
    "pnpm",
    "pnpm 10",
    "pdm",
    "dotenv-cli",
    "cross-env",
    "su -c exec",
    "sudo",
    "timeout",
]
INIT = init("agent-init", "-t", "20s")
NODE = """
process.on('SIGTERM', () => { log('TERM'); setTimeout(() => { log('drained'); process.exit(7); }, 500); });
setInterval(() => {}, 1000);
"""


def wrapper(name: str) -> Build:
    found = WRAPPERS[name]
    if program := found.trial.missing():
        pytest.skip(f"{program} is not installed: python -m tests.field.install")
    return found.build


@pytest.mark.parametrize("name", RELAYS)
def test_signals_that_the_agent_does_not_handle_do_not_kill_it_behind_a_relay(name: str) -> None:
    """The relay would pass them on: 138 for USR1, 129 for HUP."""
    with running(wrapper(name), INIT, drain=1.0) as run:
        assert run.wait_until_up(), run.output.read_text(errors="replace")
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            os.kill(run.pid, number)
        until(lambda: run.output.read_text(errors="replace").count("dropped: no process handles it") == 2, "two lines")
        os.kill(run.pid, signal.SIGHUP)
        run.outer.wait(20)
        assert run.events() == ["up", "TERM", "drained"], run.output.read_text(errors="replace")
        assert run.outer.returncode == 0


PLAIN = """
import asyncio
async def main():
    try:
        log("up")
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.1)
        log("cleaned")
asyncio.run(main())
"""


def plain(place: Place) -> None:
    """Put an agent without signal handlers in the place of the one that drains."""
    place.agent = place.actor("agent", PLAIN)
    place.arguments = place.agent[1:]
    place.line = shlex.join(place.agent)


def replaced(name: str, change: Callable[[Place], None]) -> Build:
    build = wrapper(name)

    def changed(place: Place) -> list[str]:
        change(place)
        return build(place)

    return changed


@pytest.mark.parametrize(
    "name", ["uv", "npm start", "su -c", "runuser", "bash, EXIT trap", "bash, exiting trap", "strace -f"]
)
def test_plain_asyncio_agent_cleans_up_behind_a_wrapper_that_handles_term(name: str) -> None:
    with running(replaced(name, plain), INIT, drain=1.0) as run:
        assert run.wait_until_up(), run.output.read_text(errors="replace")
        os.kill(run.pid, signal.SIGTERM)
        run.outer.wait(15)
        assert run.events() == ["up", "cleaned"], run.output.read_text(errors="replace")


def node(place: Place) -> None:
    """Put a Node agent in the place of the one that drains: Node resets all signals at its start."""
    script = place.file("agent.js", (
        "const fs = require('fs');\n"
        "const log = text => fs.appendFileSync(process.argv[2], JSON.stringify(\n"
        "    {pid: process.pid, name: 'agent', event: text, t: process.uptime()}) + '\\n');\n"
        f"{NODE}\nlog('up');\n"
    ))  # fmt: skip
    place.agent[:] = [str(shutil.which("node")), script, str(place.log)]
    place.line = shlex.join(place.agent)


@pytest.mark.parametrize("shell", ["bash", "dash", "zsh"])
@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("trap 'exit 3' TERM; AGENT; exit 4", 3),
        ("trap 'kill -TERM $c' TERM; AGENT & c=$!; wait $c; wait $c; exit $?", 7),
        ("trap 'kill -TERM $c' TERM; AGENT & c=$!; wait $c", 143),  # the shell exits before it
    ],
)
def test_node_is_signalled_once_behind_a_shell_with_a_trap(shell: str, line: str, code: int) -> None:
    if shutil.which("node") is None or shutil.which(shell) is None:
        pytest.skip(f"node or {shell} is not installed")

    def build(place: Place) -> list[str]:
        node(place)
        return [shell, "-c", line.replace("AGENT", place.line)]

    with running(build, init("agent-init", "-t", "20s", "--linger", "200ms"), drain=1.0) as run:
        assert run.wait_until_up(), run.output.read_text(errors="replace")
        os.kill(run.pid, signal.SIGTERM)
        run.outer.wait(25)
        assert run.events() == ["up", "TERM", "drained"], run.output.read_text(errors="replace")
        assert run.outer.returncode == code

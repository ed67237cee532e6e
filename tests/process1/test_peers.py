"""The README's table against the peers: each cell is what happened here.

A peer that is not installed is skipped; `.ci/run` installs all of them. `python -m tests.process1.test_peers` writes
the table anew.
"""

from __future__ import annotations

import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support.init import AGENT_INIT, Init, actor, actor_line, until

if TYPE_CHECKING:
    from collections.abc import Callable

README = Path(__file__).parents[2] / "README.md"
MARKS = re.compile(r"(<!-- peers: [^\n]*-->\n).*?(<!-- end of peers -->)", re.DOTALL)
PEERS = {
    "agent-init": [str(AGENT_INIT), "-t", "2s", "--"],
    "tini": ["tini", "--"],
    "dumb-init": ["dumb-init", "--"],
    "catatonit": ["catatonit", "--"],
}
LONG_ENOUGH = 3.5  # for agent-init's grace of 2 s to be over; the peers have no deadline to wait for


class Stage:
    """One peer in one directory."""

    def __init__(self, peer: str, directory: Path) -> None:
        self.peer, self.directory = peer, directory
        self.runs: list[Init] = []

    def command(self, *words: str) -> Init:
        self.runs.append(Init(self.directory, list(words), program=PEERS[self.peer]))
        return self.runs[-1]

    def agent(self, code: str, *, process1: bool = True) -> Init:
        words = actor(self.directory / "events.jsonl", "agent", code)
        self.runs.append(Init(self.directory, words, program=PEERS[self.peer], process1=process1))
        return self.runs[-1]


def finished(init: Init, name: str = "agent") -> bool:
    return "end" in init.events(name)


def behind_a_shell(stage: Stage) -> str:
    line = actor_line("agent", "on('TERM', lambda: leave(0, after=0.5)); ready()")
    init = stage.command("sh", "-c", f"{line}; exit $?")
    init.event("ready")
    init.signal("TERM")
    init.wait()
    return "finishes its clean-up" if finished(init) else "killed, no clean-up"


def doubled(stage: Stage) -> str:
    agent = (
        "import itertools; seen = itertools.count(); on('TERM', lambda: os._exit(1) if next(seen) else None); ready()"
    )
    init = stage.agent(agent)
    init.event("ready")
    init.signal("TERM")
    init.event("TERM")
    init.signal("TERM")
    end = time.monotonic() + 1
    while time.monotonic() < end and init.outer.poll() is None:
        time.sleep(0.01)
    return "gets it once, goes on" if init.events().count("TERM") == 1 else "quits at once"


def prefork(stage: Stage) -> str:
    worker = 'log("ready"); time.sleep(0.8); log("end")'
    agent = f"pool = child('worker', {worker!r}); on('TERM', lambda: (os.waitpid(pool, 0), leave(0))); ready()"
    init = stage.agent(agent)
    init.event("ready", "worker")
    init.event("ready")
    init.signal("TERM")
    init.wait()
    return "worker finishes its task" if finished(init, "worker") else "worker killed at once"


def deaf(stage: Stage) -> str:
    init = stage.agent("ignore('TERM'); ready()")
    init.event("ready")
    init.signal("TERM")
    try:
        init.wait(LONG_ENOUGH)
    except AssertionError:
        return "waits for ever"
    return "SIGKILL at the deadline, and says so" if init.lines("SIGKILL") else "SIGKILL"


def survivor(stage: Stage) -> str:
    daemon = "on('TERM', lambda: leave(0, after=0.3)); ready()"
    init = stage.agent(f"orphan('daemon', {daemon!r}); on('TERM', lambda: leave(0)); ready()")
    init.event("ready", "daemon")
    init.event("ready")
    init.signal("TERM")
    init.wait()
    return "gets TERM, finishes its clean-up" if finished(init, "daemon") else "killed, no clean-up"


def unhandled(name: str) -> Callable[[Stage], str]:
    def situation(stage: Stage) -> str:
        init = stage.agent("on('TERM', lambda: leave(0, after=0.3)); ready()")
        init.event("ready")
        init.signal(name)
        until(lambda: init.outer.poll() is not None or init.lines("dropped"), "an outcome")
        if init.outer.poll() is None:
            return "dropped with a warning"
        if finished(init):
            return "a graceful stop"
        assert init.wait() == 128 + getattr(signal, f"SIG{name}")
        return "kills the agent"

    return situation


def stopped(stage: Stage) -> str:
    agent = "on('TERM', lambda: leave(0)); log('ready'); os.kill(os.getpid(), 19); forever()"
    init = stage.agent(agent)
    init.event("ready")
    process1 = psutil.Process(init.pid)
    until(lambda: any(c.status() == psutil.STATUS_STOPPED for c in process1.children()), "the agent to be stopped")
    init.signal("TERM")
    try:
        init.wait(1)
    except AssertionError:
        return "never acts on it"
    return "is continued, ends gracefully"


def not_process_1(stage: Stage) -> str:
    init = stage.agent("orphan('daemon', 'ready()'); ready()", process1=False)
    init.event("ready")
    daemon = psutil.Process(init.event("ready", "daemon")["pid"])
    try:
        return "adopted and reaped" if daemon.ppid() == init.pid else "go elsewhere"
    finally:
        daemon.kill()


SITUATIONS: dict[str, Callable[[Stage], str]] = {
    "TERM, agent behind `sh -c '...; exit $?'`": behind_a_shell,
    "TERM twice, agent quits at the second": doubled,
    "TERM, worker pool with a task in hand": prefork,
    "TERM, agent ignores it": deaf,
    "agent ends, a daemon of its is left": survivor,
    "HUP, agent does not handle it": unhandled("HUP"),
    "USR1, agent does not handle it": unhandled("USR1"),
    "TERM, agent is stopped (SIGSTOP)": stopped,
    "orphans, not as process 1": not_process_1,
}


def outcome(situation: str, peer: str, directory: Path) -> str:
    """What happens under `peer`."""
    stage = Stage(peer, directory)
    try:
        return SITUATIONS[situation](stage)
    finally:
        for init in stage.runs:
            init.close()


def rows() -> dict[str, dict[str, str]]:
    """The table in the README."""
    found = MARKS.search(README.read_text())
    assert found
    header, _, *lines = found[0].splitlines()[1:-1]
    names = [cell.strip() for cell in header.split("|")[2:-1]]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    return {row[0]: dict(zip(names, row[1:], strict=True)) for row in cells}


def test_the_table_is_whole() -> None:
    assert {situation: list(row) for situation, row in rows().items()} == {key: list(PEERS) for key in SITUATIONS}


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("situation", SITUATIONS)
def test_what_the_readme_says_happens(situation: str, peer: str, tmp_path: Path) -> None:
    if not shutil.which(PEERS[peer][0]):
        pytest.skip(f"{peer} is not installed (a Debian package)")
    assert outcome(situation, peer, tmp_path) == rows()[situation][peer]


if __name__ == "__main__":
    table = f"| | {' | '.join(PEERS)} |\n|---{'|---' * len(PEERS)}|\n"
    for situation in SITUATIONS:
        outcomes = []
        for peer in PEERS:
            with tempfile.TemporaryDirectory() as name:
                outcomes.append(outcome(situation, peer, Path(name)))
        table += f"| {situation} | {' | '.join(outcomes)} |\n"
        print(situation, outcomes, file=sys.stderr)
    README.write_text(MARKS.sub(lambda found: f"{found[1]}{table}{found[2]}", README.read_text()))

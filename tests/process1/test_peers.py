"""The README's table of agent-init and its peers: each cell is checked against a real run.

A peer that is not installed is skipped; `.ci/run` installs all of them. `python -m tests.process1.test_peers` rewrites
the table.
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
PAST_THE_GRACE = 3.5  # seconds; agent-init's grace is 2 s here, and the peers have no deadline


class PeerRunner:
    """Runs one peer in one directory."""

    def __init__(self, peer: str, directory: Path) -> None:
        self.peer, self.directory = peer, directory
        self.runs: list[Init] = []

    def run_command(self, *argv: str) -> Init:
        self.runs.append(Init(self.directory, list(argv), program=PEERS[self.peer]))
        return self.runs[-1]

    def run_agent(self, code: str, *, process1: bool = True) -> Init:
        argv = actor(self.directory / "events.jsonl", "agent", code)
        self.runs.append(Init(self.directory, argv, program=PEERS[self.peer], process1=process1))
        return self.runs[-1]


def finished(init: Init, name: str = "agent") -> bool:
    return "end" in init.events(name)


def behind_a_shell(runner: PeerRunner) -> str:
    line = actor_line("agent", "on('TERM', lambda: leave(0, after=0.5)); ready()")
    init = runner.run_command("sh", "-c", f"{line}; exit $?")
    init.wait_for_event("ready")
    init.signal("TERM")
    init.wait()
    return "finishes its clean-up" if finished(init) else "killed, no clean-up"


def no_handler(runner: PeerRunner) -> str:
    init = runner.run_agent("try: log('ready'); time.sleep(90)\nfinally: log('end')")
    init.wait_for_event("ready")
    init.signal("TERM")
    init.wait()
    return "`finally` is run" if finished(init) else "killed, no clean-up"


def term_twice(runner: PeerRunner) -> str:
    agent = (
        "import itertools; seen = itertools.count(); on('TERM', lambda: os._exit(1) if next(seen) else None); ready()"
    )
    init = runner.run_agent(agent)
    init.wait_for_event("ready")
    init.signal("TERM")
    init.wait_for_event("TERM")
    init.signal("TERM")
    end = time.monotonic() + 1
    while time.monotonic() < end and init.outer.poll() is None:
        time.sleep(0.01)
    return "gets it once, goes on" if init.events().count("TERM") == 1 else "quits at once"


def worker_pool(runner: PeerRunner) -> str:
    worker = 'log("ready"); time.sleep(0.8); log("end")'
    agent = f"pool = child('worker', {worker!r}); on('TERM', lambda: (os.waitpid(pool, 0), leave(0))); ready()"
    init = runner.run_agent(agent)
    init.wait_for_event("ready", "worker")
    init.wait_for_event("ready")
    init.signal("TERM")
    init.wait()
    return "worker finishes its task" if finished(init, "worker") else "worker killed at once"


def term_ignored(runner: PeerRunner) -> str:
    init = runner.run_agent("ignore('TERM'); ready()")
    init.wait_for_event("ready")
    init.signal("TERM")
    try:
        init.wait(PAST_THE_GRACE)
    except AssertionError:
        return "waits for ever"
    return "SIGKILL at the deadline, and says so" if init.lines("SIGKILL") else "SIGKILL"


def leftover_daemon(runner: PeerRunner) -> str:
    daemon = "on('TERM', lambda: leave(0, after=0.3)); ready()"
    init = runner.run_agent(f"orphan('daemon', {daemon!r}); on('TERM', lambda: leave(0)); ready()")
    init.wait_for_event("ready", "daemon")
    init.wait_for_event("ready")
    init.signal("TERM")
    init.wait()
    return "gets TERM, finishes its clean-up" if finished(init, "daemon") else "killed, no clean-up"


def unhandled(name: str) -> Callable[[PeerRunner], str]:
    def situation(runner: PeerRunner) -> str:
        init = runner.run_agent("on('TERM', lambda: leave(0, after=0.3)); ready()")
        init.wait_for_event("ready")
        init.signal(name)
        until(lambda: init.outer.poll() is not None or init.lines("dropped"), "an outcome")
        if init.outer.poll() is None:
            return "dropped with a warning"
        if finished(init):
            return "a graceful stop"
        assert init.wait() == 128 + getattr(signal, f"SIG{name}")
        return "kills the agent"

    return situation


SITUATIONS: dict[str, Callable[[PeerRunner], str]] = {
    "TERM, agent behind `sh -c '...; exit $?'`": behind_a_shell,
    "TERM, Python agent without a handler": no_handler,
    "TERM twice, agent quits at the second": term_twice,
    "TERM, worker pool with a task in hand": worker_pool,
    "TERM, agent ignores it": term_ignored,
    "agent ends, leaving a daemon": leftover_daemon,
    "HUP, agent does not handle it": unhandled("HUP"),
    "USR1, agent does not handle it": unhandled("USR1"),
}


def outcome(situation: str, peer: str, directory: Path) -> str:
    """Run a situation under `peer` and return what happened, as the table words it."""
    runner = PeerRunner(peer, directory)
    try:
        return SITUATIONS[situation](runner)
    finally:
        for init in runner.runs:
            init.close()


def rows() -> dict[str, dict[str, str]]:
    """The table in the README: situation to peer to outcome."""
    found = MARKS.search(README.read_text())
    assert found
    header, _, *lines = found[0].splitlines()[1:-1]
    names = [cell.strip() for cell in header.split("|")[2:-1]]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    return {row[0]: dict(zip(names, row[1:], strict=True)) for row in cells}


def test_readme_table_has_every_situation_and_peer() -> None:
    assert {situation: list(row) for situation, row in rows().items()} == {key: list(PEERS) for key in SITUATIONS}


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("situation", SITUATIONS)
def test_readme_table_cell_matches_the_outcome(situation: str, peer: str, tmp_path: Path) -> None:
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

"""Runs `agent-initctl rehearse` on agents that are written down here, and sees that nothing is left of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.support.control import AGENT_INITCTL
from tests.support.init import clean_environment, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MARK = "REHEARSED_RUN"  # in the environment of everything that a rehearsal starts


@dataclass
class Ran:
    """What a rehearsal has printed. `report`: its JSON object."""

    code: int
    report: dict[str, Any]
    errors: str
    keep: Path

    def runs(self, scenario: str) -> list[dict[str, Any]]:
        """The runs of a scenario."""
        found = [run for run in self.report["runs"] if run["scenario"] == scenario]
        assert found, (scenario, self.report, self.errors)
        return found

    def run(self, scenario: str) -> dict[str, Any]:
        """Its only run."""
        (found,) = self.runs(scenario)
        return found


class Rehearse(Protocol):
    """Rehearse an agent: Python code, or a command."""

    def __call__(self, agent: str | list[str], *options: str, before: tuple[str, ...] = (), **env: str) -> Ran: ...


@dataclass
class Begun:
    """A rehearsal that was begun, and whose processes can be found."""

    process: subprocess.Popen[str]
    mark: str

    def processes(self) -> list[str]:
        """The command lines of what runs of it, agent-initctl itself not among them."""
        return [line for pid, line in marked(self.mark) if pid != self.process.pid]


def marked(mark: str) -> list[tuple[int, str]]:
    """The processes with a mark in their environment."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/environ", "rb", buffering=0) as file:
                if f"{MARK}={mark}".encode() not in file.read().split(b"\0"):
                    continue
            with open(f"/proc/{name}/cmdline", "rb", buffering=0) as file:
                found.append((int(name), file.read().replace(b"\0", b" ").decode(errors="replace")))
        except OSError:
            continue
    return found


def _is_empty(mark: str) -> bool:
    return not marked(mark)


def _argv(tmp_path: Path, agent: str | list[str], options: tuple[str, ...], before: tuple[str, ...]) -> list[str]:
    if isinstance(agent, str):
        (tmp_path / "agent.py").write_text(agent)
        agent = [sys.executable, str(tmp_path / "agent.py")]
    return [*before, str(AGENT_INITCTL), "rehearse", "--seed=1", *options, "--", *agent]


@pytest.fixture
def rehearse(tmp_path: Path) -> Iterator[Rehearse]:
    """Rehearse an agent, to the end. What is left of it fails the test."""
    marks = []

    def run(agent: str | list[str], *options: str, before: tuple[str, ...] = (), **env: str) -> Ran:
        mark = uuid.uuid4().hex
        marks.append(mark)
        keep = tmp_path / f"kept-{len(marks)}"
        argv = _argv(tmp_path, agent, ("--json", f"--keep={keep}", *options), before)
        environment = clean_environment(**{MARK: mark}, **env)
        ran = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=110, cwd=tmp_path)
        return Ran(ran.returncode, json.loads(ran.stdout) if ran.stdout else {}, ran.stderr, keep)

    yield run
    for mark in marks:
        assert not marked(mark)


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Any]:
    """Begin a rehearsal, and do not wait for its end."""
    begun = []

    def start(agent: str, *options: str) -> Begun:
        mark = uuid.uuid4().hex
        process = subprocess.Popen(
            _argv(tmp_path, agent, (f"--keep={tmp_path / 'kept'}", *options), ()),
            env=clean_environment(**{MARK: mark}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            start_new_session=True,
        )
        begun.append(Begun(process, mark))
        return begun[-1]

    yield start
    for one in begun:
        one.process.kill()
        one.process.communicate()
        until(partial(_is_empty, one.mark), f"the end of {marked(one.mark)}", 10)

"""Whole lives of an agent, to be repeated while one thing after another goes wrong."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import entrypoint
from tests.support.init import RUN_VARIABLE, Init, actor, until

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = str(Path(entrypoint.__file__).parents[1])
PROGRAMS = Path(__file__).with_name("programs")
LATE = 8.0  # in seconds; traced, and with many at once, everything takes longer than it is promised to


@dataclass(frozen=True)
class StopScenario:
    """An agent that handles USR1, does not handle USR2, and is stopped with TERM.

    Where a second request would escalate, one that is dealt with twice shows.
    """

    agent: str
    options: tuple[str, ...]
    code: int
    others: tuple[str, ...] = ()  # further actors, which say that they are ready
    least: float = 0.0  # seconds from the stop request to the end
    expected: dict[str, list[str]] = field(default_factory=dict)  # events of the others

    @property
    def events(self) -> list[str]:
        """What the agent goes through."""
        return ["ready", "USR1", "TERM", *(["end"] if self.code == 7 else [])]


SCENARIOS = {
    "graceful": StopScenario(
        "orphan('daemon', 'leave(1)'); on('USR1'); on('TERM', lambda: leave(7)); ready()",
        ("-w", "-t", "1500ms", "--repeat", "escalate"),
        7,
    ),
    "stubborn": StopScenario(
        "child('heir', \"on('TERM'); ready()\"); on('USR1'); on('TERM'); ready()",
        ("-t", "300ms"),
        137,
        others=("heir",),
        least=0.3,
        expected={"heir": ["ready"]},
    ),
    "lingering": StopScenario(
        "child('heir', \"on('TERM', lambda: leave(0, after=0.1)); ready()\"); on('USR1'); "
        "on('TERM', lambda: leave(7)); ready()",
        ("-t", "20s", "--linger", "10s", "--log-format", "json", "--repeat", "escalate"),
        7,
        others=("heir",),
        least=0.1,
        expected={"heir": ["ready", "TERM", "end"]},
    ),
}


class Run:
    """One stop scenario of one agent-init, in a directory of its own."""

    def __init__(
        self, directory: Path, scenario: StopScenario, *, process1: bool, program: list[str], **popen: Any
    ) -> None:
        """`program`: the words that stand for agent-init, as far as its own options."""
        directory.mkdir(parents=True)
        self.scenario, self.asked = scenario, 0.0
        words = [*scenario.options, "--", *actor(directory / "events.jsonl", "agent", scenario.agent)]
        self.init = Init(directory, words, process1=process1, program=program, **popen)

    def begin(self) -> None:
        """Await that the agent and whoever belongs to it are there. Raises AssertionError if they won't be."""
        for name in ("agent", *self.scenario.others):
            self._until(name, "ready")

    def signal(self, name: str) -> None:
        """Raises AssertionError when agent-init has ended."""
        assert self.init.outer.poll() is None, f"ended early with {self.init.outer.returncode}"
        self.init.signal(name)

    def pass_on(self) -> None:
        """One signal that the agent handles, and one that would kill it."""
        self.signal("USR2")
        self.signal("USR1")

    def arrived(self, patience: float = 10.0) -> None:
        """The one that it handles has arrived."""
        self._until("agent", "USR1", patience)

    def stop(self, patience: float = 10.0) -> tuple[int, float]:
        """The exit code, and how many seconds after the request it came."""
        self.asked = time.monotonic()
        self.signal("TERM")
        code = self.init.wait(patience)
        return code, time.monotonic() - self.asked

    def check(self, code: int, seconds: float) -> None:
        """It went as it should."""
        scenario = self.scenario
        assert code == scenario.code
        assert scenario.least <= seconds < scenario.least + LATE
        assert self.init.events() == scenario.events
        for name, events in scenario.expected.items():
            assert self.init.events(name) == events
        self.nothing_left()

    def nothing_left(self) -> None:
        until(lambda: not left(self.init), "nothing to be left", 5)

    def _until(self, name: str, event: str, patience: float = 10.0) -> None:
        def there() -> bool:
            assert self.init.outer.poll() is None, f"ended early with {self.init.outer.returncode}"
            return bool(self.init.records(name, event))

        until(there, f"{event} of {name}", patience)


def left(*runs: Init) -> list[int]:
    """The processes of some runs that are still there; psutil takes ten times as long, and these are many runs."""
    marks = [f"{RUN_VARIABLE}={init.run_id}".encode() for init in runs]
    found = []
    for directory in Path("/proc").iterdir():
        try:
            environment = (directory / "environ").read_bytes() if directory.name.isdigit() else b""
            if any(mark in environment for mark in marks):
                found.append(int(directory.name))
        except OSError:
            continue  # gone, a zombie, or none of ours
    return found


class Failures:
    """What went wrong in many runs; told together."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    @contextmanager
    def of(self, what: str, run: Run) -> Iterator[None]:
        """Note what goes wrong in a run, and end the run."""
        try:
            yield
        except (AssertionError, OSError) as error:
            said = run.init.stderr[-600:]
            self.texts.append(f"{what}: {str(error)[:300]}\n  events: {run.init.events()}\n  it said: {said}")
        finally:
            run.init.close()

    def none(self) -> None:
        assert not self.texts, f"{len(self.texts)} failed:\n" + "\n".join(self.texts[:15])


def python(program: str, *words: str) -> list[str]:
    """The words that start one of the programs here in a bare interpreter."""
    return [sys.executable, "-I", "-S", str(PROGRAMS / program), PACKAGE, *words]

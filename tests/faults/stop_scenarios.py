"""Complete runs of an agent, from start to exit, that are repeated with one fault after another."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import entrypoint
from tests.support.init import Init, actor, remaining_pids, until

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = str(Path(entrypoint.__file__).parents[1])
PROGRAMS = Path(__file__).with_name("programs")
TOLERANCE = 8.0  # seconds; under strace, and with many runs at once, everything takes longer


@dataclass(frozen=True)
class StopScenario:
    """An agent that handles USR1, does not handle USR2, and is stopped with TERM.

    With `--repeat escalate`, a request that is handled twice by mistake changes the outcome.
    """

    agent: str
    options: tuple[str, ...]
    code: int
    others: tuple[str, ...] = ()  # further actors; each logs `ready`
    least: float = 0.0  # seconds from the stop request to the exit, at least
    expected: dict[str, list[str]] = field(default_factory=dict)  # events of the other actors

    @property
    def events(self) -> list[str]:
        """The expected events of the agent."""
        return ["ready", "USR1", "TERM", *(["end"] if self.code == 7 else [])]


SCENARIOS = {
    "graceful": StopScenario(
        "orphan('daemon', 'leave(1)'); on('USR1'); on('TERM', lambda: leave(7)); ready()",
        ("-w", "-t", "1500ms", "--repeat", "escalate"),
        7,
    ),
    "stubborn": StopScenario(
        "child('leftover', \"on('TERM'); ready()\"); on('USR1'); on('TERM'); ready()",
        ("-t", "300ms"),
        137,
        others=("leftover",),
        least=0.3,
        expected={"leftover": ["ready"]},
    ),
    "lingering": StopScenario(
        "child('leftover', \"on('TERM', lambda: leave(0, after=0.1)); ready()\"); on('USR1'); "
        "on('TERM', lambda: leave(7)); ready()",
        ("-t", "20s", "--linger", "10s", "--log-format", "json", "--repeat", "escalate"),
        7,
        others=("leftover",),
        least=0.1,
        expected={"leftover": ["ready", "TERM", "end"]},
    ),
}


class Run:
    """One stop scenario under one agent-init, in a new directory."""

    def __init__(
        self, directory: Path, scenario: StopScenario, *, process1: bool, program: list[str], **popen: Any
    ) -> None:
        """`program`: the command that runs agent-init, without its options."""
        directory.mkdir(parents=True)
        self.scenario, self.requested_at = scenario, 0.0
        argv = [*scenario.options, "--", *actor(directory / "events.jsonl", "agent", scenario.agent)]
        self.init = Init(directory, argv, process1=process1, program=program, **popen)

    def wait_until_ready(self) -> None:
        """Wait for the agent and the other actors. Raises AssertionError if agent-init exits first."""
        for name in ("agent", *self.scenario.others):
            self._until(name, "ready")

    def signal(self, name: str) -> None:
        """Send a signal to agent-init. Raises AssertionError if agent-init has exited."""
        assert self.init.outer.poll() is None, f"exited early with {self.init.outer.returncode}"
        self.init.signal(name)

    def send_signals(self) -> None:
        """Send a signal that the agent handles, and one that would kill it."""
        self.signal("USR2")
        self.signal("USR1")

    def wait_for_usr1(self, patience: float = 10.0) -> None:
        """Wait until the signal that the agent handles has arrived."""
        self._until("agent", "USR1", patience)

    def stop(self, patience: float = 10.0) -> tuple[int, float]:
        """Request a stop; return the exit code and the seconds until the exit."""
        self.requested_at = time.monotonic()
        self.signal("TERM")
        code = self.init.wait(patience)
        return code, time.monotonic() - self.requested_at

    def check(self, code: int, seconds: float) -> None:
        """Assert that the run went as expected."""
        scenario = self.scenario
        assert code == scenario.code
        assert scenario.least <= seconds < scenario.least + TOLERANCE
        assert self.init.events() == scenario.events
        for name, events in scenario.expected.items():
            assert self.init.events(name) == events
        self.assert_nothing_remains()

    def assert_nothing_remains(self) -> None:
        until(lambda: not remaining_pids(self.init), "the end of all processes of the run", 5)

    def _until(self, name: str, event: str, patience: float = 10.0) -> None:
        def seen() -> bool:
            assert self.init.outer.poll() is None, f"exited early with {self.init.outer.returncode}"
            return bool(self.init.records(name, event))

        until(seen, f"{event} of {name}", patience)


class Failures:
    """Collects the failures of many runs."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    @contextmanager
    def of(self, what: str, run: Run) -> Iterator[None]:
        """Record the failure of a run, if any, and end the run."""
        try:
            yield
        except (AssertionError, OSError) as error:
            stderr = run.init.stderr[-600:]
            self.texts.append(f"{what}: {str(error)[:300]}\n  events: {run.init.events()}\n  stderr: {stderr}")
        finally:
            run.init.close()

    def assert_none(self) -> None:
        assert not self.texts, f"{len(self.texts)} failed:\n" + "\n".join(self.texts[:15])


def python(program: str, *arguments: str) -> list[str]:
    """The command that runs one of the programs here in an isolated interpreter."""
    return [sys.executable, "-I", "-S", str(PROGRAMS / program), PACKAGE, *arguments]

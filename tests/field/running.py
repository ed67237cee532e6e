"""Run a command under an init as process 1 of a PID namespace of its own, and observe it from outside."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import psutil

from tests.field import display
from tests.field.place import Place
from tests.support import launcher
from tests.support.init import NAMESPACE, clean_environment

START = 60.0  # seconds that a wrapper may take to start the agent
SETTLE = 0.4  # from the last program's first event to the signal: a wrapper must have come to wait for its child

Build = Callable[[Place], list[str]]


def init(name: str, *options: str) -> list[str]:
    """The command of an init; the options are agent-init's, which is installed as the wheel does it."""
    return [str(launcher.installed()), *options, "--"] if name == "agent-init" else [name, "--"]


INITS = ("agent-init", "tini", "dumb-init")


@dataclass(frozen=True)
class Event:
    """What a program has logged, at a time in seconds on the monotonic clock."""

    name: str
    event: str
    at: float
    pid: int


@dataclass
class Run:
    """A command that runs under an init. `pid` is process 1's, as seen from here."""

    place: Place
    outer: subprocess.Popen[bytes]
    output: Path
    pid: int = 0

    def log(self) -> list[Event]:
        lines = self.place.log.read_text().splitlines(keepends=True)
        records = [json.loads(line) for line in lines if line.endswith("\n")]  # the last may be incomplete
        return [Event(r["name"], r["event"], r["t"], r["pid"]) for r in records]

    def events(self, name: str = "agent") -> list[str]:
        return [event.event for event in self.log() if event.name == name]

    @property
    def over(self) -> bool:
        return self.outer.poll() is not None

    def wait_until_up(self, names: Sequence[str] = ("agent",)) -> bool:
        """Wait until these programs are up, and return whether process 1 still runs a moment later."""
        if not self.wait_until(lambda: all("up" in self.events(name) for name in names), START):
            return False
        self.pid = psutil.Process(self.outer.pid).children()[0].pid
        time.sleep(SETTLE)
        return not self.over

    def wait_until(self, condition: Callable[[], bool], patience: float) -> bool:
        """Wait for a condition; return False if it is not true after `patience` seconds, or process 1 has ended."""
        end = time.monotonic() + patience
        while not condition():
            if time.monotonic() > end or self.over:
                return False
            time.sleep(0.02)
        return True

    def send(self, name: str) -> None:
        """Send a signal to process 1, if there still is one."""
        base, _, offset = name.partition("+")
        if not self.over:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, getattr(signal, f"SIG{base}") + int(offset or 0))

    def find(self, words: str) -> psutil.Process:
        """The process, below process 1, whose command line begins with these words."""
        processes = psutil.Process(self.pid).children(recursive=True)
        return next(process for process in processes if " ".join(process.cmdline()).startswith(words))

    def wait(self, patience: float) -> float | None:
        """Wait for the end; return the time of it, None if process 1 is not over after `patience` seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.outer.wait(patience)
            return time.monotonic()
        return None

    @property
    def exit_code(self) -> int | None:
        code = self.outer.poll()
        return code if code is None or code >= 0 else 128 - code


@contextlib.contextmanager
def running(
    build: Build,
    init: Sequence[str],
    *,
    drain: float,
    environment: Mapping[str, str] | Callable[[Place], Mapping[str, str]] = MappingProxyType({}),
    before: Sequence[str] = (),
) -> Iterator[Run]:
    """The command under that init, with `before` in front of it; what is left of it is killed at the end."""
    with tempfile.TemporaryDirectory(prefix="field-", ignore_cleanup_errors=True) as name:
        place = Place(Path(name), drain)
        (place.folder / "watched").mkdir()
        command = build(place)
        variables = environment(place) if callable(environment) else environment
        output = place.folder / "output"
        with output.open("wb") as file:
            outer = subprocess.Popen(
                [*NAMESPACE, *before, *init, *command],
                cwd=place.folder,
                env={**clean_environment(), **place.environment, **variables},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        try:
            yield Run(place, outer, output)
        finally:
            outer.kill()  # and with it process 1, so everything in its namespace
            outer.wait()
            display.clean(place.display)

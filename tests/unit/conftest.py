"""Fixtures for tests of the supervisor's parts, in a simulated world or with a real process."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from entrypoint.init import dispositions
from tests.support.world import Harness, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def masks_are_true(monkeypatch: pytest.MonkeyPatch) -> None:
    """Process 1 looks at itself once. A test in which it has another pid must not do that for all that follow."""
    monkeypatch.setattr(dispositions, "_masks_are_false", False)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    made.install(monkeypatch)
    return made


@pytest.fixture
def supervise(world: World, tmp_path: Path) -> Iterator[Callable[..., Harness]]:
    """Make a supervisor with the given options."""
    made: list[Harness] = []

    def make(*flags: str, **more: Any) -> Harness:
        made.append(Harness(world, tmp_path, *flags, **more))
        return made[-1]

    yield make
    for harness in made:
        harness.close()


@pytest.fixture
def child(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    """A process that handles USR1, ignores USR2 and blocks RTMIN, and is ready. `request.param`: code to run before."""
    code = getattr(request, "param", "") + (
        "import signal, time; signal.signal(signal.SIGUSR1, lambda *_: None); "
        "signal.signal(signal.SIGUSR2, signal.SIG_IGN); signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMIN}); "
        "print(flush=True); time.sleep(100)"
    )
    with subprocess.Popen([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE) as started:
        assert started.stdout
        started.stdout.readline()
        yield started
        started.kill()


@pytest.fixture
def gone() -> int:
    """A pid that was in use until now: the kernel goes through all others before it reuses it."""
    with subprocess.Popen(["true"]) as started:
        pass
    return started.pid

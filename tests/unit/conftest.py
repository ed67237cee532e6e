"""Fixtures for tests of the supervisor's parts in a simulated world."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from entrypoint.init import procfs
from tests.support.world import Harness, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def masks_are_true(monkeypatch: pytest.MonkeyPatch) -> None:
    """Process 1 looks at itself once. A test in which it has another pid must not do that for all that follow."""
    monkeypatch.setattr(procfs, "_masks_are_false", False)


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

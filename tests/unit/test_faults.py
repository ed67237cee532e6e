"""Failures of agent-init's own parts: logged once, with their count later; and the reserve of memory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from entrypoint.init import faults as module
from entrypoint.init.console import Console
from entrypoint.init.faults import MAX_TEXTS, RESERVE_AGAIN, SILENCE, Faults
from entrypoint.init.loop import Loop
from entrypoint.init.spare_memory import Reserve
from tests.support.world import failing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Log:
    """Faults that are logged to a file; `now` is the time of their clock."""

    def __init__(self, path: Path) -> None:
        self.path, self.now = path, 1000.0
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT)
        self.console = Console(self.fd)
        self.faults = Faults(self.console)
        self.faults._reserve = Reserve(1000)  # not the one that all share

    def lines(self) -> list[str]:
        return [line.removeprefix("agent-init: error: ") for line in self.path.read_text().splitlines()]


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    made = Log(tmp_path / "stderr")
    monkeypatch.setattr(Loop, "time", staticmethod(lambda: made.now))
    yield made
    os.close(made.fd)


def test_a_repeated_failure_is_logged_once_and_then_counted(log: Log) -> None:
    for _ in range(1000):
        log.faults.log(ValueError("odd"))
        log.now += 0.01
    assert log.lines() == ["unexpected ValueError: odd; continuing"]
    log.now += SILENCE
    log.faults.log(ValueError("odd"))
    log.faults.log(ValueError("odd"))
    log.faults.log(OSError("other"))
    assert log.lines()[1:] == [
        "unexpected ValueError: odd (1000 times since the last such line); continuing",
        "unexpected OSError: other; continuing",
    ]
    log.faults.log_counts()
    assert log.lines()[3:] == ["unexpected ValueError: odd: 1 more time"]
    log.faults.log_counts()
    assert len(log.lines()) == 4


def test_two_failures_in_turn_are_logged_once_each(log: Log) -> None:
    for _ in range(50):
        log.faults.log(ValueError("one"))
        log.faults.log(MemoryError())
    log.faults.log_counts()
    assert log.lines() == [
        "unexpected ValueError: one; continuing",
        "unexpected MemoryError; continuing",
        "unexpected ValueError: one: 49 more times",
        "unexpected MemoryError: 49 more times",
    ]


def test_so_many_different_failures_are_remembered(log: Log) -> None:
    for number in range(MAX_TEXTS + 3):
        for _ in range(2):
            log.faults.log(ValueError(number))
    assert len(log.lines()) == MAX_TEXTS + 3 + 3
    assert len(log.faults._counts) == MAX_TEXTS


def test_a_guarded_part_does_not_raise(log: Log) -> None:
    log.faults.guarded(failing(lambda _: None, ValueError("odd")), 1)
    log.faults.guarded(failing(lambda _: None), 1)
    [line] = log.lines()
    assert line.startswith("unexpected ValueError: odd (world.py:")


def test_without_memory_for_the_text_a_prepared_line_is_written_once(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "describe_error", failing(lambda _: "", *[MemoryError()] * 10))
    for _ in range(5):
        log.faults.log(MemoryError())
    assert log.lines() == ["unexpected: out of memory; continuing"]


def test_the_reserve_is_released_for_want_of_memory_and_taken_again_later(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve = log.faults._reserve
    log.faults.replenish()
    log.faults.log(ValueError("odd"))
    assert reserve._blocks
    log.faults.log(MemoryError())
    assert not reserve._blocks
    log.faults.replenish()
    assert not reserve._blocks
    with monkeypatch.context() as full:
        full.setattr(Reserve, "take", failing(lambda: None, MemoryError()))
        log.now += RESERVE_AGAIN
        log.faults.replenish()
    log.faults.replenish()
    assert not reserve._blocks
    log.now += RESERVE_AGAIN
    log.faults.replenish()
    assert reserve._blocks
    assert log.faults._no_memory_at == 0.0


def test_a_reserve_that_is_taken_is_not_taken_twice() -> None:
    reserve = Reserve(1000)
    blocks = reserve._blocks
    reserve.take()
    assert reserve._blocks is blocks

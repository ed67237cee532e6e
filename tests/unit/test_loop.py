"""The poll loop by itself: what goes wrong in a callback ends nothing."""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING

import pytest

from entrypoint.init.loop import Loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Story:
    """A loop whose reports and recoveries are noted. `troubles`: what each recovery raises, None for what succeeds."""

    def __init__(self, *troubles: BaseException | None) -> None:
        self.troubles: Iterator[BaseException | None] = iter(troubles)
        self.told: list[str] = []
        self.loop = Loop(report=self.report, recover=self.recover)

    def report(self, error: BaseException) -> None:
        self.told.append(f"{type(error).__name__}: {error}")

    def recover(self) -> None:
        self.told.append("recover")
        if (trouble := next(self.troubles, None)) is not None:
            raise trouble

    def then(self, callback: Callable[[], object]) -> None:
        self.loop.call_at(self.loop.time(), callback)


def fail(text: str) -> None:
    raise ValueError(text)


@pytest.fixture
def pipes() -> Iterator[list[tuple[int, int]]]:
    """Two, with a byte in each."""
    made = [os.pipe(), os.pipe()]
    for _, writer in made:
        os.write(writer, b"x")
    yield made
    for fd in (fd for pair in made for fd in pair):
        os.close(fd)


def test_after_an_error_it_recovers_until_that_succeeds_and_goes_on() -> None:
    story = Story(None, MemoryError("no"), KeyboardInterrupt("again"))
    story.then(lambda: fail("oops"))
    story.then(story.loop.stop)
    story.loop.run_forever()
    assert story.told == [
        "recover",
        "ValueError: oops",
        "recover",
        "MemoryError: no",
        "recover",
        "KeyboardInterrupt: again",
        "recover",
    ]


def test_a_report_that_fails_too_changes_nothing() -> None:
    recovered: list[int] = []

    def report(error: BaseException) -> None:
        raise MemoryError from error

    def recover() -> None:
        recovered.append(1)
        if len(recovered) < 3:
            raise OSError
        loop.stop()

    loop = Loop(report=report, recover=recover)
    loop.run_forever()
    assert len(recovered) == 3


def test_an_error_that_comes_back_at_once_does_not_take_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    story = Story(OSError(), OSError(), None)
    story.then(story.loop.stop)
    story.loop.run_forever()
    assert slept == [0.01] * 2


def test_a_stop_before_it_runs_counts() -> None:
    story = Story()
    story.loop.stop()
    story.loop.run_forever()
    assert story.told == []


def test_who_was_removed_by_another_of_the_same_poll_is_not_called(pipes: list[tuple[int, int]]) -> None:
    story = Story()
    called: list[int] = []

    def ready(own: int, other: int) -> None:
        called.append(own)
        story.loop.remove_reader(other)
        story.then(story.loop.stop)

    (one, _), (two, _) = pipes
    story.loop.add_reader(one, lambda: ready(one, two))
    story.loop.add_reader(two, lambda: ready(two, one))
    story.loop.run_forever()
    assert called in ([one], [two])
    assert story.told == ["recover"]


def test_after_a_stop_nobody_else_of_the_same_poll_is_called(pipes: list[tuple[int, int]]) -> None:
    story = Story()
    called: list[int] = []

    def ready() -> None:
        called.append(1)
        story.loop.stop()

    for reader, _ in pipes:
        story.loop.add_reader(reader, ready)
    story.loop.run_forever()
    assert called == [1]


def test_what_is_not_watched_can_be_removed(pipes: list[tuple[int, int]]) -> None:
    story = Story()
    (one, _), (two, _) = pipes
    story.loop.add_reader(one, story.loop.stop)
    story.loop.remove_reader(two)
    story.loop.remove_reader(one)
    story.loop.remove_reader(one)
    story.then(story.loop.stop)  # not by the reader, which could be read at once
    story.loop.run_forever()
    assert story.told == ["recover"]


def test_a_timer_is_called_once_and_can_be_cancelled_whenever() -> None:
    story = Story()
    called: list[str] = []
    first = story.loop.call_at(story.loop.time(), lambda: called.append("first"))
    never = story.loop.call_at(story.loop.time(), lambda: called.append("never"))
    story.loop.cancel(never)
    story.loop.cancel(never)
    story.loop.call_at(story.loop.time() + 0.002, story.loop.stop)
    story.loop.run_forever()
    story.loop.cancel(first)
    assert called == ["first"]


class Poll:
    """select.poll, and how often it was called."""

    def __init__(self) -> None:
        self.real, self.times = select.poll(), 0
        self.register, self.unregister = self.real.register, self.real.unregister

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        self.times += 1
        return self.real.poll(timeout)


def test_what_is_not_watched_any_longer_wakes_nobody(pipes: list[tuple[int, int]]) -> None:
    story, poll = Story(), Poll()
    story.loop._poll = poll  # type: ignore[assignment]
    (one, _), _ = pipes
    story.loop.add_reader(one, story.loop.stop)
    story.loop.remove_reader(one)
    story.loop.call_at(story.loop.time() + 0.02, story.loop.stop)
    story.loop.run_forever()
    assert poll.times <= 2  # the wait, and what may be left of it


def test_it_waits_until_the_next_timer_and_where_poll_cannot_count_that_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """poll(2) takes milliseconds in an int, and rounds them up."""
    now, waits = 100.0, []

    class Sleeper:
        def poll(self, timeout: float) -> list[tuple[int, int]]:
            nonlocal now
            waits.append(timeout)
            now += timeout / 1000
            return []

    monkeypatch.setattr(Loop, "time", staticmethod(lambda: now))
    story = Story()
    story.loop._poll = Sleeper()  # type: ignore[assignment]
    story.loop.call_at(now + 2 * 3600 + 1.5, story.loop.stop)
    story.loop.run_forever()
    assert waits == [3_600_000.0, 3_600_000.0, 1500.0]
    assert story.told == ["recover"]

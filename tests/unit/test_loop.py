"""The poll loop: descriptors and timers, and errors in callbacks, which never end it."""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING

import pytest

from entrypoint.init.loop import Loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Recorded:
    """A loop whose reports and recoveries are recorded. `errors`: what each recovery raises, None if it succeeds."""

    def __init__(self, *errors: BaseException | None) -> None:
        self.errors: Iterator[BaseException | None] = iter(errors)
        self.calls: list[str] = []
        self.loop = Loop(report=self.report, recover=self.recover)

    def report(self, error: BaseException) -> None:
        self.calls.append(f"{type(error).__name__}: {error}")

    def recover(self) -> None:
        self.calls.append("recover")
        if (error := next(self.errors, None)) is not None:
            raise error

    def soon(self, callback: Callable[[], object]) -> None:
        self.loop.call_at(self.loop.time(), callback)


def fail(text: str) -> None:
    raise ValueError(text)


@pytest.fixture
def pipes() -> Iterator[list[tuple[int, int]]]:
    """Two pipes with a byte in each."""
    made = [os.pipe(), os.pipe()]
    for _, writer in made:
        os.write(writer, b"x")
    yield made
    for fd in (fd for pair in made for fd in pair):
        os.close(fd)


def test_after_an_error_it_recovers_until_that_succeeds_and_goes_on_meanwhile() -> None:
    recorded = Recorded(None, MemoryError("no"), KeyboardInterrupt("again"))
    recorded.soon(lambda: fail("oops"))
    for name in ("one", "two"):
        recorded.soon(lambda name=name: recorded.calls.append(name))  # type: ignore[misc]
    recorded.soon(recorded.loop.stop)
    recorded.loop.run_forever()
    assert recorded.calls == [
        "recover",
        "ValueError: oops",
        "recover",
        "MemoryError: no",
        "one",
        "recover",
        "KeyboardInterrupt: again",
        "two",
        "recover",
    ]


def test_a_recovery_that_fails_for_ever_holds_up_nothing(pipes: list[tuple[int, int]]) -> None:
    """Nor does a reader that fails hold up the others, or a wait for it."""
    recorded = Recorded(*[OSError("no")] * 1000)
    called: list[int] = []
    (one, _), (two, _) = pipes
    recorded.loop.add_reader(one, lambda: fail("oops"))
    recorded.loop.add_reader(two, lambda: called.append(two))
    recorded.loop.call_at(recorded.loop.time() + 0.1, recorded.loop.stop)
    recorded.loop.run_forever()
    assert called
    assert len(recorded.calls) < 50  # it sleeps between the attempts


def test_an_error_in_the_report_does_not_end_it() -> None:
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


def test_it_sleeps_before_each_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    recorded = Recorded(OSError(), OSError(), None)
    for _ in range(2):
        recorded.soon(lambda: None)
    recorded.soon(recorded.loop.stop)
    recorded.loop.run_forever()
    assert slept == [0.01] * 2


def test_a_sleep_that_fails_does_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: float) -> None:
        raise MemoryError

    monkeypatch.setattr(time, "sleep", interrupted)
    recorded = Recorded(OSError("no"), None)
    recorded.soon(lambda: None)
    recorded.soon(recorded.loop.stop)
    recorded.loop.run_forever()
    assert recorded.calls == ["recover", "OSError: no", "recover"]


def test_after_a_stop_in_the_recovery_nothing_is_called() -> None:
    called: list[int] = []
    loop = Loop(report=called.append, recover=lambda: loop.stop())  # type: ignore[arg-type]
    loop.call_at(loop.time(), lambda: called.append(1))
    loop.run_forever()
    assert called == []


def test_a_stop_before_it_runs_ends_it_at_once() -> None:
    recorded = Recorded()
    recorded.loop.stop()
    recorded.loop.run_forever()
    assert recorded.calls == []


def test_a_reader_removed_by_another_one_in_the_same_poll_is_not_called(pipes: list[tuple[int, int]]) -> None:
    recorded = Recorded()
    called: list[int] = []

    def ready(own: int, other: int) -> None:
        called.append(own)
        recorded.loop.remove_reader(other)
        recorded.soon(recorded.loop.stop)

    (one, _), (two, _) = pipes
    recorded.loop.add_reader(one, lambda: ready(one, two))
    recorded.loop.add_reader(two, lambda: ready(two, one))
    recorded.loop.run_forever()
    assert called in ([one], [two])
    assert recorded.calls == ["recover"]


def test_after_a_stop_no_other_reader_in_the_same_poll_is_called(pipes: list[tuple[int, int]]) -> None:
    recorded = Recorded()
    called: list[int] = []

    def ready() -> None:
        called.append(1)
        recorded.loop.stop()

    for reader, _ in pipes:
        recorded.loop.add_reader(reader, ready)
    recorded.loop.run_forever()
    assert called == [1]


def test_removing_an_unknown_reader_is_no_error(pipes: list[tuple[int, int]]) -> None:
    recorded = Recorded()
    (one, _), (two, _) = pipes
    recorded.loop.add_reader(one, recorded.loop.stop)
    recorded.loop.remove_reader(two)
    recorded.loop.remove_reader(one)
    recorded.loop.remove_reader(one)
    recorded.soon(recorded.loop.stop)  # not by the reader, which could be read at once
    recorded.loop.run_forever()
    assert recorded.calls == ["recover"]


def test_a_timer_is_called_once_and_can_be_cancelled_at_any_time() -> None:
    recorded = Recorded()
    called: list[str] = []
    first = recorded.loop.call_at(recorded.loop.time(), lambda: called.append("first"))
    never = recorded.loop.call_at(recorded.loop.time(), lambda: called.append("never"))
    recorded.loop.cancel(never)
    recorded.loop.cancel(never)
    recorded.loop.call_at(recorded.loop.time() + 0.002, recorded.loop.stop)
    recorded.loop.run_forever()
    recorded.loop.cancel(first)
    assert called == ["first"]


class Poll:
    """select.poll that counts its calls."""

    def __init__(self) -> None:
        self.real, self.times = select.poll(), 0
        self.register, self.unregister = self.real.register, self.real.unregister

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        self.times += 1
        return self.real.poll(timeout)


def test_a_removed_reader_does_not_wake_the_loop(pipes: list[tuple[int, int]]) -> None:
    recorded, poll = Recorded(), Poll()
    recorded.loop._poll = poll  # type: ignore[assignment]
    (one, _), _ = pipes
    recorded.loop.add_reader(one, recorded.loop.stop)
    recorded.loop.remove_reader(one)
    recorded.loop.call_at(recorded.loop.time() + 0.02, recorded.loop.stop)
    recorded.loop.run_forever()
    assert poll.times <= 2  # the wait, and what may be left of it


def test_a_wait_too_long_for_poll_is_split(
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
    recorded = Recorded()
    recorded.loop._poll = Sleeper()  # type: ignore[assignment]
    recorded.loop.call_at(now + 2 * 3600 + 1.5, recorded.loop.stop)
    recorded.loop.run_forever()
    assert waits == [3_600_000.0, 3_600_000.0, 1500.0]
    assert recorded.calls == ["recover"]


def test_timers_are_called_in_the_order_of_their_times_and_before_readers(pipes: list[tuple[int, int]]) -> None:
    recorded = Recorded()
    order: list[str] = []
    (one, _), _ = pipes

    def read() -> None:
        order.append("reader")
        recorded.loop.stop()

    recorded.loop.add_reader(one, read)
    now = recorded.loop.time()
    recorded.loop.call_at(now - 1, lambda: order.append("second"))
    recorded.loop.call_at(now - 2, lambda: order.append("first"))
    recorded.loop.run_forever()
    assert order == ["first", "second", "reader"]

"""The watch on stdin: the hang-up, the rest that is not read, and failures at each step."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

import pytest

from entrypoint import settings as reader
from entrypoint import signals
from entrypoint.init import planning, stdin_watch
from entrypoint.init.actions import Log, Stop, TakeCpuSnapshot
from entrypoint.init.lifecycle import Lifecycle
from entrypoint.init.stdin_watch import LOOK_EVERY, MAX_LOOK_AFTER, PAUSE

if TYPE_CHECKING:
    from collections.abc import Callable

    from entrypoint.init.signalfd import Received


class FakeLoop:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.readers: dict[int, Callable[[], object]] = {}
        self.timers: list[tuple[float, Callable[[], object]]] = []
        self.failures = 0

    def time(self) -> float:
        return self.now

    def add_reader(self, fd: int, callback: Callable[[], object], _events: int) -> None:
        self.readers[fd] = callback

    def remove_reader(self, fd: int) -> None:
        del self.readers[fd]

    def call_at(self, when: float, callback: Callable[[], object]) -> None:
        if self.failures:
            self.failures -= 1
            raise MemoryError
        self.timers.append((when, callback))

    def run_next(self) -> None:
        self.now, callback = self.timers.pop(0)
        callback()


class Stage:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.unread = 0
        self.loop = FakeLoop()
        self.inbox: list[Received] = []
        self.caught_up = 0
        monkeypatch.setattr(stdin_watch, "_can_end", lambda: True)
        monkeypatch.setattr(stdin_watch, "_unread", lambda: self.unread)

    def start(self, stop_on: str = "EOF") -> Stage:
        settings = reader.read(["--stop-on", stop_on, "agent"], {})
        stdin_watch.start(settings, self.loop, self.inbox, self.catch_up)  # type: ignore[arg-type]
        return self

    def catch_up(self) -> None:
        self.caught_up += 1

    @property
    def numbers(self) -> list[int]:
        return [received.number for received in self.inbox]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def test_nothing_is_watched_without_eof(stage: Stage) -> None:
    assert not stage.start("TERM").loop.readers


def test_the_stop_comes_a_pause_after_everything_was_read(stage: Stage) -> None:
    loop = stage.start().loop
    stage.unread = 5
    loop.readers[0]()
    assert not loop.readers  # a hang-up lasts
    loop.run_next()
    assert loop.now == pytest.approx(LOOK_EVERY)
    stage.unread = 0
    loop.run_next()
    assert not stage.inbox
    loop.run_next()
    assert loop.now == pytest.approx(3 * LOOK_EVERY + PAUSE)
    assert (stage.numbers, stage.caught_up) == ([signals.EOF], 1)
    assert not loop.timers
    assert not loop.readers


def test_the_looks_at_a_rest_that_is_never_read_become_rare(stage: Stage) -> None:
    loop = stage.start().loop
    stage.unread = 5
    loop.readers[0]()
    looks = [0.0]
    while loop.now < 60.0:
        loop.run_next()
        looks.append(loop.now)
        assert len(loop.timers) == 1
    pauses = [later - earlier for earlier, later in itertools.pairwise(looks)]
    doubled = [LOOK_EVERY * 2**n for n in range(6)]
    assert pauses == pytest.approx([*doubled, *[MAX_LOOK_AFTER] * (len(pauses) - len(doubled))])
    assert doubled[-1] < MAX_LOOK_AFTER <= 2 * doubled[-1]
    assert not stage.inbox
    stage.unread = 0
    loop.run_next()
    loop.run_next()
    assert loop.now == pytest.approx(looks[-1] + MAX_LOOK_AFTER + PAUSE)
    assert stage.numbers == [signals.EOF]


@pytest.mark.parametrize("unread", [0, 5])
def test_hang_up_stays_watched_if_there_is_no_memory(stage: Stage, unread: int) -> None:
    loop = stage.start().loop
    stage.unread, loop.failures = unread, 1
    with pytest.raises(MemoryError):
        loop.readers[0]()
    assert loop.readers
    stage.unread = 0
    loop.readers[0]()
    loop.run_next()
    assert stage.numbers == [signals.EOF]


def test_hang_up_is_watched_again_if_there_is_no_memory_later(stage: Stage) -> None:
    loop = stage.start().loop
    stage.unread = 5
    loop.readers[0]()
    loop.failures = 1
    with pytest.raises(MemoryError):
        loop.run_next()
    stage.unread = 0
    loop.readers[0]()
    loop.run_next()
    assert stage.numbers == [signals.EOF]


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    reading, writing = os.pipe()
    monkeypatch.setattr(stdin_watch, "STDIN", reading)
    return reading, writing


def test_unread_bytes_are_counted(stdin: tuple[int, int]) -> None:
    assert stdin_watch._can_end()
    os.write(stdin[1], b"abc")
    assert stdin_watch._unread() == 3
    os.read(stdin[0], 3)
    assert stdin_watch._unread() == 0
    os.close(stdin[0])
    os.close(stdin[1])
    assert stdin_watch._unread() == 0
    assert not stdin_watch._can_end()


# --- What follows. --------------------------------------------------------------------------------------------------


def life(*arguments: str, **environment: str) -> Lifecycle:
    settings = reader.read([*arguments, "agent"], environment)
    return Lifecycle(settings, planning.make(settings, environment, lambda _: False), 0.0)


def test_eof_requests_a_stop() -> None:
    made = life("--stop-on", "EOF", "-t", "5s")
    log, stop, snapshot = made.signal(1.0, signals.EOF, "nobody")
    assert isinstance(log, Log)
    assert (log.event, log.facts["signal"], log.facts["sender"]) == ("stop-requested", signals.EOF, None)
    assert (stop, snapshot) == (Stop(15), TakeCpuSnapshot())
    assert log.facts["upcoming"] == {"steps": [(15, 0.0), (9, 5.0)], "platform": None}


def test_eof_does_not_repeat_a_stop_request() -> None:
    made = life("--stop-on", "TERM,EOF", "--repeat", "escalate")
    made.signal(1.0, 15, "test")
    assert made.signal(2.0, signals.EOF, "nobody") == []


@pytest.mark.parametrize(
    ("arguments", "environment", "kill"),
    [
        ([], {"K_SERVICE": "agent"}, 10.0),
        (["--stop-delay", "60s"], {"K_SERVICE": "agent"}, 70.0),
        (["-t", "infinity"], {"K_SERVICE": "agent"}, None),
        ([], {}, 10.0),
        (["--stop-schedule", "INT/3s/KILL"], {"K_SERVICE": "agent"}, 3.0),
    ],
)
def test_stop_that_no_platform_requested_has_a_deadline_of_ours(
    arguments: list[str], environment: dict[str, str], kill: float | None
) -> None:
    made = life("--stop-on", "EOF", *arguments, **environment)
    (log, *_) = made.signal(1.0, signals.EOF, "nobody")
    assert isinstance(log, Log)
    steps = [seconds for number, seconds in log.facts["upcoming"]["steps"] if number == 9]
    assert steps == ([] if kill is None else [pytest.approx(kill)])

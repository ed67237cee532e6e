"""Whether a loop counts as blocked, from a series of looks at it; what is logged; what is a place in the agent's code.

With real loops: tests/reports/test_loop_watch.py and tests/runner/test_loop_watch.py.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import threading
import time
from types import CodeType, FrameType
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint import notify
from entrypoint.agent import loop_watch
from entrypoint.agent.loop_watch import (
    BLOCKED,
    BUCKETS,
    LAGGED,
    POSTED,
    WAS_BLOCKED,
    KnownTime,
    Lags,
    Ledger,
    LoopState,
    Watch,
)
from tests.support.init import until

LIMIT = 0.5
PERIOD = LIMIT / loop_watch.LOOKS
SWITCH = 0.005

# --- A series of looks at a simulated loop. ---------------------------------------------------------------------------

IDLE, BUSY, STUCK, NATIVE = "idle", "busy", "stuck", "native"  # what the loop does; native code keeps the GIL


class Part(NamedTuple):
    """What the loop does next, and for how long in seconds. `frozen`: the process is stopped that long in its middle.

    `starved`: the loop's thread waits that long for a processor, before the part begins.
    """

    what: str
    seconds: float
    frozen: float
    starved: float


SECONDS = st.floats(0.001, 3 * LIMIT, allow_nan=False)
PARTS = st.lists(
    st.builds(
        Part,
        st.sampled_from((IDLE, BUSY, STUCK, NATIVE)),
        SECONDS,
        st.one_of(st.just(0.0), st.floats(2 * LIMIT, 100)),
        st.one_of(st.just(0.0), st.floats(0, 3 * LIMIT)),
    ),
    max_size=12,
)
LATE = st.floats(0, 0.499 * PERIOD)  # half a period and more is a stop; just there, rounding decides


class World:
    """A loop that goes through `parts`, and looks at it. `seen`: what was found to be blocked, in seconds."""

    def __init__(self, parts: list[Part]) -> None:
        self.spans: list[tuple[float, float, str]] = []  # on the clock: from, to, what
        self.frozen: list[tuple[float, float]] = []
        self.starved: list[tuple[float, float]] = []
        self.now = 0.0
        for part in [Part(IDLE, LIMIT, 0, 0), *parts, Part(IDLE, LIMIT, 0, 0)]:
            if part.starved and part.what in (BUSY, STUCK):
                self.spans.append((self.now, self.now + part.starved, "starved"))
                self.starved.append((self.now, self.now + part.starved))
                self.now += part.starved
            begin = self.now
            self.now += part.seconds / 2
            if part.frozen and part.what != NATIVE:
                self.frozen.append((self.now, self.now + part.frozen))
                self.now += part.frozen
            self.now += part.seconds / 2
            self.spans.append((begin, self.now, part.what))
        self.end, self.now = self.now, 0.0
        self.seen: list[tuple[str, float]] = []
        self.verdicts: list[str] = []

    def what(self, at: float) -> tuple[float, str]:
        """What the loop does at that time, and until when."""
        return next(((until, what) for begin, until, what in self.spans if begin <= at < until), (math.inf, IDLE))

    def next_turn(self, at: float) -> float:
        """When the loop turns next."""
        until, what = self.what(at)
        while what in (STUCK, NATIVE, "starved"):
            at = until
            until, what = self.what(at)
        return at

    def delay(self, at: float) -> float:
        return sum(max(0.0, min(at, end) - begin) for begin, end in self.starved)

    def look(self, delays: list[float]) -> None:
        clock, state = KnownTime(PERIOD), LoopState(LIMIT)
        switches, beat = 0, math.inf
        number = 0
        while self.now < self.end:
            clock.look(self.now, switches, SWITCH)
            _, what = self.what(self.now)
            arrived = clock.of(beat) if beat <= self.now else None
            verdict, seconds = state.look(
                clock.now,
                is_idle=what == IDLE,
                arrived=arrived,
                delay=self.delay(self.now),
                gil_held=clock.gil_held,
            )
            self.verdicts.append(verdict)
            if verdict == POSTED:
                beat = self.next_turn(self.now)
            elif verdict in (BLOCKED, WAS_BLOCKED):
                self.seen.append((verdict, seconds))
            if verdict in (WAS_BLOCKED, LAGGED):
                beat = math.inf
            switches += 1 + self._go_on(PERIOD + (delays[number % len(delays)] if delays else 0.0))
            number += 1

    def _go_on(self, seconds: float) -> int:
        """Sleep, and wait for the GIL; return the voluntary context switches of the wait. Stops make it longer."""
        woken = self.now + seconds
        for begin, end in self.frozen:
            if begin <= woken and self.now < end:
                woken = max(woken, end) if woken < end else woken
        self.now = woken
        waits = 0
        until, what = self.what(self.now)
        while what == NATIVE:
            waits += math.ceil((until - self.now) / SWITCH)
            self.now = until
            until, what = self.what(self.now)
        return waits


@given(PARTS, st.lists(LATE, max_size=5))
def test_nothing_is_blocked_that_turns_within_the_limit(parts: list[Part], delays: list[float]) -> None:
    """Whatever stops the process or keeps the loop's thread from running meanwhile."""
    short = [
        part._replace(seconds=min(part.seconds, 0.8 * LIMIT)) if part.what in (STUCK, NATIVE) else part
        for part in parts
    ]
    # Two such parts in a row are one.
    apart = [one for part in short for one in (part, Part(IDLE, LIMIT, 0, 0))]
    world = World(apart)
    world.look(delays)
    assert world.seen == []


@given(st.sampled_from((STUCK, NATIVE)), st.floats(LIMIT + 2 * PERIOD, 20), st.lists(LATE, max_size=5), PARTS)
def test_every_blocked_loop_is_seen_and_measured(
    what: str, seconds: float, delays: list[float], before: list[Part]
) -> None:
    """To within two periods; also after anything else that has happened before."""
    world = World([*before, Part(IDLE, LIMIT, 0, 0), Part(what, seconds, 0, 0)])
    world.look(delays)
    assert world.verdicts.count(WAS_BLOCKED) >= 1
    verdict, measured = world.seen[-1]
    assert verdict == WAS_BLOCKED
    # How late the look before would have been is not known.
    assert seconds - 2 * PERIOD - 1e-6 <= measured <= seconds + (PERIOD if what == NATIVE else 0) + 1e-6


@given(st.floats(LIMIT + 2 * PERIOD, 5), st.floats(2 * LIMIT, 1000))
def test_the_time_of_a_stop_does_not_count(seconds: float, frozen: float) -> None:
    world = World([Part(STUCK, seconds, frozen, 0)])
    world.look([])
    assert world.seen[-1][0] == WAS_BLOCKED
    assert world.seen[-1][1] <= seconds + PERIOD


def test_a_debugged_loop_is_not_blocked() -> None:
    state = LoopState(LIMIT)
    assert state.look(1, is_idle=False, arrived=None, delay=None, gil_held=0)[0] == POSTED
    state.excuse()
    assert state.look(9, is_idle=False, arrived=None, delay=None, gil_held=0)[0] not in (BLOCKED, WAS_BLOCKED)
    assert state.look(99, is_idle=True, arrived=98, delay=None, gil_held=0) == (LAGGED, 0.0)
    assert state.look(100, is_idle=False, arrived=None, delay=None, gil_held=0)[0] == POSTED
    assert state.look(101, is_idle=False, arrived=None, delay=None, gil_held=0) == (BLOCKED, 1)


def test_without_context_switches_a_late_look_is_not_known() -> None:
    clock = KnownTime(PERIOD)
    clock.look(100, None, SWITCH)
    clock.look(110, None, SWITCH)
    assert (clock.now, clock.gil_held) == (0, 0)


def test_only_a_late_look_needs_the_context_switches() -> None:
    """Those of a look in time are not counted; an error may have cut the look short."""
    clock = KnownTime(PERIOD)
    clock.look(100, None, SWITCH)
    clock.looked(100, 1000)
    clock.look(100 + PERIOD, None, SWITCH)
    clock.look(110, 1003, SWITCH)
    assert clock.now == pytest.approx(PERIOD + 3 * SWITCH)


@pytest.mark.parametrize(("starved", "known"), [(9.9, 10), (5, 5)])
def test_a_late_look_on_a_busy_machine_is_known(starved: float, known: float) -> None:
    """Our own thread got no processor, and was not stopped."""
    clock = KnownTime(PERIOD)
    clock.look(100, 1, SWITCH)
    clock.look(110, 1, SWITCH, starved)
    assert clock.now == known


def test_some_waits_for_the_gil_do_not_explain_a_stop() -> None:
    """Beside a loop that computes, every look waits for the GIL a little."""
    clock = KnownTime(PERIOD)
    clock.look(100, 1, SWITCH)
    clock.look(101, 21, SWITCH)
    assert clock.now == pytest.approx(0.1)
    assert clock.gil_held == 0


def test_a_stop_does_not_count_beside_a_wait_for_the_gil() -> None:
    """As on a busy machine, where what holds the GIL may get no processor just after the stop."""
    clock = KnownTime(PERIOD)
    clock.look(100, 1, SWITCH)
    clock.look(103, 1 + 340, SWITCH, 0.2)  # a stop of a second
    assert clock.now == clock.gil_held == pytest.approx(1.9)


def test_waits_that_were_too_short_for_so_many_are_no_sign_that_the_gil_was_held() -> None:
    """Beside a loop that lets go of the GIL every 2 ms and takes it again before our thread can."""
    clock = KnownTime(PERIOD)
    clock.look(100, 1, SWITCH)
    clock.look(101, 1 + 500, SWITCH)
    assert (clock.now, clock.gil_held) == (1, 0)


def test_the_time_that_a_look_takes_is_not_known() -> None:
    clock = KnownTime(PERIOD)
    clock.look(100, 1, SWITCH)
    clock.looked(103, 600)  # stopped in its middle
    clock.look(103 + PERIOD, 601, SWITCH)
    assert (clock.now, clock.gil_held) == (PERIOD, 0)
    assert clock.of(103.1) == pytest.approx(0.1)
    assert clock.of(102) == 0  # a beat posted in the look


def test_a_look_that_was_skipped_stays_skipped() -> None:
    clock = KnownTime(PERIOD)
    clock.look(100, 1, SWITCH)
    clock.skip()
    clock.looked(101, 2)
    clock.look(110, 1000, SWITCH)
    assert clock.now == 0


@pytest.mark.parametrize(("starved", "expected"), [(0.1, (WAS_BLOCKED, 2 * LIMIT)), (2 * LIMIT, (POSTED, 0))])
def test_a_loop_that_gets_no_processor_while_it_has_the_gil_is_not_blocked(
    starved: float, expected: tuple[str, float]
) -> None:
    state = LoopState(LIMIT)
    state.look(1, is_idle=False, arrived=None, delay=7, gil_held=0)
    state.look(2, is_idle=False, arrived=1, delay=7, gil_held=0)
    assert state.look(4, is_idle=False, arrived=None, delay=7 + starved, gil_held=2 * LIMIT) == expected


def test_the_time_before_the_first_look_is_known() -> None:
    """From the moment on in which the thread begins to wait; also after a fork."""
    clock = KnownTime(PERIOD)
    for began in (100, 200):
        known = clock.now
        clock.begin(began, 7)
        clock.look(began + 2, 7 + 400, SWITCH)
        assert (clock.now, clock.gil_held) == pytest.approx((known + 2, 2 - PERIOD))


def test_skipped_time_is_not_known() -> None:
    clock = KnownTime(PERIOD)
    clock.look(100, 1, SWITCH)
    clock.skip()
    clock.look(110, 1000, SWITCH)
    assert (clock.now, clock.gil_held) == (0, 0)


@pytest.mark.parametrize("skips", [True, False], ids=["skipped", "stopped"])
def test_what_has_happened_in_a_time_that_is_not_known_is_not_earlier_than_that(skips: bool) -> None:
    """A fork: the thread ends before it, and begins anew after it. Or the process was stopped."""
    clock = KnownTime(PERIOD)
    clock.look(100, 1, SWITCH)
    clock.look(100 + PERIOD, 1, SWITCH)
    assert clock.of(100 + PERIOD / 2) == PERIOD / 2
    if skips:
        clock.skip()
    clock.look(110, 1, SWITCH)
    assert clock.now == PERIOD
    assert [clock.of(at) for at in (100 + PERIOD, 100.3, 109.9, 110)] == [PERIOD] * 4
    clock.look(110 + PERIOD, 1, SWITCH)
    assert clock.of(110 + PERIOD / 2) == 1.5 * PERIOD


# --- What is counted and logged. --------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1000)))
def test_each_lag_is_in_one_class(lags: list[float]) -> None:
    found = Lags()
    for lag in lags:
        found.add(lag, blocked=lag > 1)
    shot = found.snapshot()
    bounds = (0.0, *BUCKETS, math.inf)
    for low, high in itertools.pairwise(bounds):
        expected = sum(1 for lag in lags if (low < lag or (lag == low == 0)) and lag <= high)
        assert shot["buckets"][high] == expected
    assert shot["sum"] == pytest.approx(sum(lags))
    assert shot["blocked"] == sum(1 for lag in lags if lag > 1)


PLACE = ("/app/agent.py", "f", 3)


def test_a_place_is_logged_once_then_by_powers_of_ten() -> None:
    ledger = Ledger()
    assert ledger.is_news(PLACE, 0.5)
    logged = [number for number in range(1, 1001) if ledger.add(PLACE, 0.5)]
    assert logged == [10, 100, 1000]
    assert not ledger.is_news(PLACE, 0.5)


def test_the_summary_has_the_number_and_the_sum() -> None:
    ledger = Ledger()
    assert [ledger.add(PLACE, 0.5) for _ in range(10)][-1] == (10, 5.0)


def test_a_place_that_gets_much_worse_is_logged_again() -> None:
    ledger = Ledger()
    ledger.add(PLACE, 0.5)
    assert not ledger.is_news(PLACE, 4.9)
    assert ledger.is_news(PLACE, 5)
    ledger.add(PLACE, 5)
    assert not ledger.is_news(PLACE, 40)


def test_the_lines_of_one_function_and_all_places_have_a_limit() -> None:
    ledger = Ledger()
    news = 0
    for line in range(10):
        news += ledger.is_news((*PLACE[:2], line), 0.5)
        ledger.add((*PLACE[:2], line), 0.5)
    assert (news, ledger.others) == (3, 7)
    for number in range(100):
        ledger.add(("/app/agent.py", f"f{number}", 1), 0.5)
    assert ledger.others == 7 + 100 - (loop_watch.MAX_PLACES - 3)


# --- Places. ----------------------------------------------------------------------------------------------------------


def code(file: str, function: str) -> CodeType:
    return World.look.__code__.replace(co_filename=file, co_name=function, co_qualname=function)


LIBRARY = code("/usr/lib/python3.11/socket.py", "SocketIO.readinto")
PACKAGE = code("/venv/lib/python3.11/site-packages/requests/api.py", "get")
OWN = code("/app/agent.py", "handle")


@pytest.mark.parametrize(
    ("steps", "line", "text"),
    [
        ([(OWN, 3)], 3, "/app/agent.py:3 in handle"),
        (
            [(LIBRARY, 705), (PACKAGE, 7), (OWN, 3), (OWN, 9)],
            3,
            "/app/agent.py:3 in handle (in socket.py:705 in SocketIO.readinto)",
        ),
        ([(LIBRARY, 705), (PACKAGE, 7)], 705, "socket.py:705 in SocketIO.readinto"),
        ([(PACKAGE, 7), (OWN, 3)], 3, "/app/agent.py:3 in handle (in requests/api.py:7 in get)"),
        ([], 0, "no Python code seen: native code, or another thread kept the GIL"),
    ],
)
def test_the_agents_own_code_comes_first(steps: list[tuple[CodeType, int]], line: int, text: str) -> None:
    place, found = loop_watch.place_of(steps)
    assert (place[2], found) == (line, text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.512, "512ms"), (0.9996, "1s"), (2.5, "2.5s"), (61.04, "61s"), (4711.4, "4711s")]
)
def test_durations(seconds: float, text: str) -> None:
    assert loop_watch.duration(seconds) == text


# --- The voice, and the kernel's files. -------------------------------------------------------------------------------


def test_the_field_is_that_of_the_notify_protocol() -> None:
    """The file is loaded by path and cannot import it."""
    assert loop_watch.FIELD == notify.LOOP


@pytest.mark.parametrize("notify_socket", ["", "/run/systemd/notify", "@other/notify", "/run/agent-init-1-ab/notify"])
def test_without_process_1_the_line_goes_to_stderr(capfd: pytest.CaptureFixture[str], notify_socket: str) -> None:
    """Also if it cannot be reached."""
    loop_watch.Voice(notify_socket, "@agent-init-1-ab")("blocked", 0.5, "event loop\nblocked")
    assert capfd.readouterr().err == f"agent-init: warning: pid {os.getpid()}: event loop blocked\n"


def test_a_thread_that_sleeps_is_not_polling() -> None:
    assert not loop_watch._is_polling(None)
    assert loop_watch._run_delay(None) is None
    threads: list[int] = []

    def sleep() -> None:
        threads.append(threading.get_native_id())
        time.sleep(0.5)

    thread = threading.Thread(target=sleep)
    thread.start()
    while not threads:
        time.sleep(0.001)
    assert not loop_watch._is_polling(threads[0])
    assert (loop_watch._run_delay(threads[0]) or 0) >= 0
    thread.join()


@pytest.mark.parametrize("exact", [True, False], ids=["exact clocks", "coarse clocks"])
def test_a_thread_that_has_slept_since_the_last_look_is_not_looked_at(
    monkeypatch: pytest.MonkeyPatch, *, exact: bool
) -> None:
    """Once that is certain; and each look counts as one at an idle loop all the same."""
    looked: list[int] = []
    look_at = Watch._look_at

    def note(self: Watch, ident: int, frame: FrameType) -> bool:
        looked.append(ident)
        return look_at(self, ident, frame)

    monkeypatch.setattr(Watch, "_look_at", note)
    assert loop_watch.HAS_EXACT_CLOCKS
    monkeypatch.setattr(loop_watch, "HAS_EXACT_CLOCKS", exact)
    loop, turned = asyncio.new_event_loop(), threading.Event()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def look(times: int) -> int:
        """Look at the idle loop, and return how often its thread was looked at."""
        looked.clear()
        loop.call_soon_threadsafe(turned.set)
        assert turned.wait(10)
        turned.clear()
        until(lambda: loop_watch._is_polling(thread.native_id), "an idle loop")
        for _ in range(times):
            watch.look()
        assert thread.ident is not None
        return looked.count(thread.ident)

    watch = Watch(LIMIT, lambda *_: None)
    try:
        assert [look(6), look(6)] == ([2, 2] if exact else [6, 6])
        assert watch.lags.counts[0] == 12
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_a_thread_that_has_ended_has_no_processor_time() -> None:
    thread = threading.Thread(target=lambda: None)
    thread.start()
    clock = loop_watch._processor_clock(thread.native_id)
    thread.join()
    until(lambda: loop_watch._processor_time(clock) == 0, "the thread's end in the kernel")
    assert loop_watch._processor_time(loop_watch._processor_clock(None)) == 0
    assert loop_watch._processor_time(loop_watch._processor_clock(threading.get_native_id())) > 0


def test_the_kernels_id_of_a_thread() -> None:
    """The main one's is known anyway: after a fork in another thread, `threading` has the parent's."""
    held, begun = threading.Lock(), threading.Event()

    def wait() -> None:
        begun.set()
        with held:
            pass

    with held:
        thread = threading.Thread(target=wait)
        thread.start()
        assert begun.wait(10)
        assert thread.ident
        assert loop_watch._native_id(thread.ident, threading.get_ident()) == thread.native_id
        assert loop_watch._native_id(thread.ident, thread.ident) == os.getpid()
        assert loop_watch._native_id(1, 2) is None
    thread.join()

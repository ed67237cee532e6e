"""Watches the event loops of a process: logs which line blocks one, and for how long; counts the rest.

The responder's thread calls `Watch.look` twice in the time of the limit. A look is cheap and does not wake a loop that
has nothing to do: such a loop is in its selector, which the stack of its thread shows, or the kernel does for uvloop.
A thread that has used no processor time since the look before is where it was then, so nothing else is looked at.
To a loop that is doing something it posts a callback, the beat. One that has not run for as long as the limit means
that the loop does not turn.

Two things look like a blocked loop and are none:
- The process did not run: it was stopped, or its machine slept. Then the look itself is late, and the time is cut out:
  nothing is known about it. A look that is late because native code held the GIL has waited for the GIL, which shows as
  a voluntary context switch every 5 ms (sys.getswitchinterval).
- The thread of the loop got no processor, perhaps while it held the GIL: the kernel counts how long
  (/proc/<pid>/task/<tid>/schedstat). It counts the same for our own thread, which tells a late look on a busy machine
  from one after a stop.

Rules of this file: those of `responder.py`, which loads it by path. The one piece of the agent's code that may run here
is a method `call_soon_threadsafe` of a loop of its own.
"""

import gc
import os
import sys
from _socket import AF_UNIX, MSG_DONTWAIT, SOCK_DGRAM, socket
from _thread import get_ident, get_native_id
from _weakref import ref
from time import clock_gettime_ns, monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType
    from typing import Any

    Step = tuple[CodeType, int]

FIELD = "X_AGENT_INIT_LOOP"  # of notify.py, which is not imported here
LOOKS = 2  # in the time of the limit
LATE = 1.5  # times the planned time between two looks: more than that is late
ASK_EVERY = (
    4  # looks at a loop of uvloop without a Python frame: what the kernel reports (opening a file in /proc is slow)
)
LEARN_EVERY = 64  # looks: which functions run a loop
MIN_SECONDS = 0.01  # of the limit
MAX_FRAMES = 2000  # that are looked at, of one thread
MAX_THREADS = 500
# Upper bounds of the histogram of lags, in seconds; the last class has none.
BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
MAX_PLACES, MAX_PLACES_OF_FUNCTION = 50, 3  # that are logged
NEWS_FACTOR = 10  # a place is logged again if it blocks a loop for this many times longer than before
SEARCHES = tuple(float(1 << number) for number in range(7))  # seconds between searches for loops of uvloop
MAX_SEARCHED_BYTES = 1 << 30
MAX_TEXT_CHARACTERS = 200
DEBUGGERS = ("/bdb.py", "/pdb.py", "/pydevd.py", "/_pydevd_bundle/", "/debugpy/", "/pudb/", "/ipdb/")
NOT_IDLE = 0, 0, False  # see Watch._idle
POSTED, WAITS, BLOCKED, WAS_BLOCKED, LAGGED = "posted", "waits", "blocked", "was-blocked", "lagged"

try:
    from resource import RUSAGE_THREAD, getrusage
except ImportError:  # the interpreter was built without
    getrusage = None  # type: ignore[assignment]


# --- Decisions: no clock, no threads. ---------------------------------------------------------------------------------


class KnownTime:
    """A clock that stands still while nothing is known.

    `period`: the seconds between two looks as planned. `gil_held`: how long native code held the GIL before this look.
    """

    def __init__(self, period: float) -> None:
        self.period = period
        self.now = 0.0
        self.gil_held = 0.0
        self._last: float | None = None  # the monotonic clock at the end of the last look, or when we began
        self._switches = 0
        self._at = 0.0  # the monotonic clock at the beginning of this look
        self._known = 0.0  # our time at the look before

    def begin(self, now: float, switches: "int | None") -> None:
        """Our thread begins to wait for the next look. What happens from now on is known."""
        self._last, self._switches = now, switches or 0

    def is_late(self, now: float) -> bool:
        """Whether the look is so late that something kept us from looking."""
        return self._last is not None and now - self._last > LATE * self.period

    def look(self, now: float, switches: "int | None", switch_interval: float, starved: float = 0.0) -> None:
        """Look at the monotonic clock, which shows `now`.

        `switches`: voluntary context switches of our thread so far, if known; only a late look needs them. `starved`:
        seconds that it has waited for a processor since the look before.
        """
        gap = 0.0 if self._last is None else max(0.0, now - self._last)
        self._known, self.gil_held = self.now, 0.0
        known = gap
        if self.is_late(now):
            waits = 0 if switches is None else switches - self._switches
            waited = waits * switch_interval if waits >= 3 else 0.0
            if gap - LATE * self.period > starved + waited:
                known = starved + waited
            # More waits than fit in the time were shorter: a loop has let go of the GIL, and taken it again at once.
            if gap / 2 <= waited <= gap + 3 * switch_interval:
                self.gil_held = min(gap - self.period, starved + waited)
        self.now += known
        self._last = self._at = now
        if switches is not None:
            self._switches = switches

    def looked(self, now: float, switches: "int | None") -> None:
        """The look is over. Nothing is known about the time it took: our thread may have lost the GIL in its middle."""
        if self._last is not None:
            self.begin(now, switches)

    def of(self, at: float) -> float:
        """Return our time at a moment between the look before and this one. `at`: on the monotonic clock.

        What is not known of the time between them was its beginning: a stop, after which our thread waited for the GIL.
        """
        return max(self._known, self.now - (self._at - at))

    def skip(self) -> None:
        """Nothing is known about the time until the next look."""
        self._last = None


class LoopState:
    """What is known about one loop, from one look to the next.

    `is_blocked`: its beat is overdue. `posted`: when the beat was posted, None if there is none on its way.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.posted: float | None = None
        self.is_blocked = False
        self.is_excused = False  # a person debugs it
        self._delay: float | None = None

    def look(
        self, now: float, *, is_idle: bool, arrived: "float | None", delay: "float | None", gil_held: float
    ) -> "tuple[str, float]":
        """Return what follows, and seconds: for which it is blocked (BLOCKED) or was (WAS_BLOCKED), or of the lag.

        POSTED means that a beat has to be posted now. The limit applies to the time in which the loop's thread had a
        processor or wanted none; the seconds are those of the clock. `now`: of the known time. `arrived`: when the beat
        ran, in the same time, if it did. `delay`: seconds that the thread has waited for a processor so far, if known.
        `gil_held`: see KnownTime.
        """
        starved = 0.0 if delay is None or self._delay is None else max(0.0, delay - self._delay)
        if self.posted is not None:
            seconds = max(0.0, (now if arrived is None else arrived) - self.posted)
            self.is_blocked = not self.is_excused and (self.is_blocked or seconds - starved >= self.limit)
            if arrived is None:
                return (BLOCKED if self.is_blocked else WAITS), seconds
            verdict = WAS_BLOCKED if self.is_blocked else LAGGED
            if self.is_excused:
                seconds = 0.0
            self.posted, self._delay, self.is_blocked, self.is_excused = None, delay, False, False
            return verdict, seconds
        self._delay = delay
        was_held = gil_held - starved >= self.limit
        if was_held and not self.is_excused:
            return WAS_BLOCKED, gil_held
        if is_idle or was_held:
            self.is_excused = False
            return LAGGED, 0.0
        self.posted = now
        return POSTED, 0.0

    def excuse(self) -> None:
        """Do not count it if the loop is blocked now."""
        self.is_excused = True


class Lags:
    """A histogram of how late a loop turned at each look, and how often it was blocked."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.sum = 0.0
        self.blocked = 0

    def add(self, seconds: float, *, blocked: bool) -> None:
        """Count one lag."""
        at = 0
        while at < len(BUCKETS) and seconds > BUCKETS[at]:
            at += 1
        self.counts[at] += 1
        self.sum += seconds
        self.blocked += blocked

    def snapshot(self) -> "dict[str, Any]":
        """Return `buckets` (not cumulated, by their upper bound in seconds), `sum` in seconds, `blocked`."""
        bounds = (*BUCKETS, float("inf"))
        return {"buckets": dict(zip(bounds, self.counts)), "sum": self.sum, "blocked": self.blocked}  # noqa: B905  (3.9)


class Ledger:
    """Decides what is logged: each place once, and again when it gets worse; the 10th, 100th, ... time, how often."""

    def __init__(self) -> None:
        self._longest: dict[tuple[str, str, int], float] = {}
        self._of_function: dict[tuple[str, str], int] = {}
        self._counts: dict[tuple[str, str, int], tuple[int, float]] = {}
        self.others = 0  # times that a loop was blocked at places that are not logged

    def is_news(self, place: "tuple[str, str, int]", seconds: float) -> bool:
        """Whether to log that a loop is blocked for `seconds` so far at (file, function, line)."""
        if place in self._longest:
            return seconds >= NEWS_FACTOR * self._longest[place]
        return len(self._longest) < MAX_PLACES and self._of_function.get(place[:2], 0) < MAX_PLACES_OF_FUNCTION

    def add(self, place: "tuple[str, str, int]", seconds: float) -> "tuple[int, float] | None":
        """Count a blocked loop. Return how often that was so at this place, and the sum, if they are to be logged."""
        if place not in self._longest:
            if not self.is_news(place, seconds):
                self.others += 1
                return None
            self._of_function[place[:2]] = self._of_function.get(place[:2], 0) + 1
        self._longest[place] = max(seconds, self._longest.get(place, 0.0))
        count, total = self._counts.get(place, (0, 0.0))
        self._counts[place] = count, total = count + 1, total + seconds
        return (count, total) if count >= 10 and set(str(count)[1:]) == {"0"} and str(count)[0] == "1" else None


# --- Places in the code. ----------------------------------------------------------------------------------------------


def is_own(code: "CodeType") -> bool:
    """Whether it is the agent's own code: in no package and not in the standard library."""
    file = code.co_filename
    return not (
        "/site-packages/" in file or "/dist-packages/" in file or "/lib/python3" in file or file.startswith("<frozen ")
    )


def place_of(steps: "list[Step]") -> "tuple[tuple[str, str, int], str]":
    """Return where a loop is blocked, and as text. `steps`: the frames inside the loop, the innermost first.

    It is the innermost frame of the agent's own code; the innermost of all follows if that is another one.
    """
    if not steps:
        return ("", "", 0), "no Python code seen: native code, or another thread kept the GIL"
    code, line = next((step for step in steps if is_own(step[0])), steps[0])
    text = _text(code, line)
    if steps[0][0] is not code:
        text += f" (in {_text(*steps[0])})"
    return (code.co_filename, code.co_name, line), text


def _text(code: "CodeType", line: int) -> str:
    file = code.co_filename
    for mark in ("/site-packages/", "/dist-packages/", "/lib/python3"):
        if mark in file:
            file = file.rpartition(mark)[2]
            file = file.partition("/")[2] if mark == "/lib/python3" else file
            break
    function = getattr(code, "co_qualname", code.co_name)
    return f"{file[-MAX_TEXT_CHARACTERS:]}:{line} in {function[:MAX_TEXT_CHARACTERS]}"


def duration(seconds: float) -> str:
    """Return seconds as text: `512ms`, `2.5s`, `4711s`."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.3g}ms"
    return f"{seconds:.3g}s" if seconds < 999.5 else f"{seconds:.0f}s"


# --- The watch. -------------------------------------------------------------------------------------------------------


class Beat:
    """The callback that a loop runs when it turns. It only notes when, and in which thread."""

    __slots__ = ("at", "ident")

    def __init__(self) -> None:
        self.at: float | None = None
        self.ident = 0

    def __call__(self) -> None:
        self.ident = get_ident()
        self.at = monotonic()


class _Watched:
    """A loop that runs in a thread."""

    def __init__(self, loop: "Any", limit: float) -> None:
        self.loop = ref(loop) if loop is not None else None
        self.state = LoopState(limit)
        self.beat: Beat | None = None
        self.steps: list[Step] = []  # the stack at the last look that found it busy
        self.place: tuple[str, str, int] | None = None  # that was logged, as long as the loop is blocked
        self.text = ""
        self.of = ""  # whose it is, when the beat was posted: of a thread that has ended, no name is left
        self.asked = 0  # see ASK_EVERY
        self.is_seen_idle = False  # by the last look, which did not only presume it


class Watch:
    """The watch of one process. `limit`: the seconds after which a loop that does not turn is blocked.

    It is made in the main thread.
    """

    def __init__(self, limit: float, voice: "Callable[[str, float, str], None]") -> None:
        self.limit, self.period = limit, limit / LOOKS
        self._main = get_ident()
        self.lags, self.ledger = Lags(), Ledger()
        self._voice = voice
        self._time = KnownTime(self.period)
        self._delay: float | None = None  # of our own thread at the last look, if a beat was on its way
        self._looked = 0.0  # when, on the monotonic clock
        self._countdown = 0  # looks until the functions that run a loop are learnt again
        self._loops: dict[int, _Watched] = {}  # by the ident of the thread that runs it
        # Threads that are idle in their loop, or run none: the clock of a thread's processor time, what it showed at
        # the last look, and whether it showed the same at the look before. Once is not enough: a frame is looked at
        # a moment after it was that of the thread.
        self._idle: dict[int, tuple[int, int, bool]] = {}
        self._dead: list[Any] = []  # frames of loops that a forked child has on its stack and never goes on with
        self._codes: dict[str, CodeType | None] = {}
        self._native: dict[int, Any] = {}  # loops of uvloop that no frame shows, by thread
        self._found: list[tuple[Any, Beat]] = []  # ... whose thread is not known yet
        self._searches = list(SEARCHES)
        self._next_search: float | None = None

    # --- What the responder calls. ---

    def begin(self) -> None:
        """The thread that looks has begun, perhaps once more. The first look comes a period later."""
        self._delay = None  # it was another thread's
        self._time.begin(monotonic(), _switches())

    def is_due(self) -> bool:
        """Whether it is time to look."""
        return monotonic() - self._looked >= self.period

    def look(self) -> None:
        """Look at all loops. Collections must be put off, since `sys._current_frames` may deadlock with them (3.11)."""
        now = monotonic()
        self._looked = now
        starved, switches = 0.0, None
        if self._time.is_late(now):
            switches = _switches()
            if self._delay is not None:
                starved = (_run_delay(get_native_id()) or self._delay) - self._delay
        self._time.look(now, switches, sys.getswitchinterval(), starved)
        self._look_at_all(now)
        self._delay = None
        for watched in self._loops.values():
            if watched.state.posted is not None:
                self._delay = _run_delay(get_native_id())  # opening a file in /proc is slow
                break
        self._time.looked(monotonic(), _switches())

    def _look_at_all(self, now: float) -> None:
        modules = sys.modules
        if "asyncio.base_events" not in modules and "uvloop" not in modules:
            return
        if self._countdown == 0 or self._codes["run_forever"] is None:
            self._learn_codes()
        self._countdown -= 1
        if self._found or ("uvloop" in modules and self._searches and not self._native):
            self._find_native(now)
        own = get_ident()
        seen = set()
        for number, (ident, frame) in enumerate(sys._current_frames().items()):
            if ident != own and number < MAX_THREADS and self._look_at_thread(ident, frame):
                seen.add(ident)
        frame = None  # type: ignore[assignment]
        if len(seen) < len(self._loops):
            for ident in [ident for ident in self._loops if ident not in seen]:
                self._ends(self._loops.pop(ident))

    def end(self) -> None:
        """There will be no further look: the loops that still run end with the process."""
        for watched in self._loops.values():
            self._ends(watched)
        self._loops = {}

    def skip(self) -> None:
        """Nothing is known about the time until the next look: the thread had something else to do."""
        self._time.skip()

    def after_fork_in_child(self, frame: "FrameType | None") -> None:
        """Begin afresh. `frame`: of the thread that has forked; the loops on its stack are copies that never turn."""
        self._main = get_ident()
        self._learn_codes()
        runners = set(self._codes.values())
        self._dead = []
        while frame is not None:
            if frame.f_code in runners:
                self._dead.append(frame)
            frame = frame.f_back
        if self._native or self._found:
            self._searches = []  # it would find our parent's loops
        self._loops, self._native, self._found = {}, {}, []
        self.lags, self.ledger = Lags(), Ledger()
        self.skip()

    def lines(self) -> str:
        """Return the lines of an answer that are about event loops."""
        lags = self.lags
        counts = ",".join(str(count) for count in lags.counts)
        parts = [f"lags\t{self.limit!r}\t{','.join(map(repr, BUCKETS))}\t{counts}\t{lags.sum:.6f}\t{lags.blocked}\n"]
        for ident, watched in list(self._loops.items()):
            state = watched.state
            blocked = self._time.now - state.posted if state.is_blocked and state.posted is not None else 0.0
            text = _ascii(place_of(watched.steps)[1]) if state.is_blocked else ""
            parts.append(f"loop\t{_ascii(_thread_name(ident))}\t{blocked:.3f}\t{text}\n")
        return "".join(parts)

    # --- One thread. ---

    def _look_at_thread(self, ident: int, frame: "FrameType") -> bool:
        """Look at the thread, unless it has slept since the last look. Returns whether it runs a loop."""
        last_clock, last, is_certain = self._idle.get(ident, NOT_IDLE)
        if is_certain and not self._time.gil_held and _processor_time(last_clock) == last:
            if ident not in self._loops:
                return False
            self.lags.add(0.0, blocked=False)
            return True
        clock = _processor_clock(_native_id(ident, self._main))
        used = _processor_time(clock)  # first: what it does after this makes the next look a thorough one
        runs_loop = self._look_at(ident, frame)
        has_slept = used > 0 and (clock, used) == (last_clock, last)
        watched = self._loops[ident] if runs_loop else None
        if watched is None or watched.is_seen_idle or (has_slept and watched.beat is None):
            self._idle[ident] = clock, used, has_slept
        else:
            self._idle.pop(ident, None)
        return runs_loop

    def _look_at(self, ident: int, frame: "FrameType") -> bool:
        """Look at the loop that the thread runs. Returns whether it runs one."""
        back = frame.f_back
        is_idle = back is not None and back.f_code is self._codes["_run_once"] and frame.f_code.co_name == "select"
        watched = self._loops.get(ident)
        if is_idle and (watched is None or watched.beat is None):  # else the beat may be that of a loop before it
            if watched is None:
                watched = self._loops[ident] = _Watched(None, self.limit)
            self._judge(ident, watched, is_idle=True)
            watched.is_seen_idle = watched.beat is None
            return True
        loop, steps, is_debugged = self._walk(ident, frame)
        if loop is None:
            return False
        if watched is not None and watched.loop is not None and watched.loop() is not loop:
            self._ends(watched)
            watched = None
        if watched is None:
            watched = self._loops[ident] = _Watched(loop, self.limit)
        watched.loop = watched.loop or ref(loop)
        watched.is_seen_idle = False
        if not steps and watched.beat is None:
            is_idle = self._is_idle_natively(ident, watched)
        if not is_idle and (watched.beat is None or watched.beat.at is None):
            watched.steps = steps
        if is_debugged:
            watched.state.excuse()
        self._judge(ident, watched, is_idle=is_idle)
        return True

    def _is_idle_natively(self, ident: int, watched: _Watched) -> bool:
        """Whether a loop of uvloop is idle, in whose stack there is no frame. Most of the time it is."""
        watched.asked += 1
        if watched.asked % ASK_EVERY != 1:
            return True
        watched.is_seen_idle = _is_polling(_native_id(ident, self._main))
        return watched.is_seen_idle

    def _walk(self, ident: int, frame: "FrameType | None") -> "tuple[Any, list[Step], bool]":
        """The loop that the thread runs or None, the frames inside it, and whether a debugger is among them."""
        codes = self._codes
        steps: list[Step] = []
        is_debugged = False
        while frame is not None and len(steps) < MAX_FRAMES:
            code = frame.f_code
            if code is codes["run_forever"] or code is codes["run"] or code is codes["close"]:
                if any(frame is dead for dead in self._dead):
                    return None, steps, False
                loop = frame.f_locals.get("self")
                if code is not codes["run_forever"]:
                    loop = object.__getattribute__(loop, "__dict__").get("_loop")
                    if _is_asyncios(loop):  # before or after its run_forever
                        loop = None
                return loop, _inside(steps), is_debugged
            is_debugged = is_debugged or any(mark in code.co_filename for mark in DEBUGGERS)
            steps.append((code, frame.f_lineno or 0))
            frame = frame.f_back
        reference = self._native.get(ident)
        loop = reference() if reference is not None else None
        if loop is None or not loop.is_running():
            return None, steps, False
        # Which of the frames are outside the loop is not known.
        return loop, ([] if _is_polling(_native_id(ident, self._main)) else steps), is_debugged

    def _judge(self, ident: int, watched: _Watched, *, is_idle: bool) -> None:
        """Decide whether the loop turns, and do what follows."""
        state, beat = watched.state, watched.beat
        if is_idle and beat is None:
            watched.steps = []
        arrived = None if beat is None or beat.at is None else self._time.of(beat.at)
        delay = _run_delay(_native_id(ident, self._main)) if state.posted is not None or not is_idle else None
        verdict, seconds = state.look(
            self._time.now, is_idle=is_idle, arrived=arrived, delay=delay, gil_held=self._time.gil_held
        )
        if verdict == POSTED:
            watched.of = _of(ident)
            self._post(watched)
        elif verdict == BLOCKED:
            self._blocked(ident, watched, seconds)
        elif verdict in (WAS_BLOCKED, LAGGED):
            watched.beat = None
            self.lags.add(seconds, blocked=verdict == WAS_BLOCKED)
            if verdict == WAS_BLOCKED:
                self._turned(watched, seconds, _of(ident))

    def _post(self, watched: _Watched) -> None:
        loop = watched.loop() if watched.loop is not None else None
        watched.beat = beat = Beat()
        try:
            loop.call_soon_threadsafe(beat)  # type: ignore[union-attr]
        except (RuntimeError, AttributeError):  # it was closed, or has gone
            watched.state.posted = None

    def _blocked(self, ident: int, watched: _Watched, seconds: float) -> None:
        place, text = place_of(watched.steps)
        if watched.place is None and self.ledger.is_news(place, seconds):
            watched.place, watched.text = place, text
            self._voice("blocked", seconds, f"event loop{_of(ident)} blocked for {duration(seconds)} so far: {text}")

    def _turned(self, watched: _Watched, seconds: float, of: str, *, has_ended: bool = False) -> None:
        place, text, was_logged = watched.place, watched.text, watched.place is not None
        watched.place = None
        if place is None:
            place, text = place_of(watched.steps)
            is_news = self.ledger.is_news(place, seconds)
        else:
            is_news = True
        repeated = self.ledger.add(place, seconds)
        if is_news:
            verb = "turns again after" if was_logged and not has_ended else "was blocked for"
            end = ", and has ended" if has_ended else ""
            self._voice("turned", seconds, f"event loop{of} {verb} {duration(seconds)}{end}: {text}")
        elif repeated is not None:
            count, total = repeated
            self._voice("repeated", total, f"event loop blocked {count} times, {duration(total)} in all: {text}")

    def _ends(self, watched: _Watched) -> None:
        """The loop does not run any more. If it has not turned before that, it has ended just now."""
        state, beat = watched.state, watched.beat
        if state.posted is not None and state.is_blocked:
            until = self._time.now if beat is None or beat.at is None else self._time.of(beat.at)
            seconds = max(0.0, until - state.posted)
            self.lags.add(seconds, blocked=True)
            self._turned(watched, seconds, watched.of, has_ended=True)

    # --- Finding loops. ---

    def _learn_codes(self) -> None:
        """Learn which functions run a loop: asyncio may have been imported since the last look, or patched."""
        self._countdown = LEARN_EVERY
        self._idle = {}
        base = "asyncio.base_events", "BaseEventLoop"
        self._codes = {
            "run_forever": _code_of(*base, "run_forever"),
            "_run_once": _code_of(*base, "_run_once"),
            "run": _code_of("asyncio.runners", "Runner", "run"),
            "close": _code_of("asyncio.runners", "Runner", "close"),
        }

    def _find_native(self, now: float) -> None:
        """Find loops of uvloop that no frame shows, since they run without asyncio.Runner.

        The collector finds them, as they refer to their type. It has to go through all objects, so that is done a few
        times only. A beat shows which thread runs one.
        """
        for reference, beat in self._found[:]:
            if beat.at is not None:
                self._native[beat.ident] = reference
                self._found.remove((reference, beat))
        module = sys.modules.get("uvloop")
        if module is None or not self._searches or self._native:
            return
        if self._next_search is None:
            self._next_search = now + self._searches.pop(0)
        if now < self._next_search:
            return
        self._next_search = now + self._searches.pop(0)
        kind: Any = vars(module).get("Loop")
        known: list[Any] = [one.loop() for one in self._loops.values() if one.loop is not None]
        with open("/proc/self/statm", "rb", 0) as file:
            is_large = int(file.read().split()[1]) * 4096 > MAX_SEARCHED_BYTES
        if is_large or type(kind) is not type or any(type(one) is kind for one in known):
            return
        found: list[Any] = gc.get_referrers(kind)
        for loop in found:
            if issubclass(type(loop), kind) and loop.is_running():
                beat = Beat()
                loop.call_soon_threadsafe(beat)
                self._found.append((ref(loop), beat))
        self.skip()


def _inside(steps: "list[Step]") -> "list[Step]":
    """The frames inside the loop without those of asyncio that run a callback."""
    while len(steps) > 1 and steps[-1][0].co_filename.endswith(("/asyncio/events.py", "/asyncio/base_events.py")):
        steps.pop()
    return steps


def _is_asyncios(loop: object) -> bool:
    """Whether it is a loop of asyncio's own: then `run_forever` is in the stack while it runs."""
    kind = vars(sys.modules["asyncio.base_events"]).get("BaseEventLoop")
    return type(kind) is type and issubclass(type(loop), kind)


def _code_of(module: str, kind: str, function: str) -> "CodeType | None":
    found = vars(sys.modules[module]).get(kind) if module in sys.modules else None
    found = vars(found).get(function) if type(found) is type else None
    return found.__code__ if type(found) is type(_code_of) else None


def _native_id(ident: int, main: int) -> "int | None":
    """The thread's id in the kernel. `threading` knows it. Of the thread `main` it may have that of a forked parent."""
    if ident == main:
        return os.getpid()
    active = getattr(sys.modules.get("threading"), "_active", None)
    thread = active.get(ident) if type(active) is dict else None
    try:
        native_id = object.__getattribute__(thread, "__dict__").get("_native_id")
    except AttributeError:
        return None
    return native_id if type(native_id) is int else None


def _thread_name(ident: int) -> str:
    active = getattr(sys.modules.get("threading"), "_active", None)
    thread = active.get(ident) if type(active) is dict else None
    try:
        name = object.__getattribute__(thread, "__dict__").get("_name")
    except AttributeError:
        return ""
    return name if type(name) is str else ""


def _of(ident: int) -> str:
    """` of thread NAME`, unless it is the main one."""
    name = _thread_name(ident)
    return "" if name in ("", "MainThread") else f" of thread {_ascii(name)}"


def _read(native_id: "int | None", name: str) -> bytes:
    """A file of the kernel about one of our threads; nothing if it cannot be read."""
    if native_id is None:
        return b""
    try:
        fd = os.open(f"/proc/self/task/{native_id}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, 200)
    except OSError:
        return b""
    finally:
        os.close(fd)


def _is_polling(native_id: "int | None") -> bool:
    """Whether the thread waits in epoll_wait(2), as far as the kernel shows it."""
    return b"poll" in _read(native_id, "wchan")


def _processor_clock(native_id: "int | None") -> int:
    """The clock of the processor time of one of our threads; 0 if there is none that shows the shortest time.

    Its number is made as in the kernel's include/linux/posix-timers_types.h. Unlike that of pthread_getcpuclockid(3),
    it may be asked for a thread that has ended.
    """
    return 0 if native_id is None or not HAS_EXACT_CLOCKS else ~native_id << 3 | 6


def _processor_time(clock: int) -> int:
    """Return nanoseconds; 0 if they are not known."""
    try:
        return clock_gettime_ns(clock) if clock else 0
    except (OSError, OverflowError):  # the thread has ended
        return 0


def _has_exact_clocks() -> bool:
    """Whether such a clock goes on between two readings. In a sandbox it may count in steps of 10 ms."""
    clock = ~get_native_id() << 3 | 6
    try:
        times = [clock_gettime_ns(clock) for _ in range(5 if sys.platform == "linux" else 0)]
    except OSError:
        return False
    return len(set(times)) == 5


HAS_EXACT_CLOCKS = _has_exact_clocks()


def _switches() -> "int | None":
    """The voluntary context switches of our thread so far, if they can be known."""
    return None if getrusage is None else getrusage(RUSAGE_THREAD).ru_nvcsw


def _run_delay(native_id: "int | None") -> "float | None":
    """The seconds that the thread was ready to run and got no processor, so far."""
    fields = _read(native_id, "schedstat").split()
    return int(fields[1]) / 1e9 if len(fields) == 3 else None


def _ascii(text: str) -> str:
    return ascii(str.__getitem__(text, slice(MAX_TEXT_CHARACTERS)))[1:-1]


# --- The voice. -------------------------------------------------------------------------------------------------------


class Voice:
    """Logs through process 1, if that is agent-init; or else on stderr, in the same form. Never blocks.

    Not through `logging`: what blocks the loop may be the lock of one of its handlers.
    """

    def __init__(self, notify_socket: str, responders: str) -> None:
        # Another supervisor's socket has another name.
        is_ours = bool(responders) and responders.lstrip("@") in notify_socket
        self._address = ("\0" + notify_socket[1:] if notify_socket[0] == "@" else notify_socket) if is_ours else ""

    def __call__(self, kind: str, seconds: float, text: str) -> None:
        """Log one line. `kind`: one of notify.LOOP_EVENTS."""
        text = text.replace("\n", " ")
        if not (self._address and self._send(f"{FIELD}={kind} {seconds:.3f} {text}")):
            _write(f"agent-init: warning: pid {os.getpid()}: {text}\n")

    def _send(self, message: str) -> bool:
        try:
            out = socket(AF_UNIX, SOCK_DGRAM)
            try:
                out.sendto(message.encode("utf-8", "backslashreplace"), MSG_DONTWAIT, self._address)
            finally:
                out.close()
        except OSError:
            return False
        return True


def _write(line: str) -> None:
    """Write to stderr, if that takes a line at once."""
    select = sys.modules.get("select")
    try:
        if select is not None:
            poll = select.poll()
            poll.register(2, select.POLLOUT)
            if not poll.poll(0):
                return
        os.write(2, line.encode("utf-8", "backslashreplace"))
    except OSError:
        pass

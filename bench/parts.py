"""How it is measured: the parts of the bench, each for one init at a time."""

from __future__ import annotations

import contextlib
import math
import random
import signal
import subprocess
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil

from .contenders import DEADLINE, FLOOR, PARTS
from .figures import BURST, ORPHANS, STOPPED, TREES
from .run import Failed, Place, Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .contenders import Init

EVERY = {"start": 1, "exit": 1, "signals": 1, "safe": 2}  # rounds; the others only in full ones
IDLE, IDLE_QUICK = 30.0, 3.0
QUICK_MOST = 2000  # with `--quick`, no more processes than that
GIVEN_UP = 2  # an init that failed so often in a part is left out of it
LOST_AFTER = 2.0  # a TERM that has not ended an init by then is taken for lost
SHELL = ("/bin/sh", "-c", '"$@"; exit $?', "sh")  # it runs a command and handles no signal
REAL_TIME = signal.SIGRTMIN + 3


@dataclass
class Bench:
    """What was measured so far: `samples[figure][init]`, and what failed, by part and init."""

    place: Place
    candidates: list[Init]
    quick: bool
    samples: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    failures: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    full: bool = True  # whether this round has what is slow
    until: float = math.inf  # nothing new begins after that (monotonic clock)

    def round(self, parts: Iterable[str], *, turn: int, full_every: int, until: float) -> bool:
        """One round of these parts; False when it was cut because the time (monotonic clock) was up."""
        self.full, self.until = turn % full_every == 0, until
        for part in parts:
            began = time.monotonic()
            if self.full or turn % EVERY.get(part, full_every) == 0:
                if part != "idle":
                    self._each(part)
                elif turn == 0 and time.monotonic() < until:
                    self.idle()
            self.seconds[part] += time.monotonic() - began
        return time.monotonic() < until

    def _each(self, part: str) -> None:
        """All inits that can do this, in a new order each time, so that none always follows the same other."""
        measure: Callable[[Init], None] = getattr(self, part)
        for init in self._those_with(part):
            if time.monotonic() < self.until:
                with self._noting_failure(part, init):
                    measure(init)

    def _those_with(self, part: str) -> list[Init]:
        assert part in PARTS
        chosen = [
            init
            for init in self.candidates
            if part in init.parts and (self.full or not init.seldom) and len(self.failures[part, init.name]) < GIVEN_UP
        ]
        return random.sample(chosen, len(chosen))

    @contextlib.contextmanager
    def _noting_failure(self, part: str, init: Init) -> Iterator[None]:
        try:
            yield
        except (Failed, OSError, psutil.Error, subprocess.TimeoutExpired) as error:
            self.failures[part, init.name].append(str(error))

    def _add(self, figure: str, init: Init, value: float) -> None:
        self.samples[figure][init.name].append(value)

    def _sizes(self, sizes: tuple[int, ...], init: Init) -> list[int]:
        most = min(init.most, QUICK_MOST) if self.quick else init.most
        return [size for size in sizes if size <= most]

    def _remember_memory(self, when: str, init: Init, run: Run) -> None:
        run.settle()
        for figure, value in run.memory().items():
            self._add(f"{figure}/{when}", init, value)

    # --- The parts. -------------------------------------------------------------------------------------------------

    def start(self, init: Init) -> None:
        with Run(self.place, init, "first") as run:
            start, first = run.told("start"), run.told("first")
            self._add("start", init, (first - start) / 1e6)
            if "exit" in init.parts:
                self._add("whole", init, (run.told("end") - start) / 1e6)

    def safe(self, init: Init) -> None:
        """From that moment TERM is blocked or handled. One is sent at once, and ought to end the run."""
        with Run(self.place, init, "still", launch="hasten") as run:
            start = run.told("start")
            self._add("safe", init, (run.told("safe") - start) / 1e6)
            try:
                run.told("end", LOST_AFTER)
                self._add("lost", init, 0)
            except Failed:
                self._add("lost", init, 100)

    def exit(self, init: Init) -> None:
        with Run(self.place, init, "last", 100) as run:
            last = run.told("last")
            self._add("exit", init, (run.told("end") - last) / 1e6)

    def rest(self, init: Init) -> None:
        with Run(self.place, init, "still") as run:
            run.told("ready")
            self._remember_memory("rest", init, run)

    def idle(self) -> None:
        """All of them at the same time."""
        with contextlib.ExitStack() as stack:
            runs: list[tuple[Init, Run, int, float]] = []
            for init in self._those_with("idle"):
                with self._noting_failure("idle", init):
                    run = stack.enter_context(Run(self.place, init, "still"))
                    run.told("ready")
                    run.settle()
                    runs.append((init, run, 0, 0.0))
            runs = [(init, run, run.switches(), run.cpu()) for init, run, _, _ in runs]
            time.sleep(IDLE_QUICK if self.quick else IDLE)
            for init, run, switches, cpu in runs:
                with self._noting_failure("idle", init):
                    self._add("wakeups", init, run.switches() - switches)
                    self._add("cpu", init, run.cpu() - cpu)

    def signals(self, init: Init) -> None:
        """First a row of them, the next as soon as one has arrived: the caches are warm and the processor awake, the
        difference is that of the code. Then with rests: that is what a single signal costs on this machine, where most
        of it is waking up.
        """
        for size in self._sizes(TREES, init) if self.full else (1,):
            with self._standing(init, "handle", size) as run:
                for _ in range(50):
                    self._add(f"signal/{size}", init, run.forwarded())
                for _ in range(10 * (size == 1)):
                    time.sleep(0.002)
                    self._add("signal-rested", init, run.forwarded())

    def wrapped(self, init: Init) -> None:
        for size in self._sizes(TREES, init):
            with self._standing(init, "handle", size, wrapper=SHELL) as run:
                for _ in range(10):
                    self._add(f"wrapped/{size}", init, run.forwarded())

    def burst(self, init: Init) -> None:
        with self._standing(init, "count") as run:
            before = 0
            for kind, number in (("coalescing", signal.SIGUSR1), ("queued", REAL_TIME)):
                total, seconds = run.burst(number, BURST)
                arrived, before = max(0, total - before), max(total, before)
                self._add(f"arrived/{kind}", init, arrived)
                if arrived:
                    self._add(f"burst/{kind}", init, seconds * 1000)
            if init.name != FLOOR:
                self._remember_memory("signals", init, run)

    def orphans(self, init: Init) -> None:
        for size in self._sizes(ORPHANS, init):
            with self._standing(init, "orphans", size) as run:
                run.go()
                self._add(f"orphans/{size}", init, size / (run.told("reaped") / 1e9))
                self._add(f"zombie/{size}", init, run.told("zombie") / 1e6)
                if size == ORPHANS[-1]:
                    self._remember_memory("orphans", init, run)

    def stop(self, init: Init) -> None:
        for size in self._sizes(STOPPED, init):
            with self._standing(init, "obedient", size) as run:
                sent = run.signal(signal.SIGTERM)
                self._add(f"stop/{size}", init, (run.told("end") - sent) / 1e6)
                self._add(f"asked/{size}", init, run.ended_by_request)

    def kill(self, init: Init) -> None:
        """By its own deadline; where it has none, by a SIGKILL from outside, as the platform sends it."""
        for size in self._sizes(STOPPED, init):
            self._add(f"kill/{size}", init, self._killed(init, size))

    def deadline(self, init: Init) -> None:
        for _ in range(1 if self.quick else 2):
            self._add("deadline", init, self._killed(init, 1))

    def _killed(self, init: Init, size: int) -> float:
        own = "deadline" in init.parts
        with self._standing(init, "stubborn", size, variables={"AGENT_INIT_GRACE": f"{DEADLINE:g}s"}) as run:
            sent = run.signal(signal.SIGTERM if own else signal.SIGKILL)
            return (run.told("end") - sent) / 1e6 - DEADLINE * 1000 * own

    @contextlib.contextmanager
    def _standing(self, init: Init, *agent: object, **options: object) -> Iterator[Run]:
        with Run(self.place, init, *agent, **options) as run:  # type: ignore[arg-type]
            run.told("ready")
            run.settle()
            yield run

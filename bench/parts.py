"""How it is measured: each part of the bench measures one init at a time."""

from __future__ import annotations

import contextlib
import json
import math
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from .contenders import DEADLINE, FLOOR, PARTS
from .figures import ALONE, BURST, ELSEWHERE, ORPHANS, STOPPED, TREES
from .run import Failed, Place, Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .contenders import Init

EVERY = {"start": 1, "exit": 1, "signals": 1, "safe": 2}  # rounds; other parts run in full rounds only
IDLE_SECONDS, IDLE_SECONDS_QUICK = 30.0, 3.0
MAX_PROCESSES_QUICK = 2000
MAX_FAILURES = 2  # of an init in a part; then it is left out of that part
LOST_SECONDS = 2.0  # a TERM that has not ended an init by then is lost
SHELL = ("/bin/sh", "-c", '"$@"; exit $?', "sh")  # runs a command and handles no signal
REAL_TIME = signal.SIGRTMIN + 3
PROBES = 200  # of each command, and so many of the floor
ALTERNATE = Path(__file__).with_name("alternate.py")
FLOOD = Path(__file__).parents[1] / "tests" / "support" / "flood.py"
FLOODS = ("garbage", "silent", "unread", "descriptors", "requests") * 2  # its ten clients
FLOODED_SIGNALS = 200


@dataclass
class Bench:
    """The measurements: `samples[figure][init]`, and `failures[part, init]`."""

    place: Place
    candidates: list[Init]
    quick: bool
    samples: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    failures: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    is_full: bool = True  # whether this round includes slow parts and inits
    until: float = math.inf  # start nothing new after this (monotonic clock)

    def round(self, parts: Iterable[str], *, turn: int, full_every: int, until: float) -> bool:
        """Measure these parts once. Return False if the round was cut short at `until` (monotonic clock)."""
        self.is_full, self.until = turn % full_every == 0, until
        for part in parts:
            began = time.monotonic()
            if self.is_full or turn % EVERY.get(part, full_every) == 0:
                if part != "idle":
                    self.each(part)
                elif turn == 0 and time.monotonic() < until:
                    self.idle()
            self.seconds[part] += time.monotonic() - began
        return time.monotonic() < until

    def each(self, part: str) -> None:
        """Measure all inits that can do this part, in random order, so that none always follows the same other."""
        measure: Callable[[Init], None] = getattr(self, part)
        for init in self._shuffled(part):
            if time.monotonic() < self.until:
                with self._record_failure(part, init):
                    measure(init)

    def _shuffled(self, part: str) -> list[Init]:
        assert part in PARTS
        chosen = [
            init
            for init in self.candidates
            if part in init.parts
            and (self.is_full or not init.is_slow)
            and len(self.failures[part, init.name]) < MAX_FAILURES
        ]
        return random.sample(chosen, len(chosen))

    @contextlib.contextmanager
    def _record_failure(self, part: str, init: Init) -> Iterator[None]:
        try:
            yield
        except (Failed, OSError, psutil.Error, subprocess.TimeoutExpired) as error:
            self.failures[part, init.name].append(str(error))

    def _add(self, figure: str, init: Init, value: float) -> None:
        self.samples[figure][init.name].append(value)

    def _sizes(self, sizes: tuple[int, ...], init: Init) -> list[int]:
        largest = min(init.max_processes, MAX_PROCESSES_QUICK) if self.quick else init.max_processes
        return [size for size in sizes if size <= largest]

    def _add_memory(self, when: str, init: Init, run: Run) -> None:
        run.settle()
        for figure, value in run.memory().items():
            self._add(f"{figure}/{when}", init, value)

    # --- The parts. -------------------------------------------------------------------------------------------------

    def start(self, init: Init) -> None:
        """Measure the time from the exec of process 1 to the agent, and the complete run."""
        with Run(self.place, init, "first") as run:
            start, first = run.stamp("start"), run.stamp("first")
            self._add("start", init, (first - start) / 1e6)
            if "exit" in init.parts:
                self._add("whole", init, (run.stamp("end") - start) / 1e6)

    def safe(self, init: Init) -> None:
        """Measure when TERM is blocked or handled in process 1. A TERM sent at that moment should end the run."""
        with Run(self.place, init, "idle", launch="launch-term") as run:
            start = run.stamp("start")
            self._add("safe", init, (run.stamp("safe") - start) / 1e6)
            try:
                run.stamp("end", LOST_SECONDS)
                self._add("lost", init, 0)
            except Failed:
                self._add("lost", init, 100)

    def exit(self, init: Init) -> None:
        """Measure the time from the agent's exit to the init's."""
        with Run(self.place, init, "last", 100) as run:
            end = run.stamp("end")
            self._add("exit", init, (end - run.last) / 1e6)

    def rest(self, init: Init) -> None:
        """Measure the memory at rest."""
        with Run(self.place, init, "idle") as run:
            run.stamp("ready")
            self._add_memory("rest", init, run)

    def idle(self) -> None:
        """Measure all inits at the same time."""
        with contextlib.ExitStack() as stack:
            runs: list[tuple[Init, Run, int, float]] = []
            for init in self._shuffled("idle"):
                with self._record_failure("idle", init):
                    run = stack.enter_context(Run(self.place, init, "idle"))
                    run.stamp("ready")
                    run.settle()
                    runs.append((init, run, 0, 0.0))
            runs = [(init, run, run.switches(), run.cpu()) for init, run, _, _ in runs]
            time.sleep(IDLE_SECONDS_QUICK if self.quick else IDLE_SECONDS)
            for init, run, switches, cpu in runs:
                with self._record_failure("idle", init):
                    self._add("wakeups", init, run.switches() - switches)
                    self._add("cpu", init, run.cpu() - cpu)

    def signals(self, init: Init) -> None:
        """Send signals back to back, then with a rest before each.

        Back to back, the caches are warm and the processor is awake, so that the code makes the difference. After a
        rest, most of the time is the processor waking up.
        """
        for size in self._sizes(TREES, init) if self.is_full else (1,):
            with self._running(init, "handle", size) as run:
                for _ in range(50):
                    self._add(f"signal/{size}", init, run.forward())
                for _ in range(10 * (size == 1)):
                    time.sleep(0.002)
                    self._add("signal-rested", init, run.forward())

    def flood(self, init: Init) -> None:
        """Send signals after a rest: alone, while clients flood another process 1, and while they flood this one.

        The clients take processor time; what they do to process 1 is the difference between the last two.
        """
        elsewhere = self.place.directory / "elsewhere"
        elsewhere.mkdir(exist_ok=True)
        with self._running(init, "handle") as run:
            self.samples["flood"][ALONE] += _rested(run)
            with Run(replace(self.place, directory=elsewhere), init, "idle") as other:
                other.stamp("ready")
                for name, flooded in random.sample([(ELSEWHERE, other), (init.name, run)], 2):
                    with _flooded(flooded):
                        self.samples["flood"][name] += _rested(run)

    def probe(self, init: Init) -> None:
        """Run probes below it, and the floor, in turns."""
        argv = init.argv([sys.executable, str(ALTERNATE), str(PROBES), json.dumps(dict(init.probes))])
        done = subprocess.run(
            ["unshare", "--pid", "--fork", "--mount-proc", "--", *argv],
            env=self.place.environment,
            capture_output=True,
            timeout=300,
            text=True,
        )
        if done.returncode != 0:
            raise Failed(f"the probes failed: {done.stderr.strip()[-200:]}")
        for name, milliseconds in map(str.split, done.stdout.splitlines()):
            for figure in init.probes.keys() - {FLOOR} if name == FLOOR else {name}:
                self.samples[f"probe/{figure}"][FLOOR if name == FLOOR else init.name].append(float(milliseconds))

    def wrapped(self, init: Init) -> None:
        """Send signals to an agent behind a shell."""
        for size in self._sizes(TREES, init):
            with self._running(init, "handle", size, wrapper=SHELL) as run:
                for _ in range(10):
                    self._add(f"wrapped/{size}", init, run.forward())

    def burst(self, init: Init) -> None:
        """Send BURST signals at once, of both kinds, and measure the memory afterwards."""
        with self._running(init, "count") as run:
            before = 0
            for kind, number in (("coalescing", signal.SIGUSR1), ("queued", REAL_TIME)):
                total, seconds = run.burst(number, BURST)
                arrived, before = max(0, total - before), max(total, before)
                self._add(f"arrived/{kind}", init, arrived)
                if arrived:
                    self._add(f"burst/{kind}", init, seconds * 1000)
            if init.name != FLOOR:
                self._add_memory("signals", init, run)

    def orphans(self, init: Init) -> None:
        """Let many orphans exit at once."""
        for size in self._sizes(ORPHANS, init):
            with self._running(init, "orphans", size) as run:
                run.go()
                self._add(f"orphans/{size}", init, size / (run.stamp("reaped") / 1e9))
                self._add(f"zombie/{size}", init, run.stamp("zombie") / 1e6)
                if size == ORPHANS[-1]:
                    self._add_memory("orphans", init, run)

    def stop(self, init: Init) -> None:
        """Stop trees in which every process exits on TERM."""
        for size in self._sizes(STOPPED, init):
            with self._running(init, "exit-on-term", size) as run:
                sent = run.signal(signal.SIGTERM)
                self._add(f"stop/{size}", init, (run.stamp("end") - sent) / 1e6)
                self._add(f"asked/{size}", init, run.exited_on_term)

    def kill(self, init: Init) -> None:
        """Measure the end by its own deadline; if it has none, by a SIGKILL from outside, as a platform sends it."""
        for size in self._sizes(STOPPED, init):
            self._add(f"kill/{size}", init, self._killed(init, size))

    def deadline(self, init: Init) -> None:
        """Measure how late the deadline of a single process is."""
        for _ in range(1 if self.quick else 2):
            self._add("deadline", init, self._killed(init, 1))

    def _killed(self, init: Init, size: int) -> float:
        """Return the milliseconds from the deadline, or from the SIGKILL, to the end."""
        has_deadline = "deadline" in init.parts
        with self._running(init, "ignore-term", size, variables={"AGENT_INIT_GRACE": f"{DEADLINE:g}s"}) as run:
            sent = run.signal(signal.SIGTERM if has_deadline else signal.SIGKILL)
            return (run.stamp("end") - sent) / 1e6 - DEADLINE * 1000 * has_deadline

    @contextlib.contextmanager
    def _running(self, init: Init, *agent: object, **options: object) -> Iterator[Run]:
        """Run an init with an agent; enter the block when both are at rest."""
        with Run(self.place, init, *agent, **options) as run:  # type: ignore[arg-type]
            run.stamp("ready")
            run.settle()
            yield run


def _rested(run: Run) -> list[float]:
    """Return the microseconds of FLOODED_SIGNALS signals, each after a rest of 2 ms."""
    took = []
    for _ in range(FLOODED_SIGNALS):
        time.sleep(0.002)
        took.append(run.forward())
    return took


@contextlib.contextmanager
def _flooded(run: Run) -> Iterator[None]:
    """Have clients flood the control socket of a process 1 within the block."""
    enter = ["nsenter", f"--target={run.pid}", "--pid", "--mount", "--", "setpriv", "--pdeathsig=KILL", "--"]
    with contextlib.ExitStack() as stack:
        for kind in FLOODS:
            argv = [*enter, sys.executable, "-S", str(FLOOD), kind]
            client = stack.enter_context(subprocess.Popen(argv, stdout=subprocess.PIPE))
            stack.callback(client.kill)
            if client.stdout is not None:
                client.stdout.readline()  # it begins
        yield

"""A whole rehearsal: a plain TERM first, as the reference; then all other scenarios; then what might help."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import datetime
import functools
import os
import platform
import random
import signal
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from .. import __version__, units
from ..init import procfs
from . import advice, container, scenarios, sockets, up
from .model import Mode, Rehearsal
from .run import Cancelled, Reference, Setting, Trial
from .scenarios import EARLY_SHARES, TERM_ONCE, Before, Planned
from .up import NotUp, PortInUse
from .work import WORK_WAS_OVER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from .model import Run
    from .options import Options
    from .scenarios import Way
    from .up import Condition

MAX_SHARE = 0.5
LEAST_DRAIN = 0.2  # seconds; half of less is no time for anything
UNKNOWN_SECONDS = 10.0  # an agent that showed no sign of being up is taken to be up then


class Failure(Exception):
    """The rehearsal cannot be done: the text is one line, with the reason."""


class Progress(Protocol):
    """Is told how far a rehearsal is. The methods are called in the thread that called `rehearse`."""

    def begins(self, runs: int, folder: Path) -> None:
        """So many runs are planned, after the first; their output is kept in this folder."""

    def run_begins(self, title: str) -> None:
        """A run has begun."""

    def run_ends(self, run: Run) -> None:
        """A run has ended."""


def rehearse(command: Sequence[str], options: Options, progress: Progress) -> Rehearsal:
    """Rehearse the stop of an agent, and leave nothing of it behind, even if it is interrupted. Raises Failure."""
    if not procfs.MOUNTED:
        raise Failure("there is no /proc here that shows our processes: rehearse works on Linux only")
    mode = Mode.SUBREAPER if options.subreaper or container.namespace() is None else Mode.PROCESS_1
    if answers := up.occupied(options.up):
        raise Failure(f"{answers} answers before the agent was started: something else runs there")
    setting = Setting(tuple(command), options, mode, _folder(options), dict(os.environ), threading.Event())
    condition: Condition = options.up or up.Automatic()
    began = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with _failures(setting.cancelled):
        progress.begins(0, setting.folder)
        progress.run_begins(TERM_ONCE.scenario.title)
        first, found = _first_run(setting, condition)
        reference = Reference(first.up_after or _end_of_start(first), first.drain or 0.0)
        shown = TERM_ONCE in options.ways
        runs = [first] if shown else []
        if shown:
            progress.run_ends(first)
        planned = plan(options, reference)
        progress.begins(len(planned), setting.folder)
        condition = found or condition
        runs += _run_all(setting, planned, condition, reference, progress)
        lost = [run for run in runs if run.scenario == TERM_ONCE.scenario and advice.lost(run)]
        if lost:
            ways = scenarios.retries(options.grace, killed=all(run.killed for run in lost))
            again = [Planned(way, 1) for way in ways]
            progress.begins(len(again), setting.folder)
            runs += _run_all(setting, again, condition, reference, progress)
    return Rehearsal(
        command=tuple(command),
        work=options.work,
        up=_up_text(first, condition),
        seed=options.seed,
        runs=_in_order(runs),
        advice=advice.advise(runs, work=options.work is not None, grace=options.grace),
        notes=tuple(_notes(options, mode, first, runs)),
        versions={"agent-init": __version__, "python": platform.python_version(), "linux": platform.release()},
        began=began,
    )


def plan(options: Options, reference: Reference) -> list[Planned]:
    """Return the runs after the first one, in the order in which they are done."""
    chance = random.Random(options.seed)
    planned: list[Planned] = []
    for way in options.ways:
        reason = _why_not(way, options, reference)
        if reason:
            planned.append(Planned(way, 1, reason=reason))
        elif way.early:
            shares = list(EARLY_SHARES)
            shares += [chance.uniform(shares[0], MAX_SHARE) for _ in range(len(EARLY_SHARES) * (options.runs - 1))]
            planned += [Planned(way, number, share) for number, share in enumerate(shares, 1)]
        else:
            first = 2 if way == TERM_ONCE else 1
            planned += [Planned(way, number) for number in range(first, options.runs + 1)]
    chance.shuffle(planned)
    if options.mend is None:  # what is broken stays so
        planned.sort(key=lambda one: one.way.before is Before.BREAK)
    return planned


def _why_not(way: Way, options: Options, reference: Reference) -> str:
    """Return why a scenario cannot be done; an empty text if it can."""
    if way.before is Before.BREAK and options.break_dependency is None:
        return "no --break CMD, which stops a dependency"
    if way.grace_share is not None and reference.drain < LEAST_DRAIN:
        return f"the agent ended within {units.format_duration(round(reference.drain, 3))}: no grace is too short"
    return ""


def _first_run(setting: Setting, condition: Condition) -> tuple[Run, Condition | None]:
    """Do the first run; return it, and how the agent is seen to be up in the others."""
    trial = Trial(setting, Planned(TERM_ONCE, 1), condition, None)
    try:
        (run,) = _in_threads(setting, [(trial.planned, trial.run)])
    except NotUp as problem:
        raise Failure(f"{problem}; its output is in {trial.folder}") from None
    if not isinstance(condition, up.Automatic):
        return run, None
    found = getattr(trial.condition, "found", "")
    if found == up.READY:
        return run, up.Ready()
    return run, up.Automatic(at_least=run.up_after or 0.0) if found else up.After(UNKNOWN_SECONDS)


def _run_all(
    setting: Setting, planned: Sequence[Planned], condition: Condition, reference: Reference, progress: Progress
) -> list[Run]:
    calls = [(one, functools.partial(_run_later, setting, one, condition, reference)) for one in planned]
    return _in_threads(setting, calls, progress)


def _run_later(setting: Setting, planned: Planned, condition: Condition, reference: Reference) -> Run:
    """Do a run that is not the first one.

    An agent that binds its port without SO_REUSEADDR cannot do so for a minute after its connections were closed
    (TIME_WAIT). In a container the port is new each time: that is no fault of the agent's.
    """
    try:
        return Trial(setting, planned, condition, reference).run()
    except PortInUse:
        if setting.options.parallel == 1:
            sockets.await_end_of_time_wait(setting.cancelled)
    try:
        return Trial(setting, planned, condition, reference).run()
    except PortInUse as problem:
        hint = "" if setting.options.parallel == 1 else "an agent with a fixed port needs runs without --parallel: "
        return Trial(setting, dataclasses.replace(planned, reason=f"{hint}{problem}"), condition, reference).run()


def _in_threads(
    setting: Setting,
    calls: Iterable[tuple[Planned, Callable[[], Run]]],
    progress: Progress | None = None,
) -> list[Run]:
    """Do the runs, so many at a time, and return their results in the order of their ends."""
    done: list[Run] = []
    waiting = list(calls)
    running: set[concurrent.futures.Future[Run]] = set()
    executor = concurrent.futures.ThreadPoolExecutor(setting.options.parallel)
    try:
        while waiting or running:
            while waiting and len(running) < setting.options.parallel:
                planned, call = waiting.pop(0)
                if progress is not None:
                    progress.run_begins(planned.way.scenario.title)
                running.add(executor.submit(call))
            ended, running = concurrent.futures.wait(running, 0.2, concurrent.futures.FIRST_COMPLETED)
            for future in ended:
                done.append(future.result())
                if progress is not None:
                    progress.run_ends(done[-1])
    except BaseException:
        setting.cancelled.set()
        raise
    finally:
        _shut_down(executor)
    return done


def _shut_down(executor: concurrent.futures.Executor) -> None:
    """Wait until the threads have cleaned up; a second Ctrl-C does not cut that short."""
    is_main = threading.current_thread() is threading.main_thread()
    held = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP} if is_main else set()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        executor.shutdown(wait=True, cancel_futures=True)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _failures(cancelled: threading.Event) -> Iterator[None]:
    """End all runs at the end of the block. Raises Failure for what stands in the way of a run."""
    try:
        yield
    except Cancelled:
        raise Failure("interrupted") from None
    except OSError as error:
        raise Failure(f"cannot go on: {error}") from None
    finally:
        cancelled.set()


def _folder(options: Options) -> Path:
    if options.keep is None:
        return Path(tempfile.mkdtemp(prefix="agent-init-rehearsal-"))
    try:
        options.keep.mkdir(parents=True, exist_ok=True)
        if any(options.keep.iterdir()):
            raise Failure(f"{options.keep} is not empty; accepted by --keep: a new folder, or an empty one")
    except OSError as error:
        raise Failure(f"cannot keep output in {options.keep}: {error.strerror}") from None
    return options.keep.resolve()


def _end_of_start(run: Run) -> float:
    """Return how long a start takes at most, of an agent that was not seen to come up."""
    return min(run.request_at or UNKNOWN_SECONDS, UNKNOWN_SECONDS)


def _up_text(first: Run, condition: Condition) -> str:
    found = next((event.text for event in first.events if event.kind == "up"), "")
    return found or condition.text


def _in_order(runs: Sequence[Run]) -> tuple[Run, ...]:
    order = {way.scenario: index for index, way in enumerate(scenarios.WAYS)}
    return tuple(sorted(runs, key=lambda run: (order.get(run.scenario, len(order)), run.number)))


def _notes(options: Options, mode: Mode, first: Run, runs: Sequence[Run]) -> Iterator[str]:
    if options.work is None:
        yield "Without --work only the ending was judged: whether a request in hand survives is not known."
    elif any(event.text == WORK_WAS_OVER for run in runs for event in run.events):
        yield "In some runs the work had ended before the stop request: choose work that takes longer."
    if mode is Mode.SUBREAPER:
        why = "As asked for" if options.subreaper else "No PID namespace could be had"
        yield f"{why}: agent-init ran as a subreaper, not as process 1."
    if first.up_after is None:
        yield "The agent was not seen to come up (no READY=1, no port, never quiet): use --up."
    seen = next((event.text for event in first.events if event.kind == "up"), "")
    if options.up is None and seen.endswith(up.OF_QUIET):
        yield f"The agent was taken to be up after {seen}, with neither READY=1 nor a port: use --up if it was not."
    if any("stdout is read again" in event.text for run in runs for event in run.events):
        yield "Stdout was read again after seconds: a drain that prints more than a pipe holds would wait for ever."

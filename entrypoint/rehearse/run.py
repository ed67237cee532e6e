"""One run: the agent is started, comes up, gets work, is stopped in one way, and ends; then it is judged."""

from __future__ import annotations

import contextlib
import copy
import random
import re
import signal
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import signals, units
from . import beside, broken, memory, up
from .container import Container, send
from .journal import Journal
from .judge import Facts, judge
from .model import Life, Mode, Run
from .observe import Observer, began_at
from .scenarios import TERM, Before, Planned
from .streams import Streams
from .up import NotUp, PortInUse
from .work import Work

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from .options import Options

TICK = 0.02  # seconds
LOOK_EVERY = 0.05
STARTS_WITHIN = 60.0  # agent-init itself, on a loaded machine
PATIENCE = 15.0  # beyond the deadline and the linger time
WITHOUT_DEADLINE = 60.0  # the patience with a stop that has none
DECIDED_WITHIN = 2.0
RELOADS_WITHIN = 30.0
AFTER_THE_CHILD = 0.5
MAX_READER_STOPS = 3.0
BREAK_SECONDS = 60.0
END_OF_STDIN = "EOFError: EOF when reading a line"  # CPython's input()
IN_USE = re.compile(r"address already in use|EADDRINUSE|Errno 98\b", re.IGNORECASE)


class Cancelled(Exception):
    """The rehearsal was interrupted."""


@dataclass(frozen=True)
class Setting:
    """What all runs of a rehearsal have in common. `cancelled`: set when they are to end at once."""

    command: tuple[str, ...]
    options: Options
    mode: Mode
    folder: Path
    environment: Mapping[str, str]
    cancelled: threading.Event


@dataclass(frozen=True)
class Reference:
    """What a plain TERM has shown. `up_after`: seconds of a start; `drain`: seconds of a stop."""

    up_after: float
    drain: float


class Trial:
    """A run in progress. To be used once, by one thread."""

    def __init__(
        self, setting: Setting, planned: Planned, condition: up.Condition, reference: Reference | None
    ) -> None:
        self.setting, self.planned, self.way = setting, planned, planned.way
        self.condition, self.reference = copy.copy(condition), reference
        suffix = f"-{planned.number}" if planned.number > 1 or planned.share is not None else ""
        self.folder = setting.folder / f"{self.way.name.replace(' ', '-')}{suffix}"
        now = time.monotonic()
        self.signs = up.Signs(now, active_at=now)
        self.observer: Observer | None = None
        self.next_look_for_ports = 0.0
        self.broken = False  # by --break
        self.balloon: memory.Balloon | None = None
        self.sent: set[int] = set()
        self.requested: float | None = None
        self.goes_on = self.given_up = False
        self.ended: float | None = None
        self.exit_code: int | None = None
        self.lives: tuple[Life, ...] = ()
        self.skipped, self.problem = planned.reason, ""

    # --- From the start to the end. -------------------------------------------------------------------------------

    def run(self) -> Run:
        """Do it all, leave nothing behind, and return what was seen. Raises Cancelled, OSError, NotUp.

        After the first run of a rehearsal PortInUse is the only NotUp that is raised: any other is a loss.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.journal = Journal(self.folder, self.signs, self.setting.options.work_up or "")
        self.work = Work(self.setting.options, self.journal, self._wait_until)
        with contextlib.closing(self.journal):
            try:
                if not self.skipped:
                    self._play()
            except NotUp as problem:
                if self.reference is None or isinstance(problem, PortInUse):
                    raise
                self.problem = str(problem)
        return self._result()

    def _play(self) -> None:
        group = None
        if self.way.before is Before.TAKE_MEMORY:
            group = memory.make_group()
            if group is None:
                self.skipped = memory.NO_GROUP
                return
        try:
            self._contain(group)
        finally:
            if group is not None:
                memory.remove_group(group)

    def _contain(self, group: Path | None) -> None:
        self.streams = Streams(self.journal.add_line)
        options = self.setting.options
        self.container = Container(
            self.way.command(self.setting.command),
            self._agent_init_options(),
            self.setting.mode,
            environment=self.setting.environment,
            keep_stdin=options.keep_stdin,
            group=group,
        )
        self.streams.add(self.container.stdout, "out")
        self.streams.add(self.container.stderr, "err")
        try:
            self._start()
            if self.planned.share is None:
                self._come_up()
                number = str(self.planned.number)
                self.work.begin(self.setting.environment, self.streams, scenario=self.way.name, run=number)
                self._prepare(group)
            else:
                self._wait_until(self.signs.started + self.planned.share * self._reference.up_after)
            if not self.skipped:
                self._stop()
                self._await_end()
                self.work.await_end()
        finally:
            self._leave_nothing()

    @property
    def _reference(self) -> Reference:
        assert self.reference is not None
        return self.reference

    def _agent_init_options(self) -> tuple[str, ...]:
        grace = self.setting.options.grace
        if self.way.grace_share is not None:
            grace = max(0.05, self._reference.drain * self.way.grace_share)
        return (*(("--grace", f"{grace:.3f}") if grace is not None else ()), *self.way.options)

    # --- Its phases. ----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Wait until agent-init has started the agent. Raises NotUp."""
        end = time.monotonic() + STARTS_WITHIN
        while not (agent := self.container.agent()):
            if self._has_ended():
                raise NotUp(self._ended_early(""))
            if time.monotonic() > end:
                raise NotUp(f"agent-init has not started the agent within {units.format_duration(STARTS_WITHIN)}")
            self._step(TICK / 4)
        self.signs.started = self.signs.active_at = began_at(agent)
        self.observer = Observer(self.container.pid, LOOK_EVERY)

    def _come_up(self) -> None:
        """Wait until the agent is up. Raises NotUp."""
        end = self.signs.started + self.setting.options.up_timeout
        automatic = isinstance(self.condition, up.Automatic)
        if automatic:
            end = self.signs.started + min(self.setting.options.up_timeout, up.AUTOMATIC_SECONDS)
        while (at := self._is_up()) is None:
            self._step()
            if self._has_ended():
                text = self._ended_early("before it was up")
                raise PortInUse(text) if any(IN_USE.search(line.text) for line in self.journal.lines) else NotUp(text)
            if time.monotonic() > end:
                if automatic:
                    self.journal.add_event("note", "was not seen to come up: taken to be up")
                    return
                waited = units.format_duration(self.setting.options.up_timeout)
                raise NotUp(f"the agent was not seen to come up within {waited} ({self.condition.text})")
        self.signs.up_at = at
        self.journal.add_event("up", self.condition.text if not automatic else getattr(self.condition, "found", ""), at)

    def _is_up(self) -> float | None:
        assert self.observer is not None
        signs = self.signs
        signs.now = time.monotonic()
        signs.active_at = max(signs.active_at, self.observer.changed_at)
        if isinstance(self.condition, up.Automatic) and signs.now >= self.next_look_for_ports:
            for port in self.observer.ports():
                signs.ports.setdefault(port, signs.now)
            self.next_look_for_ports = time.monotonic() + up.BETWEEN_PROBES
        return self.condition.check(signs)

    def _ended_early(self, when: str) -> str:
        for _ in range(3):  # what it has written last is there
            self._step(0)
        if not self.journal.record("started"):  # nor has agent-init itself
            words = [*(record.message for record in self.journal.records), *(line.text for line in self.journal.lines)]
            return (words or ["agent-init has ended at once"])[-1].removeprefix("agent-init: ").removeprefix("error: ")
        code = self.container.exit_code()
        # What is left in the buffer of stdout, such as a question, is written after the traceback.
        printed = next((line.text.strip() for line in reversed(self.journal.lines) if line.text.strip()), "")
        last = broken.last_error(self.journal.lines) or printed
        seconds = units.format_duration(round(time.monotonic() - self.signs.started, 1))
        text = f"the agent ended by itself after {seconds}, {when}, with exit code {code}"
        if code == 0 and not self.setting.options.keep_stdin:
            text += " (one that reads stdin needs --stdin, and none may go to the background)"
        elif last.startswith(END_OF_STDIN) and not self.setting.options.keep_stdin:
            text += " (one that reads stdin needs --stdin)"
        return text + (f"; its last line: {signals.quote(last)}" if last else "")

    def _prepare(self, group: Path | None) -> None:
        """Do what comes just before the stop request."""
        before = self.way.before
        if before is Before.STOP_READING:
            self.streams.pause(self.container.stdout)
            self.journal.add_event("note", "stdout is full, and nobody reads it")
        elif before is Before.BREAK:
            self._break()
        elif before is Before.KILL_CHILD:
            self._kill_child()
        elif before is Before.TAKE_MEMORY:
            assert group is not None
            self.balloon = memory.Balloon(group)

    def _break(self) -> None:
        line = self.setting.options.break_dependency
        assert line is not None
        self.broken = True
        code, text = beside.run(line, self.setting.environment, BREAK_SECONDS, self._step)
        if code:
            self.skipped = f"--break failed with exit code {code}" + (f": {text.splitlines()[-1]}" if text else "")
        elif code is None:
            self.skipped = f"--break had not ended after {units.format_duration(BREAK_SECONDS)}"
        else:
            self.journal.add_event("break", line)

    def _kill_child(self) -> None:
        assert self.observer is not None
        self.observer.look(at_once=True)
        child = self.observer.pick_child(random.Random(self.setting.options.seed + self.planned.number))
        if child is None:
            self.skipped = "the agent has no child"
            return
        send(child.process.pid, signal.SIGKILL)
        self.journal.add_event("kill", f"KILL to {child.name}", pid=child.inner_pid)
        self._wait_until(time.monotonic() + AFTER_THE_CHILD)

    def _stop(self) -> None:
        """Send what the scenario sends."""
        if self._has_ended():
            if self.way.before is Before.NOTHING:
                raise NotUp(self._ended_early("before the stop request"))
            self.requested = time.monotonic()  # it has ended with what it depends on, and restarts: a way to do it
            return
        if self.way.before in (Before.NOTHING, Before.STOP_READING):
            self.work.check()
        self._step(0)  # what the agent has printed up to now was not printed after the request
        if self.way.to_all and self.observer is not None:
            self.observer.look(at_once=True)
            for seen in self.observer.alive():
                send(seen.process.pid, TERM)
        began = time.monotonic()
        for after, number in self.way.signals:
            self._wait_until(began + after, self._has_ended)
            if self.requested is None or not self._has_ended():  # it may have ended by itself just now
                self._request(number)
        if len(self.way.signals) == 1 and TERM not in self.sent:
            self._see_whether_it_stops()
        if self.way.before is Before.TAKE_MEMORY:
            assert self.balloon is not None
            self.balloon.take()
            self.journal.add_event("note", "no memory is left")

    def _request(self, number: int) -> None:
        self.container.signal(number)
        self.sent.add(number)
        if self.requested is None:
            self.requested = time.monotonic()
        to = "every process" if self.way.to_all else "agent-init"
        self.journal.add_event("request", f"{signals.name_of(number)} to {to}")

    def _see_whether_it_stops(self) -> None:
        """An agent may handle HUP, as a request to reload (--stop-on may say so of INT): then TERM comes after it."""
        end = time.monotonic() + DECIDED_WITHIN
        while not self.journal.record("stop-requested") and not self._has_ended():
            if time.monotonic() > end:
                self.goes_on = True
                self.journal.add_event("note", "no stop was requested by that: the agent goes on")
                self._let_it_reload()
                if not self._has_ended():
                    self.requested = None
                    self._request(TERM)
                return
            self._step()

    def _let_it_reload(self) -> None:
        """Wait until the work has ended and the agent has been quiet since, but not for long.

        Celery and others finish their work at a HUP, and execute themselves anew. They lose a TERM meanwhile, which is
        another matter than a terminal that is closed.
        """
        assert self.observer is not None
        calm_since = time.monotonic()
        end = calm_since + RELOADS_WITHIN
        while (now := time.monotonic()) < end and not self._has_ended():
            if self.work.is_running():
                calm_since = now
            if now - max(calm_since, self.signs.active_at, self.observer.changed_at) >= up.QUIET_SECONDS:
                return
            self._step()

    def _await_end(self) -> None:
        """Wait until agent-init has ended, but not for ever."""
        assert self.requested is not None
        grace = self.journal.grace if self.journal.grace is not None else WITHOUT_DEADLINE
        end = self.requested + grace + PATIENCE
        reader_back = time.monotonic() + min(MAX_READER_STOPS, grace / 3)
        reading = self.way.before is not Before.STOP_READING
        while not self._has_ended():
            self._step()
            now = time.monotonic()
            if not reading and now >= reader_back:
                reading = True
                self.streams.resume(self.container.stdout)
                self.journal.add_event("note", "stdout is read again")
            if now > end:
                self.given_up = True
                self.journal.add_event("kill", "the rehearsal's patience is over")
                break
        self.ended = time.monotonic()
        if self.observer is not None:
            self.observer.look(at_once=True)
        self.exit_code = self.container.exit_code()
        self._step(0)
        text = f"exit code {self.exit_code}" if self.exit_code is not None else "killed"
        self.journal.add_event("end", text, self.ended)

    def _leave_nothing(self) -> None:
        known = [seen.process for seen in self.observer.alive()] if self.observer is not None else []
        try:
            self.container.kill(known)
        finally:
            if self.balloon is not None:
                self.balloon.end()
            self.work.end()
            try:
                self.streams.close()  # the disk may be full
            finally:
                self._mend()
            if self.observer is not None:
                self.lives = self.observer.lives(self.signs.started)

    def _mend(self) -> None:
        """Undo what --break has done."""
        line = self.setting.options.mend
        if not self.broken or line is None:
            return
        code, text = beside.run(line, self.setting.environment, BREAK_SECONDS)
        if code != 0:
            self.problem = f"--mend failed with exit code {code}" + (f": {text.splitlines()[-1]}" if text else "")

    # --- While time passes. ---------------------------------------------------------------------------------------

    def _step(self, seconds: float = TICK) -> None:
        """Let a little time pass, and take in what comes. Raises Cancelled."""
        if self.setting.cancelled.is_set():
            raise Cancelled
        self.streams.read(seconds)
        if self.observer is not None:
            self.observer.look()

    def _wait_until(self, at: float, is_over: Callable[[], bool] | None = None) -> None:
        """Wait until a time by the monotonic clock, or until something is over. Raises Cancelled."""
        while (left := at - time.monotonic()) > 0 and not (is_over is not None and is_over()):
            self._step(min(TICK, left))

    def _has_ended(self) -> bool:
        return self.container.exit_code() is not None

    # --- The result. ----------------------------------------------------------------------------------------------

    def _result(self) -> Run:
        facts = Facts(
            way=self.way,
            started=self.signs.started,
            requested=self.requested,
            ended=self.ended,
            exit_code=self.exit_code,
            lines=tuple(self.journal.lines),
            records=tuple(self.journal.records),
            sent=frozenset(self.sent),
            work_code=self.work.code,
            work_cut=self.work.cut,
            given_up=self.given_up,
            skipped=self.skipped,
            problem=self.problem,
            goes_on=self.goes_on,
        )
        judged = judge(facts)

        def seconds(at: float | None) -> float | None:
            return None if at is None else self.journal.seconds(at)

        return Run(
            scenario=self.way.scenario,
            number=self.planned.number,
            mode=self.setting.mode,
            verdict=judged.verdict,
            reasons=judged.reasons,
            up_after=seconds(self.signs.up_at),
            request_at=seconds(self.requested),
            end_at=seconds(self.ended),
            exit_code=self.exit_code,
            killed=judged.killed,
            work_kept=judged.work_kept,
            left_over=judged.left_over,
            held_up_by=judged.held_up_by,
            broken_lines=judged.broken_lines,
            interrupted=judged.interrupted,
            events=tuple(sorted(self.journal.events, key=lambda event: event.seconds)),
            lives=self.lives,
            folder=self.folder,
        )

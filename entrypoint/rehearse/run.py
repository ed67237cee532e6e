"""One run: the agent is started, comes up, gets work, is stopped in one way, and ends; then it is judged."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import random
import re
import signal
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import signals, units
from ..init import names, procfs
from . import beside, memory, records, up
from .container import Container
from .judge import Facts, judge
from .model import Event, Life, Mode, Run
from .observe import Observer, began_at
from .scenarios import INT, TERM, Before, Planned
from .streams import Streams

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from .observe import Seen
    from .options import Options
    from .records import Line, Record

TICK = 0.02  # seconds
LOOK_EVERY = 0.05
MAX_LINES = 100_000  # of a run, that are judged: the last ones
STARTS_WITHIN = 60.0  # agent-init itself, on a loaded machine
WORK_BEGINS_WITHIN = 1.0
WORK_WAITS_WITHIN = 5.0  # what computes longer does not wait for the agent
LOOKS_AT_WORK = 4  # that find it waiting, one after the other
PATIENCE = 15.0  # beyond the deadline and the linger time
WITHOUT_DEADLINE = 60.0  # the patience with a stop that has none
DECIDED_WITHIN = 2.0
RELOADS_WITHIN = 30.0
AFTER_THE_CHILD = 0.5
MAX_READER_STOPS = 3.0
BREAK_SECONDS = 60.0
IN_USE = re.compile(r"address already in use|EADDRINUSE|Errno 98\b", re.IGNORECASE)
WORK_WAS_OVER = "the work had ended before the stop request"
EVENT_KINDS = {"deadline": "deadline", "linger-over": "kill", "escalated": "signal", "interrupted": "signal"}
SENT = ("stop-requested", "looked-through", "last-term", "wrapper-stays", "held-back", "forwarded")
EVENT_KINDS |= dict.fromkeys(SENT, "signal")
EVENT_KINDS |= dict.fromkeys(("lingering", "wrapper-left", "stop-repeated", "left-to-others", "shielded"), "note")


class Cancelled(Exception):
    """The rehearsal was interrupted."""


class NotUp(Exception):
    """The agent has not come up, or has ended before anybody asked it to: the text says so."""


class PortInUse(NotUp):
    """The agent has ended at once, as another process, or a connection that was closed, still has its port."""


@dataclass(frozen=True)
class Setting:
    """What all runs of a rehearsal have in common. `up`: how an agent is seen to be up."""

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
        self.lines: deque[Line] = deque(maxlen=MAX_LINES)
        self.records: list[Record] = []
        self.events: list[Event] = []
        self.started = time.monotonic()
        self.signs = up.Signs(self.started, active_at=self.started)
        self.up_at: float | None = None
        self.requested: float | None = None
        self.ended: float | None = None
        self.work: beside.Command | None = None
        self.broken = False  # by --break
        self.goes_on = False
        self.balloon: memory.Balloon | None = None
        self.work_begun = False
        self.work_code: int | None = None
        self.work_cut = self.work_was_over = self.given_up = False
        self.skipped, self.problem = planned.reason, ""
        self.sent: set[int] = set()
        self.grace: float | None = None
        self.exit_code: int | None = None
        self.lives: tuple[Life, ...] = ()

    # --- From the start to the end. -------------------------------------------------------------------------------

    def run(self) -> Run:
        """Do it all, leave nothing behind, and return what was seen. Raises Cancelled, OSError, NotUp.

        After the first run of a rehearsal PortInUse is the only NotUp that is raised: any other is a loss.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._output = (self.folder / "output.log").open("w", encoding="utf-8", errors="backslashreplace")
        self._log = (self.folder / "events.jsonl").open("w", encoding="utf-8")
        self._work_log = (self.folder / "work.log").open("w", encoding="utf-8", errors="backslashreplace")
        try:
            if not self.skipped:
                self._play()
        except NotUp as problem:
            if self.reference is None or isinstance(problem, PortInUse):
                raise
            self.problem = str(problem)
        finally:
            for file in (self._output, self._log, self._work_log):
                file.close()
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
        self.streams = Streams(self._on_line)
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
        self.observer: Observer | None = None
        try:
            self._start()
            if self.planned.share is None:
                self._come_up()
                self._begin_work()
                self._prepare(group)
            else:
                self._wait_until(self.started + self.planned.share * self._reference.up_after)
            if not self.skipped:
                self._stop()
                self._await_end()
                self._end_work()
        finally:
            self._leave_nothing()

    def _leave_nothing(self) -> None:
        known = [seen.process for seen in self.observer.alive()] if self.observer is not None else []
        try:
            self.container.kill(known)
        finally:
            if self.balloon is not None:
                self.balloon.end()
            if self.work is not None:
                self.work.end()
            try:
                self.streams.close()  # the disk may be full
            finally:
                self._mend()
            if self.observer is not None:
                self.lives = self.observer.lives(self.started)

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
            if self.container.exit_code() is not None:
                raise NotUp(self._ended_early(""))
            if time.monotonic() > end:
                raise NotUp(f"agent-init has not started the agent within {units.format_duration(STARTS_WITHIN)}")
            self._step(TICK / 4)
        self.started = self.signs.started = self.signs.active_at = began_at(agent)
        self.observer = Observer(self.container.pid, LOOK_EVERY)

    def _come_up(self) -> None:
        """Wait until the agent is up. Raises NotUp."""
        end = self.started + self.setting.options.up_timeout
        automatic = isinstance(self.condition, up.Automatic)
        if automatic:
            end = self.started + min(self.setting.options.up_timeout, up.AUTOMATIC_SECONDS)
        while (at := self._is_up()) is None:
            self._step()
            if self.container.exit_code() is not None:
                text = self._ended_early("before it was up")
                raise PortInUse(text) if any(IN_USE.search(line.text) for line in self.lines) else NotUp(text)
            if time.monotonic() > end:
                if automatic:
                    self._event("note", "was not seen to come up: taken to be up")
                    return
                waited = units.format_duration(self.setting.options.up_timeout)
                raise NotUp(f"the agent was not seen to come up within {waited} ({self.condition.text})")
        self.up_at = at
        self._event("up", self.condition.text if not automatic else getattr(self.condition, "found", ""), at)

    def _is_up(self) -> float | None:
        assert self.observer is not None
        signs = self.signs
        signs.now = time.monotonic()
        signs.active_at = max(signs.active_at, self.observer.changed_at)
        if isinstance(self.condition, up.Automatic) and signs.now >= self._look_for_ports:
            for port in self.observer.ports():
                signs.ports.setdefault(port, signs.now)
            self._look_for_ports = time.monotonic() + up.BETWEEN_PROBES
        return self.condition.check(signs)

    _look_for_ports = 0.0

    def _ended_early(self, when: str) -> str:
        for _ in range(3):  # what it has written last is there
            self._step(0)
        if not self._record("started"):  # nor has agent-init itself
            words = [*(record.message for record in self.records), *(line.text for line in self.lines)]
            return (words or ["agent-init has ended at once"])[-1].removeprefix("agent-init: ").removeprefix("error: ")
        code = self.container.exit_code()
        last = next((line.text.strip() for line in reversed(self.lines) if line.text.strip()), "")
        seconds = units.format_duration(round(time.monotonic() - self.started, 1))
        text = f"the agent ended by itself after {seconds}, {when}, with exit code {code}"
        if code == 0 and not self.setting.options.keep_stdin:
            text += " (one that reads stdin needs --stdin, and none may go to the background)"
        return text + (f"; its last line: {signals.quote(last)}" if last else "")

    def _begin_work(self) -> None:
        """Start --work, and wait for --work-up; else until it has printed something, or for a second. Raises NotUp."""
        line, wanted = self.setting.options.work, self.setting.options.work_up
        if line is None:
            return
        variables = {"scenario": self.way.name, "run": str(self.planned.number)}
        self.work = beside.Command(line, self.setting.environment, **variables)
        self.streams.add(self.work.output, "work")
        self._event("note", "the work begins")
        end = time.monotonic() + (WORK_BEGINS_WITHIN if wanted is None else self.setting.options.up_timeout)
        while not self.work_begun and time.monotonic() < end and self.work.exit_code() is None:
            self._step()
        if wanted is None:
            self._await_waiting_work(end + WORK_WAITS_WITHIN)
        if wanted is not None and not self.work_begun and self.work.exit_code() is None:
            waited = units.format_duration(self.setting.options.up_timeout)
            raise NotUp(f"the work did not print {signals.quote(wanted)} within {waited}")
        self._check_work()

    def _await_waiting_work(self, end: float) -> None:
        """Wait until the work waits: for the agent, as a rule. What still starts is no work in hand."""
        assert self.work is not None
        waiting = 0
        while waiting < LOOKS_AT_WORK and self.work.exit_code() is None and time.monotonic() < end:
            self._wait_until(time.monotonic() + TICK)
            waiting = waiting + 1 if self.work.is_waiting() else 0

    def _check_work(self) -> None:
        """See whether the work goes on, as it should when the stop is requested. Raises NotUp if it has failed."""
        code = None if self.work is None else self.work.exit_code()
        if code:
            raise NotUp(f"the work failed before a stop was requested, with exit code {code}")
        self.work_was_over = code == 0

    def _prepare(self, group: Path | None) -> None:
        """Do what comes just before the stop request."""
        before = self.way.before
        if before is Before.STOP_READING:
            self.streams.pause(self.container.stdout)
            self._event("note", "stdout is full, and nobody reads it")
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
            self._event("break", line)

    def _mend(self) -> None:
        """Undo what --break has done."""
        line = self.setting.options.mend
        if not self.broken or line is None:
            return
        code, text = beside.run(line, self.setting.environment, BREAK_SECONDS)
        if code != 0:
            self.problem = f"--mend failed with exit code {code}" + (f": {text.splitlines()[-1]}" if text else "")

    def _kill_child(self) -> None:
        assert self.observer is not None
        self.observer.look(at_once=True)
        child = _pick(self.observer.alive(), random.Random(self.setting.options.seed + self.planned.number))
        if child is None:
            self.skipped = "the agent has no child"
            return
        os.kill(child.process.pid, signal.SIGKILL)
        self._event("kill", f"KILL to {child.name}", pid=child.inner_pid)
        self._wait_until(time.monotonic() + AFTER_THE_CHILD)

    def _stop(self) -> None:
        """Send what the scenario sends."""
        if self.container.exit_code() is not None:
            if self.way.before is Before.NOTHING:
                raise NotUp(self._ended_early("before the stop request"))
            self.requested = time.monotonic()  # it has ended with what it depends on, and restarts: a way to do it
            return
        if self.way.before in (Before.NOTHING, Before.STOP_READING):
            self._check_work()
        self._step(0)  # what the agent has printed up to now was not printed after the request
        if self.way.to_all and self.observer is not None:
            self.observer.look(at_once=True)
            for seen in self.observer.alive():
                _send(seen.process, TERM)
        began = time.monotonic()
        for after, number in self.way.signals:
            self._wait_until(began + after, or_end=True)
            if self.container.exit_code() is None:
                self._request(number)
        if len(self.way.signals) == 1 and TERM not in self.sent:
            self._see_whether_it_stops()
        if self.way.before is Before.TAKE_MEMORY:
            assert self.balloon is not None
            self.balloon.take()
            self._event("note", "no memory is left")

    def _request(self, number: int) -> None:
        self.container.signal(number)
        self.sent.add(number)
        if self.requested is None:
            self.requested = time.monotonic()
        to = "every process" if self.way.to_all else "agent-init"
        self._event("request", f"{signals.name_of(number)} to {to}")

    def _see_whether_it_stops(self) -> None:
        """An agent may handle HUP, as a request to reload (--stop-on may say so of INT): then TERM comes after it."""
        end = time.monotonic() + DECIDED_WITHIN
        while not self._record("stop-requested") and self.container.exit_code() is None:
            if time.monotonic() > end:
                self.goes_on = True
                self._event("note", "no stop was requested by that: the agent goes on")
                self._let_it_reload()
                if self.container.exit_code() is None:
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
        while (now := time.monotonic()) < end and self.container.exit_code() is None:
            if self.work is not None and self.work.exit_code() is None:
                calm_since = now
            if now - max(calm_since, self.signs.active_at, self.observer.changed_at) >= up.QUIET_SECONDS:
                return
            self._step()

    def _await_end(self) -> None:
        """Wait until agent-init has ended, but not for ever."""
        assert self.requested is not None
        grace = self.grace if self.grace is not None else WITHOUT_DEADLINE
        end = self.requested + grace + PATIENCE
        reader_back = time.monotonic() + min(MAX_READER_STOPS, grace / 3)
        reading = self.way.before is not Before.STOP_READING
        while self.container.exit_code() is None:
            self._step()
            now = time.monotonic()
            if not reading and now >= reader_back:
                reading = True
                self.streams.resume(self.container.stdout)
                self._event("note", "stdout is read again")
            if now > end:
                self.given_up = True
                self._event("kill", "the rehearsal's patience is over")
                break
        self.ended = time.monotonic()
        if self.observer is not None:
            self.observer.look(at_once=True)
        self.exit_code = self.container.exit_code()
        self._step(0)
        self._event("end", f"exit code {self.exit_code}" if self.exit_code is not None else "killed", self.ended)

    def _end_work(self) -> None:
        """Wait for the end of the work, for so long as it may take."""
        if self.work is None:
            return
        end = time.monotonic() + self.setting.options.work_timeout
        while (code := self.work.exit_code()) is None and time.monotonic() < end:
            self._step()
        if self.work_was_over:
            self._event("note", WORK_WAS_OVER)
            return
        self.work_code, self.work_cut = code, code is None
        self._event("work-end", "the work had not ended, and was killed" if code is None else f"exit code {code}")

    # --- What comes in. -------------------------------------------------------------------------------------------

    def _step(self, seconds: float = TICK) -> None:
        """Let a little time pass, and take in what comes. Raises Cancelled."""
        if self.setting.cancelled.is_set():
            raise Cancelled
        self.streams.read(seconds)
        if self.observer is not None:
            self.observer.look()

    def _wait_until(self, at: float, *, or_end: bool = False) -> None:
        while (left := at - time.monotonic()) > 0 and not (or_end and self.container.exit_code() is not None):
            self._step(min(TICK, left))

    def _on_line(self, line: Line) -> None:
        if line.stream == "work":
            self.work_begun = self.work_begun or (self.setting.options.work_up or "") in line.text
            self._work_log.write(f"{self._seconds(line.at):9.3f} {line.text}\n")
            return
        rest, record = records.split(line) if line.stream == "err" else (line, None)
        if record is not None:
            self._on_record(record)
        if rest is not None:
            self.lines.append(rest)
            if self.up_at is None:
                self.signs.texts.append((rest.at, rest.text))
            self.signs.active_at = rest.at
            self._output.write(f"{self._seconds(rest.at):9.3f} {rest.stream} {rest.text}\n")

    def _on_record(self, record: Record) -> None:
        self.records.append(record)
        self._log.write(json.dumps(record.fields) + "\n")
        if record.event == "started":
            grace = record.fields.get("grace")
            self.grace = float(grace) if isinstance(grace, int | float) else None
        elif record.event == "ready":
            self.signs.ready_at = record.at
        elif record.event == "interrupted":
            self.sent.add(INT)
        if kind := EVENT_KINDS.get(record.event):
            self._event(kind, record.message, record.at)

    def _event(self, kind: str, text: str, at: float | None = None, pid: int | None = None) -> None:
        event = Event(self._seconds(time.monotonic() if at is None else at), kind, text, pid)
        self.events.append(event)
        self._log.write(json.dumps(dataclasses.asdict(event)) + "\n")

    def _seconds(self, at: float) -> float:
        return round(max(0.0, at - self.started), 3)

    def _record(self, event: str) -> Record | None:
        return next((record for record in self.records if record.event == event), None)

    # --- What comes out. ------------------------------------------------------------------------------------------

    def _result(self) -> Run:
        facts = Facts(
            way=self.way,
            started=self.started,
            requested=self.requested,
            ended=self.ended,
            exit_code=self.exit_code,
            lines=tuple(self.lines),
            records=tuple(self.records),
            sent=frozenset(self.sent),
            work_code=self.work_code,
            work_cut=self.work_cut,
            given_up=self.given_up,
            skipped=self.skipped,
            problem=self.problem,
            goes_on=self.goes_on,
        )
        judged = judge(facts)

        def seconds(at: float | None) -> float | None:
            return None if at is None else self._seconds(at)

        return Run(
            scenario=self.way.scenario,
            number=self.planned.number,
            mode=self.setting.mode,
            verdict=judged.verdict,
            reasons=judged.reasons,
            up_after=seconds(self.up_at),
            request_at=seconds(self.requested),
            end_at=seconds(self.ended),
            exit_code=self.exit_code,
            killed=judged.killed,
            work_kept=judged.work_kept,
            left_over=judged.left_over,
            held_up_by=judged.held_up_by,
            broken_lines=judged.broken_lines,
            events=tuple(sorted(self.events, key=lambda event: event.seconds)),
            lives=self.lives,
            folder=self.folder,
        )


def _pick(alive: Sequence[Seen], chance: random.Random) -> Seen | None:
    """Return a child of the agent that may be killed: a worker rather than the agent behind a wrapper."""
    by_parent: dict[int, list[Seen]] = {}
    for seen in alive:
        by_parent.setdefault(seen.process.parent, []).append(seen)
    pids = {seen.process.pid for seen in alive}
    main = next((seen for seen in alive if seen.process.parent not in pids), None)
    while main is not None:
        children = by_parent.get(main.process.pid, [])
        if len(children) != 1 or not names.is_wrapper(main.process):
            found = [child for child in children if child.name != "resource tracker"]
            return chance.choice(found) if found else None
        main = children[0]
    return None


def _send(process: procfs.Process, number: int) -> None:
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        pass

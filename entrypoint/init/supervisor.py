"""Process 1 while the agent runs: turns what happens into events for `lifecycle`, and has its actions carried out.

Read `_catch_up` for what happens when process 1 wakes up. Nothing ends agent-init but the agent's own exit: an error is
logged and the loop goes on. What could not be done for want of memory is tried again.

    lifecycle       decides                       execution     carries out what it decides
    delivery        sends signals                 narrator      logs
    notify_socket   receives from the agent       stall_report  has reports made
    job_control     has the terminal              faults        logs what fails in process 1 itself
"""

import posix
import sys

from .. import notify, signals
from ..units import INFINITY
from . import (
    cgroup,
    control_socket,
    cpu_limit,
    execution,
    exit_status,
    fast_path,
    faults,
    history,
    job_control,
    later,
    main_process,
    narrator,
    notify_socket,
    procfs,
    request_origin,
    signalfd,
    stall_report,
)
from .actions import StopSuccessor
from .console import TRACE, WARNING, Console
from .lifecycle import RUNNING, STOPPING, Lifecycle
from .loop import Loop
from .spare_memory import NO_MEMORY, ensure_two_numbers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from typing import Any

    from ..parsed import Settings
    from . import control_answers, helpers, http_server, successor
    from .agent_environment import AgentEnvironment
    from .fallback import Fallback
    from .loop import Timer
    from .stop_plan import StopPlan
else:
    control_answers, helpers, successor = map(later.Module, ("init.control_answers", "init.helpers", "init.successor"))

MAX_OVERDUE, MAX_UNREAD = 0.2, 1.0  # seconds that a step of the stop may be late, and that signals may wait
MAX_CLOCK_FAILURES = 100  # in a row; the loop tries a hundred times a second
MAX_REAPED_AT_ONCE = 500  # children; then the clock and the signals have their turn


class Supervisor:
    """One agent, from just after its exec to the exit code."""

    _timer: "Timer | None"

    def __init__(
        self,
        settings: "Settings",
        plan: "StopPlan",
        source: signalfd.SignalFd | signalfd.WakeupFd,
        agent: int,
        environment: "AgentEnvironment | None",
        *,
        package: str,
        started: float,
        log_fd: int | None,
        previous_foreground: int | None,
        problems: "Sequence[str]",
        older: "Collection[tuple[int, int]]" = (),
    ) -> None:
        """`agent` is its pid, `started` when it was (monotonic clock), `log_fd` the descriptor to log to, if any.

        `environment`: what the agent's environment refers to, such as the notify socket. `package`: the directory of
        `entrypoint`. `previous_foreground`: the process group that had the terminal before the agent got it, None if
        it did not. `problems`: what went wrong before this, to be logged. `older`: the processes that were below us
        before the agent.
        """
        self.settings, self.source, self.environment, self.plan = settings, source, environment, plan
        self.console = Console(log_fd, level=settings.log_level, json=settings.log_format == "json")
        self.history = self.console.history = history.History()
        self.faults = faults.Faults(self.console)
        self.loop = Loop(report=self.faults.log, recover=self._catch_up)
        self.agent = main_process.MainProcess(agent, settings.command[0])
        plan.allow_report(cpu_limit.cpus())
        self.lifecycle, self.memory = Lifecycle(settings, plan, started), cgroup.Memory()
        self.helper_pids: set[int] = set()  # our own processes that are not the agent's: reporters, the HTTP server
        self.reporter = self._make_reporter(package, started)
        parts = self.agent, self.lifecycle, self.loop, self.faults, self.console, self.reporter
        self.execution = execution.Execution(settings, *parts, older, self._recipients_exited)
        self.descendants, self.narrator = self.execution.descendants, self.execution.narrator
        self.delivery, self._handled = self.execution.delivery, self.execution.handled
        self.job_control = job_control.JobControl(self.agent, self.delivery, self.console, previous_foreground)
        path = self.agent, self.lifecycle, self.console, self.delivery, self.execution.counters
        self._fast_path = fast_path.FastPath(settings, *path)
        self._inbox: list[signalfd.Received] = []  # signals that came and are not handled yet
        self._unread = False  # signals may be there that are not handled, as an attempt to has failed
        self._of_a_child = self._resume_receiving, self._reap, self._look_at_the_clock, self._arm
        self._parts = self.execution.carry_out, self._read, *self._of_a_child
        # Since when something has failed, the agent's exit waits to be handled, and signals do.
        self._failing_since = self._exit_waits_since = self._unread_since = INFINITY
        self._clock_failures, self._timer = 0, None
        self._find_zombie: Callable[[], tuple[int, int | None, str]] | None = None
        if settings.warn_reaped and hasattr(posix, "waitid"):  # macOS has none before Python 3.13
            from . import zombies

            self._find_zombie = zombies.find
        self.faults.guarded(self.narrator.log_start, self.agent, plan, problems)
        self.loop.add_reader(source.fd, self._signals_waiting)
        self._watch_stdin()
        self.notify_socket = self._open_notify_socket()
        self.control = self._open_control()
        self.http: http_server.HttpServer | None = None
        self.faults.guarded(self._start_http_server, package)  # the agent runs without it

    def _make_reporter(self, package: str, started: float) -> stall_report.Reporter:
        return stall_report.Reporter(
            self.loop,
            self.memory,
            package,
            self.helper_pids,
            since=started,
            responders=self.environment.responders if self.environment is not None else "",
            stacks=self.settings.stacks,
            arguments=self.settings.log_level >= TRACE,
            on_line=lambda line: self.narrator.report_line(line),
            on_complete=self._report_complete,
        )

    def _watch_stdin(self) -> None:
        if signals.EOF in self.settings.stop_on:
            from . import stdin_watch

            stdin_watch.start(self.settings, self.loop, self._inbox, self._catch_up)

    def _open_notify_socket(self) -> notify_socket.NotifySocket | None:
        if self.environment is None or self.environment.socket is None:
            return None
        return notify_socket.NotifySocket(
            self.environment.socket,
            self.environment.parent_socket,
            self.settings.notify_access,
            self.console,
            self.loop,
            self._message_waiting,
        )

    def _open_control(self) -> control_socket.ControlSocket | None:
        if not self.settings.control or sys.platform != "linux":
            return None
        make = control_socket.ControlSocket
        made = control_socket.open_or_log(self.console, lambda: make(self.loop, self.history, self.agent, self._answer))
        self.execution.is_awaited = made.is_awaited if made is not None else None
        return made

    def _start_http_server(self, package: str) -> None:
        if self.settings.http is None:
            return
        from . import http_server

        self.http = http_server.HttpServer(self, package)
        self.execution.on_event = self.http.update
        self.http.start()

    def _answer(self, client: control_socket.Client, fields: dict[str, str]) -> list[bytes]:
        """Answer a client of the control socket. What it has requested may have a timer."""
        try:
            return control_answers.answer(self, client, fields)
        finally:
            self._arm()

    def run(self) -> int | None:
        """Run until nothing is left, and return the exit code; None if we cannot go on: see `leave_to`."""
        self.faults.guarded(self.source.begin)
        self.loop.run_forever()
        if self.execution.exit_code is not None:
            self.clean_up()
        return self.execution.exit_code

    def clean_up(self) -> None:
        """Give the terminal back, and remove what was made for the agent. Does not raise."""
        self._for_http_server("end")
        self.faults.guarded(self.faults.log_counts)
        self.faults.guarded(self.job_control.give_back)
        if self.environment is not None:
            self.faults.guarded(self.environment.cleanup)
        if self.control is not None:
            self.faults.guarded(self.control.finish)

    def leave_to(self, fallback: "Fallback") -> None:
        """Leave the agent, the deadline, and the signals that are not handled yet to the fallback."""
        fallback.reserve.release()
        self._for_http_server("end")
        fallback.pid, fallback.status = self.agent.pid, self.agent.status
        fallback.kill_at = self.lifecycle.kill_due
        fallback.stop_sent = self.lifecycle.last_sent != 0
        self.faults.guarded(fallback.block)
        self.faults.guarded(self.source.read, self._inbox)  # where signals were not blocked
        fallback.inbox = [received.number for received in self._inbox]
        step, forwarded = self.execution.owed()
        if self.lifecycle.state == STOPPING and (step or not fallback.stop_sent):
            fallback.request_stop(step or self.lifecycle.next_signal or fallback.stop_signal)
        for number in forwarded:  # last: what fails is repeated from the beginning
            self.faults.guarded(self.delivery.send_agent, number)

    # --- What happens. ----------------------------------------------------------------------------------------------

    def _catch_up(self, parts: "Sequence[Callable[[], object]]" = ()) -> None:
        """Handle everything that is there: signals, exits, timers. Where that fails, the loop calls this again soon.

        `parts`: those of it that are due, if not all.

        Each part has its turn, whatever has become of the others: one that fails for ever keeps no deadline from being
        kept, and no child from being reaped. Raises the first error.
        """
        failure: BaseException | None = None
        for part in parts or self._parts:
            try:
                part()
            except BaseException as error:
                failure = failure or error
            if self.execution.exit_code is not None and failure is None:
                return  # nothing is left to do
        if failure is None:
            self._failing_since = self._exit_waits_since = self._unread_since = INFINITY
            self._clock_failures = 0
            self.faults.replenish()
            return
        if self._must_give_up():
            self.loop.stop()
        raise failure

    def _must_give_up(self) -> bool:
        """Whether something cannot wait longer: a step of the stop, the end of the agent, signals."""
        try:
            now = self.loop.time()
            self._failing_since = min(self._failing_since, now)
            exit_waits = self.agent.has_exited and self.lifecycle.ending is None
            self._exit_waits_since = min(self._exit_waits_since, now) if exit_waits else INFINITY
            self._unread_since = min(self._unread_since, now) if self._unread else INFINITY
            due = max(self._failing_since, self.lifecycle.due) if self.lifecycle.state != RUNNING else INFINITY
            must = now >= min(due + MAX_OVERDUE, self._exit_waits_since + MAX_OVERDUE, self._unread_since + MAX_UNREAD)
        except NO_MEMORY:  # for a number
            self._clock_failures += 1
            return self._clock_failures >= MAX_CLOCK_FAILURES
        self._clock_failures = 0
        return must

    def _read(self) -> None:
        """Handle the signals that have come. A child's exit may have been merged with another's: see `_reap`."""
        self._handled.clear()
        self._unread = True
        if not self._inbox or self.source.may_have_more:  # else what has come since wakes us up again
            self.source.read(self._inbox)
        while self._inbox:
            received = self._inbox[0]
            if not self._is_ours(received) and not self._is_sent_at_once(received.number):
                try:
                    sender, origin = narrator.Sender(received), request_origin.of(received)
                    self.execution.note(self.lifecycle.signal, received.number, sender, origin)
                except NO_MEMORY:
                    raise  # it stays in the inbox
                except Exception as error:
                    self.faults.log(error)
            del self._inbox[0]
            self.execution.carry_out()
        self._unread = False

    def _resume_receiving(self) -> None:
        """The notify socket's thread, where it has one, wakes us by a SIGCHLD when it is done."""
        if self.notify_socket is not None:
            self.notify_socket.resume()

    def _is_sent_at_once(self, number: int) -> bool:
        """Send a signal by the fast path; return whether that was possible. Raises MemoryError if it is not sent."""
        try:
            return self._fast_path.send(number, self._handled)
        except NO_MEMORY:
            raise
        except Exception as error:  # there is another way
            self.faults.log(error)
            return False

    def _look_at_the_clock(self) -> None:
        """Do what is due; after the signals and exits, which may have come in time where we wake late."""
        if self.lifecycle.due <= self.loop.time():
            self.faults.guarded(self._receive)  # a sign of life, too
            self.execution.event(self.lifecycle.tick)

    def _is_ours(self, received: signalfd.Received) -> bool:
        """Whether a signal is not for the agent: it concerns a child, our own job control, or a failed write of ours.

        The kernel sends PIPE with EPIPE and XFSZ with EFBIG (write(2)).
        """
        number = received.number
        return (
            number == signals.CHLD
            or (number == signals.CONT and self.job_control.resume())
            or (number == signals.TSTP and self.job_control.suspend(by_terminal=received.by_kernel))
            or (number in signals.OF_WRITES and received.pid == posix.getpid())
        )

    def _signals_waiting(self) -> None:
        """Signals have come. If all of them go to the agent at once, nothing else is due; else see `_catch_up`.

        A child's exit is a signal, too, and the loop calls what a timer is set for.
        """
        if self._inbox or self.execution.to_do:
            self._catch_up()
            return
        number = self.source.peek()
        if number == signals.CHLD:  # nothing but that has come: in most lives this is the end, and the platform waits
            self.source.size = 0
            self._catch_up(self._of_a_child)
            return
        if not self._fast_path.send_next(number, self.source):
            self._unread = True
            self.source.read(self._inbox)
            self._handled.clear()
            if not self._fast_path.send_all(self._inbox, self._handled):
                self._catch_up()
                return
            self._unread = False
        self._for_http_server("note_counts")
        self.faults.replenish()

    def _for_http_server(self, method: str, *arguments: object) -> None:
        if self.http is not None:
            self.faults.guarded(getattr(self.http, method), *arguments)

    def _message_waiting(self) -> None:
        self._receive()
        self._arm()

    def _receive(self) -> None:
        """Handle what came through the notify socket."""
        if self.notify_socket is not None:
            self.notify_socket.receive(self.agent, self._handle_message)

    def _handle_message(self, fields: dict[str, str], sender: procfs.Process) -> None:
        if (text := fields.get("MAINPID", "")).isascii() and text.isdigit() and len(text) < 10:
            self._name_successor(int(text))
        self.delivery.note_handlers(fields, sender)
        if notify.LOOP in fields:
            self.narrator.log_loop(fields[notify.LOOP], sender)
        by_agent = sender.pid == self.agent.pid
        if "READY" in fields or "WATCHDOG" in fields:
            self.agent.last_sender = None if by_agent else sender
        self.execution.event(lambda now: self.lifecycle.notified(now, fields, str(sender), by_agent=by_agent))

    def _name_successor(self, pid: int) -> None:
        try:
            named = self.agent.name_successor(pid, self.helper_pids)
        except ValueError as error:
            self.console.log(WARNING, "not-main", str(error), pid=pid)
            return
        if named is not None:
            self.narrator.log_named(named)

    def _arm(self) -> None:
        """Have the loop come back when the next timer is due."""
        due = self.lifecycle.due
        if self._timer is not None and self._timer.when != due:
            self.loop.cancel(self._timer)
            self._timer = None
        if self._timer is None and due < INFINITY:
            self._timer = self.loop.call_at(due, self._timer_due)

    def _timer_due(self) -> None:
        self._timer = None
        self._catch_up()

    # --- Exits. -----------------------------------------------------------------------------------------------------

    def _reap(self) -> None:
        """Reap every child that has exited: SIGCHLDs coalesce, so call waitpid(2) until nothing is left."""
        alone = False
        for _ in range(MAX_REAPED_AT_ONCE):
            try:
                pid, status, name = self._wait()
            except ChildProcessError:
                alone = True
                break
            if pid == 0:
                alone = bool(self.helper_pids) and helpers.are_alone(self.helper_pids, self.agent, self.descendants)
                break
            if posix.WIFSTOPPED(status):
                if pid == self.agent.pid:
                    self.faults.guarded(self.job_control.agent_stopped, posix.WSTOPSIG(status))
            elif pid in self.helper_pids:
                self.helper_pids.discard(pid)
                self.reporter.pids.discard(pid)
                self._for_http_server("exited", pid, status)
            elif pid != self.agent.pid:
                self.faults.guarded(self._orphan_reaped, pid, name, status)
        else:
            self.loop.call_at(self.loop.time(), self._catch_up)  # there will be more
        if self.lifecycle.ending is None and (self.agent.has_exited or alone):
            self.faults.guarded(self._receive)  # its last messages
            if not self._hand_over():
                self._agent_ended(alone=alone)
        elif alone:
            self.execution.event(self.lifecycle.nothing_left)
        else:
            self.faults.guarded(self.execution.look_at_older)
            self.execution.carry_out()

    def _wait(self) -> tuple[int, int, str]:
        """Return a child that has exited or stopped: pid, wait status and, if reaped orphans are logged, its name."""
        target, known, name = (-1, None, "") if self._find_zombie is None else self._find_zombie()
        if target == 0:
            return 0, 0, ""
        if target == self.agent.pid and known is not None:
            self.agent.status = known
        ensure_two_numbers()
        pid, status = posix.waitpid(target, posix.WNOHANG | posix.WUNTRACED)
        if pid == self.agent.pid and not posix.WIFSTOPPED(status):
            self.agent.status = status
        return pid, status, name

    def _agent_ended(self, *, alone: bool) -> None:
        ending = exit_status.Ending(self.agent.status, self.memory, kill_forwarded=self.delivery.kill_forwarded)
        self.faults.guarded(self.reporter.end)
        if self.lifecycle.platform_has_signalled(ending):
            self.execution.event(self.lifecycle.platform_stops)
        about = (
            {}
            if alone
            else {**self._about_leftovers(ending.code), "only_helpers": self.execution.are_only_helpers_left()}
        )
        self.execution.event(lambda now: self.lifecycle.agent_ended(now, ending, alone=alone, **about))

    def _about_leftovers(self, code: int) -> "dict[str, Any]":
        """Return what the end of the agent depends on: see `Lifecycle.agent_ended`."""
        try:
            if self.execution.only_older_left():
                return {"only_older": True}
            if self.lifecycle.state == STOPPING and self.lifecycle.last_sent:
                delivery = self.delivery
                facts = {"works_on": delivery.agent_left(), "has_had_it": delivery.work_had_it}
                return {**facts, "is_wrapper": delivery.was_wrapper}
            if code == 0 and self.lifecycle.state == RUNNING:
                left = self.descendants.listable() or ()
                return {"successor": successor.find(self.agent, self.settings.command, left)}
        except Exception as error:
            self.faults.log(error)
        return {}

    def _hand_over(self) -> bool:
        """The agent has exited. Return whether the main process that it named is the agent now."""
        if self.agent.named is None:
            return False
        if self.lifecycle.state == STOPPING and self.lifecycle.last_sent:
            # Before it is the agent: a failure later would lose this.
            self.execution.to_do.append(StopSuccessor(self.lifecycle.last_sent))
        successor = self.agent.hand_over()
        if successor is None:
            return False
        self.faults.guarded(self.narrator.log_handed_over, successor)
        self.execution.carry_out()
        return True

    def _orphan_reaped(self, pid: int, name: str, status: int) -> None:
        self.execution.counters.reaped += 1
        self._for_http_server("note_counts")
        if self.delivery.awaits_exits:
            self.delivery.departures.statuses[pid] = status
            self.execution.note(self.lifecycle.leftover_ended)
        self.narrator.log_reaped(pid, name, status)

    def _recipients_exited(self) -> None:
        """Those that got the stop signal in place of others have exited."""
        self.execution.note(self.lifecycle.recipients_ended)
        self._arm()

    def _report_complete(self) -> None:
        self.narrator.report_is_complete()
        self.execution.note(self.lifecycle.reported)
        self.loop.call_at(self.loop.time(), self._catch_up)

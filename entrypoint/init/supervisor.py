"""Process 1 while the agent runs: turns what happens into events for `lifecycle`, and its actions into system calls.

Read `_catch_up` for what happens when process 1 wakes up, `_do` for what an action does. Nothing ends agent-init but
the agent's own exit: an error is logged and the loop goes on. What could not be done for want of memory is tried again.

    lifecycle       decides                       delivery      sends signals to the right processes
    narrator        logs                          job_control   has the terminal
    notify_socket   receives from the agent       stall_report  has reports made
"""

import os

from .. import signals
from ..units import INFINITY
from . import (
    cgroup,
    delivery,
    exit_status,
    exit_watch,
    faults,
    job_control,
    main_process,
    narrator,
    notify_socket,
    older_processes,
    orphans,
    procfs,
    request_origin,
    signalfd,
    stall_report,
    stdin_watch,
    stop_plan,
    successor,
    tree,
)
from .console import DEBUG, TRACE, WARNING, Console
from .lifecycle import (
    LINGERING,
    RUNNING,
    STOPPING,
    Action,
    Exit,
    Forward,
    KillAll,
    Lifecycle,
    Log,
    LookAtWork,
    LookAtWrapper,
    LookForOrphans,
    MakeStallReport,
    NoteAllSignalled,
    Signalling,
    Stop,
    StopHeldBack,
    StopInterrupted,
    StopLeftovers,
    TakeCpuSnapshot,
)
from .loop import Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from typing import Any

    from ..settings import Settings
    from .agent_environment import AgentEnvironment
    from .fallback import Fallback
    from .loop import Timer
    from .stop_plan import StopPlan

MAX_RETRIES = 20  # of an action that fails for want of memory
MAX_OVERDUE, MAX_UNREAD = 0.2, 1.0  # seconds that a step of the stop may be late, and that signals may wait
MAX_REAPED_AT_ONCE = 500  # children; then the clock and the signals have their turn


class Supervisor:
    """One agent, from just after its exec to the exit code. Carries out what `lifecycle` decides."""

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
        self.settings, self.source, self.environment = settings, source, environment
        self.console = Console(log_fd, level=settings.log_level, json=settings.log_format == "json")
        self.faults = faults.Faults(self.console)
        self.loop = Loop(report=self.faults.log, recover=self._catch_up)
        self.agent = main_process.MainProcess(agent, settings.command[0])
        self.lifecycle = Lifecycle(settings, plan, started)
        self.memory = cgroup.Memory()
        self.reporter = self._make_reporter(package, started)
        self.descendants = tree.Descendants(self.reporter.pids)
        self.narrator = narrator.Narrator(self.console, settings, self.descendants)
        self.delivery = delivery.Delivery(settings, self.agent, self.descendants, self.console)
        self.job_control = job_control.JobControl(self.agent, self.delivery, self.console, previous_foreground)
        self.orphans = orphans.OrphanStopper(
            settings, self.agent, self.reporter.pids, older, self.delivery, self.narrator
        )
        self.older = older_processes.OlderProcesses(older, self.descendants, stop_plan.stop_signal(settings))
        self.exit_watch = exit_watch.ExitWatch(self.loop, self._recipients_exited)
        self.exit_code: int | None = None
        self._inbox: list[signalfd.Received] = []  # signals that came and are not handled yet
        self._to_do: list[Action] = []  # what follows from them and is not done yet
        self._retries = 0  # for want of memory, since the last time when nothing was left to do
        self._retried: Action | None = None
        self._unread = False  # signals may be there that are not handled, as an attempt to has failed
        self._parts = (self._carry_out, self._read, self._reap, self._look_at_the_clock, self._arm)
        self._failing_since = INFINITY
        self._handled: dict[int, bool] = {}  # whether a signal is handled: one look serves all that came together
        self._timer: Timer | None = None
        self.faults.guarded(self.narrator.log_start, self.agent, plan, problems)
        self.loop.add_reader(source.fd, self._catch_up)
        stdin_watch.start(settings, self.loop, self._inbox, self._catch_up)
        self.notify_socket = self._open_notify_socket()

    def _make_reporter(self, package: str, started: float) -> stall_report.Reporter:
        return stall_report.Reporter(
            self.loop,
            self.memory,
            package,
            since=started,
            responders=self.environment.responders if self.environment is not None else "",
            stacks=self.settings.stacks,
            arguments=self.settings.log_level >= TRACE,
            on_line=lambda line: self.narrator.report_line(line),
            on_complete=self._report_complete,
        )

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

    def run(self) -> int | None:
        """Run until nothing is left, and return the exit code; None if we cannot go on: see `leave_to`."""
        self.faults.guarded(self.source.begin)
        self.loop.run_forever()
        if self.exit_code is not None:
            self.clean_up()
        return self.exit_code

    def clean_up(self) -> None:
        """Give the terminal back, and remove what was made for the agent. Does not raise."""
        self.faults.guarded(self.faults.log_counts)
        self.faults.guarded(self.job_control.give_back)
        if self.environment is not None:
            self.faults.guarded(self.environment.cleanup)

    def leave_to(self, fallback: "Fallback") -> None:
        """Leave the agent, the deadline, and the signals that are not handled yet to the fallback."""
        fallback.reserve.release()
        fallback.pid, fallback.status = self.agent.pid, self.agent.status
        fallback.kill_at, fallback.stop_sent = self.lifecycle.kill_due, self.lifecycle.last_sent != 0
        self.faults.guarded(fallback.block)
        self.faults.guarded(self.source.read, self._inbox)  # where signals were not blocked
        fallback.inbox = [received.number for received in self._inbox]
        if self.lifecycle.state == STOPPING and not fallback.stop_sent:
            fallback.request_stop(fallback.stop_signal)

    # --- What happens. ----------------------------------------------------------------------------------------------

    def _catch_up(self) -> None:
        """Handle everything that is there: signals, exits, timers. Where that fails, the loop calls this again soon.

        Each part has its turn, whatever has become of the others: one that fails for ever keeps no deadline from being
        kept, and no child from being reaped. Raises the first error.
        """
        failure: BaseException | None = None
        for part in self._parts:
            try:
                part()
            except BaseException as error:
                failure = failure or error
        if failure is None:
            self._failing_since = INFINITY
            self.faults.replenish()
            return
        self._failing_since = min(self._failing_since, self.loop.time())
        if self._must_give_up(self.loop.time()):
            self.loop.stop()
        raise failure

    def _must_give_up(self, now: float) -> bool:
        """Whether something cannot wait longer: a step of the stop, the end of the agent, signals."""
        overdue = self.lifecycle.state != RUNNING and now >= self.lifecycle.due + MAX_OVERDUE
        exit_unhandled = self.agent.has_exited and self.lifecycle.ending is None
        failing_for = now - self._failing_since
        return failing_for >= (MAX_OVERDUE if overdue or exit_unhandled else MAX_UNREAD if self._unread else INFINITY)

    def _read(self) -> None:
        """Handle the signals that have come. A child's exit may have been merged with another's: see `_reap`."""
        self._handled.clear()
        self._unread = True
        self.source.read(self._inbox)
        while self._inbox:
            received = self._inbox[0]
            if not self._is_ours(received) and not self._send_at_once(received.number):
                try:
                    sender, origin = narrator.Sender(received), request_origin.of(received)
                    self._note(self.lifecycle.signal, received.number, sender, origin)
                except MemoryError:
                    raise  # it stays in the inbox
                except Exception as error:
                    self.faults.log(error)
            del self._inbox[0]
            self._carry_out()
        self._unread = False
        if self.notify_socket is not None:
            self.notify_socket.resume()

    def _look_at_the_clock(self) -> None:
        """Do what is due; after the signals and exits, which may have come in time where we wake late."""
        if self.lifecycle.due <= self.loop.time():
            self.faults.guarded(self._receive)  # a sign of life, too
            self._event(self.lifecycle.tick)

    def _is_ours(self, received: signalfd.Received) -> bool:
        """Whether a signal is not for the agent: it concerns a child, our own job control, or a failed write of ours.

        The kernel sends PIPE with EPIPE and XFSZ with EFBIG (write(2)).
        """
        number = received.number
        if number == signals.CONT:
            self.job_control.brought_to_foreground()
        return (
            number == signals.CHLD
            or (number == signals.TSTP and self.job_control.suspend())
            or (number in signals.OF_WRITES and received.pid == os.getpid())
        )

    def _send_at_once(self, number: int) -> bool:
        """The fast path, for a signal that the state machine would forward to an agent that handles it, silently."""
        if number not in self.lifecycle.sent_at_once or self.console.level >= DEBUG or number in procfs.SHELL_HABITS:
            return False
        if self.agent.has_exited or self.agent.named is not None:
            return False
        if number not in self._handled and self.agent.dispositions.handles_or_ignores(number):
            if self.settings.target == "auto" and self.delivery.may_be_looked_through():
                return False
            self._handled[number] = True
        if self._handled.get(number):
            self.delivery.send_agent(number)
            return True
        return False

    def _event(self, event: "Callable[..., list[Action]]", *facts: object) -> None:
        """Pass an event to the state machine and do what follows."""
        self._note(event, *facts)
        self._carry_out()

    def _note(self, event: "Callable[..., list[Action]]", *facts: object) -> None:
        """Pass an event to the state machine; what follows is done later. If it fails half-way, it has not happened."""
        before = self.lifecycle.snapshot()
        try:
            self._to_do += event(self.loop.time(), *facts)
        except MemoryError:
            self.lifecycle.restore(before)
            raise

    def _carry_out(self) -> None:
        """Do what is to be done, in order. For want of memory a line may be lost, but nothing else: see Loop."""
        self.descendants.forget()
        while self._to_do:
            try:
                self._do(self._to_do[0])
            except MemoryError as error:
                if self._is_worth_a_retry(self._to_do[0]):
                    raise
                self.faults.log(error)
            except Exception as error:
                self.faults.log(error)
            del self._to_do[0]
        self._retries, self._retried = 0, None
        self.descendants.forget()

    def _is_worth_a_retry(self, action: Action) -> bool:
        """Exit always; a signal for a while, in which it holds up those after it. KillAll comes again by itself."""
        self._retries += 1
        self._retried = action
        return isinstance(action, Exit) or (isinstance(action, Signalling | Forward) and self._retries <= MAX_RETRIES)

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
        by_agent = sender.pid == self.agent.pid
        if "READY" in fields or "WATCHDOG" in fields:
            self.agent.last_sender = None if by_agent else sender
        self._event(lambda now: self.lifecycle.notified(now, fields, str(sender), by_agent=by_agent))

    def _name_successor(self, pid: int) -> None:
        try:
            named = self.agent.name_successor(pid, self.reporter.pids)
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
                break
            if os.WIFSTOPPED(status):
                if pid == self.agent.pid:
                    self.faults.guarded(self.job_control.agent_stopped, os.WSTOPSIG(status))
            elif pid in self.reporter.pids:
                self.reporter.pids.discard(pid)
            elif pid != self.agent.pid:
                self.faults.guarded(self._orphan_reaped, pid, name, status)
        else:
            self.loop.call_at(self.loop.time(), self._catch_up)  # there will be more
        if self.lifecycle.ending is None and (self.agent.has_exited or alone):
            self.faults.guarded(self._receive)  # its last messages
            if not self._hand_over():
                self._agent_ended(alone=alone)
        elif alone:
            self._event(self.lifecycle.nothing_left)
        else:
            self.faults.guarded(self._look_at_older)
            self._carry_out()

    def _wait(self) -> tuple[int, int, str]:
        """Return a child that has exited or stopped: pid, wait status and, if reaped orphans are logged, its name."""
        zombie = None
        # Its name can be read as long as it is a zombie. On macOS there is no waitid before Python 3.13.
        if self.settings.warn_reaped and hasattr(os, "waitid"):
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            zombie = procfs.look(found.si_pid) if found else None
        pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
        if pid == self.agent.pid and not os.WIFSTOPPED(status):
            self.agent.status = status
        return pid, status, zombie.name if zombie is not None and zombie.pid == pid else ""

    def _agent_ended(self, *, alone: bool) -> None:
        ending = exit_status.Ending(self.agent.status, self.memory, kill_forwarded=self.delivery.kill_forwarded)
        self.faults.guarded(self.reporter.end)
        if self.lifecycle.platform_has_signalled(ending):
            self.faults.guarded(self.delivery.note_all_signalled)
        if self.reporter.pids:  # children, but none that the agent left behind
            alone = alone or self.descendants.listable() == []
        about = {} if alone else self._about_leftovers(ending.code)
        self._event(lambda now: self.lifecycle.agent_ended(now, ending, alone=alone, **about))

    def _about_leftovers(self, code: int) -> "dict[str, Any]":
        """Return what the end of the agent depends on: see `Lifecycle.agent_ended`."""
        try:
            if self.older.are_not_waited_for():
                return {"only_older": True}
            if self.lifecycle.state == STOPPING and self.lifecycle.last_sent:
                return {"works_on": self.delivery.agent_left()}
            if code == 0 and self.lifecycle.state == RUNNING:
                left = self.descendants.listable() or ()
                return {"successor": successor.find(self.agent, self.settings.command, left)}
        except Exception as error:
            self.faults.log(error)
        return {}

    def _look_at_older(self) -> None:
        if self.lifecycle.state == LINGERING and self.older.are_not_waited_for():
            self._note(self.lifecycle.older_left)

    def _hand_over(self) -> bool:
        """The agent has exited. Return whether the main process that it named is the agent now."""
        successor = self.agent.hand_over()
        if successor is None:
            return False
        if self.lifecycle.state == STOPPING:
            self.delivery.stop_successor(successor, self.lifecycle.last_sent)
        self.narrator.log_handed_over(successor)
        return True

    def _orphan_reaped(self, pid: int, name: str, status: int) -> None:
        if self.delivery.ahead or self.delivery.departures.work:
            self.delivery.departures.statuses[pid] = status
            self._note(self.lifecycle.leftover_ended)
        self.narrator.log_reaped(pid, name, status)

    # --- What is done. ----------------------------------------------------------------------------------------------

    def _do(self, action: Action) -> None:
        if isinstance(action, Forward):
            self._forward(action)
        elif isinstance(action, Stop):
            self._stop(action)
        elif isinstance(action, NoteAllSignalled):
            self.delivery.note_all_signalled()
        elif isinstance(action, StopHeldBack):
            self.exit_watch.stop()
            self.delivery.stop_held_back(action.number)
        elif isinstance(action, StopInterrupted):
            self.delivery.stop_interrupted(action.number)
        elif isinstance(action, LookAtWrapper):
            self._note(self.lifecycle.wrapper_seen, self.delivery.look_at_wrapper())
        elif isinstance(action, LookForOrphans):
            self._note(self.lifecycle.orphans_seen, self.orphans.look(self.loop.time()))
        elif isinstance(action, LookAtWork):
            self._note(self.lifecycle.work_seen, self.delivery.look_at_work())
        elif isinstance(action, StopLeftovers):
            self.delivery.note_stopped(self.orphans.signalled)
            self._stop_leftovers(action.number)
            self.faults.guarded(self._look_at_older)
        elif isinstance(action, KillAll):
            self.faults.guarded(self.reporter.end)
            self.delivery.kill_all()
        elif isinstance(action, TakeCpuSnapshot):
            self.reporter.take_cpu_snapshot(self.descendants.listable() or ())
        elif isinstance(action, MakeStallReport):
            self.reporter.start(self.agent.pid, action.seconds)
        elif isinstance(action, Log):
            self.narrator.agent = "" if self.agent.has_exited else f"{self.agent.name} ({self.agent.pid})"
            if action.event in narrator.ESCALATIONS and not self.lifecycle.hung:
                self.faults.guarded(self._explain)
            self.narrator.log(action)
        else:
            assert isinstance(action, Exit)
            self.exit_code = action.code
            self.loop.stop()

    def _explain(self) -> None:
        """Log once who was left to a process above that handles the stop signal: that explains an escalation."""
        number = stop_plan.stop_signal(self.settings)
        caught, to = self.delivery.left_to_others(number)
        if to:
            self.narrator.log(Log("left-to-others", signal=number, caught=caught, to=to))

    def _forward(self, action: Forward) -> None:
        number = action.number
        to: list[procfs.Process] = []
        handled = False
        if self._handled.get(number) is not False:
            to, handled = self.delivery.forward_recipients(number)
        if not (handled or action.always or number in signals.HARMLESS):
            self._handled[number] = False
            self._note(self.lifecycle.unhandled, number, action.sender, action.origin)
            return
        self.narrator.log(Log("forwarded", signal=number, sender=action.sender, to=to))
        self.delivery.forward(number, to)

    def _stop(self, action: Stop) -> None:
        number, again = action.number, self._retried is action
        self.faults.guarded(self.reporter.end)
        try:
            reached, reason = self.delivery.stop(
                number, adapts=self.lifecycle.adapts, hung=bool(self.lifecycle.hung), retry=again
            )
        except Exception as error:  # whatever is wrong with finding out who else should get it
            if not isinstance(error, MemoryError) or self._retries >= MAX_RETRIES:
                self.delivery.send_agent(number)
            raise
        if enders := self.delivery.enders():
            self.narrator.log(Log("ends-program", wrappers=enders))
        if interrupted := self.delivery.interrupted:
            self._note(self.lifecycle.interrupted)
        if not reached:
            if interrupted:
                self.narrator.log(Log("interrupted", interrupted=interrupted))
            return
        to = [*self.delivery.also_reached, *reached]
        self.narrator.log(Log("looked-through", signal=number, to=to, reason=reason, interrupted=interrupted))
        if self.delivery.all_signalled:
            self.delivery.stop_held_back(number)
        elif self.delivery.held_back:
            self._note(self.lifecycle.held_back)
        if self.delivery.wrapper is not None:
            self.exit_watch.start(reached)

    def _stop_leftovers(self, number: int) -> None:
        delivery = self.delivery
        interrupted = len(delivery.interrupted)
        delivery.stop_leftovers(number)
        if len(delivery.interrupted) > interrupted:
            self._note(self.lifecycle.interrupted)
        if presumed := delivery.newly_presumed:
            delivery.newly_presumed = []
            self.narrator.log(Log("not-signalled", to=presumed))
            self._note(self.lifecycle.stopped_by_wrapper)
        self.exit_watch.stop()
        if watched := delivery.departures.work or delivery.ahead:
            self.exit_watch.start(watched)

    def _recipients_exited(self) -> None:
        """Those that got the stop signal in place of others have exited."""
        self._note(self.lifecycle.recipients_ended)
        self._arm()

    # --- Stall reports. ---------------------------------------------------------------------------------------------

    def _report_complete(self) -> None:
        self.narrator.report_is_complete()
        self._note(self.lifecycle.reported)
        self.loop.call_at(self.loop.time(), self._catch_up)

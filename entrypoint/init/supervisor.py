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
    job_control,
    main_process,
    narrator,
    notify_socket,
    procfs,
    signalfd,
    stall_report,
    stdin_watch,
    stop_plan,
    tree,
)
from .console import DEBUG, INFO, TRACE, WARNING, Console
from .lifecycle import (
    STOPPING,
    Action,
    Exit,
    Forward,
    KillAll,
    Lifecycle,
    Log,
    LookAtWrapper,
    MakeStallReport,
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
    from collections.abc import Callable, Sequence

    from ..settings import Settings
    from .agent_environment import AgentEnvironment
    from .loop import Timer
    from .stop_plan import StopPlan

MAX_RETRIES = 20  # of an action that fails for want of memory
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
    ) -> None:
        """`agent` is its pid, `started` when it was (monotonic clock), `log_fd` the descriptor to log to, if any.

        `environment`: what the agent's environment refers to, such as the notify socket. `package`: the directory of
        `entrypoint`. `previous_foreground`: the process group that had the terminal before the agent got it, None if
        it did not. `problems`: what went wrong before this, to be logged.
        """
        self.settings, self.source, self.environment = settings, source, environment
        self.console = Console(log_fd, level=settings.log_level, json=settings.log_format == "json")
        self.loop = Loop(report=self._log_unexpected, recover=self._catch_up)
        self.agent = main_process.MainProcess(agent, settings.command[0])
        self.lifecycle = Lifecycle(settings, plan, started)
        self.memory = cgroup.Memory()
        self.reporter = self._make_reporter(package, started)
        self.descendants = tree.Descendants(self.reporter.pids)
        self.narrator = narrator.Narrator(self.console, settings, self.descendants)
        self.delivery = delivery.Delivery(settings, self.agent, self.descendants, self.console)
        self.job_control = job_control.JobControl(self.agent, self.delivery, self.console, previous_foreground)
        self.exit_watch = exit_watch.ExitWatch(self.loop, self._recipients_exited)
        self.exit_code: int | None = None
        self._inbox: list[signalfd.Received] = []  # signals that came and are not handled yet
        self._to_do: list[Action] = []  # what follows from them and is not done yet
        self._retries = 0
        self._handled: dict[int, bool] = {}  # whether a signal is handled: one look serves all that came together
        self._timer: Timer | None = None
        self._guarded(self.narrator.log_start, self.agent, plan, problems)
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

    def run(self) -> int:
        """Run until nothing is left; return the exit code."""
        self.loop.run_forever()
        try:
            if self.environment is not None:
                self.environment.cleanup()
        except Exception:  # no memory; what is left is a file
            pass
        try:
            self.job_control.give_back()
        except Exception:  # no memory; a shell takes the terminal back by itself
            pass
        assert self.exit_code is not None  # only Exit stops the loop
        return self.exit_code

    # --- What happens. ----------------------------------------------------------------------------------------------

    def _catch_up(self) -> None:
        """Handle everything that is there: signals, exits, timers. Where that fails, the loop calls this again.

        A child's exit may be among the signals, or may have been merged with another's: always look.
        """
        self._carry_out()  # what an earlier attempt has left
        self.source.read(self._inbox)
        self._handled.clear()
        while self._inbox:
            received = self._inbox[0]
            if not self._is_ours(received) and not self._send_at_once(received.number):
                try:
                    self._note(self.lifecycle.signal, received.number, narrator.Sender(received))
                except MemoryError:
                    raise  # it stays in the inbox
                except Exception as error:
                    self._log_unexpected(error)
            del self._inbox[0]
            self._carry_out()
        if self.notify_socket is not None:
            self.notify_socket.resume()
        self._reap()
        if self.lifecycle.due <= self.loop.time():
            self._guarded(self._receive)  # a sign of life may have come in time
            self._event(self.lifecycle.tick)
        self._arm()

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
            except MemoryError:
                if self._is_worth_a_retry(self._to_do[0]):
                    raise
            except Exception as error:
                self._log_unexpected(error)
            del self._to_do[0]
            self._retries = 0
        self.descendants.forget()

    def _is_worth_a_retry(self, action: Action) -> bool:
        """Exit always; a signal for a while. KillAll comes again by itself."""
        self._retries += 1
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
            self.console.log(INFO, "main", f"the agent's main process is {named}", pid=pid)

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
                    self._guarded(self.job_control.agent_stopped, os.WSTOPSIG(status))
            elif pid in self.reporter.pids:
                self.reporter.pids.discard(pid)
            elif pid != self.agent.pid:
                self._guarded(self._log_reaped, pid, name, status)
        else:
            self.loop.call_at(self.loop.time(), self._catch_up)  # there will be more
        if self.lifecycle.ending is None and (self.agent.has_exited or alone):
            self._guarded(self._receive)  # its last messages
            if not self._hand_over():
                self._agent_ended(alone=alone)
        elif alone:
            self._event(self.lifecycle.nothing_left)

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
        self.reporter.end()
        if self.reporter.pids:  # children, but none that the agent left behind
            alone = alone or self.descendants.listable() == []
        self._event(lambda now: self.lifecycle.agent_ended(now, ending, alone=alone))

    def _hand_over(self) -> bool:
        """The agent has exited. Return whether the main process that it named is the agent now."""
        successor = self.agent.hand_over()
        if successor is None:
            return False
        if self.lifecycle.state == STOPPING:
            self.delivery.stop_successor(successor, self.lifecycle.last_sent)
        text = f"the agent has exited; its main process {successor} is the agent now"
        self.console.log(INFO, "handed-over", text, pid=successor.pid)
        return True

    def _log_reaped(self, pid: int, name: str, status: int) -> None:
        level = WARNING if self.settings.warn_reaped else DEBUG
        if level <= self.console.level:
            orphan = f"{name} (pid {pid})" if name else f"pid {pid}"
            text = f"reaped orphan {orphan}, which {exit_status.describe(status)}"
            self.console.log(level, "reaped", text, pid=pid, code=exit_status.exit_code(status))

    # --- What is done. ----------------------------------------------------------------------------------------------

    def _do(self, action: Action) -> None:
        if isinstance(action, Forward):
            self._forward(action)
        elif isinstance(action, Stop):
            self._stop(action.number)
        elif isinstance(action, StopHeldBack):
            self.exit_watch.stop()
            self.delivery.stop_held_back(action.number)
        elif isinstance(action, StopInterrupted):
            self.delivery.stop_interrupted(action.number)
        elif isinstance(action, LookAtWrapper):
            self._note(self.lifecycle.wrapper_seen, self.delivery.look_at_wrapper())
        elif isinstance(action, StopLeftovers):
            self.delivery.stop_leftovers(action.number)
        elif isinstance(action, KillAll):
            self.reporter.end()
            self.delivery.kill_all()
        elif isinstance(action, TakeCpuSnapshot):
            self.reporter.take_cpu_snapshot(self.descendants.listable() or ())
        elif isinstance(action, MakeStallReport):
            self.reporter.start(self.agent.pid, action.seconds)
        elif isinstance(action, Log):
            self.narrator.agent = "" if self.agent.has_exited else f"{self.agent.name} ({self.agent.pid})"
            if action.event in narrator.ESCALATIONS and not self.lifecycle.hung:
                self._guarded(self._explain)
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
            self._note(self.lifecycle.unhandled, number, action.sender)
            return
        self.narrator.log(Log("forwarded", signal=number, sender=action.sender, to=to))
        self.delivery.forward(number, to)

    def _stop(self, number: int) -> None:
        self.reporter.end()
        try:
            reached, reason = self.delivery.stop(
                number, adapts=self.lifecycle.adapts, hung=bool(self.lifecycle.hung), retry=self._retries > 0
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

    def _recipients_exited(self) -> None:
        """Those that got the stop signal in place of others have exited."""
        self._note(self.lifecycle.recipients_ended)
        self._arm()

    # --- Stall reports, and what goes wrong. ------------------------------------------------------------------------

    def _report_complete(self) -> None:
        self.narrator.report_is_complete()
        self._note(self.lifecycle.reported)
        self.loop.call_at(self.loop.time(), self._catch_up)

    def _guarded(self, step: "Callable[..., object]", *arguments: object) -> None:
        """Call one part so that its failure does not stop the others."""
        try:
            step(*arguments)
        except Exception as error:
            self._log_unexpected(error)

    def _log_unexpected(self, error: BaseException) -> None:
        try:
            self.narrator.log_unexpected(error)
        except Exception:  # no memory even for that
            return

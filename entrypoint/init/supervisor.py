"""Process 1: turns what happens into events for `lifecycle`, and its answers into system calls.

Read `run` for the order at the start, `_catch_up` for what happens on a signal, `_do` for what is done. Nothing ends
agent-init but the agent's own end: an error is logged and the loop goes on.
"""

import os

from .. import options, signals, units
from .. import settings as reader
from . import cgroup, notify_socket, recipients, signalfd, spawn, stall_report, termination_log, tree
from .console import DEBUG, ERROR, INFO, TRACE, WARNING, Console
from .lifecycle import (
    KILLING,
    RUNNING,
    STOPPING,
    Action,
    End,
    Forward,
    KillAll,
    Lifecycle,
    MakeReport,
    Measure,
    Say,
    Stop,
    StopHeldBack,
    StopSurvivors,
)
from .loop import Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TypeGuard

    from .agent_environment import Offer
    from .loop import Timer
    from .stop_plan import StopPlan

MOST_RETRIES = 20
REAPED_AT_ONCE = 500  # then the clock and the signals have their turn
NAMED_AT_MOST = 12
LOOK_AGAIN = 0.1  # seconds, where no descriptor shows a process's end
COUNTED_AT_MOST = 1000  # with more processes about, a list of them would take longer than a deadline may be late


class Sender:
    """Who sent a signal, as far as that can be told. Looked up when it is printed: most never are."""

    __slots__ = ("_received",)

    def __init__(self, received: signalfd.Received) -> None:
        self._received = received

    def __str__(self) -> str:
        pid = self._received.pid
        if pid is None:
            return "somebody"
        if self._received.by_kernel:
            return "the kernel"
        if pid == 0:
            return "outside the container"
        sender = tree.look(pid)
        return f"{sender.name} (pid {pid})" if sender else f"pid {pid}"


class Supervisor:
    """One agent, from just after its exec to the exit code. Carries out what `lifecycle` decides."""

    def __init__(
        self,
        settings: reader.Settings,
        plan: "StopPlan",
        source: signalfd.SignalFd | signalfd.WakeupFd,
        agent: int,
        offered: "Offer | None",
        *,
        package: str,
        started: float,
        stderr: int | None,
        terminal_of: int | None,
        problems: "Sequence[str]",
    ) -> None:
        """`agent` is its pid, `started` when it was (monotonic clock), `stderr` the descriptor to write to, if any.

        `offered`: the notify socket and the like. `package`: the directory of `entrypoint`. `terminal_of`: the process
        group that had the terminal before the agent got it, None if it did not. `problems`: what went wrong on the
        way here, to be told.
        """
        self.settings, self.plan, self.source, self.agent = settings, plan, source, agent
        self.console = Console(stderr, level=settings.log_level, json=settings.log_format == "json")
        self.agent_status: int | None = None  # its wait status, from the moment it was reaped
        self.name = os.path.basename(settings.command[0])
        self.terminal_of = terminal_of
        self.offered = offered
        self.group = agent  # its process group
        self.main: tree.Process | None = None  # a descendant that the agent named as its main process (MAINPID=)
        self.speaker: tree.Process | None = None  # who gave the last sign of life, if not the agent itself
        self.memory = cgroup.Memory()
        self.last_words: list[str] = []  # for the termination log
        self.loop = Loop(report=self._unexpected, recover=self._catch_up)
        self.lifecycle = Lifecycle(settings, plan, started)
        self.dispositions = tree.Dispositions(agent)
        self.stood_in: list[tree.Process] = []  # who got the stop signal in the agent's place
        self.held_back: list[tree.Process] = []  # who gets it later, if it may be no wrapper
        self.all_signalled = False  # they have got it; a further step goes to them at once
        self.watched: dict[int, tree.Process] = {}  # who got it first, by a pidfd that shows the end
        self.stopped: set[tuple[int, int]] = set()  # processes that have had the stop signal
        self._step = 0  # the signal of the stop schedule that was sent last
        self._was_killed = False  # we have passed a KILL on to the agent
        self.exit_code: int | None = None
        self._inbox: list[signalfd.Received] = []  # signals that came and are not dealt with
        self._to_do = list(self._first_lines(problems))  # what follows from them and is not done
        self._retries = 0
        self._wanted: dict[int, bool] = {}  # whether anybody minds a signal: one look serves all that came together
        self._timer: Timer | None = None
        self._scan: list[tree.Process] | None = None  # one look serves all actions of an event
        self._may_be_killed = False  # by the platform, whose limit is near: then there is no last line
        self._listing = ""  # the processes that were there when they were named last
        self.reporter = stall_report.Reporter(
            self.loop,
            self.memory,
            package,
            since=started,
            responders=offered.responders if offered is not None else "",
            stacks=settings.stacks,
            arguments=settings.log_level >= TRACE,
            line=self._report_line,
            done=self._reported,
        )
        self.loop.add_reader(source.fd, self._catch_up)
        self.ear: notify_socket.Ear | None = None
        if offered is not None and offered.socket is not None:
            self.ear = notify_socket.Ear(
                offered.socket, offered.above, settings.notify_access, self.console, self.loop, self._told
            )

    def run(self) -> int:
        """Until nothing is left; returns the exit code."""
        self.loop.run_forever()
        try:
            if self.offered is not None:
                self.offered.withdraw()
            if self.terminal_of is not None and spawn.foreground() == self.group:
                spawn.give_terminal(self.terminal_of)
        except Exception:  # no memory; what is left is a file
            pass
        assert self.exit_code is not None  # End alone stops the loop
        return self.exit_code

    # --- The start. -------------------------------------------------------------------------------------------------

    def _first_lines(self, problems: "Sequence[str]") -> "Iterator[Action]":
        level = self.console.level
        what = " ".join(self.settings.command) if level >= TRACE else self.name
        adopts = self.settings.subreaper is not False
        role = "process 1" if os.getpid() == 1 else "subreaper" if adopts else "plain parent"
        why = self.plan.why
        yield Say(
            INFO,
            "started",
            f"started {what} (pid {self.agent}), as {role}; {why}",
            pid=self.agent,
            program=self.name,
            role=role,
            grace=None if self.plan.grace == units.INFINITY else self.plan.grace,
            grace_from=why,
        )
        known = [option.variable for option in options.OPTIONS]
        for variable in self.settings.unknown:
            near = reader.nearest(variable, known)
            hint = f"; did you mean {near}?" if near else ""
            text = f"{variable} is no variable of agent-init{hint}"
            yield Say(WARNING, "unknown-variable", text, variable=variable)
        for problem in problems:
            yield Say(WARNING, "problem", problem)

    # --- What happens. ----------------------------------------------------------------------------------------------

    def _catch_up(self) -> None:
        """Deal with all that is there. Where that fails (no memory, say) the loop comes back until it does not.

        Signals have come, or the time for something. A child's end may be among them, or may have come in with
        another's: always look.
        """
        self._carry_out()  # what an earlier attempt has left
        self.source.read(self._inbox)
        self._wanted.clear()
        while self._inbox:
            received = self._inbox[0]
            if not self._is_ours(received) and not self._pass_on(received.number):
                try:
                    self._note(self.lifecycle.signal, received.number, Sender(received))
                except MemoryError:
                    raise  # it stays in the inbox
                except Exception as error:
                    self._unexpected(error)
            del self._inbox[0]
            self._carry_out()
        if self.ear is not None:
            self.ear.resume()
        self._reap()
        if self.lifecycle.due <= self.loop.time():
            self._guarded(self._hear)  # a sign of life may have come in time
            self._event(self.lifecycle.tick)
        self._arm()

    def _is_ours(self, received: signalfd.Received) -> bool:
        """Not for the agent: what tells of a child, of the job that we are under a shell with job control, or of a
        write of our own that failed (the kernel sends PIPE with EPIPE and XFSZ with EFBIG, write(2))."""
        number = received.number
        if number == signals.CONT:
            self._brought_forward()
        return (
            number == signals.CHLD
            or (number == signals.TSTP and self._suspend())
            or (number in signals.OF_WRITES and received.pid == os.getpid())
        )

    def _pass_on(self, number: int) -> bool:
        """The short way for a signal that the state machine would forward, to an agent that minds it, silently."""
        if number not in self.lifecycle.plain or self.console.level >= DEBUG or number in tree.SHELL_HABITS:
            return False
        if self.agent_status is not None or self.main is not None:
            return False
        if number not in self._wanted and self.dispositions.minds(number):
            self._wanted[number] = True
        if self._wanted.get(number):
            self._send_agent(number)
            return True
        return False

    def _event(self, event: "Callable[..., list[Action]]", *facts: object) -> None:
        """Tell the state machine of something and do what it says."""
        self._note(event, *facts)
        self._carry_out()

    def _note(self, event: "Callable[..., list[Action]]", *facts: object) -> None:
        """Tell the state machine; what it says is done later. If that fails half-way, nothing has happened."""
        before = dict(vars(self.lifecycle))
        try:
            self._to_do += event(self.loop.time(), *facts)
        except MemoryError:
            vars(self.lifecycle).update(before)
            raise

    def _carry_out(self) -> None:
        """Do what is to be done, in order. For want of memory a line is lost, but nothing else: the loop comes back."""
        self._scan = None
        while self._to_do:
            try:
                self._do(self._to_do[0])
            except MemoryError:
                if self._is_worth_a_retry(self._to_do[0]):
                    raise
            except Exception as error:
                self._unexpected(error)
            del self._to_do[0]
            self._retries = 0
        self._scan = None

    def _is_worth_a_retry(self, action: Action) -> bool:
        """The end always; a signal for a while. KillAll comes again by itself."""
        self._retries += 1
        return isinstance(action, End) or (
            isinstance(action, Stop | StopHeldBack | Forward | StopSurvivors) and self._retries <= MOST_RETRIES
        )

    def _told(self) -> None:
        """The agent has said something."""
        self._hear()
        self._arm()

    def _hear(self) -> None:
        """Take in what the agent says through the notify socket."""
        if self.ear is not None:
            for fields, sender in self.ear.hear(self.agent, self.main):
                self._heed(fields, sender)

    def _heed(self, fields: dict[str, str], sender: tree.Process) -> None:
        if (text := fields.get("MAINPID", "")).isascii() and text.isdigit() and len(text) < 10:
            self._name_main(int(text))
        if "READY" in fields or "WATCHDOG" in fields:
            self.speaker = sender if sender.pid != self.agent else None
        name, by_agent = f"{sender.name} (pid {sender.pid})", sender.pid == self.agent
        self._event(lambda now: self.lifecycle.notified(now, fields, name, by_agent=by_agent))

    def _name_main(self, pid: int) -> None:
        """The agent names its main process: that one is stopped in its place, and lives on in its place.

        Below us, not below the agent: its parent may have ended by now, as a daemon's does, and the agent itself too.
        """
        named = tree.look(pid)
        if pid == self.agent:
            self.main = None
        elif named is not None and pid not in self.reporter.pids and tree.is_below(os.getpid(), named):
            if self.main is not None and self.main.identity == named.identity:
                return
            self.main = named
            self.console.say(INFO, "main", f"the agent's main process is {named.name} (pid {pid})", pid=pid)
        else:
            text = f"MAINPID={pid} is no descendant of the agent; passed over"
            self.console.say(WARNING, "not-main", text, pid=pid)

    def _arm(self) -> None:
        """Have the loop come back when the next thing is due."""
        due = self.lifecycle.due
        if self._timer is not None and self._timer.when != due:
            self.loop.cancel(self._timer)
            self._timer = None
        if self._timer is None and due < units.INFINITY:
            self._timer = self.loop.call_at(due, self._ticked)

    def _ticked(self) -> None:
        self._timer = None
        self._catch_up()

    def _reap(self) -> None:
        """Take in every child that has ended: SIGCHLDs coalesce, so drain waitpid(2) to its end."""
        alone = False
        for _ in range(REAPED_AT_ONCE):
            try:
                pid, status, name = self._wait()
            except ChildProcessError:
                alone = True
                break
            if pid == 0:
                break
            if os.WIFSTOPPED(status):
                if pid == self.agent:
                    self._guarded(self._agent_stopped, os.WSTOPSIG(status))
            elif pid in self.reporter.pids:
                self.reporter.pids.discard(pid)
            elif pid != self.agent:
                self._guarded(self._say_reaped, pid, name, status)
        else:
            self.loop.call_at(self.loop.time(), self._catch_up)  # more will be there
        if self.lifecycle.exit_code is None and (self.agent_status is not None or alone):
            self._guarded(self._hear)  # its last words
            if self.main is None or not self._hand_over(self.main):
                self._agent_ended(alone=alone)
        elif alone:
            self._event(self.lifecycle.nothing_left)

    def _agent_ended(self, *, alone: bool) -> None:
        code, how, cause = spawn.OWN_FAULT, "has ended, its exit status was lost", "lost"  # somebody else took it
        if self.agent_status is not None:
            code, how = spawn.exit_code(self.agent_status), spawn.describe(self.agent_status)
            evidence, cause = self._evidence(self.agent_status)
            how += evidence
        if self.reporter.pids:  # children, but none that the agent left behind
            self.reporter.end()
            alone = alone or self._census() == []
        self._event(lambda now: self.lifecycle.agent_ended(now, code, how, alone=alone, cause=cause))

    def _evidence(self, status: int) -> tuple[str, str]:
        """What is known of why it ended, beyond its status: in words, and in a word. No more than what is certain."""
        kills = self.memory.new_kills
        if kills:
            times = "once" if kills == 1 else f"{kills} times"
            limit, peak = self.memory.limit, self.memory.peak
            figures = [
                f"{what} {units.format_bytes(of)}" for what, of in (("limit", limit), ("peak", peak)) if of is not None
            ]
            struck = f"the kernel's OOM killer struck {times} in this container"
            struck += f" (memory: {', '.join(figures)})" if figures else ""
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signals.KILL:
            cause = "signal" if os.WIFSIGNALED(status) else "exited"
            return f"; meanwhile {struck}" if kills else "", cause
        if self.lifecycle.state == KILLING:
            return "", "deadline"
        if self._was_killed:
            return ", which was passed on to it", "signal"
        if kills:
            return f", most likely for want of memory: {struck}", "oom"
        if kills is None:
            return ", which agent-init did not send", "killed"
        return ", which neither agent-init nor an OOM killer sent: somebody else did", "killed"

    def _hand_over(self, main: tree.Process) -> bool:
        """The agent has ended, the main process that it named has not: if it has become our child, it is the agent."""
        heir = tree.look(main.pid)
        if heir is None or heir.identity != main.identity or not heir.alive or heir.parent != os.getpid():
            return False
        self.dispositions.close()
        self.main, self.agent, self.agent_status = None, heir.pid, None
        self.name, self.dispositions, self.group = heir.name, tree.Dispositions(heir.pid), heir.group
        text = f"the agent has ended; its main process {heir.name} (pid {heir.pid}) is the agent now"
        self.console.say(INFO, "handed-over", text, pid=heir.pid)
        if self.lifecycle.state == STOPPING and self._step and heir.identity not in self.stopped:
            self._send_agent(self._step)
            self._send_agent(signals.CONT)
        return True

    def _wait(self) -> tuple[int, int, str]:
        """A child that has ended or stopped: pid, wait status and, if reaped orphans are to be told, its name."""
        zombie = None
        if self.settings.warn_reaped:  # while it is a zombie its name can be read
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            zombie = tree.look(found.si_pid) if found else None
        pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
        if pid == self.agent and not os.WIFSTOPPED(status):
            self.agent_status = status
        return pid, status, zombie.name if zombie is not None and zombie.pid == pid else ""

    def _say_reaped(self, pid: int, name: str, status: int) -> None:
        level = WARNING if self.settings.warn_reaped else DEBUG
        if level > self.console.level:
            return
        text = f"reaped orphan {f'{name} (pid {pid})' if name else f'pid {pid}'}, which {spawn.describe(status)}"
        self.console.say(level, "reaped", text, pid=pid, code=spawn.exit_code(status))

    def _agent_stopped(self, number: int) -> None:
        """The terminal's user pressed Ctrl-Z, or the agent used a terminal that was not its own at that moment.

        Under a shell with job control we step aside like any job, and take the agent along when we are continued.
        Where nobody could ever continue it (we are process 1, or lead the session) it goes on, as it would were it
        process 1 itself. Without a terminal it is somebody's will.
        """
        front, ours = spawn.foreground(), os.getpgrp()
        if number not in signals.JOB_CONTROL or front is None:
            return
        if front == ours and number != signals.TSTP:  # it wants what we have
            self._brought_forward()
        elif spawn.has_job_control_above():
            if front == self.group:
                spawn.give_terminal(ours)
            os.kill(os.getpid(), signals.STOP)
            self._brought_forward()  # by fg; bg leaves the terminal where it is
        elif front != self.group:
            self.console.say(
                WARNING, "stopped", f"the agent is stopped by {signals.name_of(number)}: no terminal of its own"
            )
            return
        self._kill(-self.group, signals.CONT)

    def _brought_forward(self) -> bool:
        """A shell may have made us its foreground job: then it is the agent that is to have the terminal."""
        ours = os.getpgrp()
        if self.agent_status is not None or self.group == ours or spawn.foreground() != ours:
            return False
        self.terminal_of = ours
        spawn.give_terminal(self.group)
        return True

    def _suspend(self) -> bool:
        """Ctrl-Z that came to us: after `fg` of a running job, of which a shell says nothing, the terminal was ours."""
        if not spawn.has_job_control_above() or not self._brought_forward():
            return False
        self._kill_group(signals.TSTP)
        return True

    # --- What is done. ----------------------------------------------------------------------------------------------

    def _do(self, action: Action) -> None:
        if isinstance(action, Forward):
            self._forward(action)
        elif isinstance(action, Stop):
            self.reporter.end()
            try:
                self._stop(action.number)
            except Exception as error:  # whatever is wrong with finding out who else should get it
                if not isinstance(error, MemoryError) or self._retries >= MOST_RETRIES:
                    self._send_agent(action.number)
                raise
        elif isinstance(action, StopHeldBack):
            self.all_signalled = True
            self._stop_held_back(action.number)
        elif isinstance(action, StopSurvivors):
            self._stop_survivors(action.number)
        elif isinstance(action, KillAll):
            self.reporter.end()
            self._kill_all()
        elif isinstance(action, Measure):
            self.reporter.measure(self._census() or ())
        elif isinstance(action, MakeReport):
            self.reporter.start(self.agent, action.seconds)
        elif isinstance(action, Say):
            self._say(action)
        else:
            assert isinstance(action, End)
            self.exit_code = action.code
            self.loop.stop()

    def _forward(self, action: Forward) -> None:
        number, main = action.number, self._living_main()
        to: list[tree.Process] = []
        if self._wanted.get(number) is False:
            minded = False
        elif main is not None:
            to, minded = [main], tree.minds(main, number)
        else:
            to = self._stand_ins(number, to_stop=False).processes
            minded = bool(to) or self._minds(number)
        if not (minded or action.always or number in signals.HARMLESS):
            self._wanted[number] = False
            self._note(self.lifecycle.unhandled, number, action.sender)
            return
        if self.console.level >= DEBUG:
            name = signals.name_of(number)
            text = f"{name} from {action.sender} forwarded to {self._listed(to) if to else 'the agent'}"
            self.console.say(DEBUG, "forwarded", text, signal=name, sender=str(action.sender))
        for receiver in to:
            self._send(receiver, number)
        if not to:
            self._send_agent(number)

    def _stop(self, number: int) -> None:
        """A step of the stop: to the agent, or to those who stand for it (see --target), each continued after it."""
        self._step = number
        to, held_back, why = self._instead(number)
        reached = [receiver for receiver in to if self._send(receiver, number, signals.CONT)]
        if reached:
            self.stood_in = reached
            self.stopped.update(receiver.identity for receiver in reached)
            if self.console.level >= INFO:
                name = signals.name_of(number)
                text = f"{why}; {name} sent to {self._listed(reached)}"
                self.console.say(INFO, "looked-through", text, signal=name, pids=[p.pid for p in reached])
            if held_back:
                self._hold_back(held_back, reached)
            return
        if self.settings.target == "group":
            self.stopped.update(p.identity for p in self._descendants() if p.group == self.group)
        self._send_agent(number)
        self._send_agent(signals.CONT)

    def _instead(self, number: int) -> tuple[list[tree.Process], list[tree.Process], str]:
        """Who is to get a step of the stop in the agent's place, who is held back until then, and why.

        Nobody, unless --target is auto.
        """
        if (main := self._living_main()) is not None:
            return [main], [], "the agent has named its main process"
        found = self._stand_ins(number, to_stop=True)
        if found.processes:
            return found.processes, found.held_back, f"{self.name} does not handle {signals.name_of(number)}"
        # Nobody catches a later step, such as ABRT: then to whom the first one went, rather than to their shell.
        if there := [receiver for receiver in self.stood_in if self._is_there(receiver)]:
            return there, self.held_back, "as before"
        if self.lifecycle.hung and self.settings.target == "auto" and self._is_there(self.speaker):
            return [self.speaker], [], f"{self.speaker.name} was heard of last"
        return [], [], ""

    def _hold_back(self, held_back: list[tree.Process], reached: list[tree.Process]) -> None:
        """Some that do not handle the signal may be agents rather than wrappers: they get it later."""
        self.held_back = held_back
        if self.all_signalled:
            self._stop_held_back(self._step)
            return
        self._note(self.lifecycle.held_back)
        self._unwatch()
        for receiver in reached:
            try:
                fd = os.pidfd_open(receiver.pid)
            except (OSError, AttributeError):  # it has ended, or the kernel has no such call: look again and again
                continue
            self.watched[fd] = receiver
            self.loop.add_reader(fd, self._recipient_ended)
        self._recipient_ended()

    def _recipient_ended(self) -> None:
        """One of those that got the stop signal first has ended, or may have: its parent alone is told by SIGCHLD."""
        for fd, receiver in list(self.watched.items()):
            if not self._is_there(receiver):
                self._unwatch(fd)
        if not any(map(self._is_there, self.stood_in)):
            self._note(self.lifecycle.recipients_ended)
            self._arm()
        elif not self.watched and self.held_back:
            self.loop.call_at(self.loop.time() + LOOK_AGAIN, self._recipient_ended)

    def _unwatch(self, *fds: int) -> None:
        for fd in fds or tuple(self.watched):
            self.loop.remove_reader(fd)
            os.close(fd)
            del self.watched[fd]

    def _stop_held_back(self, number: int) -> None:
        """The stop signal to those that were held back, if they are still there."""
        self._unwatch()
        for receiver in self.held_back:
            if receiver.pid == self.agent:
                self._send_agent(number)
                self._send_agent(signals.CONT)
            elif self._send(receiver, number, signals.CONT):
                self.stopped.add(receiver.identity)
        self.held_back = []

    def _stop_survivors(self, number: int) -> None:
        """The stop signal and SIGCONT to what the agent left behind, but not to who has had it already."""
        try:
            survivors = self._descendants()
        except OSError:  # no /proc to find them in; most will be in the agent's group
            self._kill_group(number)
            self._kill_group(signals.CONT)
            return
        for survivor in survivors:
            if survivor.identity not in self.stopped:
                self._send(survivor, number, signals.CONT)
                self.stopped.add(survivor.identity)

    def _stand_ins(self, number: int, *, to_stop: bool) -> recipients.Recipients:
        """Who gets a signal in the agent's place: nobody, if it minds the signal itself, or none below it does."""
        agent = tree.look(self.agent)
        if self.settings.target != "auto" or not self.dispositions or agent is None:
            return recipients.Recipients()
        if self.dispositions.minds(number) and not self._is_shells_habit(number):
            return recipients.Recipients()
        try:
            return recipients.resolve(agent, number, to_stop=to_stop, quickly=not to_stop)
        except OSError:
            return recipients.Recipients()  # no /proc: then nothing is known

    def _living_main(self) -> tree.Process | None:
        """The process that the agent named as its main one, where that counts."""
        return self.main if self.settings.target == "auto" and self._is_there(self.main) else None

    @staticmethod
    def _is_there(known: tree.Process | None) -> "TypeGuard[tree.Process]":
        now = tree.look(known.pid) if known is not None else None
        return known is not None and now is not None and now.identity == known.identity and now.alive

    def _minds(self, number: int) -> bool:
        """Whether the agent handles or ignores the signal. What a shell ignores by habit, it does not mind."""
        if self._is_shells_habit(number):
            return self.dispositions.catches(number)
        return self.dispositions.minds(number)

    def _is_shells_habit(self, number: int) -> bool:
        return number in tree.SHELL_HABITS and tree.is_shell(tree.look(self.agent))

    def _send_agent(self, number: int) -> None:
        if self.agent_status is not None:  # until we have reaped it, its pid is its own
            return
        self._was_killed = self._was_killed or number == signals.KILL
        if self.settings.target == "group" and self.group != os.getpgrp():
            self._kill(-self.group, number)
        else:
            self._kill(self.agent, number)

    def _kill_group(self, number: int) -> None:
        """Send to the agent's process group, unless that is ours too (it has put itself there)."""
        if self.group != os.getpgrp():
            self._kill(-self.group, number)

    def _send(self, receiver: tree.Process, *numbers: int) -> bool:
        try:
            return tree.send(receiver, *numbers)
        except OSError as error:
            text = (
                f"cannot send {signals.name_of(numbers[0])} to {receiver.name} (pid {receiver.pid}): {error.strerror}"
            )
            self.console.say(WARNING, "not-sent", text, pid=receiver.pid)
            return False

    def _kill(self, pid: int, number: int) -> None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass  # it ended meanwhile: waitpid tells
        except OSError as error:
            text = f"cannot send {signals.name_of(number)} to pid {pid}: {error.strerror}"
            self.console.say(WARNING, "not-sent", text, pid=pid)

    def _kill_all(self) -> None:
        """SIGKILL to everything below us.

        As process 1 that is one call which no fork escapes (kill(2), -1), and what it takes from outside of our tree
        dies with us in a moment anyway. As a subreaper we can only look again and again; whole process groups go in
        one call, because their members may fork faster than we look.
        """
        if os.getpid() == 1:
            self._kill(-1, signals.KILL)
            return
        if self.agent_status is None:
            self._kill(self.agent, signals.KILL)
        try:
            seen = tree.everything()
        except OSError:  # no /proc to find them in
            self._kill_group(signals.KILL)
            return
        ours = tree.below(os.getpid(), seen)
        shared = {os.getpgrp(), *(seen[pid].group for pid in seen.keys() - {survivor.pid for survivor in ours})}
        for group in {survivor.group for survivor in ours} - shared:
            self._kill(-group, signals.KILL)
        for survivor in ours:
            self._send(survivor, signals.KILL)

    def _descendants(self) -> list[tree.Process]:
        if self._scan is None:
            self._scan = [found for found in tree.descendants(os.getpid()) if found.pid not in self.reporter.pids]
        return self._scan

    def _say(self, action: Say) -> None:
        text, fields = action.text, action.fields
        if action.census == "last":
            text += self._listing.replace("still there", "there when it was sent")
        elif action.census and action.level <= self.console.level:
            there = self._census()
            if there is None and self.agent_status is None:
                text += f"; still there: {self.name} ({self.agent}), and whoever else there is: too many to look at"
            elif there is None:
                text += "; too many processes to look at, or none to be seen"
            elif action.census == "count":
                text += f", {len(there)} process{'' if len(there) == 1 else 'es'}"
                fields = {**fields, "processes": len(there)}
            else:
                self._listing = f"; still there: {self._listed(there)}" if there else ""
                text += self._listing
                fields = {**fields, "processes": [f"{p.name} ({p.pid})" for p in there[:NAMED_AT_MOST]]}
        text += action.tail
        if action.event == "ended":
            if action.fields["code"]:
                termination_log.write(self.settings, [text, *self.last_words])
            elif self._may_be_killed:
                termination_log.write(self.settings, [])
        elif self.lifecycle.state != RUNNING and action.level <= WARNING and action.event != "shielded":
            self._remember(text)
            if action.event == "limit-near":
                self._may_be_killed = True
                self._write_early()
        self.console.say(action.level, action.event, text, **fields)

    def _report_line(self, line: str) -> None:
        self._remember(line)
        self.console.say(WARNING, "report", line)

    def _reported(self) -> None:
        if self._may_be_killed:
            self._write_early()
        self._note(self.lifecycle.reported)
        self.loop.call_at(self.loop.time(), self._catch_up)

    def _write_early(self) -> None:
        termination_log.write(self.settings, self.last_words)

    def _remember(self, text: str) -> None:
        """For the termination log."""
        if sum(map(len, self.last_words)) < termination_log.LONGEST:
            self.last_words.append(text)

    def _census(self) -> list[tree.Process] | None:
        try:
            return self._descendants() if len(tree.pids()) <= COUNTED_AT_MOST else None
        except OSError:
            return None

    def _listed(self, processes: "Sequence[tree.Process]") -> str:
        names = ", ".join(f"{p.name} ({p.pid})" for p in processes[:NAMED_AT_MOST])
        more = len(processes) - NAMED_AT_MOST
        return f"{names} and {more} more" if more > 0 else names

    # --- When something goes wrong. ---------------------------------------------------------------------------------

    def _guarded(self, step: object, *arguments: object) -> None:
        """One failing part must not take the others with it."""
        try:
            step(*arguments)  # type: ignore[operator]
        except Exception as error:
            self._unexpected(error)

    def _unexpected(self, error: BaseException) -> None:
        try:
            self._say_unexpected(error)
        except Exception:  # no memory even for that
            return

    def _say_unexpected(self, error: BaseException) -> None:
        where = error.__traceback__
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        at = f" ({os.path.basename(where.tb_frame.f_code.co_filename)}:{where.tb_lineno})" if where else ""
        text = f"unexpected {type(error).__name__}: {error}{at}; going on"
        self.console.say(ERROR, "unexpected", text)

"""Which process gets which signal, and sends it there.

    a step of the stop   the main process that the agent has named; else the agent if it handles the signal; else its
                         recipients (see `recipients`); else those of an earlier step; else the agent
    a forwarded signal   the same, but only to processes that handle or ignore it, or to the agent in any case
    ... with auto        TERM; INT for a process that handles INT and would die of TERM (`--stop-signal auto`)
    to leftovers         every descendant that has not had the stop signal yet
    SIGKILL              everything below us

`--target child` and `--target group` send to the agent or to its process group, and look no further. Where signal masks
cannot be seen, `by_name` finds the recipients.
"""

import _signal
import os

from .. import notify, signals
from ..signals import CONT, INT, KILL, TERM, name_of
from . import by_name, procfs, recipients, tree, wrapper
from .console import WARNING
from .lifecycle import WORKING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..settings import Settings
    from .console import Console
    from .main_process import MainProcess
    from .procfs import Process
    from .tree import Descendants


class Delivery:
    """Sends signals to the agent, its recipients, and what they leave behind."""

    def __init__(
        self, settings: "Settings", agent: "MainProcess", descendants: "Descendants", console: "Console"
    ) -> None:
        self._settings, self._agent, self._descendants, self._console = settings, agent, descendants, console
        self.previous_recipients: list[Process] = []  # of the last step, in the agent's place
        self.held_back: list[Process] = []  # those that get the stop signal later, as they may be agents themselves
        self.all_signalled = False  # they have got it; a further step goes to them at once
        self.kill_forwarded = False  # the agent was sent a SIGKILL that was not for the end of the grace
        self.interrupted: list[Process] = []  # those that were sent INT in place of TERM
        self.wrapper: wrapper.Wrapper | None = None  # the agent, where recipients got the stop signal in its place
        self._adapts = False  # whether the current step may be INT
        self._stopped: set[tuple[int, int]] = set()  # processes that have had the stop signal
        self._reached: list[Process] = []  # by the current step

    # --- The stop. --------------------------------------------------------------------------------------------------

    def stop(self, number: int, *, adapts: bool, hung: bool, retry: bool = False) -> "tuple[list[Process], str]":
        """Send a step of the stop, then SIGCONT; return the recipients, nobody for the agent itself, and the reason.

        `adapts`: INT takes the place of TERM for those that prefer it. `retry`: an earlier attempt has failed
        half-way; those that it has reached do not get the signal again.
        """
        self._adapts = adapts
        if not retry:
            self._reached = []
        to, held_back, reason = self._stop_recipients(number, hung=hung)
        had_it = [process.identity for process in self._reached]
        for process in to:
            if process.identity not in had_it and self.send(process, self._adapted(process, number), CONT):
                self._reached.append(process)
        if reached := self._reached:
            self.previous_recipients = reached
            self.held_back = held_back or self.held_back  # those of an earlier step still are
            self._stopped.update(process.identity for process in reached)
            return reached, reason
        if self._settings.target == "group":
            try:
                self._stopped.update(p.identity for p in self._descendants.all() if p.group == self._agent.group)
            except OSError:  # no /proc to find them in
                pass
        self._stop_agent(number)
        return [], ""

    def _stop_agent(self, number: int) -> None:
        agent = procfs.look(self._agent.pid)
        self.send_agent(number if agent is None else self._adapted(agent, number))
        self.send_agent(CONT)

    def _adapted(self, process: "Process", number: int) -> int:
        """Return the signal that stops this process."""
        if not self._adapts or number != TERM or not procfs.prefers_int(process):
            return number
        self.interrupted.append(process)
        return INT

    def _stop_recipients(self, number: int, *, hung: bool) -> "tuple[list[Process], list[Process], str]":
        """Return who gets a step of the stop in the agent's place, who is held back from it, and the reason."""
        if (named := self._named_process()) is not None:
            return [named], [], "the agent has named its main process"
        found = self.resolve(number, to_stop=True)
        if found.processes:
            agent = found.seen.get(self._agent.pid)
            self.wrapper = wrapper.Wrapper(agent, found.processes, found.seen) if agent is not None else None
            return found.processes, found.held_back, self._why_others(number)
        # No process handles a later step, such as ABRT: then those of the first step get it rather than their shell.
        if there := [process for process in self.previous_recipients if procfs.is_there(process)]:
            return there, self.held_back, "as before"
        sender = self._agent.last_sender
        if hung and self._settings.target == "auto" and sender is not None and procfs.is_there(sender):
            return [sender], [], f"{sender.name} sent the last message"
        return [], [], ""

    def _why_others(self, number: int) -> str:
        if self._agent.dispositions.handles(number) is None:
            return f"{self._agent.name} is a wrapper"
        return f"{self._agent.name} does not handle {name_of(number)}"

    def stop_held_back(self, number: int) -> None:
        """Send the stop signal and SIGCONT to those that were held back from it and are still there."""
        self.all_signalled = True
        for process in self.held_back:
            if process.pid == self._agent.pid:
                self._stop_agent(number)
            elif self.send(process, self._adapted(process, number), CONT):
                self._stopped.add(process.identity)

    def look_at_wrapper(self) -> str:
        """Return what the wrapper does now that its recipients have exited; hold back whoever should be signalled."""
        assert self.wrapper is not None
        try:
            what, self.held_back = self.wrapper.look()
        except OSError:  # no /proc: nothing is known
            return WORKING
        return what

    def stop_interrupted(self, number: int) -> None:
        """Send a signal to those that were sent INT, have not exited, and still do not handle TERM."""
        for process in self.interrupted:
            if procfs.is_there(process) and procfs.prefers_int(process):
                if process.pid == self._agent.pid:
                    self.send_agent(number)
                else:
                    self.send(process, number)

    def stop_successor(self, successor: "Process", number: int) -> None:
        """Send a step of the stop to the process that has become the agent, unless it has had it."""
        if number and successor.identity not in self._stopped:
            self.send_agent(number)
            self.send_agent(CONT)

    def note_all_signalled(self) -> None:
        """Note that every process has had the stop signal: from the platform."""
        try:
            self._stopped.update(process.identity for process in self._descendants.all())
        except OSError:  # no /proc to find them in
            return

    def stop_leftovers(self, number: int) -> None:
        """Send the stop signal and SIGCONT to what the agent left behind, once each."""
        try:
            leftovers = self._descendants.all()
        except OSError:  # no /proc to find them in; most will be in the agent's group
            self.send_group(number)
            self.send_group(CONT)
            return
        for process in leftovers:
            if process.identity not in self._stopped:
                self.send(process, number, CONT)
                self._stopped.add(process.identity)

    def kill_all(self) -> None:
        """SIGKILL to everything below us.

        As process 1 that is one call which no fork escapes (kill(2), -1), and what it reaches outside our tree dies
        with us in a moment anyway. As a subreaper we can only look again and again; whole process groups go in one
        call, because their members may fork faster than we look.
        """
        if os.getpid() == 1:
            self._kill(-1, KILL)
            return
        if not self._agent.has_exited:
            self._kill(self._agent.pid, KILL)
        try:
            seen = tree.everything()
        except OSError:  # no /proc to find them in
            self.send_group(KILL)
            return
        except MemoryError:  # this comes again in a moment, but there may be no memory then either
            self.send_group(KILL)
            raise
        ours = tree.below(os.getpid(), seen)
        shared = {os.getpgrp(), *(seen[pid].group for pid in seen.keys() - {process.pid for process in ours})}
        for group in {process.group for process in ours} - shared:
            self._kill(-group, KILL)
        for process in ours:
            self.send(process, KILL)

    # --- Forwarded signals. -----------------------------------------------------------------------------------------

    def forward_recipients(self, number: int) -> "tuple[list[Process], bool]":
        """Return who a signal is for in the agent's place, and whether it is handled or ignored there."""
        if (named := self._named_process()) is not None:
            known = procfs.handles_or_ignores(named, number)
            return [named], self._is_forwarded_unknown(named, number) if known is None else known
        found = self.resolve(number, to_stop=False).processes
        return found, bool(found) or self.agent_handles_or_ignores(number)

    def forward(self, number: int, to: "Sequence[Process]") -> None:
        """Send a signal to some processes in the agent's place; to the agent where there are none."""
        for process in to:
            self.send(process, number)
        if not to:
            self.send_agent(number)

    def agent_handles_or_ignores(self, number: int) -> bool:
        """Whether the agent handles or ignores the signal, or may. What a shell ignores by habit does not count."""
        if self._is_shells_habit(number):
            return bool(self._agent.dispositions.handles(number))
        known = self._agent.dispositions.handles_or_ignores(number)
        return self._is_forwarded_unknown(procfs.look(self._agent.pid), number) if known is None else known

    def _is_forwarded_unknown(self, process: "Process | None", number: int) -> bool:
        """Whether a process gets a signal of which it is not known whether it handles it.

        Always where that is unknown for the moment, or without /proc. Where masks are never shown, wrappers do not.
        """
        if process is None or not procfs.masks_are_false():
            return True
        return by_name.may_be_handled(number) and not by_name.has_wrappers_name(process)

    def resolve(self, number: int, *, to_stop: bool) -> recipients.Recipients:
        """Return who gets a signal in the agent's place: nobody if it handles the signal, or no process below does."""
        agent = procfs.look(self._agent.pid)
        if self._settings.target != "auto" or agent is None:
            return recipients.Recipients()
        by_names = procfs.masks_are_false()
        known = self._agent.dispositions.handles_or_ignores(number)
        if (known is None and not by_names) or (known and not self._is_shells_habit(number)):
            return recipients.Recipients()
        try:
            if by_names:
                return by_name.resolve(agent, number, to_stop=to_stop)
            adapts = to_stop and self._adapts
            return recipients.resolve(agent, number, to_stop=to_stop, quickly=not to_stop, adapts=adapts)
        except OSError:
            return recipients.Recipients()  # no /proc: nothing is known

    def _named_process(self) -> "Process | None":
        """Return the process that the agent named as its main one, if it is there and --target is auto."""
        named = self._agent.named
        return named if self._settings.target == "auto" and procfs.is_there(named) else None

    def _is_shells_habit(self, number: int) -> bool:
        return number in procfs.SHELL_HABITS and procfs.is_shell(procfs.look(self._agent.pid))

    def note_handlers(self, fields: "Mapping[str, str]", sender: "Process") -> None:
        """Note which signals a process reports to handle; that counts where masks are not shown."""
        if (text := fields.get(notify.HANDLES)) is None:
            return
        try:
            handled = frozenset(signals.parse(name.strip()) for name in text.split(",") if name.strip())
        except ValueError as error:
            self._console.log(WARNING, "not-noted", f"{notify.HANDLES} from {sender}: {error}; ignored", pid=sender.pid)
            return
        procfs.note_report(sender, handled)

    # --- Sending. ---------------------------------------------------------------------------------------------------

    def send_agent(self, number: int) -> None:
        """Send to the agent, or to its process group with --target group; nothing once it was reaped."""
        if self._agent.has_exited:
            return
        self.kill_forwarded = self.kill_forwarded or number == KILL
        if self._settings.target == "group" and not self._agent.shares_our_group:
            self._kill(-self._agent.group, number)
        else:
            self._kill(self._agent.pid, number)

    def send_group(self, number: int) -> None:
        """Send to the agent's process group, unless it is ours too."""
        if not self._agent.shares_our_group:
            self._kill(-self._agent.group, number)

    def continue_group(self) -> None:
        """Send SIGCONT to the agent's process group, which may be ours."""
        self._kill(-self._agent.group, CONT)

    def send(self, process: "Process", *numbers: int) -> bool:
        """Send signals to exactly this process. Returns False, and logs it, where none could be sent."""
        try:
            return send(process, *numbers)
        except OSError as error:
            self._log_not_sent(numbers[0], str(process), process.pid, error)
            return False

    def _kill(self, pid: int, number: int) -> None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass  # it has exited meanwhile: waitpid(2) will report it
        except OSError as error:
            self._log_not_sent(number, f"pid {pid}", pid, error)

    def _log_not_sent(self, number: int, to: str, pid: int, error: OSError) -> None:
        text = f"cannot send {name_of(number)} to {to}: {error.strerror}"
        self._console.log(WARNING, "not-sent", text, pid=pid)


def send(process: "Process", *numbers: int) -> bool:
    """Send signals to exactly this process; False if it had exited before. Raises PermissionError.

    A pid from /proc may have been reused since. A pidfd (pidfd_open(2)) names one process for good, and the start time
    shows whether it is still the one that was looked at.
    """
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    except (OSError, AttributeError):  # an older kernel, a sandbox, no descriptor left, not Linux
        return _is_same(process) and _send_all(lambda number: os.kill(process.pid, number), numbers)
    try:
        return _is_same(process, unknown=True) and _send_all(
            lambda number: _signal.pidfd_send_signal(fd, number), numbers
        )
    finally:
        os.close(fd)


def _is_same(process: "Process", *, unknown: bool = False) -> bool:
    """Whether it is there, and the one that was looked at; `unknown` if that is not known."""
    now = procfs.look(process.pid)
    return unknown if now is None else now.start == process.start and now.alive


def _send_all(send_one: "Callable[[int], object]", numbers: "Sequence[int]") -> bool:
    """Return whether at least one was sent: the process may exit by it."""
    sent = False
    try:
        for number in numbers:
            send_one(number)
            sent = True
    except ProcessLookupError:
        pass
    return sent

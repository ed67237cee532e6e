"""Which process gets which signal, and sends it there.

    a step of the stop   the main process that the agent has named; else the agent if it handles the signal; else its
                         recipients (see `recipients`); else those of an earlier step; else the agent
    a forwarded signal   the same, but only to processes that handle or ignore it, or to the agent in any case
    to leftovers         every descendant that has not had the stop signal yet
    SIGKILL              everything below us

`--target child` and `--target group` send to the agent or to its process group, and look no further.
"""

import _signal
import os

from ..signals import CONT, KILL, name_of
from . import procfs, recipients, tree
from .console import WARNING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
        self._stopped: set[tuple[int, int]] = set()  # processes that have had the stop signal
        self._reached: list[Process] = []  # by the current step

    # --- The stop. --------------------------------------------------------------------------------------------------

    def stop(self, number: int, *, hung: bool, retry: bool = False) -> "tuple[list[Process], str]":
        """Send a step of the stop, then SIGCONT; return the recipients, nobody for the agent itself, and the reason.

        `retry`: an earlier attempt has failed half-way; those that it has reached do not get the signal again.
        """
        if not retry:
            self._reached = []
        to, held_back, reason = self._stop_recipients(number, hung=hung)
        had_it = [process.identity for process in self._reached]
        for process in to:
            if process.identity not in had_it and self.send(process, number, CONT):
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
        self.send_agent(number)
        self.send_agent(CONT)
        return [], ""

    def _stop_recipients(self, number: int, *, hung: bool) -> "tuple[list[Process], list[Process], str]":
        """Return who gets a step of the stop in the agent's place, who is held back from it, and the reason."""
        if (named := self._named_process()) is not None:
            return [named], [], "the agent has named its main process"
        found = self.resolve(number, to_stop=True)
        if found.processes:
            return found.processes, found.held_back, f"{self._agent.name} does not handle {name_of(number)}"
        # No process handles a later step, such as ABRT: then those of the first step get it rather than their shell.
        if there := [process for process in self.previous_recipients if procfs.is_there(process)]:
            return there, self.held_back, "as before"
        sender = self._agent.last_sender
        if hung and self._settings.target == "auto" and sender is not None and procfs.is_there(sender):
            return [sender], [], f"{sender.name} sent the last message"
        return [], [], ""

    def stop_held_back(self, number: int) -> None:
        """Send the stop signal and SIGCONT to those that were held back from it and are still there."""
        self.all_signalled = True
        for process in self.held_back:
            if process.pid == self._agent.pid:
                self.send_agent(number)
                self.send_agent(CONT)
            elif self.send(process, number, CONT):
                self._stopped.add(process.identity)

    def stop_successor(self, successor: "Process", number: int) -> None:
        """Send a step of the stop to the process that has become the agent, unless it has had it."""
        if number and successor.identity not in self._stopped:
            self.send_agent(number)
            self.send_agent(CONT)

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
            return [named], procfs.handles_or_ignores(named, number)
        found = self.resolve(number, to_stop=False).processes
        return found, bool(found) or self.agent_handles_or_ignores(number)

    def forward(self, number: int, to: "Sequence[Process]") -> None:
        """Send a signal to some processes in the agent's place; to the agent where there are none."""
        for process in to:
            self.send(process, number)
        if not to:
            self.send_agent(number)

    def agent_handles_or_ignores(self, number: int) -> bool:
        """Whether the agent handles or ignores the signal. What a shell ignores by habit does not count."""
        if self._is_shells_habit(number):
            return self._agent.dispositions.handles(number)
        return self._agent.dispositions.handles_or_ignores(number)

    def resolve(self, number: int, *, to_stop: bool) -> recipients.Recipients:
        """Return who gets a signal in the agent's place: nobody if it handles the signal, or no process below does."""
        dispositions = self._agent.dispositions
        agent = procfs.look(self._agent.pid)
        if self._settings.target != "auto" or not dispositions or agent is None:
            return recipients.Recipients()
        if dispositions.handles_or_ignores(number) and not self._is_shells_habit(number):
            return recipients.Recipients()
        try:
            return recipients.resolve(agent, number, to_stop=to_stop, quickly=not to_stop)
        except OSError:
            return recipients.Recipients()  # no /proc: nothing is known

    def _named_process(self) -> "Process | None":
        """Return the process that the agent named as its main one, if it is there and --target is auto."""
        named = self._agent.named
        return named if self._settings.target == "auto" and procfs.is_there(named) else None

    def _is_shells_habit(self, number: int) -> bool:
        return number in procfs.SHELL_HABITS and procfs.is_shell(procfs.look(self._agent.pid))

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

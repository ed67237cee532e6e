"""The terminal's job control: who is in the foreground, and what a Ctrl-Z does (credentials(7), termios(3)).

The agent is in the foreground, in a process group of its own. Under a shell with job control agent-init behaves like
any job: it stops when its agent is stopped, and continues it when it is continued. Where nobody could ever continue it
(agent-init is process 1, or leads the session) the agent goes on, as it would as process 1 itself.
"""

import posix

from .. import signals
from ..signals import TSTP, name_of
from . import terminal
from .console import WARNING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .console import Console
    from .delivery import Delivery
    from .main_process import MainProcess


class JobControl:
    """Passes the terminal between a shell, agent-init and the agent.

    `previous_foreground`: the process group that had the terminal before the agent got it, None if the agent did not.
    """

    __slots__ = ("_agent", "_console", "_delivery", "_previous_foreground")

    def __init__(
        self, agent: "MainProcess", delivery: "Delivery", console: "Console", previous_foreground: int | None
    ) -> None:
        self._agent, self._delivery, self._console = agent, delivery, console
        self._previous_foreground = previous_foreground

    def give_back(self) -> None:
        """At the end, give the terminal to the process group that had it."""
        if self._previous_foreground is not None and terminal.foreground() == self._agent.group:
            terminal.give_to(self._previous_foreground)

    def agent_stopped(self, number: int) -> None:
        """The agent was stopped: by the terminal's user with Ctrl-Z, or for using a terminal that it did not have.

        Without a terminal somebody wants it stopped, and it stays so.
        """
        front, ours = terminal.foreground(), posix.getpgrp()
        if number not in signals.JOB_CONTROL or front is None:
            return
        if front == ours and number != TSTP:  # it wants the terminal that we have
            self.brought_to_foreground()
        elif terminal.has_shell_above():
            if front == self._agent.group:
                terminal.give_to(ours)
            terminal.stop()
            self.brought_to_foreground()  # by fg; bg leaves the terminal where it is
        elif front != self._agent.group:
            text = f"the agent is stopped by {name_of(number)}: it does not have the terminal"
            self._console.log(WARNING, "stopped", text)
            return
        self._delivery.continue_group()

    def brought_to_foreground(self) -> bool:
        """Give the terminal to the agent if a shell has given it to us. Returns whether it did."""
        ours = posix.getpgrp()
        if self._agent.has_exited or self._agent.group == ours or terminal.foreground() != ours:
            return False
        self._previous_foreground = ours
        terminal.give_to(self._agent.group)
        return True

    def resume(self) -> bool:
        """Take a CONT that comes with the terminal, as from `fg` of a running job (bash 5.3).

        The agent gets it at once: sent later, it might undo a Ctrl-Z that has come since. Returns whether it was ours
        to take.
        """
        if not self.brought_to_foreground():
            return False
        self._delivery.continue_group()
        return True

    def suspend(self, *, by_terminal: bool) -> bool:
        """Take a Ctrl-Z that came to us, as after `fg` of a running job, of which a shell sends no notice.

        Or it does, and the agent has got the terminal since the Ctrl-Z. `by_terminal`: it was no kill(2). Returns
        whether it was ours to take.
        """
        if not terminal.has_shell_above():
            return False
        ours, agents = posix.getpgrp(), self._agent.group
        had_it = by_terminal and ours != agents and terminal.foreground() == agents
        if not (had_it or self.brought_to_foreground()):
            return False
        self._delivery.send_group(TSTP)
        return True

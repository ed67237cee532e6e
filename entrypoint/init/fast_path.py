"""The fast path: a signal that the state machine would forward to an agent that handles it, without a log line.

Between signalfd and kill(2) there is one system call, a look at the agent's file in /proc. While the look shows the
same program with the same masks, the answers of an earlier time hold. Nothing here depends on the number of processes.
"""

from .. import signals
from . import dispositions
from .console import DEBUG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..parsed import Settings
    from .console import Console
    from .counters import Counters
    from .delivery import Delivery
    from .lifecycle import Lifecycle
    from .main_process import MainProcess
    from .signalfd import Received, SignalFd, WakeupFd

# These concern process 1 itself, or may do so: see `Supervisor._is_ours`.
MAY_BE_OURS = frozenset((signals.CHLD, signals.CONT, signals.TSTP)) | signals.OF_WRITES
MAX_LOOKED_AT = 31  # the last signal whose disposition the file shows
MAX_SEEN = 4  # looks that are remembered for each signal


class FastPath:
    """Sends to the agent what it handles."""

    __slots__ = ("_acts_on", "_agent", "_console", "_delivery", "_forwarded", "_lifecycle", "_looks_through")

    def __init__(
        self,
        settings: "Settings",
        agent: "MainProcess",
        lifecycle: "Lifecycle",
        console: "Console",
        delivery: "Delivery",
        counters: "Counters",
    ) -> None:
        self._agent, self._lifecycle, self._console, self._delivery = agent, lifecycle, console, delivery
        self._forwarded = counters.forwarded
        self._looks_through = settings.target == "auto"
        # For each signal that the agent handles or ignores by itself, what a look showed then. That differs while one
        # of its handlers runs: the kernel blocks the handler's signal (sigaction(2)).
        self._acts_on: dict[int, list[dispositions.Seen]] = {}

    def send_next(self, number: int, source: "SignalFd | WakeupFd") -> bool:
        """Send the signal that `source` has, if it is a single one, and the agent is known to act on it.

        `number`: what its `peek` returns. Returns whether it was sent. Most signals take this and nothing else. The
        agent waits for each of these lines.
        """
        states = self._acts_on.get(number)
        if states is None or number not in self._lifecycle.sent_at_once:
            return False
        agent = self._agent
        if agent.status is not None or agent.named is not None or not agent.dispositions.is_as(states):
            return False
        self._delivery.send_agent(number)
        source.size = 0
        self._forwarded[number] += 1
        return True

    def send_all(self, inbox: "list[Received]", handled: dict[int, bool]) -> bool:
        """Send the signals in `inbox`, and remove them from it, up to the first that takes more than that.

        Return whether there was none. `handled`: see `send`.
        """
        while inbox:
            number = inbox[0].number
            if number in MAY_BE_OURS or not self.send(number, handled):
                return False
            del inbox[0]
        return True

    def send(self, number: int, handled: dict[int, bool]) -> bool:
        """Send a signal to the agent if it handles that; return whether it does.

        `handled`: for signals that came together, whether the agent handles them; one look serves all of them.
        """
        if (
            number not in self._lifecycle.sent_at_once
            or self._console.level >= DEBUG
            or number in dispositions.SHELL_HABITS
        ):
            return False
        if self._agent.has_exited or self._agent.named is not None:
            return False
        if number not in handled and self._agent_acts_on(number):
            handled[number] = True
        if handled.get(number):
            self._forwarded[number] += 1  # first: a failure of this later would have it sent again
            self._delivery.send_agent(number)
            return True
        return False

    def _agent_acts_on(self, number: int) -> bool:
        """Whether the agent handles or ignores the signal, and it is not meant for a process behind it."""
        of_agent = self._agent.dispositions
        states = self._acts_on.get(number)
        if states is not None and of_agent.is_as(states):
            return True
        known = of_agent.handles_or_ignores(number)
        if known is None:
            return self._delivery.agent_gets_unknown(number)
        if not known:
            return False
        if self._looks_through and self._delivery.may_be_looked_through():
            return False
        if number <= MAX_LOOKED_AT and number not in MAY_BE_OURS and not dispositions.masks_are_false():
            self._remember(of_agent, number)
        return True

    def _remember(self, of_agent: dispositions.Dispositions, number: int) -> None:
        """The answer holds while the masks are the same, if they show it: sigwait(3) does not show there."""
        seen = of_agent.seen()
        if seen is not None and seen.shows(number):
            self._acts_on[number] = [seen, *self._acts_on.get(number, ())][:MAX_SEEN]

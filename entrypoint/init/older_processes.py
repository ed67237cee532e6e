"""Processes from before the agent's start: children that were left in this process before our own code ran.

They are the services of a start script that ends with `exec agent-init`, or what foreign start-up code has started (a
sitecustomize with a telemetry process). Once the agent has exited they get the stop signal, as what the agent leaves
behind does. A service that handles it has the linger time, too. The others have nothing to do in that time: TERM ends
them at once, or never, as it is ignored, or blocked (behind `env --block-signal` they inherit our mask). They are not
waited for: when nothing else is left they get SIGKILL.
"""

import posix

from . import dispositions, tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from .procfs import Process
    from .tree import Descendants


def find() -> frozenset[tuple[int, int]]:
    """Return the identities of our descendants; none where they cannot be seen. To be called before the spawn."""
    try:
        return frozenset(process.identity for process in tree.below(posix.getpid(), tree.everything()))
    except OSError:
        return frozenset()


class OlderProcesses:
    """Knows which processes these are: `identities`, what `find` has returned. `number`: the stop signal."""

    __slots__ = ("_descendants", "_number", "identities")

    def __init__(self, identities: "Collection[tuple[int, int]]", descendants: "Descendants", number: int) -> None:
        self.identities, self._descendants, self._number = identities, descendants, number

    def are_not_waited_for(self) -> bool:
        """Whether nothing is left below us but these processes, and their descendants, that do not handle the signal.

        False if that is not known.
        """
        if not self.identities:
            return False
        self._descendants.forget()
        left = self._descendants.listable()
        if not left:
            return False
        ours: set[int] = set()
        for process in left:  # parents come first
            if process.identity in self.identities or process.parent in ours:
                ours.add(process.pid)
        return len(ours) == len(left) and not any(map(self._is_reached, left))

    def _is_reached(self, process: "Process") -> bool:
        return dispositions.is_reached(process, self._number) is not False

"""Which processes descend from which: from one look at all of /proc, since processes come and go meanwhile."""

import posix
import time

from ..units import INFINITY
from . import procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from .procfs import Process

MAX_DEPTH = 10_000  # a parent that exits during the climb may lead round in a circle
MAX_LISTED = 1000  # processes; with more, making a list of them would take longer than a deadline may be late
ALWAYS_LISTED = 200  # processes, however long it takes; a sandbox takes up to a millisecond for each


class TooSlow(Exception):
    """A look at all processes takes longer than it may."""


def everything(until: float = INFINITY) -> "dict[int, Process]":
    """Return all processes that can be seen, by pid. Raises OSError if there are none.

    Raises TooSlow if there are more than ALWAYS_LISTED and the clock passes `until` meanwhile (monotonic, in seconds).
    """
    seen: dict[int, Process] = {}
    for number, pid in enumerate(procfs.pids()):
        if number >= ALWAYS_LISTED and until < INFINITY and time.monotonic() > until:
            raise TooSlow
        if (process := procfs.look(pid)) is not None:
            seen[pid] = process
    # A parent that exited during the look leaves a child without one; by now it has been adopted, mostly by us.
    for process in list(seen.values()):
        if process.parent not in seen and process.parent != 0 and (again := procfs.look(process.pid)) is not None:
            seen[process.pid] = again
    return seen


def children_among(seen: "dict[int, Process]") -> "Callable[[int], list[Process]]":
    """Return a function from a pid to its children among `seen`."""
    by_parent = _by_parent(seen)
    return lambda pid: by_parent.get(pid, [])


def _by_parent(seen: "dict[int, Process]") -> "dict[int, list[Process]]":
    children: dict[int, list[Process]] = {}
    for process in seen.values():
        children.setdefault(process.parent, []).append(process)
    return children


def below(root: int, seen: "dict[int, Process]") -> "list[Process]":
    """Return the living descendants of `root` among `seen`, parents before their children."""
    children = _by_parent(seen)
    found: list[Process] = []
    generation = [root]
    while generation:
        born = [child for parent in generation for child in children.pop(parent, ())]
        found += born
        generation = [process.pid for process in born]
    return [process for process in found if process.alive]


def is_below(root: int, process: "Process | None") -> bool:
    """Whether `root` is an ancestor of the process."""
    for _ in range(MAX_DEPTH):
        if process is None or process.pid == 0:
            return False
        if process.parent == root:
            return True
        process = procfs.look(process.parent)
    return False


class Descendants:
    """Our living descendants, but for our own helper processes. One look serves until `forget`."""

    __slots__ = ("_helper_pids", "_seen")

    def __init__(self, helper_pids: "Collection[int]") -> None:
        self._helper_pids = helper_pids
        self._seen: list[Process] | None = None

    def forget(self) -> None:
        """Look again the next time."""
        self._seen = None

    def all(self, until: float = INFINITY) -> "list[Process]":
        """Return all of them, parents before their children. Raises OSError where /proc cannot be read.

        Raises TooSlow as `everything` does.
        """
        if self._seen is None:
            seen = below(posix.getpid(), everything(until))
            self._seen = [found for found in seen if found.pid not in self._helper_pids]
        return self._seen

    def listable(self, within: float = INFINITY) -> "list[Process] | None":
        """Return all of them; None where there are too many to list in time, or where none can be seen.

        `within`: seconds that may be spent on it, where there are more than ALWAYS_LISTED.
        """
        try:
            return self.all(time.monotonic() + within) if len(procfs.pids()) <= MAX_LISTED else None
        except (OSError, TooSlow):
            return None

"""Stops orphans while the agent runs (--orphans): the process trees that its tools have left behind.

No signal reports an adoption, so process 1 looks at its children from time to time, only while the option is on. A
child that it has not started was adopted; its time counts from the look that sees it first, so it is never too short.
When the time is up, the whole tree goes with it:

    first              the topmost processes of the tree that handle the stop signal get it; where there are none, all
    once they are gone the rest of the tree gets it in the same way, also what has become our child meanwhile
    after --linger     SIGKILL to the whole tree

Never touched: the agent, its named main process, the last sender of READY or WATCHDOG, our own helpers, processes from
before the agent's start, with --target group the agent's group, and each tree with one of these in it.

A pid names one process for as long as it is our child, but not below: each process is known by its start time, too.
"""

import posix

from ..signals import CONT, KILL
from ..units import INFINITY
from . import delivery, dispositions, leftovers, procfs, stop_steps, tree
from .actions import Log
from .console import WARNING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from ..parsed import Settings
    from .delivery import Delivery
    from .main_process import MainProcess
    from .narrator import Narrator
    from .procfs import Process

    Identity = tuple[int, int]

LOOKS = 10  # in the time that orphans are allowed
MIN_PAUSE, MAX_PAUSE = 0.1, 10.0  # seconds between two looks
STOPPING_PAUSE = 0.2  # seconds between two looks while a tree is being stopped
OVERDUE_PAUSE = 1.0  # ... after one that has not come to all orphans that are due
FROZEN_AFTER = 1.0  # a look that is so many seconds late: process 1 was frozen, and the orphans most likely with it
NO_PROC = "--orphans has no effect: /proc cannot be read"


class Orphans:
    """Decides which orphans are stopped when. There is no clock in here and no I/O.

    `allowed`: seconds from the adoption to the stop signal. `linger`: seconds from there to SIGKILL.
    """

    __slots__ = ("_adopted", "_due", "_killed", "_stopping", "allowed", "linger", "signalled")

    def __init__(self, allowed: float, linger: float) -> None:
        self.allowed, self.linger = allowed, linger
        self._adopted: dict[Identity, float] = {}  # when each was seen first; without those that are being stopped
        # The processes of all trees that are being stopped: when their orphan was adopted, and when SIGKILL is due.
        self._stopping: dict[Identity, tuple[float, float]] = {}
        self.signalled: frozenset[Identity] = frozenset()  # those of them that have had the stop signal
        self._killed: frozenset[Identity] = frozenset()  # ... that have had SIGKILL
        self._due = INFINITY

    def look(self, now: float, children: "Sequence[Process]") -> "list[Process]":
        """`children`: all orphans that there are now. Return those whose trees are to be looked at, with `decide`."""
        if (late := now - self._due) > FROZEN_AFTER:
            self._adopted = {known: at + late for known, at in self._adopted.items()}
            self._stopping = {known: (at, kill + late) for known, (at, kill) in self._stopping.items()}
        here = [child.identity for child in children]
        self._adopted = {known: self._adopted.get(known, now) for known in here if known not in self._stopping}
        return [child for child in children if now >= self._adopted.get(child.identity, -INFINITY) + self.allowed]

    def decide(
        self, now: float, family: "Sequence[Process]", handles: "Callable[[Process], bool]"
    ) -> "tuple[list[Process], list[Process]]":
        """Return which processes of a tree get the stop signal now, and which get SIGKILL.

        `family`: an orphan that `look` has returned, and its descendants, parents before their children. `handles`:
        whether a process handles the stop signal. What is returned counts as sent.
        """
        root = family[0].identity
        began = root in self._stopping
        adopted, kill_at = self._stopping[root] if began else (self._adopted[root], INFINITY)
        to_stop: list[Process] = []
        to_kill: list[Process] = []
        if began and now >= kill_at:
            to_kill = list(family)
            self._killed |= {process.identity for process in family}
        else:
            to_stop, _ = leftovers.topmost(
                family, handles, lambda process: process.identity in self.signalled, works_on=False
            )
            if not began or family[0] in to_stop:
                kill_at = now + self.linger
            self.signalled |= {process.identity for process in to_stop}
        self._adopted.pop(root, None)
        ends = {process.identity: (adopted, kill_at) for process in family}
        self._stopping = {**ends, **self._stopping, root: (adopted, kill_at)}
        return to_stop, to_kill

    def spare(self, now: float, orphan: "Process") -> None:
        """Something in the tree of this orphan must not be touched; it counts as adopted now."""
        self._stopping.pop(orphan.identity, None)
        self._adopted[orphan.identity] = now

    def forget(self, is_there: "Callable[[Identity], bool]") -> None:
        """Forget the processes that have exited. `is_there`: whether a process has not."""
        self._stopping = {known: times for known, times in self._stopping.items() if is_there(known)}
        self.signalled = self.signalled.intersection(self._stopping)
        self._killed = self._killed.intersection(self._stopping)

    def next_look(self, now: float) -> float:
        """Return when to look again."""
        waiting = [kill for known, (_, kill) in self._stopping.items() if known not in self._killed and kill > now]
        pause = STOPPING_PAUSE if waiting else max(MIN_PAUSE, min(self.allowed / LOOKS, MAX_PAUSE))
        due = [at + self.allowed for at in self._adopted.values()]
        first = min([now + pause, *waiting, *(at if at > now else now + OVERDUE_PAUSE for at in due)])
        self._due = max(first, now + 0.01)
        return self._due

    def adopted_at(self, orphan: "Process") -> float:
        """Return when an orphan that is being stopped was adopted."""
        return self._stopping[orphan.identity][0]

    def was_killed(self, process: "Process") -> bool:
        """Whether a process of a tree has had SIGKILL."""
        return process.identity in self._killed


class OrphanStopper:
    """Looks at our children, and sends what `Orphans` decides."""

    __slots__ = ("_agent", "_delivery", "_helper_pids", "_narrator", "_older", "_orphans", "_settings", "_signal")

    def __init__(
        self,
        settings: "Settings",
        agent: "MainProcess",
        helper_pids: "Collection[int]",
        older: "Collection[Identity]",
        delivery: "Delivery",
        narrator: "Narrator",
    ) -> None:
        """`helper_pids`: our own helper processes. `older`: the processes from before the agent's start."""
        self._settings, self._agent, self._helper_pids, self._older = settings, agent, helper_pids, older
        self._delivery, self._narrator = delivery, narrator
        self._orphans = Orphans(settings.orphans or INFINITY, settings.linger)
        self._signal = stop_steps.stop_signal(settings)
        if settings.orphans is not None and not procfs.MOUNTED:
            narrator.console.log(WARNING, "problem", NO_PROC)

    @property
    def signalled(self) -> "Collection[Identity]":
        """Return the processes that have had the stop signal and may not have exited."""
        return self._orphans.signalled

    def look(self, now: float) -> float:
        """Stop and kill the orphans for which it is time; return when to look again."""
        children_of = self._children_of()
        children = [child for child in children_of(posix.getpid()) if child.alive and not self._is_spared(child)]
        left = tree.MAX_LISTED
        for orphan in self._orphans.look(now, children):
            if left <= 0:  # the rest has its turn at the next look
                break
            family = _family(orphan, children_of)
            left -= len(family)
            if any(map(self._is_spared, family)):
                self._orphans.spare(now, orphan)
            else:
                self._stop(now, orphan, family)
        self._orphans.forget(lambda known: (found := procfs.look(known[0])) is not None and found.identity == known)
        return self._orphans.next_look(now)

    def _children_of(self) -> "Callable[[int], list[Process]]":
        """Return a function from a pid to its children."""
        if procfs.children(posix.getpid()):
            return procfs.children
        try:  # the kernel does not list them
            return tree.children_among(tree.everything() if len(procfs.pids()) <= tree.MAX_LISTED else {})
        except OSError:  # no /proc
            return lambda _: []

    def _is_spared(self, process: "Process") -> bool:
        agent = self._agent
        known = [named.identity for named in (agent.named, agent.last_sender) if named is not None]
        return (
            process.pid == agent.pid
            or process.pid in self._helper_pids
            or process.identity in self._older
            or process.identity in known
            or (self._settings.target == "group" and process.group == agent.group)
        )

    def _stop(self, now: float, orphan: "Process", family: "Sequence[Process]") -> None:
        known = {process.identity for process in family if self._orphans.was_killed(process)}
        to_stop, to_kill = self._orphans.decide(
            now, family, lambda process: dispositions.handles(process, self._signal) is not False
        )
        seconds = now - self._orphans.adopted_at(orphan)
        facts = {"orphan": str(orphan), "seconds": seconds, "signal": self._signal}
        reached = [process for process in to_stop if self._delivery.send(process, self._signal, CONT)]
        if reached:
            self._narrator.log(Log("orphan-stopped", to=reached, **facts))
        new = [process for process in to_kill if process.identity not in known]
        if new:
            self._narrator.log(Log("orphan-killed", to=new, linger=self._orphans.linger, **facts))
        for process in to_kill:
            if process in new:
                self._delivery.send(process, KILL)
            else:
                _kill_again(process)


def _kill_again(process: "Process") -> None:
    try:
        delivery.send(process, KILL)
    except OSError:  # that was logged the first time
        pass


def _family(orphan: "Process", children_of: "Callable[[int], list[Process]]") -> "list[Process]":
    """Return the orphan and its living descendants, parents before their children; at most MAX_LISTED of them."""
    found, known = [orphan], {orphan.pid, posix.getpid()}
    for process in found:  # grows meanwhile
        # A pid that was reused during the look may lead round in a circle.
        children = [child for child in children_of(process.pid) if child.alive and child.pid not in known]
        known.update(child.pid for child in children)
        found += children[: max(0, tree.MAX_LISTED - len(found))]
    return found

"""Looks at the processes of a run from outside: their lives, and the ports that they listen on."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .. import control, titles
from ..init import names, procfs, tree
from . import sockets
from .model import Life

if TYPE_CHECKING:
    import random

OWN_HELPERS = ("/entrypoint/report/__main__.py", "/entrypoint/serve/")  # agent-init's, not the agent's
RENAMED_WITHIN = 1.0  # seconds: a process executes its program soon after the fork
SHARE_OF_TIME = 0.1  # that looking may take


@dataclass
class Seen:
    """A process that was seen. Times by the monotonic clock."""

    process: procfs.Process
    inner_pid: int
    inner_parent: int
    name: str
    began: float
    ended: float | None = None
    argv: list[str] = field(default_factory=list)

    def is_helper_of(self, root: int) -> bool:
        """Whether agent-init, with this pid, has started it for itself; or has just forked it, for whatever it is."""
        forked = self.process.parent == root and self.process.name == control.NAME
        return forked or any(part in word for word in self.argv for part in OWN_HELPERS)


class Observer:
    """Looks at the processes below agent-init now and then. `root`: its pid, as it is seen here."""

    def __init__(self, root: int, interval: float) -> None:
        self._root, self._interval = root, interval
        self._seen: dict[tuple[int, int], Seen] = {}
        self._next = 0.0
        self.changed_at = time.monotonic()  # when a process was seen to begin or end

    def look(self, *, at_once: bool = False) -> None:
        """Look at them, if it is time to or `at_once`."""
        now = time.monotonic()
        if now < self._next and not at_once:
            return
        try:
            alive = {process.identity: process for process in tree.below(self._root, tree.everything())}
        except OSError:  # what cannot be seen at the moment has not ended
            self._next = now + self._interval
            return
        for identity, process in alive.items():
            self._note(identity, process, now)
        for identity, seen in self._seen.items():
            if identity not in alive and seen.ended is None:
                seen.ended = self.changed_at = now
        after = time.monotonic()
        self._next = after + max(self._interval, (after - now) / SHARE_OF_TIME)

    def _note(self, identity: tuple[int, int], process: procfs.Process, now: float) -> None:
        seen = self._seen.get(identity)
        if seen is not None and seen.process.name == process.name and now - seen.began > RENAMED_WITHIN:
            seen.process = process
            return
        argv = procfs.argv_of(process.pid)
        name = titles.of(process.name, argv)
        if seen is None:
            inner, parent = inner_pid(process.pid), inner_pid(process.parent)
            self._seen[identity] = Seen(process, inner, parent, name, now, argv=argv)
            self.changed_at = now
        else:
            seen.process, seen.name, seen.argv = process, name, argv

    def alive(self) -> list[Seen]:
        """Return the processes that were alive at the last look, agent-init's own helpers not among them."""
        return [seen for seen in self._agents() if seen.ended is None]

    def pick_child(self, chance: random.Random) -> Seen | None:
        """Return a child of the agent that may be killed: a worker rather than the agent behind a wrapper."""
        alive = self.alive()
        by_parent: dict[int, list[Seen]] = {}
        for seen in alive:
            by_parent.setdefault(seen.process.parent, []).append(seen)
        pids = {seen.process.pid for seen in alive}
        main = next((seen for seen in alive if seen.process.parent not in pids), None)
        while main is not None:
            children = by_parent.get(main.process.pid, [])
            if len(children) != 1 or not names.is_wrapper(main.process):
                found = [child for child in children if child.name != "resource tracker"]
                return chance.choice(found) if found else None
            main = children[0]
        return None

    def lives(self, started: float) -> tuple[Life, ...]:
        """Return the lives of all of them, in the order of their births. `started`: when the agent was started."""
        found = []
        for seen in sorted(self._agents(), key=lambda seen: (seen.began, seen.inner_pid)):
            ended = None if seen.ended is None else max(0.0, seen.ended - started)
            began = max(0.0, seen.began - started)
            found.append(Life(seen.inner_pid, seen.inner_parent, seen.name, began, ended))
        return tuple(found)

    def _agents(self) -> list[Seen]:
        """Return all processes that are the agent's and not agent-init's own."""
        return [seen for seen in self._seen.values() if not seen.is_helper_of(self._root)]

    def ports(self) -> dict[int, int]:
        """Return the TCP ports that the processes listen on, with the pid of one that does."""
        listening = sockets.listening(self._root)
        if not listening:
            return {}
        found: dict[int, int] = {}
        for seen in self.alive():
            for inode in sockets.inodes(seen.process.pid) & listening.keys():
                found.setdefault(listening[inode], seen.inner_pid)
        return found


def began_at(process: procfs.Process) -> float:
    """Return when a process was started, by the monotonic clock; to a clock tick, of 10 ms mostly."""
    now, since_boot = time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME)
    return min(now, now - (since_boot - process.start / os.sysconf("SC_CLK_TCK")))


def inner_pid(pid: int) -> int:
    """Return the pid of a process in its own PID namespace; the one that we see, where that is not known."""
    try:
        for line in procfs.read_file(f"/proc/{pid}/status", 8192).splitlines():
            if line.startswith(b"NSpid:"):
                return int(line.split()[-1])
    except (OSError, ValueError):
        pass
    return pid

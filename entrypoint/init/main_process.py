"""The agent: the process whose exit is the end. At first our child, later perhaps a successor that it has named.

An agent may name a descendant as its main process (MAINPID=, sd_notify(3)). That one is signalled in its place; when
the agent exits and the named process has become our child, it is the agent from then on.
"""

import posix

from .. import paths
from . import dispositions, later, procfs, tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from . import agent_user, successor
    from .procfs import Process
else:
    agent_user, successor = map(later.Module, ("init.agent_user", "init.successor"))


class MainProcess:
    """The agent's pid, process group, program name and wait status.

    `status`: None until its exit is known; until then its pid is its own. `named`: the process that it has named as its
    main one. `last_sender`: the process that sent the last READY or WATCHDOG, if it was not the agent itself.
    """

    __slots__ = ("_image", "_user", "dispositions", "group", "last_sender", "name", "named", "pid", "status")

    def __init__(self, pid: int, program: str) -> None:
        self.pid = self.group = pid
        self.name = paths.basename(program)
        self.status: int | None = None
        self.dispositions = dispositions.Dispositions(pid, patient=True)
        self._image = procfs.executable(pid), procfs.argv_of(pid)
        self._user: int | None = None
        self.named: Process | None = None
        self.last_sender: Process | None = None

    @property
    def program(self) -> "successor.Program":
        """Return what it ran when it was started, or became the agent."""
        return successor.Program(self.pid, self._image)

    @property
    def user(self) -> int | None:
        """Return its user id, that of the program behind a wrapper; once it has exited, the one seen last, or None."""
        if not self.has_exited:
            seen = procfs.user_of(agent_user.find(self.pid))
            self._user = self._user if seen is None else seen
        return self._user

    @property
    def has_exited(self) -> bool:
        """Whether its exit was seen."""
        return self.status is not None

    @property
    def shares_our_group(self) -> bool:
        """Whether it has put itself into agent-init's own process group."""
        return self.group == posix.getpgrp()

    def name_successor(self, pid: int, helper_pids: "Collection[int]") -> "Process | None":
        """The agent has named its main process. Return that if it is a new one.

        It must be below us, not below the agent: its parent may have exited, as a daemon's does, and the agent too.
        `helper_pids`: our own helper processes, which cannot be named. Raises ValueError for any other process.
        """
        named = procfs.look(pid)
        if pid == self.pid:
            self.named = None
            return None
        if named is None or pid in helper_pids or not tree.is_below(posix.getpid(), named):
            raise ValueError(f"MAINPID={pid} is not a descendant of the agent; ignored")
        if self.named is not None and self.named.identity == named.identity:
            return None
        self.named = named
        return named

    def hand_over(self) -> "Process | None":
        """The agent has exited. If its named main process has become our child, make that the agent and return it."""
        if self.named is None:
            return None
        now = procfs.look(self.named.pid)
        if now is None or now.identity != self.named.identity or not now.alive:
            return None
        if now.parent != posix.getpid():
            return None
        # These may fail for want of memory: before anything else.
        of_next = dispositions.Dispositions(now.pid, patient=True)
        image = procfs.executable(now.pid), procfs.argv_of(now.pid)
        self.dispositions.close()
        self.pid, self.group, self.name, self.status = now.pid, now.group, now.name, None
        self.named, self.dispositions, self._image = None, of_next, image
        return now

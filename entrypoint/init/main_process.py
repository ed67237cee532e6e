"""The agent: the process whose exit is the end. At first our child, later perhaps a successor that it has named.

An agent may name a descendant as its main process (MAINPID=, sd_notify(3)). That one is signalled in its place; when
the agent exits and the named process has become our child, it is the agent from then on.
"""

import os

from . import procfs, tree
from .successor import Program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from .procfs import Process


class MainProcess:
    """The agent's pid, process group, program name and wait status.

    `program`: what it ran when it was started, or became the agent.
    `status`: None until it was reaped; until then its pid is its own. `named`: the process that it has named as its
    main one. `last_sender`: the process that sent the last READY or WATCHDOG, if it was not the agent itself.
    """

    __slots__ = ("dispositions", "group", "last_sender", "name", "named", "pid", "program", "status")

    def __init__(self, pid: int, program: str) -> None:
        self.pid = self.group = pid
        self.name = os.path.basename(program)
        self.status: int | None = None
        self.dispositions = procfs.Dispositions(pid)
        self.program = Program(pid)
        self.named: Process | None = None
        self.last_sender: Process | None = None

    @property
    def has_exited(self) -> bool:
        """Whether its exit was seen."""
        return self.status is not None

    @property
    def shares_our_group(self) -> bool:
        """Whether it has put itself into agent-init's own process group."""
        return self.group == os.getpgrp()

    def name_successor(self, pid: int, helper_pids: "Collection[int]") -> "Process | None":
        """The agent has named its main process. Return that if it is a new one.

        It must be below us, not below the agent: its parent may have exited, as a daemon's does, and the agent too.
        `helper_pids`: our own helper processes, which cannot be named. Raises ValueError for any other process.
        """
        named = procfs.look(pid)
        if pid == self.pid:
            self.named = None
            return None
        if named is None or pid in helper_pids or not tree.is_below(os.getpid(), named):
            raise ValueError(f"MAINPID={pid} is not a descendant of the agent; ignored")
        if self.named is not None and self.named.identity == named.identity:
            return None
        self.named = named
        return named

    def hand_over(self) -> "Process | None":
        """The agent has exited. If its named main process has become our child, make that the agent and return it."""
        if self.named is None:
            return None
        successor = procfs.look(self.named.pid)
        if successor is None or successor.identity != self.named.identity or not successor.alive:
            return None
        if successor.parent != os.getpid():
            return None
        # These may fail for want of memory: before anything else.
        dispositions, program = procfs.Dispositions(successor.pid), Program(successor.pid)
        self.dispositions.close()
        self.pid, self.group, self.name, self.status = successor.pid, successor.group, successor.name, None
        self.named, self.dispositions, self.program = None, dispositions, program
        return successor

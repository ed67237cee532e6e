"""Notices when processes have exited that are not our children: SIGCHLD goes to their parents only."""

import posix

from . import procfs
from .spare_memory import NO_MEMORY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .loop import Loop, Timer
    from .procfs import Process

LOOK_AGAIN = 0.1  # seconds, where no descriptor shows an exit


class ExitWatch:
    """Watches one group of processes at a time, by pidfds (pidfd_open(2)), or by looking again and again."""

    __slots__ = ("_loop", "_on_exit", "_pidfds", "_processes", "_timer")

    def __init__(self, loop: "Loop", on_exit: "Callable[[], object]") -> None:
        """`on_exit` is called once all processes of a group have exited."""
        self._loop, self._on_exit = loop, on_exit
        self._processes: list[Process] = []
        self._pidfds: dict[int, Process] = {}
        self._timer: Timer | None = None

    def start(self, processes: "Sequence[Process]") -> None:
        """Watch these processes, and no longer those before."""
        self.stop()
        self._processes = list(processes)
        for process in self._processes:
            try:
                fd = posix.pidfd_open(process.pid)
            except (OSError, AttributeError):  # it has exited, or the kernel has no such call
                continue
            self._pidfds[fd] = process
            self._loop.add_reader(fd, self._look)
        self._look()

    def stop(self) -> None:
        """Watch nothing any more."""
        self._processes = []
        if self._timer is not None:
            self._loop.cancel(self._timer)
            self._timer = None
        for fd in tuple(self._pidfds):
            self._close(fd)

    def _look(self) -> None:
        processes = self._processes
        try:
            there = any(map(procfs.is_there, processes))
        except NO_MEMORY:  # try again; a pidfd can still be read, or will be
            if not self._pidfds:
                self._look_again()
            raise
        if there:
            for fd, process in tuple(self._pidfds.items()):
                if not procfs.is_there(process):
                    self._close(fd)
            if not self._pidfds:
                self._look_again()
            return
        try:
            self._on_exit()
        except NO_MEMORY:  # try again; a pidfd can still be read
            if not self._pidfds:
                self._look_again()
            raise
        if self._processes is processes:
            self.stop()

    def _look_again(self) -> None:
        self._timer = self._loop.call_at(self._loop.time() + LOOK_AGAIN, self._look)

    def _close(self, fd: int) -> None:
        self._loop.remove_reader(fd)
        posix.close(fd)
        del self._pidfds[fd]

"""The stall report: made by a process of its own (`entrypoint/report/`), taken in here line by line as it comes.

It uses psutil, takes time and memory, and may hang; none of that may happen to process 1, which kills it when its time
is over.
"""

import os
import sys

from .. import signals, units
from ..signals import OF_WRITES
from .console import LONGEST_LINE, json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from . import tree
    from .cgroup import Memory
    from .loop import Loop

NEEDS = 24 << 20  # bytes of memory
TIME_FOR_TAKING_IN = 0.9  # of the time that there is, so much is the reporter's
READ_AT_ONCE = 65536
LONGEST_REST = 16 * LONGEST_LINE  # a line without an end is no line


class Reporter:
    """Has reports made. `pids` are those of the processes which do it, our children, until they were reaped.

    Each line goes to `line`, and `done` is called when no more will come before the report's time is over.
    """

    __slots__ = ("_done", "_fd", "_fixed", "_line", "_loop", "_memory", "_program", "_rest", "_since", "_used", "pids")

    def __init__(
        self,
        loop: "Loop",
        memory: "Memory",
        package: str,
        *,
        since: float,
        responders: str,
        stacks: bool,
        arguments: bool,
        line: "Callable[[str], object]",
        done: "Callable[[], object]",
    ) -> None:
        """`since`: when the agent was started; `responders`: see `offer`; `stacks`: whether each Python of the agent's
        is to be one of them (--stacks); `arguments`: whether they may be told.
        """
        self.pids: set[int] = set()
        self._loop, self._memory, self._line, self._done = loop, memory, line, done
        self._program = package + "/entrypoint/report/__main__.py"
        self._fixed = {"root": os.getpid(), "responders": responders, "stacks": stacks, "arguments": arguments}
        self._since = since
        self._used: dict[str, tuple[int, int]] = {}
        self._fd = -1
        self._rest = b""

    def measure(self, processes: "Iterable[tree.Process]") -> None:
        """Note what each has used of the processor: a report tells what it used since."""
        self._since = self._loop.time()
        self._used = {str(process.pid): (process.start, process.cpu) for process in processes}

    def start(self, agent: int, seconds: float) -> None:
        """Have one made, which may take `seconds`; where it cannot be, a line tells why."""
        self.end()
        room = self._memory.room
        if room is not None and room < NEEDS:
            left, needed = units.format_bytes(room), units.format_bytes(NEEDS)
            self._line(f"no report of the processes: {left} of memory left, it takes {needed}")
            self._done()
            return
        request = {
            **self._fixed,
            "agent": agent,
            "since": self._since,
            "cpu": self._used,
            "seconds": seconds * TIME_FOR_TAKING_IN,
            "room": room,
        }
        try:
            self._spawn(json_text(request))
        except OSError as error:  # no process, no descriptor, no memory
            self._line(f"no report of the processes: {error.strerror}")
            self._done()
            return
        self._rest = b""
        self._loop.add_reader(self._fd, self._read)

    def end(self) -> None:
        """Its time is over: what it has told is taken in, the rest is not waited for."""
        if self._fd >= 0:
            self._take_in()
            self._close()
        for pid in self.pids:
            try:
                os.kill(pid, signals.KILL)
            except OSError:
                pass

    def _spawn(self, request: str) -> None:
        python = sys.executable or "/proc/self/exe"
        reader, writer = os.pipe()
        try:
            null = ((os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 2))
            pid = os.posix_spawn(
                python,
                [python, "-I", "-S", self._program, request],
                os.environ,
                file_actions=[*null, (os.POSIX_SPAWN_DUP2, writer, 1)],
                setpgroup=0,
                setsigmask=(),
                setsigdef=OF_WRITES,
            )
            self.pids.add(pid)
            os.set_blocking(reader, False)
            self._fd = reader
        except OSError:
            os.close(reader)
            raise
        finally:
            os.close(writer)

    def _read(self) -> None:
        if not self._take_in():
            self._close()
            self._done()

    def _take_in(self) -> bool:
        """The lines that have come since; False at the end."""
        try:
            block = os.read(self._fd, READ_AT_ONCE)
        except BlockingIOError:
            return True
        *lines, self._rest = (self._rest + block).split(b"\n")
        if len(self._rest) > LONGEST_REST:
            self._rest = b""
        for line in lines:
            if line:
                self._line(line.decode("utf-8", "backslashreplace"))
        return bool(block)

    def _close(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self._fd = -1

"""Stall reports: made by a process of their own (`entrypoint/report/`), read here line by line as they come.

The reporter uses psutil, takes time and memory, and may hang; none of that may happen to process 1, which kills it when
its time is up.
"""

import posix
import sys

from .. import signals, units
from ..signals import OF_WRITES
from . import later, procfs
from .console import MAX_LINE_BYTES, json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from .. import titles
    from .cgroup import Memory
    from .loop import Loop
    from .procfs import Process
else:
    titles = later.Module("titles")

NEEDED_BYTES = 24 << 20  # of memory
SHARE_OF_REPORTER = 0.9  # of the time that there is; the rest is for reading its lines
READ_AT_ONCE = 65536
MAX_ANSWER_SECONDS = 1.0  # that the reporter waits for the stacks of processes, unless it has much time
MAX_LISTED = 12  # processes in the list that replaces a report
MAX_REST_BYTES = 16 * MAX_LINE_BYTES  # a line without an end is no line


class Reporter:
    """Has reports made. `pids`: the reporters, which are our children, until they were reaped.

    `helper_pids`: those of all our own helper processes, these among them.

    `on_line` is called with each line, `on_complete` when no more will come before the report's time is up.
    """

    __slots__ = (
        "_began",
        "_cpu_snapshot",
        "_fd",
        "_fixed",
        "_has_lines",
        "_loop",
        "_memory",
        "_on_complete",
        "_on_line",
        "_program",
        "_rest",
        "_since",
        "helper_pids",
        "pids",
    )

    def __init__(
        self,
        loop: "Loop",
        memory: "Memory",
        package: str,
        helper_pids: set[int],
        *,
        since: float,
        responders: str,
        stacks: bool,
        arguments: bool,
        on_line: "Callable[[str], object]",
        on_complete: "Callable[[], object]",
    ) -> None:
        """`since`: when the agent was started. `responders`: see `agent_environment`. `stacks`: whether every Python
        process of the agent should have a responder (--stacks). `arguments`: whether a report may show command lines.
        """
        self.pids: set[int] = set()
        self.helper_pids = helper_pids
        self._loop, self._memory, self._on_line, self._on_complete = loop, memory, on_line, on_complete
        self._program = package + "/entrypoint/report/__main__.py"
        self._fixed = {"root": posix.getpid(), "responders": responders, "stacks": stacks, "arguments": arguments}
        self._since = since
        self._cpu_snapshot: dict[str, tuple[int, int]] = {}
        self._fd = -1
        self._rest = b""
        self._began, self._has_lines = 0.0, False  # of the last report

    def take_cpu_snapshot(self, processes: "Iterable[Process]") -> None:
        """Note how much processor time each process has used: a report shows what it has used since."""
        self._since = self._loop.time()
        self._cpu_snapshot = {str(process.pid): (process.start, process.cpu) for process in processes}

    def start(self, agent: int, seconds: float) -> None:
        """Have a report made within `seconds`; if that is impossible, one line says why."""
        self.end()
        available = self._memory.available_bytes
        if available is not None and available < NEEDED_BYTES:
            left, needed = units.format_bytes(available), units.format_bytes(NEEDED_BYTES)
            self._on_line(f"no process report: it needs {needed} of memory, {left} are left")
            self._on_complete()
            return
        try:
            self._spawn(self.request(agent, seconds))
        except OSError as error:  # no process, no descriptor, no memory
            self._on_line(f"no process report: {error.strerror}")
            self._on_complete()
            return
        self._rest = b""
        self._began, self._has_lines = self._loop.time(), False
        self._loop.add_reader(self._fd, self._read)

    def request(self, agent: int, seconds: float) -> str:
        """Return what a reporter gets (`report/__main__.py`), as JSON."""
        return json_text(
            {
                **self._fixed,
                "agent": agent,
                "since": self._since,
                "cpu": self._cpu_snapshot,
                "helpers": sorted(self.helper_pids),
                "seconds": seconds * SHARE_OF_REPORTER,
                "answers": max(MAX_ANSWER_SECONDS, seconds / 2),
                "room": self._memory.available_bytes,
            }
        )

    def end(self) -> bool:
        """Its time is up: read the lines that have come, and do not wait for the rest. Return whether there is one."""
        is_cut = False
        if self._fd >= 0:
            is_cut = self._read_lines() and self._read_lines()  # again: for the end of the pipe
            self._close()
        for pid in self.pids:
            try:
                posix.kill(pid, signals.KILL)
            except OSError:
                pass
        return is_cut

    def replacement(self, processes: "Sequence[Process] | None") -> "Iterator[str]":
        """Yield lines in place of what is missing of a report that was cut off: that it was, and what there is.

        `processes`: those below us, None if they cannot be listed. Next to nothing is looked up: time is up.
        """
        seconds = units.format_duration(round(self._loop.time() - self._began, 1))
        yield f"report: cut off after {seconds}, the reporter has got too little processor time or memory"
        if self._has_lines or processes is None:
            return
        for process in processes[:MAX_LISTED]:
            start, ticks = self._cpu_snapshot.get(str(process.pid), (-1, 0))
            used, since = (
                (process.cpu - ticks, "since the stop") if start == process.start else (process.cpu, "in total")
            )
            cpu = f"cpu {used / posix.sysconf('SC_CLK_TCK'):.2f}s {since}"
            state = "sleeping" if process.waits else "running or blocked"
            waits = procfs.wait_channel(process.pid).decode("ascii", "replace")
            at = f", waits in {waits}" if waits not in ("", "0") else ""
            yield f"report: {_title(process)} (pid {process.pid}), child of {process.parent}, {state}, {cpu}{at}"
        if len(processes) > MAX_LISTED:
            yield f"report: and {len(processes) - MAX_LISTED} more"

    def _spawn(self, request: str) -> None:
        python = sys.executable or "/proc/self/exe"
        reader, writer = posix.pipe()
        try:
            null = ((posix.POSIX_SPAWN_OPEN, fd, "/dev/null", posix.O_RDWR, 0) for fd in (0, 2))
            pid = posix.posix_spawn(
                python,
                [python, "-I", "-S", self._program, request],
                {name: value for name, value in posix.environ.items() if name},  # posix_spawn refuses an empty name
                file_actions=[*null, (posix.POSIX_SPAWN_DUP2, writer, 1)],
                setpgroup=0,
                setsigmask=(),
                setsigdef=OF_WRITES,
            )
            self.helper_pids.add(pid)
            self.pids.add(pid)
            posix.set_blocking(reader, False)
            self._fd = reader
        except OSError:
            posix.close(reader)
            raise
        finally:
            posix.close(writer)

    def _read(self) -> None:
        if not self._read_lines():
            self._close()
            self._on_complete()

    def _read_lines(self) -> bool:
        """Read the lines that have come since; return False at the end."""
        try:
            block = posix.read(self._fd, READ_AT_ONCE)
        except BlockingIOError:
            return True
        *lines, self._rest = (self._rest + block).split(b"\n")
        if len(self._rest) > MAX_REST_BYTES:
            self._rest = b""
        for line in lines:
            if line:
                self._has_lines = True
                self._on_line(line.decode("utf-8", "backslashreplace"))
        return bool(block)

    def _close(self) -> None:
        self._loop.remove_reader(self._fd)
        posix.close(self._fd)
        self._fd = -1


def _title(process: "Process") -> str:
    try:
        return titles.of(process.name, procfs.argv_of(process.pid))
    except Exception:  # no memory to load it
        return process.name

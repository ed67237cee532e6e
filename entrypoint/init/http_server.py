"""The HTTP server (--http), seen from process 1: it starts, feeds and restarts it, and ends it last.

The server is a process of its own (`entrypoint/serve/`), with packages that process 1 does without. It gets the state
through a pipe, and nothing comes back: no client of it can reach process 1. A write never blocks. Where the pipe is
full, as the server was stopped or is starved, poll(2) reports when there is space, and the state of that time goes.

Nothing is written while nothing changes. What only counts (signals, pings, orphans) is written once a second at most.
"""

import posix
import select

from .. import __version__, http_state, signals
from ..signals import KILL, OF_WRITES
from ..units import INFINITY
from . import exit_status, http_program
from .console import DEBUG, INFO, WARNING
from .lifecycle import ENDED, KILLING
from .spare_memory import NO_MEMORY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .loop import Timer
    from .supervisor import Supervisor

MIN_RETRY, MAX_RETRY = 1.0, 60.0  # seconds until it is started again; twice as long each time
WORKS_AFTER = 5.0  # seconds; one that cannot listen has exited by then
LASTING = 60.0  # seconds after which the next failure is tried again as soon as the first
COUNTS_EVERY = 1.0  # seconds between two writes of what only counts


class HttpServer:
    """One server at a time. `pid`: its pid until it was reaped, else 0."""

    def __init__(self, supervisor: "Supervisor", package: str) -> None:
        """`package`: the directory of `entrypoint`."""
        assert supervisor.settings.http is not None
        self._supervisor, self._loop, self._console = supervisor, supervisor.loop, supervisor.console
        self._address, self._package = supervisor.settings.http, package
        self.pid = 0
        self._fd = -1  # where the state is written
        self._is_full = False
        self._started_at = -INFINITY
        self._retry_after = MIN_RETRY
        self._failure = ""  # the last one that was logged
        self._written: tuple[object, ...] = ()  # the outline of the state that was written last
        self._written_counts: tuple[object, ...] = ()
        self._counts_due = -INFINITY
        self._timer: Timer | None = None  # for what only counts
        self._works_timer: Timer | None = None

    def start(self) -> None:
        """Start it; if that fails, try again later."""
        self._started_at = self._loop.time()
        try:
            self._spawn()
        except (OSError, *NO_MEMORY) as error:  # no process, no descriptor, no memory
            why = error.strerror if isinstance(error, OSError) else "out of memory"
            self._failed(f"the HTTP server cannot be started: {why}")
            return
        where = http_state.address_of(*self._address)
        level = DEBUG if self._failure else INFO
        self._console.log(level, "http", f"HTTP server (pid {self.pid}) for {where}", pid=self.pid, address=where)
        self._write()
        if self._failure and self._fd >= 0:
            self._works_timer = self._loop.call_at(self._started_at + WORKS_AFTER, self._works)

    def update(self) -> None:
        """Write the state if it has changed."""
        if self._outline() != self._written:
            self._write()
        self.note_counts()

    def note_counts(self) -> None:
        """Something was counted: write that, now or within a second."""
        if self._timer is None and self._fd >= 0:
            self._timer = self._loop.call_at(max(self._loop.time(), self._counts_due), self._write_counts)

    def exited(self, pid: int, status: int) -> None:
        """A helper process was reaped. If it was the server, start it again, unless all is being killed."""
        if pid != self.pid:
            return
        self.pid = 0
        self._close()
        if self._supervisor.lifecycle.state in (KILLING, ENDED):
            return
        code = posix.WEXITSTATUS(status) if posix.WIFEXITED(status) else 0
        lasted = self._loop.time() - self._started_at
        if lasted >= LASTING:
            self._retry_after = MIN_RETRY
        if code == http_state.OTHER_USER:  # no failure; but not more often than once in so long
            self._loop.call_at(max(self._loop.time(), self._started_at + MIN_RETRY), self._start_again)
        else:
            self._failed(self._describe(code, status))

    def end(self) -> None:
        """Kill it, and do not wait for its exit."""
        self._close()
        if self.pid:
            posix.kill(self.pid, KILL)

    def _describe(self, code: int, status: int) -> str:
        if code > http_state.CANNOT_LISTEN:
            where = http_state.address_of(*self._address)
            return f"the HTTP server cannot listen on {where}: {posix.strerror(code - http_state.CANNOT_LISTEN)}"
        if code == http_state.NOT_INSTALLED:
            return f"the HTTP server does not find its packages ({http_state.INSTALL})"
        return f"the HTTP server {exit_status.describe(status)}"

    def _failed(self, text: str) -> None:
        """Start it again later, and log why; the same failure once."""
        after = self._retry_after
        if text != self._failure:
            self._console.log(WARNING, "http", f"{text}; trying again in {after:g}s, then less often")
        self._failure = text
        self._retry_after = min(after * 2, MAX_RETRY)
        self._loop.call_at(self._loop.time() + after, self._start_again)

    def _works(self) -> None:
        """Log that it is there again; its next failure is logged, too."""
        self._works_timer, self._failure = None, ""
        where = http_state.address_of(*self._address)
        text = f"HTTP server (pid {self.pid}) for {where} works now"
        self._console.log(INFO, "http", text, pid=self.pid, address=where)

    def _start_again(self) -> None:
        if self._supervisor.lifecycle.state not in (KILLING, ENDED):
            self.start()

    def _spawn(self) -> None:
        host, port = self._address
        python, *arguments = http_program.command(self._package, host, str(port))
        reader, writer = posix.pipe()
        try:
            null = [(posix.POSIX_SPAWN_OPEN, 1, "/dev/null", posix.O_WRONLY, 0)]
            if self._console.level < DEBUG:  # a traceback would be no line of the log
                null.append((posix.POSIX_SPAWN_OPEN, 2, "/dev/null", posix.O_WRONLY, 0))
            pid = posix.posix_spawn(
                python,
                [python, *arguments],
                http_program.environment(),
                file_actions=[(posix.POSIX_SPAWN_DUP2, reader, 0), *null],
                setpgroup=0,
                setsigmask=(),
                setsigdef=OF_WRITES,
            )
            self._supervisor.helper_pids.add(pid)
            self.pid = pid
            posix.set_blocking(writer, False)
            self._fd = writer
        except BaseException:
            posix.close(writer)
            raise
        finally:
            posix.close(reader)

    # --- The state. -------------------------------------------------------------------------------------------------

    def _write_counts(self) -> None:
        self._timer = None
        if self._counts() != self._written_counts:
            self._write()

    def _outline(self) -> tuple[object, ...]:
        return self._supervisor.agent.pid, *self._supervisor.lifecycle.outline

    def _counts(self) -> tuple[object, ...]:
        counters = self._supervisor.execution.counters
        last_ping = self._supervisor.lifecycle.last_ping
        return sum(counters.forwarded), sum(counters.dropped), counters.reaped, last_ping

    def _write(self) -> None:
        if self._fd < 0 or self._is_full:
            return
        outline, counts = self._outline(), self._counts()
        try:
            posix.write(self._fd, http_state.encode(self._fields()))
        except BlockingIOError:
            self._is_full = True
            self._loop.add_reader(self._fd, self._has_space, select.POLLOUT)
            return
        except OSError:  # it has exited, which SIGCHLD reports
            self._close()
            return
        self._written, self._written_counts = outline, counts
        self._counts_due = self._loop.time() + COUNTS_EVERY

    def _has_space(self) -> None:
        self._is_full = False
        self._loop.remove_reader(self._fd)
        self._write()

    def _fields(self) -> dict[str, object]:
        """Return what may be shown to anybody: not the command, nor STATUS, arguments or environment."""
        supervisor, lifecycle = self._supervisor, self._supervisor.lifecycle
        counters = supervisor.execution.counters
        now = self._loop.time()
        facts = lifecycle.facts(now)
        steps = (f"{signals.name_of(number)}:{now + seconds:.3f}" for number, seconds in facts["next"])
        return {
            "VERSION": __version__,
            "STATE": lifecycle.shown_state,
            "SINCE": lifecycle.since,
            "STARTED": now - facts["uptime"],
            "WAS_READY": int(lifecycle.ready),
            "HUNG": lifecycle.hung,
            "AGENT": 0 if supervisor.agent.has_exited else supervisor.agent.pid,
            "REQUESTED": None if facts["elapsed"] is None else now - facts["elapsed"],
            "KILL": None if facts["left"] is None else now + facts["left"],
            "NEXT": ",".join(steps),
            "PLATFORM": facts["platform"],
            "WATCHDOG": facts["watchdog"],
            "LAST_PING": lifecycle.last_ping,
            "OOM_BEFORE": supervisor.memory.kills_before,
            "FORWARDED": signals.counts(counters.forwarded),
            "DROPPED": signals.counts(counters.dropped),
            "REAPED": counters.reaped,
            "REFUSED": supervisor.control.refused if supervisor.control is not None else 0,
            "RESPONDERS": supervisor.environment.responders if supervisor.environment is not None else "",
        }

    def _close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            posix.close(self._fd)
        self._fd, self._is_full, self._written = -1, False, ()
        for timer in (self._timer, self._works_timer):
            if timer is not None:
                self._loop.cancel(timer)
        self._timer = self._works_timer = None

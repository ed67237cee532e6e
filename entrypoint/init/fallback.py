"""The last resort: a loop no larger than tini's, for when the supervisor cannot be set up or cannot go on.

It forwards signals to the agent, passes the first stop request on as the stop signal, keeps the deadline, reaps, and
ends with the agent's exit code. Nothing else: no wrappers, no messages, no reports, no time for what the agent leaves
behind. It is loaded before the agent starts, imports only what is loaded anyway, and needs next to no memory.

Signals stay blocked and pending until sigwait(3) takes one; it returns a small number, so none is lost for want of
memory. A timer signal ends the wait (setitimer(2)).
"""

import _signal
import posix
import time

from .. import paths
from ..signals import CHLD, CONT, EOF, JOB_CONTROL, KILL, OF_WRITES, TERM, VALID
from ..units import INFINITY
from .spare_memory import OF_FALLBACK, ensure_two_numbers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..parsed import Settings

ALRM = int(_signal.SIGALRM)
NOT_FORWARDED = JOB_CONTROL | OF_WRITES | {CHLD}
MAX_WAIT = 3600.0  # seconds; setitimer(2) does not take any number of them
SWEEP_EVERY = 0.02  # seconds between two SIGKILLs to everything
GIVE_UP_AFTER = 2.0  # seconds; what has not died of SIGKILL by then does not hold up the end
BEFORE_RETRY = 0.05  # seconds, after a failure
STATUS_LOST = 125  # the exit code where somebody else has taken the status


class Fallback:
    """Everything that the loop needs to know. All of it may be changed until `run` is called.

    `pid`: the agent's. `status`: its wait status once it was reaped. `grace`: seconds from the stop request to SIGKILL.
    `kill_at`: when SIGKILL is due, `requested_at`: when the stop was requested (monotonic clock), infinity for neither.
    `stop_sent`: the agent has got the stop signal. `inbox`: signals that were received and are not handled yet.
    """

    __slots__ = (
        "_came",
        "_for_us",
        "_give_up_at",
        "_group",
        "_ok_exit",
        "_ready_file",
        "_rewrite",
        "_stop_on",
        "_timer_used",
        "grace",
        "inbox",
        "kill_at",
        "pid",
        "requested_at",
        "reserve",
        "status",
        "stop_sent",
        "stop_signal",
    )

    def __init__(self, settings: "Settings") -> None:
        self.reserve = OF_FALLBACK
        self.pid = 0
        self.status: int | None = None
        self.requested_at = self.kill_at = INFINITY
        self.inbox: list[int] = []
        self.stop_signal, self.grace = _plan(settings)
        self._stop_on, self._rewrite, self._ok_exit = settings.stop_on, settings.rewrite, settings.ok_exit
        self._group = settings.target == "group"
        self._for_us = NOT_FORWARDED | settings.report_on
        self._ready_file = settings.ready_file
        self._came = 0  # a signal that was received and is not handled yet
        self._give_up_at = INFINITY
        self.stop_sent = self._timer_used = False

    def run(self) -> int:
        """Run until the agent has exited; return the exit code. Does not raise."""
        self.reserve.release()
        failed = not _succeeds(self.block)
        while not self._is_over():
            ended = _succeeds(self._enforce)
            waited = _succeeds(self._receive, failed or not ended)
            failed = not (ended and waited)
            if not waited:
                _succeeds(time.sleep, BEFORE_RETRY)
        return self.exit_code

    @property
    def exit_code(self) -> int:
        """The agent's exit code as a shell has it; that of SIGKILL if it has not exited yet."""
        code = 128 + KILL
        if self.status is not None:
            code = posix.waitstatus_to_exitcode(self.status)
            code = code if code >= 0 else 128 - code
        elif self._give_up_at == INFINITY:
            code = STATUS_LOST
        return 0 if code in self._ok_exit else code

    def notice_stop_request(self) -> None:
        """Start the grace period if a stop request is pending, while somebody else may still take over."""
        pending = [number for number in _signal.sigpending() if self._rewrite.get(number, number) != 0]
        if self.requested_at == INFINITY and not self._stop_on.isdisjoint(pending):
            self.requested_at = time.monotonic()

    def forget_stop_request(self) -> None:
        """Somebody else has taken over."""
        self.requested_at = INFINITY

    def block(self) -> None:
        """Block all signals. They are already, except where the supervisor had to have handlers for them."""
        _signal.pthread_sigmask(_signal.SIG_BLOCK, VALID)

    def _is_over(self) -> bool:
        """Reap what has exited. Return whether nothing is left, or the time for that is up."""
        try:
            while True:
                ensure_two_numbers()
                pid, status = posix.waitpid(-1, posix.WNOHANG)
                if pid == 0:
                    break
                if pid == self.pid:
                    self.status = status
        except ChildProcessError:
            return True
        except Exception:  # it is tried again soon; the deadline is kept meanwhile
            pass
        try:
            now = time.monotonic()
            if self._give_up_at == INFINITY and (self.status is not None or now >= self.kill_at):
                self._give_up_at = now + GIVE_UP_AFTER
            return now >= self._give_up_at
        except Exception:  # no memory for a number
            return False

    def _enforce(self) -> None:
        """Send SIGKILL to everything from the deadline on, or once the agent has exited."""
        if self._give_up_at == INFINITY:
            return
        if posix.getpid() == 1:
            _send(-1, KILL)
            return
        if self.status is None:
            _send(self.pid, KILL)
            _send(-self.pid, KILL)
        for pid in _children():  # their children will be ours next time
            _send(pid, KILL)

    def _receive(self, soon: bool) -> None:
        """Handle the signals that have come, then wait for the next one, for a moment only if `soon`."""
        while self.inbox:
            self._handle(self.inbox[0])
            del self.inbox[0]
        if self._came:
            self._handle(self._came)
            self._came = 0
        wait = BEFORE_RETRY if soon else INFINITY
        if self._give_up_at < INFINITY:
            wait = SWEEP_EVERY
        elif self.kill_at < INFINITY:
            wait = min(wait, max(self.kill_at - time.monotonic(), SWEEP_EVERY), MAX_WAIT)
        if wait < INFINITY or self._timer_used:
            self._timer_used = True
            # With an interval, as the timer may go off before sigwait(3) is called.
            timer = _signal.ITIMER_REAL, wait if wait < INFINITY else 0.0, SWEEP_EVERY
            if not _succeeds(_signal.setitimer, *timer) and not _signal.sigpending():
                time.sleep(BEFORE_RETRY)
                return
        self._came = int(_signal.sigwait(VALID))  # the next call handles it, at once

    def _handle(self, number: int) -> None:
        if number in self._for_us or (number == ALRM and self._timer_used):
            return
        rewritten = self._rewrite.get(number, number)
        if rewritten == 0 and number != EOF:
            return
        if number not in self._stop_on and rewritten not in self._stop_on:
            self._send_agent(rewritten)
        elif not self.stop_sent:
            self.request_stop(rewritten if rewritten != number else self.stop_signal)

    def request_stop(self, number: int) -> None:
        """Start the grace period, unless it has started, and send the stop signal. It may be repeated if it raises."""
        if self._ready_file is not None:
            _succeeds(paths.unlink_file, self._ready_file)
        requested_at = time.monotonic() if self.requested_at == INFINITY else self.requested_at
        self.kill_at = min(self.kill_at, requested_at + self.grace)
        self.requested_at = requested_at
        self._send_agent(number)
        self.stop_sent = True
        _succeeds(self._send_agent, CONT)

    def _send_agent(self, number: int) -> None:
        if self.status is None:  # else its pid may be another process's
            _send(-self.pid if self._group else self.pid, number)


def describe_error(error: BaseException) -> str:
    """Return an error's type, text and place: the function, and the line where it is known (see `unused`)."""
    where, at = error.__traceback__, ""
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    if where is not None:
        code, line = where.tb_frame.f_code, where.tb_lineno
        at = f" ({paths.basename(code.co_filename)}{f':{line}' if line else ''} in {code.co_name})"
    text = str(error)
    return f"{type(error).__name__}{text and ': '}{text}{at}"


def write_line(log_fd: int, text: str) -> None:
    """Write a line to the log without blocking, where the module for that cannot be loaded. Raises OSError."""
    fd = posix.open(f"/proc/self/fd/{log_fd}", posix.O_WRONLY | posix.O_APPEND | posix.O_NONBLOCK | posix.O_NOCTTY)
    try:
        posix.write(fd, b"agent-init: error: %s\n" % text.encode("ascii", "backslashreplace")[:4000])
    finally:
        posix.close(fd)


def _plan(settings: "Settings") -> tuple[int, float]:
    """Return the stop signal and the seconds from the request to SIGKILL, as far as the settings have them."""
    if settings.stop_schedule:
        *waits, (last, _) = settings.stop_schedule
        signal = settings.stop_schedule[0][0]
        seconds = sum(wait for _, wait in waits) if last == KILL else INFINITY
    else:
        signal = TERM if settings.stop_signal is None else settings.stop_signal
        # Without a grace of the user's the platform decides; a default of ours must not cut anything short.
        seconds = INFINITY if settings.grace is None else settings.grace
    return signal, min(seconds, settings.latest_kill)


def _succeeds(step: "Callable[..., object]", *arguments: object) -> bool:
    try:
        step(*arguments)
        return True
    except Exception:
        return False


def _send(pid: int, number: int) -> None:
    try:
        posix.kill(pid, number)
    except OSError:  # it has exited, or we may not
        pass


def _children() -> "Iterable[int]":
    """Return the pids of our children (proc(5)); none where the kernel does not list them."""
    pid = posix.getpid()
    try:
        fd = posix.open(f"/proc/{pid}/task/{pid}/children", posix.O_RDONLY)
    except OSError:
        return ()
    try:
        return [int(child) for child in posix.read(fd, 4096).split()[:400]]
    finally:
        posix.close(fd)

"""What the agent sends to process 1: one datagram a message, with its sender's pid from the kernel (unix(7)).

A datagram that is too long, torn or malformed is dropped, and descriptors sent with it are closed. What counts of the
others depends on the sender, see `notify_access`.

Closing a descriptor can take as long as its owner likes (SO_LINGER, socket(7); a file system of theirs, in close(2)),
and the kernel closes those that do not fit inside our recvmsg(2). So a message is only peeked at, with no space for
descriptors: that opens and closes none. A message that has any is then taken out of the queue by a thread.
"""

import _signal
import _socket
import _thread
import posix
import select
import sys

from .. import notify
from ..signals import CHLD
from . import later
from .console import DEBUG, WARNING
from .spare_memory import NO_MEMORY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from . import notify_access
    from .console import Console
    from .loop import Loop
    from .main_process import MainProcess
    from .procfs import Process
else:
    notify_access = later.Module("init.notify_access")

MAX_MESSAGES, MAX_SECONDS = 64, 0.02  # at once; then the clock and the signals have their turn
# At once in any case: as many as the queue holds (net.unix.max_dgram_qlen is 10 by default, unix(7)). An agent's last
# messages are received before its exit is handled, also if process 1 gets no processor meanwhile.
MIN_MESSAGES = 11
RETRY_AFTER = 0.1  # seconds until a thread is asked for again, or the socket read again after a first failure
MAX_RETRY = 60.0  # seconds; each further failure doubles the wait
ANCILLARY_BYTES = _socket.CMSG_SPACE(12)  # for the sender's credentials, which come first
PEEK = _socket.MSG_PEEK | _socket.MSG_DONTWAIT
# Passed on to a supervisor above us. It deals with us: not with the agent's pid, nor its descriptors.
PASSED_ON = ("READY", "RELOADING", "MONOTONIC_USEC", "STOPPING", "STATUS", "ERRNO", "EXTEND_TIMEOUT_USEC", "WATCHDOG")


class NotifySocket:
    """Receives messages; `on_readable` is called when there are any.

    `access`: whose messages count (--notify-access). `parent`: the NOTIFY_SOCKET that we were started
    with, or nothing; the agent's messages are passed on to it.
    """

    __slots__ = (
        "_access",
        "_aside",
        "_console",
        "_dropped",
        "_helper_logged",
        "_loop",
        "_main_thread",
        "_on_readable",
        "_parent",
        "_paused",
        "_queue",
        "_retry_after",
        "_socket",
        "_stranger_logged",
    )

    def __init__(
        self,
        socket: _socket.socket,
        parent: str,
        access: str,
        console: "Console",
        loop: "Loop",
        on_readable: "Callable[[], object]",
    ) -> None:
        self._socket, self._access, self._console, self._loop = socket, access, console, loop
        self._on_readable = on_readable
        self._stranger_logged = self._helper_logged = False
        self._aside = False  # a thread is taking a message out of the queue
        self._dropped = False  # it is done, or the attempt to start one has failed
        self._main_thread = _thread.get_ident()
        self._queue = select.poll()
        self._queue.register(socket.fileno(), select.POLLIN)
        self._paused = False  # it is not read for a while, as that has failed
        self._retry_after = 0.0  # seconds of the last pause; 0 if the last attempt to read has not failed
        loop.add_reader(socket.fileno(), on_readable)
        try:
            self._parent = notify.address(parent) if parent else ""
        except ValueError as error:
            self._parent = ""
            console.log(WARNING, "not-passed-on", f"NOTIFY_SOCKET as given to agent-init: {error}")

    def receive(self, agent: "MainProcess", handle: "Callable[[dict[str, str], Process], object]") -> None:
        """Pass the fields of each message and its sender to `handle`, as far as the senders are known.

        A message is taken out of the queue once it was handled; with BARRIER=1 that is the answer. If there is no
        memory to handle it, it stays there and is received again. Raises what `handle` raises.
        """
        self.resume()
        if self._is_empty():
            return
        until = self._loop.time() + MAX_SECONDS
        for number in range(MAX_MESSAGES):
            if self._aside or (number >= MIN_MESSAGES and self._loop.time() > until):
                return
            try:
                data, ancillary, flags, _ = self._socket.recvmsg(notify.MAX_DATAGRAM_BYTES, ANCILLARY_BYTES, PEEK)
            except BlockingIOError:
                self._retry_after = 0.0
                return
            except OSError as error:
                self._pause(error)
                return
            self._retry_after = 0.0
            try:
                fields = {} if flags & _socket.MSG_TRUNC else notify.parse(data)
            except ValueError:
                fields = {}  # malformed
            take_out = self._set_aside if flags & _socket.MSG_CTRUNC else self._drop  # truncated: it has descriptors
            try:
                accepted = self._accept(fields, _sender_pid(ancillary), agent) if fields else None
                if accepted is not None and accepted.fields and accepted.sender is not None:
                    handle(accepted.fields, accepted.sender)
                    self._pass_on(accepted.fields)
            except NO_MEMORY:
                raise
            except Exception:
                take_out()
                raise
            take_out()

    def _is_empty(self) -> bool:
        """Whether no message is there, for certain. Mostly none is, and an exception would take longer."""
        try:
            return not self._queue.poll(0)
        except OSError:  # poll(2) needs the limit on descriptors to be at least 1
            return False

    def _pause(self, error: OSError) -> None:
        """Do not read the socket for a while, each time a longer one: the call may be refused for good (seccomp)."""
        if self._paused:
            return
        if not self._retry_after:
            text = f"cannot receive the agent's messages: {error.strerror}; trying again from time to time"
            self._console.log(WARNING, "not-received", text)
        retry_after = min(max(RETRY_AFTER, 2 * self._retry_after), MAX_RETRY)
        self._loop.call_at(self._loop.time() + retry_after, self._continue)
        self._paused, self._retry_after = True, retry_after
        self._loop.remove_reader(self._socket.fileno())

    def _continue(self) -> None:
        """The pause is over."""
        self._paused = False
        if not self._aside:
            self._loop.add_reader(self._socket.fileno(), self._on_readable)

    def _drop(self) -> None:
        """Take the message that was peeked at out of the queue, and close what came with it."""
        self._socket.recvmsg(1, 0, _socket.MSG_DONTWAIT)  # the call that has shown it: no other one may be allowed

    def _set_aside(self) -> None:
        """Have a thread drop the message, now or when one can be had; nothing is received until then."""
        if not self._aside:
            self._loop.remove_reader(self._socket.fileno())
        self._aside, self._dropped = True, False
        try:
            _thread.start_new_thread(self._drop_aside, ())
        except Exception:  # the pids limit, no memory
            self._dropped = True  # if there is no memory for a timer either, `resume` has it received once more
            self._loop.call_at(self._loop.time() + RETRY_AFTER, self._set_aside)
            self._dropped = False

    def _drop_aside(self) -> None:
        """Drop the message, in the thread."""
        try:
            self._drop()
        except Exception:  # it is received once more
            pass
        self._dropped = True
        # Wake the loop; one of the two may be refused (seccomp).
        wakes = (lambda: posix.kill(posix.getpid(), CHLD)), (lambda: _signal.pthread_kill(self._main_thread, CHLD))
        for wake in wakes:
            try:
                wake()
                return
            except OSError:
                continue

    def resume(self) -> None:
        """Receive again, if the thread is done."""
        if self._aside and self._dropped:
            self._loop.add_reader(self._socket.fileno(), self._on_readable)
            self._aside = False

    def _accept(self, fields: dict[str, str], pid: int, agent: "MainProcess") -> "notify_access.Accepted":
        """Return what counts of a message. The first of a stranger, and of a helper, is logged as a warning."""
        accepted = notify_access.accept(fields, pid, agent, self._access)
        sender = accepted.sender
        if accepted.is_helpers:
            ignored = ", ".join(key for key in fields if key not in accepted.fields)
            text = (
                f"ignored {ignored} from {sender}: a helper does not speak for the agent (--notify-access all lets it)"
            )
            self._console.log(DEBUG if self._helper_logged else WARNING, "not-the-agent", text, pid=pid)
            self._helper_logged = True
        elif not accepted.fields:
            who = str(sender) if sender else f"pid {pid}, which is gone" if pid else "another container"
            text = f"ignored a message to the notify socket from {who} (--notify-access {self._access})"
            self._console.log(DEBUG if self._stranger_logged else WARNING, "stranger", text, pid=pid)
            self._stranger_logged = True
        return accepted

    def _pass_on(self, fields: dict[str, str]) -> None:
        """Pass fields on to the supervisor above us, systemd or podman's --sdnotify, without waiting for it."""
        passed: dict[str, object] = {key: fields[key] for key in PASSED_ON if key in fields}
        if passed.get("WATCHDOG") == "trigger":  # we handle that
            del passed["WATCHDOG"]
        if not self._parent or not passed:
            return
        if posix.getpid() != 1:  # as process 1 we have another pid out there
            passed["MAINPID"] = posix.getpid()
        try:
            out = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
            try:
                out.sendto(notify.encode(passed), _socket.MSG_DONTWAIT, self._parent)
            finally:
                out.close()
        except OSError as error:
            text = f"cannot pass a message of the agent on to {self._parent!r}: {error.strerror}"
            self._console.log(DEBUG, "not-passed-on", text)


def _sender_pid(ancillary: list[tuple[int, int, bytes]]) -> int:
    """Return the sender's pid in our PID namespace; 0 if it is outside it, or if there are no credentials."""
    for level, kind, value in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_CREDENTIALS:
            return int.from_bytes(value[:4], sys.byteorder)  # struct ucred: pid, uid, gid
    return 0

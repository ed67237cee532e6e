"""What the agent sends to process 1: one datagram a message, with its sender's pid from the kernel (unix(7)).

What comes is either a whole message of a known sender or ignored: a datagram that is too long, torn or malformed is
dropped, and descriptors sent with it are closed.

Closing a descriptor can take as long as its owner likes (SO_LINGER, socket(7); a file system of theirs), and those that
do not fit are closed by the kernel inside our recvmsg(2). So a message is only peeked at, which cannot close the last
reference to anything; one with pipes, as BARRIER=1 sends them, is then taken out of the queue here, and one with
anything else by a thread.
"""

import _socket
import _thread
import os
import stat
import sys

from .. import notify
from ..signals import CHLD
from . import procfs, tree
from .console import DEBUG, WARNING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .console import Console
    from .loop import Loop, Timer
    from .procfs import Process

MAX_MESSAGES, MAX_SECONDS = 64, 0.02  # at once; then the clock and the signals have their turn
RETRY_AFTER = 0.1  # seconds until a thread is asked for again
# For the sender's credentials and as many descriptors as can be sent at once (SCM_MAX_FD, unix(7)).
ANCILLARY_BYTES = _socket.CMSG_SPACE(12) + _socket.CMSG_SPACE(4 * 253)
PEEK = _socket.MSG_PEEK | _socket.MSG_DONTWAIT | _socket.MSG_CMSG_CLOEXEC
# Passed on to a supervisor above us. It deals with us: not with the agent's pid, nor its descriptors.
PASSED_ON = ("READY", "RELOADING", "MONOTONIC_USEC", "STOPPING", "STATUS", "ERRNO", "EXTEND_TIMEOUT_USEC", "WATCHDOG")


class NotifySocket:
    """Receives messages; `on_readable` is called when there are any.

    `access`: whose messages count, `main` or `all` (--notify-access). `parent`: the NOTIFY_SOCKET that we were started
    with, or nothing; the agent's messages are passed on to it.
    """

    __slots__ = (
        "_access",
        "_aside",
        "_console",
        "_dropped",
        "_loop",
        "_on_readable",
        "_parent",
        "_retry",
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
        self._stranger_logged = False
        self._aside = False  # a thread is taking a message out of the queue
        self._dropped = False  # it is done
        self._retry: Timer | None = None  # no thread could be had
        loop.add_reader(socket.fileno(), on_readable)
        try:
            self._parent = notify.address(parent) if parent else ""
        except ValueError as error:
            self._parent = ""
            console.log(WARNING, "not-passed-on", f"NOTIFY_SOCKET as given to agent-init: {error}")

    def receive(self, agent: int, named: "Process | None") -> "Iterator[tuple[dict[str, str], Process]]":
        """Yield the fields of each message and its sender, as far as the senders are known.

        `agent`: its pid. `named`: the process that it named as its main one. What came with a message is closed when
        the caller asks for the next one: with BARRIER=1 that is the answer.
        """
        self.resume()
        until = self._loop.time() + MAX_SECONDS
        for _ in range(MAX_MESSAGES):
            if self._aside or self._loop.time() > until:
                return
            try:
                data, ancillary, flags, _ = self._socket.recvmsg(notify.MAX_DATAGRAM_BYTES, ANCILLARY_BYTES, PEEK)
            except BlockingIOError:
                return
            pid, descriptors = _unpack(ancillary)
            only_pipes = not flags & _socket.MSG_CTRUNC and all(map(_is_pipe, descriptors))
            for fd in descriptors:
                os.close(fd)  # a copy; the message holds the other
            if not only_pipes and not self._set_aside():
                return
            try:
                if not flags & _socket.MSG_TRUNC and (sender := self._known(pid, agent, named)) is not None:
                    fields = notify.parse(data)
                    yield fields, sender
                    self._pass_on(fields)
            except ValueError:
                pass  # malformed
            finally:
                if only_pipes:
                    self._drop()

    def _drop(self) -> None:
        """Take the message that was peeked at out of the queue, and close what came with it."""
        self._socket.recv(1, _socket.MSG_DONTWAIT)

    def _set_aside(self) -> bool:
        """Have a thread drop the message; nothing is received until then. False if no thread can be had."""
        self._loop.remove_reader(self._socket.fileno())
        self._aside, self._dropped = True, False
        try:
            _thread.start_new_thread(self._drop_aside, ())
            return True
        except Exception:  # the pids limit, no memory
            self._dropped = True
            self._retry = self._loop.call_at(self._loop.time() + RETRY_AFTER, self._set_aside_again)
            return False

    def _set_aside_again(self) -> None:
        self._retry = None
        self._on_readable()

    def _drop_aside(self) -> None:
        """Drop the message, in the thread."""
        try:
            self._drop()
        except Exception:  # then it is received once more
            pass
        self._dropped = True
        os.kill(os.getpid(), CHLD)  # wakes the loop

    def resume(self) -> None:
        """Receive again, if the thread is done."""
        if self._aside and self._dropped and self._retry is None:
            self._loop.add_reader(self._socket.fileno(), self._on_readable)
            self._aside = False

    def _known(self, pid: int, agent: int, named: "Process | None") -> "Process | None":
        """Return the sender if its messages count; the first of any other sender is logged as a warning."""
        sender = procfs.look(pid) if pid else None
        if pid == agent and sender is None:  # no /proc, but the kernel vouches for the pid
            return procfs.Process(agent, "the agent", os.getpid(), agent, 0)
        if sender is not None and (
            pid == agent
            or (named is not None and sender.identity == named.identity)
            or (self._access == "all" and tree.is_below(os.getpid(), sender))
        ):
            return sender
        who = str(sender) if sender else f"pid {pid}, which is gone" if pid else "another container"
        text = f"ignored a message to the notify socket from {who} (--notify-access {self._access})"
        self._console.log(DEBUG if self._stranger_logged else WARNING, "stranger", text, pid=pid)
        self._stranger_logged = True
        return None

    def _pass_on(self, fields: dict[str, str]) -> None:
        """Pass fields on to the supervisor above us, systemd or podman's --sdnotify, without waiting for it."""
        passed: dict[str, object] = {key: fields[key] for key in PASSED_ON if key in fields}
        if passed.get("WATCHDOG") == "trigger":  # we handle that
            del passed["WATCHDOG"]
        if not self._parent or not passed:
            return
        if os.getpid() != 1:  # as process 1 we have another pid out there
            passed["MAINPID"] = os.getpid()
        try:
            out = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
            try:
                out.sendto(notify.encode(passed), _socket.MSG_DONTWAIT, self._parent)
            finally:
                out.close()
        except OSError as error:
            text = f"cannot pass a message of the agent on to {self._parent!r}: {error.strerror}"
            self._console.log(DEBUG, "not-passed-on", text)


def _is_pipe(fd: int) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(fd).st_mode)
    except OSError:
        return False


def _unpack(ancillary: list[tuple[int, int, bytes]]) -> tuple[int, list[int]]:
    """Return the sender's pid in our PID namespace (0: from outside it), and the descriptors that were sent."""
    pid = 0
    descriptors: list[int] = []
    for level, kind, value in ancillary:
        numbers = [int.from_bytes(value[at : at + 4], sys.byteorder) for at in range(0, len(value) - 3, 4)]
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            descriptors += numbers
        elif level == _socket.SOL_SOCKET and kind == _socket.SCM_CREDENTIALS:
            pid = numbers[0]  # struct ucred: pid, uid, gid
    return pid, descriptors

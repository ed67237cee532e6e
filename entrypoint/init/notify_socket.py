"""What the agent tells process 1 through the notify socket: one datagram at a time, with who sent it (unix(7)).

Whatever comes is either a whole message of a known sender or nothing: a datagram that is too long, torn or no message
is passed over, and descriptors sent with it are closed.

To close one can take as long as its owner likes (SO_LINGER, socket(7); a file system of his), and what does not fit is
closed by the kernel inside of our recvmsg(2). So a message is only peeked at, which cannot close the last of anything;
one with pipes, as BARRIER=1 has them, is then taken out of the queue, and one with anything else by a thread.
"""

import _socket
import _thread
import os
import stat
import sys

from .. import notify
from ..signals import CHLD
from . import tree
from .console import DEBUG, WARNING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .console import Console
    from .loop import Loop, Timer

AT_ONCE, LONGEST = 64, 0.02  # messages, seconds; then the clock and the signals have their turn
REST = 0.1  # seconds until a thread is asked for again
# Room for the sender's credentials and as many descriptors as can be sent at once (SCM_MAX_FD, unix(7)).
ROOM = _socket.CMSG_SPACE(12) + _socket.CMSG_SPACE(4 * 253)
PEEK = _socket.MSG_PEEK | _socket.MSG_DONTWAIT | _socket.MSG_CMSG_CLOEXEC
# What goes on to a supervisor above us. Its business is with us: not the agent's pid, nor its descriptors.
PASSED_ON = ("READY", "RELOADING", "MONOTONIC_USEC", "STOPPING", "STATUS", "ERRNO", "EXTEND_TIMEOUT_USEC", "WATCHDOG")


class Ear:
    """Listens at the notify socket: `told` is called when there is something to `hear`.

    `access`: whose messages count, `main` or `all` (--notify-access). `above`: the NOTIFY_SOCKET that we were started
    with, or nothing; what the agent says is passed on to it.
    """

    __slots__ = (
        "_above",
        "_access",
        "_aside",
        "_console",
        "_dropped",
        "_loop",
        "_retry",
        "_socket",
        "_strangers",
        "_told",
    )

    def __init__(
        self,
        socket: _socket.socket,
        above: str,
        access: str,
        console: "Console",
        loop: "Loop",
        told: "Callable[[], object]",
    ) -> None:
        self._socket, self._access, self._console, self._loop, self._told = socket, access, console, loop, told
        self._strangers = False  # one was told of
        self._aside = False  # a thread has the socket
        self._dropped = False  # it is done
        self._retry: Timer | None = None  # it could not be had
        loop.add_reader(socket.fileno(), told)
        try:
            self._above = notify.address(above) if above else ""
        except ValueError as error:
            self._above = ""
            console.say(WARNING, "not-passed-on", f"NOTIFY_SOCKET as given to agent-init: {error}")

    def hear(self, agent: int, main: tree.Process | None) -> "Iterator[tuple[dict[str, str], tree.Process]]":
        """What was said, each time the fields of a message and its sender, as far as the senders are known.

        `agent`: its pid; `main`: the process that it named as its main one. What came with a message is closed when
        it has been dealt with: with BARRIER=1 that is the answer.
        """
        self.resume()
        until = self._loop.time() + LONGEST
        for _ in range(AT_ONCE):
            if self._aside or self._loop.time() > until:
                return
            try:
                data, ancillary, flags, _ = self._socket.recvmsg(notify.LONGEST, ROOM, PEEK)
            except BlockingIOError:
                return
            pid, descriptors = _unpack(ancillary)
            harmless = not flags & _socket.MSG_CTRUNC and all(map(_is_pipe, descriptors))
            for fd in descriptors:
                os.close(fd)  # a copy; the message holds the other
            if not harmless and not self._set_aside():
                return
            try:
                if not flags & _socket.MSG_TRUNC and (sender := self._known(pid, agent, main)) is not None:
                    fields = notify.parse(data)
                    yield fields, sender
                    self._pass_on(fields)
            except ValueError:
                pass  # no message
            finally:
                if harmless:
                    self._drop()

    def _drop(self) -> None:
        """Take out of the queue what was peeked at, and what came with it."""
        self._socket.recv(1, _socket.MSG_DONTWAIT)

    def _set_aside(self) -> bool:
        """Have a thread do it; until it is done nothing is heard. False where there is no thread to be had."""
        self._loop.remove_reader(self._socket.fileno())
        self._aside, self._dropped = True, False
        try:
            _thread.start_new_thread(self._drop_aside, ())
            return True
        except Exception:  # the pids limit, no memory
            self._dropped = True
            self._retry = self._loop.call_at(self._loop.time() + REST, self._set_aside_again)
            return False

    def _set_aside_again(self) -> None:
        self._retry = None
        self._told()

    def _drop_aside(self) -> None:
        """In the thread."""
        try:
            self._drop()
        except Exception:  # then it is heard once more
            pass
        self._dropped = True
        os.kill(os.getpid(), CHLD)  # has the loop look

    def resume(self) -> None:
        """Listen again, if the thread is done."""
        if self._aside and self._dropped and self._retry is None:
            self._loop.add_reader(self._socket.fileno(), self._told)
            self._aside = False

    def _known(self, pid: int, agent: int, main: tree.Process | None) -> tree.Process | None:
        """The sender, if it is one whose messages count; of anybody else is told once."""
        sender = tree.look(pid) if pid else None
        if pid == agent and sender is None:  # no /proc, but the kernel vouches for the pid
            return tree.Process(agent, "the agent", os.getpid(), agent, 0)
        if sender is not None and (
            pid == agent
            or (main is not None and sender.identity == main.identity)
            or (self._access == "all" and tree.is_below(os.getpid(), sender))
        ):
            return sender
        who = f"{sender.name} (pid {pid})" if sender else f"pid {pid}, which is gone" if pid else "another container"
        text = f"a message to the notify socket from {who} does not count (--notify-access {self._access})"
        self._console.say(DEBUG if self._strangers else WARNING, "stranger", text, pid=pid)
        self._strangers = True
        return None

    def _pass_on(self, fields: dict[str, str]) -> None:
        """To the supervisor above us, systemd or podman's --sdnotify, without waiting for it."""
        passed: dict[str, object] = {key: fields[key] for key in PASSED_ON if key in fields}
        if passed.get("WATCHDOG") == "trigger":  # we see to that
            del passed["WATCHDOG"]
        if not self._above or not passed:
            return
        if os.getpid() != 1:  # as process 1 we have another pid out there
            passed["MAINPID"] = os.getpid()
        try:
            out = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
            try:
                out.sendto(notify.encode(passed), _socket.MSG_DONTWAIT, self._above)
            finally:
                out.close()
        except OSError as error:
            text = f"what the agent said could not be passed on to {self._above!r}: {error.strerror}"
            self._console.say(DEBUG, "not-passed-on", text)


def _is_pipe(fd: int) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(fd).st_mode)
    except OSError:
        return False


def _unpack(ancillary: list[tuple[int, int, bytes]]) -> tuple[int, list[int]]:
    """The sender's pid in our PID namespace (0: from outside of it), and the descriptors that were sent."""
    pid = 0
    descriptors: list[int] = []
    for level, kind, value in ancillary:
        numbers = [int.from_bytes(value[at : at + 4], sys.byteorder) for at in range(0, len(value) - 3, 4)]
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            descriptors += numbers
        elif level == _socket.SOL_SOCKET and kind == _socket.SCM_CREDENTIALS:
            pid = numbers[0]  # struct ucred: pid, uid, gid
    return pid, descriptors

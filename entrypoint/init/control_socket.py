"""Where `agent-initctl` asks process 1: one connection a request, on a socket in the abstract namespace (unix(7)).

That namespace is the network's: a whole pod's, with hostNetwork the whole host's. So who is served depends on the pid
and the user that the kernel reports, see `control_access`; the others cost a counter.

No client delays anything. Every call returns at once, and a client that does not read is cut off. All clients together
get a tenth of a processor: when they have used it, nobody is listened to for a while. To close a descriptor that a
client sends could take as long as it likes (see `notify_socket`): the kernel refuses to send any, and where it cannot
do that, a thread closes the connections.
"""

import _socket
import _thread
import posix
import select
import time

from .. import control, notify
from . import later
from .console import WARNING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from . import control_access
    from .console import Console
    from .history import History, Record
    from .loop import Loop
    from .main_process import MainProcess
else:
    control_access = later.Module("init.control_access")

SO_PASSRIGHTS = 83  # since Linux 6.16 (include/uapi/asm-generic/socket.h); off, nobody can send a descriptor
MAX_CLIENTS, MAX_FOLLOWERS = 16, 4  # of each kind
MAX_LAST_SECONDS = 0.1  # that clients get to read the end of the stop
BACKLOG = 16  # connections that wait to be accepted
SHARE = 10  # clients get one part in so many of a processor's time,
BURST = 0.02  # ... but so many seconds at once
RETRY_AFTER = 1.0  # seconds after an error, which may be for ever
ANCILLARY_BYTES = _socket.CMSG_SPACE(12)  # for credentials
PEEK = _socket.MSG_PEEK | _socket.MSG_DONTWAIT
DENIED = b"permission denied: agent-init answers root and its own user, from inside its container"
BUSY = b"what was requested is done, but too many clients follow the log already"


class Client:
    """A connection, and the pid and user id at its other end. `may_command`: it may do more than read.

    `is_known`: gVisor reports the asking process in place of its peer; there the message has the credentials.
    `render`: for one that follows the log, what makes packets of a record.
    """

    __slots__ = ("connection", "is_known", "may_command", "pid", "render", "uid")

    def __init__(self, fd: int) -> None:
        self.connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd)
        peer = self.connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
        self.pid, self.uid = control.pid_and_user(peer)
        self.is_known = self.pid != posix.getpid()
        if not self.is_known:
            self.connection.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
        self.may_command = False
        self.render: Callable[[Record], list[bytes]] | None = None

    def __str__(self) -> str:
        return f"agent-initctl (pid {self.pid}, user {self.uid})"

    def send(self, packets: list[bytes]) -> bool:
        """Send packets, and return whether all of them were taken."""
        try:
            return all(self.connection.send(packet, _socket.MSG_DONTWAIT) == len(packet) for packet in packets)
        except OSError:
            return False

    def receive(self) -> "dict[str, str] | None":
        """Return the fields of the request; None if there is none yet. Raises OSError, ValueError if none can come."""
        space = 0 if self.is_known else ANCILLARY_BYTES  # which the credentials fill
        try:
            data, ancillary, flags, _ = self.connection.recvmsg(control.MAX_REQUEST_BYTES, space, PEEK)
        except BlockingIOError:
            return None
        if not data or flags & (_socket.MSG_TRUNC | _socket.MSG_CTRUNC):
            raise ValueError("the end, or no request")
        self.connection.recv(1, _socket.MSG_DONTWAIT)
        if not self.is_known:
            self.pid, self.uid = control.sender(ancillary)
        return notify.parse(data)


class ControlSocket:
    """Accepts clients. `answer` is called with each request, and returns the packets of the answer.

    A client for which it sets `render` follows the log from then on. `refused` is a count of those not served.
    """

    __slots__ = (
        "_agent",
        "_answer",
        "_clients",
        "_close",
        "_debt",
        "_debt_at",
        "_listener",
        "_loop",
        "_unclosed",
        "refused",
    )

    def __init__(
        self,
        loop: "Loop",
        history: "History",
        agent: "MainProcess",
        answer: "Callable[[Client, dict[str, str]], list[bytes]]",
    ) -> None:
        """Open the socket. Raises OSError."""
        self._loop, self._agent, self._answer = loop, agent, answer
        self._clients: dict[int, Client] = {}  # by descriptor, the oldest first
        self._unclosed: list[_socket.socket] = []  # by a thread, which could not be started
        self._debt = self._debt_at = 0.0  # seconds of work that clients have used beyond their share, at a time
        self.refused = 0
        self._listener, has_no_descriptors = _open()
        self._close = _socket.socket.close if has_no_descriptors else self._close_aside
        history.followers.append(self._follow)
        history.is_followed = self._is_followed
        loop.add_reader(self._listener.fileno(), self._accept_next)

    # --- Clients. ---------------------------------------------------------------------------------------------------

    def _accept_next(self) -> None:
        began = _processor_time()
        try:
            client = self._accept()
            if client is not None:
                self._serve(client)
        finally:
            self._charge(began)

    def _accept(self) -> Client | None:
        try:
            fd = self._listener._accept()[0]  # type: ignore[attr-defined]
        except BlockingIOError:  # it has gone
            return None
        except OSError:  # no descriptor, no memory; the call may be refused for good (seccomp)
            self._pause(RETRY_AFTER)
            return None
        try:
            return Client(fd)
        except BaseException:
            posix.close(fd)
            raise

    def _serve(self, client: Client) -> None:
        """Serve a new client, or refuse it."""
        if client.is_known and not self._is_admitted(client):
            self._close(client.connection)
            return
        self._handle(client)
        while len(self._clients) > MAX_CLIENTS:
            self._drop(next(other for other in self._clients.values() if other.render is None))

    def _is_admitted(self, client: Client) -> bool:
        """Whether a client may ask. One that may not is refused, and counted."""
        rights = control_access.of(client.pid, client.uid, self._agent)
        client.may_command = rights == control_access.ALL
        if rights == control_access.NONE:
            self.refused += 1
            client.send([control.PROBLEM + DENIED])
        return rights != control_access.NONE

    def _readable(self, client: Client) -> None:
        began = _processor_time()
        try:
            self._handle(client)
        finally:
            self._charge(began)

    def _handle(self, client: Client) -> None:
        """Answer the request of a client, if it is there. One that follows the log sends nothing more but its end."""
        try:
            fields = client.receive()
            if fields is None:
                self._watch(client)
                return
            if client.render is None and (client.is_known or self._is_admitted(client)):
                self._clients[client.connection.fileno()] = client  # it may follow what its own request has logged
                taken = client.send(self._answer(client, fields))
                if taken and client.render is not None and self._is_follower(client):
                    self._watch(client)
                    return
        except (OSError, ValueError):
            pass
        except BaseException:
            self._drop(client)
            raise
        self._drop(client)

    def _is_follower(self, client: Client) -> bool:
        """Whether there is a place for it. Those that wait for a stop have their own: none that others can take."""
        if sum(other.render is client.render for other in self._clients.values()) <= MAX_FOLLOWERS:  # with this one
            return True
        client.send([control.PROBLEM + BUSY])
        return False

    def _watch(self, client: Client) -> None:
        fd = client.connection.fileno()
        self._clients[fd] = client
        self._loop.add_reader(fd, lambda: self._readable(client))

    def _drop(self, client: Client) -> None:
        fd = client.connection.fileno()
        if self._clients.pop(fd, None) is not None:
            self._loop.remove_reader(fd)
        self._close(client.connection)

    def _follow(self, record: "Record") -> None:
        """Send a new record of the log to those that follow it."""
        for client in [client for client in self._clients.values() if client.render is not None]:
            try:
                taken = client.render is not None and client.send(client.render(record))
            except Exception:  # MemoryError
                taken = False
            if not taken:
                self._drop(client)

    def _is_followed(self) -> bool:
        """Whether somebody follows the log, or waits for the end of the stop."""
        return any(client.render is not None for client in self._clients.values())

    def is_awaited(self) -> bool:
        """Whether somebody who may command waits for the end of the stop, or follows the log."""
        return any(client.render is not None and client.may_command for client in self._clients.values())

    def finish(self) -> None:
        """Let those that wait for the end of the stop read it: their PID namespace may end with us.

        They close their connection then. Raises OSError.
        """
        if not self._clients:
            return
        poll, waiting = select.poll(), set[int]()
        for fd, client in self._clients.items():
            if client.render is not None and client.may_command:
                client.connection.shutdown(_socket.SHUT_WR)  # the end, for those that follow the log for longer
                poll.register(fd, 0)  # a hang-up is reported in any case (poll(2))
                waiting.add(fd)
        end = self._loop.time() + MAX_LAST_SECONDS
        while waiting and self._loop.time() < end:
            for fd, _ in poll.poll(max(0.0, end - self._loop.time()) * 1000):
                poll.unregister(fd)
                waiting.discard(fd)

    def _close_aside(self, connection: _socket.socket) -> None:
        """Have a thread close the connection, and those before it that none could be had for."""
        self._unclosed.append(connection)
        unclosed, self._unclosed = self._unclosed, []
        try:
            _thread.start_new_thread(_close_all, (unclosed,))
        except Exception:  # the pids limit, no memory
            self._unclosed = unclosed

    # --- Their share of the time. -----------------------------------------------------------------------------------

    def _charge(self, began: float) -> None:
        """Clients have used the processor since `began`.

        The time that we have waited for one is not theirs: on a busy machine a single request would shut out the next.
        """
        now = self._loop.time()
        self._debt = max(0.0, self._debt - (now - self._debt_at) / SHARE) + _processor_time() - began
        self._debt_at = now
        if self._debt > BURST:
            self._pause(self._debt * SHARE)

    def _pause(self, seconds: float) -> None:
        """Listen to no client for a while."""
        self._loop.call_at(self._loop.time() + seconds, self._resume)
        self._loop.remove_reader(self._listener.fileno())
        for fd in self._clients:
            self._loop.remove_reader(fd)

    def _resume(self) -> None:
        self._loop.add_reader(self._listener.fileno(), self._accept_next)
        for fd, client in self._clients.items():
            self._loop.add_reader(fd, lambda client=client: self._readable(client))  # type: ignore[misc]


def _processor_time() -> float:
    """Return the seconds of processor time that this thread has used; where they are not known (seccomp), all time."""
    try:
        return time.thread_time()
    except OSError:
        return time.monotonic()


def open_or_log(console: "Console", make: "Callable[[], ControlSocket]") -> ControlSocket | None:
    """Return what `make` returns; None, with a line in the log, where the socket cannot be opened."""
    try:
        return make()
    except OSError as error:
        console.log(WARNING, "no-control", f"agent-initctl cannot be answered: {error.strerror or error}")
        return None


def _open() -> tuple[_socket.socket, bool]:
    """Return the socket, and whether no descriptor can be sent to it. Raises OSError."""
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_NONBLOCK)
    try:
        listener.setsockopt(_socket.SOL_SOCKET, SO_PASSRIGHTS, 0)  # of the connections, too
        has_no_descriptors = True
    except OSError:
        has_no_descriptors = False
    address = control.address(posix.getpid(), control.namespace())
    try:
        listener.bind(address)
    except OSError:  # somebody has taken the name; agent-initctl finds this one too
        listener.bind(f"{address}/{posix.urandom(6).hex()}")
    listener.listen(BACKLOG)
    return listener, has_no_descriptors


def _close_all(connections: list[_socket.socket]) -> None:
    for connection in connections:
        try:
            connection.close()
        except OSError:
            continue

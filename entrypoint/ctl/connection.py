"""Finds the agent-init that is meant, connects to it, and makes sure that it is the one that answers.

Which one is meant, where no pid is given: the nearest ancestor that is an agent-init; else process 1, if it is this
container's; else the only agent-init of this container. Process 1 may be another program (`docker run --init`), or that
of a neighbour (shareProcessNamespace).

The socket's name is in the network's namespace, where others may have sockets too. The kernel reports the pid of the
process that listens (SO_PEERCRED, unix(7)).

Every probe imports this module, so it is small. What is needed rarely is in `search`.
"""

import _socket
import posix
import sys

from .. import control, notify

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

ANCILLARY_BYTES = _socket.CMSG_SPACE(12)  # for credentials
MAX_ANCESTORS = 1000
FORGERY = "another process has its socket"


class Failure(Exception):
    """agent-initctl cannot do what it was asked for. `code`: its exit code."""

    def __init__(self, text: str, code: int = 125) -> None:
        super().__init__(text)
        self.code = code


def find(pid: int | None = None) -> int:
    """Return the pid of the agent-init that is meant, as it is seen here. Raises Failure for none, or several."""
    found = _near(pid)
    if found is None:
        from . import search

        found = search.find(pid)
    return found


def _near(pid: int | None) -> int | None:
    """Return the process with the pid, else the nearest ancestor that is an agent-init, else process 1 if it is one.

    None where it has to be searched for.
    """
    own = _stat("self")
    if own is None or own[0] != posix.getpid():  # /proc is that of another PID namespace
        return None
    if pid is not None:
        return pid if _stat(pid) else None
    ancestor = posix.getppid()
    for _ in range(MAX_ANCESTORS):
        found = _stat(ancestor)
        if found is None:
            break
        _, name, parent = found
        if name == control.NAME:
            return ancestor
        ancestor = parent
    first = _stat(1)
    return 1 if first is not None and first[1] == control.NAME and _sees_our_files(1) else None


def _stat(pid: int | str) -> tuple[int, str, int] | None:
    """Return a process's pid, name and parent (`stat`, proc(5)); None if it is not seen."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            start, _, rest = file.read(1024).rpartition(b") ")
        number, _, name = start.partition(b" (")
        return int(number), name.decode("utf-8", "backslashreplace"), int(rest.split(b" ", 2)[1])
    except (OSError, ValueError, IndexError):
        return None


def _sees_our_files(pid: int) -> bool:
    """Whether a process is in our mount namespace; False where that is not known."""
    try:
        return posix.readlink(f"/proc/{pid}/ns/mnt") == posix.readlink("/proc/self/ns/mnt")
    except OSError:
        return False


class Connection:
    """A connection to the agent-init with the pid `pid`, as it is seen here. Raises Failure if there can be none."""

    def __init__(self, pid: int, timeout: float | None) -> None:
        """`timeout`: seconds for the connection and for each packet of the answer; None for no limit."""
        self.pid, self._timeout = pid, timeout
        self._socket, self._is_verified = _connect(pid, timeout)

    def ask(self, command: str, **fields: str) -> "Iterator[tuple[bytes, bytes]]":
        """Send a request, and yield the kind and the content of each packet of the answer. Raises Failure."""
        request: dict[str, object] = {"COMMAND": command, **fields}
        try:
            self._socket.send(notify.encode(request))
        except OSError:  # it has closed the connection; its reason may be there to read
            pass
        while packet := self._receive():
            if packet[:1] == control.PROBLEM:
                raise Failure(packet[1:].decode("utf-8", "replace"), 1)
            yield packet[:1], packet[1:]

    def wait_at_most(self, seconds: float | None) -> None:
        """Limit the wait for each packet from now on; None: no limit."""
        self._timeout = seconds
        _limit(self._socket, _socket.SO_RCVTIMEO, seconds)

    def _receive(self) -> bytes:
        """Return the next packet; nothing at the end. Raises Failure."""
        for _ in range(2):
            try:
                data, ancillary, _, _ = self._socket.recvmsg(control.MAX_PACKET_BYTES, ANCILLARY_BYTES)
                if data and not self._is_verified and control.sender(ancillary)[0] != self.pid:
                    raise Failure(f"cannot reach agent-init (pid {self.pid}): {FORGERY}")
                return data
            except ConnectionResetError:  # it has not read all that we have sent; its answer comes after this
                continue
            except BlockingIOError:
                raise Failure(f"agent-init (pid {self.pid}) does not answer within {self._timeout:g}s") from None
            except OSError as error:
                raise Failure(f"agent-init (pid {self.pid}) does not answer: {error.strerror}") from None
        return b""


def read(understand: "Callable[[dict[str, str]], Any]", pid: int, timeout: float, command: str = "status") -> "Any":
    """Return what `understand` makes of the fields that agent-init answers a command with. Raises Failure.

    Also where it raises KeyError, ValueError or TypeError: that agent-init may be of another version.
    """
    answer = Connection(pid, timeout).ask(command)
    data = b"".join(data for kind, data in answer if kind == control.FIELDS)
    try:
        return understand(notify.parse(data))
    except (KeyError, ValueError, TypeError) as error:
        raise Failure(f"cannot read the answer of agent-init (pid {pid}), of another version? {error!r}") from None


def printable(text: str) -> str:
    """Return the text with escapes for what a terminal would act on, in one line."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _connect(pid: int, timeout: float | None) -> tuple[_socket.socket, bool]:
    """Return a connected socket, and whether the other end is known to be that process. Raises Failure."""
    name = control.address(*_pid_there(pid))
    made, peer, problem = connect_to(name, pid, timeout)
    if made is None:
        from . import search

        made, peer = search.connect(name, pid, timeout, problem)
    return made, peer == pid


def connect_to(address: str, pid: int, timeout: float | None) -> tuple[_socket.socket | None, int, str]:
    """Return a socket that is connected to the process with this pid, and the pid that the kernel reports of it.

    That is our own on gVisor; there each packet has the credentials. Where the address does not lead to that process,
    return None, and why: nothing if nobody listens.
    """
    made = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    made.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
    _limit(made, _socket.SO_SNDTIMEO, timeout)
    _limit(made, _socket.SO_RCVTIMEO, timeout)
    problem = FORGERY
    try:
        made.connect(address)
        peer, _ = control.pid_and_user(made.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12))
        if peer in (pid, posix.getpid()):
            return made, peer, ""
    except BlockingIOError:
        problem = f"it accepts no connection within {timeout:g}s"
    except ConnectionRefusedError:
        problem = ""
    except OSError as error:
        problem = error.strerror or str(error)
    made.close()
    return None, 0, problem


def _pid_there(pid: int) -> tuple[int, int]:
    """Return the process's pid in its own PID namespace, and the inode number of that; 0 where it is not known."""
    theirs, ours = control.namespace(pid), control.namespace()
    if theirs and theirs == ours:
        return pid, theirs
    numbers = [pid]
    try:
        with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
            for line in file.read(8192).splitlines():
                if line.startswith(b"NSpid:"):
                    numbers = [int(number) for number in line.split()[1:]]
    except OSError:
        pass
    # Of another user's process it cannot be seen; then it is ours, if the process has one pid only.
    return numbers[-1], theirs or (ours if len(numbers) == 1 else 0)


def _limit(made: _socket.socket, option: int, seconds: float | None) -> None:
    """Set a limit of time for a socket's calls: a struct timeval, two longs (socket(7))."""
    whole, rest = (0, 0) if seconds is None else (int(seconds), max(1, int(seconds % 1 * 1e6)))  # 0 would be no limit
    size = 8 if sys.maxsize > 1 << 32 else 4
    value = whole.to_bytes(size, sys.byteorder) + rest.to_bytes(size, sys.byteorder)
    made.setsockopt(_socket.SOL_SOCKET, option, value)

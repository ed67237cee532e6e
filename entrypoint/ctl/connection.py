"""Finds the agent-init that is meant, connects to it, and makes sure that it is the one that answers.

Which one is meant, where no pid is given: the nearest ancestor that is an agent-init; else process 1, if it is this
container's; else the only agent-init of this container. Process 1 may be another program (`docker run --init`), or that
of a neighbour (shareProcessNamespace).

The socket's name is in the network's namespace, where others may have sockets too. The kernel reports the pid of the
process that listens (SO_PEERCRED, unix(7)).
"""

import _socket
import os
import sys
import time

from .. import control, notify
from ..init import procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

ANCILLARY_BYTES = _socket.CMSG_SPACE(12)  # for credentials
MAX_ANCESTORS = 1000
OPENS_WITHIN, LOOK_AGAIN = 1.0, 0.02  # seconds: agent-init opens its socket just after the agent's start
NO_SOCKET = "it has no socket (--no-control, or an older version?)"
FORGERY = "another process has its socket"


class Failure(Exception):
    """agent-initctl cannot do what it was asked for. `code`: its exit code."""

    def __init__(self, text: str, code: int = 125) -> None:
        super().__init__(text)
        self.code = code


def find(pid: int | None = None) -> int:
    """Return the pid of the agent-init that is meant, as it is seen here. Raises Failure for none, or several."""
    if pid is not None:
        if procfs.look(pid) is None:
            raise Failure(f"there is no process {pid} here; accepted: the pid of an agent-init, as ps shows it here")
        return pid
    for ancestor in _ancestors():
        if ancestor.name == control.NAME:
            return ancestor.pid
    if _is_agent_init(1) and _is_in_our_container(1):
        return 1
    found = [pid for pid in procfs.pids() if _is_agent_init(pid) and _is_in_our_container(pid)]
    if not found:
        raise Failure("no agent-init is running here: it is no ancestor, and no process of this container")
    if len(found) > 1:
        raise Failure(
            f"there are several agent-inits here: {', '.join(map(str, sorted(found)))}; choose one with --pid"
        )
    return found[0]


def _ancestors() -> "Iterator[procfs.Process]":
    """Yield the ancestors of this process, the nearest first."""
    process = procfs.look(os.getppid())
    for _ in range(MAX_ANCESTORS):
        if process is None:
            return
        yield process
        process = procfs.look(process.parent) if process.parent else None


def _is_agent_init(pid: int) -> bool:
    process = procfs.look(pid)
    return process is not None and process.alive and process.name == control.NAME


def _is_in_our_container(pid: int) -> bool:
    """Whether a process is in our container; where nothing is known (gVisor), any that can be seen."""
    return procfs.is_in_our_container(pid) is not False


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


def fields_of(pid: int | None, timeout: float, command: str = "status") -> dict[str, str]:
    """Return the fields that the agent-init which is meant answers a command with. Raises Failure."""
    connection = Connection(find(pid), timeout)
    data = b"".join(data for kind, data in connection.ask(command) if kind == control.FIELDS)
    return notify.parse(data)


def _connect(pid: int, timeout: float | None) -> tuple[_socket.socket, bool]:
    """Connect as `_connect_once` does. Where there is no socket, wait for one, but not long. Raises Failure."""
    end = time.monotonic() + OPENS_WITHIN
    while True:
        try:
            return _connect_once(pid, timeout)
        except Failure as failure:
            if NO_SOCKET not in str(failure) or time.monotonic() >= end:
                raise
        time.sleep(LOOK_AGAIN)


def _connect_once(pid: int, timeout: float | None) -> tuple[_socket.socket, bool]:
    """Return a connected socket, and whether the other end is known to be that process. Raises Failure.

    gVisor reports the asking process in place of its peer; there each packet has the credentials.
    """
    own_pid, namespace = _pid_there(pid)
    name = control.address(own_pid, namespace)
    problem = NO_SOCKET
    for address in (name, *_other_addresses(name)):
        made = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        made.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
        _limit(made, _socket.SO_SNDTIMEO, timeout)
        _limit(made, _socket.SO_RCVTIMEO, timeout)
        try:
            made.connect(address)
            peer, _ = control.pid_and_user(made.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12))
            if peer in (pid, os.getpid()):
                return made, peer == pid
            problem = FORGERY
        except BlockingIOError:
            problem = f"it accepts no connection within {timeout:g}s"
        except ConnectionRefusedError:
            pass
        except OSError as error:
            problem = error.strerror or str(error)
        made.close()
    raise Failure(f"cannot reach agent-init (pid {pid}): {problem}")


def _pid_there(pid: int) -> tuple[int, int]:
    """Return the process's pid in its own PID namespace, and the inode number of that; 0 where it is not known."""
    numbers = [pid]
    try:
        with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
            for line in file.read(8192).splitlines():
                if line.startswith(b"NSpid:"):
                    numbers = [int(number) for number in line.split()[1:]]
    except OSError:
        pass
    theirs = control.namespace(pid)
    # Of another user's process it cannot be seen; then it is ours, if the process has one pid only.
    return numbers[-1], theirs or (control.namespace() if len(numbers) == 1 else 0)


def _other_addresses(name: str) -> list[str]:
    """Return the addresses that agent-init may have instead, where its own one was taken or is not known."""
    _, namespace, pid = name.removeprefix("\0").split("/")
    found: list[str] = []
    try:
        with open("/proc/net/unix", "rb", buffering=0) as file:
            lines = file.readall().split(b"\n")
    except OSError:
        return found
    for line in lines:
        parts = os.fsdecode(line.rpartition(b" ")[2]).removeprefix("@").split("/")
        if len(parts) < 3 or parts[0] != control.NAME or parts[2] != pid or namespace not in ("0", parts[1]):
            continue
        found.append("\0" + "/".join(parts))
    return [address for address in found if address != name]


def _limit(made: _socket.socket, option: int, seconds: float | None) -> None:
    """Set a limit of time for a socket's calls: a struct timeval, two longs (socket(7))."""
    whole, rest = (0, 0) if seconds is None else (int(seconds), max(1, int(seconds % 1 * 1e6)))  # 0 would be no limit
    size = 8 if sys.maxsize > 1 << 32 else 4
    value = whole.to_bytes(size, sys.byteorder) + rest.to_bytes(size, sys.byteorder)
    made.setsockopt(_socket.SOL_SOCKET, option, value)

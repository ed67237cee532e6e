"""What `connection` needs rarely: to search for the agent-init that is meant, and for its socket."""

import os
import time

from .. import control
from ..init import procfs
from . import connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

# Seconds. agent-init opens its socket just after the agent's start, which takes long where the processors are busy. It
# closes it just before its end.
OPENS_WITHIN, YOUNG, LOOK_AGAIN = 1.0, 10.0, 0.02
OTHER_NETWORK = "it is in another network namespace"
NO_SOCKET = "it has no socket (--no-control, or an older version?)"


def find(pid: int | None) -> int:
    """Return the only agent-init of this container, where it is neither given nor near. Raises Failure."""
    if pid is not None:
        if _is_hidden(pid):
            return pid
        raise connection.Failure(
            f"there is no process {pid} here; accepted: the pid of an agent-init, as ps shows it here"
        )
    try:
        found = [1] if _is_ours(1) else [pid for pid in procfs.pids() if _is_ours(pid)]
    except OSError:
        found = []
    if not found and _is_hidden(1) and _listens(1):
        found = [1]
    if not found:
        raise connection.Failure("no agent-init is running here: it is no ancestor, and no process of this container")
    if len(found) > 1:
        raise connection.Failure(
            f"there are several agent-inits here: {', '.join(map(str, sorted(found)))}; choose one with --pid"
        )
    return found[0]


def _is_ours(pid: int) -> bool:
    """Whether it is an agent-init in our container; where nothing is known (gVisor), any that can be seen."""
    process = procfs.look(pid)
    is_one = process is not None and process.alive and process.name == control.NAME
    return is_one and procfs.is_in_our_container(pid) is not False


def ends(pid: int) -> bool:
    """Whether an agent-init that does not answer any more has ended, or ends within a moment."""
    end = time.monotonic() + OPENS_WITHIN
    while True:
        process = procfs.look(pid)
        if not (process is not None and process.alive and process.name == control.NAME) and not _is_hidden(pid):
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(LOOK_AGAIN)


def _is_hidden(pid: int) -> bool:
    """Whether it is a process of another user, and /proc does not show those (hidepid, proc(5))."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return control.namespace() != 0 and procfs.look(pid) is None
    except (OSError, OverflowError):
        pass
    return False


def _listens(pid: int) -> bool:
    """Whether a process of our PID namespace has the socket of an agent-init."""
    made, _, _ = connection.connect_to(control.address(pid, control.namespace()), pid, OPENS_WITHIN)
    if made is not None:
        made.close()
    return made is not None


def connect(name: str, pid: int, timeout: float | None, problem: str) -> "tuple[_socket.socket, int]":
    """Return what `connection.connect_to` does, where that has failed for its name. Raises Failure.

    `problem`: why it has. Where nobody listens, wait for somebody who does: longer if agent-init has just been started,
    up to `timeout`.
    """
    left = YOUNG - _age(pid)
    end = time.monotonic() + max(OPENS_WITHIN, left if timeout is None else min(timeout, left))
    while True:
        for address in _other_addresses(name):
            made, peer, why = connection.connect_to(address, pid, timeout)
            if made is not None:
                return made, peer
            problem = why or problem
        if problem or time.monotonic() >= end:
            raise connection.Failure(_unreachable(pid, problem))
        time.sleep(LOOK_AGAIN)
        made, peer, problem = connection.connect_to(name, pid, timeout)
        if made is not None:
            return made, peer


def _unreachable(pid: int, problem: str) -> str:
    """Return what keeps us from a process. `problem`: what the kernel says, nothing if nobody listens."""
    process = procfs.look(pid)
    if not problem and process is not None and process.alive and process.name != control.NAME:
        return f"process {pid} ({process.name}) is no agent-init"
    if not problem:
        is_there = process.alive if process is not None else _is_hidden(pid)
        problem = "it has ended" if not is_there else OTHER_NETWORK if _is_in_another_network(pid) else NO_SOCKET
    return f"cannot reach agent-init (pid {pid}): {problem}"


def _is_in_another_network(pid: int) -> bool:
    """Whether it is not in our network namespace, in which the names of sockets are; False where that is not known."""
    try:
        return os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")
    except OSError:
        return False


def _age(pid: int) -> float:
    """Return the seconds since a process was started (`starttime`, proc(5)); infinity where that is not known."""
    process = procfs.look(pid)
    if process is None:
        return float("inf")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - process.start / os.sysconf("SC_CLK_TCK")


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

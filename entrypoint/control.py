"""The wire format between `agent-initctl` and process 1: packets over a socket in the abstract namespace (unix(7)).

A request is one packet of `KEY=VALUE` lines, with the command in COMMAND. The answer is any number of packets; the
first byte of each is its kind. Process 1 closes the connection after the last one. Both ends use this module.
"""

import _socket
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

VERSION = "1"
MAX_REQUEST_BYTES = 1024
MAX_PACKET_BYTES = 16384
FIELDS, LINES, PROBLEM, DONE = b"=", b">", b"!", b"."  # the kinds of packets
NAME = "agent-init"


def address(pid: int, namespace: int) -> str:
    """Return the socket's address: of the process that has this pid in the PID namespace with this inode number."""
    return f"\0{NAME}/{namespace}/{pid}"


def namespace(pid: "int | str" = "self") -> int:
    """Return the inode number of a process's PID namespace (namespaces(7)); 0 where that is not known."""
    try:
        return int(posix.readlink(f"/proc/{pid}/ns/pid").partition("[")[2].rstrip("]"))
    except (OSError, ValueError):
        return 0


def pid_and_user(credentials: bytes) -> tuple[int, int]:
    """Return the pid and the user id in a struct ucred (unix(7)), as the kernel shows them in our namespaces."""
    pid, uid = (int.from_bytes(credentials[at : at + 4], sys.byteorder) for at in (0, 4))
    return pid, uid


def sender(ancillary: "list[tuple[int, int, bytes]]") -> tuple[int, int]:
    """Return the pid and the user id of a message's sender; 0, which nobody has, and -1 where it has none."""
    for level, kind, value in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_CREDENTIALS:
            return pid_and_user(value)
    return 0, -1


def packets(kind: bytes, lines: "Iterable[bytes]") -> "list[bytes]":
    """Return packets of this kind with these lines. A line is in one packet, if it fits."""
    made: list[bytes] = []
    for line in lines:
        if made and len(made[-1]) + len(line) <= MAX_PACKET_BYTES:
            made[-1] += line
        else:
            size = MAX_PACKET_BYTES - len(kind)
            made += [kind + line[at : at + size] for at in range(0, len(line), size)]
    return made

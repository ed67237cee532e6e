"""Calls the C library where the standard library cannot: signalfd(2) and prctl(2).

This uses the C module that `ctypes` is built on; `ctypes` itself takes 3 ms to import.
"""

import posix
import sys

from ..signals import KILL

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

MAX_SECONDS = 1.0  # until a child has answered


def call(name: str, *arguments: int | bytes) -> int:
    """Call a function that takes and returns C ints (bytes are passed as a pointer).

    Raises OSError if there is no such function. The caller judges the return value.
    """
    try:
        from _ctypes import call_cdeclfunction, dlopen, dlsym

        return int(call_cdeclfunction(dlsym(dlopen(None), name), arguments))  # type: ignore[arg-type]
    except (ImportError, OSError) as error:
        raise OSError(f"{name} cannot be called: {error}") from None


def descriptor(name: str, *arguments: int | bytes) -> int:
    """Have a child of ours call a function that returns a descriptor. Return that descriptor; -1 if there is none.

    `_ctypes` and libffi take 0.1 to 0.4 MiB. In the child they take it for a moment only. All signals must be blocked;
    the child's exit is a SIGCHLD.
    """
    import _socket

    try:
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
    except OSError:
        return -1
    try:
        pid = posix.fork()
        if pid == 0:
            try:
                _answer(theirs, name, arguments)
            finally:  # whatever was raised: it must not go on in the place of its parent
                posix._exit(0)
        theirs.close()
        return _answer_of(pid, ours)
    except OSError:  # the pids limit, no memory
        return -1
    finally:
        ours.close()
        theirs.close()


def _answer(socket: "_socket.socket", name: str, arguments: tuple[int | bytes, ...]) -> None:
    """Call the function and send its descriptor; runs in the child. May raise anything."""
    import _socket

    fd = call(name, *arguments).to_bytes(4, sys.byteorder)
    socket.sendmsg([b"."], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fd)])


def _answer_of(pid: int, socket: "_socket.socket") -> int:
    """Receive the descriptor from the child, and wait for its exit."""
    import _socket

    ancillary: list[tuple[int, int, bytes]] = []
    try:
        socket.settimeout(MAX_SECONDS)
        _, ancillary, _, _ = socket.recvmsg(1, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
    except OSError:  # it hangs
        posix.kill(pid, KILL)
    try:
        posix.waitpid(pid, 0)
    except OSError:  # refused, or somebody else has reaped it
        pass
    for _, _, fd in ancillary:
        return int.from_bytes(fd[:4], sys.byteorder)
    return -1

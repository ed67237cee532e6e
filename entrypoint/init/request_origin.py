"""Where a stop request comes from: a platform that has not requested a stop does not end it either.

    outside   the sender is not in our PID namespace (its pid is 0), or it is an init above us (tini, s6, a script with
              a trap): the platform may be behind it. Also where nothing is known.
    inside    another process of our container: `kill 1` in a `docker exec` session, the agent itself
    kernel    the terminal has hung up, for example

Our PID namespace may be another container's too, or the host's (`--pid=host`: there `docker stop` has a pid). It is the
container's own if we are its process 1, or in the same control group as that.
"""

import posix

from . import procfs, tree
from .stop_plan import INSIDE, KERNEL, OUTSIDE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .signalfd import Received


def of(received: "Received") -> str:
    """Return where a signal comes from. To be called at once: the sender may exit."""
    if received.pid is None:
        return OUTSIDE
    return KERNEL if received.by_kernel else of_process(received.pid)


def of_process(pid: int) -> str:
    """Return where a request of the process with this pid comes from; 0 is a process outside of our PID namespace."""
    own = posix.getpid()
    if pid == 0:
        return OUTSIDE
    if own == 1:
        return INSIDE
    if pid == posix.getppid() or tree.is_below(pid, procfs.look(own)):
        return OUTSIDE
    return INSIDE if _is_same_container(1) or _is_same_container(pid) else OUTSIDE


def started_by_hand() -> bool:
    """Whether we run in a container that was started with another program, which the platform stops in our place.

    That is so in a `docker exec` session, where the container's process 1 is not above us, and below an interactive
    shell: it makes each of its jobs a process group, and has a terminal.
    """
    own = posix.getpid()
    if own == 1:
        return False
    process = procfs.look(own)
    if process is None:
        return False
    if _is_same_container(1) and not tree.is_below(1, process):
        return True
    is_job = posix.getpgrp() == own != posix.getsid(0)
    return is_job and _has_terminal() and procfs.is_shell(procfs.look(posix.getppid()))


def _is_same_container(pid: int) -> bool:
    """Whether a process is in the same control group as we are; False where that is not known."""
    theirs = procfs.control_group(pid)
    return theirs != b"" and theirs == procfs.control_group(posix.getpid())


def _has_terminal() -> bool:
    """Whether our session has a controlling terminal (tty_nr, the seventh field of `stat`, proc(5))."""
    try:
        line = procfs.read_file(f"/proc/{posix.getpid()}/stat")
        return line[line.rfind(b")") + 2 :].split()[4] != b"0"
    except (OSError, IndexError):
        return False

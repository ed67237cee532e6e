"""For `--warn-reaped`: finds the child to wait for, and reads its name while it is a zombie, before it is reaped."""

import posix

from . import procfs

CORE_DUMPED = 0x80


def find() -> tuple[int, int | None, str]:
    """Return the pid of a child that has exited or stopped, and the wait status and the name of one that has exited.

    The pid is 0 if there is no such child, -1 for any child where waitid(2) is refused, as for waitpid(2). The status
    is None and the name "" where they are not known. Raises ChildProcessError if no child is left.
    """
    try:
        for _ in range(2):
            found = posix.waitid(posix.P_ALL, 0, posix.WEXITED | posix.WNOHANG | posix.WNOWAIT)
            if found is not None:
                break
            # Ask for no exit: a child that exits now would be reaped without its name.
            try:
                stopped = posix.waitid(posix.P_ALL, 0, posix.WSTOPPED | posix.WNOHANG | posix.WNOWAIT)
            except ChildProcessError:  # zombies do not count here: all children have exited since
                continue
            return 0 if stopped is None else stopped.si_pid, None, ""
        else:
            return 0, None, ""
    except ChildProcessError:
        raise
    except OSError:  # a seccomp profile
        return -1, None, ""
    zombie = procfs.look(found.si_pid)
    return found.si_pid, _wait_status(found), "" if zombie is None else zombie.name


def _wait_status(found: "posix.waitid_result") -> int:
    """Return what waitpid(2) will return for a child that has exited (W_EXITCODE in the C library's wait.h)."""
    if found.si_code == posix.CLD_EXITED:
        return found.si_status << 8
    return found.si_status | (CORE_DUMPED if found.si_code == posix.CLD_DUMPED else 0)

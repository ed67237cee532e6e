"""For `--warn-reaped`: finds the child to wait for, and reads its name while it is a zombie, before it is reaped."""

import posix

from . import procfs

ANY, NONE = -1, 0  # in the place of a pid


def find() -> tuple[int, str]:
    """Return the pid of a child that has exited or stopped, and the name of one that has exited.

    ANY where waitid(2) is refused, NONE if there is no such child; the name is "" if it could not be read. Raises
    ChildProcessError if no child is left.
    """
    try:
        while (found := posix.waitid(posix.P_ALL, 0, posix.WEXITED | posix.WNOHANG | posix.WNOWAIT)) is None:
            # Ask for no exit: a child that exits now would be reaped without its name.
            try:
                stopped = posix.waitid(posix.P_ALL, 0, posix.WSTOPPED | posix.WNOHANG | posix.WNOWAIT)
            except ChildProcessError:  # zombies do not count here: all children have exited since
                continue
            return NONE if stopped is None else stopped.si_pid, ""
    except ChildProcessError:
        raise
    except OSError:  # a seccomp profile
        return ANY, ""
    zombie = procfs.look(found.si_pid)
    return found.si_pid, "" if zombie is None else zombie.name

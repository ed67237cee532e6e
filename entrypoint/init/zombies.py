"""For `--warn-reaped`: waits for a child, and reads its name while it is a zombie, before it is reaped."""

import posix

from . import procfs


def wait() -> tuple[int, int, str]:
    """Return a child that has exited or stopped: pid, wait status and name; pid 0 if there is none.

    The name is "" if it could not be read. Raises ChildProcessError if no child is left, another OSError if waitpid(2)
    fails.
    """
    try:
        while (found := posix.waitid(posix.P_ALL, 0, posix.WEXITED | posix.WNOHANG | posix.WNOWAIT)) is None:
            # Ask for no exit: a child that exits now would be reaped without its name.
            try:
                stopped = posix.waitid(posix.P_ALL, 0, posix.WSTOPPED | posix.WNOHANG)
            except ChildProcessError:  # zombies do not count here: all children have exited since
                continue
            return (0, 0, "") if stopped is None else (stopped.si_pid, stopped.si_status << 8 | 0x7F, "")
    except ChildProcessError:
        raise
    except OSError:  # this call is refused (seccomp)
        return *posix.waitpid(-1, posix.WNOHANG | posix.WUNTRACED), ""
    zombie = procfs.look(found.si_pid)
    return *posix.waitpid(found.si_pid, posix.WNOHANG), "" if zombie is None else zombie.name

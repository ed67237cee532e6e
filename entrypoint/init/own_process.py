"""What process 1 does to itself before and after the spawn: descriptors, directory, adoption of orphans."""

import posix
import sys

from . import spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

SIGNALFD = "anon_inode:[signalfd]"  # what /proc shows of one
CHARACTER_DEVICE, NULL = 0o20000, posix.makedev(1, 3)  # the type in st_mode (inode(7)), and the number of null(4)
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # prctl(2)


def fill_standard_descriptors() -> tuple[bool, ...]:
    """Open `/` on each of the descriptors 0 to 2 that is closed, so that no file of ours gets that number.

    It is close-on-exec: the agent finds them closed, as we did. Returns which of them were open.
    """
    were_open = []
    for fd in range(3):
        try:
            status = posix.fstat(fd)
            were_open.append(True)
            if fd == 0 and _is_null(status):
                _open_null_for_writing_too()
        except OSError:
            were_open.append(False)
            posix.open("/", posix.O_RDONLY)  # takes the lowest free number: this one
    return tuple(were_open)


def _is_null(status: posix.stat_result) -> bool:
    return status.st_rdev == NULL and status.st_mode & 0o170000 == CHARACTER_DEVICE


def _open_null_for_writing_too() -> None:
    """Open /dev/null on descriptor 0, for reading and writing, as runc does for a container that has it there.

    A shell opens it for a job in its background, only for reading. So what has inherited ours is no such job, and gets
    the stop signal that the shell would keep to itself (`foreground`). A shell script that starts us in its background
    has opened ours in that way.
    """
    try:
        fd = posix.open("/dev/null", posix.O_RDWR | posix.O_CLOEXEC)
        try:
            if _is_null(posix.fstat(fd)):
                posix.dup2(fd, 0)
        finally:
            posix.close(fd)
    except OSError:  # refused, or no descriptor left
        pass


def launchers_signalfd() -> int | None:
    """Return the signalfd(2) that the launcher has made, if it has. It is close-on-exec from now on."""
    number = sys._xoptions.get("signalfd")
    if not isinstance(number, str):
        return None
    try:  # an interpreter that is a script may have closed it, or have another file by its number
        if posix.readlink(f"/proc/self/fd/{number}") != SIGNALFD:
            return None
    except OSError:  # no /proc
        pass
    try:
        posix.set_inheritable(int(number), False)
    except (OSError, ValueError):
        return None
    return int(number)


def check_pid() -> None:
    """Raise spawn.Refused if we are not given our pid: the C library returns the error in its place.

    Nothing else may be done then. A negative pid stands for a process group, and -1 for everybody (kill(2)).
    """
    if (pid := posix.getpid()) < 0:
        raise spawn.Refused("getpid", -pid)


def has_children() -> bool:
    """Whether there are children of ours that have not exited. Those that have are reaped. Raises spawn.Refused."""
    try:
        while spawn.call("waitpid", lambda: posix.waitpid(-1, posix.WNOHANG))[0]:
            continue
    except ChildProcessError:
        return False
    return True


def adopt(subreaper: bool | None, parent_death_signal: int | None, parent: int) -> list[str]:
    """Become a subreaper (if None: unless we are process 1), and request a signal for our parent's death.

    `parent`: our parent's pid at the start. Returns problems, for the log.
    """
    problems = []
    if subreaper or (subreaper is None and posix.getpid() != 1 and sys.platform == "linux"):
        if not _prctl(PR_SET_CHILD_SUBREAPER, 1):
            problems.append("cannot become a subreaper: orphans of the agent will not come to agent-init")
    if parent_death_signal is not None:
        if not _prctl(PR_SET_PDEATHSIG, parent_death_signal):
            problems.append("cannot ask for a signal at the parent's death")
        elif posix.getppid() != parent:  # it died before the request
            posix.kill(posix.getpid(), parent_death_signal)
    return problems


def _prctl(what: int, value: int) -> bool:
    from . import libc

    try:
        return libc.call("prctl", what, value, 0, 0, 0) == 0
    except OSError:
        return False


def let_agent_run() -> None:
    """Let the agent run first if it is on the same processor (sched_yield(2)).

    The kernel resumes a parent as soon as its child has begun to execute its program, and then prefers it. So on one
    processor, or a busy machine, the agent's first instruction waited 2 ms for what we do next.
    """
    try:
        posix.sched_yield()
    except (OSError, AttributeError):  # refused; no such call (macOS)
        pass


def close_inherited(ours: "Collection[int]") -> None:
    """Close every descriptor above 2 except `ours`."""
    try:
        found = {int(name) for name in posix.listdir("/proc/self/fd")}
    except (OSError, ValueError):
        limit = posix.sysconf("SC_OPEN_MAX")  # -1 for none
        found = set(range(min(limit, 65536) if limit > 0 else 65536))
    for fd in found:
        if fd > 2 and fd not in ours:
            try:
                posix.close(fd)
            except OSError:
                continue


def leave_directory() -> None:
    """Move to `/`, so that the directory we were started in can be unmounted."""
    try:
        posix.chdir("/")
    except OSError:
        pass

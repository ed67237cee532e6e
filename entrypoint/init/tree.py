"""Who descends from us, and what they do with a signal: read from /proc (proc(5)) when asked, never watched.

Elsewhere than on Linux there is no /proc; there psutil answers, imported when first needed. On Linux process 1 reads
for itself: psutil would cost it twice its own memory, and a scan of 10,000 processes many times as long.
"""

import _signal
import errno
import os
import sys

LINUX = sys.platform == "linux"


def _proc_is_ours() -> bool:
    """Whether /proc is mounted, and shows our own PID namespace: another one's pids would be other processes."""
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False


PROC = _proc_is_ours()


class Process:
    """A process as it was when looked at. `start` tells a reused pid apart (clock ticks since boot, proc(5))."""

    __slots__ = ("group", "name", "parent", "pid", "start", "state")

    def __init__(self, pid: int, name: str, state: str, parent: int, group: int, start: int) -> None:
        self.pid, self.name, self.state, self.parent, self.group, self.start = pid, name, state, parent, group, start

    @property
    def identity(self) -> tuple[int, int]:
        """The same for as long as it is the same process."""
        return self.pid, self.start


def look(pid: int) -> Process | None:
    """The process with this pid; None when it is gone or may not be looked at."""
    if not LINUX:
        return _look_with_psutil(pid)
    if not PROC:
        return None
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
    except OSError:
        return None
    try:
        line = os.read(fd, 1024)
    except OSError:  # gone since the open
        return None
    finally:
        os.close(fd)
    opening, closing = line.find(b"("), line.rfind(b")")  # the name may hold anything, parentheses too
    fields = line[closing + 2 :].split()
    if len(fields) < 20:
        return None
    return Process(
        pid,
        line[opening + 1 : closing].decode("utf-8", "backslashreplace"),
        fields[0].decode("ascii"),
        int(fields[1]),
        int(fields[2]),
        int(fields[19]),
    )


def pids() -> list[int]:
    """All processes that can be seen. Raises OSError when none can."""
    if not LINUX:
        import psutil

        return list(psutil.pids())
    found = [int(name) for name in os.listdir("/proc") if name.isdigit()] if PROC else []
    if not found:
        raise OSError(errno.ENOENT, "no process to be seen", "/proc")
    return found


def everything() -> dict[int, Process]:
    """All processes that can be seen, by pid. Raises OSError when none can."""
    seen = {pid: process for pid in pids() if (process := look(pid)) is not None}
    # A parent that died while we read leaves a child that names nobody; by now it has been adopted, mostly by us.
    for process in list(seen.values()):
        if process.parent not in seen and process.parent != 0 and (again := look(process.pid)) is not None:
            seen[process.pid] = again
    return seen


def below(root: int, seen: dict[int, Process]) -> list[Process]:
    """The living descendants of `root` among `seen`, parents before their children."""
    children: dict[int, list[Process]] = {}
    for process in seen.values():
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    generation = [root]
    while generation:
        born = [child for parent in generation for child in children.pop(parent, ())]
        found += born
        generation = [process.pid for process in born]
    return [process for process in found if process.state not in "ZX"]


def descendants(root: int) -> list[Process]:
    """The living descendants of `root`, parents before their children. Raises OSError when /proc cannot be read."""
    return below(root, everything())


class Dispositions:
    """What one process does with signals. The file in /proc stays open: a look costs one pread(2).

    That of the main thread, `/proc/<pid>/task/<pid>/stat`, is made in half the time of `/proc/<pid>/status`, but tells
    of the first 31 signals only (proc(5), fields 33 and 34); for real-time signals the latter is read.
    """

    __slots__ = ("_fd", "pid")

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._fd = -1
        if PROC:
            try:
                self._fd = os.open(f"/proc/{pid}/task/{pid}/stat", os.O_RDONLY)
            except OSError:
                return  # no /proc, hidden, or no descriptor left: then nothing is known

    def __bool__(self) -> bool:
        """Whether anything can be known."""
        return self._fd >= 0

    def catches(self, number: int) -> bool:
        """It has a handler for the signal. False as well where nothing is known."""
        return self._masks(number)[0]

    def minds(self, number: int) -> bool:
        """It catches or ignores the signal: sending it does what its author meant. True where nothing is known."""
        caught, ignored = self._masks(number, unknown=True)
        return caught or ignored

    def _masks(self, number: int, *, unknown: bool = False) -> tuple[bool, bool]:
        """Whether it catches and whether it ignores the signal; `unknown` for both where that cannot be known."""
        try:
            if self._fd < 0:
                return unknown, unknown
            if number > 31:
                ignored, caught = self._masks_of_all()
            else:
                line = os.pread(self._fd, 1024, 0)
                fields = line[line.rfind(b")") + 2 :].split(b" ", 32)
                ignored, caught = int(fields[30]), int(fields[31])
        except (OSError, ValueError, IndexError):
            return unknown, unknown
        bit = 1 << (number - 1)
        return bool(caught & bit), bool(ignored & bit)

    def _masks_of_all(self) -> tuple[int, int]:
        fd = os.open(f"/proc/{self.pid}/status", os.O_RDONLY)
        try:
            text = os.read(fd, 4096)
        finally:
            os.close(fd)
        at = text.index(b"\nSigIgn:\t")  # 16 hexadecimal digits; SigCgt follows
        return int(text[at + 9 : at + 25], 16), int(text[at + 34 : at + 50], 16)

    def close(self) -> None:
        """Let go of the descriptor."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


# While a command runs, shells catch INT and bash ignores QUIT, for their own sake; that says nothing of the command.
SHELL_HABITS = (_signal.SIGINT, _signal.SIGQUIT)


def is_shell(process: Process | None) -> bool:
    """By its name, as far as that tells."""
    return process is not None and process.name in ("sh", "bash", "dash", "ash", "busybox", "ksh", "mksh", "zsh")


def topmost_catchers(root: int, number: int) -> list[Process]:
    """The descendants of `root` that catch the signal and have no ancestor below `root` that does.

    Raises OSError when /proc cannot be read.
    """
    hidden = set()  # below one that catches it
    found = []
    for process in descendants(root):
        if process.parent in hidden:
            hidden.add(process.pid)
            continue
        dispositions = Dispositions(process.pid)
        if dispositions.catches(number) and not (number in SHELL_HABITS and is_shell(process)):
            found.append(process)
            hidden.add(process.pid)
        dispositions.close()
    return found


def send(process: Process, number: int) -> bool:
    """Send a signal to exactly this process; False when it is gone. Raises PermissionError.

    A pid from /proc may have been reused since. A pidfd (pidfd_open(2)) names one process for good, and the start
    time tells whether it is still the one that was looked at.
    """
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    except (OSError, AttributeError):  # an older kernel, a sandbox, no descriptor left, not Linux
        return _send_by_pid(process, number)
    try:
        now = look(process.pid)
        if now is not None and now.start != process.start:
            return False
        _signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


def _send_by_pid(process: Process, number: int) -> bool:
    now = look(process.pid)
    if now is None or now.start != process.start:
        return False
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        return False
    return True


def _look_with_psutil(pid: int) -> Process | None:
    import psutil

    try:
        process = psutil.Process(pid)
        with process.oneshot():
            state = "Z" if process.status() == psutil.STATUS_ZOMBIE else "S"
            start = int(process.create_time() * 100)
            return Process(pid, process.name(), state, process.ppid(), os.getpgid(pid), start)
    except (psutil.Error, OSError):
        return None

"""Who descends from us, and what they do with a signal: read from /proc (proc(5)) when asked, never watched.

Elsewhere than on Linux there is no /proc; there psutil answers, imported when first needed. On Linux process 1 reads
for itself: psutil would cost it twice its own memory, and a scan of 10,000 processes many times as long.
"""

import _signal
import errno
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

LINUX = sys.platform == "linux"
ATTEMPTS = 3  # at what must not be taken for unknown because of one failure


def _proc_is_ours() -> bool:
    """Whether /proc is mounted, and shows our own PID namespace: another one's pids would be other processes."""
    for _ in range(ATTEMPTS):
        try:
            return os.readlink("/proc/self") == str(os.getpid())
        except FileNotFoundError:
            break
        except OSError:  # no memory just now, say
            continue
    return False


PROC = _proc_is_ours()
DEEPEST = 10_000  # a parent that dies while we climb may leave us going in a circle


class Process:
    """A process as it was when looked at. `start` tells a reused pid apart (clock ticks since boot, proc(5)).

    `alive`: it has not ended, zombies have. `cpu`: clock ticks of processor time that it has used.
    """

    __slots__ = ("alive", "cpu", "group", "name", "parent", "pid", "start")

    def __init__(
        self, pid: int, name: str, parent: int, group: int, start: int, *, alive: bool = True, cpu: int = 0
    ) -> None:
        self.pid, self.name, self.parent, self.group, self.start = pid, name, parent, group, start
        self.alive, self.cpu = alive, cpu

    @property
    def identity(self) -> tuple[int, int]:
        """The same for as long as it is the same process."""
        return self.pid, self.start


def contents(path: str, most: int = 4096) -> bytes:
    """A file of the kernel's, in one read of so many bytes. Raises OSError."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, most)
    finally:
        os.close(fd)


def look(pid: int) -> Process | None:
    """The process with this pid; None when it is gone or may not be looked at."""
    if not LINUX:
        return _look_with_psutil(pid)
    if not PROC:
        return None
    try:
        line = contents(f"/proc/{pid}/stat")
    except OSError:
        return None
    opening, closing = line.find(b"("), line.rfind(b")")  # the name may hold anything, parentheses too
    fields = line[closing + 2 :].split()
    if len(fields) < 20:
        return None
    return Process(
        pid,
        line[opening + 1 : closing].decode("utf-8", "backslashreplace"),
        int(fields[1]),
        int(fields[2]),
        int(fields[19]),
        # One whose main thread has ended looks like a zombie; it lives while another thread does (field 20).
        alive=fields[0] not in b"ZX" or int(fields[17]) > 1,
        cpu=int(fields[11]) + int(fields[12]),
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
    return [process for process in found if process.alive]


def is_below(root: int, process: Process | None) -> bool:
    """Whether `root` is an ancestor of the process."""
    for _ in range(DEEPEST):
        if process is None or process.pid == 0:
            return False
        if process.parent == root:
            return True
        process = look(process.parent)
    return False


def descendants(root: int) -> list[Process]:
    """The living descendants of `root`, parents before their children. Raises OSError when /proc cannot be read."""
    return below(root, everything())


class Dispositions:
    """What one process does with signals. The file in /proc stays open: a look costs one pread(2).

    That of the main thread, `/proc/<pid>/task/<pid>/stat`, is made in half the time of `/proc/<pid>/status`, but tells
    of the first 31 signals only (proc(5), fields 32 to 34); for real-time signals the latter is read.

    A signal that the main thread blocks counts as handled: it waits for sigwait(3) or signalfd(2), or for the moment
    when the agent is ready for it. Inside of sigwait the kernel shows it unblocked; there `/proc/<pid>/wchan` tells.
    """

    __slots__ = ("_fd", "pid")

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._fd = -1
        bool(self)

    def __bool__(self) -> bool:
        """Whether anything can be known."""
        if self._fd < 0 and self.pid and PROC:
            try:
                self._fd = os.open(f"/proc/{self.pid}/task/{self.pid}/stat", os.O_RDONLY)
            except OSError:
                pass  # hidden, or no descriptor left: then nothing is known now
        return self._fd >= 0

    def catches(self, number: int) -> bool:
        """It handles the signal. False as well where nothing is known."""
        return self._masks(number)[0]

    def minds(self, number: int) -> bool:
        """It handles or ignores the signal: sending it does what its author meant. True where nothing is known."""
        return True in self._masks(number, unknown=True)

    def _masks(self, number: int, *, unknown: bool = False) -> tuple[bool, bool]:
        """Whether it handles and whether it ignores the signal; `unknown` for both where that cannot be known."""
        for _ in range(ATTEMPTS):
            try:
                if not self:
                    continue
                if number > 31:
                    blocked, ignored, caught = self._masks_of_all()
                else:
                    line = os.pread(self._fd, 1024, 0)
                    fields = line[line.rfind(b")") + 2 :].split(b" ", 32)
                    blocked, ignored, caught = map(int, fields[29:32])
            except (OSError, ValueError, IndexError):
                continue
            bit = 1 << (number - 1)
            return bool((caught | blocked) & bit) or self._waits_for_signals(), bool(ignored & bit)
        return unknown, unknown

    def _waits_for_signals(self) -> bool:
        try:
            return b"sigtimedwait" in contents(f"/proc/{self.pid}/wchan")
        except OSError:
            return False

    def _masks_of_all(self) -> tuple[int, int, int]:
        text = contents(f"/proc/{self.pid}/status", 65536)  # its groups stand before, all of them
        words = text[text.index(b"\nSigBlk:") :].split()  # each a name and a number; then SigIgn and SigCgt
        return int(words[1], 16), int(words[3], 16), int(words[5], 16)

    def close(self) -> None:
        """Let go of the descriptor; from then on nothing is known."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self.pid = -1, 0


# While a command runs, shells catch INT and bash ignores QUIT, for their own sake; that says nothing of the command.
SHELL_HABITS = (_signal.SIGINT, _signal.SIGQUIT)
SHELLS = frozenset(("sh", "bash", "dash", "ash", "busybox", "ksh", "mksh", "zsh", "fish"))


def is_shell(process: Process | None) -> bool:
    """Whether it runs a shell's program."""
    return process is not None and not SHELLS.isdisjoint(program_names(process))


def program_names(process: Process) -> frozenset[str]:
    """What its program is called: the name of the file that it executes, and its argv[0].

    Of busybox(1) only the applet's name counts. `comm` is no evidence where there is better: that of a script is the
    script's name, whatever shell runs it.
    """
    try:
        file = os.path.basename(os.readlink(f"/proc/{process.pid}/exe"))
    except OSError:
        file = ""
    argv = argv_of(process.pid)
    own = os.path.basename(argv[0]).lstrip("-") if argv else ""
    if file == "busybox":
        file, own = "", os.path.basename(argv[1]) if own == "busybox" and argv[1:] else own
    return frozenset({file, own} - {""}) or frozenset({process.name})


def argv_of(pid: int) -> list[str]:
    """The first words of its command line (proc(5), /proc/pid/cmdline); empty where they cannot be read."""
    try:
        return [os.fsdecode(word) for word in contents(f"/proc/{pid}/cmdline").split(b"\0")[:-1]]
    except OSError:
        return []


def wait_channel(pid: int) -> bytes:
    """The kernel function that its main thread sleeps in (proc(5), /proc/pid/wchan); empty where that is not known."""
    try:
        return contents(f"/proc/{pid}/wchan")
    except OSError:
        return b""


def blocking_descriptor(pid: int) -> int | None:
    """The descriptor that its main thread reads: the first argument of its system call; None where not known."""
    try:
        fields = contents(f"/proc/{pid}/syscall").split()
        return int(fields[1], 16)
    except (OSError, ValueError, IndexError):
        return None


def descriptor(pid: int, fd: int) -> str:
    """What one of its descriptors leads to, `pipe:[4711]`; empty where that is not known."""
    try:
        return os.readlink(f"/proc/{pid}/fd/{fd}")
    except OSError:
        return ""


def modes_of(pid: int, link: str) -> "Iterator[int]":
    """The flags of open(2) of each of its descriptors that leads to `link`."""
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return
    for name in names:
        try:
            if os.readlink(f"/proc/{pid}/fd/{name}") == link:
                words = contents(f"/proc/{pid}/fdinfo/{name}").split()
                yield int(words[words.index(b"flags:") + 1], 8)
        except (OSError, ValueError, IndexError):
            continue


def children(pid: int) -> list[Process]:
    """Its children; none where the kernel does not list them (CONFIG_PROC_CHILDREN), or where it has ended."""
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            found += map(int, contents(f"/proc/{pid}/task/{task}/children", 1 << 20).split())
    except OSError:
        pass
    return [process for child in found if (process := look(child)) is not None]


def children_among(seen: dict[int, Process]) -> "Callable[[int], list[Process]]":
    """As `children`, from one look at all processes."""
    by_parent: dict[int, list[Process]] = {}
    for process in seen.values():
        by_parent.setdefault(process.parent, []).append(process)
    return lambda pid: by_parent.get(pid, [])


def minds(process: Process, number: int) -> bool:
    """It handles or ignores the signal. True where nothing is known."""
    dispositions = Dispositions(process.pid)
    try:
        return dispositions.minds(number)
    finally:
        dispositions.close()


def really_catches(process: Process, number: int) -> bool:
    dispositions = Dispositions(process.pid)
    try:
        return dispositions.catches(number) and not (number in SHELL_HABITS and is_shell(process))
    finally:
        dispositions.close()


def send(process: Process, *numbers: int) -> bool:
    """Send signals to exactly this process; False when it had ended before. Raises PermissionError.

    A pid from /proc may have been reused since. A pidfd (pidfd_open(2)) names one process for good, and the start
    time tells whether it is still the one that was looked at.
    """
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    except (OSError, AttributeError):  # an older kernel, a sandbox, no descriptor left, not Linux
        return _is_same(process) and _send_all(lambda number: os.kill(process.pid, number), numbers)
    try:
        return _is_same(process, unknown=True) and _send_all(
            lambda number: _signal.pidfd_send_signal(fd, number), numbers
        )
    finally:
        os.close(fd)


def _is_same(process: Process, *, unknown: bool = False) -> bool:
    """Whether it is there, and the one that was looked at; `unknown` where that cannot be known."""
    now = look(process.pid)
    return unknown if now is None else now.start == process.start and now.alive


def _send_all(send_one: "Callable[[int], object]", numbers: "Sequence[int]") -> bool:
    """Whether one was sent: it may have ended by it."""
    sent = False
    try:
        for number in numbers:
            send_one(number)
            sent = True
    except ProcessLookupError:
        pass
    return sent


def _look_with_psutil(pid: int) -> Process | None:
    import psutil

    try:
        process = psutil.Process(pid)
        with process.oneshot():
            alive = process.status() != psutil.STATUS_ZOMBIE
            start = int(process.create_time() * 100)
            return Process(pid, process.name(), process.ppid(), os.getpgid(pid), start, alive=alive)
    except (psutil.Error, OSError):
        return None

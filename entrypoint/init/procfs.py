"""What the kernel reports of a process in /proc (proc(5)): read when asked for, never watched.

There is no /proc except on Linux; elsewhere psutil answers, imported when first needed. On Linux process 1 reads for
itself: psutil would cost it twice its own memory, and a scan of 10,000 processes many times as long.
"""

import _signal
import errno
import posix
import sys
import time

from .. import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LINUX = sys.platform == "linux"
MAX_STAT_BYTES = 1024  # of /proc/<pid>/stat: 52 numbers and a name
ATTEMPTS = 3  # at a read whose one failure must not pass for "unknown"


# While a command runs, shells catch INT and bash ignores QUIT for their own sake: no evidence about the command.
SHELL_HABITS = (_signal.SIGINT, _signal.SIGQUIT)
PDKSH = frozenset("mksh lksh oksh posh".split())
SHELLS = PDKSH | frozenset("sh bash rbash dash ash busybox ksh ksh93 zsh yash fish csh tcsh".split())
# A handler for one of these is one that the program has set: no interpreter or debugging aid sets it for itself.
TELLTALES = (_signal.SIGHUP, _signal.SIGUSR1, _signal.SIGUSR2, _signal.SIGTERM)
# Python's own start takes 1 to 3 clock ticks, of 10 ms each. INT in that time ends it with code 1 and a "Fatal Python
# error", as it does not expect one; and there is no work yet that could be lost.
STARTING_TICKS = 5
PF_EXITING = 4
# A process that blocks this many of the first 31 signals blocks all that it can: for good, or for a moment.
ALMOST_ALL = 16
LOOKS, A_MOMENT = 10, 0.0002  # at a process that may change at once, and the seconds between them
MAX_WAITED = (
    0.1  # seconds of each second that such looks may take, but for the agent: there may be thousands of processes
)
MAX_REPORTS = 64  # processes whose own reports of their handlers are kept


class Process:
    """A process as it was when looked at.

    `start`: clock ticks from the boot to its start; distinguishes two processes with one pid. `alive`: it has not
    exited; a zombie has. `waits`: its main thread sleeps, and a signal would interrupt that. `cpu`: clock ticks of
    processor time that it has used.
    """

    __slots__ = ("alive", "cpu", "group", "name", "parent", "pid", "start", "waits")

    def __init__(
        self,
        pid: int,
        name: str,
        parent: int,
        group: int,
        start: int,
        *,
        alive: bool = True,
        waits: bool = True,
        cpu: int = 0,
    ) -> None:
        self.pid, self.name, self.parent, self.group, self.start = pid, name, parent, group, start
        self.alive, self.waits, self.cpu = alive, waits, cpu

    @property
    def is_starting(self) -> bool:
        """Whether its program seems to be starting: it runs, and has used next to no processor time yet."""
        return not self.waits and self.cpu < STARTING_TICKS

    @property
    def identity(self) -> tuple[int, int]:
        """The same for as long as it is the same process."""
        return self.pid, self.start

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})"


def read_file(path: str, max_bytes: int = 4096) -> bytes:
    """Return the content of a file that the kernel makes up, in one read(2). Raises OSError."""
    fd = posix.open(path, posix.O_RDONLY)
    try:
        return posix.read(fd, max_bytes)
    finally:
        posix.close(fd)


def _is_our_own() -> bool:
    """Whether /proc is mounted and shows our PID namespace: in another one the pids would be other processes."""
    for _ in range(ATTEMPTS):
        try:
            return posix.readlink("/proc/self") == str(posix.getpid())
        except FileNotFoundError:
            return False
        except OSError:  # no memory at the moment, for example
            continue
    try:  # the call may be refused for good (seccomp)
        return int(read_file("/proc/self/stat").split()[0]) == posix.getpid()
    except (OSError, ValueError, IndexError):
        return False


MOUNTED = _is_our_own()


# --- Which processes there are. -------------------------------------------------------------------------------------


def look(pid: int) -> Process | None:
    """Return the process with this pid; None if it is gone or may not be looked at."""
    if not LINUX:
        return _look_with_psutil(pid)
    if not MOUNTED:
        return None
    line = b""
    for _ in range(ATTEMPTS):
        try:
            line = read_file(f"/proc/{pid}/stat")
            break
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return None
        except OSError:  # no descriptor or no memory at the moment: no evidence of an exit
            continue
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
        # A process whose main thread has exited looks like a zombie; it lives while another thread does (field 20).
        alive=fields[0] not in b"ZX" or int(fields[17]) > 1,
        waits=fields[0] == b"S",
        cpu=int(fields[11]) + int(fields[12]),
    )


def _look_with_psutil(pid: int) -> Process | None:
    import psutil

    try:
        process = psutil.Process(pid)
        with process.oneshot():
            alive = process.status() != psutil.STATUS_ZOMBIE
            start = int(process.create_time() * 100)
            return Process(pid, process.name(), process.ppid(), posix.getpgid(pid), start, alive=alive)
    except (psutil.Error, OSError):
        return None


def is_there(known: Process | None) -> bool:
    """Whether this very process has not exited. False for None, and where nothing is known."""
    now = look(known.pid) if known is not None else None
    return known is not None and now is not None and now.identity == known.identity and now.alive


def is_dying(known: Process) -> bool:
    """Whether a process that was sent SIGKILL exits as soon as it gets processor time: it exits already, or it can run.

    From the flags and the state in `stat` (proc(5), fields 9 and 3; PF_EXITING, include/linux/sched.h).
    """
    try:
        line = read_file(f"/proc/{known.pid}/stat")
        fields = line[line.rfind(b")") + 2 :].split(b" ", 7)
        return bool(int(fields[6]) & PF_EXITING) or fields[0] in (b"R", b"Z", b"X")
    except (OSError, ValueError, IndexError):
        return not is_there(known)


def pids() -> list[int]:
    """Return all pids that can be seen. Raises OSError if there are none."""
    if not LINUX:
        import psutil

        return list(psutil.pids())
    found = [int(name) for name in posix.listdir("/proc") if name.isdigit()] if MOUNTED else []
    if not found:
        raise OSError(errno.ENOENT, "no processes visible", "/proc")
    return found


def children(pid: int) -> list[Process]:
    """Return its children; none if the kernel does not list them (CONFIG_PROC_CHILDREN), or if it has exited."""
    return [process for child in child_pids(pid) if (process := look(child)) is not None]


def child_pids(pid: int) -> list[int]:
    """Return the pids of its children, zombies too, about 700 at most (one page); none where `children` has none."""
    found: list[int] = []
    try:
        tasks = posix.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    for task in tasks:
        try:
            found += map(int, read_file(f"/proc/{pid}/task/{task}/children", 1 << 20).split())
        except OSError:  # a thread that has exited meanwhile
            continue
    return found


# --- What a process is, and what it is doing. -----------------------------------------------------------------------


def argv_of(pid: int) -> list[str]:
    """Return its command line, as far as 4096 bytes of it; empty where it cannot be read.

    Of an emulated program it is the program's own: the kernel puts the emulator's path in front (binfmt_misc).
    """
    try:
        argv = [paths.fsdecode(argument) for argument in read_file(f"/proc/{pid}/cmdline").split(b"\0")[:-1]]
    except OSError:
        return []
    return argv[1:] if argv[1:] and _is_emulator(paths.basename(argv[0])) else argv


def _is_emulator(name: str) -> bool:
    """Whether it is the name of qemu's emulator of single programs, such as qemu-aarch64-static."""
    return name.startswith("qemu-") and not name.startswith("qemu-system-")


def executable(pid: int) -> str:
    """Return the path of the file that it executes; empty where that is not known."""
    try:
        return posix.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""


def program_names(process: Process) -> frozenset[str]:
    """Return the name of the file that it executes and that in its argv[0]; of busybox(1) the applet's name only.

    The name in `stat` counts only where neither can be read: for a script it is the script's, whatever shell runs it.
    """
    file = paths.basename(executable(process.pid))
    if _is_emulator(file):
        file = ""
    argv = argv_of(process.pid)
    own = paths.basename(argv[0]).lstrip("-") if argv else ""
    if file == "busybox":
        file, own = "", paths.basename(argv[1]) if own == "busybox" and argv[1:] else own
    return frozenset({file, own} - {""}) or frozenset({process.name})


def is_shell(process: Process | None) -> bool:
    """Whether it runs a shell's program."""
    return process is not None and not SHELLS.isdisjoint(program_names(process))


def wait_channel(pid: int) -> bytes:
    """Return the kernel function that its main thread sleeps in (/proc/pid/wchan); empty where that is not known."""
    try:
        return read_file(f"/proc/{pid}/wchan")
    except OSError:
        return b""


def blocking_descriptor(pid: int) -> int | None:
    """Return the descriptor that its main thread reads: the first argument of its system call; None if not known."""
    try:
        fields = read_file(f"/proc/{pid}/syscall").split()
        return int(fields[1], 16)
    except (OSError, ValueError, IndexError):
        return None


def descriptor_target(pid: int, fd: int) -> str:
    """Return what a descriptor of it refers to, such as `pipe:[4711]`; empty where that is not known."""
    try:
        return posix.readlink(f"/proc/{pid}/fd/{fd}")
    except OSError:
        return ""


def descriptors(pid: int, at_most: int | None = None) -> "dict[str, list[str]] | None":
    """Return its descriptors by what they refer to: none if they cannot be seen, None if there are too many."""
    found: dict[str, list[str]] = {}
    names: list[str] = []
    try:
        with posix.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                if len(names) == at_most:  # the kernel takes 4 µs for each one that it lists
                    return None
                names.append(entry.name)
    except OSError:
        return found
    for name in names:
        try:
            found.setdefault(posix.readlink(f"/proc/{pid}/fd/{name}"), []).append(name)
        except OSError:  # closed meanwhile
            continue
    return found


def open_modes(pid: int, target: str, held: "dict[str, list[str]] | None" = None) -> "Iterator[int]":
    """Yield the flags of open(2) of each of its descriptors that refers to `target`. `held`: its `descriptors`."""
    for name in ((descriptors(pid) if held is None else held) or {}).get(target, ()):
        try:
            fields = read_file(f"/proc/{pid}/fdinfo/{name}").split()
            yield int(fields[fields.index(b"flags:") + 1], 8)
        except (OSError, ValueError, IndexError):
            continue


def opened(pid: int, fd: int) -> tuple[str, int, int] | None:
    """Return what a descriptor of it refers to, the flags of open(2), and the mount; None where that is not known.

    They are the same for two descriptors of which one was inherited from the other: without O_CLOEXEC, which Node sets.
    """
    target = descriptor_target(pid, fd)
    try:
        fields = read_file(f"/proc/{pid}/fdinfo/{fd}").split()
        flags, mount = fields[fields.index(b"flags:") + 1], fields[fields.index(b"mnt_id:") + 1]
        return (target, int(flags, 8) & ~posix.O_CLOEXEC, int(mount)) if target else None
    except (OSError, ValueError, IndexError):
        return None


def tracer_of(pid: int) -> int:
    """Return the pid of the process that traces it (ptrace(2)); 0 if there is none, or if that is not known."""
    return _number_in_status(pid, b"TracerPid:") or 0


def user_of(pid: int) -> int | None:
    """Return the real user id that it runs with; None where that is not known."""
    return _number_in_status(pid, b"Uid:")


def control_group(pid: int) -> bytes:
    """Return its control groups as /proc has them; nothing where there are none."""
    try:
        return read_file(f"/proc/{pid}/cgroup")
    except OSError:
        return b""


def is_in_our_container(pid: int) -> bool | None:
    """Whether it sees our files; where that is not known, whether it is in our control group. None: neither is known.

    The first is not known of another user's process without CAP_SYS_PTRACE; gVisor has neither.
    """
    try:
        return posix.readlink(f"/proc/{pid}/ns/mnt") == posix.readlink("/proc/self/ns/mnt")
    except OSError:
        own = control_group(posix.getpid())
        return control_group(pid) == own if own else None


def _number_in_status(pid: int, field: bytes) -> int | None:
    try:
        fields = read_file(f"/proc/{pid}/status").split()
        return int(fields[fields.index(field) + 1])
    except (OSError, ValueError, IndexError):
        return None


# --- What it does with signals. -------------------------------------------------------------------------------------


# gVisor shows no signal masks (`status` has no Sig* lines, fields 31 to 34 of `stat` are zero), and under qemu's user
# emulation the kernel shows the emulator's, which catches nearly everything. Process 1 knows its own mask and handlers,
# so a look at itself shows whether what /proc shows of others is true.
_masks_are_false: bool | None = None  # None: not looked at yet
_waited, _waited_since = 0.0, 0.0  # the seconds that were waited for since then (monotonic clock)

# What processes have reported of themselves: by pid, the start time and the signals that they handle or ignore.
_reports: dict[int, tuple[int, frozenset[int]]] = {}


def masks_are_false() -> bool:
    """Whether /proc is known to show signal masks that are not true. False where it cannot be read at all."""
    global _masks_are_false
    if _masks_are_false is None and MOUNTED:
        try:
            _masks_are_false = not _shows_our_masks()
        except (OSError, ValueError, IndexError):
            return False  # looked at again the next time
    return bool(_masks_are_false)


def _shows_our_masks() -> bool:
    """Whether /proc shows the signals that this thread blocks, else those that it handles, and none that it does not.

    The file is not `/proc/self/stat` or `/proc/<pid>/stat`: qemu makes up a content of its own for these two.
    """
    pid = posix.getpid()
    shown_blocked, _, shown_caught = _masks_in_stat(read_file(f"/proc/{pid}/task/{pid}/stat"))
    blocked = [number for number in _signal.pthread_sigmask(_signal.SIG_BLOCK, ()) if number < 32]
    handled = [number for number in range(1, 32) if callable(_signal.getsignal(number))]
    shown, expected = (shown_blocked, blocked) if blocked else (shown_caught, handled)
    return all(shown & signal_bit(number) for number in expected) and not any(
        shown_caught & signal_bit(number) for number in TELLTALES if _signal.getsignal(number) == _signal.SIG_DFL
    )


def signal_bit(number: int) -> int:
    """Return the bit of a signal in a mask (sigset_t)."""
    return 1 << (number - 1)


def _masks_in_stat(line: bytes) -> tuple[int, int, int]:
    """Return the masks of blocked, ignored and caught signals, up to 31 (proc(5), fields 32 to 34 of `stat`)."""
    fields = line[line.rfind(b")") + 2 :].split(b" ", 32)
    return int(fields[29]), int(fields[30]), int(fields[31])


def _are_almost_all(blocked: int) -> bool:
    return (blocked & 0x7FFFFFFF).bit_count() >= ALMOST_ALL


def _sleeps_blocked(line: bytes) -> bool:
    """Whether a line of `stat` shows that it sleeps, and that almost all signals are blocked meanwhile."""
    return line[line.rfind(b")") :].startswith(b") S ") and _are_almost_all(_masks_in_stat(line)[0])


def _may_start_a_program(pid: int) -> bool:
    """Whether it sleeps where musl's posix_spawn(3) does with all signals blocked: it reads a pipe, or waits."""
    where = wait_channel(pid)
    return b"pipe_read" in where or b"do_wait" in where


def _is_in_vfork(pid: int) -> bool:
    """Whether its main thread waits until a child has executed its program (vfork(2)).

    The kernel waits for that in `kernel_clone`; before Linux 5.10 in `_do_fork`.
    """
    where = wait_channel(pid)
    return b"clone" in where or b"fork" in where


def _is_fork(process: Process) -> bool:
    """Whether it is the child of a vfork(2), which has its parent's memory until it executes its program."""
    parent = look(process.parent) if _is_in_vfork(process.parent) else None
    return parent is not None and parent.name == process.name and argv_of(parent.pid) == argv_of(process.pid)


def _status_of(process: str) -> bytes:
    return read_file(f"/proc/{process}/status", 65536)  # its groups come first, all of them


def _masks_in_status(text: bytes) -> tuple[int, int, int]:
    """Return the same masks with all signals, from what is in `status`."""
    fields = text[text.index(b"\nSigBlk:") :].split()  # each a name and a mask; then SigIgn and SigCgt
    return int(fields[1], 16), int(fields[3], 16), int(fields[5], 16)


def masks(pid: int) -> tuple[int, int, int] | None:
    """Return its masks of blocked, ignored and caught signals, up to 31; None if they are not known."""
    try:
        return None if masks_are_false() else _masks_in_stat(read_file(f"/proc/{pid}/task/{pid}/stat"))
    except (OSError, ValueError, IndexError):
        return None


def note_report(process: Process, handled: frozenset[int]) -> None:
    """Note the signals that a process reports to handle or ignore. Its last report counts."""
    _reports.pop(process.pid, None)
    if len(_reports) >= MAX_REPORTS:
        for pid in [pid for pid in _reports if _report_of(pid) is None] or list(_reports)[:1]:
            del _reports[pid]
    _reports[process.pid] = (process.start, handled)


def _report_of(pid: int) -> frozenset[int] | None:
    """Return what the process has reported; None if it has not, or if another process has its pid now."""
    if pid not in _reports:
        return None
    start, handled = _reports[pid]
    now = look(pid)
    return handled if not MOUNTED or (now is not None and now.start == start) else None


class Seen:
    """What a process does with signals up to 31, as parts of a line in `/proc/<pid>/stat`.

    `start`: the line up to the name. `masks`: fields 28 to 34, from the address of the stack to the masks of blocked,
    ignored and caught signals. `spaces`: how many of them are before these in the line.
    """

    __slots__ = ("masks", "spaces", "start")

    def __init__(self, start: bytes, masks: bytes, spaces: int) -> None:
        self.start, self.masks, self.spaces = start, masks, spaces

    def shows(self, number: int) -> bool:
        """Whether one of the masks has the signal."""
        return any(int(mask) & signal_bit(number) for mask in self.masks.split()[4:])


class Dispositions:
    """The signal dispositions of one process. The file in /proc stays open: a look costs one pread(2).

    The main thread's file, `/proc/<pid>/task/<pid>/stat`, is made in half the time of `/proc/<pid>/status`, but covers
    only the first 31 signals (proc(5), fields 32 to 34); for real-time signals the latter is read.

    A signal that the main thread blocks counts as handled: it waits for sigwait(3) or signalfd(2), or for the moment
    when the process is ready for it. Inside sigwait the kernel shows it unblocked; then `/proc/<pid>/wchan` shows it.
    It counts for nothing where all signals are blocked by a shell, or for as long as a program starts another one:
    posix_spawn(3) and Python do that until vfork(2) returns, Node until fork(2) does. A look waits for the end of this,
    for ten moments of 0.2 ms; a `patient` one however long others have waited.

    Each answer is None where it is not known. Where masks cannot be seen, what the process has reported of itself
    counts (`note_report`).
    """

    __slots__ = ("_fd", "_for_good", "_line", "_patient", "pid")

    def __init__(self, pid: int, *, patient: bool = False) -> None:
        self.pid, self._patient = pid, patient
        self._for_good = 0  # the signals that it blocked while it slept
        self._fd = -1
        self._line = b""  # the file's content, as it was at the last look
        bool(self)

    def __bool__(self) -> bool:
        """Whether /proc has this process."""
        if self._fd < 0 and self.pid and MOUNTED:
            try:
                self._fd = posix.open(f"/proc/{self.pid}/task/{self.pid}/stat", posix.O_RDONLY)
            except OSError:
                pass  # hidden, or no descriptor left: nothing is known for now
        return self._fd >= 0

    def handles(self, number: int) -> bool | None:
        """Whether it handles the signal; None if that is not known."""
        return self._look(number)[0]

    def handles_or_ignores(self, number: int) -> bool | None:
        """Whether the signal does what the program's author meant, not the default; None if that is not known."""
        handles, ignores = self._look(number)
        return None if handles is None else handles or ignores

    def _look(self, number: int) -> tuple[bool | None, bool]:
        """Return whether it handles and whether it ignores the signal; None, False if that is not known."""
        for _ in range(0 if masks_are_false() else ATTEMPTS):
            try:
                if not self:
                    continue
                blocked, ignored, caught = self._settled_masks(number)
            except (OSError, ValueError, IndexError):
                continue
            bit = signal_bit(number)
            return bool((caught | blocked) & bit) or self._waits_for_signals(), bool(ignored & bit)
        self._line = b""  # `image` has to look
        reported = _report_of(self.pid)
        return (None if reported is None else number in reported), False

    def _settled_masks(self, number: int) -> tuple[int, int, int]:
        """Return its masks of blocked, ignored and caught signals, without what is blocked only for a moment."""
        bit, looks, starts_programs = signal_bit(number), LOOKS, False
        while True:
            looks -= 1
            if number > 31:
                blocked, ignored, caught = _masks_in_status(_status_of(str(self.pid)))
                self._line = b""
            else:
                self._line = posix.pread(self._fd, MAX_STAT_BYTES, 0)
                blocked, ignored, caught = _masks_in_stat(self._line)
            if caught & bit or not blocked & bit or not _are_almost_all(blocked):
                return blocked, ignored, caught
            line = self._line or posix.pread(self._fd, MAX_STAT_BYTES, 0)
            now = look(self.pid)
            if now is None:  # it has exited; or no descriptor is left, and the agent must still get its signals
                return blocked if self._patient else 0, ignored, caught
            if is_shell(now) or _is_fork(now):
                return 0, ignored, caught
            sleeps = _sleeps_blocked(line)
            if sleeps and not _may_start_a_program(self.pid):
                self._for_good = blocked
                return blocked, ignored, caught
            starts_programs = starts_programs or _is_in_vfork(self.pid)
            if not looks or not _wait_a_moment(patient=self._patient):
                self._line = b""  # not to be remembered
                # Where there is no time to wait, too: a signal that is dropped does less harm than one that kills.
                is_moment = starts_programs or (looks and not sleeps and not self._patient)
                return blocked & self._for_good if is_moment else blocked, ignored, caught

    def seen(self) -> "Seen | None":
        """Return what `handles_or_ignores` and `image` used of the last look; None where that is not known."""
        end = self._line.rfind(b") ")
        fields = self._line[end + 2 :].split(b" ", 32)
        if len(fields) < 33:
            return None
        start = self._line[:end]
        return Seen(start, b" ".join((b"", *fields[25:32], b"")), start.count(b" ") + 25)

    def is_as(self, states: "Iterable[Seen]") -> bool:
        """Look, and return whether that shows one of these; then the answers of that time hold."""
        try:
            line = self._line = posix.pread(self._fd, MAX_STAT_BYTES, 0)
        except OSError:
            return False
        for seen in states:  # each in a third of the time that it takes to split the line
            at = line.find(seen.masks)
            if at >= 0 and line.count(b" ", 0, at) == seen.spaces and line.startswith(seen.start):
                return True
        return False

    def image(self) -> tuple[bytes, bytes] | None:
        """Return what changes when it executes another program (execve(2)); None where that is not known.

        That is its name, and the address of its stack (field 28 of `stat`), which is another one after each exec and
        is shown only to those who may trace it. As it was at the last look, if there was one.
        """
        try:
            if not self._line and self:
                self._line = posix.pread(self._fd, MAX_STAT_BYTES, 0)
            end = self._line.rindex(b") ")  # of the name, which may hold the same two characters
            return self._line[:end], self._line[end:].split(b" ", 27)[26]
        except (OSError, ValueError, IndexError):
            return None

    def _waits_for_signals(self) -> bool:
        return b"sigtimedwait" in wait_channel(self.pid)

    def close(self) -> None:
        """Close the descriptor; from then on nothing is known."""
        if self._fd >= 0:
            posix.close(self._fd)
        self._fd, self.pid = -1, 0


def handles(process: Process, number: int) -> bool | None:
    """Whether it handles the signal, other than by a shell's habit; None if that is not known."""
    dispositions = Dispositions(process.pid)
    try:
        known = dispositions.handles(number)
        return known and not (number in SHELL_HABITS and is_shell(process))
    finally:
        dispositions.close()


def is_reached(process: Process, number: int) -> bool | None:
    """Whether it handles the signal, and does not block it for good; None if that is not known.

    A blocked signal reaches a process that waits for signals, or reads them from a signalfd(2).
    """
    if masks_are_false():
        return None
    try:
        tasks = posix.listdir(f"/proc/{process.pid}/task")
        texts = [_status_of(f"{process.pid}/task/{task}") for task in tasks]
        masks = list(map(_masks_in_status, texts))
    except (OSError, ValueError, IndexError):
        return None
    bit = signal_bit(number)
    for text, (blocked, _, caught) in zip(texts, masks, strict=True):
        # A thread that runs, or waits for a vfork(2), with all signals blocked does so for a moment.
        is_moment = _are_almost_all(blocked) and b"\nState:\tS" not in text
        if caught & bit and (is_moment or not blocked & bit):
            return True
    blocks = any(blocked & bit for blocked, _, _ in masks)
    if any(b"sigtimedwait" in wait_channel(int(task)) for task in tasks):
        return True
    return blocks and any(True for _ in open_modes(process.pid, "anon_inode:[signalfd]"))


def prefers_int(process: Process) -> bool:
    """Whether TERM would kill it and INT would not: it handles INT, and TERM has its default action.

    That is so of every Python program that does not handle TERM itself: INT raises KeyboardInterrupt, and `finally` is
    run. False for a shell, for a program that is starting, where INT is blocked for good (fish starts a background job
    like that), and where nothing is known. A program that blocks INT for a moment gets it after that.
    """
    dispositions = Dispositions(process.pid)
    try:
        dies_of_term = dispositions.handles_or_ignores(_signal.SIGTERM) is False
        if not dies_of_term or not dispositions.handles(_signal.SIGINT) or is_shell(process):
            return False
    finally:
        dispositions.close()
    if _is_starting(process):
        return False
    known = masks(process.pid)
    if known is None or not known[0] & signal_bit(_signal.SIGINT):
        return True
    return is_reached(process, _signal.SIGINT) is True or not _has_inherited_block(process, _signal.SIGINT)


def _is_starting(process: Process) -> bool:
    """Whether its program is starting, or it has exited.

    A program that uses little processor time may run at the moment: it is looked at for 2 ms, and one that sleeps then,
    or starts a child, has started. To wait for a file is no sleep, as it is with FUSE (rootless podman's root).
    """
    looks, before = LOOKS, None
    while True:
        now = look(process.pid)
        if now is None:
            return True
        if now.cpu >= STARTING_TICKS or (now.waits and b"request_wait_answer" not in wait_channel(now.pid)):
            return False
        children = child_pids(now.pid)
        before = frozenset(children) if before is None else before  # those of a shell that has executed it, perhaps
        if _is_in_vfork(now.pid) or not before.issuperset(children):
            return False
        if not looks or not _wait_a_moment():
            return True
        looks -= 1


def handles_once_started(process: Process, number: int) -> bool:
    """Whether it handles the signal, not because of a fork that has not executed its program yet.

    Until then it has its parent's handlers.
    """
    now = look(process.pid)
    for _ in range(LOOKS):
        if now is None or not now.is_starting or argv_of(now.pid) != argv_of(now.parent) or not _wait_a_moment():
            break
        now = look(process.pid)
    return handles(process, number) is True


def _wait_a_moment(*, patient: bool = False) -> bool:
    """Wait; return False at once where too much was waited for in this second, or where that is refused (seccomp).

    A busy processor makes a moment last for longer.
    """
    global _waited, _waited_since
    try:
        now = time.monotonic()
        if now >= _waited_since + 1:
            _waited, _waited_since = 0.0, now
        if _waited >= MAX_WAITED and not patient:
            return False
        time.sleep(A_MOMENT)
        _waited += time.monotonic() - now
    except OSError:
        return False
    return True


def _has_inherited_block(process: Process, number: int) -> bool:
    """Whether a signal that it blocks is blocked for good, as far as is known: it was before the program began.

    A program that blocks a signal itself does so for a moment in which it must not be interrupted. Ours have inherited
    nothing: process 1 blocks all signals, but its children start with none blocked.
    """
    parent = look(process.parent)
    known = None if parent is None or parent.pid == posix.getpid() else masks(parent.pid)
    if parent is None or known is None:
        return False
    return bool(known[0] & signal_bit(number)) or "fish" in program_names(parent)


def handles_or_ignores(process: Process, number: int) -> bool | None:
    """Whether it handles or ignores the signal; None if that is not known."""
    dispositions = Dispositions(process.pid)
    try:
        return dispositions.handles_or_ignores(number)
    finally:
        dispositions.close()

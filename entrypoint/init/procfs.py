"""What the kernel reports of a process in /proc (proc(5)): read when asked for, never watched.

There is no /proc except on Linux; elsewhere psutil answers, imported when first needed. On Linux process 1 reads for
itself: psutil would cost it twice its own memory, and a scan of 10,000 processes many times as long.
"""

import errno
import posix
import sys

from .. import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

LINUX = sys.platform == "linux"
ATTEMPTS = 3  # at a read whose one failure must not pass for "unknown"
PDKSH = frozenset("mksh lksh oksh posh".split())
SHELLS = PDKSH | frozenset("sh bash rbash dash ash busybox ksh ksh93 zsh yash fish csh tcsh".split())
# Python's own start takes 1 to 3 clock ticks, of 10 ms each. INT in that time ends it with code 1 and a "Fatal Python
# error", as it does not expect one; and there is no work yet that could be lost.
STARTING_TICKS = 5
PF_EXITING = 4


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


def waits_for_child(pid: int) -> bool:
    """Whether its main thread waits for a child (wait4(2), waitid(2)), as far as that is known."""
    return is_for_child(wait_channel(pid))


def is_for_child(channel: bytes) -> bool:
    """Whether what waits in this kernel function waits for a child.

    The whole name counts, without what a compiler adds after a dot: since Linux 6.16 a thread that waits for a lock
    does so in `futex_do_wait`.
    """
    return channel.partition(b".")[0] == b"do_wait"


def blocking_descriptor(pid: int) -> int | None:
    """Return the descriptor that its main thread reads: the first argument of its system call; None if not known."""
    call = system_call(pid)
    return call[1] if call else None


def system_call(pid: int) -> list[int]:
    """Return the number and the arguments of the system call that its main thread waits in, then two pointers.

    Nothing if it waits in none, or if that is not known (/proc/pid/syscall, proc(5)).
    """
    try:
        number, *arguments = read_file(f"/proc/{pid}/syscall").split()
        has_call = len(arguments) > 2  # else there are just the pointers
        return [int(number), *(int(argument, 16) for argument in arguments)] if has_call else []
    except (OSError, ValueError):
        return []


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

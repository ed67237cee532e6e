"""How a process handles signals, judged by what /proc shows of it: its signal masks, and where it sleeps.

The masks are those of one moment. A process that starts a program blocks all signals meanwhile, and a fork has its
parent's handlers until it executes its program, so a look may be repeated. Where masks cannot be seen, or are not true
(gVisor, qemu's user emulation), only what processes report of themselves is known.
"""

import _signal
import posix
import time

from . import procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .procfs import Process

MAX_STAT_BYTES = 1024  # of /proc/<pid>/stat: 52 numbers and a name
# While a command runs, shells catch INT and bash ignores QUIT for their own sake: no evidence about the command.
SHELL_HABITS = (_signal.SIGINT, _signal.SIGQUIT)
# A handler for one of these is one that the program has set: no interpreter or debugging aid sets it for itself.
TELLTALES = (_signal.SIGHUP, _signal.SIGUSR1, _signal.SIGUSR2, _signal.SIGTERM)
# A process that blocks this many of the first 31 signals blocks all that it can: for good, or for a moment.
ALMOST_ALL = 16
LOOKS, A_MOMENT = 10, 0.0002  # at a process that may change at once, and the seconds between them
# Seconds of each second that such looks may take, but for the agent: there may be thousands of processes.
MAX_WAITED = 0.1
MAX_REPORTS = 64  # processes whose own reports of their handlers are kept


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
        if self._fd < 0 and self.pid and procfs.MOUNTED:
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
        for _ in range(0 if masks_are_false() else procfs.ATTEMPTS):
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
            if caught & bit or not blocked & bit or not are_almost_all(blocked):
                return blocked, ignored, caught
            line = self._line or posix.pread(self._fd, MAX_STAT_BYTES, 0)
            now = procfs.look(self.pid)
            if now is None:  # it has exited; or no descriptor is left, and the agent must still get its signals
                return blocked if self._patient else 0, ignored, caught
            if procfs.is_shell(now) or _is_fork(now):
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
        return b"sigtimedwait" in procfs.wait_channel(self.pid)

    def close(self) -> None:
        """Close the descriptor; from then on nothing is known."""
        if self._fd >= 0:
            posix.close(self._fd)
        self._fd, self.pid = -1, 0


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


# --- Any process, looked at once. -----------------------------------------------------------------------------------


def handles(process: "Process", number: int) -> bool | None:
    """Whether it handles the signal, other than by a shell's habit; None if that is not known."""
    dispositions = Dispositions(process.pid)
    try:
        known = dispositions.handles(number)
        return known and not (number in SHELL_HABITS and procfs.is_shell(process))
    finally:
        dispositions.close()


def handles_or_ignores(process: "Process", number: int) -> bool | None:
    """Whether it handles or ignores the signal; None if that is not known."""
    dispositions = Dispositions(process.pid)
    try:
        return dispositions.handles_or_ignores(number)
    finally:
        dispositions.close()


def prefers_int(process: "Process") -> bool:
    """Whether TERM would kill it and INT would not: it handles INT, and TERM has its default action.

    That is so of every Python program that does not handle TERM itself: INT raises KeyboardInterrupt, and `finally` is
    run. False for a shell, for a program that is starting, where INT is blocked for good (fish starts a background job
    like that), and where nothing is known. A program that blocks INT for a moment gets it after that.
    """
    dispositions = Dispositions(process.pid)
    try:
        dies_of_term = dispositions.handles_or_ignores(_signal.SIGTERM) is False
        if not dies_of_term or not dispositions.handles(_signal.SIGINT) or procfs.is_shell(process):
            return False
    finally:
        dispositions.close()
    if _is_starting(process):
        return False
    known = masks(process.pid)
    if known is None or not known[0] & signal_bit(_signal.SIGINT):
        return True
    return is_reached(process, _signal.SIGINT) is True or not _has_inherited_block(process, _signal.SIGINT)


def is_reached(process: "Process", number: int) -> bool | None:
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
        is_moment = are_almost_all(blocked) and b"\nState:\tS" not in text
        if caught & bit and (is_moment or not blocked & bit):
            return True
    blocks = any(blocked & bit for blocked, _, _ in masks)
    if any(b"sigtimedwait" in procfs.wait_channel(int(task)) for task in tasks):
        return True
    return blocks and any(True for _ in procfs.open_modes(process.pid, "anon_inode:[signalfd]"))


def handles_once_started(process: "Process", number: int) -> bool:
    """Whether it handles the signal, not because of a fork that has not executed its program yet.

    Until then it has its parent's handlers.
    """
    now = procfs.look(process.pid)
    for _ in range(LOOKS):
        if (
            now is None
            or not now.is_starting
            or procfs.argv_of(now.pid) != procfs.argv_of(now.parent)
            or not _wait_a_moment()
        ):
            break
        now = procfs.look(process.pid)
    return handles(process, number) is True


def _is_starting(process: "Process") -> bool:
    """Whether its program is starting, or it has exited.

    A program that uses little processor time may run at the moment: it is looked at for 2 ms, and one that sleeps then,
    or starts a child, has started. To wait for a file is no sleep, as it is with FUSE (rootless podman's root).
    """
    looks, before = LOOKS, None
    while True:
        now = procfs.look(process.pid)
        if now is None:
            return True
        if now.cpu >= procfs.STARTING_TICKS or (
            now.waits and b"request_wait_answer" not in procfs.wait_channel(now.pid)
        ):
            return False
        children = procfs.child_pids(now.pid)
        before = frozenset(children) if before is None else before  # those of a shell that has executed it, perhaps
        if _is_in_vfork(now.pid) or not before.issuperset(children):
            return False
        if not looks or not _wait_a_moment():
            return True
        looks -= 1


def _has_inherited_block(process: "Process", number: int) -> bool:
    """Whether a signal that it blocks is blocked for good, as far as is known: it was before the program began.

    A program that blocks a signal itself does so for a moment in which it must not be interrupted. Ours have inherited
    nothing: process 1 blocks all signals, but its children start with none blocked.
    """
    parent = procfs.look(process.parent)
    known = None if parent is None or parent.pid == posix.getpid() else masks(parent.pid)
    if parent is None or known is None:
        return False
    return bool(known[0] & signal_bit(number)) or "fish" in procfs.program_names(parent)


# --- Where masks cannot be seen. ------------------------------------------------------------------------------------


# gVisor shows no signal masks (`status` has no Sig* lines, fields 31 to 34 of `stat` are zero), and under qemu's user
# emulation the kernel shows the emulator's, which catches nearly everything. Process 1 knows its own mask and handlers,
# so a look at itself shows whether what /proc shows of others is true.
_masks_are_false: bool | None = None  # None: not looked at yet


def masks_are_false() -> bool:
    """Whether /proc is known to show signal masks that are not true. False where it cannot be read at all."""
    global _masks_are_false
    if _masks_are_false is None and procfs.MOUNTED:
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
    shown_blocked, _, shown_caught = _masks_in_stat(procfs.read_file(f"/proc/{pid}/task/{pid}/stat"))
    blocked = [number for number in _signal.pthread_sigmask(_signal.SIG_BLOCK, ()) if number < 32]
    handled = [number for number in range(1, 32) if callable(_signal.getsignal(number))]
    shown, expected = (shown_blocked, blocked) if blocked else (shown_caught, handled)
    return all(shown & signal_bit(number) for number in expected) and not any(
        shown_caught & signal_bit(number) for number in TELLTALES if _signal.getsignal(number) == _signal.SIG_DFL
    )


# What processes have reported of themselves: by pid, the start time and the signals that they handle or ignore.
_reports: dict[int, tuple[int, frozenset[int]]] = {}


def note_report(process: "Process", handled: frozenset[int]) -> None:
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
    now = procfs.look(pid)
    return handled if not procfs.MOUNTED or (now is not None and now.start == start) else None


# --- What lasts for a moment. ---------------------------------------------------------------------------------------


def _sleeps_blocked(line: bytes) -> bool:
    """Whether a line of `stat` shows that it sleeps, and that almost all signals are blocked meanwhile."""
    return line[line.rfind(b")") :].startswith(b") S ") and are_almost_all(_masks_in_stat(line)[0])


def _may_start_a_program(pid: int) -> bool:
    """Whether it sleeps where musl's posix_spawn(3) does with all signals blocked: it reads a pipe, or waits."""
    where = procfs.wait_channel(pid)
    return b"pipe_read" in where or procfs.is_for_child(where)


def _is_fork(process: "Process") -> bool:
    """Whether it is the child of a vfork(2), which has its parent's memory until it executes its program."""
    parent = procfs.look(process.parent) if _is_in_vfork(process.parent) else None
    return (
        parent is not None and parent.name == process.name and procfs.argv_of(parent.pid) == procfs.argv_of(process.pid)
    )


def _is_in_vfork(pid: int) -> bool:
    """Whether its main thread waits until a child has executed its program (vfork(2)).

    The kernel waits for that in `kernel_clone`; before Linux 5.10 in `_do_fork`.
    """
    where = procfs.wait_channel(pid)
    return b"clone" in where or b"fork" in where


_waited, _waited_since = 0.0, 0.0  # the seconds that were waited for since then (monotonic clock)


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


# --- Masks. ---------------------------------------------------------------------------------------------------------


def masks(pid: int) -> tuple[int, int, int] | None:
    """Return its masks of blocked, ignored and caught signals, up to 31; None if they are not known."""
    try:
        return None if masks_are_false() else _masks_in_stat(procfs.read_file(f"/proc/{pid}/task/{pid}/stat"))
    except (OSError, ValueError, IndexError):
        return None


def _masks_in_stat(line: bytes) -> tuple[int, int, int]:
    """Return the masks of blocked, ignored and caught signals, up to 31 (proc(5), fields 32 to 34 of `stat`)."""
    fields = line[line.rfind(b")") + 2 :].split(b" ", 32)
    return int(fields[29]), int(fields[30]), int(fields[31])


def _masks_in_status(text: bytes) -> tuple[int, int, int]:
    """Return the same masks with all signals, from what is in `status`."""
    fields = text[text.index(b"\nSigBlk:") :].split()  # each a name and a mask; then SigIgn and SigCgt
    return int(fields[1], 16), int(fields[3], 16), int(fields[5], 16)


def _status_of(process: str) -> bytes:
    return procfs.read_file(f"/proc/{process}/status", 65536)  # its groups come first, all of them


def are_almost_all(blocked: int) -> bool:
    """Whether a mask has almost all signals up to 31: a program blocks all, for a moment or for good."""
    return (blocked & 0x7FFFFFFF).bit_count() >= ALMOST_ALL


def signal_bit(number: int) -> int:
    """Return the bit of a signal in a mask (sigset_t)."""
    return 1 << (number - 1)

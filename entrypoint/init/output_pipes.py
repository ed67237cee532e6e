"""Whether a program does nothing but wait for its only child, and read its output: a launcher that copies it.

Where a blocking read(2) waits for the output of the child, that is seen at once. A launcher that waits for stdout and
stderr together, or on an event loop (`subprocess.run(capture_output=True)`, `communicate`, `child.stdout.pipe()` in
Node), looks like an agent with a helper. It counts as a launcher only if all of this is so:

    it waits without a timeout       in poll(2), select(2) or epoll(7); an agent has timers, mostly
    so do its other threads          or they wait for work, or for the child; those of an agent may do its work
    only the child wakes it          it has no connection. Python's event loop has one pair of sockets for itself, and
                                     watches one of the two
    on an event loop it reads all    stderr too; what a transcoder logs goes where the agent's own log goes
    the child does not read stdin    if that leads to the program, or another pipe of both: else they have a
                                     conversation (MCP over stdio). On an event loop the program has not closed that
                                     stdin either: it has sent a question

Where one of these is not known, it does not count as one.
"""

import posix

from . import procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .procfs import Process

EPOLL = "anon_inode:[eventpoll]"
OF_EVENT_LOOPS = frozenset((EPOLL, "anon_inode:[eventfd]", "anon_inode:[pidfd]", "pidfd:"))
TERMINALS = ("/dev/pts", "/dev/tty", "/dev/ptmx", "/dev/console")
MAX_DESCRIPTORS = 256  # of a process
MAX_TASKS, MAX_PROCESSES = 64, 8  # of a process; at and below the child
MAX_SHARED = 4  # pipes of both, other than stdio

# System calls by their numbers, from the kernel's tables for x86-64 and for the newer architectures (arm64, riscv64).
# Those that wait, with the place of the timeout among the arguments and whether it is a pointer; and those that read.
X86_64 = {7: (2, False), 271: (2, True), 23: (4, True), 270: (4, True), 232: (3, False), 281: (3, False)}
GENERIC = {73: (2, True), 72: (4, True), 22: (3, False)}
READS_X86_64, READS_GENERIC = (0, 19, 45, 47), (63, 65, 207, 212)  # read, readv, recvfrom, recvmsg


def machine() -> str:
    """Return the name of the kernel's architecture; nothing if it is not known."""
    try:
        return posix.uname().machine
    except OSError:  # refused (seccomp)
        return ""


def waits_of(name: str) -> dict[int, tuple[int, bool]]:
    """Return the calls that wait on an architecture; none if it is not known, so that nothing is a launcher."""
    return {"x86_64": X86_64, "": {}}.get(name, GENERIC)


MACHINE = machine()
IS_X86_64 = MACHINE == "x86_64"
WAITS = waits_of(MACHINE)
READS = READS_X86_64 if IS_X86_64 else READS_GENERIC
EPOLL_WAITS = (232, 281, 22)
POLLS, SELECTS = (7, 271, 73), (23, 270, 72)
FUTEX, WAITS_FOR_CHILD = ({202: (3, True)}, (61, 247)) if IS_X86_64 else ({98: (3, True)}, (260, 95))


def copies_output(process: "Process", child: "Process") -> bool:
    """Whether the process is a launcher that only waits for this child, its only one."""
    try:
        return _copies_output(process, child)
    except (OSError, ValueError, IndexError):  # it has exited, or there is no descriptor left
        return False


def _copies_output(process: "Process", child: "Process") -> bool:
    call = _system_call(process.pid)
    own = [procfs.descriptor_target(process.pid, fd) for fd in range(3)]
    of_child = [procfs.descriptor_target(child.pid, fd) for fd in range(3)]
    made = [target for target in of_child if target.startswith(("pipe:", "socket:")) and target not in own]
    is_epoll = call[0] in EPOLL_WAITS
    if not _is_endless(call) or of_child[1] not in made or (is_epoll and of_child[2] not in made):
        return False
    if call[0] in POLLS and call[2] > len(set(made)):  # descriptors
        return False
    held = procfs.descriptors(process.pid, MAX_DESCRIPTORS)
    if not held or not _only_child_wakes(process.pid, held, own, made, call[0]) or not _threads_wait(process.pid):
        return False
    return not _may_converse(child, held, of_child[0] if of_child[0] in made else "", {*own, *of_child}, call[0])


def _may_converse(child: "Process", held: dict[str, list[str]], stdin: str, stdio: set[str], call: int) -> bool:
    """Whether the child reads its stdin, or another pipe that the launcher holds too; or that is not known.

    `stdin`: that of the child if it leads to the launcher, else empty. `stdio`: of both.
    """
    of_child = procfs.descriptors(child.pid, MAX_DESCRIPTORS)
    if not of_child or (call in EPOLL_WAITS and stdin.startswith("pipe:") and stdin not in held):
        return True
    shared = {target for target in of_child if target.startswith("pipe:") and target in held} - stdio
    return len(shared) > MAX_SHARED or any(_is_read(child, target) for target in (stdin, *shared) if target)


def _threads_wait(pid: int) -> bool:
    """Whether all its other threads wait too, without a timeout: for work, for an event, or for the child."""
    tasks = posix.listdir(f"/proc/{pid}/task")
    if len(tasks) > MAX_TASKS:
        return False
    calls = [_system_call(int(task)) for task in tasks if task != str(pid)]
    return all(call[0] in WAITS_FOR_CHILD or _is_endless(call, or_sleeps=True) for call in calls)


def _only_child_wakes(pid: int, held: dict[str, list[str]], own: list[str], made: list[str], call: int) -> bool:
    """Whether nothing that it waits for comes from anybody but itself and its child.

    `made`: stdio of the child. `call`: the system call that it waits in. Of poll(2) the number of descriptors is known,
    of select(2) nothing: then all that it could wait for counts, its own terminal too.
    """
    is_epoll = call in EPOLL_WAITS
    sockets = {target for target in held if target.startswith("socket:") and target not in own}
    of_child = len({target for target in made if target.startswith("socket:")})  # with another number at each end
    watched = set(held) - {own[1], own[2]} | (set(own[:1]) & set(held) if call in SELECTS else set())
    if is_epoll:
        fds = {fd for name in held.get(EPOLL, ()) for fd in _watched(pid, name)}
        watched = {target for target, names in held.items() if not fds.isdisjoint(names)}
    if len(sockets) != of_child and (not is_epoll or len(sockets) != of_child + 2):
        return False
    if len(sockets) != of_child and len(sockets & watched) != of_child + 1:
        return False
    return all(
        target in made or target in OF_EVENT_LOOPS or target in sockets or _is_own(pid, target, held, call)
        for target in watched
    )


def _is_own(pid: int, target: str, held: dict[str, list[str]], call: int) -> bool:
    """Whether a descriptor of it refers to a file, which does not wait, or to a pipe that it writes to itself.

    epoll(7) refuses files: what has a path there is a named pipe or a device. Neither has a position in it. stat(2)
    would show which it is, but may never return on a network file system.
    """
    if target.startswith("pipe:"):
        return any(flags & (posix.O_WRONLY | posix.O_RDWR) for flags in procfs.open_modes(pid, target, held))
    if call in EPOLL_WAITS or not target.startswith("/") or target.startswith(TERMINALS):
        return False
    if call in POLLS or target == "/dev/null":
        return True
    return not any(_is_read_from_its_start(pid, name) for name in held[target])


def _is_read_from_its_start(pid: int, name: str) -> bool:
    """Whether a descriptor is for reading, and at position 0."""
    fields = procfs.read_file(f"/proc/{pid}/fdinfo/{name}").split()
    flags = int(fields[fields.index(b"flags:") + 1], 8)
    return not flags & posix.O_WRONLY and fields[fields.index(b"pos:") + 1] == b"0"


def _is_read(child: "Process", stdin: str) -> bool:
    """Whether a process at or below the child reads its stdin, which leads to the launcher; or that is not known."""
    to_look_at = [child]
    for process in to_look_at:  # grows meanwhile
        held = procfs.descriptors(process.pid, MAX_DESCRIPTORS)
        if held and stdin not in held:
            continue
        below = procfs.children(process.pid)
        to_look_at += below
        waits_for_child = procfs.waits_for_child(process.pid)
        if len(to_look_at) > MAX_PROCESSES or (waits_for_child and not below):
            return True
        if not held or _may_read(process.pid, held, stdin):
            return True
    return False


def _may_read(pid: int, held: dict[str, list[str]], stdin: str) -> bool:
    """Whether it may read `stdin`, by any of its descriptors. Raises OSError."""
    tasks = posix.listdir(f"/proc/{pid}/task")
    if len(tasks) > MAX_TASKS or "anon_inode:[io_uring]" in held:
        return True
    fds = held[stdin]
    if any(not _watched(pid, name).isdisjoint(fds) for name in held.get(EPOLL, ())):
        return True
    for task in tasks:
        number, *arguments = _system_call(int(task))
        waits = number in WAITS and number not in EPOLL_WAITS  # for what, is not known
        if number < 0 or waits or (number in READS and str(arguments[0]) in fds):
            return True
    return False


def _system_call(pid: int) -> list[int]:
    """Return the number of the system call that it sleeps in and its arguments; [-1] if it does not, or not known.

    Programs for 32 bits have other numbers. The last field but one, the stack pointer, shows that.
    """
    call = procfs.system_call(pid)
    return call if call and call[-2] >> 32 else [-1]


def _is_endless(call: list[int], *, or_sleeps: bool = False) -> bool:
    """Whether that system call waits for descriptors, without a timeout. `or_sleeps`: or for another thread."""
    waits = {**WAITS, **FUTEX} if or_sleeps else WAITS
    if call[0] not in waits:
        return False
    place, is_pointer = waits[call[0]]
    timeout = call[1 + place]
    return timeout == 0 if is_pointer else timeout & 0xFFFFFFFF == 0xFFFFFFFF


def _watched(pid: int, epoll: str) -> set[str]:
    """Return the descriptors that one for epoll(7) watches. Raises OSError."""
    fields = procfs.read_file(f"/proc/{pid}/fdinfo/{epoll}", 65536).split()
    return {fields[at + 1].decode() for at, field in enumerate(fields[:-1]) if field == b"tfd:"}

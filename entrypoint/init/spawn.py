"""Start the agent (fork, process group, terminal, exec) and tell how processes ended.

Everything that can go wrong before the agent runs ends agent-init with one line and nothing left running; after
`spawn` has returned, nothing may.
"""

import _signal
import errno
import os
import sys

from ..signals import CONT, KILL, OF_WRITES, name_of, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from typing import NoReturn

OWN_FAULT, NOT_EXECUTABLE, NOT_FOUND = 125, 126, 127  # as env(1), nohup(1) and the shells have them
DEFAULT_PATH = "/bin:/usr/bin"  # where execvp(3) looks when PATH is not set


# Who is meant by what else the environment says: sd_listen_fds(3), sd_watchdog_enabled(3).
NAMING_PID = (b"LISTEN_PID", b"WATCHDOG_PID")


class NotStarted(Exception):
    """The agent could not be started. `code` is the exit code that tells which way."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def spawn(command: list[str], environment: dict[bytes, bytes], *, terminal: bool) -> int:
    """Start `command` as our child and return its pid once its exec has succeeded.

    It gets a process group of its own, the terminal on descriptor 0 if `terminal`, no blocked signals, default
    dispositions for what the interpreter changed, and every descriptor that we inherited. Raises NotStarted.

    posix_spawn(3) gets the agent to its first instruction in half the time of fork, which copies our page tables. What
    it cannot do is done by a fork: hand over the terminal before the exec, put the child's own pid into the variables
    that name ours (see NAMING_PID), and ignore SIGCHLD again where we inherited that.
    """
    in_child: list[Callable[[], object]] = []
    if terminal:
        in_child.append(lambda: give_terminal(os.getpid()))
    meant_for_us = [name for name in NAMING_PID if environment.get(name) == b"%d" % os.getpid()]
    if meant_for_us:
        in_child.append(lambda: environment.update(dict.fromkeys(meant_for_us, b"%d" % os.getpid())))
    if _signal.getsignal(_signal.SIGCHLD) == _signal.SIG_IGN:
        # Then the kernel reaps the agent and nobody learns of its end (waitpid(2)): not in here.
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        in_child.append(lambda: _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN))

    def start(path: str, words: list[str]) -> int:
        if in_child or not hasattr(os, "posix_spawn"):
            return _fork(path, words, environment, in_child)
        return os.posix_spawn(path, words, environment, setpgroup=0, setsigmask=(), setsigdef=OF_WRITES)

    failure, failed = errno.ENOENT, command[0]
    for path in candidates(command[0], environment):
        try:
            os.lstat(path)  # a hundred times cheaper than a spawn that fails
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            pass  # exec will say what it is
        try:
            try:
                return start(path, command)
            except OSError as error:
                if error.errno != errno.ENOEXEC or not _is_script(path):
                    raise
            # As execvp(3): text without a #! line is a shell script.
            return start("/bin/sh", ["/bin/sh", path, *command[1:]])
        except OSError as error:
            failure, failed = error.errno or errno.EIO, path
            if failure != errno.EACCES:  # another directory of PATH may have one that is ours to run
                break
    raise _explain(command[0], failure, failed, environment)


# Milliseconds to the exec, or to a look at why it does not come. macOS has no waitid(2) before Python 3.13.
LOOK_AGAIN = 50 if hasattr(os, "waitid") else None


def _fork(
    path: str, words: list[str], environment: dict[bytes, bytes], in_child: "Sequence[Callable[[], object]]"
) -> int:
    """What posix_spawn does, with `in_child` called before the exec. Raises OSError for fork and for exec."""
    reader, writer = os.pipe()  # closed by a successful exec
    try:
        try:
            pid = os.fork()
            if pid == 0:
                _become(path, words, environment, in_child, writer)
        finally:
            os.close(writer)
        try:
            report = _report(reader, pid)
        except BaseException:  # no memory, say; nothing is left running
            os.kill(pid, KILL)
            os.waitpid(pid, 0)
            raise
    finally:
        os.close(reader)
    if report:
        os.waitpid(pid, 0)
        raise OSError(int(report), os.strerror(int(report)))
    return pid


def _report(reader: int, pid: int) -> bytes:
    """What the child writes where its exec fails, nothing where it succeeds.

    The terminal is the child's before that, so somebody's Ctrl-Z may stop it, and nobody but us would continue it. It
    is stopped again behind the exec, when all is there to deal with it.
    """
    import select

    stopped_by = 0
    ready = select.poll()
    ready.register(reader, select.POLLIN)
    while not ready.poll(LOOK_AGAIN):
        stopped = os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG)
        if stopped is not None:
            stopped_by = stopped.si_status
            os.kill(pid, CONT)
    report = os.read(reader, 16)
    if stopped_by and not report:
        os.kill(pid, stopped_by)
    return report


def _become(
    path: str,
    words: list[str],
    environment: dict[bytes, bytes],
    in_child: "Sequence[Callable[[], object]]",
    writer: int,
) -> "NoReturn":
    """In the child, up to the exec; never returns."""
    number = errno.ENOMEM
    try:
        os.setpgid(0, 0)
        for step in in_child:
            step()
        for ignored in OF_WRITES:
            _signal.signal(ignored, _signal.SIG_DFL)
        if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
            _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # before the mask is opened
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
        os.execve(path, words, environment)
    except OSError as error:
        number = error.errno or errno.EIO
    finally:  # whatever was raised
        os.write(writer, b"%d" % number)
        os._exit(OWN_FAULT)


def give_terminal(group: int) -> None:
    """Make `group` the foreground group of the terminal on descriptor 0."""
    before = _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGTTOU,))  # it would stop us (tcsetpgrp(3))
    try:
        os.tcsetpgrp(0, group)
    except OSError:
        pass  # not our controlling terminal (any longer): then there is no job control to lose
    finally:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, before)


def foreground() -> int | None:
    """The foreground group of the terminal on descriptor 0, or None where it is no controlling terminal of ours."""
    try:
        return os.tcgetpgrp(0)
    except OSError:
        return None


def has_job_control_above() -> bool:
    """Whether our parent is a shell that runs us as a job: then it notices when we stop, and can continue us."""
    try:
        parent = os.getppid()
        return os.getpid() != 1 and os.getsid(parent) == os.getsid(0) and os.getpgid(parent) != os.getpgrp()
    except OSError:
        return False


def candidates(name: str, environment: "Mapping[bytes, bytes]") -> list[str]:
    """The paths that `name` may mean, in order (execvp(3))."""
    if not name:
        return []
    if "/" in name:
        return [name]
    path = os.fsdecode(environment.get(b"PATH", DEFAULT_PATH.encode()))
    return [f"{directory or '.'}/{name}" for directory in path.split(":")]


def _is_script(path: str) -> bool:
    """Text, as far as its beginning tells."""
    with open(path, "rb") as file:
        start = file.read(128)
    return bool(start) and b"\0" not in start and not start.startswith(b"#!")


def _explain(name: str, number: int, path: str, environment: "Mapping[bytes, bytes]") -> NotStarted:
    """The line that tells what is wrong with what the user typed."""
    typed = repr(name) if len(name) < 1000 else quote(name)  # a path is no use without its end
    if number == errno.ENOENT and not os.path.lexists(path):
        if "/" in name or not name:
            return NotStarted(NOT_FOUND, f"cannot run {typed}: no such file")
        where = os.fsdecode(environment.get(b"PATH", DEFAULT_PATH.encode()))
        return NotStarted(NOT_FOUND, f"cannot run {typed}: not found in PATH ({where})")
    if number in (errno.ENOENT, errno.ENOTDIR):
        why = _missing_interpreter(path)
    elif os.path.isdir(path):
        why = "is a directory"
    elif number == errno.EACCES:
        why = "permission denied; is it executable (chmod +x), and its file system not mounted noexec?"
    elif number == errno.ENOEXEC:
        why = "not a program that this machine can run (wrong architecture, or damaged?)"
    elif number == errno.EAGAIN:
        why = "fork refused: the container's pids limit or RLIMIT_NPROC is reached; raise it, or run fewer processes"
        return NotStarted(OWN_FAULT, f"cannot start {typed}: {why}")
    elif number in (errno.ENOMEM, errno.EMFILE, errno.ENFILE):
        return NotStarted(OWN_FAULT, f"cannot start {typed}: {os.strerror(number)}")
    else:
        why = os.strerror(number)
    where = f"{path}: " if path != name else ""
    return NotStarted(NOT_EXECUTABLE, f"cannot run {typed}: {where}{why}")


def _missing_interpreter(path: str) -> str:
    """The file is there and exec says it is not: what runs it is missing (execve(2), ENOENT)."""
    if not os.path.exists(path):
        return "a symbolic link to nothing"
    try:
        with open(path, "rb") as file:
            line = file.read(256).partition(b"\n")[0]
    except OSError:
        line = b""
    if line.startswith(b"#!"):
        wanted = os.fsdecode(line[2:]).split()
        ending = " (the line ends in a carriage return)" if line.endswith(b"\r") else ""
        return f"its interpreter {wanted[0] if wanted else ''!r} is not there{ending}"
    return "its interpreter or dynamic loader is not there (built for another libc?)"


def exit_code(status: int) -> int:
    """A wait status (waitpid(2)) as a shell tells it: the exit code, or 128 + the signal."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def ended(pid: int) -> int | None:
    """The exit code of our child, reaped, if it has ended."""
    try:
        reaped, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return OWN_FAULT  # its status is lost
    return exit_code(status) if reaped else None


def describe(status: int) -> str:
    """A wait status in words: `exited with code 3`, `was killed by SIGKILL`."""
    code = os.waitstatus_to_exitcode(status)
    return f"exited with code {code}" if code >= 0 else f"was killed by SIG{name_of(-code)}"


def close_inherited(ours: "Collection[int]") -> None:
    """Close every descriptor above 2, but for `ours`."""
    try:
        found = {int(name) for name in os.listdir("/proc/self/fd")}
    except (OSError, ValueError):
        found = set(range(min(os.sysconf("SC_OPEN_MAX"), 65536)))
    for fd in found:
        if fd > 2 and fd not in ours:
            try:
                os.close(fd)
            except OSError:
                continue


def leave_directory() -> None:
    """Move to `/`, so that the directory we were started in can be unmounted."""
    try:
        os.chdir("/")
    except OSError:
        pass


PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # prctl(2)


def adopt(subreaper: bool | None, parent_death_signal: int | None, parent: int) -> list[str]:
    """Become a subreaper where asked for (None: unless we are process 1), and ask for a signal at our parent's death.

    `parent` is our parent's pid at the start. Returns what could not be done, for the log.
    """
    problems = []
    if subreaper or (subreaper is None and os.getpid() != 1 and sys.platform == "linux"):
        if not _prctl(PR_SET_CHILD_SUBREAPER, 1):
            problems.append("cannot become a subreaper: orphans of the agent will not come to agent-init")
    if parent_death_signal is not None:
        if not _prctl(PR_SET_PDEATHSIG, parent_death_signal):
            problems.append("cannot ask for a signal at the parent's death")
        elif os.getppid() != parent:  # it died before we asked
            os.kill(os.getpid(), parent_death_signal)
    return problems


def _prctl(what: int, value: int) -> bool:
    from . import libc

    try:
        return libc.call("prctl", what, value, 0, 0, 0) == 0
    except OSError:
        return False


def fill_standard_descriptors() -> tuple[bool, ...]:
    """Put a descriptor of `/` on each of 0 to 2 that is closed, so that nothing we open lands there.

    It is close-on-exec: the agent finds them closed, as we did. Returns which of them were open.
    """
    were_open = []
    for fd in range(3):
        try:
            os.fstat(fd)
            were_open.append(True)
        except OSError:
            were_open.append(False)
            os.open("/", os.O_RDONLY)  # takes the lowest free number: this one
    return tuple(were_open)

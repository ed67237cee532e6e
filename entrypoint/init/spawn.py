"""Starts the agent: fork, process group, terminal, exec; and explains why it cannot be started.

A failure before the agent runs ends agent-init with one line and nothing left running; after `spawn` has returned, no
failure may end it.
"""

import _signal
import errno
import posix

from .. import paths
from ..signals import CONT, KILL, OF_WRITES, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import NoReturn, TypeVar

    Result = TypeVar("Result")

OWN_FAULT, NOT_EXECUTABLE, NOT_FOUND = 125, 126, 127  # as env(1), nohup(1) and the shells have them
DEFAULT_PATH = "/bin:/usr/bin"  # where execvp(3) looks when PATH is not set

# What a seccomp profile answers to a call that it refuses. Docker's has had all three for clone3(2).
REFUSED = (errno.EPERM, errno.ENOSYS, errno.EACCES)
# posix_spawn(3) fails with one of these where its clone3(2) is refused; its exec may fail with the same.
PERHAPS_CLONE3 = (*REFUSED, errno.EINVAL, errno.EOPNOTSUPP)

# These name the process that other variables are meant for: sd_listen_fds(3), sd_watchdog_enabled(3).
NAMING_PID = (b"LISTEN_PID", b"WATCHDOG_PID")


class NotStarted(Exception):
    """The agent could not be started. `code`: the exit code for this kind of failure."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Refused(Exception):
    """A system call is refused that the start of any program needs. `call`: which."""

    def __init__(self, call: str, number: int) -> None:
        super().__init__(f"{call} is refused: {posix.strerror(number)} (a seccomp profile?)")


def spawn(command: list[str], environment: dict[bytes, bytes], *, terminal: bool) -> int:
    """Start `command` as our child and return its pid once its exec has succeeded.

    It gets a process group of its own, the terminal on descriptor 0 if `terminal`, no blocked signals, default
    dispositions for what the interpreter changed, and every descriptor that we inherited. Raises NotStarted.

    posix_spawn(3) gets the agent to its first instruction in half the time of fork, which copies our page tables. What
    it cannot do is done by a fork: hand over the terminal before the exec, put the child's own pid into the variables
    that name ours (see NAMING_PID), and ignore SIGCHLD again where we inherited that. A fork also shows what is refused
    where posix_spawn is: its clone3(2), by older seccomp profiles, or the program.
    """
    in_child: list[Callable[[], object]] = []
    if terminal:
        from . import terminal as terminals

        in_child.append(lambda: terminals.give_to(posix.getpid()))
    meant_for_us = [name for name in NAMING_PID if environment.get(name) == b"%d" % posix.getpid()]
    if meant_for_us:
        in_child.append(lambda: environment.update(dict.fromkeys(meant_for_us, b"%d" % posix.getpid())))
    if _signal.getsignal(_signal.SIGCHLD) == _signal.SIG_IGN:
        # Then the kernel would reap the agent, and its exit status would be lost (waitpid(2)).
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        in_child.append(lambda: _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN))

    failure, failed = errno.ENOENT, command[0]
    for path in candidates(command[0], environment):
        try:
            posix.lstat(path)  # a hundred times cheaper than a spawn that fails
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            pass  # exec will report the reason
        try:
            try:
                return _start(path, command, environment, in_child)
            except OSError as error:
                if error.errno != errno.ENOEXEC or not _is_script(path):
                    raise
            # As execvp(3): text without a #! line is a shell script.
            return _start("/bin/sh", ["/bin/sh", path, *command[1:]], environment, in_child)
        except Refused as error:
            raise NotStarted(OWN_FAULT, f"cannot start {_typed(command[0])}: {error}") from None
        except OSError as error:
            failure, failed = error.errno or errno.EIO, path
            if failure != errno.EACCES:  # another directory of PATH may have one that is ours to run
                break
    raise _explain(command[0], failure, failed, environment)


def _start(
    path: str, words: list[str], environment: dict[bytes, bytes], in_child: "Sequence[Callable[[], object]]"
) -> int:
    """Start a program as our child, with `in_child` called before its exec. Raises OSError, Refused."""
    if not in_child and hasattr(posix, "posix_spawn"):
        try:
            return posix.posix_spawn(path, words, environment, setpgroup=0, setsigmask=(), setsigdef=OF_WRITES)
        except OSError as error:
            if error.errno not in PERHAPS_CLONE3:
                raise
    return _fork(path, words, environment, in_child)


# Milliseconds to the exec, or to a look at why it does not come. macOS has no waitid(2) before Python 3.13.
LOOK_AGAIN = 50 if hasattr(posix, "waitid") else None


def _fork(
    path: str, words: list[str], environment: dict[bytes, bytes], in_child: "Sequence[Callable[[], object]]"
) -> int:
    """Do what posix_spawn does, with `in_child` called before the exec. Raises OSError if fork or exec fails."""
    reader, writer = call("pipe", posix.pipe)  # closed by a successful exec
    try:
        try:
            pid = call("fork", posix.fork)
            if pid == 0:
                _become(path, words, environment, in_child, writer)
        finally:
            posix.close(writer)
        try:
            failure = _exec_failure(reader, pid)
        except BaseException:  # no memory, say; nothing is left running
            posix.kill(pid, KILL)
            posix.waitpid(pid, 0)
            raise
    finally:
        posix.close(reader)
    if failure:
        posix.waitpid(pid, 0)
        name, _, number = failure.decode().partition(":")
        if name and int(number) in REFUSED:
            raise Refused(name, int(number))
        raise OSError(int(number), posix.strerror(int(number)))
    return pid


def call(name: str, function: "Callable[[], Result]") -> "Result":
    """Make a system call. Raises Refused, or OSError where it fails for another reason."""
    try:
        return function()
    except OSError as error:
        if error.errno in REFUSED:
            raise Refused(name, error.errno) from None
        raise


def _exec_failure(reader: int, pid: int) -> bytes:
    """Return what the child writes if it fails: the call before exec, a colon, the error number; nothing after exec.

    The child has the terminal before its exec, so a Ctrl-Z may stop it, and nobody but us would continue it.
    Re-stop it after exec, once the supervisor can handle it.
    """
    import select

    stopped_by = 0
    ready = select.poll()
    ready.register(reader, select.POLLIN)
    while not call("poll", lambda: ready.poll(LOOK_AGAIN)):
        stopped = call("waitid", lambda: posix.waitid(posix.P_PID, pid, posix.WSTOPPED | posix.WNOHANG))
        if stopped is not None:
            stopped_by = stopped.si_status
            posix.kill(pid, CONT)
    failure = posix.read(reader, 32)
    if stopped_by and not failure:
        posix.kill(pid, stopped_by)
    return failure


def _become(
    path: str,
    words: list[str],
    environment: dict[bytes, bytes],
    in_child: "Sequence[Callable[[], object]]",
    writer: int,
) -> "NoReturn":
    """Become the agent: runs in the child, up to the exec; never returns."""
    number, name = errno.ENOMEM, "setpgid"
    try:
        posix.setpgid(0, 0)
        name = ""
        for step in in_child:
            step()
        name = "sigaction"
        for ignored in OF_WRITES:
            _signal.signal(ignored, _signal.SIG_DFL)
        if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
            _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # before the signals are unblocked
        name = "sigprocmask"
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
        name = ""
        posix.execve(path, words, environment)
    except OSError as error:
        number = error.errno or errno.EIO
    finally:  # whatever was raised
        posix.write(writer, b"%s:%d" % (name.encode(), number))
        posix._exit(OWN_FAULT)


def candidates(name: str, environment: "Mapping[bytes, bytes]") -> list[str]:
    """Return the paths that `name` may mean, in order (execvp(3))."""
    if not name:
        return []
    if "/" in name:
        return [name]
    path = paths.fsdecode(environment.get(b"PATH", DEFAULT_PATH.encode()))
    return [f"{directory or '.'}/{name}" for directory in path.split(":")]


def _is_script(path: str) -> bool:
    """Whether it begins like text, without a #! line."""
    with open(path, "rb") as file:
        start = file.read(128)
    return bool(start) and b"\0" not in start and not start.startswith(b"#!")


def _typed(name: str) -> str:
    return repr(name) if len(name) < 1000 else quote(name)  # a path is no use without its end


def _explain(name: str, number: int, path: str, environment: "Mapping[bytes, bytes]") -> NotStarted:
    """Return the line that says what is wrong with what the user typed."""
    typed = _typed(name)
    if number == errno.ENOENT and not paths.lexists(path):
        if "/" in name or not name:
            return NotStarted(NOT_FOUND, f"cannot run {typed}: no such file")
        where = paths.fsdecode(environment.get(b"PATH", DEFAULT_PATH.encode()))
        return NotStarted(NOT_FOUND, f"cannot run {typed}: not found in PATH ({where})")
    if number in (errno.ENOENT, errno.ENOTDIR):
        why = _missing_interpreter(path)
    elif paths.isdir(path):
        why = "is a directory"
    elif number == errno.EACCES:
        why = "permission denied; is it executable (chmod +x), and its file system not mounted noexec?"
    elif number == errno.ENOEXEC:
        why = "not a program that this machine can run (wrong architecture, or damaged?)"
    elif number == errno.EAGAIN:
        why = "fork refused: the container's pids limit or RLIMIT_NPROC is reached; raise it, or run fewer processes"
        return NotStarted(OWN_FAULT, f"cannot start {typed}: {why}")
    elif number in (errno.ENOMEM, errno.EMFILE, errno.ENFILE):
        return NotStarted(OWN_FAULT, f"cannot start {typed}: {posix.strerror(number)}")
    else:
        why = posix.strerror(number)
    where = f"{path}: " if path != name else ""
    return NotStarted(NOT_EXECUTABLE, f"cannot run {typed}: {where}{why}")


def _missing_interpreter(path: str) -> str:
    """The file exists and exec reports ENOENT: what would run it is missing (execve(2))."""
    if not paths.exists(path):
        return "a symbolic link to nothing"
    try:
        with open(path, "rb") as file:
            line = file.read(256).partition(b"\n")[0]
    except OSError:
        line = b""
    if line.startswith(b"#!"):
        wanted = paths.fsdecode(line[2:]).split()
        ending = " (the line ends in a carriage return)" if line.endswith(b"\r") else ""
        return f"its interpreter {wanted[0] if wanted else ''!r} is not there{ending}"
    return "its interpreter or dynamic loader is not there (built for another libc?)"

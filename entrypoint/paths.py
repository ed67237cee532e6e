"""What process 1 needs of `os` beyond the system calls, which it takes from `posix`.

The agent waits while `os` is loaded, about 1 ms, and it takes 0.2 to 0.4 MiB: up to a tenth of all that process 1 has.
Functions with the names of those in `os` and `os.path` do the same, for paths without doubled slashes.
"""

import errno
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

ENCODING, ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()


def fsencode(text: str) -> bytes:
    """Return a path or a variable as the kernel has it."""
    return text.encode(ENCODING, ERRORS)


def fsdecode(raw: bytes) -> str:
    """Return a path or a variable as text."""
    return raw.decode(ENCODING, ERRORS)


def environment() -> dict[str, str]:
    """Return our variables, as text."""
    return {fsdecode(name): fsdecode(value) for name, value in posix.environ.items()}


def basename(path: str) -> str:
    """Return what follows the last slash."""
    return path.rpartition("/")[2]


def dirname(path: str) -> str:
    """Return what is before the last slash."""
    head, slash, _ = path.rpartition("/")
    return head.rstrip("/") or slash


def splitext(path: str) -> tuple[str, str]:
    """Return a path in two parts, of which the second is the dot and what follows, if the name has one after others."""
    name = basename(path)
    dot = name.rfind(".")
    if not name[:dot].strip(".") or dot < 0:
        return path, ""
    cut = len(path) - len(name) + dot
    return path[:cut], path[cut:]


def exists(path: str) -> bool:
    """Whether there is something; False for a broken link."""
    return _mode(posix.stat, path) is not None


def lexists(path: str) -> bool:
    """Whether there is something; True for a broken link."""
    return _mode(posix.lstat, path) is not None


def isfile(path: str) -> bool:
    """Whether it is a regular file."""
    from _stat import S_ISREG  # here, since the agent's start needs neither

    return S_ISREG(_mode(posix.stat, path) or 0)


def isdir(path: str) -> bool:
    """Whether it is a directory."""
    from _stat import S_ISDIR

    return S_ISDIR(_mode(posix.stat, path) or 0)


def unlink_file(path: str) -> None:
    """Remove a regular file or a link, if it is there. Raises OSError; FileExistsError where there is anything else."""
    from _stat import S_ISLNK, S_ISREG

    mode = _mode(posix.lstat, path)
    if mode is not None and not (S_ISREG(mode) or S_ISLNK(mode)):
        raise FileExistsError(errno.EEXIST, "it is no regular file", path)
    try:
        posix.unlink(path)
    except FileNotFoundError:
        pass


def _mode(stat: "Callable[[str], posix.stat_result]", path: str) -> int | None:
    try:
        return stat(path).st_mode
    except (OSError, ValueError):  # not there, not allowed; a NUL
        return None


def read_or_empty(path: str) -> bytes:
    """Return the content of a file that the kernel makes up, 4 KiB at most; nothing where it cannot be read.

    So little is to be had where no memory can be mapped any more. /proc/self/cgroup and the files of a control group,
    as far as they are looked at, are shorter.
    """
    try:
        fd = posix.open(path, posix.O_RDONLY)
    except OSError:
        return b""
    try:
        return posix.read(fd, 4096)
    except OSError:
        return b""
    finally:
        posix.close(fd)

"""Lines of source for stacks, read with no more power than the process has whose stacks they are.

It names the files itself, and can name any: `compile(text, "/etc/shadow", "exec")` is enough. The reporter is often
root where the agent has dropped its privileges, and what it reads comes to be printed.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST = 100  # characters of a line
LARGEST = 1 << 20  # bytes of a file


class Sources:
    """Lines of source, read as the process `pid` would find them."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._identity = _identity(pid)
        self._files: dict[str, list[str]] = {}

    def line(self, file: str, number: int) -> str:
        """A line without its indent; "" where there is none to be had."""
        if file.startswith("<") or number < 1:
            return ""
        if file not in self._files:
            self._files[file] = self._read(file)
        lines = self._files[file]
        return lines[number - 1].strip()[:LONGEST] if number <= len(lines) else ""

    def _read(self, file: str) -> list[str]:
        if self._identity is None:
            return []
        with contextlib.suppress(OSError, ValueError), _as(self._identity):
            for path in self._places(file):
                # Before it is opened: to open a device may do something.
                with contextlib.suppress(OSError):
                    if _is_text(os.stat(path)):
                        return _lines(path)
        return []

    def _places(self, file: str) -> Iterator[str]:
        """Where the process finds it; our own root is the place where its root cannot be looked at, but is the same."""
        if not file.startswith("/"):
            yield f"/proc/{self._pid}/cwd/{file}"
            return
        yield f"/proc/{self._pid}/root{file}"
        if _bytes(f"/proc/{self._pid}/mountinfo") == _bytes("/proc/self/mountinfo"):
            yield file


def _lines(path: str) -> list[str]:
    """Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with open(fd, "rb", buffering=0) as opened:
        if _is_text(os.fstat(fd)):
            return (opened.read(LARGEST) or b"").decode("utf-8", "replace").splitlines()
    return []


def _is_text(about: os.stat_result) -> bool:
    """A file of a size: those of /proc have none, and tell of whoever reads them."""
    return stat.S_ISREG(about.st_mode) and 0 < about.st_size <= LARGEST


class _Identity(NamedTuple):
    """Whose rights to files a process has (credentials(7))."""

    user: int
    group: int
    groups: frozenset[int]


def _identity(pid: int | str) -> _Identity | None:
    """That of a process; None where it is not to be known, or we cannot read with its rights alone."""
    fields = _status(pid)
    own = _status("self")
    try:
        # The last of four is the one for the file system (proc(5)).
        user, group = (int(fields[name].split()[3]) for name in ("Uid", "Gid"))
        identity = _Identity(user, group, frozenset(int(word) for word in fields["Groups"].split()))
        more = int(own["CapEff"], 16) & ~int(fields["CapEff"], 16)
    except (KeyError, ValueError, IndexError):
        return None
    is_ours = user == os.geteuid()  # then capabilities stay; with another user there are none
    if is_ours and (more or _namespace(pid) != _namespace("self")):
        return None
    return identity


@contextlib.contextmanager
def _as(identity: _Identity) -> Iterator[None]:
    """Have no other rights for a while. Raises PermissionError where we may not give up ours."""
    own = _Identity(os.geteuid(), os.getegid(), frozenset(os.getgroups()))
    try:
        if identity.groups != own.groups:
            os.setgroups(list(identity.groups))
        if identity.group != own.group:
            os.setegid(identity.group)
        if identity.user != own.user:
            os.seteuid(identity.user)
        yield
    finally:
        if os.geteuid() != own.user:
            os.seteuid(own.user)
        if os.getegid() != own.group:
            os.setegid(own.group)
        if identity.groups != own.groups:
            os.setgroups(list(own.groups))


def _status(pid: int | str) -> dict[str, str]:
    lines = _bytes(f"/proc/{pid}/status").decode("utf-8", "replace").splitlines()
    return {name: rest for name, _, rest in (line.partition(":") for line in lines)}


def _namespace(pid: int | str) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/user")
    return f"that of {pid}"


def _bytes(path: str) -> bytes:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return file.read()
    return b""

"""Source lines for stacks, read with the permissions of the process that the stack belongs to.

A process names the files itself and can name any file: `compile(text, "/etc/shadow", "exec")` is enough. The reporter
is often root where the agent has dropped its privileges, and the report prints what it reads.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_LINE_CHARACTERS = 100
MAX_FILE_BYTES = 1 << 20


class Sources:
    """Source files as the process `pid` sees them."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._identity = _identity(pid)
        self._files: dict[str, list[str]] = {}

    def line(self, file: str, number: int) -> str:
        """Return a line without its indentation, or "" if it is not readable."""
        if file.startswith("<") or number < 1:
            return ""
        if file not in self._files:
            self._files[file] = self._read(file)
        lines = self._files[file]
        return lines[number - 1].strip()[:MAX_LINE_CHARACTERS] if number <= len(lines) else ""

    def _read(self, file: str) -> list[str]:
        if self._identity is None:
            return []
        with contextlib.suppress(OSError, ValueError), _as(self._identity):
            for path in self._paths(file):
                with contextlib.suppress(OSError):
                    if _is_regular(os.stat(path)):  # before the open: opening a device can have an effect
                        return _read_lines(path)
        return []

    def _paths(self, file: str) -> Iterator[str]:
        """Yield where the process finds the file. If its root is not accessible but is the same as ours, use ours."""
        if not file.startswith("/"):
            yield f"/proc/{self._pid}/cwd/{file}"
            return
        yield f"/proc/{self._pid}/root{file}"
        if _read_bytes(f"/proc/{self._pid}/mountinfo") == _read_bytes("/proc/self/mountinfo"):
            yield file


def _read_lines(path: str) -> list[str]:
    """Return the lines of a regular file. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with open(fd, "rb", buffering=0) as opened:
        if _is_regular(os.fstat(fd)):
            return (opened.read(MAX_FILE_BYTES) or b"").decode("utf-8", "replace").splitlines()
    return []


def _is_regular(status: os.stat_result) -> bool:
    """Whether it is a regular file with a size. Files in /proc have size 0 and describe the process that reads them."""
    return stat.S_ISREG(status.st_mode) and 0 < status.st_size <= MAX_FILE_BYTES


class _Identity(NamedTuple):
    """The file-system identity of a process (credentials(7))."""

    user: int
    group: int
    groups: frozenset[int]


def _identity(pid: int | str) -> _Identity | None:
    """Return the identity of a process, or None if it is unknown or we cannot take exactly its permissions."""
    fields = _status(pid)
    own = _status("self")
    try:
        # The last of four is the file-system id (proc(5)).
        user, group = (int(fields[name].split()[3]) for name in ("Uid", "Gid"))
        identity = _Identity(user, group, frozenset(int(word) for word in fields["Groups"].split()))
        extra_capabilities = int(own["CapEff"], 16) & ~int(fields["CapEff"], 16)
    except (KeyError, ValueError, IndexError):
        return None
    is_same_user = user == os.geteuid()  # then we keep our capabilities; a change of user clears them
    if is_same_user and (extra_capabilities or _namespace(pid) != _namespace("self")):
        return None
    return identity


@contextlib.contextmanager
def _as(identity: _Identity) -> Iterator[None]:
    """Use this identity within the block. Raises PermissionError if we may not change ours."""
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
    lines = _read_bytes(f"/proc/{pid}/status").decode("utf-8", "replace").splitlines()
    return {name: rest for name, _, rest in (line.partition(":") for line in lines)}


def _namespace(pid: int | str) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/user")
    return f"that of {pid}"


def _read_bytes(path: str) -> bytes:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return file.read()
    return b""

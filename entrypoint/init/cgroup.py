"""The memory of our control group: how much there is, and whether the OOM killer has killed.

From cgroup v2 (memory.events, memory.max, memory.current, memory.peak) or v1 (memory.oom_control,
memory.limit_in_bytes, ...), as the kernel's admin-guide/cgroup-v2 and cgroup-v1/memory have them. In a container the
files of its own group are at the root of the mount; elsewhere /proc/self/cgroup says where.
"""

import posix

from ..paths import exists, read_or_empty
from .cpu_limit import group_paths

V2 = ("memory.events", "memory.max", "memory.current", "memory.peak", "memory.stat")
V1 = (
    "memory.oom_control",
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    "memory.max_usage_in_bytes",
    "memory.stat",
)
UNLIMITED = 1 << 60  # v1 says this much, rounded to pages, for no limit


class Memory:
    """Looked up once, read when asked. Every figure is None where it cannot be known."""

    __slots__ = ("_directory", "_files", "_kills_before")

    def __init__(self, root: str = "/sys/fs/cgroup", own: str = "/proc/self/cgroup") -> None:
        self._directory, self._files, is_containers = _find(root, own)
        # The agent may have been killed already. A container's group is as old as its process 1: every kill is new.
        self._kills_before = 0 if is_containers and posix.getpid() == 1 else self._kills() or 0

    @property
    def kills_before(self) -> int:
        """How many of the kernel's count are older than us: see `new_kills`."""
        return self._kills_before

    @property
    def limit(self) -> int | None:
        """Bytes that the group may use; None for no limit too."""
        value = self._number(1)
        return value if value is not None and value < UNLIMITED else None

    @property
    def used(self) -> int | None:
        """Bytes that it uses."""
        return self._number(2)

    @property
    def peak(self) -> int | None:
        """Bytes that it used at most."""
        return self._number(3)

    @property
    def available_bytes(self) -> int | None:
        """Bytes that are still available: the limit, less what is used and cannot be reclaimed. None for no limit."""
        limit, used = self.limit, self.used
        if limit is None or used is None:
            return None
        cache = self._field(4, b"inactive_file") or 0
        return max(0, limit - used + cache)

    @property
    def new_kills(self) -> int | None:
        """How many of the group's processes the OOM killer has ended, since the container's start or our first look."""
        kills = self._kills()
        return None if kills is None else kills - self._kills_before

    def _kills(self) -> int | None:
        return self._field(0, b"oom_kill")

    def _number(self, which: int) -> int | None:
        text = self._read(which).strip()
        return int(text) if text.isdigit() else None  # "max", or nothing

    def _field(self, which: int, name: bytes) -> int | None:
        _, _, rest = (b"\n" + self._read(which)).partition(b"\n%b " % name)
        value = rest.partition(b"\n")[0]
        return int(value) if value.isdigit() else None

    def _read(self, which: int) -> bytes:
        if not self._directory:
            return b""
        return read_or_empty(f"{self._directory}/{self._files[which]}")


def _find(root: str, own: str) -> tuple[str, tuple[str, ...], bool]:
    """Return our group's directory, the names of its files, and whether it was made for the container.

    It was if the mount begins with it, and it is not the host's topmost group: on v2 that one has no such files, on v1
    its path is `/`. The directory is empty where there is none.
    """
    paths = group_paths(own, b"memory")
    on_v2 = paths.get(b"", "")
    for directory, files, is_containers in (
        (root + on_v2, V2, not on_v2),
        (root, V2, True),
        (f"{root}/memory{paths.get(b'memory', '')}", V1, False),
        (f"{root}/memory", V1, True),
    ):
        if exists(f"{directory}/{files[0]}"):
            return directory, files, is_containers
    return "", V2, False

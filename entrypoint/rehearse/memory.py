"""A control group with a memory limit, for one run: the kernel's OOM killer ends what exceeds it.

cgroup v2 (memory.max, memory.events) and v1 (memory.limit_in_bytes, memory.oom_control), as the kernel's
admin-guide/cgroup-v2 and cgroup-v1/memory have them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

from ..init import cpu_limit

NO_GROUP = "no control group with a memory limit can be had here (it takes root, and cgroups that can be written)"
ROOT = Path("/sys/fs/cgroup")
HEADROOM_BYTES = 8 << 20
TAKE_SECONDS = 10.0
# Takes memory in steps until the OOM killer has killed another process of the group; it is exempt itself.
BALLOON = """
import sys, time
directory, file, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
open("/proc/self/oom_score_adj", "w").write("-1000")
open(directory + "/cgroup.procs", "w").write("0")
def kills():
    for line in open(directory + "/" + file):
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return 0
before, held, end = kills(), [], time.monotonic() + seconds
while kills() == before and time.monotonic() < end:
    held.append(bytearray(b"x") * (1 << 20))
"""


def make_group() -> Path | None:
    """Make a control group beside ours; None where that cannot be done."""
    for parent, limit in ((_own(b""), "memory.max"), (_own(b"memory"), "memory.limit_in_bytes")):
        if parent is None:
            continue
        group = parent / f"agent-init-rehearsal-{uuid.uuid4().hex[:8]}"
        try:
            group.mkdir()
        except OSError:
            continue
        if (group / limit).exists() and os.access(group / limit, os.W_OK):
            return group
        remove_group(group)
    return None


def _own(controller: bytes) -> Path | None:
    """Return the directory of our group, for a controller of v1, or on v2 without one; None where there is none."""
    path = cpu_limit.group_paths("/proc/self/cgroup", b"memory").get(controller, "").lstrip("/")
    base = ROOT if not controller else ROOT / controller.decode()
    for directory in (base / path, base):
        if (directory / "cgroup.procs").exists():
            return directory
    return None


def remove_group(group: Path) -> None:
    """Remove it, if nothing is in it any more."""
    for _ in range(50):
        try:
            group.rmdir()
            return
        except OSError:
            time.sleep(0.02)


class Balloon:
    """Uses up the memory of a group."""

    def __init__(self, group: Path) -> None:
        self._group = group
        self._process: subprocess.Popen[bytes] | None = None

    def take(self) -> None:
        """Limit the group to a little more than it uses, and take that. Raises OSError."""
        v2 = (self._group / "memory.max").exists()
        used = int((self._group / ("memory.current" if v2 else "memory.usage_in_bytes")).read_text())
        limit = self._group / ("memory.max" if v2 else "memory.limit_in_bytes")
        limit.write_text(str(used + HEADROOM_BYTES))
        events = "memory.events" if v2 else "memory.oom_control"
        null = subprocess.DEVNULL
        argv = [sys.executable, "-I", "-S", "-c", BALLOON, str(self._group), events, str(TAKE_SECONDS)]
        self._process = subprocess.Popen(argv, stdin=null, stdout=null, stderr=null, start_new_session=True)

    def end(self) -> None:
        """End what takes the memory."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

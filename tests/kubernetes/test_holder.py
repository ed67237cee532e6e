"""Nothing of a cluster is left behind, however the run ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support.init import until

from . import holder

# What pytest does: start the holder, wait until its namespaces are ready, and start a program in them.
RUN = """
import subprocess, sys, time
holder = subprocess.Popen([sys.executable, sys.argv[1], sys.argv[2]], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True, start_new_session=True)
first = holder.stdout.readline().strip()
enter = ["nsenter", f"--target={first}", "--mount", "--net", "--pid"]
subprocess.run([*enter, "mount", "-t", "tmpfs", "none", f"{sys.argv[2]}/mounted"], check=True)
inside = subprocess.Popen([*enter, "sleep", "1000"])
print(first, flush=True)
if sys.argv[3] == "end":
    holder.stdin.close()
    holder.wait()
    inside.wait()
else:
    time.sleep(1000)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make such namespaces")
@pytest.mark.parametrize("how", ["end", "INT", "TERM", "KILL"])
def test_nothing_is_left(how: str) -> None:
    root = Path(tempfile.mkdtemp(prefix="agent-init-kube-", dir="/tmp"))
    (root / "mounted").mkdir()
    run = subprocess.Popen(
        [sys.executable, "-c", RUN, holder.__file__, str(root), how], stdout=subprocess.PIPE, text=True
    )
    assert run.stdout
    first = int(run.stdout.readline())
    if how != "end":
        assert (root / "own").exists()
        os.kill(run.pid, getattr(signal, f"SIG{how}"))
    run.wait(60)
    run.stdout.close()
    until(lambda: not root.exists(), "the end of its files")
    assert not Path(f"/proc/{first}").exists()
    assert not [place for place in holder.hierarchies() if (place / root.name).exists()]
    assert root.name not in Path("/proc/self/mounts").read_text()
    until(lambda: not _named(root.name), "the end of the holder")


def _named(text: str) -> list[Path]:
    """The processes with this in their command line."""
    files = (Path(f"/proc/{pid}/cmdline") for pid in os.listdir("/proc") if pid.isdigit())
    return [file for file in files if text.encode() in _read(file)]


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""

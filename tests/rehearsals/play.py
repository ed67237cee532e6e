"""Runs one rehearsal as a user would, in namespaces of its own where that is allowed."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from entrypoint.rehearse import json_report
from entrypoint.rehearse.model import Rehearsal, Verdict
from tests.agents.environments import environment_of
from tests.livekit import server as livekit

from .rows import AS_OF, LIVEKIT_SERVER, Row

# Nothing outlives the script there, its ports are free, and there is an address for WebRTC, which takes no loopback.
NAMESPACES = ("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
NETWORK = (
    "ip link set lo up",
    "ip link add own type veth peer name other",
    "ip addr add 192.0.2.1/24 dev own",  # TEST-NET-1 (RFC 5737)
    "ip link set own up",
    "ip link set other up",
    '"$@"',
)
OF_ITS_OWN = (*NAMESPACES, "sh", "-c", f"{' && '.join(NETWORK)}; exit $?", "sh")
SHOWN_LINES, SHOWN_COLUMNS = 8, 300
PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR")


class Failed(RuntimeError):
    """The rehearsal could not be done; the text says why."""


def play(row: Row, *options: str, **variables: str) -> Rehearsal:
    """Run a row's script in a copy of its folder, with more options of `rehearse`. Raises Failed."""
    made = environment_of(row.requirements, AS_OF)
    with tempfile.TemporaryDirectory(prefix="agent-init-rehearsal-") as scratch:
        folder = Path(scratch) / row.path.parent.name
        shutil.copytree(row.path.parent, folder, ignore=shutil.ignore_patterns("__pycache__", "*.call"))
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ} | variables
        environment["PATH"] = f"{made.bin}:{_tools(row, Path(scratch) / 'bin')}:{environment['PATH']}"
        command = [*_of_its_own(), "sh", row.path.name, "--json", "--keep", f"{scratch}/runs", *options]
        done = subprocess.run(
            command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )
        if done.returncode not in (0, 1):
            raise Failed(f"{row.script}: exit code {done.returncode}\n{done.stdout}")
        rehearsal = json_report.parse(done.stdout)
        _show_lost(rehearsal)
    return rehearsal


def _show_lost(rehearsal: Rehearsal) -> None:
    """Print the end of what was written in runs that have lost something."""
    for run in rehearsal.runs:
        if run.verdict is Verdict.LOST and run.folder is not None:
            for name in ("output.log", "work.log"):
                lines = (run.folder / name).read_text().splitlines()[-SHOWN_LINES:]
                print("\n".join(f"  {run.folder.name}/{name}: {line[:SHOWN_COLUMNS]}" for line in lines))


@functools.cache
def _of_its_own() -> tuple[str, ...]:
    with contextlib.suppress(OSError):
        if not subprocess.run([*OF_ITS_OWN, "true"], stderr=subprocess.DEVNULL, check=False).returncode:
            return OF_ITS_OWN
    return ()


def _tools(row: Row, folder: Path) -> Path:
    """Return a folder for PATH with what a script needs and no package manager here has."""
    folder.mkdir()
    if row.needs == LIVEKIT_SERVER:
        (folder / LIVEKIT_SERVER).symlink_to(livekit.binary())
    return folder

"""Containers without /dev, /sys or a writable root, with few descriptors, full disks or no memory left."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults.stop_scenarios import PACKAGE
from tests.support.init import AGENT_INIT, until
from tests.support.proc import IDLE, descriptors, wait_for_agent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Start

TOLERANCE = 3.0  # seconds, on a busy machine. tests/process1 checks deadlines more closely
LEFTOVER = "on('TERM', lambda: leave(0, after=0.2)); ready()"
FAMILY = f"child('leftover', {LEFTOVER!r}); on('USR1'); on('TERM', lambda: leave(7)); ready()"
STUBBORN = "on('TERM'); ready()"


def in_mount_namespace(setting: str) -> list[str]:
    """The prefix that runs agent-init in a new mount namespace, after `setting`."""
    return ["unshare", "--mount", "sh", "-c", f'{setting} && exec "$@"', "sh"]


def assert_stops(start_in_role: Start, before: list[str]) -> None:
    """Assert that an agent with a child stops gracefully, and that one that ignores TERM is killed."""
    init = start_in_role("-t", "20s", agent=FAMILY, before=before)
    init.wait_for_event("ready")
    init.wait_for_event("ready", "leftover")
    init.signal("USR2")
    init.signal("USR1")
    init.wait_for_event("USR1")
    init.signal("TERM")
    assert init.wait() == 7
    assert init.events() == ["ready", "USR1", "TERM", "end"]
    assert init.events("leftover") == ["ready", "TERM", "end"]
    assert not init.lines("unexpected")
    init.log.write_text("")
    init = start_in_role("-t", "500ms", agent=STUBBORN, before=before)
    init.wait_for_event("ready")
    requested_at = time.monotonic()
    init.signal("TERM")
    assert init.wait() == 137
    assert 0.5 <= time.monotonic() - requested_at < 0.5 + TOLERANCE


def test_dev_without_a_terminal(start_in_role: Start) -> None:
    assert_stops(start_in_role, in_mount_namespace("mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3"))


def test_empty_dev(start_in_role: Start) -> None:
    assert_stops(start_in_role, in_mount_namespace("mount -t tmpfs none /dev"))


def test_empty_sys(start_in_role: Start) -> None:
    assert_stops(start_in_role, in_mount_namespace("mount -t tmpfs none /sys"))


def test_read_only_root(start_in_role: Start, tmp_path: Path) -> None:
    """Only the directory of the events log is writable."""
    log = shlex.quote(str(tmp_path))
    setting = f"mount --bind {log} {log} && mount -t tmpfs -o ro none /run && mount -o remount,bind,ro /"
    assert_stops(start_in_role, in_mount_namespace(f"{setting} && ! touch /etc/written 2>/dev/null"))


def test_every_file_system_is_full(start_in_role: Start, tmp_path: Path) -> None:
    """stderr is a regular file that cannot grow, and /run is full."""
    full = "mount -t tmpfs -o size=64k none /mnt && head -c 1000000 /dev/zero >/mnt/full 2>/dev/null; touch /mnt/log"
    others = "mount --bind /mnt /run && exec 2>>/mnt/log"
    before = in_mount_namespace(f"{full}; {others}")
    init = start_in_role("-v", "-t", "500ms", agent=STUBBORN, before=before)
    init.wait_for_event("ready")
    init.signal("USR2")
    requested_at = time.monotonic()
    init.signal("TERM")
    assert init.wait() == 137
    assert 0.5 <= time.monotonic() - requested_at < 0.5 + TOLERANCE
    assert init.stderr == ""


# --- Descriptors. ---------------------------------------------------------------------------------------------------


def test_limit_of_16_descriptors(start_in_role: Start) -> None:
    assert_stops(start_in_role, ["prlimit", "--nofile=16:16"])


def test_limit_of_5_descriptors(start_in_role: Start) -> None:
    """The fewest with which agent-init starts. It stops on time even if it must poll stderr before each line."""
    init = start_in_role(
        "-t", "300ms", command=["sleep", "100"], before=["prlimit", "--nofile=5:5"], stderr=subprocess.PIPE
    )
    wait_for_agent(init)
    requested_at = time.monotonic()
    init.signal("TERM")
    assert init.wait() == 143
    assert time.monotonic() - requested_at < TOLERANCE


MANY = """
import os, resource, sys
count = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100, count + 100))
for _ in range(count):
    os.set_inheritable(os.dup(0), True)
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_10000_inherited_descriptors(start_in_role: Start) -> None:
    """The agent gets them all, process 1 keeps none."""
    if os.getuid() != 0:
        pytest.skip("raising the limit of descriptors takes root")
    init = start_in_role(command=IDLE, before=[sys.executable, "-S", "-c", MANY, "10000"], program=[str(AGENT_INIT)])
    agent = wait_for_agent(init)
    assert len(descriptors(agent)) == 10_003
    init.wait_for_line("started")
    until(lambda: len(descriptors(init.pid)) < 16, "process 1 to let go of them")
    init.signal("TERM")
    assert init.wait() == 143


# --- The agent's exec. ----------------------------------------------------------------------------------------------


def test_program_open_for_writing_is_126(start_in_role: Start, tmp_path: Path) -> None:
    """ETXTBSY (execve(2))."""
    program = tmp_path / "program"
    program.write_bytes(Path("/bin/true").read_bytes())
    program.chmod(0o755)
    with program.open("ab"):
        init = start_in_role(command=[str(program)])
        assert init.wait() == 126
    [line] = init.stderr.splitlines()
    assert line.startswith("agent-init: ")
    assert str(program) in line
    assert "busy" in line
    assert start_in_role(command=[str(program)]).wait() == 0


SMALL_STACK = """
import os, resource, runpy, sys
resource.setrlimit(resource.RLIMIT_STACK, (131072, resource.RLIM_INFINITY))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_too_many_arguments_for_exec_is_126(start_in_role: Start) -> None:
    """E2BIG (execve(2)): the limit depends on RLIMIT_STACK, which here is lower for the agent than for agent-init."""
    program = [sys.executable, "-I", "-S", "-c", SMALL_STACK, f"{PACKAGE}/entrypoint/__main__.py"]
    init = start_in_role(command=["true", *["x" * 100_000] * 8], program=program)
    assert init.wait() == 126
    [line] = init.stderr.splitlines()
    assert "'true'" in line
    assert "too long" in line
    assert "xxx" not in line


# --- Memory. --------------------------------------------------------------------------------------------------------

MEMORY = Path("/sys/fs/cgroup/memory")


@pytest.fixture
def little_memory() -> Iterator[Path]:
    """A control group of 64 MiB."""
    if not (MEMORY / "cgroup.procs").exists() or not os.access(MEMORY, os.W_OK):
        pytest.skip("no writable memory controller of cgroups v1")
    made = Path(tempfile.mkdtemp(dir=MEMORY, prefix="agent-init-test-"))
    (made / "memory.limit_in_bytes").write_text(str(64 << 20))
    yield made
    until(lambda: not (made / "cgroup.procs").read_text(), "an empty group")
    made.rmdir()


# Allocates memory up to `spare` KiB below the limit, then ignores TERM.
MEMORY_HOG = """
ignore('TERM')
import mmap
limit = int(open('{group}/memory.limit_in_bytes').read())
hoard = []
while int(open('{group}/memory.usage_in_bytes').read()) < limit - ({spare} << 10):
    block = mmap.mmap(-1, 64 << 10)
    for at in range(0, len(block), 4096):
        block[at] = 1
    hoard.append(block)
ready()
"""


@pytest.mark.parametrize("spare", [1024, 192])
def test_deadline_is_kept_when_the_agent_has_used_up_the_memory(
    start_in_role: Start, little_memory: Path, spare: int
) -> None:
    """Either agent-init or the kernel kills the agent, in both cases by the deadline."""
    before = ["sh", "-c", f'echo 0 >{little_memory}/cgroup.procs && exec "$@"', "sh"]
    agent = MEMORY_HOG.format(group=little_memory, spare=spare)
    init = start_in_role("-t", "700ms", agent=agent, before=before)
    until(lambda: init.events() == ["ready"] or init.outer.poll() is not None, "the agent to have it all")
    if init.outer.poll() is None:
        for _ in range(50):
            init.signal("USR2")  # agent-init must check and log each
        requested_at = time.monotonic()
        init.signal("TERM")
        assert init.wait() == 137
        assert time.monotonic() - requested_at < 0.7 + TOLERANCE
    assert init.wait() == 137


def test_agent_killed_by_the_oom_killer_gives_137(start_in_role: Start, little_memory: Path) -> None:
    before = ["sh", "-c", f'echo 0 >{little_memory}/cgroup.procs && exec "$@"', "sh"]
    init = start_in_role(
        "-t", "20s", agent="log('ready'); hoard = [b'x' * (1 << 20) for _ in range(500)]", before=before
    )
    assert init.wait() == 137
    assert "killed by SIGKILL" in init.wait_for_line("ended") or "memory" in init.wait_for_line("ended")


def test_memory_limit_of_the_fixture_is_in_force(little_memory: Path) -> None:
    """Without agent-init the same agent is killed the same way."""
    argv = [sys.executable, "-c", "hoard = [b'x' * (1 << 20) for _ in range(500)]"]
    ran = subprocess.run(["sh", "-c", f'echo 0 >{little_memory}/cgroup.procs && exec "$@"', "sh", *argv], timeout=30)
    assert ran.returncode == -9

"""What a container's machine can lack, and what of it can be full."""

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
from tests.support.proc import IDLE, agent_of, descriptors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Start

LATE = 8.0  # two hundred others may start beside it; how exact a deadline is, tests/process1 shows
HEIR = "on('TERM', lambda: leave(0, after=0.2)); ready()"
FAMILY = f"child('heir', {HEIR!r}); on('USR1'); on('TERM', lambda: leave(7)); ready()"
STUBBORN = "on('TERM'); ready()"


def in_its_own(setting: str) -> list[str]:
    """The words of a shell that does `setting` in a mount namespace of its own."""
    return ["unshare", "--mount", "sh", "-c", f'{setting} && exec "$@"', "sh"]


def lives(started: Start, before: list[str]) -> None:
    """One scenario that is stopped gracefully, with what comes with it, and one that is not."""
    init = started("-t", "20s", agent=FAMILY, before=before)
    init.event("ready")
    init.event("ready", "heir")
    init.signal("USR2")
    init.signal("USR1")
    init.event("USR1")
    init.signal("TERM")
    assert init.wait() == 7
    assert init.events() == ["ready", "USR1", "TERM", "end"]
    assert init.events("heir") == ["ready", "TERM", "end"]
    assert not init.lines("unexpected")
    init.log.write_text("")
    init = started("-t", "500ms", agent=STUBBORN, before=before)
    init.event("ready")
    asked = time.monotonic()
    init.signal("TERM")
    assert init.wait() == 137
    assert 0.5 <= time.monotonic() - asked < 0.5 + LATE


def test_no_terminal_to_be_had(started: Start) -> None:
    lives(started, in_its_own("mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3"))


def test_no_devices_at_all(started: Start) -> None:
    lives(started, in_its_own("mount -t tmpfs none /dev"))


def test_no_control_groups(started: Start) -> None:
    lives(started, in_its_own("mount -t tmpfs none /sys"))


def test_a_read_only_root(started: Start, tmp_path: Path) -> None:
    """Where the actors write is the one place that can be written to."""
    log = shlex.quote(str(tmp_path))
    setting = f"mount --bind {log} {log} && mount -t tmpfs -o ro none /run && mount -o remount,bind,ro /"
    lives(started, in_its_own(f"{setting} && ! touch /etc/written 2>/dev/null"))


def test_every_disk_is_full(started: Start, tmp_path: Path) -> None:
    """A regular file that cannot grow for stderr, and no room in /tmp and /run."""
    full = "mount -t tmpfs -o size=64k none /mnt && head -c 1000000 /dev/zero >/mnt/full 2>/dev/null; touch /mnt/log"
    others = "mount --bind /mnt /run && exec 2>>/mnt/log"
    before = in_its_own(f"{full}; {others}")
    init = started("-v", "-t", "500ms", agent=STUBBORN, before=before)
    init.event("ready")
    init.signal("USR2")
    asked = time.monotonic()
    init.signal("TERM")
    assert init.wait() == 137
    assert 0.5 <= time.monotonic() - asked < 0.5 + LATE
    assert init.stderr == ""


# --- Descriptors. ---------------------------------------------------------------------------------------------------


def test_sixteen_descriptors(started: Start) -> None:
    lives(started, ["prlimit", "--nofile=16:16"])


def test_five_descriptors(started: Start) -> None:
    """As few as let it start; the stop is kept to, also where a line can be written only by asking first."""
    init = started("-t", "300ms", command=["sleep", "100"], before=["prlimit", "--nofile=5:5"], stderr=subprocess.PIPE)
    agent_of(init)
    asked = time.monotonic()
    init.signal("TERM")
    assert init.wait() == 143
    assert time.monotonic() - asked < LATE


MANY = """
import os, resource, sys
count = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100, count + 100))
for _ in range(count):
    os.set_inheritable(os.dup(0), True)
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_ten_thousand_inherited_descriptors(started: Start) -> None:
    """The agent gets them all, process 1 keeps none."""
    if os.getuid() != 0:
        pytest.skip("to raise the limit of descriptors takes root")
    init = started(command=IDLE, before=[sys.executable, "-S", "-c", MANY, "10000"], program=[str(AGENT_INIT)])
    agent = agent_of(init)
    assert len(descriptors(agent)) == 10_003
    init.said("started")
    until(lambda: len(descriptors(init.pid)) < 16, "process 1 to let go of them")
    init.signal("TERM")
    assert init.wait() == 143


# --- The agent's exec. ----------------------------------------------------------------------------------------------


def test_a_program_that_is_being_written(started: Start, tmp_path: Path) -> None:
    """ETXTBSY (execve(2))."""
    program = tmp_path / "program"
    program.write_bytes(Path("/bin/true").read_bytes())
    program.chmod(0o755)
    with program.open("ab"):
        init = started(command=[str(program)])
        assert init.wait() == 126
    [line] = init.stderr.splitlines()
    assert line.startswith("agent-init: ")
    assert str(program) in line
    assert "busy" in line
    assert started(command=[str(program)]).wait() == 0


SMALL_STACK = """
import os, resource, runpy, sys
resource.setrlimit(resource.RLIMIT_STACK, (131072, resource.RLIM_INFINITY))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_more_arguments_than_exec_takes(started: Start) -> None:
    """E2BIG: the limit is a share of the stack's, which can be lower for the agent than it was for us (execve(2))."""
    program = [sys.executable, "-I", "-S", "-c", SMALL_STACK, f"{PACKAGE}/entrypoint/__main__.py"]
    init = started(command=["true", *["x" * 100_000] * 8], program=program)
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
        pytest.skip("no memory controller of the first kind to make a group in")
    made = Path(tempfile.mkdtemp(dir=MEMORY, prefix="agent-init-test-"))
    (made / "memory.limit_in_bytes").write_text(str(64 << 20))
    yield made
    until(lambda: not (made / "cgroup.procs").read_text(), "an empty group")
    made.rmdir()


# Takes what there is, to the last page, and hands nothing back; then stays deaf.
GREEDY = """
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
def test_a_stop_where_the_agent_has_used_up_the_memory(started: Start, little_memory: Path, spare: int) -> None:
    """The deadline is kept; whether we killed the agent or the kernel did, somebody ran out of memory first."""
    before = ["sh", "-c", f'echo 0 >{little_memory}/cgroup.procs && exec "$@"', "sh"]
    agent = GREEDY.format(group=little_memory, spare=spare)
    init = started("-t", "700ms", agent=agent, before=before)
    until(lambda: init.events() == ["ready"] or init.outer.poll() is not None, "the agent to have it all")
    if init.outer.poll() is None:
        for _ in range(50):
            init.signal("USR2")  # each has to be looked at, and told
        asked = time.monotonic()
        init.signal("TERM")
        assert init.wait() == 137
        assert time.monotonic() - asked < 0.7 + LATE
    assert init.wait() == 137


def test_an_agent_that_the_kernel_kills_for_its_memory(started: Start, little_memory: Path) -> None:
    before = ["sh", "-c", f'echo 0 >{little_memory}/cgroup.procs && exec "$@"', "sh"]
    init = started("-t", "20s", agent="log('ready'); hoard = [b'x' * (1 << 20) for _ in range(500)]", before=before)
    assert init.wait() == 137
    assert "killed by SIGKILL" in init.said("ended") or "memory" in init.said("ended")


def test_it_runs_in_the_group(little_memory: Path) -> None:
    """The fixture does limit: without agent-init the same agent ends the same way."""
    words = [sys.executable, "-c", "hoard = [b'x' * (1 << 20) for _ in range(500)]"]
    ran = subprocess.run(["sh", "-c", f'echo 0 >{little_memory}/cgroup.procs && exec "$@"', "sh", *words], timeout=30)
    assert ran.returncode == -9

"""The deadline is kept and the exit is reported when the system lacks something: /proc, memory, signalfd."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

import entrypoint
from tests.support.init import actor, until

if TYPE_CHECKING:
    from tests.conftest import Start

TOLERANCE = 0.5
STUBBORN = "on('TERM'); ready()"

# Inside the namespace: the /proc of another PID namespace (the one below unshare's mount), or none at all.
WRONG_PROC = ["sh", "-c", 'umount /proc; exec "$@"', "sh"]
NO_PROC = ["sh", "-c", 'mount -t tmpfs none /proc; exec "$@"', "sh"]


@pytest.mark.parametrize("before", [WRONG_PROC, NO_PROC], ids=["wrong /proc", "no /proc"])
def test_agent_is_stopped_on_time_without_a_usable_proc(start: Start, before: list[str]) -> None:
    # A quarter of that is for the report.
    init = start("-t", "4s", agent=f"child('child', {STUBBORN!r}); {STUBBORN}", before=before)
    init.wait_for_event("ready")
    init.wait_for_event("ready", "child")
    requested_at = time.monotonic()
    init.signal("TERM")
    assert init.wait() == 137
    assert 4.0 <= time.monotonic() - requested_at < 4.0 + TOLERANCE
    assert init.events() == ["ready", "TERM"]
    assert init.events("child") == ["ready"]
    if before is NO_PROC:
        assert init.lines("report: no process list: /proc is not mounted")
    assert not init.lines("no processes left")


@pytest.mark.parametrize("before", [WRONG_PROC, NO_PROC], ids=["wrong /proc", "no /proc"])
def test_leftover_processes_get_the_stop_signal_without_a_usable_proc(start: Start, before: list[str]) -> None:
    leftover = "on('TERM', lambda: leave(0, after=0.3)); ready()"
    init = start(agent=f"child('leftover', {leftover!r}); on('USR1', lambda: leave(5)); ready()", before=before)
    init.wait_for_event("ready")
    init.wait_for_event("ready", "leftover")
    init.signal("USR1")
    assert init.wait() == 5
    assert init.events("leftover") == ["ready", "TERM", "end"]


LIMITS = {
    "no memory": (resource.RLIMIT_AS, 1),
    "no descriptors": (resource.RLIMIT_NOFILE, 0),
    "no file can grow": (resource.RLIMIT_FSIZE, 0),
    "no processes": (resource.RLIMIT_NPROC, 0),
}


@pytest.mark.parametrize("limit", LIMITS)
def test_deadline_is_kept_when_a_resource_is_exhausted(start_in_role: Start, limit: str) -> None:
    init = start_in_role("-t", "1s", agent=f"child('child', {STUBBORN!r}); {STUBBORN}")
    init.wait_for_event("ready")
    init.wait_for_event("ready", "child")
    init.wait_for_line("started")
    what, most = LIMITS[limit]
    resource.prlimit(init.pid, what, (most, resource.prlimit(init.pid, what)[1]))
    requested_at = time.monotonic()
    init.signal("TERM")
    assert init.wait() == 137
    assert 1.0 <= time.monotonic() - requested_at < 1.0 + TOLERANCE
    assert init.events() == ["ready", "TERM"]


def test_deadline_that_passed_while_process_1_was_stopped_is_enforced_when_it_continues(start_in_role: Start) -> None:
    init = start_in_role("-t", "500ms", agent=STUBBORN)
    init.wait_for_event("ready")
    init.signal("TERM")
    init.wait_for_event("TERM")
    os.kill(init.pid, signal.SIGSTOP)
    time.sleep(0.8)  # the deadline passes here
    os.kill(init.pid, signal.SIGCONT)
    assert init.wait(5) == 137


def test_failed_supervisor_import_is_retried(start: Start, tmp_path: Path) -> None:
    """The supervisor cannot be imported at first. A stop request that arrives meanwhile takes effect later."""
    package = tmp_path / "entrypoint"
    shutil.copytree(Path(entrypoint.__file__).parent, package)
    supervisor = package / "init" / "supervisor.py"
    failing = "import os\nimport posix\nif not os.path.exists({!r}):\n    raise ImportError('not yet')\n"
    repaired = tmp_path / "repaired"
    source = supervisor.read_text()
    supervisor.write_text(source.replace("import posix\n", failing.format(str(repaired)), 1))
    agent = actor(tmp_path / "events.jsonl", "agent", "on('TERM', lambda: leave(3)); ready()")
    init = start(*agent, program=[sys.executable, "-I", "-S", str(package / "__main__.py")])
    init.wait_for_event("ready")
    process = psutil.Process(init.pid)
    before = process.num_ctx_switches().voluntary
    init.signal("TERM")
    until(lambda: process.num_ctx_switches().voluntary > before + 3, "several tries")
    assert init.events() == ["ready"]
    repaired.touch()
    assert init.wait() == 3
    assert init.events() == ["ready", "TERM", "end"]


def test_exit_code_survives_many_signals_and_exits_at_once(start_in_role: Start) -> None:
    """Forwarded signals, orphans and exits all at once."""
    agent = """
seen = [0]
on('TERM', lambda: leave(9))
signal.signal(signal.SIGUSR1, lambda *_: seen.__setitem__(0, seen[0] + 1))
log('ready')
for _ in range(150):
    if (pid := os.fork()) == 0:
        os.fork()
        os._exit(0)
    os.waitpid(pid, 0)
log('done', seen=seen[0])
forever()
"""
    init = start_in_role("-t", "20s", agent=agent)
    init.wait_for_event("ready")
    for _ in range(3000):
        init.signal("USR1")
        init.signal("WINCH")
    init.wait_for_event("done")
    init.signal("TERM")
    assert init.wait() == 9
    assert not init.lines("unexpected")


WITHOUT_SIGNALFD = """
import _signal, os, sys
_signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
sys.path.insert(0, {package!r})
from entrypoint import start
from entrypoint.init import libc

def refused(name, *_):
    raise OSError(f"{{name}} cannot be called")

libc.call = refused
os._exit(start.main(sys.argv[1:], {package!r}))
"""


def test_python_signal_handlers_are_used_without_signalfd(start: Start, tmp_path: Path) -> None:
    """As in a sandbox without this system call, or on macOS."""
    script = tmp_path / "agent-init"
    script.write_text(WITHOUT_SIGNALFD.format(package=str(Path(entrypoint.__file__).parents[1])))
    agent = "on('USR1'); on('TERM', lambda: leave(4, after=0.5)); ready()"
    init = start("-t", "20s", agent=agent, program=[sys.executable, "-I", "-S", str(script)])
    init.wait_for_event("ready")
    init.signal("USR1")
    init.wait_for_event("USR1")
    init.signal("USR2")
    init.wait_for_line("USR2 from an unknown sender dropped")
    init.signal("TERM")
    init.wait_for_event("TERM")
    init.signal("TERM")
    assert init.wait() == 4
    assert init.events() == ["ready", "USR1", "TERM", "end"]

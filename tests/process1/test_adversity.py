"""When the machine does not play along: the deadline is kept, and the end is told."""

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

LATE = 0.5
STUBBORN = "on('TERM'); ready()"

# In the namespace: /proc of another PID namespace (that below the one that unshare mounted), and none at all.
WRONG_PROC = ["sh", "-c", 'umount /proc; exec "$@"', "sh"]
NO_PROC = ["sh", "-c", 'mount -t tmpfs none /proc; exec "$@"', "sh"]


@pytest.mark.parametrize("before", [WRONG_PROC, NO_PROC], ids=["wrong /proc", "no /proc"])
def test_without_a_proc_of_its_own_the_agent_is_stopped_on_time(start: Start, before: list[str]) -> None:
    init = start("-t", "1s", agent=f"child('heir', {STUBBORN!r}); {STUBBORN}", before=before)
    init.event("ready")
    init.event("ready", "heir")
    asked = time.monotonic()
    init.signal("TERM")
    assert init.wait() == 137
    assert 1.0 <= time.monotonic() - asked < 1.0 + LATE
    assert init.events() == ["ready", "TERM"]
    assert init.events("heir") == ["ready"]


@pytest.mark.parametrize("before", [WRONG_PROC, NO_PROC], ids=["wrong /proc", "no /proc"])
def test_without_a_proc_survivors_still_get_the_stop_signal(start: Start, before: list[str]) -> None:
    heir = "on('TERM', lambda: leave(0, after=0.3)); ready()"
    init = start(agent=f"child('heir', {heir!r}); on('USR1', lambda: leave(5)); ready()", before=before)
    init.event("ready")
    init.event("ready", "heir")
    init.signal("USR1")
    assert init.wait() == 5
    assert init.events("heir") == ["ready", "TERM", "end"]


LIMITS = {
    "no memory": (resource.RLIMIT_AS, 1),
    "no descriptors": (resource.RLIMIT_NOFILE, 0),
    "no file can grow": (resource.RLIMIT_FSIZE, 0),
    "no processes": (resource.RLIMIT_NPROC, 0),
}


@pytest.mark.parametrize("limit", LIMITS)
def test_the_deadline_is_kept_with_nothing_left_to_use(started: Start, limit: str) -> None:
    init = started("-t", "1s", agent=f"child('heir', {STUBBORN!r}); {STUBBORN}")
    init.event("ready")
    init.event("ready", "heir")
    init.said("started")
    what, most = LIMITS[limit]
    resource.prlimit(init.pid, what, (most, resource.prlimit(init.pid, what)[1]))
    asked = time.monotonic()
    init.signal("TERM")
    assert init.wait() == 137
    assert 1.0 <= time.monotonic() - asked < 1.0 + LATE
    assert init.events() == ["ready", "TERM"]


def test_a_deadline_that_passed_while_process_1_was_stopped_is_made_up_for(started: Start) -> None:
    init = started("-t", "500ms", agent=STUBBORN)
    init.event("ready")
    init.signal("TERM")
    init.event("TERM")
    os.kill(init.pid, signal.SIGSTOP)
    time.sleep(0.8)  # what passes here is the deadline
    os.kill(init.pid, signal.SIGCONT)
    assert init.wait(5) == 137


def test_a_failing_import_is_tried_again(start: Start, tmp_path: Path) -> None:
    """The supervisor cannot be imported at first; a stop request that comes meanwhile is acted on after all."""
    package = tmp_path / "entrypoint"
    shutil.copytree(Path(entrypoint.__file__).parent, package)
    supervisor = package / "init" / "supervisor.py"
    late = "import os\nif not os.path.exists({!r}):\n    raise ImportError('not yet')\n"
    healed = tmp_path / "healed"
    source = supervisor.read_text()
    supervisor.write_text(source.replace("import os\n", late.format(str(healed)), 1))
    agent = actor(tmp_path / "events.jsonl", "agent", "on('TERM', lambda: leave(3)); ready()")
    init = start(*agent, program=[sys.executable, "-I", "-S", str(package / "__main__.py")])
    init.event("ready")
    init.signal("TERM")
    until(lambda: psutil.Process(init.pid).num_ctx_switches().voluntary > 20, "several tries")
    assert init.events() == ["ready"]
    healed.touch()
    assert init.wait() == 3
    assert init.events() == ["ready", "TERM", "end"]


def test_a_storm_of_signals_and_exits(started: Start) -> None:
    """Forwarded signals, orphans and exits all at once: the order of things and the exit code survive."""
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
    init = started("-t", "20s", agent=agent)
    init.event("ready")
    for _ in range(3000):
        init.signal("USR1")
        init.signal("WINCH")
    init.event("done")
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


def test_without_signalfd_pythons_own_handlers_do(start: Start, tmp_path: Path) -> None:
    """As in a sandbox that does not know the call, or on macOS."""
    script = tmp_path / "agent-init"
    script.write_text(WITHOUT_SIGNALFD.format(package=str(Path(entrypoint.__file__).parents[1])))
    agent = "on('USR1'); on('TERM', lambda: leave(4, after=0.5)); ready()"
    init = start("-t", "20s", agent=agent, program=[sys.executable, "-I", "-S", str(script)])
    init.event("ready")
    init.signal("USR1")
    init.event("USR1")
    init.signal("USR2")
    init.said("USR2 from somebody dropped")
    init.signal("TERM")
    init.event("TERM")
    init.signal("TERM")
    assert init.wait() == 4
    assert init.events() == ["ready", "USR1", "TERM", "end"]

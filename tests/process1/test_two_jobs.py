"""One stop signal for each: jobs of a shell, a shell that is left behind, members of a group, a main process."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.init import actor_line

if TYPE_CHECKING:
    from tests.conftest import Start
    from tests.support.init import Init

LINGER = ("--linger", "200ms")  # too short for a drain
DRAINS = "on('TERM', lambda: leave(7, after=1)); ready()"
LEAVES = "on('TERM', lambda: leave(3)); ready()"
STAYS = "on('TERM'); ready()"
PLAIN = "try: log('ready'); time.sleep(90)\nfinally: log('cleaned')"
# A program that handles INT, and would die of TERM.
INTERRUPTED = "on('INT'); ready()"


def stop(init: Init, *names: str) -> tuple[int, float]:
    """The exit code, and the seconds from the stop request to the end."""
    for name in names:
        init.wait_for_event("ready", name)
    time.sleep(0.1)  # the shell has come to wait for it
    asked = time.monotonic()
    init.signal("TERM")
    return init.wait(), time.monotonic() - asked


def note(name: str) -> str:
    """A command that logs an event of an actor of this name."""
    return actor_line(name, "log('ran')")


# --- A shell that signals its jobs. ---------------------------------------------------------------------------------

TWO_JOBS = (
    f"trap 'kill -TERM $a $b' TERM; {actor_line('a', DRAINS)} & a=$!; {actor_line('b', LEAVES)} & b=$!; "
    "wait $a; wait $b"
)


@pytest.mark.parametrize("how", ["an argument", "a file"])
def test_the_other_of_two_jobs_gets_one_signal_and_drains(start_in_role: Start, tmp_path: Path, how: str) -> None:
    """The trap interrupts `wait $a`, so the shell waits for b only."""
    if how == "a file":
        (tmp_path / "entrypoint.sh").write_text(TWO_JOBS + "\n")
    command = ["bash", str(tmp_path / "entrypoint.sh")] if how == "a file" else ["bash", "-c", TWO_JOBS + "; exit $?"]
    init = start_in_role("-t", "20s", *LINGER, command=command)
    code, seconds = stop(init, "a", "b")
    assert code == 3
    assert 1 <= seconds < 5
    assert init.events("a") == init.events("b") == ["ready", "TERM", "end"]
    assert init.lines("is likely to have passed the signal on to python")


# --- A shell that is left behind. -----------------------------------------------------------------------------------


def test_the_trap_of_a_shell_that_is_left_behind_runs(start_in_role: Start) -> None:
    """It runs only after the work in its foreground, so that is signalled too."""
    work = actor_line("work", "on('TERM', lambda: leave(0, after=0.3)); ready()")
    trap = shlex.quote(f"{note('trap')}; exit 0")
    script = f"trap {trap} TERM; {work}; {note('next')}"
    agent = (
        f"import subprocess; subprocess.Popen(['bash', '-c', {script!r}]); "
        "on('TERM', lambda: leave(5, after=0.3)); ready()"
    )
    init = start_in_role("-t", "20s", "--linger", "15s", agent=agent)
    code, seconds = stop(init, "work", "agent")
    assert code == 5
    assert seconds < 10
    assert init.events() == init.events("work") == ["ready", "TERM", "end"]
    assert init.wait_for_event("TERM", "work")["t"] >= init.wait_for_event("end")["t"]
    assert init.events("trap") == ["ran"]
    assert init.events("next") == []


def test_the_work_of_a_shell_waits_with_it_below_a_pool_that_is_left_behind(start_in_role: Start) -> None:
    worker = actor_line("worker", "on('TERM', lambda: leave(0)); ready()")
    script = f"trap 'exit 0' TERM; {worker}; exit 1"
    pool = (
        f"import subprocess; subprocess.Popen(['bash', '-c', {script!r}]); "
        "on('TERM', lambda: leave(0, after=0.7)); ready()"
    )
    agent = f"child('pool', {pool!r}); on('TERM', lambda: leave(5)); ready()"
    init = start_in_role("-t", "20s", "--linger", "15s", agent=agent)
    assert stop(init, "worker", "pool", "agent")[0] == 5
    assert init.events("pool") == init.events("worker") == ["ready", "TERM", "end"]
    assert init.wait_for_event("TERM", "worker")["t"] >= init.wait_for_event("end", "pool")["t"]


# --- A process group with --target group. ---------------------------------------------------------------------------


def test_each_member_of_a_group_gets_int_or_term(start_in_role: Start) -> None:
    init = start_in_role("-t", "20s", "-g", agent=f"child('member', {DRAINS!r})\n{PLAIN}")
    code, _ = stop(init, "member", "agent")
    assert code == 130
    assert init.events() == ["ready", "cleaned"]
    assert init.events("member") == ["ready", "TERM", "end"]


@pytest.mark.parametrize("name", ["Xvfb", "dbus-daemon", "redis-server", "chromium"])
def test_display_or_store_is_stopped_after_the_program_that_uses_it(
    start_in_role: Start, tmp_path: Path, name: str
) -> None:
    """The program needs it for its drain."""
    program = tmp_path / name
    program.symlink_to(Path(sys.executable).resolve())
    server = actor_line("server", "on('TERM', leave); ready()").replace(sys.executable, str(program), 1)
    agent = actor_line("agent", "on('TERM', lambda: leave(7, after=0.5)); ready()")
    init = start_in_role("-t", "20s", command=["--", "bash", "-c", f"{server} & {agent}; exit $?"])
    init.wait_for_event("ready", "server")
    init.wait_for_event("ready")
    init.signal("TERM")
    assert init.wait() == 7
    assert init.events() == ["ready", "TERM", "end"]
    assert init.events("server") == ["ready", "TERM", "end"]
    assert init.records("server", "TERM")[0]["t"] > init.records("agent", "end")[0]["t"]


def test_only_the_agent_gets_the_last_term_of_a_group(start_in_role: Start) -> None:
    """The TERM 2 s before the KILL is for those that got INT in its place."""
    init = start_in_role("-t", "4s", "-g", *LINGER, agent=f"child('member', {STAYS!r}); {INTERRUPTED}")
    code, seconds = stop(init, "member", "agent")
    assert code == 137, "the member stays"
    assert seconds >= 4
    assert init.lines("the agent was killed by SIGTERM")
    assert init.events() == ["ready", "INT"]
    assert init.events("member") == ["ready", "TERM"]


# --- A main process that the agent names. ---------------------------------------------------------------------------


def test_a_successor_that_is_named_during_the_stop_gets_int_if_it_prefers_that(start_in_role: Start) -> None:
    agent = f"""
def replace():
    pid = child("new", {PLAIN!r})
    while '"name": "new", "event": "ready"' not in open(LOG).read():
        time.sleep(0.01)
    time.sleep(0.1)
    notify("MAINPID=%d" % pid)
    leave(0)
on("TERM", replace)
ready()
"""
    init = start_in_role("-t", "20s", agent=agent)
    assert stop(init, "agent")[0] == 130
    assert init.wait_for_line("is the agent now")
    assert init.events() == ["ready", "TERM", "end"]
    assert init.events("new") == ["ready", "cleaned"]


@pytest.mark.parametrize("line", ["STORE & AGENT", "STORE & AGENT; exit $?", "AGENT & STORE", "STORE & AGENT & wait"])
def test_data_store_has_the_rest_of_the_grace(start_in_role: Start, tmp_path: Path, line: str) -> None:
    """It may have to save its data."""
    program = tmp_path / "redis-server"
    program.symlink_to(Path(sys.executable).resolve())
    store = actor_line("store", DRAINS).replace(sys.executable, str(program), 1)
    line = line.replace("AGENT", actor_line("agent", LEAVES)).replace("STORE", store)
    init = start_in_role("-t", "20s", *LINGER, command=["--", "bash", "-c", line])
    stop(init, "store", "agent")
    assert init.events() == ["ready", "TERM", "end"]
    assert init.events("store") == ["ready", "TERM", "end"]
    assert init.records("store", "TERM")[0]["t"] > init.records("agent", "end")[0]["t"]


@pytest.mark.parametrize("line", ["tail -f /dev/null & STORE", "STORE; exit $?"])
def test_data_store_that_is_the_only_program_is_signalled_itself(
    start_in_role: Start, tmp_path: Path, line: str
) -> None:
    program = tmp_path / "redis-server"
    program.symlink_to(Path(sys.executable).resolve())
    store = actor_line("store", DRAINS).replace(sys.executable, str(program), 1)
    init = start_in_role("-t", "20s", *LINGER, command=["--", "bash", "-c", line.replace("STORE", store)])
    assert stop(init, "store")[0] == 7
    assert init.events("store") == ["ready", "TERM", "end"]


def test_a_shell_that_stays_beside_its_main_process_is_stopped_soon_after_it(start_in_role: Start) -> None:
    main = "notify('MAINPID=%d' % os.getpid()); on('TERM', lambda: leave(0, after=0.5)); ready()"
    script = f"{actor_line('main', main)} & tail -f /dev/null"
    init = start_in_role("-t", "20s", "--notify-access", "all", command=["--", "sh", "-c", script])
    init.wait_for_line("main process is")
    _, seconds = stop(init, "main")
    assert 0.5 <= seconds < 8
    assert init.events("main") == ["ready", "TERM", "end"]

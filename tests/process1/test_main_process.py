"""The process that the agent names as its main one (MAINPID=): it is signalled in its place, and succeeds it."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support.init import until

if TYPE_CHECKING:
    from tests.conftest import Start


def test_the_main_process_is_stopped_and_lives_on_in_the_agents_place(started: Start) -> None:
    """As a server that replaces itself: the old one names the new one and ends."""
    new = "on('TERM', lambda: leave(8)); log('up'); tell('READY=1'); ready()"
    agent = f"""
on("TERM", lambda: leave(1))
tell("MAINPID=%d" % child("new", {new!r}))
while not os.path.exists(LOG + ".go"):
    time.sleep(0.01)
leave(0)
"""
    init = started(agent=agent)
    init.event("ready", "new")
    Path(f"{init.log}.go").touch()
    assert init.said("is the agent now")
    init.signal("TERM")
    assert init.wait() == 8
    assert init.events("new") == ["up", "ready", "TERM", "end"]
    assert "TERM" not in init.events()


def test_while_both_are_there_the_main_process_gets_the_stop_signal(started: Start) -> None:
    agent = """
on("TERM", lambda: leave(1))
pid = child("new", "on('TERM', leave); ready()")
tell("MAINPID=%d" % pid)
os.waitpid(pid, 0)
leave(5)
"""
    init = started(agent=agent)
    init.event("ready", "new")
    init.said("main process is")
    init.signal("TERM")
    assert init.wait() == 5
    assert "TERM" not in init.events()


def test_a_stranger_cannot_be_named_as_main(started: Start) -> None:
    init = started(
        agent="[tell(f'MAINPID={pid}') for pid in (1, os.getppid(), 99999999, 0)]; on('TERM', leave); ready()"
    )
    init.event("ready")
    assert init.said("MAINPID=99999999 is no descendant of the agent")
    init.signal("TERM")
    assert init.wait() == 0
    assert not init.lines("main process is")


def test_a_main_process_that_has_ended_does_not_count(started: Start) -> None:
    """Nor where its parent has not noticed yet."""
    agent = """
pid = child("new", "log('end')")
tell("MAINPID=%d" % pid)
on("TERM", lambda: leave(4))
os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
ready()
"""
    init = started("-t", "20s", agent=agent)
    init.event("ready")
    init.signal("TERM")
    assert init.wait() == 4


# It names a child, which handles TERM and what else is said here.
NAMING = """
pid = child("new", "{handlers}; on('TERM', lambda: leave(3)); ready()")
tell("MAINPID=%d" % pid)
on('USR1')
on('TERM')
log("named")
os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.parametrize("options", [[], ["-v"]], ids=["", "verbose"])
def test_what_it_handles_is_forwarded_to_it(started: Start, options: list[str]) -> None:
    init = started(*options, agent=NAMING.format(handlers="on('USR1')"))
    init.event("ready", "new")
    init.said("main process is")
    init.signal("USR1")
    init.event("USR1", "new")
    init.signal("TERM")
    assert init.wait() == 3
    assert init.events() == ["named"]
    assert init.lines("the agent has named its main process; TERM sent to python")


@pytest.mark.parametrize("options", [[], ["-v"]], ids=["", "verbose"])
def test_what_it_does_not_handle_does_not_end_it(started: Start, options: list[str]) -> None:
    init = started(*options, agent=NAMING.format(handlers="pass"))
    init.event("ready", "new")
    init.said("main process is")
    init.signal("USR1")
    init.said("dropped: nobody handles it")
    init.signal("HUP")
    assert init.wait() == 3
    assert init.events("new") == ["ready", "TERM", "end"]
    assert init.said("stop requested by HUP")


def test_it_is_told_once(started: Start) -> None:
    agent = NAMING.format(handlers="pass").replace('log("named")', 'tell("MAINPID=%d" % pid); tell("READY=1")')
    init = started(agent=agent)
    init.event("ready", "new")
    init.said("is ready")
    assert len(init.lines("main process is")) == 1
    init.signal("TERM")
    assert init.wait() == 3


# The agent, at USR1, names its child and ends, which process 1 is to find both at once.
AT_ONCE = """
pid = child("new", "on('USR2', lambda: leave(6)); on('TERM', lambda: leave(8)); ready()")

def end():
    tell("MAINPID=%d" % pid)
    leave(5)

on('USR1', end)
ready()
"""


def pids(init_pid: int) -> tuple[int, int]:
    """Of the agent and of its child."""
    [agent] = psutil.Process(init_pid).children()
    return agent.pid, agent.children()[0].pid


def is_zombie(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def while_stopped(pid: int, *sent: tuple[int, signal.Signals]) -> None:
    """Send signals to processes that end by them, while `pid` can notice nothing."""
    os.kill(pid, signal.SIGSTOP)
    until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, "process 1 to be stopped")
    for receiver, number in sent:
        os.kill(receiver, number)
        until(partial(is_zombie, receiver), "a zombie")
    os.kill(pid, signal.SIGCONT)


def test_named_with_the_last_words(started: Start) -> None:
    """As a server that goes into the background: its parent has ended before anybody looks."""
    init = started("-t", "20s", agent=AT_ONCE)
    init.event("ready")
    init.event("ready", "new")
    agent, _ = pids(init.pid)
    while_stopped(init.pid, (agent, signal.SIGUSR1))
    assert init.said("is the agent now")
    init.signal("TERM")
    assert init.wait() == 8


def test_a_daemon_can_be_named(started: Start) -> None:
    """Its parent, a child of the agent, has ended: by then it is a child of ours."""
    daemon = "on('TERM', lambda: leave(8)); tell('MAINPID=%d' % os.getpid()); ready()"
    init = started("-t", "20s", agent=f"orphan('new', {daemon!r}); on('USR1', lambda: leave(5)); ready()")
    init.event("ready")
    init.event("ready", "new")
    assert init.said("main process is")
    init.signal("CONT")
    [agent] = [int(record["pid"]) for record in init.records("agent", "ready")]
    if not init.process1:
        os.kill(agent, signal.SIGUSR1)
    else:
        [inner] = [p.pid for p in psutil.Process(init.pid).children() if p.cmdline()[-2] == "agent"]
        os.kill(inner, signal.SIGUSR1)
    assert init.said("is the agent now")
    init.signal("TERM")
    assert init.wait() == 8


def test_named_during_the_stop_it_is_stopped_as_well(started: Start) -> None:
    agent = AT_ONCE.replace("on('USR1', end)", "on('TERM', end)")
    init = started("-t", "20s", agent=agent)
    init.event("ready")
    init.event("ready", "new")
    init.signal("TERM")
    assert init.wait() == 8
    assert init.events("new") == ["ready", "TERM", "end"]


def test_with_a_group_as_target_the_successors_is_signalled(started: Start) -> None:
    init = started("-g", "-t", "20s", agent=AT_ONCE.replace("on('USR2'", "on('RTMIN+1'); on('USR2'"))
    init.event("ready")
    init.event("ready", "new")
    agent, _ = pids(init.pid)
    os.kill(agent, signal.SIGUSR1)
    init.said("is the agent now")
    init.signal("RTMIN+1")
    init.event("RTMIN+1", "new")
    init.signal("TERM")
    assert init.wait() == 8


def test_the_agent_that_speaks_again_is_who_was_heard_of_last(started: Start) -> None:
    """A helper that said READY once does not get the ABRT that is for the agent."""
    agent = """
helper = child("helper", "tell('READY=1'); log('told'); ready()")
on('ABRT', lambda: leave(9))
on('USR1', lambda: tell('WATCHDOG=1'))
ready()
"""
    init = started("--watchdog", "700ms", "-t", "20s", agent=agent)
    init.event("ready")
    init.event("told", "helper")
    init.said("is ready")
    init.signal("USR1")
    assert init.wait() == 9
    assert init.events("helper") == ["told", "ready"]

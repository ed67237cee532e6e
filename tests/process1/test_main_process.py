"""The main process that the agent names with MAINPID= is signalled instead of the agent, and succeeds it."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support.init import until
from tests.support.proc import children_of

if TYPE_CHECKING:
    from tests.conftest import Start
    from tests.support.init import Init


def test_main_process_succeeds_an_agent_that_exits(start_in_role: Start) -> None:
    """As a server that replaces itself: the old process names the new one and exits."""
    new = "on('TERM', lambda: leave(8)); log('up'); notify('READY=1'); ready()"
    agent = f"""
on("TERM", lambda: leave(1))
notify("MAINPID=%d" % child("new", {new!r}))
while not os.path.exists(LOG + ".go"):
    time.sleep(0.01)
leave(0)
"""
    init = start_in_role(agent=agent)
    init.wait_for_event("ready", "new")
    Path(f"{init.log}.go").touch()
    assert init.wait_for_line("is the agent now")
    init.signal("TERM")
    assert init.wait() == 8
    assert init.events("new") == ["up", "ready", "TERM", "end"]
    assert "TERM" not in init.events()


def test_stop_signal_goes_to_the_main_process_and_not_to_the_agent(start_in_role: Start) -> None:
    agent = """
on("TERM", lambda: leave(1))
pid = child("new", "on('TERM', leave); ready()")
notify("MAINPID=%d" % pid)
os.waitpid(pid, 0)
leave(5)
"""
    init = start_in_role(agent=agent)
    init.wait_for_event("ready", "new")
    init.wait_for_line("main process is")
    init.signal("TERM")
    assert init.wait() == 5
    assert "TERM" not in init.events()


def test_process_that_is_no_descendant_is_refused_as_main_process(start_in_role: Start) -> None:
    init = start_in_role(
        agent="[notify(f'MAINPID={pid}') for pid in (1, os.getppid(), 99999999, 0)]; on('TERM', leave); ready()"
    )
    init.wait_for_event("ready")
    assert init.wait_for_line("MAINPID=99999999 is not a descendant of the agent")
    init.signal("TERM")
    assert init.wait() == 0
    assert not init.lines("main process is")


def test_main_process_that_has_exited_is_ignored(start_in_role: Start) -> None:
    """Even while it is a zombie."""
    agent = """
pid = child("new", "log('end')")
notify("MAINPID=%d" % pid)
on("TERM", lambda: leave(4))
os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
ready()
"""
    init = start_in_role("-t", "20s", agent=agent)
    init.wait_for_event("ready")
    init.signal("TERM")
    assert init.wait() == 4


# Names a child that handles TERM and the given signals.
NAMES_A_CHILD = """
pid = child("new", "{handlers}; on('TERM', lambda: leave(3)); ready()")
notify("MAINPID=%d" % pid)
on('USR1')
on('TERM')
log("named")
os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.parametrize("options", [[], ["-v"]], ids=["", "verbose"])
def test_signal_handled_by_the_main_process_is_forwarded_to_it(start_in_role: Start, options: list[str]) -> None:
    init = start_in_role(*options, agent=NAMES_A_CHILD.format(handlers="on('USR1')"))
    init.wait_for_event("ready", "new")
    init.wait_for_line("main process is")
    init.signal("USR1")
    init.wait_for_event("USR1", "new")
    init.signal("TERM")
    assert init.wait() == 3
    assert init.events() == ["named"]
    assert init.lines("the agent has named its main process; TERM sent to python")


@pytest.mark.parametrize("options", [[], ["-v"]], ids=["", "verbose"])
def test_signal_not_handled_by_the_main_process_is_not_sent_to_it(start_in_role: Start, options: list[str]) -> None:
    init = start_in_role(*options, agent=NAMES_A_CHILD.format(handlers="pass"))
    init.wait_for_event("ready", "new")
    init.wait_for_line("main process is")
    init.signal("USR1")
    init.wait_for_line("dropped: no process handles it")
    init.signal("HUP")
    assert init.wait() == 3
    assert init.events("new") == ["ready", "TERM", "end"]
    assert init.wait_for_line("stop requested by HUP")


def test_repeated_mainpid_is_logged_once(start_in_role: Start) -> None:
    agent = NAMES_A_CHILD.format(handlers="pass").replace(
        'log("named")', 'notify("MAINPID=%d" % pid); notify("READY=1")'
    )
    init = start_in_role(agent=agent)
    init.wait_for_event("ready", "new")
    init.wait_for_line("is ready")
    assert len(init.lines("main process is")) == 1
    init.signal("TERM")
    assert init.wait() == 3


# On USR1 the agent names its child and exits; process 1 sees both at the same time.
NAMES_A_CHILD_AND_EXITS = """
pid = child("new", "on('USR2', lambda: leave(6)); on('TERM', lambda: leave(8)); ready()")

def end():
    notify("MAINPID=%d" % pid)
    leave(5)

on('USR1', end)
ready()
"""


def pids(init: Init) -> tuple[int, int]:
    """The pids of the agent and of its child."""
    [agent] = children_of(init)
    return agent.pid, agent.children()[0].pid


def is_zombie(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def while_stopped(pid: int, *sent: tuple[int, signal.Signals]) -> None:
    """Kill processes with these signals while `pid` is stopped."""
    os.kill(pid, signal.SIGSTOP)
    until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, "process 1 to be stopped")
    for receiver, number in sent:
        os.kill(receiver, number)
        until(partial(is_zombie, receiver), "a zombie")
    os.kill(pid, signal.SIGCONT)


def test_mainpid_sent_just_before_the_agent_exits_takes_effect(start_in_role: Start) -> None:
    """As a server that goes into the background: its parent has exited before process 1 reads the message."""
    init = start_in_role("-t", "20s", agent=NAMES_A_CHILD_AND_EXITS)
    init.wait_for_event("ready")
    init.wait_for_event("ready", "new")
    agent, _ = pids(init)
    while_stopped(init.pid, (agent, signal.SIGUSR1))
    assert init.wait_for_line("is the agent now")
    init.signal("TERM")
    assert init.wait() == 8


def test_daemon_can_be_the_main_process(start_in_role: Start) -> None:
    """Its parent, a child of the agent, has exited, so it is a child of agent-init."""
    daemon = "on('TERM', lambda: leave(8)); notify('MAINPID=%d' % os.getpid()); ready()"
    options = ("-t", "20s", "--notify-access", "all")
    init = start_in_role(*options, agent=f"orphan('new', {daemon!r}); on('USR1', lambda: leave(5)); ready()")
    init.wait_for_event("ready")
    init.wait_for_event("ready", "new")
    assert init.wait_for_line("main process is")
    init.signal("CONT")
    [agent] = [int(record["pid"]) for record in init.records("agent", "ready")]
    if not init.process1:
        os.kill(agent, signal.SIGUSR1)
    else:
        [inner] = [p.pid for p in psutil.Process(init.pid).children() if p.cmdline()[-2] == "agent"]
        os.kill(inner, signal.SIGUSR1)
    assert init.wait_for_line("is the agent now")
    init.signal("TERM")
    assert init.wait() == 8


def test_mainpid_sent_during_a_stop_is_stopped_too(start_in_role: Start) -> None:
    agent = NAMES_A_CHILD_AND_EXITS.replace("on('USR1', end)", "on('TERM', end)")
    init = start_in_role("-t", "20s", agent=agent)
    init.wait_for_event("ready")
    init.wait_for_event("ready", "new")
    init.signal("TERM")
    assert init.wait() == 8
    assert init.events("new") == ["ready", "TERM", "end"]


def test_group_of_the_successor_is_signalled(start_in_role: Start) -> None:
    init = start_in_role(
        "-g", "-t", "20s", agent=NAMES_A_CHILD_AND_EXITS.replace("on('USR2'", "on('RTMIN+1'); on('USR2'")
    )
    init.wait_for_event("ready")
    init.wait_for_event("ready", "new")
    agent, _ = pids(init)
    os.kill(agent, signal.SIGUSR1)
    init.wait_for_line("is the agent now")
    init.signal("RTMIN+1")
    init.wait_for_event("RTMIN+1", "new")
    init.signal("TERM")
    assert init.wait() == 8


def test_abrt_goes_to_the_last_sender_of_a_watchdog_message(start_in_role: Start) -> None:
    """A helper that once sent READY=1 does not get the agent's ABRT."""
    agent = """
helper = child("helper", "notify('READY=1'); log('sent'); ready()")
on('ABRT', lambda: leave(9))
on('USR1', lambda: notify('WATCHDOG=1'))
ready()
"""
    init = start_in_role("--watchdog", "700ms", "-t", "20s", "--notify-access", "all", agent=agent)
    init.wait_for_event("ready")
    init.wait_for_event("sent", "helper")
    init.wait_for_line("is ready")
    init.signal("USR1")
    assert init.wait() == 9
    assert init.events("helper") == ["sent", "ready"]

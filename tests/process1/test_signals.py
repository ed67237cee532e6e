"""Which signal reaches whom: translation, targets, the shield, the terminal's own signals."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support.init import actor_line, until

if TYPE_CHECKING:
    from tests.conftest import Start

GRACEFUL = "on('TERM', lambda: leave(7, after=0.2)); ready()"


# --- Forwarding. ---


def test_a_handled_signal_is_forwarded(started: Start) -> None:
    names = ["HUP", "QUIT", "USR1", "USR2", "ALRM", "PIPE", "WINCH", "URG", "CONT", "TSTP", "TTIN", "TTOU", "IO", "PWR"]
    init = started("-t", "20s", agent=f"[on(n) for n in {names}]; on('TERM', lambda: leave(0)); ready()")
    init.event("ready")
    for name in names:
        init.signal(name)
        init.event(name)
    init.signal("TERM")
    assert init.wait() == 0
    # The agent gets a CONT of its own with the stop signal.
    assert init.events()[1 : len(names) + 1] == names


def test_real_time_signals_are_forwarded_each_of_them_and_can_be_named(started: Start) -> None:
    # Python's handlers coalesce; what the interpreter writes to a wake-up descriptor does not.
    agent = """
on('RTMIN+3'); on('RTMAX+-1'); on('TERM', lambda: leave(0))
reader, writer = os.pipe()
os.set_blocking(writer, False)
signal.set_wakeup_fd(writer)
log('ready')
for count in range(20):
    assert os.read(reader, 1)[0] == number('RTMIN+3')
log('twenty')
forever()
"""
    init = started("--stop-on", "TERM,RTMIN+5", "-r", "RTMIN+4:RTMAX-1", agent=agent)
    init.event("ready")
    os.kill(init.pid, signal.SIGSTOP)  # so that they queue up
    for _ in range(20):
        init.signal("RTMIN+3")
    os.kill(init.pid, signal.SIGCONT)
    init.event("twenty")
    init.signal("RTMIN+4")
    init.event("RTMAX+-1")
    init.signal("RTMIN+5")
    assert init.wait() == 0
    assert "stop requested by RTMIN+5" in init.said("stop requested")


def test_signals_arrive_in_the_order_of_their_sending(started: Start) -> None:
    init = started("--stop-on", "none", agent="on('USR1'); on('USR2'); on('TERM', lambda: leave(0)); ready()")
    init.event("ready")
    sent = []
    for name in ("USR2", "USR1", "USR1", "USR2", "USR1"):
        sent.append(name)
        init.signal(name)
        init.wait_for(lambda: init.events()[1:] == sent, f"{sent}")
    init.signal("TERM")
    assert init.wait() == 0


def test_stop_and_tty_signals_do_not_stop_process_1(started: Start) -> None:
    init = started(agent="on('USR1'); on('TERM', lambda: leave(0)); ready()")
    init.event("ready")
    for name in ("TSTP", "TTIN", "TTOU"):
        init.signal(name)
    init.signal("USR1")
    init.event("USR1")
    assert psutil.Process(init.pid).status() != psutil.STATUS_STOPPED
    init.signal("TERM")
    assert init.wait() == 0
    assert len(init.lines("dropped: nobody handles it")) == 3


def test_stop_on_none_makes_a_pure_forwarder(started: Start) -> None:
    init = started("--stop-on", "none", "-t", "100ms", agent="on('TERM'); on('INT'); ready()")
    init.event("ready")
    for name in ("TERM", "INT"):
        init.signal(name)
        init.event(name)
    time.sleep(0.5)  # there is no deadline that could pass
    assert init.events() == ["ready", "TERM", "INT"]
    init.signal("QUIT")  # unhandled: its default action
    assert init.wait() == 131


def test_other_signals_can_be_the_stop_request(started: Start) -> None:
    init = started("--stop-on", "USR1", "-t", "20s", agent="on('INT'); on('TERM', lambda: leave(0)); ready()")
    init.event("ready")
    init.signal("INT")
    init.event("INT")
    init.signal("USR1")
    assert init.wait() == 0
    assert init.events() == ["ready", "INT", "TERM", "end"]


# --- The shield. ---


@pytest.mark.parametrize("name", ["USR1", "USR2", "ALRM", "IO", "PROF", "RTMIN+7"])
def test_a_signal_that_nobody_handles_is_dropped_with_a_warning(started: Start, name: str) -> None:
    init = started("-t", "20s", agent=GRACEFUL)
    init.event("ready")
    init.signal(name)
    assert f"warning: {name} from" in init.said("dropped")
    init.signal("TERM")
    assert init.wait() == 7


@pytest.mark.parametrize("name", ["HUP", "QUIT"])
def test_hup_and_quit_become_a_stop_request_where_nobody_handles_them(started: Start, name: str) -> None:
    init = started("-t", "20s", agent=GRACEFUL)
    init.event("ready")
    init.signal(name)
    assert init.wait() == 7
    assert init.events() == ["ready", "TERM", "end"]
    assert f"stop requested by {name}" in init.said("stop requested")


def test_an_ignored_signal_is_not_dropped_and_not_a_request(started: Start) -> None:
    init = started("-v", "-t", "20s", agent="ignore('HUP', 'USR1'); on('TERM', lambda: leave(0)); ready()")
    init.event("ready")
    for name in ("HUP", "USR1"):
        init.signal(name)
        init.said(f"{name} from")
    assert not init.lines("stop requested")
    assert not init.lines("dropped")
    init.signal("TERM")
    assert init.wait() == 0


def test_unhandled_signals_can_be_forwarded(started: Start) -> None:
    init = started("--unhandled", "forward", agent=GRACEFUL)
    init.event("ready")
    init.signal("USR1")
    assert init.wait() == 128 + signal.SIGUSR1


# --- Whom. ---


def shell_over(code: str, *, shell: str = "sh") -> list[str]:
    return [shell, "-c", f"{actor_line('real', code)}; exit $?"]


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "QUIT"])
def test_the_agent_behind_a_shell_is_reached(started: Start, shell: str, name: str) -> None:
    init = started("-t", "20s", command=shell_over(GRACEFUL, shell=shell))
    init.event("ready", "real")
    init.signal(name)
    assert init.wait() == 7
    assert init.events("real") == ["ready", "TERM", "end"]


def test_the_agent_behind_a_shell_gets_forwarded_signals(started: Start) -> None:
    init = started("-t", "20s", command=shell_over("on('USR1'); on('TERM', lambda: leave(0)); ready()"))
    init.event("ready", "real")
    init.signal("USR1")
    init.event("USR1", "real")
    init.signal("TERM")
    assert init.wait() == 0


def test_later_steps_of_the_schedule_go_where_the_first_one_went(started: Start) -> None:
    init = started("--stop-schedule", "TERM/300ms/ABRT/20s/KILL", command=shell_over("on('TERM'); ready()"))
    init.event("ready", "real")
    init.signal("TERM")
    assert init.wait() == 128 + signal.SIGABRT
    assert init.events("real") == ["ready", "TERM"]


def test_only_the_topmost_that_handle_it_are_signalled(started: Start) -> None:
    agent = "child('worker', \"on('TERM'); ready()\"); on('TERM', lambda: leave(0, after=0.3)); ready()"
    both = f"{actor_line('a', agent)} & {actor_line('b', agent)} & wait; wait; exit 3"
    init = started("-t", "20s", "--linger", "300ms", command=["sh", "-c", both])
    for name in ("a", "b"):
        init.event("ready", name)
    init.wait_for(lambda: len(init.records("worker", "ready")) == 2, "two workers")
    init.signal("TERM")
    assert init.wait() == 3
    for name in ("a", "b"):
        assert init.events(name) == ["ready", "TERM", "end"]
    ends = [record["t"] for name in ("a", "b") for record in init.records(name, "end")]
    workers = [record["t"] for record in init.records("worker", "TERM")]
    assert len(workers) == 2
    assert min(workers) >= max(ends), "the workers are not signalled before their parents are done"


@pytest.mark.parametrize("name", ["TERM", "RTMIN+2"])
def test_a_signal_that_the_agent_waits_for_without_a_handler_is_its_own(started: Start, name: str) -> None:
    agent = f"""
awaited = number('{name}')
child('pool', "on('{name}'); on('TERM'); ready()")
signal.pthread_sigmask(signal.SIG_BLOCK, [awaited])
log('ready')
assert signal.sigwait([awaited]) == awaited
log('awaited')
leave(6, after=0.2)
"""
    init = started("-t", "20s", "--linger", "100ms", agent=agent)
    init.event("ready")
    init.event("ready", "pool")
    init.signal(name)
    assert init.wait() == 6
    assert init.events() == ["ready", "awaited", "end"]
    assert all(record["t"] > init.event("end")["t"] for record in init.records("pool", "TERM"))


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_int_as_the_stop_signal_passes_through_a_shell(started: Start, shell: str) -> None:
    command = shell_over("on('INT', lambda: leave(7)); ready()", shell=shell)
    init = started("-t", "20s", "--stop-signal", "INT", command=command)
    init.event("ready", "real")
    init.signal("TERM")
    assert init.wait() == 7
    assert init.events("real") == ["ready", "INT", "end"]


def test_children_of_the_agent_are_left_alone(started: Start) -> None:
    init = started(
        "-t",
        "20s",
        agent="child('pool', \"on('TERM'); on('INT'); ready()\"); on('TERM', lambda: leave(0, after=0.5)); ready()",
    )
    init.event("ready", "pool")
    init.signal("TERM")
    ended = init.event("end")["t"]
    assert init.wait() in (0, 137)
    assert all(record["t"] >= ended for record in init.records("pool", "TERM"))
    assert init.records("pool", "TERM")


@pytest.mark.parametrize("flags", [["-g"], ["--target", "group"], ["-vvg"]])
def test_the_group_can_be_signalled(started: Start, flags: list[str]) -> None:
    pool = "on('TERM', lambda: leave(0)); ready()"
    init = started(
        *flags,
        "-t",
        "20s",
        agent=f"child('pool', {pool!r}); on('TERM', lambda: leave(0, after=0.5)); ready()",
    )
    init.event("ready", "pool")
    init.signal("TERM")
    assert init.wait() == 0
    assert init.events("pool") == ["ready", "TERM", "end"]
    assert init.event("end", "pool")["t"] < init.event("end")["t"]


@pytest.mark.parametrize("flag", ["-c", "--single-child", "--target=child"])
def test_the_child_alone_can_be_signalled(started: Start, flag: str) -> None:
    init = started(flag, "-t", "20s", command=shell_over("on('TERM', lambda: leave(0)); ready()"))
    init.event("ready", "real")
    init.signal("TERM")
    assert init.wait() == 143
    # What the shell left behind gets the stop signal as a survivor.
    assert init.events("real") == ["ready", "TERM", "end"]


def test_processes_entered_from_outside_are_not_signalled(start: Start) -> None:
    init = start("-t", "20s", agent="on('TERM', lambda: leave(0, after=0.7)); ready()", may_leave=True)
    agent = init.event("ready")
    code = "[on(n) for n in ('TERM', 'INT', 'HUP', 'CONT')]; on('USR1', lambda: leave(0)); ready()"
    line = actor_line("guest", code).replace("$EVENTS", str(init.log))
    guest = subprocess.Popen(["nsenter", "--target", str(init.pid), "--pid", "--mount", "sh", "-c", line])
    init.event("ready", "guest")
    init.signal("TERM")
    init.event("TERM")
    assert init.wait() == 0
    assert agent
    guest.wait(10)
    assert init.events("guest") == ["ready"]


# --- Who it was. ---


def test_the_sender_is_named(started: Start) -> None:
    init = started(
        "-t",
        "20s",
        agent="on('TERM', lambda: leave(0)); log('ready'); time.sleep(0.1); os.kill(os.getppid(), 15); forever()",
    )
    assert init.wait() == 0
    assert "stop requested by TERM from python3" in init.said("stop requested")


def test_a_sender_outside_of_the_namespace_is_told_as_such(start: Start) -> None:
    init = start("-t", "20s", agent=GRACEFUL)
    init.event("ready")
    init.signal("TERM")
    assert init.wait() == 7
    assert "TERM from outside the container" in init.said("stop requested")


def test_the_parents_death_can_stop_it(start: Start) -> None:
    """-p TERM: agent-init's own parent dies, agent-init takes it for a stop request."""
    init = start(
        "-p",
        "TERM",
        "-t",
        "20s",
        agent=GRACEFUL,
        process1=False,
        before=["sh", "-c", '"$@"; exit 0', "parent"],
        may_leave=True,
    )
    init.event("ready")
    os.kill(init.pid, signal.SIGKILL)
    init.event("end")
    until(lambda: not init.left(), "agent-init to end after its agent")
    assert init.events() == ["ready", "TERM", "end"]

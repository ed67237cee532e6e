"""Which process gets which signal: forwarding, translation, targets, and signals that nobody handles."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support.init import actor_line, until

if TYPE_CHECKING:
    from tests.conftest import Start
    from tests.support.init import Init

GRACEFUL = "on('TERM', lambda: leave(7, after=0.2)); ready()"


# --- Forwarding. ---


def test_handled_signal_is_forwarded(start_in_role: Start) -> None:
    names = ["HUP", "QUIT", "USR1", "USR2", "ALRM", "PIPE", "WINCH", "URG", "CONT", "TSTP", "TTIN", "TTOU", "IO"]
    init = start_in_role("-t", "20s", agent=f"[on(n) for n in {names}]; on('TERM', lambda: leave(0)); ready()")
    init.wait_for_event("ready")
    for name in names:
        init.signal(name)
        init.wait_for_event(name)
    init.signal("TERM")
    assert init.wait() == 0
    # With the stop signal the agent gets another CONT.
    assert init.events()[1 : len(names) + 1] == names


def test_every_queued_real_time_signal_is_forwarded(start_in_role: Start) -> None:
    # Python's handlers coalesce signals; the bytes written to the wake-up descriptor do not.
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
    init = start_in_role("--stop-on", "TERM,RTMIN+5", "-r", "RTMIN+4:RTMAX-1", agent=agent)
    init.wait_for_event("ready")
    os.kill(init.pid, signal.SIGSTOP)  # so that the signals queue up
    for _ in range(20):
        init.signal("RTMIN+3")
    os.kill(init.pid, signal.SIGCONT)
    init.wait_for_event("twenty")
    init.signal("RTMIN+4")
    init.wait_for_event("RTMAX+-1")
    init.signal("RTMIN+5")
    assert init.wait() == 0
    assert "stop requested by RTMIN+5" in init.wait_for_line("stop requested")


def test_signals_arrive_in_the_order_they_were_sent(start_in_role: Start) -> None:
    init = start_in_role("--stop-on", "none", agent="on('USR1'); on('USR2'); on('TERM', lambda: leave(0)); ready()")
    init.wait_for_event("ready")
    sent = []
    for name in ("USR2", "USR1", "USR1", "USR2", "USR1"):
        sent.append(name)
        init.signal(name)
        init.wait_for(lambda: init.events()[1:] == sent, f"{sent}")
    init.signal("TERM")
    assert init.wait() == 0


def test_stop_and_tty_signals_do_not_stop_process_1(start_in_role: Start) -> None:
    init = start_in_role(agent="on('USR1'); on('TERM', lambda: leave(0)); ready()")
    init.wait_for_event("ready")
    for name in ("TSTP", "TTIN", "TTOU"):
        init.signal(name)
    init.signal("USR1")
    init.wait_for_event("USR1")
    assert psutil.Process(init.pid).status() != psutil.STATUS_STOPPED
    init.signal("TERM")
    assert init.wait() == 0
    assert len(init.lines("dropped: no process handles it")) == 3


def test_stop_on_none_only_forwards(start_in_role: Start) -> None:
    init = start_in_role("--stop-on", "none", "-t", "100ms", agent="on('TERM'); on('INT'); ready()")
    init.wait_for_event("ready")
    for name in ("TERM", "INT"):
        init.signal(name)
        init.wait_for_event(name)
    time.sleep(0.5)  # longer than the grace, which does not apply
    assert init.events() == ["ready", "TERM", "INT"]
    init.signal("QUIT")  # unhandled: its default action
    assert init.wait() == 131


def test_stop_on_selects_the_stop_request(start_in_role: Start) -> None:
    init = start_in_role("--stop-on", "USR1", "-t", "20s", agent="on('INT'); on('TERM', lambda: leave(0)); ready()")
    init.wait_for_event("ready")
    init.signal("INT")
    init.wait_for_event("INT")
    init.signal("USR1")
    assert init.wait() == 0
    assert init.events() == ["ready", "INT", "TERM", "end"]


# --- Signals that nobody handles. ---


@pytest.mark.parametrize("name", ["USR1", "USR2", "ALRM", "IO", "PROF", "RTMIN+7"])
def test_unhandled_signal_is_dropped_with_a_warning(start_in_role: Start, name: str) -> None:
    init = start_in_role("-t", "20s", agent=GRACEFUL)
    init.wait_for_event("ready")
    init.signal(name)
    assert f"warning: {name} from" in init.wait_for_line("dropped")
    init.signal("TERM")
    assert init.wait() == 7


# posix_spawn(3) blocks all signals until the child has executed its program; here it has to open a FIFO first.
STARTS_A_PROGRAM = """
log('starts a program')
os.posix_spawn('/bin/true', ['true'], {{}}, file_actions=[(os.POSIX_SPAWN_OPEN, 0, {fifo!r}, os.O_RDONLY, 0)])
os.wait()
log('has started it')
forever()
"""


OLD = "while time.process_time() < 0.2: pass"


def starting(init: Init) -> psutil.Process:
    """Return the agent once it waits for its child's exec."""
    init.wait_for_event("starts a program")
    agent = psutil.Process(init.pid).children()[0]
    init.wait_for(lambda: agent.status() == psutil.STATUS_DISK_SLEEP, "vfork")
    return agent


@pytest.mark.parametrize("name", ["USR1", "RTMIN+7"])
@pytest.mark.parametrize("handled", [False, True])
def test_a_signal_that_comes_while_the_agent_starts_a_program(
    start_in_role: Start, tmp_path: Path, name: str, handled: bool
) -> None:
    """That it blocks all signals then does not show that it handles them."""
    os.mkfifo(tmp_path / "fifo")
    handlers = f"on('TERM', lambda: leave(7)); on({name!r}) if {handled} else None\n"
    init = start_in_role(agent=handlers + STARTS_A_PROGRAM.format(fifo=str(tmp_path / "fifo")))
    starting(init)
    init.signal(name)
    if not handled:
        init.wait_for_line("dropped: no process handles it")
    with open(tmp_path / "fifo", "w"):
        init.wait_for_event("has started it")
    if handled:
        init.wait_for_event(name)
    init.signal("TERM")
    assert init.wait() == 7


@pytest.mark.parametrize("before", ["", OLD], ids=["little processor time", "more"])
def test_a_stop_request_that_comes_while_the_agent_starts_a_program(
    start_in_role: Start, tmp_path: Path, before: str
) -> None:
    """TERM would end it without its `finally`. That it starts a program shows that it has started itself."""
    os.mkfifo(tmp_path / "fifo")
    agent = STARTS_A_PROGRAM.format(fifo=str(tmp_path / "fifo")).strip().replace("\n", "\n    ")
    init = start_in_role("-t", "20s", agent=f"{before}\ntry:\n    {agent}\nfinally:\n    log('finally')")
    starting(init)
    init.signal("TERM")
    init.wait_for_line("stop requested")
    with open(tmp_path / "fifo", "w"):
        init.wait_for_event("finally")
    init.wait()


def test_a_signal_that_comes_while_a_program_behind_a_shell_starts_another(
    start_in_role: Start, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")
    agent = "on('TERM', lambda: leave(7))\n" + STARTS_A_PROGRAM.format(fifo=str(tmp_path / "fifo"))
    init = start_in_role("-t", "20s", command=["--", "sh", "-c", f"{actor_line('agent', agent)}; exit $?"])
    init.wait_for_event("starts a program")
    below = psutil.Process(init.pid).children()[0]
    init.wait_for(lambda: any(p.status() == psutil.STATUS_DISK_SLEEP for p in below.children()), "vfork")
    init.signal("USR1")
    init.wait_for_line("dropped: no process handles it")
    with open(tmp_path / "fifo", "w"):
        init.wait_for_event("has started it")
    init.signal("TERM")
    assert init.wait() == 7


@pytest.mark.parametrize("shell", ["dash", "bash"])
@pytest.mark.parametrize("trap", [False, True])
def test_signals_for_a_shell_that_runs_one_program_after_the_other(
    start_in_role: Start, shell: str, trap: bool
) -> None:
    """It blocks all signals for each fork."""
    script = "trap 'echo USR1' USR1; " if trap else ""
    script += "trap 'exit 7' USR2; echo ready; while :; do /bin/true; done"
    init = start_in_role(command=["--", shell, "-c", script], stdout=subprocess.PIPE)
    assert init.outer.stdout is not None
    assert init.outer.stdout.readline() == b"ready\n"
    for count in range(1, 51):
        init.signal("USR1")
        if trap:
            assert init.outer.stdout.readline() == b"USR1\n"
        else:
            init.wait_for(lambda: len(init.lines("USR1")) == count, "a line")  # noqa: B023
    assert len(init.lines("dropped: no process handles it")) == (0 if trap else 50)
    init.signal("USR2")
    assert init.wait() == 7


@pytest.mark.parametrize(
    ("name", "options", "remedy"),
    [
        ("RTMIN+3", [], "--stop-on RTMIN+3,PWR,TERM,INT turns it into a stop request"),
        ("RTMIN+4", [], "--stop-on RTMIN+4,PWR,TERM,INT turns it into a stop request"),
        ("RTMIN+14", ["--stop-on", "USR1"], "--stop-on RTMIN+14,USR1 turns it into a stop request"),
        ("RTMIN+8", [], "--unhandled forward sends it anyway"),
        ("USR2", [], "--unhandled forward sends it anyway"),
    ],
)
def test_warning_about_a_dropped_signal_names_the_remedy(
    start_in_role: Start, name: str, options: list[str], remedy: str
) -> None:
    init = start_in_role("-t", "20s", *options, agent="on('TERM', lambda: leave(7)); ready()")
    init.wait_for_event("ready")
    init.signal(name)
    assert init.wait_for_line(f"{name} from").endswith(f"dropped: no process handles it ({remedy})")
    init.signal("USR1" if options else "TERM")
    assert init.wait() == 7


def test_the_remedy_in_the_warning_works(start_in_role: Start) -> None:
    """RTMIN+3 is the STOPSIGNAL of images that were made for systemd."""
    init = start_in_role("--stop-on", "RTMIN+3,PWR,TERM,INT", agent=GRACEFUL)
    init.wait_for_event("ready")
    init.signal("RTMIN+3")
    assert init.wait() == 7
    assert init.events() == ["ready", "TERM", "end"]


def test_pwr_is_a_stop_request(start_in_role: Start) -> None:
    """LXC halts a container with it."""
    init = start_in_role("-t", "20s", agent=GRACEFUL)
    init.wait_for_event("ready")
    init.signal("PWR")
    assert init.wait() == 7
    assert init.events() == ["ready", "TERM", "end"]
    assert "stop requested by PWR" in init.wait_for_line("stop requested")


@pytest.mark.parametrize("name", ["HUP", "QUIT"])
def test_unhandled_hup_and_quit_become_a_stop_request(start_in_role: Start, name: str) -> None:
    init = start_in_role("-t", "20s", agent=GRACEFUL)
    init.wait_for_event("ready")
    init.signal(name)
    assert init.wait() == 7
    assert init.events() == ["ready", "TERM", "end"]
    assert f"stop requested by {name}" in init.wait_for_line("stop requested")


def test_ignored_signal_is_neither_dropped_nor_a_stop_request(start_in_role: Start) -> None:
    init = start_in_role("-v", "-t", "20s", agent="ignore('HUP', 'USR1'); on('TERM', lambda: leave(0)); ready()")
    init.wait_for_event("ready")
    for name in ("HUP", "USR1"):
        init.signal(name)
        init.wait_for_line(f"{name} from")
    assert not init.lines("stop requested")
    assert not init.lines("dropped")
    init.signal("TERM")
    assert init.wait() == 0


def test_unhandled_signal_is_forwarded_with_unhandled_forward(start_in_role: Start) -> None:
    init = start_in_role("--unhandled", "forward", agent=GRACEFUL)
    init.wait_for_event("ready")
    init.signal("USR1")
    assert init.wait() == 128 + signal.SIGUSR1


# --- Recipients. ---


def shell_over(code: str, *, shell: str = "sh") -> list[str]:
    return [shell, "-c", f"{actor_line('real', code)}; exit $?"]


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "QUIT"])
def test_stop_signal_reaches_the_agent_behind_a_shell(start_in_role: Start, shell: str, name: str) -> None:
    init = start_in_role("-t", "20s", command=shell_over(GRACEFUL, shell=shell))
    init.wait_for_event("ready", "real")
    init.signal(name)
    assert init.wait() == 7
    assert init.events("real") == ["ready", "TERM", "end"]


def test_forwarded_signal_reaches_the_agent_behind_a_shell(start_in_role: Start) -> None:
    init = start_in_role("-t", "20s", command=shell_over("on('USR1'); on('TERM', lambda: leave(0)); ready()"))
    init.wait_for_event("ready", "real")
    init.signal("USR1")
    init.wait_for_event("USR1", "real")
    init.signal("TERM")
    assert init.wait() == 0


def test_later_steps_of_the_schedule_go_to_the_same_recipient(start_in_role: Start) -> None:
    init = start_in_role("--stop-schedule", "TERM/300ms/ABRT/20s/KILL", command=shell_over("on('TERM'); ready()"))
    init.wait_for_event("ready", "real")
    init.signal("TERM")
    assert init.wait() == 128 + signal.SIGABRT
    assert init.events("real") == ["ready", "TERM"]


def test_only_the_topmost_handlers_are_signalled(start_in_role: Start) -> None:
    agent = "child('worker', \"on('TERM'); ready()\"); on('TERM', lambda: leave(0, after=0.3)); ready()"
    both = f"{actor_line('a', agent)} & {actor_line('b', agent)} & wait; wait; exit 3"
    init = start_in_role("-t", "20s", "--linger", "300ms", command=["sh", "-c", both])
    for name in ("a", "b"):
        init.wait_for_event("ready", name)
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
def test_signal_awaited_with_sigwait_goes_to_the_agent(start_in_role: Start, name: str) -> None:
    agent = f"""
awaited = number('{name}')
child('pool', "on('{name}'); on('TERM'); ready()")
signal.pthread_sigmask(signal.SIG_BLOCK, [awaited])
log('ready')
assert signal.sigwait([awaited]) == awaited
log('awaited')
leave(6, after=0.2)
"""
    init = start_in_role("-t", "20s", "--linger", "100ms", agent=agent)
    init.wait_for_event("ready")
    init.wait_for_event("ready", "pool")
    init.signal(name)
    assert init.wait() == 6
    assert init.events() == ["ready", "awaited", "end"]
    assert all(record["t"] > init.wait_for_event("end")["t"] for record in init.records("pool", "TERM"))


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_stop_signal_int_reaches_the_agent_behind_a_shell(start_in_role: Start, shell: str) -> None:
    command = shell_over("on('INT', lambda: leave(7)); ready()", shell=shell)
    init = start_in_role("-t", "20s", "--stop-signal", "INT", command=command)
    init.wait_for_event("ready", "real")
    init.signal("TERM")
    assert init.wait() == 7
    assert init.events("real") == ["ready", "INT", "end"]


def test_children_of_the_agent_are_not_signalled_before_it_exits(start_in_role: Start) -> None:
    init = start_in_role(
        "-t",
        "20s",
        "--linger",
        "300ms",
        agent="child('pool', \"on('TERM'); on('INT'); ready()\"); on('TERM', lambda: leave(0, after=0.5)); ready()",
    )
    init.wait_for_event("ready", "pool")
    init.signal("TERM")
    ended = init.wait_for_event("end")["t"]
    assert init.wait() in (0, 137)
    assert all(record["t"] >= ended for record in init.records("pool", "TERM"))
    assert init.records("pool", "TERM")


@pytest.mark.parametrize("flags", [["-g"], ["--target", "group"], ["-vvg"]])
def test_target_group_signals_the_process_group(start_in_role: Start, flags: list[str]) -> None:
    pool = "on('TERM', lambda: leave(0)); ready()"
    init = start_in_role(
        *flags,
        "-t",
        "20s",
        agent=f"child('pool', {pool!r}); on('TERM', lambda: leave(0, after=0.5)); ready()",
    )
    init.wait_for_event("ready", "pool")
    init.signal("TERM")
    assert init.wait() == 0
    assert init.events("pool") == ["ready", "TERM", "end"]
    assert init.wait_for_event("end", "pool")["t"] < init.wait_for_event("end")["t"]


@pytest.mark.parametrize("flag", ["-c", "--single-child", "--target=child"])
def test_target_child_signals_only_the_child(start_in_role: Start, flag: str) -> None:
    init = start_in_role(flag, "-t", "20s", command=shell_over("on('TERM', lambda: leave(0)); ready()"))
    init.wait_for_event("ready", "real")
    init.signal("TERM")
    assert init.wait() == 143
    # The shell's child gets the stop signal as a leftover process.
    assert init.events("real") == ["ready", "TERM", "end"]


def test_process_entered_with_nsenter_is_not_signalled(start: Start) -> None:
    init = start("-t", "20s", agent="on('TERM', lambda: leave(0, after=0.7)); ready()", allow_leftovers=True)
    agent = init.wait_for_event("ready")
    code = "[on(n) for n in ('TERM', 'INT', 'HUP', 'CONT')]; on('USR1', lambda: leave(0)); ready()"
    line = actor_line("guest", code).replace("$EVENTS", str(init.log))
    guest = subprocess.Popen(["nsenter", "--target", str(init.pid), "--pid", "--mount", "sh", "-c", line])
    init.wait_for_event("ready", "guest")
    init.signal("TERM")
    init.wait_for_event("TERM")
    assert init.wait() == 0
    assert agent
    guest.wait(10)
    assert init.events("guest") == ["ready"]


# --- Senders. ---


def test_sender_of_a_stop_request_is_logged(start_in_role: Start) -> None:
    init = start_in_role(
        "-t",
        "20s",
        agent="on('TERM', lambda: leave(0)); log('ready'); time.sleep(0.1); os.kill(os.getppid(), 15); forever()",
    )
    assert init.wait() == 0
    assert f"stop requested by TERM from {Path(sys.executable).name} " in init.wait_for_line("stop requested")


def test_sender_outside_the_namespace_is_logged_as_such(start: Start) -> None:
    init = start("-t", "20s", agent=GRACEFUL)
    init.wait_for_event("ready")
    init.signal("TERM")
    assert init.wait() == 7
    assert "TERM from outside the container" in init.wait_for_line("stop requested")


def test_death_of_the_parent_is_a_stop_request_with_parent_death_signal(start: Start) -> None:
    """With -p TERM the death of agent-init's own parent is a stop request."""
    init = start(
        "-p",
        "TERM",
        "-t",
        "20s",
        agent=GRACEFUL,
        process1=False,
        before=["sh", "-c", '"$@"; exit 0', "parent"],
        allow_leftovers=True,
    )
    init.wait_for_event("ready")
    os.kill(init.pid, signal.SIGKILL)
    init.wait_for_event("end")
    until(lambda: not init.remaining_processes(), "agent-init to end after its agent")
    assert init.events() == ["ready", "TERM", "end"]

"""Who may speak for the agent (--notify-access): a helper that inherits NOTIFY_SOCKET may not, unless `all` lets it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.init import actor_line, clean_environment
from tests.support.proc import children_of

if TYPE_CHECKING:
    from tests.conftest import Start

ACCESS = ["auto", "main", "all"]
DRAINS = "on('TERM', lambda: leave(3, after=0.3)); ready()"
systemd_notify = pytest.mark.skipif(shutil.which("systemd-notify") is None, reason="systemd-notify is not installed")


def with_child(child: str, agent: str = DRAINS) -> str:
    """An agent that has started a child."""
    return f"pid = child('child', {child!r}); {agent}"


# --- Helpers. -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("access", ACCESS)
def test_helper_that_names_itself_redirects_the_stop_only_with_access_all(start_in_role: Start, access: str) -> None:
    """As podman and runc do."""
    helper = "on('TERM', leave); notify('MAINPID=%d\\nREADY=1' % os.getpid()); log('sent'); ready()"
    init = start_in_role("--notify-access", access, "-t", "5s", agent=with_child(helper))
    init.wait_for_event("ready")
    init.wait_for_event("sent", "child")
    init.wait_for_line({"auto": "ignored MAINPID, READY from", "main": "ignored a message", "all": "is ready"}[access])
    init.signal("TERM")
    init.wait()
    [first, *_] = init.records(event="TERM")
    assert first["name"] == ("child" if access == "all" else "agent")
    assert access == "all" or init.events() == ["ready", "TERM", "end"]
    assert bool(init.lines("the agent is ready")) == (access == "all")


@pytest.mark.parametrize("access", ACCESS)
@pytest.mark.parametrize("sender", ["child", "daemon"])
def test_descendant_reports_its_status_and_asks_for_time_but_is_not_the_agent(
    start_in_role: Start, access: str, sender: str
) -> None:
    texts = ["STATUS=from below", "READY=1", "STOPPING=1", "RELOADING=1", "ERRNO=2"]
    code = f"[notify(text) for text in {texts}]; notify('ERRNO=3\\nSTATUS=last'); log('sent'); ready()"
    start_it = f"{'orphan' if sender == 'daemon' else 'child'}('below', {code!r})"
    init = start_in_role("-v", "--notify-access", access, agent=f"{start_it}; on('TERM', leave); ready()")
    init.wait_for_event("ready")
    init.wait_for_event("sent", "below")
    if access == "main":
        init.wait_for_line("ignored a message to the notify socket")
    else:
        init.wait_for_line('agent status: "last"')
        assert init.lines('agent status: "from below"')
    init.signal("TERM")
    assert init.wait() == 0
    for text in ("the agent is ready", "the agent is reloading", "is stopping by itself", "errno"):
        assert bool(init.lines(text)) == (access == "all"), text
    ignored = [line for line in init.lines("ignored") if "--notify-access" in line]
    warnings = [line for line in ignored if line.startswith("warning: ")]
    assert len(warnings) == (access != "all")


def test_helper_can_ping_and_extend_the_deadline(start_in_role: Start) -> None:
    helper = "on('USR1', lambda: notify('EXTEND_TIMEOUT_USEC=20000000')); notify('WATCHDOG_USEC=0'); ready()"
    agent = with_child(helper, "on('TERM', lambda: (os.kill(pid, signal.SIGUSR1), leave(3, after=2))); ready()")
    init = start_in_role("-t", "1s", agent=agent)
    init.wait_for_event("ready")
    init.wait_for_event("ready", "child")
    init.signal("TERM")
    assert init.wait() == 3
    assert init.lines("the agent asked for more time")


def test_agent_is_ready_only_when_it_says_so_itself(start_in_role: Start) -> None:
    """With a time limit for that, which a helper cannot meet in its place."""
    init = start_in_role("--ready-timeout", "1s", agent=with_child("notify('READY=1'); ready()", "ready()"))
    assert init.wait() == 134
    assert init.lines("ignored READY from python")


def test_helpers_messages_are_not_passed_on_to_a_supervisor_above(start: Start, tmp_path: Path) -> None:
    """A database's STOPPING=1 must not have systemd wait for the end of the unit."""
    name = str(tmp_path / "parent")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as above:
        above.bind(name)
        above.settimeout(30)
        helper = "notify('READY=1'); notify('STOPPING=1\\nSTATUS=gone'); log('sent'); ready()"
        init = start(agent=with_child(helper, "on('TERM', leave); ready()"), env=clean_environment(NOTIFY_SOCKET=name))
        assert above.recv(4096) == b"STATUS=gone"
    init.wait_for_event("ready")
    init.signal("TERM")
    assert init.wait() == 0


def test_agent_that_handles_term_and_waits_for_a_child_is_no_wrapper(start_in_role: Start) -> None:
    helper = "notify('MAINPID=%d' % os.getpid()); on('TERM', lambda: leave(4, after=0.2)); ready()"
    agent = with_child(helper, "os.waitpid(pid, 0)")
    init = start_in_role("-t", "5s", agent=f"on('TERM', lambda: leave(3)); {agent}")
    init.wait_for_event("ready", "child")
    init.wait_for_line("ignored MAINPID from python")
    init.signal("TERM")
    assert init.wait() == 3


# --- Those that count as the agent. ---------------------------------------------------------------------------------


def test_main_process_that_the_agent_has_named_speaks_for_it(start_in_role: Start) -> None:
    child = "on('USR1', lambda: notify('READY=1')); on('TERM', lambda: leave(4)); ready()"
    agent = with_child(child, "notify('MAINPID=%d' % pid); log('named'); os._exit(os.waitpid(pid, 0)[1] >> 8)")
    init = start_in_role("-t", "20s", agent=agent)
    init.wait_for_event("ready", "child")
    init.wait_for_line("main process is")
    init.signal("USR1")
    assert init.wait_for_line("the agent is ready")
    init.signal("TERM")
    assert init.wait() == 4


WRAPPERS = {
    "sh": ["sh", "-c", "{agent}; exit $?"],
    "bash with a trap": ["bash", "-c", "trap 'kill -TERM $!' TERM; {agent} & wait; wait $!"],
    "shells": ["sh", "-c", "bash -c '( eval \"$AGENT\"; exit $? ); exit $?'; exit $?"],
    "launcher": [
        sys.executable, "-S", "-c",
        "import os, sys; pid = os.spawnlp(os.P_NOWAIT, 'sh', 'sh', '-c', os.environ['AGENT']);"
        "sys.exit(os.waitpid(pid, 0)[1] >> 8)",
    ],
}  # fmt: skip


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_agent_behind_a_wrapper_is_ready(start_in_role: Start, wrapper: str) -> None:
    line = actor_line("agent", "time.sleep(0.2); notify('READY=1'); on('TERM', lambda: leave(3)); ready()")
    command = [argument.replace("{agent}", line) for argument in WRAPPERS[wrapper]]
    env = clean_environment(AGENT=("exec " if wrapper == "launcher" else "") + line)
    init = start_in_role("-t", "20s", command=["--", *command], env=env)
    assert init.wait_for_line("the agent is ready")
    init.wait_for_event("ready")
    init.signal("TERM")
    assert init.wait() == 3


def test_helper_of_an_agent_behind_a_shell_is_not_the_agent(start_in_role: Start) -> None:
    helper = "notify('MAINPID=%d\\nREADY=1' % os.getpid()); on('TERM'); ready()"
    init = start_in_role("-t", "5s", command=["--", "sh", "-c", actor_line("agent", with_child(helper)) + "; exit $?"])
    init.wait_for_event("ready")
    init.wait_for_line("ignored MAINPID, READY from python")
    init.signal("TERM")
    assert init.wait() == 3


@systemd_notify
@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("options", ["", "--no-block"])
def test_script_that_runs_systemd_notify_is_ready(start_in_role: Start, shell: str, options: str) -> None:
    script = f"trap 'exit 3' TERM; systemd-notify {options} --ready --status=serving; echo; while :; do sleep 0.1; done"
    init = start_in_role("-v", "-t", "20s", command=["--", shell, "-c", script])
    assert init.wait_for_line("the agent is ready")
    assert init.lines('agent status: "serving"')
    init.signal("TERM")
    assert init.wait() == 3


@systemd_notify
@pytest.mark.parametrize("named", ["$!", "$$"])
def test_script_names_its_main_process_by_systemd_notify(start_in_role: Start, named: str) -> None:
    agent = actor_line("agent", "on('TERM', lambda: leave(3)); ready()")
    script = f"{agent} & systemd-notify --ready --pid={named}; wait $!; exit $?"
    init = start_in_role("-t", "20s", command=["--", "bash", "-c", script])
    init.wait_for_event("ready")
    init.wait_for_line("the agent is ready")
    assert bool(init.lines("main process is")) == (named == "$!")
    init.signal("TERM")
    assert init.wait() == 3


@systemd_notify
@pytest.mark.parametrize("user", ["root", "nobody"])
def test_program_that_runs_systemd_notify_is_ready(start_in_role: Start, user: str) -> None:
    """As root it sends in the name of the program that runs it (CAP_SYS_ADMIN); otherwise in its own."""
    drop = "os.setgroups([]); os.setgid(65534); os.setuid(65534)" if user == "nobody" else "pass"
    leave = "import signal; signal.signal(15, lambda *_: os._exit(3))"  # whatever it may write to
    agent = f"{drop}; {leave}; os.system('exec systemd-notify --ready'); forever()"
    init = start_in_role("-t", "20s", "--stop-signal", "TERM", agent=agent)
    assert init.wait_for_line("the agent is ready")
    init.signal("TERM")
    assert init.wait() == 3


# A command that has exited, and was reaped, before process 1 reads its message.
ONE_SHOT = "notify({text!r}); leave()"


@pytest.mark.parametrize("text", ["READY=1\nMAINPID=1\nSTATUS=up\nEXTEND_TIMEOUT_USEC=1", "WATCHDOG=trigger"])
def test_command_of_a_script_that_has_exited_reports_readiness_and_status(start_in_role: Start, text: str) -> None:
    script = (
        f"trap 'exit 3' TERM; read go; {actor_line('command', ONE_SHOT.format(text=text))}; touch $EVENTS.done; "
        + ("while :; do sleep 0.1; done")
    )
    ours, theirs = os.pipe()
    init = start_in_role("-v", "-t", "20s", command=["--", "sh", "-c", script], stdin=ours)
    os.close(ours)
    init.wait_for_line("started")
    init.signal("STOP")
    os.write(theirs, b"\n")
    os.close(theirs)
    init.wait_for(lambda: Path(f"{init.log}.done").exists(), "the end of the command")
    init.signal("CONT")
    if "READY" in text:
        assert init.wait_for_line("the agent is ready")
        assert init.lines('agent status: "up"')
    else:
        assert init.wait_for_line("which is gone")
    init.signal("TERM")
    assert init.wait() == 3
    assert not init.lines("MAINPID")


def test_command_of_a_program_that_has_exited_is_unknown(start_in_role: Start) -> None:
    agent = "on('USR1', lambda: (os.waitpid(child('command', \"notify('READY=1'); leave()\"), 0), log('done')))"
    init = start_in_role("-t", "20s", agent=f"{agent}; on('TERM', lambda: leave(3)); ready()")
    init.wait_for_event("ready")
    [process] = children_of(init)
    init.signal("STOP")
    os.kill(process.pid, signal.SIGUSR1)
    init.wait_for_event("done")
    init.signal("CONT")
    assert init.wait_for_line("which is gone")
    init.signal("TERM")
    assert init.wait() == 3

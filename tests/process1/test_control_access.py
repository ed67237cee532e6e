"""Who may ask a real process 1 and command it, and who is taken for it: other users, containers and impostors."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.control import AGENT_INITCTL, PERMISSION_DENIED, ask, begin, status, wait_until_served
from tests.support.init import AGENT_INIT, clean_environment, until
from tests.support.proc import AS_NOBODY, IDLE, children_of, wait_for_agent

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Start
    from tests.support.init import Init

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="other users and mount namespaces take root")

READS = ("ready", "live", "status", "events", "report")
COMMANDS = (("stop",), ("extend", "5s"), ("signal", "USR1"))
MAY_READ = "agent-initctl: permission denied: the agent's user may read, and not command\n"
AS_ANOTHER = ["setpriv", "--reuid=65533", *AS_NOBODY[2:]]
NO_CAPABILITIES = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


def idle(start: Start, *options: str, **more: Any) -> Init:
    init = start(*options, command=["--", *IDLE], **more)
    wait_for_agent(init)
    return init


def stop(init: Init) -> None:
    init.signal("TERM")
    assert init.wait() == 143, init.stderr


# --- Users. -----------------------------------------------------------------------------------------------------------


def test_the_user_of_the_agent_may_read_and_not_command(start_in_role: Start) -> None:
    """As after `USER` in an entrypoint script: `su-exec app agent`."""
    init = start_in_role("-t", "20s", command=["--", *AS_NOBODY, *IDLE])
    wait_for_agent(init)
    wait_until_served(init)
    for reads in READS:
        ran = ask(init, reads, before=AS_NOBODY)
        assert (ran.returncode, ran.stderr) == (int(reads == "ready"), ""), reads
    for command in COMMANDS:
        ran = ask(init, *command, before=AS_NOBODY)
        assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", MAY_READ), command
    assert not init.lines("stop requested")
    stop(init)


@pytest.mark.parametrize("wrapper", ["{}; exit $?", "su -s /bin/sh -c 'sleep 1000; exit $?' nobody; exit $?"])
def test_the_user_of_an_agent_behind_a_wrapper_may_read_and_not_command(start_in_role: Start, wrapper: str) -> None:
    """A shell or su(1) stays the parent, as root."""
    script = wrapper.format(shlex.join([*AS_NOBODY, "sleep", "1000"]))
    init = start_in_role("-t", "20s", command=["--", "sh", "-c", script])
    wait_until_served(init)
    init.wait_for(lambda: ask(init, "live", before=AS_NOBODY).returncode == 0, "an answer to the agent's user")
    assert ask(init, "stop", before=AS_NOBODY).stderr == MAY_READ
    assert ask(init, "live", before=AS_ANOTHER).stderr == PERMISSION_DENIED
    stop(init)


def test_where_a_wrapper_runs_two_programs_its_own_user_counts(start_in_role: Start) -> None:
    script = f"sleep 1000 & {shlex.join(AS_NOBODY)} sleep 1000; exit $?"
    init = start_in_role("-t", "20s", command=["--", "sh", "-c", script])
    wait_until_served(init)
    (shell,) = children_of(init)
    init.wait_for(lambda: [c.uids().real for c in shell.children()] == [0, 65534], "both")
    assert ask(init, "live", before=AS_NOBODY).stderr == PERMISSION_DENIED
    stop(init)


def test_the_user_of_an_agent_that_has_exited_may_still_read(start_in_role: Start) -> None:
    script = "trap '' TERM; sleep 1000 & trap 'exit 3' USR1; echo ready; while :; do sleep 0.1; done"
    init = start_in_role("--linger", "5s", command=["--", *AS_NOBODY, "sh", "-c", script], stdout=subprocess.PIPE)
    assert init.outer.stdout is not None
    assert init.outer.stdout.readline() == b"ready\n"
    wait_until_served(init)
    init.wait_for(lambda: ask(init, "live", before=AS_NOBODY).returncode == 0, "an answer to the agent's user")
    init.signal("USR1")
    init.wait_for_line("it left processes behind")
    assert "state: lingering" in ask(init, "status", before=AS_NOBODY).stdout
    assert ask(init, "stop", before=AS_NOBODY).stderr == MAY_READ
    assert init.wait() == 3


def test_another_user_gets_permission_denied(start_in_role: Start) -> None:
    init = start_in_role(command=["--", *AS_NOBODY, *IDLE])
    wait_for_agent(init)
    wait_until_served(init)
    before = init.stderr
    for command in ("ready", "events"):
        ran = ask(init, command, before=AS_ANOTHER)
        assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", PERMISSION_DENIED), command
    assert ask(init, "stop", before=AS_ANOTHER).stderr == PERMISSION_DENIED
    assert status(init)["clients_refused"] == 3
    assert init.stderr == before
    stop(init)


@pytest.mark.parametrize("capabilities", [AS_NOBODY, NO_CAPABILITIES], ids=["reads files", "none"])
def test_agent_init_of_another_user_answers_that_user_and_root(
    start_in_role: Start, capabilities: list[str], tmp_path: Path
) -> None:
    """`USER app` in a Dockerfile, and `docker exec` as root."""
    init = start_in_role("-t", "20s", command=["--", *IDLE], before=AS_NOBODY)
    wait_for_agent(init)
    wait_until_served(init)
    assert ask(init, "live", before=AS_NOBODY).returncode == 0
    assert ask(init, "live", before=AS_ANOTHER).stderr == PERMISSION_DENIED
    assert status(init)["state"] == "starting"
    ask(init, "signal", "TERM", before=AS_NOBODY)
    assert init.wait() == 143
    assert init.lines("stop requested by TERM from agent-initctl (pid ")


def test_a_container_without_capabilities(start: Start) -> None:
    """Then nobody may look at the namespaces of another user's process; the name of the socket is known anyway."""
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    script = f"{AGENT_INITCTL} live; {AGENT_INITCTL} status >/dev/null && echo status"
    init = start(command=["--", "sh", "-c", script], before=drop, stdout=subprocess.PIPE)
    assert init.wait() == 0, init.stderr
    assert init.outer.stdout is not None
    assert init.outer.stdout.read() == b"no hang detected; starting\nstatus\n"


def test_where_proc_hides_other_users_process_1_is_found_all_the_same(start: Start) -> None:
    """The agent's user sees its own processes only (hidepid, proc(5))."""
    hide = ["sh", "-c", 'mount -o remount,hidepid=2 /proc && exec "$@"', "sh"]
    init = start(command=["--", *AS_NOBODY, *IDLE], before=hide)
    wait_for_agent(init)
    wait_until_served(init)
    for options in ([], ["--pid=1"]):
        ran = ask(init, "live", *options, before=AS_NOBODY)
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "no hang detected; starting\n", ""), options
        ran = ask(init, "status", "--json", *options, before=AS_NOBODY)
        assert (ran.returncode, ran.stderr) == (0, "")
        assert json.loads(ran.stdout)["processes"] is None  # no more than one of them is seen
    assert ask(init, "stop", before=AS_NOBODY).stderr == MAY_READ
    stop(init)


def test_a_hidden_process_1_that_is_no_agent_init_is_none() -> None:
    script = f"mount -o remount,hidepid=2 /proc && {shlex.join([*AS_NOBODY, str(AGENT_INITCTL), 'live'])}; exit $?"
    command = ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", script]
    ran = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (125, "")
    assert ran.stderr.startswith("agent-initctl: no agent-init is running here")


# --- Containers. ------------------------------------------------------------------------------------------------------


def test_root_of_another_container_with_the_same_pids_is_refused(start_in_role: Start) -> None:
    """shareProcessNamespace, hostPID: its files are others, and it is not below us."""
    init = idle(start_in_role)
    wait_until_served(init)
    chosen = ["--pid=1"] if init.process1 else []  # it would not be chosen: it is another container's
    ran = ask(init, "status", *chosen, before=["unshare", "--mount"])
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", PERMISSION_DENIED)
    assert ask(init, "stop", *chosen, before=["unshare", "--mount"]).stderr == PERMISSION_DENIED
    assert status(init)["clients_refused"] == 2
    stop(init)


def test_a_descendant_with_other_files_is_served(start_in_role: Start) -> None:
    """A sandbox of the agent's."""
    asks = ["unshare", "--mount", str(AGENT_INITCTL), "live"]
    init = start_in_role(command=["--", *asks], stdout=subprocess.PIPE)
    assert init.wait() == 0, init.stderr


def test_a_client_in_another_network_namespace_is_told_so(start_in_role: Start) -> None:
    """The name of the socket is there in that of agent-init only."""
    init = idle(start_in_role)
    wait_until_served(init)
    ran = ask(init, "live", before=["unshare", "--net"])
    assert ran.returncode == 125
    assert ran.stderr.endswith(": it is in another network namespace\n")
    stop(init)


def test_root_outside_of_the_pid_namespace_is_refused(start: Start) -> None:
    """A process of another pod on this node, with hostNetwork: the socket can be reached, the pid is not visible."""
    init = idle(start)
    wait_until_served(init)
    command = [str(AGENT_INITCTL), "status", f"--pid={init.pid}"]
    ran = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", PERMISSION_DENIED)
    stop(init)


def test_two_process_1_in_one_network_namespace_are_distinguished(start: Start) -> None:
    """Two containers of a pod: both have pid 1."""
    first, second = idle(start), idle(start, "--watchdog", "77s")
    for init in (first, second):
        wait_until_served(init)
    assert status(first)["watchdog"]["seconds"] is None
    assert status(second)["watchdog"]["seconds"] == 77
    ask(first, "stop")
    assert first.wait() == 143
    assert second.outer.poll() is None
    stop(second)


# --- Others who have its name. ----------------------------------------------------------------------------------------

SQUAT = """
import os, socket, sys, time
sys.path.insert(0, {package!r})
from entrypoint import control
listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind(control.address({pid}, control.namespace()))
listener.listen(50)
{ready}
while True:
    connection, _ = listener.accept()
    try:
        connection.send(b"=STATE=ready\\nREADY=1\\nSINCE=1\\nUPTIME=1")
    except OSError:  # the client has gone
        pass
    connection.close()
"""
PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def test_agent_init_takes_another_name_where_its_own_is_taken_and_is_found(start: Start) -> None:
    """The shell's child takes the name of the shell's pid; then the shell becomes agent-init."""
    squat = SQUAT.format(package=PACKAGE, pid="os.getppid()", ready="print(flush=True)")
    script = 'coproc "$2" -c "$1"; read -u "${COPROC[0]}" line; exec "$0" -t 20s -- sleep 1000'
    program = ["bash", "-c", script, str(AGENT_INIT), squat, sys.executable]
    init = start(program=program, stdout=subprocess.DEVNULL)
    init.wait_for_line("started sleep")
    wait_until_served(init)
    found = status(init)
    assert (found["state"], found["pid"]) == ("starting", 1)
    init.signal("TERM")
    assert init.wait() == 143


def test_an_impostor_is_not_believed(start: Start) -> None:
    """The agent has the name of an agent-init that opens no socket."""
    squat = SQUAT.format(package=PACKAGE, pid="os.getppid()", ready="pass")
    init = start("--no-control", "-t", "20s", command=["--", sys.executable, "-c", squat])
    until(lambda: "another process has its socket" in ask(init, "ready").stderr, "the impostor")
    ran = ask(init, "ready")
    assert (ran.returncode, ran.stdout) == (125, "")
    assert ran.stderr == "agent-initctl: cannot reach agent-init (pid 1): another process has its socket\n"
    init.signal("TERM")
    assert init.wait() == 130  # of INT, which Python handles


def test_agent_init_that_does_not_answer(start_in_role: Start) -> None:
    """Stopped, as by a freezer: no probe hangs for ever."""
    init = idle(start_in_role)
    wait_until_served(init)
    os.kill(init.pid, signal.SIGSTOP)
    ran = ask(init, "status", "--timeout", "0.2")
    assert (ran.returncode, ran.stdout) == (125, "")
    assert "does not answer within 0.2s" in ran.stderr
    os.kill(init.pid, signal.SIGCONT)
    stop(init)


def test_a_client_that_ends_leaves_nothing(start: Start) -> None:
    init = idle(start)
    wait_until_served(init)
    before = os.listdir(f"/proc/{init.pid}/fd")
    client = begin(init, "events", "--follow")
    assert client.stdout is not None
    client.stdout.readline()
    client.kill()
    client.wait()
    until(lambda: len(os.listdir(f"/proc/{init.pid}/fd")) == len(before), "the end of the connection")
    stop(init)

"""The server dies, cannot start, or is ended; the agent and its stop are as without it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.http.serving import LEAVES, READY, Served
from tests.support.init import AGENT_INIT, clean_environment, until
from tests.support.ports import free_port
from tests.support.proc import AS_NOBODY, children_of, status

if TYPE_CHECKING:
    from tests.conftest import Start

PACKAGE = Path(__file__).parents[2] / "entrypoint"
IDLE = LEAVES + READY + "ready()"


def test_a_server_that_was_killed_is_started_again(start_in_role: Start) -> None:
    served = Served(start_in_role, agent=IDLE)
    served.wait_until("/readyz", 200)
    first = served.wait_for_server()
    first.kill()
    assert served.init.wait_for_line("the HTTP server was killed by SIGKILL; trying again in 1s")
    until(lambda: (found := served.server()) is not None and found.pid != first.pid, "another server")
    served.wait_until("/readyz", 200)
    served.init.signal("TERM")
    assert served.init.wait() == 0


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_port_in_use_is_logged_and_taken_once_it_is_free(start: Start, address: str) -> None:
    """Of both: another process would get half of the clients of `localhost`."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as other:
        try:
            other.bind((address, 0))
        except OSError:
            pytest.skip(f"there is no {address} here")
        other.listen()
        port = other.getsockname()[1]
        served = Served(start, port=port, agent=IDLE)
        line = served.init.wait_for_line("the HTTP server cannot listen")
        assert line.startswith(f"warning: the HTTP server cannot listen on :{port}: Address already in use")
        served.init.wait_for_event("ready")
        other.close()
    served.wait_until("/readyz", 200)
    assert served.init.wait_for_line(f"for :{port} works now").startswith("HTTP server (pid ")
    served.init.signal("TERM")
    assert served.init.wait() == 0


def test_a_stop_does_not_wait_for_a_server_that_cannot_run(start: Start) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        served = Served(start, port=other.getsockname()[1], agent=IDLE)
        served.init.wait_for_event("ready")
        served.init.wait_for_line("the HTTP server cannot listen")
        served.init.signal("TERM")
        assert served.init.wait() == 0


def test_the_server_is_no_leftover_of_the_agent(start_in_role: Start) -> None:
    served = Served(start_in_role, "-t", "30s", agent="on('USR1', lambda: leave(5)); " + READY + "ready()")
    served.wait_until("/readyz", 200)
    server = served.wait_for_server()
    served.init.wait_for_event("ready")
    served.init.signal("USR1")
    assert served.init.wait() == 5
    assert not served.init.lines("left processes behind")
    until(lambda: not server.is_running(), "the end of the server")


def test_leftovers_are_waited_for_beside_the_server(start_in_role: Start) -> None:
    """The last child but the server has exited: that is the end, and no reason to wait for --linger."""
    child = "on('TERM', lambda: leave(0, after=1.0)); ready()"
    agent = f"child('child', {child!r}); on('TERM', lambda: leave(5)); " + READY + "ready()"
    served = Served(start_in_role, "-t", "90s", "--linger", "60s", "--target", "child", agent=agent)
    served.wait_until("/readyz", 200)
    served.init.wait_for_event("ready", "child")
    server = served.wait_for_server()
    served.init.signal("TERM")
    assert served.init.wait() == 5
    assert served.init.events("child") == ["ready", "TERM", "end"]
    until(lambda: not server.is_running(), "the end of the server")


def test_the_server_answers_while_leftovers_exit(start: Start) -> None:
    child = "on('TERM', lambda: log('asked')); on('USR1', lambda: leave(0)); ready()"
    agent = f"child('child', {child!r}); on('TERM', lambda: leave(5)); " + READY + "ready()"
    served = Served(start, "-t", "90s", "--linger", "60s", "--target", "child", agent=agent)
    served.wait_until("/readyz", 200)
    served.init.wait_for_event("ready", "child")
    server = served.wait_for_server()
    served.init.signal("TERM")
    served.init.wait_for_event("asked", "child")
    until(lambda: served.state()["state"] == "lingering", "the state to be known")
    assert served.ask("/readyz") == (503, "not ready: lingering\n")
    [left] = [child for child in psutil.Process(served.init.pid).children() if child.pid != server.pid]
    left.send_signal(signal.SIGUSR1)
    assert served.init.wait() == 5


def test_signals_to_every_process_and_orphan_stopping_leave_the_server_alone(start: Start) -> None:
    served = Served(start, "--orphans", "300ms", agent=IDLE)
    served.wait_until("/readyz", 200)
    server = served.wait_for_server()
    for name in ("TERM", "INT", "HUP", "QUIT", "USR1", "USR2"):
        server.send_signal(getattr(signal, f"SIG{name}"))
    time.sleep(1.0)  # several looks at orphans
    assert served.ask("/readyz")[0] == 200
    assert served.wait_for_server().pid == server.pid
    served.init.signal("TERM")
    assert served.init.wait() == 0


def test_the_server_ends_with_agent_init_however_that_ends(start: Start) -> None:
    served = Served(start, process1=False, agent=IDLE)
    served.wait_until("/readyz", 200)
    server = served.wait_for_server()
    agent = served.init.wait_for_event("ready")["pid"]
    os.kill(served.init.pid, signal.SIGKILL)
    until(lambda: not server.is_running(), "the end of the server")
    os.kill(agent, signal.SIGKILL)


def test_a_stopped_server_delays_nothing(start: Start) -> None:
    """The pipe becomes full: pings change the state each second, and stop requests at once."""
    served = Served(start, "-t", "30s", "--watchdog", "90s", agent="on('USR1'); " + IDLE)
    served.wait_until("/readyz", 200)
    served.wait_for_server().suspend()
    served.init.wait_for_event("ready")
    for number in range(300):
        served.init.signal("USR1" if number % 2 else "WINCH")
    served.init.signal("TERM")
    assert served.init.wait() == 0


# --- Its user. ------------------------------------------------------------------------------------------------------


def user_of(pid: int) -> str:
    return status(pid)["Uid"].split()[0]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("later", [False, True], ids=["at once", "later"])
@pytest.mark.parametrize("how", ["exec {}", "{}; exit $?", "su -s /bin/sh -c 'sleep 1000; exit $?' nobody; exit $?"])
def test_the_server_runs_as_the_agents_user_without_capabilities(
    start: Start, tmp_path: Path, how: str, later: bool
) -> None:
    """Also where a shell or su(1) stays its parent, as root."""
    gate = tmp_path / "gate"
    wait = f"until [ -e {gate} ]; do sleep 0.05; done; " if later else ""
    script = wait + how.format("setpriv --reuid 65534 --regid 65534 --clear-groups sleep 1000")
    served = Served(start, command=["--", "sh", "-c", script])
    served.wait_until("/livez", 200)
    if later:
        assert user_of(served.wait_for_server().pid) == "0"
        gate.touch()

    def has_user() -> bool:
        served.status_of("/livez")
        found = served.server()
        return found is not None and user_of(found.pid) == "65534"

    until(has_user, "a server that runs as the agent's user")
    served.wait_until("/livez", 200)
    found = status(served.wait_for_server().pid)
    assert found["Gid"].split()[0] == "65534"
    assert {int(found[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert found["NoNewPrivs"] == "1"
    assert not served.init.lines("trying again")
    served.init.signal("TERM")
    assert served.init.wait() == 143


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_the_user_of_a_step_before_the_agent_does_not_keep_the_server(start: Start) -> None:
    """As `su postgres -c migrate`, and then the agent as root: the server answers as the agent's user again."""
    step = "setpriv --reuid 65534 --regid 65534 --clear-groups sleep 999"
    served = Served(start, command=["--", "sh", "-c", f"{step}; sleep 1000; exit $?"])

    def runs_as(user: str) -> bool:
        served.status_of("/livez")
        found = served.server()
        return found is not None and user_of(found.pid) == user

    until(lambda: runs_as("65534"), "a server that runs as the step's user")
    (shell,) = [child for child in children_of(served.init) if child.name() == "sh"]
    (running,) = shell.children()
    running.kill()
    until(lambda: runs_as("0"), "a server that runs as the agent's user")
    served.wait_until("/livez", 200)
    assert int(status(served.wait_for_server().pid)["CapEff"], 16) == 0
    served.init.signal("TERM")
    assert served.init.wait() == 143


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_server_that_is_restarted_after_the_agents_end_is_not_root(start: Start) -> None:
    script = "trap '' TERM; sleep 1000 & trap 'exit 3' USR1; while :; do sleep 0.1; done"
    served = Served(start, "--linger", "8s", command=["--", *AS_NOBODY, "sh", "-c", script])
    served.wait_until("/livez", 200)
    served.init.signal("USR1")
    served.init.wait_for_line("it left processes behind")
    first = served.wait_for_server()
    first.kill()
    until(lambda: (found := served.server()) is not None and found.pid != first.pid, "another server")
    served.wait_until("/readyz", 503)
    found = status(served.wait_for_server().pid)
    assert (found["Uid"].split(), found["Gid"].split()) == (["65534"] * 4, ["65534"] * 4)
    served.init.signal("TERM")
    served.init.wait()


def test_the_server_has_no_capabilities_where_the_agent_keeps_its_user(start: Start) -> None:
    served = Served(start, agent=IDLE)
    served.wait_until("/readyz", 200)
    found = status(served.wait_for_server().pid)
    assert {int(found[name], 16) for name in ("CapPrm", "CapEff", "CapAmb")} == {0}
    assert found["NoNewPrivs"] == "1"
    assert Path(f"/proc/{served.wait_for_server().pid}/environ").read_bytes() == b""
    served.init.signal("TERM")
    assert served.init.wait() == 0


# --- Before the agent starts. ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["8081", "localhost:8081", ":0", "::1:8081", "1.2.3.4:http"])
def test_an_address_that_is_none_is_one_line(address: str) -> None:
    argv = [str(AGENT_INIT), "--http", address, "true"]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=clean_environment())
    assert ran.returncode == 125
    (line,) = ran.stderr.splitlines()
    assert f"--http: '{address}' is not [ADDRESS]:PORT; accepted: :8081 (loopback), 127.0.0.1:8081" in line


def test_without_its_packages_the_option_is_an_error_that_names_the_command(tmp_path: Path) -> None:
    made = tmp_path / "venv"
    subprocess.run(["python3", "-m", "venv", "--without-pip", made], check=True, timeout=100)
    [packages] = made.glob("lib/python*/site-packages")
    shutil.copytree(PACKAGE, packages / "entrypoint", ignore=shutil.ignore_patterns("__pycache__"))
    program = packages / "entrypoint" / "__main__.py"
    mark = tmp_path / "ran"
    argv = [str(made / "bin" / "python"), "-I", "-S", str(program), "--http", ":8081", "touch", str(mark)]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=clean_environment())
    assert ran.returncode == 125
    assert ran.stderr == "agent-init: --http needs more packages: pip install 'agent-init[http]'\n"
    assert not mark.exists()


@pytest.mark.parametrize("address", ["0.0.0.0:{}", "[::]:{}", "[::1]:{}"])
def test_each_kind_of_address_is_listened_on(start: Start, address: str) -> None:
    port = free_port()
    init = start("--http", address.format(port), agent=IDLE)
    host = "::1" if "::1" in address else "127.0.0.1"

    def connects() -> bool:
        try:
            socket.create_connection((host, port), timeout=10).close()
        except OSError:
            assert not init.lines("cannot listen on")
            return False
        return True

    until(connects, f"a connection to {host}")
    init.wait_for_event("ready")
    init.signal("TERM")
    assert init.wait() == 0

"""Containers that agent-init shares: another process 1, a shared PID namespace, a `docker exec` session."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from .container import RECORDER, TIMEOUT, TOLERANCE, Containers, wait_until


def test_agent_init_works_below_docker_init(containers: Containers) -> None:
    """With `docker run --init` tini is process 1 and agent-init a subreaper. It works the same, without warnings."""
    container = containers.run(*RECORDER, "--orphans=3", "--children=1", options=("--init",), ready=None, VERBOSE="1")
    container.wait_for_line("ready", times=2)
    assert container.event("started")["role"] == "subreaper"
    assert container.processes()[1][0] in ("docker-init", "tini")
    assert len(container.wait_for_events("reaped", times=3)) == 3
    ended, seconds = container.stop()

    assert ended.code == 0
    assert seconds < 10
    assert container.signals() == ["TERM", "TERM"]
    assert container.output().count("cleaned up") == 2
    assert container.event("stop-requested")["sender"].startswith(("docker-init", "tini"))
    assert {line["level"] for line in container.events()} == {"info", "debug"}
    assert container.other_stderr_lines() == []


def test_stop_in_a_shared_pid_namespace_leaves_the_neighbour_alone(containers: Containers) -> None:
    """`--pid=container:`, like a Kubernetes pod with shareProcessNamespace: stopping one does not affect the other."""
    neighbour = containers.run(*RECORDER)
    options = ("--pid", f"container:{neighbour.name}")
    container = containers.run(*RECORDER, "--orphans=3", "--children=1", options=options, ready=None, VERBOSE="1")
    container.wait_for_line("ready", times=2)
    assert container.event("started")["role"] == "subreaper"
    assert len(container.wait_for_events("reaped", times=3)) == 3

    ended, seconds = container.stop()
    assert ended.code == 0
    assert seconds < 10
    assert container.signals() == ["TERM", "TERM"]
    assert container.output().count("cleaned up") == 2
    assert {line["level"] for line in container.events()} == {"info", "debug"}

    assert neighbour.running()
    assert neighbour.signals() == []
    assert neighbour.stop()[0].code == 0
    assert neighbour.signals() == ["TERM"]


def test_deadline_in_a_shared_pid_namespace_kills_only_its_own_processes(containers: Containers) -> None:
    neighbour = containers.run(*RECORDER)
    options = ("--pid", f"container:{neighbour.name}")
    stubborn = (*RECORDER, "--stop-on=", "--children=1")
    container = containers.run(*stubborn, options=options, ready=None, GRACE="1s")
    container.wait_for_line("ready", times=2)
    ended, seconds = container.stop("-t", "60")

    assert ended.code == 137
    assert 1 <= seconds < 1 + TOLERANCE
    assert neighbour.running()
    assert neighbour.signals() == []
    names = [name for name, state in neighbour.processes().values()]
    assert names.count("python") <= 3  # its process 1, its agent, and the process that lists them


@pytest.mark.parametrize("target", ["auto", "group"])
def test_docker_exec_session_is_not_signalled(containers: Containers, target: str) -> None:
    """A `docker exec` session during a stop gets none of agent-init's signals."""
    container = containers.run(*RECORDER, "--cleanup=3", TARGET=target)
    with exec_session(containers, container.name, *RECORDER) as session:
        assert session.stdout is not None
        assert session.stdout.readline() == "ready\n"
        ended, seconds = container.stop()
        output, _ = session.communicate(timeout=60)

    assert output == ""  # the kernel kills it together with process 1; it has received no other signal
    assert session.returncode == 137
    assert ended.code == 0
    assert 3 <= seconds < 3 + TOLERANCE
    assert container.signals() == ["TERM"]


def test_docker_exec_session_does_not_delay_the_exit(containers: Containers) -> None:
    """It is no descendant of process 1, so agent-init exits with the agent; here the agent exits by itself."""
    container = containers.run("sh", "-c", "echo ready; sleep 2; exit 5")
    with exec_session(containers, container.name, *RECORDER) as session:
        ended = container.wait_for_exit()
        session.communicate(timeout=60)
    assert ended.code == 5
    assert container.events("lingering") == []


@contextlib.contextmanager
def exec_session(containers: Containers, name: str, *command: str) -> Iterator[subprocess.Popen[str]]:
    """`docker exec` with its stdout in a pipe."""
    session = subprocess.Popen(
        ["docker", "exec", name, *command],
        env=containers.engine.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield session
    finally:
        session.kill()
        session.communicate()


CHATTY = (
    "import signal, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "print('ready', flush=True)\n"
    "while True: sys.stderr.write('x' * 1000 + '\\n'); sys.stderr.flush()\n"
)


@pytest.mark.parametrize("user", ["0", "1000"])
def test_stalled_log_driver_does_not_delay_the_deadline(containers: Containers, user: str) -> None:
    """Nobody reads the log: the agent blocks in its write to stderr, agent-init does not, and the deadline is kept.

    Docker may notice the exit only when its log driver continues, so the test watches process 1 from the host.
    """
    with listener_that_never_reads() as (address, connected):
        options = ("--log-driver", "syslog", "--log-opt", f"syslog-address=unix://{address}", "--user", user)
        container = containers.run("python", "-c", CHATTY, options=options, ready=None, GRACE="2s", VERBOSE="1")
        process = psutil.Process(container.inspect()["State"]["Pid"])
        assert connected.wait(TIMEOUT)
        wait_until(lambda: is_blocked(process), "the agent hangs in its write")
        requested_at = time.monotonic()
        container.signal("TERM")
        process.wait(TIMEOUT)
        seconds = time.monotonic() - requested_at
    assert 2 <= seconds < 2 + TOLERANCE
    assert container.wait_for_exit().code == 137


def is_blocked(process: psutil.Process) -> bool:
    """Whether its child, which writes all the time, sleeps and uses no processor time for a second."""
    (agent,) = process.children() or (process,)
    before = agent.cpu_times()
    time.sleep(1)
    return agent != process and agent.status() == psutil.STATUS_SLEEPING and agent.cpu_times() == before


@contextlib.contextmanager
def listener_that_never_reads() -> Iterator[tuple[Path, threading.Event]]:
    """A socket that accepts connections and never reads from them."""
    with (
        tempfile.TemporaryDirectory(prefix="agent-init-", dir="/tmp") as folder,
        socket.socket(socket.AF_UNIX) as server,
    ):
        address = Path(folder) / "log"
        server.bind(str(address))
        server.listen()
        connected = threading.Event()
        held: list[socket.socket] = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    held.append(server.accept()[0])
                    connected.set()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield address, connected
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            for connection in held:
                connection.close()

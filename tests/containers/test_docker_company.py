"""Containers where agent-init is not alone: another process 1, a shared process namespace, somebody's exec session."""

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

from .container import RECORDER, SLACK, WITHIN, Containers, await_true


def test_below_dockers_own_init(containers: Containers) -> None:
    """`docker run --init`: tini is process 1, agent-init a subreaper; it does all the same, warning about nothing."""
    container = containers.run(*RECORDER, "--orphans=3", "--children=1", options=("--init",), ready=None, VERBOSE="1")
    container.await_line("ready", times=2)
    assert container.event("started")["role"] == "subreaper"
    assert container.processes()[1][0] in ("docker-init", "tini")
    assert len(container.await_event("reaped", times=3)) == 3
    ended, seconds = container.stop()

    assert ended.code == 0
    assert seconds < 10
    assert container.signals() == ["TERM", "TERM"]
    assert container.output().count("cleaned up") == 2
    assert container.event("stop-requested")["sender"].startswith(("docker-init", "tini"))
    assert {line["level"] for line in container.events()} == {"info", "debug"}
    assert container.stray() == []


def test_in_the_process_namespace_of_another_container(containers: Containers) -> None:
    """`--pid=container:`, as a Kubernetes pod with shareProcessNamespace: each is stopped without harm to the other."""
    neighbour = containers.run(*RECORDER)
    options = ("--pid", f"container:{neighbour.name}")
    container = containers.run(*RECORDER, "--orphans=3", "--children=1", options=options, ready=None, VERBOSE="1")
    container.await_line("ready", times=2)
    assert container.event("started")["role"] == "subreaper"
    assert len(container.await_event("reaped", times=3)) == 3

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


def test_a_deadline_in_a_shared_process_namespace_hits_only_our_own(containers: Containers) -> None:
    neighbour = containers.run(*RECORDER)
    options = ("--pid", f"container:{neighbour.name}")
    stubborn = (*RECORDER, "--stop-on=", "--children=1")
    container = containers.run(*stubborn, options=options, ready=None, GRACE="1s")
    container.await_line("ready", times=2)
    ended, seconds = container.stop("-t", "60")

    assert ended.code == 137
    assert 1 <= seconds < 1 + SLACK
    assert neighbour.running()
    assert neighbour.signals() == []
    names = [name for name, state in neighbour.processes().values()]
    assert names.count("python") <= 3  # its process 1, its agent, and the look itself


@pytest.mark.parametrize("target", ["auto", "group"])
def test_an_exec_session_is_not_signalled(containers: Containers, target: str) -> None:
    """Somebody looks around in the container (`docker exec`) while it is stopped: none of our signals reaches them."""
    container = containers.run(*RECORDER, "--cleanup=3", TARGET=target)
    with exec_session(containers, container.name, *RECORDER) as session:
        assert session.stdout is not None
        assert session.stdout.readline() == "ready\n"
        ended, seconds = container.stop()
        said, _ = session.communicate(timeout=60)

    assert said == ""  # the kernel ends it together with process 1: no signal that it could have told
    assert session.returncode == 137
    assert ended.code == 0
    assert 3 <= seconds < 3 + SLACK
    assert container.signals() == ["TERM"]


def test_an_exec_session_does_not_hold_up_the_end(containers: Containers) -> None:
    """It does not descend from process 1, so the agent's end is the end; the same without any stop."""
    container = containers.run("sh", "-c", "echo ready; sleep 2; exit 5")
    with exec_session(containers, container.name, *RECORDER) as session:
        ended = container.await_end()
        session.communicate(timeout=60)
    assert ended.code == 5
    assert container.events("lingering") == []


@contextlib.contextmanager
def exec_session(containers: Containers, name: str, *command: str) -> Iterator[subprocess.Popen[str]]:
    """`docker exec`, with its output to read."""
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
def test_a_log_driver_that_stalls(containers: Containers, user: str) -> None:
    """Nobody takes the log: the agent hangs in its write to stderr, ours must not, and the deadline is kept.

    Docker may notice the end only when its log driver lets go, so process 1 itself is watched, from the host.
    """
    with silent_listener() as (address, connected):
        options = ("--log-driver", "syslog", "--log-opt", f"syslog-address=unix://{address}", "--user", user)
        container = containers.run("python", "-c", CHATTY, options=options, ready=None, GRACE="2s", VERBOSE="1")
        process = psutil.Process(container.inspect()["State"]["Pid"])
        assert connected.wait(WITHIN)
        await_true(lambda: hangs(process), "the agent hangs in its write")
        asked = time.monotonic()
        container.signal("TERM")
        process.wait(WITHIN)
        seconds = time.monotonic() - asked
    assert 2 <= seconds < 2 + SLACK
    assert container.await_end().code == 137


def hangs(process: psutil.Process) -> bool:
    """Whether its child, which writes as long as it can, sleeps and stays where it is for a second."""
    (agent,) = process.children() or (process,)
    before = agent.cpu_times()
    time.sleep(1)
    return agent != process and agent.status() == psutil.STATUS_SLEEPING and agent.cpu_times() == before


@contextlib.contextmanager
def silent_listener() -> Iterator[tuple[Path, threading.Event]]:
    """A socket that takes connections and never reads from them."""
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

"""`examples/livekit`: its Dockerfile is built unchanged, and Docker stops its worker during a call.

The image gets the packages that `tests/agents` pins for this release. The LiveKit server is the minimal one of those
tests; it runs on the host, so the container uses the host's network.
"""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tests.agents.environments import LOCKS
from tests.agents.livekit import CALL_LINES, HANG_UP_AFTER, Server
from tests.agents.process1 import NOISE

from .conftest import skip_or_fail
from .container import TIMEOUT, Container, Containers, wait_until
from .engine import Engine
from .images import BASE, PROJECT, build, cached, download

PACKAGES, IMAGE = "agent-init-test/python:livekit", "agent-init-test/livekit"
LOCK = LOCKS / "livekit.txt"


@pytest.fixture(scope="module")
def image(engine: Engine) -> str:
    """The example's image, on a base that already has the wheels from PyPI."""
    with cached("livekit-wheels", LOCK.read_text()) as (wheels, missing):
        if missing:
            partial = wheels.with_suffix(".partial")
            download(partial, "--requirement", str(LOCK))
            partial.rename(wheels)
        build(engine, PACKAGES, wheels, f"FROM {BASE}\nCOPY . /wheels\n")
    engine(
        *("build", "--network", "none", "--build-arg", f"BASE={PACKAGES}", "--tag", IMAGE),
        str(PROJECT / "examples" / "livekit"),
        timeout=600,
    )
    return IMAGE


@pytest.fixture
def livekit(image: str, engine: Engine) -> Iterator[Containers]:
    if engine("info", "--format", "{{.OperatingSystem}}").stdout.startswith("Docker Desktop"):
        skip_or_fail("with Docker Desktop the containers cannot reach the LiveKit server on this machine")
    with Containers(engine, image) as made:
        yield made


def start(livekit: Containers, server: Server) -> Container:
    settings = {"AGENT_INIT_LOG_FORMAT": "json", **server.variables}
    variables = [word for name, value in settings.items() for word in ("--env", f"{name}={value}")]
    return livekit.start("run", "--detach", *variables, livekit.image, network="host")


def test_call_is_finished_before_the_worker_stops(livekit: Containers, tmp_path: Path) -> None:
    """The image unchanged, with its entry point and settings: the call continues until the caller hangs up."""
    with closing(Server(tmp_path / "server")) as server, ThreadPoolExecutor(1) as aside:
        container = start(livekit, server)
        wait_until(lambda: has_logged(container, "call answered"), "the call is answered")
        since = time.monotonic()
        stopping = aside.submit(container.stop, "-t", "60")
        container.wait_for_events("stop-requested")
        time.sleep(max(0.0, since + HANG_UP_AFTER - time.monotonic()))
        assert "agent left the room" not in server.output()
        server.hang_up()
        ended, seconds = stopping.result()
        assert "agent left the room" in server.output()
        assert "job JS_SUCCESS" in server.output()

    assert ended.code == 0
    assert seconds >= HANG_UP_AFTER
    for text in CALL_LINES:
        assert sum(text in line for line in worker_lines(container)) == 1, text
    assert not NOISE.search("\n".join(worker_lines(container)))
    assert container.event("started")["role"] == "process 1"
    assert "KILL after 9m50s" in container.event("stop-requested")["message"]
    assert {line["level"] for line in container.events()} == {"info"}


def test_idle_worker_is_healthy_and_stops_within_10s(livekit: Containers, tmp_path: Path) -> None:
    """While connected its health check succeeds. Without a call it stops within Docker's default 10 s."""
    with closing(Server(tmp_path / "server", "idle")) as server:
        container = start(livekit, server)
        wait_until(lambda: has_logged(container, "registered worker"), "the worker has registered")
        (listening,) = (line for line in worker_lines(container) if "HTTP server listening" in line)
        port = re.search(r"listening on \S*:(\d+)", listening)
        assert port is not None
        assert health(int(port[1])) == 200
        ended, seconds = container.stop()
    assert ended.code == 0
    assert seconds < 10
    assert not NOISE.search("\n".join(worker_lines(container)))


def health(port: int) -> int:
    """The HTTP status of the health check. IPv4 and IPv6 have different ports, and only one of them is logged."""
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
        connection.connect()
    except ConnectionRefusedError:
        connection = http.client.HTTPConnection("::1", port, timeout=TIMEOUT)
    with closing(connection):
        connection.request("GET", "/")
        return connection.getresponse().status


def worker_lines(container: Container) -> list[str]:
    """The lines of the worker and its calls, without agent-init's."""
    return [*container.output(), *container.other_stderr_lines()]


def has_logged(container: Container, text: str) -> bool:
    assert container.running(), worker_lines(container)
    return any(text in line for line in container.output() + container.errors())

"""`examples/livekit`: its Dockerfile built as it is, and its worker stopped by Docker while a call is in hand.

The image gets the packages that `tests/agents` pins for this release. The far end is the stand-in of those tests, on
the host, so the container is on the host's network.
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
from tests.agents.livekit import HANGS_UP_AFTER, OF_THE_CALL, Server
from tests.agents.process1 import NOISE

from .conftest import without
from .container import WITHIN, Container, Containers, await_true
from .engine import Engine
from .images import BASE, PROJECT, build, download, kept

PACKAGES, IMAGE = "agent-init-test/python:livekit", "agent-init-test/livekit"
LOCK = LOCKS / "livekit.txt"


@pytest.fixture(scope="module")
def image(engine: Engine) -> str:
    """The example's image, on a base with the wheels that it takes from PyPI elsewhere."""
    with kept("livekit-wheels", LOCK.read_text()) as (wheels, missing):
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
        without("the stand-in server is on this machine, and Docker's containers are on another")
    with Containers(engine, image) as made:
        yield made


def start(livekit: Containers, server: Server) -> Container:
    settings = {"AGENT_INIT_LOG_FORMAT": "json", **server.variables}
    variables = [word for name, value in settings.items() for word in ("--env", f"{name}={value}")]
    return livekit.start("run", "--detach", *variables, livekit.image, network="host")


def test_stopped_in_a_call(livekit: Containers, tmp_path: Path) -> None:
    """The image as it is, entry point, settings and all: the call goes on until the caller hangs up, and ends well."""
    with closing(Server(tmp_path / "server")) as server, ThreadPoolExecutor(1) as aside:
        container = start(livekit, server)
        await_true(lambda: has_said(container, "call answered"), "the call is answered")
        since = time.monotonic()
        stopping = aside.submit(container.stop, "-t", "60")
        container.await_event("stop-requested")
        time.sleep(max(0.0, since + HANGS_UP_AFTER - time.monotonic()))
        assert "agent left the room" not in server.said()
        server.hang_up()
        ended, seconds = stopping.result()
        assert "agent left the room" in server.said()
        assert "job JS_SUCCESS" in server.said()

    assert ended.code == 0
    assert seconds >= HANGS_UP_AFTER
    for words in OF_THE_CALL:
        assert sum(words in line for line in said(container)) == 1, words
    assert not NOISE.search("\n".join(said(container)))
    assert container.event("started")["role"] == "process 1"
    assert "KILL after 9m50s" in container.event("stop-requested")["message"]
    assert {line["level"] for line in container.events()} == {"info"}


def test_idle(livekit: Containers, tmp_path: Path) -> None:
    """Its health check answers while it is connected, and without a call a stop is over within Docker's usual 10 s."""
    with closing(Server(tmp_path / "server", "idle")) as server:
        container = start(livekit, server)
        await_true(lambda: has_said(container, "registered worker"), "the worker has registered")
        (listening,) = (line for line in said(container) if "HTTP server listening" in line)
        port = re.search(r"listening on \S*:(\d+)", listening)
        assert port is not None
        assert health(int(port[1])) == 200
        ended, seconds = container.stop()
    assert ended.code == 0
    assert seconds < 10
    assert not NOISE.search("\n".join(said(container)))


def health(port: int) -> int:
    """What the health check answers. Of IPv4 and IPv6 each has a port of its own, and only one of them is told."""
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WITHIN)
        connection.connect()
    except ConnectionRefusedError:
        connection = http.client.HTTPConnection("::1", port, timeout=WITHIN)
    with closing(connection):
        connection.request("GET", "/")
        return connection.getresponse().status


def said(container: Container) -> list[str]:
    """What the worker and its calls have said."""
    return [*container.output(), *container.stray()]


def has_said(container: Container, words: str) -> bool:
    assert container.running(), said(container)
    return any(words in line for line in container.output() + container.errors())

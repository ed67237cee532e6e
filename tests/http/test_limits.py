"""Clients that send too much, too little or rubbish, and too many of them: probes are answered all the same."""

from __future__ import annotations

import os
import random
import select
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from entrypoint.serve.connection import MAX_CONNECTIONS, MAX_SECONDS
from tests.http.serving import LEAVES, READY, Served
from tests.support.init import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Start

REQUEST = b"GET /readyz HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture
def served(start: Start) -> Iterator[Served]:
    made = Served(start, agent=LEAVES + READY + "ready()")
    made.wait_until("/readyz", 200)
    server = made.wait_for_server()
    yield made
    assert made.wait_for_server().pid == server.pid  # it has survived
    assert made.ask("/readyz") == (200, "ready\n")
    made.init.wait_for_event("ready")
    made.init.signal("TERM")
    assert made.init.wait() == 0


def connect(served: Served, data: bytes = b"") -> socket.socket:
    made = socket.create_connection(("127.0.0.1", served.port), timeout=20)
    made.sendall(data)
    return made


def can_send(connection: socket.socket, data: bytes) -> bool:
    try:
        connection.sendall(data)
    except OSError:
        return False
    return True


def is_closed(connection: socket.socket) -> bool:
    """Whether the server has closed the connection; what it has sent is dropped."""
    while select.select([connection], [], [], 0)[0]:
        try:
            if not connection.recv(65536):
                return True
        except ConnectionError:
            return True
    return False


def test_clients_that_send_nothing_or_half_a_request_keep_no_probe_out(served: Served) -> None:
    idle = [connect(served, REQUEST if number % 2 else b"") for number in range(3 * MAX_CONNECTIONS)]
    for _ in range(10):
        assert served.ask("/readyz") == (200, "ready\n")
    until(lambda: all(map(is_closed, idle)), "the end of the connections", MAX_SECONDS + 20)
    for connection in idle:
        connection.close()


def test_a_request_that_comes_a_byte_at_a_time_ends_in_time(served: Served) -> None:
    slow = connect(served)
    began = time.monotonic()
    while not is_closed(slow):
        try:
            slow.sendall(b"x")
        except OSError:
            break
        time.sleep(0.1)
    assert time.monotonic() - began < MAX_SECONDS + 15
    slow.close()


def test_a_client_that_does_not_read_ends_in_time(served: Served) -> None:
    lazy = socket.socket()
    lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    lazy.settimeout(20)
    lazy.connect(("127.0.0.1", served.port))
    lazy.sendall(REQUEST.replace(b"readyz", b"metrics") + b"\r\n")
    assert served.ask("/readyz")[0] == 200
    server = served.wait_for_server()
    # Up to psutil 5.9 it had another name.
    connections = getattr(server, "net_connections", None) or server.connections
    until(lambda: not [c for c in connections() if c.status == "ESTABLISHED"], "the end of the connection")
    lazy.close()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"rubbish\r\n\r\n", b"400"),
        (b"GET /readyz\r\n\r\n", b"400"),
        (b"GET /readyz HTTP/1.1\r\n\r\n", b"400"),  # no Host
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200) + b"\r\n\r\n", b"400"),  # TLS
        (REQUEST + b"X: " + b"y" * 20000 + b"\r\n\r\n", b"431"),
        (b"GET /" + b"y" * 20000, b"431"),
        (REQUEST + b"Content-Length: 1000000\r\n\r\n", b"200"),
        (REQUEST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", b"200"),
        (REQUEST + b"\r\n" + REQUEST + b"\r\n", b"200"),
    ],
)
def test_what_is_no_request_is_answered_so(served: Served, data: bytes, status: bytes) -> None:
    with connect(served, data) as connection:
        answer = b""
        while not answer.endswith(b"\n") and (block := connection.recv(65536)):
            answer += block
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert answer.count(b"HTTP/1.1") == 1


def test_a_client_that_sends_on_after_its_request_is_cut_off(served: Served) -> None:
    with connect(served, REQUEST + b"\r\n") as endless:
        until(lambda: not can_send(endless, b"x" * 65536), "the end of the connection")


@pytest.mark.parametrize("path", [b"/metrics", b"/status", b"/readyz"])
def test_a_client_that_has_closed_its_end_gets_its_answer_at_once(start: Start, path: bytes) -> None:
    """Also that of /metrics, which asks the agent's processes first."""
    served = Served(start, "--stacks", agent=LEAVES + READY + "ready()")
    served.wait_until("/readyz", 200)
    with connect(served, b"GET " + path + b" HTTP/1.0\r\n\r\n") as connection:
        connection.shutdown(socket.SHUT_WR)
        began = time.monotonic()
        answer = b""
        while block := connection.recv(65536):
            answer += block
    assert answer.startswith(b"HTTP/1.1 200")
    assert time.monotonic() - began < MAX_SECONDS - 1  # the end of the connection came with the answer
    served.init.signal("TERM")
    assert served.init.wait() == 0


def test_a_client_that_closes_its_end_within_its_request_is_closed(served: Served) -> None:
    with connect(served, REQUEST) as connection:
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(65536) == b""


def test_rubbish_does_no_harm(served: Served) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    chance = random.Random(seed)
    parts = (b"GET ", b"/metrics", b" HTTP/1.1\r\n", b"Host: x\r\n", b"\r\n", b"Accept: ", b"\0", b"\xff", b"%", b";q=")
    for _ in range(200):
        data = b"".join(chance.choice((*parts, chance.randbytes(5))) for _ in range(chance.randrange(12)))
        try:
            connect(served, data).close()
        except OSError:
            pass
    assert served.ask("/livez")[0] == 200, f"seed {seed}"


def test_a_probe_is_answered_beside_many_scrapes(served: Served) -> None:
    until_when = time.monotonic() + 2
    codes: set[int] = set()

    def scrape() -> None:
        while time.monotonic() < until_when:
            codes.add(served.ask("/metrics")[0])

    threads = [threading.Thread(target=scrape) for _ in range(8)]
    for thread in threads:
        thread.start()
    while time.monotonic() < until_when:
        assert served.ask("/readyz")[0] == 200
    for thread in threads:
        thread.join()
    assert codes == {200}

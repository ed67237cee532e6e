"""A stop of 1,000 processes takes as long with 200 scrapes a second as without."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.http.serving import READY, Served
from tests.support.init import until
from tests.support.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Start

PROCESSES, RATE = 1000, 200
AGENT = f"""
for _ in range({PROCESSES - 1}):
    os.posix_spawn("/bin/sleep", ["sleep", "100"], os.environ)
on('TERM', lambda: leave(0))
{READY}
ready()
"""
SCRAPER = """
import socket, sys, time
port, rate, file = int(sys.argv[1]), int(sys.argv[2]), open(sys.argv[3], "w")
begin, done = time.monotonic(), 0
while True:
    done += 1
    time.sleep(max(0.0, begin + done / rate - time.monotonic()))
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(b"GET /metrics HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
        if client.recv(65536).startswith(b"HTTP/1.1 200"):
            file.write(".")
            file.flush()
"""


def seconds_of_stop(served: Served) -> float:
    served.init.wait_for_event("ready")
    began = time.monotonic()
    served.init.signal("TERM")
    assert served.init.wait() == 0
    return time.monotonic() - began


@pytest.mark.crowd
def test_scrapes_do_not_hold_up_a_large_stop(start: Start, tmp_path: Path) -> None:
    options = ("-t", "60s", "--target", "child")
    alone = seconds_of_stop(Served(start, *options, agent=AGENT))
    scraped = tmp_path / "scraped"
    served = Served(start, *options, port=free_port(), agent=AGENT)
    served.wait_until("/readyz", 200)
    argv = [sys.executable, "-S", "-c", SCRAPER, str(served.port), str(RATE), str(scraped)]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as scraper:
        until(lambda: scraped.exists() and scraped.stat().st_size >= RATE, "a second of scrapes")
        under_load = seconds_of_stop(served)
        scraper.kill()
    assert under_load < 1.5 * alone + 0.5  # measured: no difference; the machine may be busy

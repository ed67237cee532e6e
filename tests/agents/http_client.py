"""A request to a web server of the tests."""

from __future__ import annotations

import http.client

from .process1 import TIMEOUT


def get(port: int, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()

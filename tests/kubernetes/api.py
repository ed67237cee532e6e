"""Talk to the API server of a cluster that has a network namespace of its own."""

from __future__ import annotations

import ctypes
import http.client
import json
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
Object = dict[str, Any]

CLONE_NEWNET = 0x40000000  # linux/sched.h
TIMEOUT = 120.0


class ApiError(Exception):
    """A request that the API server refused: its status code, and what it says."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


def in_network(pid: int, call: Callable[[], T]) -> T:
    """Run `call` in the network namespace of a process; what it connects stays connected."""
    result: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
            try:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(fd, CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            finally:
                os.close(fd)
            result.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)  # it ends with its namespace
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return result[0]


class Api:
    """The API server at 127.0.0.1:`port` in the network of process `pid`. Every method can raise ApiError."""

    def __init__(self, pid: int, port: int, certificate: Path, token: str) -> None:
        self.pid, self.port, self.token = pid, port, token
        self.certificate = certificate

    def _connect(self) -> http.client.HTTPConnection:
        raw = in_network(self.pid, lambda: socket.create_connection(("127.0.0.1", self.port), TIMEOUT))
        context = ssl.create_default_context(cafile=str(self.certificate))
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # it is self-signed, without all that a public one has
        connection = http.client.HTTPConnection("localhost", self.port)
        connection.sock = context.wrap_socket(raw, server_hostname="localhost")
        return connection

    def request(self, verb: str, path: str, body: Object | None = None, kind: str = "application/json") -> Object:
        connection = self._connect()
        try:
            answer = self._send(connection, verb, path, body, kind)
            text = answer.read()
        finally:
            connection.close()
        return json.loads(text) if text.startswith(b"{") else {"text": text.decode()}

    def _send(
        self, connection: http.client.HTTPConnection, verb: str, path: str, body: Object | None, kind: str
    ) -> http.client.HTTPResponse:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": kind}
        connection.request(verb, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        if answer.status >= 400:
            raise ApiError(answer.status, answer.read().decode(errors="replace")[:2000])
        return answer

    def get(self, path: str) -> Object:
        return self.request("GET", path)

    def create(self, path: str, body: Object) -> Object:
        return self.request("POST", path, body)

    def delete(self, path: str, **options: Any) -> Object:
        return self.request("DELETE", path, {"kind": "DeleteOptions", "apiVersion": "v1", **options})

    def patch(self, path: str, body: Object) -> Object:
        return self.request("PATCH", path, body, "application/strategic-merge-patch+json")

    def watch(self, path: str, version: str) -> Iterator[Object]:
        """Yield the events of a list from this resource version on, until the connection ends."""
        connection = self._connect()
        try:
            joined = "&" if "?" in path else "?"
            answer = self._send(
                connection, "GET", f"{path}{joined}watch=1&resourceVersion={version}", None, "application/json"
            )
            assert connection.sock
            connection.sock.settimeout(None)
            while line := answer.readline():
                yield json.loads(line)
        finally:
            connection.close()

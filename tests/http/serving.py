"""Run agent-init with an HTTP server, and ask that."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any

import psutil

from tests.support.init import Init, until
from tests.support.ports import free_port
from tests.support.proc import status

if TYPE_CHECKING:
    from tests.conftest import Start

READY = "notify('READY=1'); "
LEAVES = "on('TERM', lambda: leave(0)); "
PATIENCE = 20.0  # seconds for an answer: the machine may be busy


class Served:
    """A run with --http."""

    def __init__(self, start: Start, *options: str, port: int = 0, **more: Any) -> None:
        self.port = port or free_port()
        self.init: Init = start("--http", f":{self.port}", *options, **more)

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
        """Return the status and the text of an answer. Raises OSError if nobody listens."""
        response, text = self.response(path, method, **headers)
        return response.status, text

    def response(self, path: str, method: str = "GET", **headers: str) -> tuple[http.client.HTTPResponse, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return response, response.read().decode()
        finally:
            connection.close()

    def status_of(self, path: str) -> int:
        """Return the status of an answer, 0 if nobody listens."""
        try:
            return self.ask(path)[0]
        except OSError:
            return 0

    def wait_until(self, path: str, status: int) -> None:
        until(lambda: self.status_of(path) == status, f"{status} from {path}; stderr:\n{self.init.stderr}")

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ask("/status")[1])
        return found

    def server(self) -> psutil.Process | None:
        """The process of the server."""
        for child in psutil.Process(self.init.pid).children():
            try:
                if any("entrypoint/serve/" in argument for argument in child.cmdline()):
                    return child
            except psutil.Error:
                continue
        return None

    def wakings_of_process_1(self) -> int:
        """How often process 1 has been woken up so far."""
        found = status(self.init.pid)
        return int(found["voluntary_ctxt_switches"]) + int(found["nonvoluntary_ctxt_switches"])

    def wait_for_server(self) -> psutil.Process:
        found = until(self.server, f"the server; stderr:\n{self.init.stderr}")
        assert isinstance(found, psutil.Process)
        return found

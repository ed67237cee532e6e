"""LiveKit's own server, built from Go's module proxy.

`python -m tests.livekit.server` builds it and prints its path: 90 s of CPU time, once.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from tests.support import go_programs
from tests.support.ports import free_port

MODULE, VERSION = "github.com/livekit/livekit-server", "v1.13.5"
# 1.13.6 and later replace three modules by forks that the module proxy does not have.

ADDRESS = "127.0.0.1"
KEY, SECRET = "key", "a secret that is long enough for LiveKit"
PATIENCE = 60.0  # seconds until it listens


def binary() -> Path:
    """Return the path of the server, after a build if there is none yet. Raises go_programs.BuildFailed."""
    return go_programs.programs(MODULE, VERSION, ["cmd/server"]) / "server"


def command(address: str, port: int, media_tcp: int, media_udp: int) -> list[str]:
    """The command of a server at this address, with these ports. Raises go_programs.BuildFailed."""
    rtc = {
        "node_ip": address,
        "use_external_ip": False,
        "enable_loopback_candidate": address.startswith("127."),
        "udp_port": media_udp,
        "tcp_port": media_tcp,
    }
    config = {"port": port, "bind_addresses": [address], "keys": {KEY: SECRET}, "rtc": rtc}
    return [str(binary()), "--config-body", json.dumps(config)]  # JSON is YAML


def variables(url: str) -> dict[str, str]:
    """The environment of workers and callers."""
    return {"LIVEKIT_URL": url, "LIVEKIT_API_KEY": KEY, "LIVEKIT_API_SECRET": SECRET}


class Server:
    """A server with ports of its own."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "livekit-server.log"
        self.port = free_port(socket.SOCK_STREAM)
        ports = self.port, free_port(socket.SOCK_STREAM), free_port(socket.SOCK_DGRAM)
        self._command = command(ADDRESS, *ports)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"ws://{ADDRESS}:{self.port}"

    @property
    def variables(self) -> dict[str, str]:
        """The environment of workers and callers."""
        return variables(self.url)

    def start(self) -> None:
        """Start it and wait until it listens."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + PATIENCE
        while not self._answers():
            assert self._process.poll() is None, f"the LiveKit server exited\n{self.output()}"
            assert time.monotonic() < end, f"the LiveKit server does not listen\n{self.output()}"
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill it, without a farewell to anybody."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{ADDRESS}:{self.port}", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


if __name__ == "__main__":
    sys.exit(go_programs.main(binary))

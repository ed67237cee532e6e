"""LiveKit's own server, built from Go's module proxy.

`python -m tests.livekit.server` builds it and prints its path: 270 s of CPU time, once.
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

KEY, SECRET = "key", "a secret that is long enough for LiveKit"
PATIENCE = 60.0  # seconds until it listens


def binary() -> Path:
    """Return the path of the server, after a build if there is none yet. Raises go_programs.BuildFailed."""
    return go_programs.programs(MODULE, VERSION, ["cmd/server"]) / "server"


class Server:
    """A server with ports of its own. `address` is where workers and callers reach it, also for their media."""

    def __init__(self, folder: Path, address: str = "127.0.0.1") -> None:
        self._log = folder / "livekit-server.log"
        self._address, self.port = address, free_port(socket.SOCK_STREAM)
        rtc = {
            "node_ip": address,
            "use_external_ip": False,
            "enable_loopback_candidate": True,
            "udp_port": free_port(socket.SOCK_DGRAM),
            "tcp_port": free_port(socket.SOCK_STREAM),
        }
        config = {"port": self.port, "bind_addresses": [address], "keys": {KEY: SECRET}, "rtc": rtc}
        self._command = [str(binary()), "--config-body", json.dumps(config)]  # JSON is YAML
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"ws://{self._address}:{self.port}"

    @property
    def variables(self) -> dict[str, str]:
        """The environment of workers and callers."""
        return {"LIVEKIT_URL": self.url, "LIVEKIT_API_KEY": KEY, "LIVEKIT_API_SECRET": SECRET}

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
            with urllib.request.urlopen(f"http://{self._address}:{self.port}", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


if __name__ == "__main__":
    sys.exit(go_programs.main(binary))

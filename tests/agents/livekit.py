"""The far end of a LiveKit worker, and what the worker of `examples/livekit` says of a call that ended well."""

from __future__ import annotations

import subprocess
import time
import urllib.request
from pathlib import Path

from .environments import HERE, environment
from .process1 import PATIENCE

HANGS_UP_AFTER = 4.0  # seconds from the stop
OF_THE_CALL = ("transcript closed", "look-up finished", "call saved")


class Server:
    """The far end, in a process of its own."""

    def __init__(self, log: Path, *arguments: str) -> None:
        self._log = log
        with log.open("wb") as out:
            program = [environment("livekit-server").python, str(HERE / "programs" / "livekit_server.py"), *arguments]
            self._process = subprocess.Popen(program, stdout=out, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + PATIENCE
        while "\n" not in self.said():
            assert time.monotonic() < deadline, "the stand-in server does not start"
            time.sleep(0.01)
        self.port = int(self.said().split()[0])

    @property
    def variables(self) -> dict[str, str]:
        return {
            "LIVEKIT_URL": f"ws://127.0.0.1:{self.port}",
            "LIVEKIT_API_KEY": "key",
            "LIVEKIT_API_SECRET": "a secret that is long enough for it",
            "PORT": "0",
            "MAX_LOAD": "inf",
        }

    def said(self) -> str:
        return self._log.read_text()

    def hang_up(self) -> None:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/hangup", method="POST")
        urllib.request.urlopen(request, timeout=PATIENCE).close()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

"""The server side of a LiveKit worker, and the lines that `examples/livekit` prints when a call is finished."""

from __future__ import annotations

import subprocess
import time
import urllib.request
from pathlib import Path

from .environments import HERE, environment
from .process1 import TIMEOUT

HANG_UP_AFTER = 4.0  # seconds from the stop request
CALL_LINES = ("transcript closed", "look-up finished", "call saved")


class Server:
    """A process that runs `programs/livekit_server.py`."""

    def __init__(self, log: Path, *arguments: str) -> None:
        self._log = log
        with log.open("wb") as out:
            program = [environment("livekit-server").python, str(HERE / "programs" / "livekit_server.py"), *arguments]
            self._process = subprocess.Popen(program, stdout=out, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + TIMEOUT
        while "\n" not in self.output():
            assert time.monotonic() < deadline, "the LiveKit server of the tests does not start"
            time.sleep(0.01)
        self.port = int(self.output().split()[0])

    @property
    def variables(self) -> dict[str, str]:
        return {
            "LIVEKIT_URL": f"ws://127.0.0.1:{self.port}",
            "LIVEKIT_API_KEY": "key",
            "LIVEKIT_API_SECRET": "a secret that is long enough for it",
            "PORT": "0",
            "MAX_LOAD": "inf",
        }

    def output(self) -> str:
        return self._log.read_text()

    def hang_up(self) -> None:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/hangup", method="POST")
        urllib.request.urlopen(request, timeout=TIMEOUT).close()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

"""One call through LiveKit's server: a caller, and a worker as process 1 or behind an init.

What became of the call is known from the records that the caller and the agent write (programs/records.py).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import time
from pathlib import Path
from signal import Signals
from typing import TYPE_CHECKING, Any, Protocol

from tests.agents.environments import PROJECT, environment
from tests.agents.process1 import UNSHARE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PROGRAMS = Path(__file__).with_name("programs")
EXAMPLE = PROJECT / "examples" / "livekit"
VOICE_AGENT, CALLER = PROGRAMS / "voice_agent.py", PROGRAMS / "caller.py"
ROOM = "call"
PATIENCE = 120.0  # seconds; a worker imports for 20 s on a busy machine, and a dead agent leaves after 20 s
CALLERS_ENVIRONMENT = "livekit"

VOICE = ("python", str(VOICE_AGENT), "start")
AGENT_INIT = ("agent-init", "--log-format", "json", "--")
TINI = ("tini", "--")

Record = dict[str, Any]


class Reachable(Protocol):
    """A LiveKit server."""

    @property
    def url(self) -> str: ...

    @property
    def variables(self) -> dict[str, str]: ...


class Caller:
    """A caller who talks until `hang_up`, or for some seconds. It has its own release of LiveKit's SDK.

    `enter`: a command that runs it elsewhere, such as nsenter(1).
    """

    def __init__(
        self,
        server: Reachable,
        folder: Path,
        room: str = ROOM,
        *,
        seconds: float = math.inf,
        enter: Sequence[str] = (),
    ) -> None:
        self._records = folder / f"{room}.caller"
        python = environment(CALLERS_ENVIRONMENT).python
        command = [*enter, python, str(CALLER), server.url, room, str(folder), str(seconds)]
        with (folder / "caller.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **server.variables},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )

    def records(self, event: str = "") -> list[Record]:
        return read(self._records, event)

    def answers(self, since: float = 0.0) -> int:
        """How often the agent has begun to speak since a time (time.time())."""
        return sum(record["at"] >= since for record in self.records("heard"))

    def hang_up(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(PATIENCE)

    def wait(self, patience: float = PATIENCE) -> None:
        """Wait until it has hung up: because the agent has left, or its time is up."""
        self._process.wait(patience)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()


class Worker:
    """A worker in a PID namespace of its own, under an init. `release` is an environment of tests/agents."""

    def __init__(
        self,
        server: Reachable,
        folder: Path,
        release: str,
        command: Sequence[str],
        *,
        init: Sequence[str] = AGENT_INIT,
        **variables: str,
    ) -> None:
        self._folder, self._log = folder, folder / "worker.log"
        environment_ = environment(release)
        given = {
            "PATH": f"{environment_.bin}:{os.environ['PATH']}",
            "PYTHONPATH": f"{PROGRAMS}:{EXAMPLE}",
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "CALL_RECORDS": str(folder),
            "PORT": "0",
            "MAX_LOAD": "inf",
            **server.variables,
            **variables,
        }
        with self._log.open("wb") as log:
            self._unshare = subprocess.Popen(
                [*UNSHARE, *init, *command], env=given, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder
            )

    def records(self, event: str = "") -> list[Record]:
        return read(self._folder / f"{ROOM}.agent", event)

    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def logged(self, event: str) -> list[Record]:
        """The lines of agent-init about one event."""
        lines = (line for line in self.output().splitlines() if line.startswith('{"') and '"event"' in line)
        return [record for record in map(json.loads, lines) if record.get("event") == event]

    def ignores(self, pid: int, number: Signals) -> bool:
        """Whether the process with this pid in its namespace ignores a signal."""
        namespace = os.readlink(f"/proc/{self._process1()}/ns/pid")
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                status = dict(line.split(":\t", 1) for line in (folder / "status").read_text().splitlines())
                if os.readlink(folder / "ns/pid") == namespace and int(status["NSpid"].split()[-1]) == pid:
                    return bool(int(status["SigIgn"], 16) >> number - 1 & 1)
        raise AssertionError(f"no process {pid}\n{self.transcript()}")

    def _process1(self) -> int:
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children").read_text().split()
        return int(children[0])

    def signal(self, number: Signals) -> float:
        """Send a signal to process 1, and return the time (time.time())."""
        now = time.time()
        os.kill(self._process1(), number)
        return now

    def running(self) -> bool:
        return self._unshare.poll() is None

    def wait(self) -> int:
        """Wait for its exit and return the exit code, as a container engine reports it."""
        try:
            code = self._unshare.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {PATIENCE:.0f} s\n{self.transcript()}") from None
        return code if code >= 0 else 128 - code

    def close(self) -> None:
        self._unshare.kill()
        self._unshare.wait()

    def transcript(self) -> str:
        texts = [
            f"--- {path.name}\n{path.read_text(errors='replace')}"
            for path in sorted(self._folder.iterdir())
            if path.is_file()
        ]
        return "\n".join(texts)

    def until(self, condition: Callable[[], Any], what: str) -> None:
        """Wait until a condition holds. Raises AssertionError with all records and logs."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, f"timed out waiting for {what}\n{self.transcript()}"
            time.sleep(0.05)


def read(path: Path, event: str = "") -> list[Record]:
    """The records in a file, of one event if asked."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    records = [json.loads(line) for line in lines if line.endswith("\n")]
    return [record for record in records if event in ("", record["event"])]

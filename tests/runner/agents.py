"""An agent of `programs/stops.py`, alone, as process 1 or under agent-init, and the receiver of its reports."""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.support.init import AGENT_INIT, until

from .pythons import environment

if TYPE_CHECKING:
    from tests.conftest import Start
    from tests.support.init import Init

PROGRAM = Path(__file__).parent / "programs" / "stops.py"
SETUPS = ("alone", "process 1", "agent-init", "agent-init as process 1")


class Agent:
    """One run. What it prints is in `lines`, what goes to stderr in `stderr`."""

    def __init__(
        self, start: Start, directory: Path, kind: str, grace: float | None, setup: str, **variables: str
    ) -> None:
        argv = [str(PROGRAM), kind, *([] if grace is None else [str(grace)])]
        options = []
        if "agent-init" in setup:
            options = ["--grace", "25s", "--", sys.executable]
        self.output = directory / "output"
        with self.output.open("wb") as output:
            self.init: Init = start(
                *options,
                command=argv,
                program=[str(AGENT_INIT) if options else sys.executable],
                process1="process 1" in setup,
                env=environment(**variables),
                stdout=output,
            )

    @property
    def lines(self) -> list[str]:
        return self.output.read_text().splitlines()

    @property
    def stderr(self) -> str:
        """Without the lines of agent-init itself."""
        lines = self.init.stderr.splitlines(keepends=True)
        return "".join(line for line in lines if not line.startswith("agent-init: "))

    def until_printed(self, line: str) -> None:
        self.init.wait_for(lambda: line in self.lines, f"{line!r} in {self.lines}")

    def stop(self, signal: str = "TERM") -> float:
        """Returns when, on the monotonic clock."""
        self.until_printed("ready")
        self.init.signal(signal)
        return time.monotonic()


class Message(NamedTuple):
    at: float  # on the monotonic clock
    fields: dict[str, str]


class Listener:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, path: Path, abstract: bool = False) -> None:
        self.variable = f"@{path}" if abstract else str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{path}" if abstract else str(path))
        self._socket.setblocking(False)
        self._messages: list[Message] = []

    def messages(self, key: str = "") -> list[Message]:
        """What has come so far; those that name `key`."""
        while True:
            try:
                text = self._socket.recv(8192).decode()
            except BlockingIOError:
                return [message for message in self._messages if not key or key in message.fields]
            fields = dict(line.split("=", 1) for line in text.splitlines())
            self._messages.append(Message(time.monotonic(), fields))

    def receive(self, key: str, times: int = 1) -> Message:
        """The n-th message that names `key`, awaited."""
        messages: list[Message] = until(
            lambda: found if len(found := self.messages(key)) >= times else None, f"{key} in {self._messages}"
        )
        return messages[times - 1]

    def reports(self) -> list[dict[str, str]]:
        """All but the pings."""
        return [message.fields for message in self.messages() if "WATCHDOG" not in message.fields]

    def close(self) -> None:
        self._socket.close()

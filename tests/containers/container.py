"""A container under test, started, observed and stopped only through the `docker` command."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from .engine import Engine
from .images import PROBE

T = TypeVar("T")
Event = dict[str, Any]

TIMEOUT = 60.0  # seconds to wait for a thing that must happen
TOLERANCE = 4.0  # seconds that a busy machine may add to an asserted time

RECORDER = ("python", "/probe/recorder.py")


def wait_until(look: Callable[[], T], what: str, *, within: float = TIMEOUT) -> T:
    """Call `look` until its value is true, and return it. Raises AssertionError after `within` seconds."""
    deadline = time.monotonic() + within
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {within:.0f} s: {what}"
        time.sleep(0.05)
    return found


@dataclass(frozen=True)
class Exit:
    """How a container exited. `at`: seconds since the epoch, on the engine's clock."""

    code: int
    at: float
    oom_killed: bool


class Container:
    """One container. Agents write to stdout; agent-init logs to stderr, as JSON by default."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine, self.name = engine, name

    # --- Observe it. ---

    def inspect(self) -> dict[str, Any]:
        (found,) = json.loads(self.engine("inspect", self.name).stdout)
        assert isinstance(found, dict)
        return found

    def running(self) -> bool:
        return bool(self.inspect()["State"]["Running"])

    def output(self) -> list[str]:
        """The agent's lines on stdout."""
        return self.engine("logs", self.name).stdout.splitlines()

    def errors(self) -> list[str]:
        """The lines on stderr: agent-init's and others."""
        return self.engine("logs", self.name).stderr.splitlines()

    def events(self, event: str | None = None) -> list[Event]:
        """The log lines of agent-init: all of them, or those of one event."""
        lines = [json.loads(line) for line in self.errors() if line.startswith("{")]
        return [line for line in lines if event in (None, line["event"])]

    def event(self, event: str) -> Event:
        """The log line of this event, which must be the only one."""
        found = self.events(event)
        assert len(found) == 1, f"{event}: {self.events()}"
        return found[0]

    def other_stderr_lines(self) -> list[str]:
        """Lines on stderr that are not agent-init's: tracebacks, warnings of a shell or of Python."""
        return [line for line in self.errors() if not line.startswith("{")]

    def signals(self) -> list[str]:
        """The signals that the agent has received, in order."""
        return [line.removeprefix("got ") for line in self.output() if line.startswith("got ")]

    def processes(self) -> dict[int, tuple[str, str]]:
        """The processes in the container: pid inside to name and state."""
        code = "import glob; [print(open(p).read()) for p in sorted(glob.glob('/proc/[0-9]*/stat'))]"
        lines = self.engine("exec", self.name, "python", "-c", code).stdout.splitlines()
        fields = [
            (line.split(" (")[0], line.split("(")[1].split(")")[0], line.split(") ")[1][0]) for line in lines if line
        ]
        return {int(pid): (name, state) for pid, name, state in fields}

    # --- Wait. ---

    def wait_for_line(self, line: str, *, times: int = 1) -> None:
        wait_until(lambda: self.output().count(line) >= times, f"{line!r} {times} times on stdout of {self.name}")

    def wait_for_events(self, event: str, *, times: int = 1) -> list[Event]:
        def look() -> list[Event]:
            found = self.events(event)
            return found if len(found) >= times else []

        return wait_until(look, f"event {event!r} {times} times in {self.name}: {self.errors()}")

    def wait_for_exit(self) -> Exit:
        """Wait until it exits; return how."""
        self.engine("wait", self.name)
        state = self.inspect()["State"]
        at = datetime.fromisoformat(state["FinishedAt"][:26].rstrip("Z") + "+00:00").timestamp()
        return Exit(int(state["ExitCode"]), at, bool(state["OOMKilled"]))

    # --- Act on it. ---

    def signal(self, name: str) -> None:
        """`docker kill --signal`."""
        self.engine("kill", "--signal", name, self.name)

    def stop(self, *options: str) -> tuple[Exit, float]:
        """`docker stop`. Return how it exited, and the seconds since the request."""
        requested_at = time.time()
        self.engine("stop", *options, self.name)
        ended = self.wait_for_exit()
        return ended, ended.at - requested_at


class Containers:
    """Creates containers of one image and removes them."""

    def __init__(self, engine: Engine, image: str = PROBE) -> None:
        self.engine, self.image = engine, image
        self.created: list[Container] = []

    def run(
        self,
        *command: str,
        options: tuple[str, ...] = (),
        ready: str | None = "ready",
        **environment: str,
    ) -> Container:
        """`docker run --detach` without a network; wait for the agent's line `ready`.

        Keywords are settings of agent-init: `GRACE="2s"` sets AGENT_INIT_GRACE.
        """
        settings = {"LOG_FORMAT": "json", **environment}
        made = self.start("run", "--detach", *options, *as_options(settings), self.image, *command)
        if ready is not None:
            made.wait_for_line(ready)
        return made

    def start(self, verb: str, *arguments: str, network: str = "none") -> Container:
        """`docker run --detach` or `docker create` with these arguments."""
        done = self.engine(verb, "--network", network, *arguments)
        container = Container(self.engine, done.stdout.strip()[:12])
        self.created.append(container)
        return container

    def __enter__(self) -> Containers:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove_all()

    def remove_all(self) -> None:
        """Print the logs, which pytest shows if the test failed, and remove the containers."""
        for container in self.created:
            logs = self.engine("logs", container.name, check=False)
            print(f"--- {container.name} stdout:\n{logs.stdout[-3000:]}--- stderr:\n{logs.stderr[-9000:]}")
        if self.created:
            self.engine("rm", "--force", *(container.name for container in self.created))


def as_options(settings: Mapping[str, str]) -> list[str]:
    """Settings of agent-init as options of `docker run`."""
    return [word for name, value in settings.items() for word in ("--env", f"AGENT_INIT_{name}={value}")]

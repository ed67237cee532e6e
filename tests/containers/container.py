"""A container under test: started, watched and stopped by the `docker` command alone."""

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

WITHIN = 60.0  # for what takes milliseconds on a quiet machine
SLACK = 4.0  # what a busy machine may add to a time that is asserted

RECORDER = ("python", "/probe/recorder.py")


def await_true(look: Callable[[], T], what: str, *, within: float = WITHIN) -> T:
    """Look again and again until there is something; returns it."""
    deadline = time.monotonic() + within
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {within:.0f} s: {what}"
        time.sleep(0.05)
    return found


@dataclass(frozen=True)
class Ended:
    """How a life of a container ended. `at`: seconds since the epoch, on the engine's clock."""

    code: int
    at: float
    oom_killed: bool


class Container:
    """One container. Agents write on stdout, agent-init on stderr, as JSON unless told otherwise."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine, self.name = engine, name

    # --- What can be seen of it. ---

    def inspect(self) -> dict[str, Any]:
        (found,) = json.loads(self.engine("inspect", self.name).stdout)
        assert isinstance(found, dict)
        return found

    def running(self) -> bool:
        return bool(self.inspect()["State"]["Running"])

    def output(self) -> list[str]:
        """What the agent has said."""
        return self.engine("logs", self.name).stdout.splitlines()

    def errors(self) -> list[str]:
        """What there is on stderr: our lines and whatever else."""
        return self.engine("logs", self.name).stderr.splitlines()

    def events(self, event: str | None = None) -> list[Event]:
        """Our lines; all of them, or those of one event."""
        lines = [json.loads(line) for line in self.errors() if line.startswith("{")]
        return [line for line in lines if event in (None, line["event"])]

    def event(self, event: str) -> Event:
        """The one line of this event."""
        found = self.events(event)
        assert len(found) == 1, f"{event}: {self.events()}"
        return found[0]

    def stray(self) -> list[str]:
        """Lines on stderr that are not ours: tracebacks, warnings of a shell or of Python."""
        return [line for line in self.errors() if not line.startswith("{")]

    def signals(self) -> list[str]:
        """The signals that the agent got, in order."""
        return [line.removeprefix("got ") for line in self.output() if line.startswith("got ")]

    def processes(self) -> dict[int, tuple[str, str]]:
        """Pid, as the container sees it, to name and state of what runs in it."""
        code = "import glob; [print(open(p).read()) for p in sorted(glob.glob('/proc/[0-9]*/stat'))]"
        lines = self.engine("exec", self.name, "python", "-c", code).stdout.splitlines()
        fields = [
            (line.split(" (")[0], line.split("(")[1].split(")")[0], line.split(") ")[1][0]) for line in lines if line
        ]
        return {int(pid): (name, state) for pid, name, state in fields}

    # --- Waiting. ---

    def await_line(self, line: str, *, times: int = 1) -> None:
        await_true(lambda: self.output().count(line) >= times, f"{line!r} {times} times on stdout of {self.name}")

    def await_event(self, event: str, *, times: int = 1) -> list[Event]:
        def look() -> list[Event]:
            found = self.events(event)
            return found if len(found) >= times else []

        return await_true(look, f"event {event!r} {times} times in {self.name}: {self.errors()}")

    def await_end(self) -> Ended:
        """Wait until it has ended, and tell how."""
        self.engine("wait", self.name)
        state = self.inspect()["State"]
        at = datetime.fromisoformat(state["FinishedAt"][:26].rstrip("Z") + "+00:00").timestamp()
        return Ended(int(state["ExitCode"]), at, bool(state["OOMKilled"]))

    # --- What can be done to it. ---

    def signal(self, name: str) -> None:
        """`docker kill --signal`."""
        self.engine("kill", "--signal", name, self.name)

    def stop(self, *options: str) -> tuple[Ended, float]:
        """`docker stop`: how it ended, and how many seconds after the request."""
        asked = time.time()
        self.engine("stop", *options, self.name)
        ended = self.await_end()
        return ended, ended.at - asked


class Containers:
    """Makes containers of one image, and removes them again."""

    def __init__(self, engine: Engine, image: str = PROBE) -> None:
        self.engine, self.image = engine, image
        self.made: list[Container] = []

    def run(
        self,
        *command: str,
        options: tuple[str, ...] = (),
        ready: str | None = "ready",
        **environment: str,
    ) -> Container:
        """`docker run --detach`, without a network, and wait for the agent's line `ready`.

        Keywords are settings of agent-init: `GRACE="2s"` is AGENT_INIT_GRACE.
        """
        settings = {"LOG_FORMAT": "json", **environment}
        made = self.start("run", "--detach", *options, *as_options(settings), self.image, *command)
        if ready is not None:
            made.await_line(ready)
        return made

    def start(self, verb: str, *arguments: str, network: str = "none") -> Container:
        """`docker run --detach` or `docker create`, with these arguments."""
        done = self.engine(verb, "--network", network, *arguments)
        container = Container(self.engine, done.stdout.strip()[:12])
        self.made.append(container)
        return container

    def __enter__(self) -> Containers:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove_all()

    def remove_all(self) -> None:
        """Remove them, and print what they said: pytest shows it of a test that failed."""
        for container in self.made:
            logs = self.engine("logs", container.name, check=False)
            print(f"--- {container.name} stdout:\n{logs.stdout[-3000:]}--- stderr:\n{logs.stderr[-9000:]}")
        if self.made:
            self.engine("rm", "--force", *(container.name for container in self.made))


def as_options(settings: Mapping[str, str]) -> list[str]:
    """Settings of agent-init as options of `docker run`."""
    return [word for name, value in settings.items() for word in ("--env", f"AGENT_INIT_{name}={value}")]

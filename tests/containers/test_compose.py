"""`examples/compose.yaml` with Compose itself: brought up, scaled, taken down."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import without
from .container import SLACK, WITHIN, await_true
from .engine import Engine
from .images import BASE, EXAMPLE, PROJECT

FILE = PROJECT / "examples" / "compose.yaml"


class Compose:
    """One project of Compose: the example, with what differs in a test laid over it."""

    def __init__(self, engine: Engine, command: tuple[str, ...], folder: Path) -> None:
        self.engine, self.command, self.name = engine, command, folder.name.lower()
        self.override = folder / "override.yaml"
        self.lay_over()

    def lay_over(self, **environment: str) -> None:
        """No network, the local base image, and settings for the agent."""
        build = {"network": "none", "args": {"BASE": BASE}}
        service = {"network_mode": "none", "build": build, "environment": environment, "restart": "no"}
        self.override.write_text(yaml.safe_dump({"services": {"agent": service}}))

    def arguments(self, *arguments: str) -> list[str]:
        return [*self.command, "-p", self.name, "-f", str(FILE), "-f", str(self.override), *arguments]

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(
            self.arguments(*arguments),
            env=self.engine.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"compose {arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def logs(self) -> list[str]:
        return self("logs", "--no-color").splitlines()

    def deaths(self, since: float, count: int) -> list[dict[str, Any]]:
        """What the engine notes, in its own time, of each container's end: its name and exit code, and the time."""
        filters = ("--filter", "event=die", "--filter", f"label=com.docker.compose.project={self.name}")

        def look() -> list[str]:
            span = ("--since", f"{since:.3f}", "--until", f"{time.time():.3f}")
            lines = self.engine("events", *span, *filters, "--format", "{{json .}}").stdout.splitlines()
            return lines if len(lines) >= count else []

        return [json.loads(line) for line in await_true(look, f"the end of {count} containers")]


@pytest.fixture
def compose(engine: Engine) -> Iterator[Compose]:
    plugin = ("docker", "compose")
    if engine("compose", "version", check=False).returncode == 0:
        command: tuple[str, ...] = plugin
    elif shutil.which("docker-compose"):
        command = ("docker-compose",)
    else:
        without("there is no Compose (Debian: docker-compose)")
    with tempfile.TemporaryDirectory(prefix="agent-init-") as folder:
        made = Compose(engine, command, Path(folder))
        try:
            yield made
        finally:
            made("down", "--timeout", "1")
            engine("image", "rm", "my-agent", check=False)


def test_up_scale_down(compose: Compose) -> None:
    """Three agents are stopped side by side, each finishes its calls and cleans up, and nothing has to be killed."""
    compose("build")
    compose("up", "--detach")
    compose("up", "--detach", "--scale", "agent=3", "--no-recreate")
    await_true(lambda: ready(compose) == 3, "three agents are ready")

    since = time.time()
    follower = subprocess.Popen(
        compose.arguments("logs", "--no-color", "--follow"),
        env=compose.engine.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        compose("down")
        seconds = time.time() - since
        said, _ = follower.communicate(timeout=WITHIN)
    finally:
        follower.kill()
        follower.wait()

    deaths = compose.deaths(since, 3)
    assert [death["Actor"]["Attributes"]["exitCode"] for death in deaths] == ["0", "0", "0"]
    assert max(death["timeNano"] / 1e9 for death in deaths) - since < 2 + 2 * SLACK  # a call takes 2 s
    assert seconds < 30
    for words in (
        "as process 1; grace 25s (AGENT_INIT_GRACE)",
        "stop requested by TERM from outside the container: TERM to the agent, KILL after 25s",
        "agent: cleaned up after",
        "ended: the agent exited with code 0",
    ):
        assert len(by_container(said, words)) == 3, f"{words}:\n{said}"
    begun, finished = re.findall(r"(\S+) .*call (\d+) begins", said), re.findall(r"(\S+) .*call (\d+) ends", said)
    assert Counter(begun) == Counter(finished)


def test_the_grace_ends_before_composes_own(compose: Compose) -> None:
    """A call that takes a minute and a grace of 2 s: agent-init ends it and says so, long before Compose would."""
    compose.lay_over(WORK_SECONDS="60", AGENT_INIT_GRACE="2s")
    compose.engine("tag", EXAMPLE, "my-agent")
    compose("up", "--detach", "--no-build")
    await_true(lambda: ready(compose) == 1, "the agent is ready")
    since = time.time()
    compose("stop")
    (death,) = compose.deaths(since, 1)
    assert death["Actor"]["Attributes"]["exitCode"] == "137"
    assert 2 <= death["timeNano"] / 1e9 - since < 2 + 2 * SLACK
    said = "\n".join(compose.logs())
    assert re.search(r"2(\.\d+)?s after the stop request, SIGKILL; still there: python", said)
    assert "was killed by SIGKILL when its time was up" in said


def test_the_two_numbers_keep_the_rule(compose: Compose) -> None:
    """As Compose itself reads the file."""
    service = yaml.safe_load(FILE.read_text())["services"]["agent"]
    assert seconds_of(service["environment"]["AGENT_INIT_GRACE"]) + 2 <= seconds_of(service["stop_grace_period"])
    read = yaml.safe_load(compose("config"))["services"]["agent"]
    assert read["stop_grace_period"] == service["stop_grace_period"]


def ready(compose: Compose) -> int:
    return len(by_container("\n".join(compose.logs()), "agent: ready"))


def by_container(said: str, words: str) -> set[str]:
    """The containers that have said these words: Compose begins each line with the container's name."""
    return {line.split("|")[0].strip() for line in said.splitlines() if words in line}


def seconds_of(text: str) -> float:
    assert re.fullmatch(r"\d+s", text)
    return float(text[:-1])

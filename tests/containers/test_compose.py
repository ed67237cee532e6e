"""`examples/compose.yaml` with the real Compose: up, scale, down."""

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

from .conftest import skip_or_fail
from .container import TIMEOUT, TOLERANCE, wait_until
from .engine import Engine
from .images import BASE, EXAMPLE, PROJECT

FILE = PROJECT / "examples" / "compose.yaml"


class Compose:
    """A Compose project: the example with an override file for the test."""

    def __init__(self, engine: Engine, command: tuple[str, ...], folder: Path) -> None:
        self.engine, self.command, self.name = engine, command, folder.name.lower()
        self.override = folder / "override.yaml"
        self.write_override()

    def write_override(self, **environment: str) -> None:
        """Write the override: no network, the local base image, and variables for the agent."""
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
        """Wait for the engine's `die` events of `count` containers since `since` (seconds since the epoch)."""
        filters = ("--filter", "event=die", "--filter", f"label=com.docker.compose.project={self.name}")

        def look() -> list[str]:
            span = ("--since", f"{since:.3f}", "--until", f"{time.time():.3f}")
            lines = self.engine("events", *span, *filters, "--format", "{{json .}}").stdout.splitlines()
            return lines if len(lines) >= count else []

        return [json.loads(line) for line in wait_until(look, f"the end of {count} containers")]


@pytest.fixture
def compose(engine: Engine) -> Iterator[Compose]:
    plugin = ("docker", "compose")
    if engine("compose", "version", check=False).returncode == 0:
        command: tuple[str, ...] = plugin
    elif shutil.which("docker-compose"):
        command = ("docker-compose",)
    else:
        skip_or_fail("there is no Compose (Debian: docker-compose)")
    with tempfile.TemporaryDirectory(prefix="agent-init-") as folder:
        made = Compose(engine, command, Path(folder))
        try:
            yield made
        finally:
            made("down", "--timeout", "1")
            engine("image", "rm", "my-agent", check=False)


def test_three_scaled_agents_stop_gracefully_on_down(compose: Compose) -> None:
    """Three agents stop at the same time. Each finishes its calls and cleans up, and nothing has to be killed."""
    compose("build")
    compose("up", "--detach")
    compose("up", "--detach", "--scale", "agent=3", "--no-recreate")
    wait_until(lambda: ready(compose) == 3, "three agents are ready")

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
        output, _ = follower.communicate(timeout=TIMEOUT)
    finally:
        follower.kill()
        follower.wait()

    deaths = compose.deaths(since, 3)
    assert [death["Actor"]["Attributes"]["exitCode"] for death in deaths] == ["0", "0", "0"]
    assert max(death["timeNano"] / 1e9 for death in deaths) - since < 2 + 2 * TOLERANCE  # a call takes 2 s
    assert seconds < 30
    for text in (
        "as process 1; grace 25s (AGENT_INIT_GRACE)",
        "stop requested by TERM from outside the container: TERM to the agent, KILL after 25s",
        "agent: cleaned up after",
        "ended: the agent exited with code 0",
    ):
        assert len(by_container(output, text)) == 3, f"{text}:\n{output}"
    begun, finished = re.findall(r"(\S+) .*call (\d+) begins", output), re.findall(r"(\S+) .*call (\d+) ends", output)
    assert Counter(begun) == Counter(finished)


def test_agent_init_grace_ends_before_compose_stop_grace_period(compose: Compose) -> None:
    """With a call of a minute and a grace of 2 s, agent-init kills the agent and logs it, long before Compose would."""
    compose.write_override(WORK_SECONDS="60", AGENT_INIT_GRACE="2s")
    compose.engine("tag", EXAMPLE, "my-agent")
    compose("up", "--detach", "--no-build")
    wait_until(lambda: ready(compose) == 1, "the agent is ready")
    since = time.time()
    compose("stop")
    (death,) = compose.deaths(since, 1)
    assert death["Actor"]["Attributes"]["exitCode"] == "137"
    assert 2 <= death["timeNano"] / 1e9 - since < 2 + 2 * TOLERANCE
    output = "\n".join(compose.logs())
    assert re.search(r"2(\.\d+)?s after the stop request, SIGKILL; still running: python", output)
    assert "was killed by SIGKILL at the deadline" in output


def test_grace_plus_2s_is_within_stop_grace_period(compose: Compose) -> None:
    """The numbers are read from the file and from Compose's own parser."""
    service = yaml.safe_load(FILE.read_text())["services"]["agent"]
    assert seconds_of(service["environment"]["AGENT_INIT_GRACE"]) + 2 <= seconds_of(service["stop_grace_period"])
    read = yaml.safe_load(compose("config"))["services"]["agent"]
    assert read["stop_grace_period"] == service["stop_grace_period"]


def ready(compose: Compose) -> int:
    return len(by_container("\n".join(compose.logs()), "agent: ready"))


def by_container(output: str, text: str) -> set[str]:
    """The containers that have printed this text. Compose starts each line with the container's name."""
    return {line.split("|")[0].strip() for line in output.splitlines() if text in line}


def seconds_of(text: str) -> float:
    assert re.fullmatch(r"\d+s", text)
    return float(text[:-1])

"""Docker on cgroups v2, on an emulated machine with a kernel of its own: stop, deadline, and want of memory.

It is booted once, runs `cgroups_v2.sh`, and tells what became of each container.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from . import machine
from .conftest import without
from .container import Event
from .engine import Engine, NoEngine
from .images import HERE, PROBE

LONGEST = 900.0  # seconds for all of it, emulated


@dataclass(frozen=True)
class Life:
    """What is told of one container; both its streams are in `lines`."""

    code: int
    oom_killed: bool
    lines: list[str]

    def events(self) -> list[Event]:
        return [json.loads(line) for line in self.lines if line.startswith("{")]

    def event(self, event: str) -> Event:
        (found,) = (line for line in self.events() if line["event"] == event)
        return found

    def said(self) -> list[str]:
        return [line for line in self.lines if not line.startswith("{")]


@pytest.fixture(scope="module")
def told(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Section by section, the heading's words without the name in the first line."""
    image = tmp_path_factory.mktemp("image") / "probe.tar"
    engine("save", "--output", str(image), PROBE)
    try:
        said = machine.run({"job": HERE / "cgroups_v2.sh", "probe.tar": Path(image)}, LONGEST)
    except NoEngine as error:
        without(str(error))
    print(said)
    return dict(re.findall(r"^== (\S+) (.*?)(?=^== |\Z)", said, re.DOTALL | re.MULTILINE))


def life(told: dict[str, str], name: str) -> Life:
    heading, *lines = told[name].splitlines()
    code, oom_killed = heading.split()
    return Life(int(code), oom_killed == "true", lines)


def test_it_is_what_it_claims_to_be(told: dict[str, str]) -> None:
    assert told["machine"].splitlines()[0] == "cgroup2fs 2"


def test_stop_and_exit_code(told: dict[str, str]) -> None:
    stopped = life(told, "stop")
    assert stopped.code == 3
    assert stopped.said().count("got TERM") == 2
    assert stopped.said().count("cleaned up") == 2
    assert stopped.event("stop-requested")["sender"] == "outside the container"


def test_the_deadline(told: dict[str, str]) -> None:
    ended = life(told, "deadline")
    assert ended.code == 137
    assert len(ended.event("deadline")["processes"]) == 2


def test_no_process_may_be_started(told: dict[str, str]) -> None:
    limited = life(told, "pids")
    assert limited.code == 125
    assert "pids limit" in limited.event("not-started")["message"]


def test_the_agent_is_killed_for_want_of_memory(told: dict[str, str]) -> None:
    """Process 1 outlives it, as with cgroups v1, and finds the reason in the container's own group."""
    starved = life(told, "agent")
    assert starved.code == 137
    assert starved.event("ended")["cause"] == "oom"
    assert "limit 64 MiB" in starved.event("ended")["message"]


def test_a_child_is_killed_for_want_of_memory(told: dict[str, str]) -> None:
    starved = life(told, "child")
    assert starved.code == 7
    assert "child 137" in starved.said()
    assert starved.event("ended")["code"] == 7


def test_all_are_killed_for_want_of_memory(told: dict[str, str]) -> None:
    """With `memory.oom.group` the kernel ends the whole container, process 1 too: no last line, from nobody."""
    starved = life(told, "group")
    assert starved.code == 137
    assert starved.oom_killed
    assert [line["event"] for line in starved.events()] == ["started"]

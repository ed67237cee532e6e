"""Docker on cgroups v2, in a virtual machine with its own kernel: stop, deadline, and out of memory.

The machine is booted once, runs `cgroups_v2.sh`, and reports the outcome of each container.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from . import virtual_machine
from .conftest import skip_or_fail
from .container import Event
from .engine import Engine, NotAvailable
from .images import HERE, PROBE

RUN_TIMEOUT = 900.0  # seconds for the job in the machine, which is emulated, with a suite beside it


@dataclass(frozen=True)
class Outcome:
    """The outcome of one container; `lines` has both its streams."""

    code: int
    oom_killed: bool
    lines: list[str]

    def events(self) -> list[Event]:
        return [json.loads(line) for line in self.lines if line.startswith("{")]

    def event(self, event: str) -> Event:
        (found,) = (line for line in self.events() if line["event"] == event)
        return found

    def other_lines(self) -> list[str]:
        return [line for line in self.lines if not line.startswith("{")]


@pytest.fixture(scope="module")
def sections(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The output by section: name to text. The first line is the rest of the heading."""
    image = tmp_path_factory.mktemp("image") / "probe.tar"
    engine("save", "--output", str(image), PROBE)
    try:
        output = virtual_machine.run({"job": HERE / "cgroups_v2.sh", "probe.tar": Path(image)}, RUN_TIMEOUT)
    except NotAvailable as error:
        skip_or_fail(str(error))
    print(output)
    return dict(re.findall(r"^== (\S+) (.*?)(?=^== |\Z)", output, re.DOTALL | re.MULTILINE))


def outcome(sections: dict[str, str], name: str) -> Outcome:
    heading, *lines = sections[name].splitlines()
    code, oom_killed = heading.split()
    return Outcome(int(code), oom_killed == "true", lines)


def test_environment_is_the_intended_one(sections: dict[str, str]) -> None:
    assert sections["machine"].splitlines()[0] == "cgroup2fs 2"


def test_stop_passes_the_agents_exit_code_on(sections: dict[str, str]) -> None:
    stopped = outcome(sections, "stop")
    assert stopped.code == 3
    assert stopped.other_lines().count("got TERM") == 2
    assert stopped.other_lines().count("cleaned up") == 2
    assert stopped.event("stop-requested")["sender"] == "outside the container"


def test_agent_that_ignores_the_stop_is_killed_at_the_deadline(sections: dict[str, str]) -> None:
    ended = outcome(sections, "deadline")
    assert ended.code == 137
    assert len(ended.event("deadline")["processes"]) == 2


def test_pids_limit_of_1_is_exit_code_125(sections: dict[str, str]) -> None:
    limited = outcome(sections, "pids")
    assert limited.code == 125
    assert "pids limit" in limited.event("not-started")["message"]


def test_oom_kill_of_the_agent_is_reported(sections: dict[str, str]) -> None:
    """Process 1 survives, as with cgroups v1, and finds the reason in the container's cgroup."""
    starved = outcome(sections, "agent")
    assert starved.code == 137
    assert starved.event("ended")["cause"] == "oom"
    assert "limit 64 MiB" in starved.event("ended")["message"]


def test_oom_kill_of_a_child_does_not_change_the_exit_code(sections: dict[str, str]) -> None:
    starved = outcome(sections, "child")
    assert starved.code == 7
    assert "child 137" in starved.other_lines()
    assert starved.event("ended")["code"] == 7


def test_memory_oom_group_kills_the_whole_container(sections: dict[str, str]) -> None:
    """With `memory.oom.group` the kernel also kills process 1, so there is no final message."""
    starved = outcome(sections, "group")
    assert starved.code == 137
    assert starved.oom_killed
    assert [line["event"] for line in starved.events()] == ["started"]

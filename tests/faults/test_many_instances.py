"""200 instances of agent-init at once."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.init import Init, remaining_pids, until

if TYPE_CHECKING:
    from pathlib import Path

COUNT = 200
AGENT = ["sh", "-c", "trap 'exit 7' TERM; echo ready >>\"$EVENTS\"; sleep 100 & wait"]


@pytest.mark.crowd
@pytest.mark.timeout(300)
@pytest.mark.parametrize("process1", [True, False], ids=["process 1", "subreaper"])
def test_200_instances_started_and_stopped_together(tmp_path: Path, process1: bool) -> None:
    instances: list[Init] = []
    try:
        for number in range(COUNT):
            directory = tmp_path / str(number)
            directory.mkdir()
            argv = ["-t", "60s", "--", *AGENT]
            instances.append(Init(directory, argv, process1=process1, stdout=subprocess.DEVNULL))
        for init in instances:
            until(lambda: init.log.read_text() == "ready\n", f"an agent to be ready; {init.stderr}", 60)  # noqa: B023
        for init in instances:
            init.signal("TERM")
        codes = [init.wait(60) for init in instances]
        assert codes == [7] * COUNT
        until(lambda: not remaining_pids(*instances), "the end of all their processes", 10)
        for init in instances:
            assert len(init.lines("stop requested")) == 1
            assert not init.lines("unexpected")
    finally:
        for init in instances:
            init.close()

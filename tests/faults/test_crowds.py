"""Two hundred at once."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.faults.stop_scenarios import left
from tests.support.init import Init, until

if TYPE_CHECKING:
    from pathlib import Path

COUNT = 200
AGENT = ["sh", "-c", "trap 'exit 7' TERM; echo ready >>\"$EVENTS\"; sleep 100 & wait"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("process1", [True, False], ids=["process 1", "subreaper"])
def test_two_hundred_started_and_stopped_at_once(tmp_path: Path, process1: bool) -> None:
    crowd: list[Init] = []
    try:
        for number in range(COUNT):
            directory = tmp_path / str(number)
            directory.mkdir()
            words = ["-t", "60s", "--", *AGENT]
            crowd.append(Init(directory, words, process1=process1, stdout=subprocess.DEVNULL))
        for init in crowd:
            until(lambda: init.log.read_text() == "ready\n", f"an agent to be ready; {init.stderr}", 60)  # noqa: B023
        for init in crowd:
            init.signal("TERM")
        codes = [init.wait(60) for init in crowd]
        assert codes == [7] * COUNT
        until(lambda: not left(*crowd), "nothing to be left", 10)
        for init in crowd:
            assert len(init.lines("stop requested")) == 1
            assert not init.lines("unexpected")
    finally:
        for init in crowd:
            init.close()

"""A stop request at each of the first 200 milliseconds after the start."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.init import Init, until
from tests.support.proc import IDLE, signals_in_mask

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.timeout(300)

FIRST = 200  # milliseconds
PARTS = 4


def start_idle_agent(directory: Path, before: list[str], *, process1: bool) -> Init:
    """Start an idle agent behind `before`."""
    directory.mkdir()
    return Init(directory, ["-t", "20s", "--", *IDLE], process1=process1, before=before, stdout=subprocess.DEVNULL)


def wait_until(moment: float) -> None:
    """Wait until a moment of the monotonic clock; busy-wait for the last millisecond."""
    time.sleep(max(0.0, moment - time.monotonic() - 0.001))
    while time.monotonic() < moment:
        continue


def has_blocked_signals(pid: int) -> bool:
    return {"TERM", "USR1"} <= signals_in_mask(pid, "SigBlk")


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("process1", [True, False], ids=["process 1", "subreaper"])
def test_no_stop_request_is_lost_behind_env_block_signal(tmp_path: Path, process1: bool, part: int) -> None:
    for millisecond in range(part, FIRST, PARTS):
        init = start_idle_agent(tmp_path / str(millisecond), ["env", "--block-signal"], process1=process1)
        try:
            until(lambda: has_blocked_signals(init.pid), "env to block the signals")  # noqa: B023
            wait_until(time.monotonic() + millisecond / 1000)
            init.signal("TERM")
            assert init.wait(10) == 143, millisecond
            assert len(init.lines("stop requested by TERM")) == 1
            assert init.lines("was killed by SIGTERM")
        finally:
            init.close()


def test_requests_are_lost_only_before_the_first_statement_without_env_block_signal(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Until process 1 has run its first statement, the kernel discards signals; from then on nothing is lost."""
    lost = []
    for millisecond in range(FIRST):
        init = start_idle_agent(tmp_path / str(millisecond), [], process1=True)
        try:
            wait_until(time.monotonic() + millisecond / 1000)
            safe = has_blocked_signals(init.pid)
            init.signal("TERM")
            exited = exits_within(init, 10 if safe else 0.7)
            assert exited or not safe, f"lost {millisecond}ms after the start, with the signals blocked"
            if not exited:
                lost.append(millisecond)
                until(lambda: has_blocked_signals(init.pid), "process 1 to block the signals")  # noqa: B023
                init.signal("TERM")
                assert init.wait(10) == 143
            assert init.outer.returncode == 143
        finally:
            init.close()
    record_property("lost_at_ms", lost)
    last = max(lost, default=0)
    print(f"without env --block-signal, of {FIRST} requests {len(lost)} were lost; the last {last} ms after the start")
    assert len(lost) < FIRST  # how many depends on the load of the machine


def exits_within(init: Init, patience: float) -> bool:
    try:
        init.outer.wait(patience)
    except subprocess.TimeoutExpired:
        return False
    return True

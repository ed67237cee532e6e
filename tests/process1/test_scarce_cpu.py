"""A stop with 8 % of a processor: hangs and a shortage of processor time come together."""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support.init import actor_line, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Start

CGROUPS = Path("/sys/fs/cgroup")
BUSY = "ignore('TERM'); log('ready')\nwhile True: pass"


@contextmanager
def limited_group(quota: str, period: str) -> Iterator[Path]:
    """Make a control group that gets `quota` microseconds of a processor in each `period`."""
    group = CGROUPS / "cpu" / f"agent-init-test-{uuid.uuid4().hex}"
    try:
        group.mkdir()
        (group / "cpu.cfs_period_us").write_text(period)
        (group / "cpu.cfs_quota_us").write_text(quota)
    except OSError as error:
        pytest.skip(f"no control group of cgroups v1 can be made: {error}")

    def removed() -> bool:
        with suppress(OSError):
            group.rmdir()
        return not group.exists()

    try:
        yield group
    finally:
        until(removed, "the end of all that ran in it")


@pytest.fixture
def scarce() -> Iterator[list[str]]:
    """Return a prefix for a command: it gets 8 % of a processor, with all that it starts."""
    with limited_group("8000", "100000") as group:
        yield ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]


@pytest.mark.timeout(120)
def test_agent_that_is_busy_with_little_cpu_is_reported_and_killed_in_time(start: Start, scarce: list[str]) -> None:
    init = start("-t", "12s", agent=BUSY, before=scarce, process1=False)
    init.wait_for_event("ready")
    init.wait_for_line("started")
    requested_at = time.monotonic()
    init.signal("TERM")
    assert init.wait(60) == 137
    assert time.monotonic() - requested_at < 12 + 5
    lines = init.lines()
    killed = next(number for number, line in enumerate(lines) if "after the stop request, SIGKILL" in line)
    reported = [number for number, line in enumerate(lines) if "report: " in line]
    assert any("(pid" in lines[number] and "cpu " in lines[number] for number in reported), lines
    assert not init.lines("gave up")
    assert killed


@pytest.mark.timeout(120)
def test_report_that_is_cut_off_is_replaced_by_a_list(start: Start, scarce: list[str]) -> None:
    """With a grace of 2 s there is not enough time for one: process 1 names what is there."""
    init = start("-t", "2s", agent=BUSY, before=scarce, process1=False)
    agent = init.wait_for_event("ready")["pid"]
    init.wait_for_line("started")
    init.signal("TERM")
    assert init.wait(60) == 137
    [cut] = init.lines("report: cut off after ")
    assert cut.startswith("warning: ")
    [line] = init.lines(f"(pid {agent}), child of {init.pid}, ")
    assert "cpu " in line
    assert line.endswith(("since the stop", "in total")) or ", waits in " in line


@pytest.mark.timeout(120)
def test_agent_is_given_the_time_until_the_earlier_report(start: Start, scarce: list[str]) -> None:
    agent = "on('TERM', lambda: leave(0)); log(os.environ['AGENT_INIT_STOP_SECONDS']); ready()"
    init = start("-t", "30s", agent=agent, before=scarce, process1=False)
    init.wait_for_event("ready")
    assert init.events()[0] == "20.625"
    init.signal("TERM")
    assert init.wait() == 0


@pytest.mark.timeout(120)
@pytest.mark.parametrize("beside", ["", "tail -f /dev/null & "], ids=["alone", "beside another process"])
def test_shell_that_gets_no_cpu_after_its_program_keeps_the_exit_code(start: Start, beside: str) -> None:
    """It can run, and has not had its turn for seconds: that is no sign that it would stay."""
    agent = actor_line("agent", "on('TERM', lambda: leave(7)); ready()")
    init = start("-t", "60s", command=["sh", "-c", f"{beside}{agent}; exit $?"])
    init.wait_for_event("ready")
    shell = next(child for child in psutil.Process(init.pid).children() if child.name() == "sh")
    with limited_group("1000", "1000000") as group:
        rivals = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(20)]
        try:
            for pid in (shell.pid, *(rival.pid for rival in rivals)):
                os.sched_setaffinity(pid, {min(os.sched_getaffinity(0))})
                (group / "cgroup.procs").write_text(str(pid))
            init.signal("TERM")
            ended_at = init.wait_for_event("end")["t"]
            until(lambda: time.monotonic() > ended_at + 4 or init.outer.poll() is not None, "4 s")
            (group / "cpu.cfs_quota_us").write_text("-1")
        finally:
            for rival in rivals:
                rival.kill()
                rival.wait()
        assert init.wait(60) == 7

"""The deadline is one of CLOCK_MONOTONIC, whatever happens to process 1 and to the machine's clock."""

from __future__ import annotations

import datetime
import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.init import NAMESPACE, until

if TYPE_CHECKING:
    from tests.conftest import Start

LATE = 8.0  # two hundred others may start beside it; how exact a deadline is, tests/process1 shows
FAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)


@pytest.mark.parametrize("jump", ["+30d", "-30d"])
def test_a_jump_of_the_clock_changes_nothing(started: Start, tmp_path: Path, jump: str) -> None:
    """As after a suspend, or a first contact with a time server. Process 1 alone sees the other clock (libfaketime)."""
    if FAKETIME is None:
        pytest.skip("no libfaketime to make the clock jump (Debian: faketime)")
    clock = tmp_path / "clock"
    clock.write_text("+0\n")
    before = [
        "env",
        f"LD_PRELOAD={FAKETIME}",
        f"FAKETIME_TIMESTAMP_FILE={clock}",
        "FAKETIME_NO_CACHE=1",
        "FAKETIME_DONT_FAKE_MONOTONIC=1",
        "FAKETIME_DONT_RESET=1",
    ]
    agent = "on('TERM'); ready()"
    init = started("-t", "1200ms", "--log-format", "json", agent=agent, before=before)
    init.event("ready")
    asked = time.monotonic()
    init.signal("TERM")
    init.event("TERM")
    clock.write_text(jump + "\n")
    assert init.wait() == 137
    assert 1.2 <= time.monotonic() - asked < 1.2 + LATE
    stamps = [datetime.datetime.fromisoformat(json.loads(line)["time"]) for line in init.stderr.splitlines()]
    assert abs((stamps[-1] - stamps[0]).days) >= 29, "the clock did not jump"
    assert "ended" in init.stderr.splitlines()[-1]
    assert 1.2 <= json.loads(init.stderr.splitlines()[-1])["stop_seconds"] < 1.2 + LATE


def test_in_a_time_namespace(start: Start) -> None:
    """Where the monotonic clock tells another time than outside."""
    before = ["unshare", "--time", "--monotonic", "1000000", "--boottime", "1000000", "--fork", "--kill-child"]
    if os.system(f"{' '.join(before)} true 2>/dev/null"):
        pytest.skip("no time namespaces here")
    init = start("-t", "600ms", agent="on('TERM'); ready()", process1=False, before=[*before, *NAMESPACE])
    agent = init.event("ready")
    assert agent["t"] > time.monotonic() + 900_000
    inner = until(lambda: _innermost(init.pid), "agent-init")
    asked = time.monotonic()
    os.kill(inner, signal.SIGTERM)
    assert init.wait() == 137
    assert 0.6 <= time.monotonic() - asked < 0.6 + LATE


def _innermost(pid: int) -> int | None:
    """unshare > unshare > agent-init > agent: the last but one."""
    line = [pid]
    while children := Path(f"/proc/{line[-1]}/task/{line[-1]}/children").read_text().split():
        line.append(int(children[0]))
    return line[-2] if len(line) >= 4 else None


def test_steps_that_passed_while_process_1_was_stopped_go_off_in_their_order(started: Start) -> None:
    init = started(
        "--stop-schedule",
        "TERM/300ms/INT/300ms/USR1/300ms/KILL",
        agent="[on(n) for n in ('TERM', 'INT', 'USR1')]; ready()",
    )
    init.event("ready")
    init.signal("TERM")
    init.event("TERM")
    os.kill(init.pid, signal.SIGSTOP)
    time.sleep(0.45)  # INT is overdue
    os.kill(init.pid, signal.SIGCONT)
    init.event("INT")
    os.kill(init.pid, signal.SIGSTOP)
    time.sleep(0.6)  # so are USR1 and KILL
    os.kill(init.pid, signal.SIGCONT)
    assert init.wait() == 137
    assert init.events() in (["ready", "TERM", "INT"], ["ready", "TERM", "INT", "USR1"])


def test_a_request_that_came_while_process_1_was_stopped_gets_its_whole_time(started: Start) -> None:
    init = started("-t", "500ms", agent="on('TERM'); ready()")
    init.event("ready")
    os.kill(init.pid, signal.SIGSTOP)
    init.signal("TERM")
    time.sleep(0.8)
    assert init.events() == ["ready"]
    os.kill(init.pid, signal.SIGCONT)
    continued = time.monotonic()
    assert init.wait() == 137
    assert 0.5 <= time.monotonic() - continued < 0.5 + LATE
    assert init.events() == ["ready", "TERM"]


def test_stopped_and_continued_all_the_time(started: Start) -> None:
    """Process 1 gets no more than slices of time, as under a CPU quota; nothing is lost."""
    init = started("-t", "20s", agent="on('USR1'); on('TERM', lambda: leave(7, after=0.5)); ready()")
    init.event("ready")
    init.signal("USR1")
    init.signal("TERM")
    while init.outer.poll() is None:
        for number in (signal.SIGSTOP, signal.SIGCONT):
            try:
                os.kill(init.pid, number)
            except ProcessLookupError:
                break
            time.sleep(0.002)
    assert init.wait() == 7
    assert init.events() == ["ready", "USR1", "TERM", "end"]

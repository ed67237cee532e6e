"""The deadline follows CLOCK_MONOTONIC, whatever happens to process 1 and to the system clock."""

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

TOLERANCE = 3.0  # seconds, on a busy machine. tests/process1 checks deadlines more closely
FAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)


@pytest.mark.parametrize("jump", ["+30d", "-30d"])
def test_jump_of_the_clock_does_not_move_the_deadline(start_in_role: Start, tmp_path: Path, jump: str) -> None:
    """As after a suspend or the first contact with a time server. Only process 1 sees the jump (libfaketime)."""
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
    init = start_in_role("-t", "1200ms", "--log-format", "json", agent=agent, before=before)
    init.wait_for_event("ready")
    requested_at = time.monotonic()
    init.signal("TERM")
    init.wait_for_event("TERM")
    clock.write_text(jump + "\n")
    assert init.wait() == 137
    assert 1.2 <= time.monotonic() - requested_at < 1.2 + TOLERANCE
    stamps = [datetime.datetime.fromisoformat(json.loads(line)["time"]) for line in init.stderr.splitlines()]
    assert abs((stamps[-1] - stamps[0]).days) >= 29, "the clock did not jump"
    assert "ended" in init.stderr.splitlines()[-1]
    assert 1.2 <= json.loads(init.stderr.splitlines()[-1])["stop_seconds"] < 1.2 + TOLERANCE


def test_deadline_is_kept_in_a_time_namespace(start: Start) -> None:
    """The monotonic clock inside differs from the one outside."""
    before = ["unshare", "--time", "--monotonic", "1000000", "--boottime", "1000000", "--fork", "--kill-child"]
    if os.system(f"{' '.join(before)} true 2>/dev/null"):
        pytest.skip("no time namespaces here")
    init = start("-t", "600ms", agent="on('TERM'); ready()", process1=False, before=[*before, *NAMESPACE])
    agent = init.wait_for_event("ready")
    assert agent["t"] > time.monotonic() + 900_000
    inner = until(lambda: _innermost(init.pid), "agent-init")
    requested_at = time.monotonic()
    os.kill(inner, signal.SIGTERM)
    assert init.wait() == 137
    assert 0.6 <= time.monotonic() - requested_at < 0.6 + TOLERANCE


def _innermost(pid: int) -> int | None:
    """The last but one of the chain unshare > unshare > agent-init > agent."""
    line = [pid]
    while children := Path(f"/proc/{line[-1]}/task/{line[-1]}/children").read_text().split():
        line.append(int(children[0]))
    return line[-2] if len(line) >= 4 else None


def test_steps_due_while_process_1_was_stopped_are_sent_in_order(start_in_role: Start) -> None:
    init = start_in_role(
        "--stop-schedule",
        "TERM/300ms/INT/300ms/USR1/300ms/KILL",
        agent="[on(n) for n in ('TERM', 'INT', 'USR1')]; ready()",
    )
    init.wait_for_event("ready")
    init.signal("TERM")
    init.wait_for_event("TERM")
    os.kill(init.pid, signal.SIGSTOP)
    time.sleep(0.45)  # INT is overdue
    os.kill(init.pid, signal.SIGCONT)
    init.wait_for_event("INT")
    os.kill(init.pid, signal.SIGSTOP)
    time.sleep(0.6)  # USR1 and KILL are overdue
    os.kill(init.pid, signal.SIGCONT)
    assert init.wait() == 137
    assert init.events() in (["ready", "TERM", "INT"], ["ready", "TERM", "INT", "USR1"])


def test_request_sent_while_process_1_was_stopped_gets_the_full_grace(start_in_role: Start) -> None:
    init = start_in_role("-t", "500ms", agent="on('TERM'); ready()")
    init.wait_for_event("ready")
    os.kill(init.pid, signal.SIGSTOP)
    init.signal("TERM")
    time.sleep(0.8)
    assert init.events() == ["ready"]
    os.kill(init.pid, signal.SIGCONT)
    continued = time.monotonic()
    assert init.wait() == 137
    assert 0.5 <= time.monotonic() - continued < 0.5 + TOLERANCE
    assert init.events() == ["ready", "TERM"]


def test_nothing_is_lost_when_process_1_is_stopped_and_continued_repeatedly(start_in_role: Start) -> None:
    """Process 1 runs only in short slices, as under a CPU quota."""
    init = start_in_role("-t", "20s", agent="on('USR1'); on('TERM', lambda: leave(7, after=0.5)); ready()")
    init.wait_for_event("ready")
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

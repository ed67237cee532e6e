"""From the stop request to the end: who gets which signal when, and what is left."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Start

LATE = 0.5  # how late the end may be after the grace, as promised

GRACEFUL = "on('TERM', lambda: leave(0, after=0.3)); ready()"
STUBBORN = "ignore('INT'); on('TERM'); ready()"


@pytest.mark.parametrize("request_signal", ["TERM", "INT"])
def test_a_stop_request_reaches_the_agent_as_the_stop_signal(started: Start, request_signal: str) -> None:
    init = started("-t", "20s", agent=GRACEFUL)
    init.event("ready")
    init.signal(request_signal)
    assert init.wait() == 0
    assert init.events() == ["ready", "TERM", "end"]
    assert f"stop requested by {request_signal}" in init.said("stop requested")
    assert "exit code 0" in init.said("ended")


def test_a_repeated_request_is_noted_and_not_passed_on(started: Start) -> None:
    init = started("-t", "20s", agent="on('INT'); on('TERM', lambda: leave(0, after=1)); ready()")
    init.event("ready")
    init.signal("TERM")
    init.event("TERM")
    for again in ("TERM", "INT", "TERM"):
        init.signal(again)
    assert init.wait() == 0
    assert init.events() == ["ready", "TERM", "end"]
    assert init.lines("under way already")


def test_the_grace_is_a_deadline(started: Start) -> None:
    init = started("-t", "1s", agent=STUBBORN)
    init.event("ready")
    asked = time.monotonic()
    init.signal("TERM")
    assert init.wait() == 137
    assert 1.0 <= time.monotonic() - asked < 1.0 + LATE
    assert init.events() == ["ready", "TERM"]
    assert "still there: python" in init.said("SIGKILL")
    assert "was killed by SIGKILL when its time was up" in init.said("ended")

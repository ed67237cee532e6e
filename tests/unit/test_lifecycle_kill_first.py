"""The state machine where SIGKILL is the stop signal."""

from __future__ import annotations

import pytest

from entrypoint.init.actions import KillAll
from entrypoint.signals import HUP, KILL, TERM
from tests.support.lifecycle import events, facts, killed, make, run_until, without_logs

FIRST = pytest.mark.parametrize(
    ("flags", "number"),
    [
        (("--rewrite", "TERM:KILL"), TERM),
        (("--rewrite", "TERM:KILL", "--stop-schedule", "INT/5s/TERM/5s/KILL"), TERM),
        (("--rewrite", "HUP:KILL", "--stop-on", "HUP,TERM"), HUP),
        (("--stop-schedule", "KILL"), TERM),
    ],
)


@FIRST
def test_a_kill_that_is_the_stop_signal_is_no_deadline(flags: tuple[str, ...], number: int) -> None:
    life = make(*flags)
    actions = life.signal(0.0, number, "a test")
    assert without_logs(actions) == [KillAll()]
    assert events(actions) == ["stop-requested"]
    assert facts(actions)["upcoming"] == {"steps": [(KILL, 0.0)], "platform": None}
    assert facts(life.agent_ended(0.1, killed(), alone=True))["cause"] == "stop-signal"


def test_a_delay_makes_it_no_deadline_either() -> None:
    life = make("--rewrite", "TERM:KILL", "--stop-delay", "3s", "-t", "10s")
    life.signal(0.0, TERM, "a test")
    assert life.tick(3.0) == [KillAll()]
    assert facts(life.agent_ended(3.1, killed(), alone=True))["cause"] == "stop-signal"


def test_a_kill_that_a_repeated_request_brings_forward_is_its_work() -> None:
    life = make("--rewrite", "TERM:KILL", "--stop-delay", "3s", "-t", "10s", "--repeat", "escalate")
    life.signal(0.0, TERM, "a test")
    assert KillAll() in life.signal(1.0, TERM, "a test")
    assert facts(life.agent_ended(1.1, killed(), alone=True))["cause"] == "escalated"


def test_a_kill_after_another_signal_is_the_deadlines() -> None:
    life = make("--stop-schedule", "TERM/5s/KILL")
    life.signal(0.0, TERM, "a test")
    assert KillAll() in [action for _, action in run_until(life, 5.0)]
    assert facts(life.agent_ended(5.1, killed(), alone=True))["cause"] == "deadline"

"""Where a stop request comes from, in the state machine: who ends the stop, and who has sent the stop signal."""

from __future__ import annotations

import pytest

from entrypoint.init.actions import Forward, KillAll, NoteAllSignalled, Stop, TakeCpuSnapshot
from entrypoint.init.lifecycle import STOPPING
from entrypoint.init.stop_plan import INSIDE, KERNEL, OUTSIDE
from entrypoint.signals import EOF, HUP, INT, KILL, TERM
from tests.support.lifecycle import events, exited, facts, killed, logs, make, run_until, without_logs

RENDER = {"RENDER": "true"}  # 30 s
KUBERNETES = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
HEROKU = {"DYNO": "web.1"}


@pytest.mark.parametrize(
    ("number", "origin", "environment", "is_enforced"),
    [
        (TERM, INSIDE, RENDER, True),
        (INT, INSIDE, RENDER, True),
        (TERM, OUTSIDE, RENDER, False),
        (TERM, KERNEL, RENDER, False),
        (EOF, OUTSIDE, RENDER, True),
        (TERM, INSIDE, KUBERNETES, False),
        (EOF, OUTSIDE, KUBERNETES, True),
    ],
)
def test_a_stop_that_the_platform_does_not_know_of_has_its_limit(
    number: int, origin: str, environment: dict[str, str], is_enforced: bool
) -> None:
    life = make("--stop-on", "TERM,INT,EOF", environment=environment)
    actions = life.signal(5, number, "x", origin)
    upcoming = facts(actions)["upcoming"]
    assert upcoming["steps"] == [(TERM, 0), *([(KILL, 30)] if is_enforced else [])]
    assert (upcoming["platform"] is None) == ("unknown_to" in upcoming) == is_enforced
    assert ("unknown_unless_hook" in upcoming) == (origin == INSIDE and environment is KUBERNETES)
    done = run_until(life, 500)
    assert [at for at, action in done if action == KillAll()][:1] == ([35] if is_enforced else [])
    assert [at for at, action in done if events([action]) == ["limit-near"]] == ([] if is_enforced else [33])


def test_without_a_platform_the_origin_makes_no_difference() -> None:
    for flags in ((), ("-t", "7s"), ("--stop-schedule", "TERM/7s/INT/1s/KILL")):
        upcoming = [
            facts(make(*flags, environment=RENDER if flags else {}).signal(0, TERM, "x", origin))["upcoming"]
            for origin in (INSIDE, OUTSIDE)
        ]
        assert upcoming[0] == upcoming[1]


@pytest.mark.parametrize("event", ["signal", "unhandled"])
def test_a_signal_that_nobody_handles_keeps_its_origin(event: str) -> None:
    life = make(environment=RENDER)
    if event == "signal":
        assert life.signal(0, HUP, "x", INSIDE) == [Forward(HUP, "x", always=False, origin=INSIDE)]
    else:
        assert facts(life.unhandled(0, HUP, "x", INSIDE))["upcoming"]["steps"][1] == (KILL, 30)


@pytest.mark.parametrize("delay", [0, 8])
@pytest.mark.parametrize("at", [4, 20])
def test_a_later_request_from_outside_lifts_the_limit(delay: int, at: int) -> None:
    life = make("--stop-delay", f"{delay}s", environment=RENDER)
    done = [(0.0, action) for action in life.signal(0, TERM, "x", INSIDE)]
    life.interrupted(0)
    done += run_until(life, at)
    actions = life.signal(at, TERM, "y", OUTSIDE)
    assert without_logs(actions) == []
    assert facts(actions)["lifted_by"] == "Render (30s unless raised)"
    assert facts(actions)["left"] is None
    done += run_until(life, 500)
    assert [action for _, action in done if isinstance(action, Stop)] == [Stop(TERM)]
    assert [when for when, action in done if events([action]) == ["limit-near"]] == [at + 28]
    assert life.state == STOPPING
    assert "lifted_by" not in facts(life.signal(500, TERM, "y", OUTSIDE))


@pytest.mark.parametrize("origin", [INSIDE, KERNEL])
def test_only_a_request_from_outside_lifts_the_limit(origin: str) -> None:
    life = make(environment=RENDER)
    life.signal(0, TERM, "x", INSIDE)
    assert facts(life.signal(1, TERM, "x", origin))["left"] == 29
    assert next(at for at, action in run_until(life, 31) if action == KillAll()) == 30


def test_a_request_from_inside_after_one_from_outside_has_no_limit() -> None:
    life = make(environment=RENDER)
    life.signal(0, TERM, "x", OUTSIDE)
    assert facts(life.signal(1, TERM, "x", INSIDE))["left"] is None
    assert run_until(life, 500)[-1][0] > 490
    assert life.state == STOPPING


def test_after_the_escalation_a_request_from_outside_has_no_effect() -> None:
    life = make(environment=RENDER)
    life.signal(0, TERM, "x", INSIDE)
    run_until(life, 30)
    assert life.signal(30, TERM, "y", OUTSIDE) == []
    life = make("--repeat", "escalate", environment=RENDER)
    life.signal(0, TERM, "x", INSIDE)
    assert events(life.signal(1, TERM, "y", OUTSIDE)) == ["repeat-escalates", "step"]


def test_a_passed_on_request_from_outside_lifts_the_limit_too() -> None:
    life = make("--repeat", "forward", environment=RENDER)
    life.signal(0, TERM, "x", INSIDE)
    actions = life.signal(1, TERM, "y", OUTSIDE)
    assert without_logs(actions) == [Stop(TERM)]
    assert "lifted_by" in facts(actions)


def test_the_agent_cannot_bring_a_lifted_limit_back() -> None:
    life = make(environment=RENDER)
    life.signal(0, TERM, "x", INSIDE)
    life.notified(1, {"EXTEND_TIMEOUT_USEC": "60000000"}, "agent")
    assert facts(life.signal(2, TERM, "x", INSIDE))["left"] == 59
    life.signal(3, TERM, "y", OUTSIDE)
    assert life.notified(4, {"EXTEND_TIMEOUT_USEC": "1000000"}, "agent") == []
    assert facts(life.signal(5, TERM, "y", OUTSIDE))["left"] is None


@pytest.mark.parametrize(("origin", "kill_at"), [(INSIDE, 32), (OUTSIDE, 60)])
def test_the_limit_counts_for_what_an_agent_left_behind(origin: str, kill_at: float) -> None:
    life = make("--linger", "60s", environment=RENDER)
    life.agent_ended(0, exited(0), alone=False)
    life.signal(2, TERM, "x", origin)
    assert "lifted_by" not in facts(life.signal(3, TERM, "x", OUTSIDE))
    assert next(at for at, action in run_until(life, 61) if action == KillAll()) == kill_at


# --- A platform that signals every process. -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags", [(), ("-t", "20s"), ("--stop-signal", "TERM"), ("--stop-schedule", "TERM/1s/INT/KILL")]
)
@pytest.mark.parametrize("delay", [0, 0.5])
def test_nobody_gets_a_stop_signal_that_the_platform_sends(flags: tuple[str, ...], delay: float) -> None:
    life = make(*flags, "--stop-delay", f"{delay}s", environment=HEROKU)
    actions = life.signal(0, TERM, "x", OUTSIDE)
    assert facts(actions)["upcoming"]["sent_by"] == "Heroku"
    done = [*without_logs(actions), *without_logs([action for _, action in run_until(life, 0.9)])]
    assert done[:2] == [NoteAllSignalled(TERM), TakeCpuSnapshot()]
    assert not life.adapts
    later = [action for _, action in run_until(life, 19) if isinstance(action, Stop)]
    assert later == ([Stop(INT)] if "--stop-schedule" in flags else [])


@pytest.mark.parametrize(
    ("flags", "number", "origin", "sent"),
    [
        ((), TERM, INSIDE, TERM),
        ((), TERM, KERNEL, TERM),
        ((), INT, OUTSIDE, TERM),
        (("--stop-signal", "INT"), TERM, OUTSIDE, INT),
        (("-r", "TERM:USR1"), TERM, OUTSIDE, 10),
    ],
)
def test_any_other_stop_signal_is_sent_there_too(flags: tuple[str, ...], number: int, origin: str, sent: int) -> None:
    life = make(*flags, environment=HEROKU)
    actions = life.signal(0, number, "x", origin)
    assert without_logs(actions) == [Stop(sent), TakeCpuSnapshot()]
    assert "sent_by" not in facts(actions)["upcoming"]


def test_a_repeated_stop_signal_of_the_platform_is_not_passed_on() -> None:
    life = make("--repeat", "forward", environment=HEROKU)
    life.signal(0, TERM, "x", OUTSIDE)
    actions = life.signal(1, TERM, "x", OUTSIDE)
    assert without_logs(actions) == []
    assert logs(actions)[0].facts["passed_on"] is None
    assert without_logs(life.signal(2, TERM, "x", INSIDE)) == [Stop(TERM)]


def test_an_agent_may_die_of_the_platforms_signal_before_ours_is_read() -> None:
    life = make("--stop-delay", "5s", environment=HEROKU)
    assert life.platform_has_signalled(killed(TERM))
    assert life.platform_has_signalled(exited(128 + TERM))
    assert not life.platform_has_signalled(exited(0))
    actions = life.platform_stops(1)
    assert without_logs(actions) == [NoteAllSignalled(TERM), TakeCpuSnapshot()]
    assert facts(actions)["upcoming"]["steps"] == [(TERM, 0), (KILL, 30)]
    assert not life.platform_has_signalled(killed(TERM))
    life.agent_ended(1, killed(TERM), alone=False, works_on=True)
    actions = life.signal(2, TERM, "x", OUTSIDE)
    assert without_logs(actions) == []
    assert facts(actions)["left"] is None


@pytest.mark.parametrize(
    ("flags", "environment"),
    [
        ((), RENDER),
        (("--stop-signal", "INT"), HEROKU),
        (("-r", "TERM:USR1"), HEROKU),
        (("--stop-on", "INT"), HEROKU),
    ],
)
def test_the_death_of_an_agent_by_term_is_a_stop_only_where_the_platform_sends_it(
    flags: tuple[str, ...], environment: dict[str, str]
) -> None:
    assert not make(*flags, environment=environment).platform_has_signalled(killed(TERM))

"""The state machine where the platform is presumed to have sent TERM to every process, and no TERM has come to us."""

from __future__ import annotations

import pytest

from entrypoint.init.actions import (
    Action,
    Exit,
    ForgetAllSignalled,
    KillAll,
    NoteAllSignalled,
    Stop,
    StopHeldBack,
    StopLeftovers,
    TakeCpuSnapshot,
)
from entrypoint.init.lifecycle import CONFIRM_AFTER, KILLING, LINGERING, STOPPING, Lifecycle
from entrypoint.init.stop_plan import INSIDE, OUTSIDE
from entrypoint.signals import TERM
from tests.support.lifecycle import events, facts, killed, make, run_until, without_logs

HEROKU = {"DYNO": "web.1"}
BOTH = pytest.mark.parametrize("works_on", [True, False], ids=["stopping", "lingering"])


def presumed(*flags: str, works_on: bool) -> Lifecycle:
    """The agent has died of a TERM of its own at 1 s; its work goes on, or it has left something behind."""
    life = make(*(flags or ("-t", "20s", "--linger", "5s")), environment=HEROKU)
    ending = killed(TERM)
    assert life.platform_has_signalled(ending)
    actions = life.platform_stops(1.0)
    assert facts(actions)["sender"] == "Heroku, it seems"
    assert without_logs(actions) == [NoteAllSignalled(TERM), TakeCpuSnapshot()]
    actions = life.agent_ended(1.0, ending, alone=False, works_on=works_on)
    assert events(actions) == ["wrapper-left" if works_on else "lingering"]
    assert without_logs(actions) == [StopLeftovers(TERM)]
    assert life.state == (STOPPING if works_on else LINGERING)
    return life


def confirmed(done: list[tuple[float, Action]]) -> list[tuple[float, Action]]:
    return [(at, action) for at, action in done if isinstance(action, ForgetAllSignalled | StopLeftovers)]


@BOTH
def test_without_a_term_from_outside_the_others_get_theirs_soon_and_once(works_on: bool) -> None:
    life = presumed(works_on=works_on)
    at = 1.0 + CONFIRM_AFTER
    assert life.due == at
    assert confirmed(run_until(life, 60.0)) == [(at, ForgetAllSignalled()), (at, StopLeftovers(TERM))]


@BOTH
@pytest.mark.parametrize("repeat", ["ignore", "forward"])
def test_a_term_from_outside_confirms_it(works_on: bool, repeat: str) -> None:
    life = presumed("-t", "20s", "--linger", "5s", "--repeat", repeat, works_on=works_on)
    actions = life.signal(1.0 + CONFIRM_AFTER / 2, TERM, "a test", OUTSIDE)
    assert (events(actions), without_logs(actions)) == (["stop-repeated"], [])
    assert confirmed(run_until(life, 60.0)) == []


@BOTH
def test_a_term_from_inside_does_not_confirm_it(works_on: bool) -> None:
    life = presumed(works_on=works_on)
    life.signal(1.1, TERM, "a test", INSIDE)
    assert [type(action) for _, action in confirmed(run_until(life, 60.0))] == [ForgetAllSignalled, StopLeftovers]


def test_a_term_from_outside_that_comes_later_changes_nothing() -> None:
    life = presumed(works_on=False)
    run_until(life, 2.0)
    assert without_logs(life.signal(2.0, TERM, "a test", OUTSIDE)) == []
    assert confirmed(run_until(life, 60.0)) == []


def test_the_wait_goes_on_when_the_work_has_ended() -> None:
    """From STOPPING to LINGERING."""
    life = presumed(works_on=True)
    actions = life.work_seen(1.1, works_on=False)
    assert events(actions) == ["lingering"]
    at = 1.0 + CONFIRM_AFTER
    assert confirmed(run_until(life, 60.0)) == [(at, ForgetAllSignalled()), (at, StopLeftovers(TERM))]


def test_the_wait_is_over_with_the_kill() -> None:
    life = presumed("-t", "20s", "--linger", "100ms", works_on=False)
    done = run_until(life, 1.1)
    assert KillAll() in [action for _, action in done]
    assert life.state == KILLING
    assert confirmed(run_until(life, 60.0)) == []


def test_an_agent_that_leaves_nothing_behind_ends_at_once() -> None:
    life = make("-t", "20s", environment=HEROKU)
    life.platform_stops(1.0)
    assert without_logs(life.agent_ended(1.0, killed(TERM), alone=True)) == [Exit(143)]
    assert run_until(life, 60.0) == []


def test_a_request_from_outside_that_begins_the_stop_needs_no_confirmation() -> None:
    life = make("-t", "20s", environment=HEROKU)
    life.signal(0.0, TERM, "a test", OUTSIDE)
    life.agent_ended(1.0, killed(TERM), alone=False, works_on=True)
    assert confirmed(run_until(life, 60.0)) == []
    assert not [action for _, action in run_until(life, 60.0) if isinstance(action, Stop | StopHeldBack)]

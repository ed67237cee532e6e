"""The state machine where the agent, a wrapper, exits before its work."""

from __future__ import annotations

import pytest

from entrypoint.init.actions import Exit, KillAll, LookAtWork, MakeStallReport, Stop, StopInterrupted, StopLeftovers
from entrypoint.init.lifecycle import LOOK_AGAIN, NEXT_TURN_AFTER, Lifecycle
from entrypoint.signals import INT, TERM
from tests.support.lifecycle import events, exited, facts, killed, make, run_until, without_logs


def left(*flags: str, code: int = 0) -> Lifecycle:
    """A stop at 0, and a wrapper that exits 1 s later, before its work."""
    life = make(*(flags or ("-t", "20s")))
    life.signal(0.0, TERM, "a test")
    actions = life.agent_ended(1.0, exited(code), alone=False, works_on=True)
    assert events(actions) == ["wrapper-left"]
    assert without_logs(actions) == [StopLeftovers(TERM)]
    return life


def test_the_work_has_the_rest_of_the_grace_and_the_exit_code_is_sigkills_if_it_is_cut() -> None:
    done = run_until(left(), 30.0)
    assert next(at for at, action in done if isinstance(action, KillAll)) == 20.0
    assert [action for _, action in done if isinstance(action, MakeStallReport)]
    assert [action for _, action in done if isinstance(action, Exit)] == [Exit(137)]


def test_the_exit_code_is_the_agents_where_it_is_not_certain_that_it_was_a_wrapper() -> None:
    life = make("-t", "20s")
    life.signal(0.0, TERM, "a test")
    life.agent_ended(11.0, killed(TERM), alone=False, works_on=True, has_had_it=True, is_wrapper=False)
    done = run_until(life, 30.0)
    assert next(at for at, action in done if isinstance(action, KillAll)) == 20.0
    assert [action for _, action in done if isinstance(action, Exit)] == [Exit(143)]


def test_a_cut_counts_as_a_good_end_only_where_137_does() -> None:
    assert Exit(137) in [action for _, action in run_until(left("-t", "2s", "-e", "3", code=3), 30.0)]
    assert Exit(0) in [action for _, action in run_until(left("-t", "2s", "-e", "137", code=3), 30.0)]


def test_once_nothing_is_left_the_exit_code_is_the_agents() -> None:
    assert left(code=4).nothing_left(9.0)[-1] == Exit(4)


def test_when_the_work_has_ended_what_is_left_has_the_time_to_linger() -> None:
    life = left("-t", "20s", "--linger", "3s", code=4)
    assert life.recipients_ended(5.0) == []
    assert life.due == 5.0 + NEXT_TURN_AFTER
    assert life.tick(life.due) == [LookAtWork()]
    actions = life.work_seen(5.1, works_on=False)
    assert events(actions) == ["lingering"]
    assert facts(actions)["linger"] == 3.0
    assert without_logs(actions) == [StopLeftovers(TERM)]
    done = run_until(life, 30.0)
    assert next(at for at, action in done if isinstance(action, KillAll)) == pytest.approx(8.1)
    assert done[-1][1] == Exit(4)


def test_a_leftover_process_that_exits_gives_others_their_turn() -> None:
    life = left()
    life.leftover_ended(5.0)
    life.leftover_ended(5.04)  # many exit together
    assert life.due == 5.0 + NEXT_TURN_AFTER
    assert life.tick(life.due) == [LookAtWork()]
    assert life.work_seen(5.1, works_on=True) == [StopLeftovers(TERM)]
    assert life.state == "stopping"


def test_a_look_at_work_without_an_answer_comes_again() -> None:
    """It has failed for want of memory."""
    life = left("-t", "20s", "--linger", "3s")
    life.leftover_ended(5.0)
    looks = [at for at, action in run_until(life, 6.0) if isinstance(action, LookAtWork)]
    assert looks == pytest.approx([5.0 + NEXT_TURN_AFTER + LOOK_AGAIN * n for n in range(5)])
    assert without_logs(life.work_seen(6.0, works_on=False)) == [StopLeftovers(TERM)]
    assert not [action for _, action in run_until(life, 60.0) if isinstance(action, LookAtWork)]


def test_a_look_at_work_that_goes_on_is_not_repeated() -> None:
    life = left("-t", "20s")
    life.leftover_ended(5.0)
    run_until(life, 5.1)
    life.work_seen(5.1, works_on=True)
    assert not [action for _, action in run_until(life, 19.0) if isinstance(action, LookAtWork)]


def test_while_lingering_others_have_their_turn_too() -> None:
    life = make("--linger", "5s")
    life.agent_ended(1.0, exited(0), alone=False)
    life.leftover_ended(2.0)
    assert life.tick(life.due) == [StopLeftovers(TERM)]
    assert life.work_seen(2.1, works_on=True) == []


def test_nobody_has_a_turn_before_the_agents_end_or_after_the_kill() -> None:
    life = make("-t", "2s")
    due = life.due
    assert life.leftover_ended(1.0) == []
    assert life.due == due
    life.signal(0.0, TERM, "a test")
    assert life.work_seen(1.0, works_on=True) == []
    run_until(life, 2.0)
    assert life.agent_ended(2.1, killed(), alone=False, works_on=True) == []
    due = life.due
    life.leftover_ended(2.1)
    assert life.due == due


def test_nobody_is_held_back_after_the_agents_end() -> None:
    life = make("-t", "20s")
    life.signal(0.0, TERM, "a test")
    life.held_back(0.0)
    life.agent_ended(1.0, exited(0), alone=False, works_on=True)
    assert not [action for _, action in run_until(life, 19.0) if type(action).__name__ == "StopHeldBack"]


def test_the_stop_goes_on_with_its_schedule_extensions_and_requests() -> None:
    life = left("--stop-schedule", "TERM/5s/INT/5s/KILL", "--repeat", "escalate", "--max-grace", "60s")
    life.notified(2.0, {"EXTEND_TIMEOUT_USEC": "10000000"}, "a test")
    assert life.plan.steps
    assert [at for at, action in run_until(life, 12.0) if action == Stop(INT)] == [12.0]
    assert KillAll() in life.signal(13.0, TERM, "a test")
    assert run_until(life, 20.0)[-1][1] == Exit(137)


def test_work_that_a_wrapper_may_have_signalled_gets_the_stop_signal_before_the_kill() -> None:
    life = make("-t", "20s", "--stop-signal", "INT")
    life.signal(0.0, TERM, "a test")
    life.agent_ended(1.0, exited(130), alone=False, works_on=True)
    assert life.not_signalled(1.0) == []
    done = run_until(life, 19.0)
    assert [(at, action) for at, action in done if isinstance(action, StopInterrupted)] == [
        (18.0, StopInterrupted(INT))
    ]
    assert life.nothing_left(19.0)[-1] == Exit(130)

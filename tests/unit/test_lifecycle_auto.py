"""The state machine where the stop signal may be INT, and where a wrapper stays after its recipients have exited."""

from __future__ import annotations

import itertools

import pytest

from entrypoint.init.actions import (
    Action,
    Exit,
    LookAtAwaited,
    LookAtWrapper,
    Stop,
    StopHeldBack,
    StopInterrupted,
    StopLeftovers,
    TakeCpuSnapshot,
)
from entrypoint.init.lifecycle import (
    AWAITED_AT_MOST,
    AWAITED_EVERY,
    CLEANING,
    EXITING,
    HELD_BACK_FOR,
    MAX_HELD_BACK,
    RESTARTING,
    SERVING,
    SETTLE_EVERY,
    WAITING,
    WORKING,
)
from tests.support.lifecycle import events, exited, facts, killed, make, run_until, without_logs

INT, TERM, USR1, HUP = 2, 15, 10, 1


@pytest.mark.parametrize(
    ("flags", "number", "adapts", "sent"),
    [
        ((), TERM, True, TERM),
        ((), INT, True, TERM),  # STOPSIGNAL SIGINT
        (("--stop-signal", "auto", "-t", "5s"), TERM, True, TERM),
        (("--stop-signal", "TERM"), TERM, False, TERM),
        (("--stop-signal", "INT"), TERM, False, INT),
        (("--stop-schedule", "TERM/5s/KILL"), TERM, False, TERM),
        (("-r", "HUP:TERM"), HUP, False, TERM),
    ],
)
def test_only_the_automatic_stop_signal_may_be_replaced(
    flags: tuple[str, ...], number: int, adapts: bool, sent: int
) -> None:
    life = make(*flags)
    assert without_logs(life.signal(1.0, number, "a test")) == [Stop(sent), TakeCpuSnapshot()]
    assert life.adapts is adapts


def test_a_hung_agent_gets_abrt_whatever_it_handles() -> None:
    life = make("-t", "9s")
    life.notified(1.0, {"WATCHDOG": "trigger"}, "the agent")
    life.tick(life.due)
    assert not life.adapts


@pytest.mark.parametrize(("grace", "at"), [("10s", 8.0), ("3s", 1.5), ("1s", 0.5)])
def test_an_agent_that_stays_after_int_gets_term_before_the_kill(grace: str, at: float) -> None:
    life = make("-t", grace)
    life.signal(0.0, TERM, "a test")
    assert life.interrupted(0.0) == []
    done = [(now, action) for now, action in run_until(life, 60.0) if isinstance(action, StopInterrupted)]
    assert done == [(at, StopInterrupted(TERM))]


def test_without_a_deadline_it_gets_no_term() -> None:
    life = make("-t", "infinity")
    life.signal(0.0, TERM, "a test")
    life.interrupted(0.0)
    assert not [action for _, action in run_until(life, 500.0) if isinstance(action, StopInterrupted)]


def test_an_extension_puts_the_last_term_off() -> None:
    life = make("-t", "10s")
    life.signal(0.0, TERM, "a test")
    life.interrupted(0.0)
    life.notified(1.0, {"EXTEND_TIMEOUT_USEC": "20000000"}, "the agent")
    done = [now for now, action in run_until(life, 60.0) if isinstance(action, StopInterrupted)]
    assert done == [19.0]


@pytest.mark.parametrize(
    ("flags", "interrupted", "code", "expected"),
    [
        ((), True, 130, 130),
        (("-e", "143"), True, 130, 0),
        (("-e", "130"), True, 130, 0),
        (("-e", "143"), False, 130, 130),
        (("-e", "143"), True, 131, 131),
    ],
)
def test_an_end_by_int_counts_as_one_by_the_stop_signal(
    flags: tuple[str, ...], interrupted: bool, code: int, expected: int
) -> None:
    life = make(*flags)
    life.signal(0.0, TERM, "a test")
    if interrupted:
        life.interrupted(0.0)
    actions = life.agent_ended(1.0, exited(code), alone=True)
    assert without_logs(actions) == [Exit(expected)]
    assert facts(actions).get("by_int", False) is (interrupted and code == 130)


def test_killed_by_int_is_an_end_by_int() -> None:
    life = make("-e", "143")
    life.signal(0.0, TERM, "a test")
    life.interrupted(0.0)
    assert without_logs(life.agent_ended(1.0, killed(INT), alone=True)) == [Exit(0)]


def test_leftovers_get_term() -> None:
    life = make("-t", "9s")
    assert without_logs(life.agent_ended(1.0, exited(0), alone=False)) == [StopLeftovers(TERM)]


# --- What a shell waits for before its trap. -----------------------------------------------------------------------


@pytest.mark.parametrize("options", [["-t", "1m"], ["--platform-grace", "1m"]], ids=["a deadline", "the platform's"])
def test_what_a_shell_waits_for_is_looked_at_ever_more_rarely(options: list[str]) -> None:
    """A hundred looks in a minute at most, and the first ones soon."""
    life = make(*options)
    life.signal(0.0, TERM, "a test")
    life.awaited(0.0)
    looks = [at for at, action in run_until(life, 50.0) if action == LookAtAwaited(TERM)]
    assert looks[:4] == pytest.approx([AWAITED_EVERY * n for n in range(1, 5)])
    waits = [later - at for at, later in itertools.pairwise(looks)]
    assert waits == pytest.approx(sorted(waits))
    assert 40 < len(looks) < 100
    assert max(waits) == pytest.approx(AWAITED_AT_MOST)


def test_what_a_shell_waits_for_is_looked_at_until_nothing_is_left() -> None:
    life = make("-t", "20s")
    life.signal(0.0, TERM, "a test")
    life.awaited(0.0)
    assert LookAtAwaited(TERM) in life.tick(AWAITED_EVERY)
    assert life.awaited_seen(AWAITED_EVERY, True) == []
    assert LookAtAwaited(TERM) in life.tick(life.due)
    assert life.awaited_seen(0.3, False) == []
    assert not [action for _, action in run_until(life, 15.0) if isinstance(action, LookAtAwaited)]


def test_a_look_that_comes_too_late_changes_nothing() -> None:
    life = make("-t", "20s")
    life.signal(0.0, TERM, "a test")
    life.agent_ended(1.0, exited(0), alone=False)
    assert life.awaited(1.0) == []
    assert not [action for _, action in run_until(life, 15.0) if isinstance(action, LookAtAwaited)]


# --- A wrapper that stays. ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", [WAITING, RESTARTING])
def test_a_wrapper_that_would_stay_is_signalled_at_once(what: str) -> None:
    life = make("-t", "20s")
    life.signal(0.0, TERM, "a test")
    life.recipients_ended(1.0)
    assert life.due == 1.0 + SETTLE_EVERY
    assert life.tick(life.due) == [LookAtWrapper()]
    actions = life.wrapper_seen(1.2, what)
    assert events(actions) == ["wrapper-stays"]
    assert without_logs(actions) == [StopHeldBack(TERM)]
    assert life.wrapper_seen(1.4, what) == []  # once
    assert not [action for _, action in run_until(life, 19.0) if isinstance(action, LookAtWrapper)]


def test_a_wrapper_that_is_exiting_has_a_moment_for_it() -> None:
    life = make("-t", "20s")
    life.signal(0.0, TERM, "a test")
    life.recipients_ended(1.0)
    looks = []
    actions: list[Action] = []
    while not actions:
        looks.append(life.due)
        assert life.tick(looks[-1]) == [LookAtWrapper()]
        actions = life.wrapper_seen(looks[-1], EXITING)
        assert len(looks) < 20
    assert without_logs(actions) == [StopHeldBack(TERM)]
    assert 1.0 + HELD_BACK_FOR <= looks[-1] < 1.2 + HELD_BACK_FOR


def test_clean_up_has_the_rest_of_the_grace() -> None:
    life = make("-t", "20s")
    life.signal(0.0, TERM, "a test")
    life.recipients_ended(1.0)
    now = 1.0
    while now < 19.0:
        now = life.due
        if LookAtWrapper() in life.tick(now):
            assert life.wrapper_seen(now, WORKING) == []
    life.wrapper_seen(19.0, EXITING)
    assert life.wrapper_seen(19.5, EXITING) == []  # it has time to exit after its clean-up


@pytest.mark.parametrize("what", [CLEANING, SERVING])
@pytest.mark.parametrize(("flags", "until"), [(("-t", "20s"), 10.0), (("-t", "infinity"), 2.0 + MAX_HELD_BACK)])
def test_what_may_be_clean_up_has_half_of_the_grace(what: str, flags: tuple[str, str], until: float) -> None:
    life = make(*flags)
    life.signal(0.0, TERM, "a test")
    life.recipients_ended(2.0)
    assert life.wrapper_seen(until - 0.1, what) == []
    assert life.due <= until - 0.1 + SETTLE_EVERY
    actions = life.wrapper_seen(until, what)
    assert events(actions) == ["wrapper-stays"]
    assert without_logs(actions) == [StopHeldBack(TERM)]


def test_a_look_at_a_wrapper_without_an_answer_comes_again() -> None:
    """It has failed for want of memory."""
    life = make("-t", "20s")
    life.signal(0.0, TERM, "a test")
    life.recipients_ended(1.0)
    looks = [at for at, action in run_until(life, 3.1) if isinstance(action, LookAtWrapper)]
    assert looks == pytest.approx([1.0 + SETTLE_EVERY * n for n in range(1, 11)])
    assert without_logs(life.wrapper_seen(3.1, WAITING)) == [StopHeldBack(TERM)]
    assert not [action for _, action in run_until(life, 19.0) if isinstance(action, LookAtWrapper)]


def test_an_answer_that_comes_when_all_have_been_signalled_ends_the_looks() -> None:
    life = make("-t", "20s")
    life.signal(0.0, TERM, "a test")
    life.recipients_ended(1.0)
    life.held_back(1.0)
    done = run_until(life, 12.0)
    assert StopHeldBack(TERM) in [action for _, action in done]
    assert life.wrapper_seen(12.0, WAITING) == []
    assert not [action for _, action in run_until(life, 19.0) if isinstance(action, LookAtWrapper)]
    assert life.state == "stopping"


@pytest.mark.parametrize("state", ["running", "lingering", "killing", "ended"])
def test_an_answer_outside_a_stop_does_nothing(state: str) -> None:
    life = make("-t", "20s", "--linger", "5s")
    if state == "killing":
        life.signal(0.0, TERM, "a test")
        run_until(life, 20.0)
    elif state != "running":
        life.agent_ended(1.0, exited(0), alone=state == "ended")
    assert life.state == state
    due = life.due
    assert life.wrapper_seen(20.0, WAITING) == []
    assert (life.state, life.due) == (state, due)


def test_after_the_end_of_the_stop_a_look_changes_nothing() -> None:
    life = make("-t", "20s")
    life.signal(0.0, TERM, "a test")
    life.recipients_ended(1.0)
    life.agent_ended(1.1, exited(0), alone=False)
    before = life.snapshot()
    assert life.wrapper_seen(1.2, WAITING) == []
    assert life.snapshot() == before

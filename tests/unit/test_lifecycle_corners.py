"""Each answer of the state machine once, by itself: what an agent says, what comes too late, what nobody asked for."""

from __future__ import annotations

import math

import pytest

from entrypoint.init.lifecycle import (
    ENDED,
    GIVE_UP_AFTER,
    KILLING,
    LINGERING,
    RUNNING,
    STOPPING,
    Action,
    End,
    Forward,
    KillAll,
    MakeReport,
    Say,
    Stop,
    StopSurvivors,
)
from tests.support.lifecycle import done, make, said, text

ABRT, HUP, INT, KILL, TERM, USR1 = 6, 1, 2, 9, 15, 10


# --- Signals. -------------------------------------------------------------------------------------------------------


def test_a_signal_can_be_dropped_or_turned_into_another() -> None:
    life = make("-r", "USR1:0", "-r", "HUP:INT", "--stop-on", "TERM", "--unhandled", "forward")
    assert text(life.signal(1.0, USR1, "a test")) == "USR1 from a test dropped (--rewrite)"
    assert life.signal(1.0, HUP, "a test") == [Forward(INT, "a test", always=True)]
    assert life.state == RUNNING


@pytest.mark.parametrize("killed", [True, False])
def test_what_comes_too_late_is_not_forwarded(killed: bool) -> None:
    life = make("-t", "1s", "--linger", "5s")
    if killed:
        life.signal(0.0, TERM, "a test")
        life.tick(1.0)
    else:
        life.agent_ended(1.0, 0, "exited", alone=False)
    assert life.state == (KILLING if killed else LINGERING)
    assert text(life.signal(1.1, USR1, "a test")) == "USR1 from a test comes too late for the agent"


def test_the_end_and_the_kill_are_not_asked_for_again() -> None:
    life = make("-t", "1s")
    life.signal(0.0, TERM, "a test")
    life.tick(1.0)
    assert life.signal(1.1, TERM, "a test") == []
    assert done(life.agent_ended(1.2, 137, "was killed", alone=False)) == []
    assert life.state == KILLING
    assert done(life.nothing_left(1.3)) == [End(137)]
    assert life.signal(1.4, TERM, "a test") == []
    assert (life.nothing_left(1.5), life.tick(1.6)) == ([], [])


@pytest.mark.parametrize(
    ("repeat", "event", "actions", "state"),
    [
        ("ignore", "stop-repeated", [], STOPPING),
        ("forward", "stop-repeated", [Stop(TERM)], STOPPING),
        ("escalate", "escalated", [KillAll()], KILLING),
    ],
)
def test_a_repeated_request(repeat: str, event: str, actions: list[Action], state: str) -> None:
    life = make("-t", "10s", "--repeat", repeat)
    life.signal(0.0, TERM, "a test")
    answer = life.signal(1.0, TERM, "a test")
    assert said(answer)[0] == event
    assert "TERM from a test: a stop is under way already (9s left)" in next(
        a.text for a in answer if isinstance(a, Say)
    )
    assert (done(answer), life.state) == (actions, state)


@pytest.mark.parametrize(("now", "left"), [(9.75, "250ms left"), (10.5, "0s left")])
def test_the_time_left_is_told_to_its_end(now: float, left: str) -> None:
    life = make("-t", "10s")
    life.signal(0.0, TERM, "a test")
    assert f"({left})" in text(life.signal(now, TERM, "a test"))


@pytest.mark.parametrize(("flags", "passed"), [([], TERM), (["-r", "TERM:INT"], INT)])
def test_what_is_passed_on_again_is_what_the_first_was(flags: list[str], passed: int) -> None:
    life = make("-t", "10s", "--repeat", "forward", *flags)
    assert done(life.signal(0.0, TERM, "a test"))[0] == Stop(passed)
    assert done(life.signal(1.0, TERM, "a test")) == [Stop(passed)]


def test_before_the_first_step_no_repeat_is_passed_on() -> None:
    life = make("-t", "10s", "--repeat", "forward", "--stop-delay", "5s")
    life.signal(0.0, TERM, "a test")
    assert done(life.signal(1.0, TERM, "a test")) == []


def test_while_it_lingers_the_first_request_starts_the_grace_and_the_next_escalates() -> None:
    life = make("-t", "3s", "--linger", "60s", "--repeat", "escalate")
    assert done(life.agent_ended(0.0, 5, "exited", alone=False)) == [StopSurvivors(TERM)]
    assert life.due == 3.0  # no longer than the grace
    assert done(life.signal(1.0, TERM, "a test")) == []
    assert life.due == 3.0
    assert done(life.signal(2.0, TERM, "a test")) == [KillAll()]
    assert life.state == KILLING


def test_a_schedule_that_is_over_is_not_escalated() -> None:
    life = make("--stop-schedule", "TERM/1s/INT", "--repeat", "escalate")
    life.signal(0.0, TERM, "a test")
    assert done(life.signal(0.5, TERM, "a test")) == [Stop(INT)]
    assert done(life.signal(0.6, TERM, "a test")) == []
    assert life.state == STOPPING


# --- What the agent says. -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "event", "line"),
    [
        ({"ERRNO": "2"}, "errno", "the agent tells error 2 (No such file or directory)"),
        ({"RELOADING": "1"}, "reloading", "the agent is reloading"),
        ({"STOPPING": "1"}, "agent-stopping", "the agent is stopping by itself"),
        ({"READY": "1"}, "ready", "the agent is ready, after 2s"),
        ({"STATUS": "busy"}, "status", 'the agent says: "busy"'),
    ],
)
def test_what_is_told_of_what_the_agent_says(fields: dict[str, str], event: str, line: str) -> None:
    life = make()
    actions = life.notified(2.0, fields, "agent (pid 7)")
    assert (said(actions), text(actions), done(actions)) == ([event], line, [])
    again = life.notified(3.0, fields, "agent (pid 7)")
    assert said(again) == ([] if event in ("ready", "status") else [event])


def test_during_a_stop_it_need_not_say_that_it_stops() -> None:
    life = make()
    life.signal(0.0, TERM, "a test")
    assert life.notified(1.0, {"STOPPING": "1", "WATCHDOG": "trigger"}, "agent (pid 7)") == []


def test_the_interval_of_the_watchdog_is_what_was_said_last() -> None:
    life = make("--watchdog", "5s")
    life.notified(0.0, {"WATCHDOG_USEC": "3000000"}, "agent (pid 7)")
    assert life.due == math.inf  # nobody has spoken yet
    life.notified(1.0, {"WATCHDOG": "1"}, "agent (pid 7)")
    assert life.due == 4.0
    life.notified(2.0, {"WATCHDOG_USEC": "1000000"}, "agent (pid 7)")
    assert life.due == 3.0
    life.notified(2.5, {"WATCHDOG_USEC": "0"}, "agent (pid 7)")
    assert life.due == math.inf
    life.notified(2.6, {"WATCHDOG": "1"}, "agent (pid 7)")
    assert life.due == math.inf


def test_who_is_ready_in_the_agents_place_is_not_watched_before_it_gives_a_sign_of_life() -> None:
    life = make("--watchdog", "5s")
    actions = life.notified(1.0, {"READY": "1"}, "worker (pid 8)", by_agent=False)
    assert said(actions) == ["ready", "watchdog-waits"]
    assert life.due == math.inf
    life.notified(2.0, {"WATCHDOG": "1"}, "worker (pid 8)", by_agent=False)
    assert life.due == 7.0


@pytest.mark.parametrize(
    ("flags", "word", "hung"),
    [
        (["--watchdog", "5s"], "gave no sign of life for 5s", "watchdog"),
        (["--ready-timeout", "5s"], "is not ready after 5s", "ready-timeout"),
        ([], "triggered its watchdog (agent (pid 7))", "watchdog"),
    ],
)
def test_a_hang_is_a_report_and_a_stop_with_abrt(flags: list[str], word: str, hung: str) -> None:
    life = make("-t", "8s", *flags)
    life.notified(0.0, {"WATCHDOG": "1"}, "agent (pid 7)")
    actions = life.tick(5.0) if flags else life.notified(5.0, {"WATCHDOG": "trigger"}, "agent (pid 7)")
    assert said(actions) == [hung]
    assert word in text(actions)
    [report] = done(actions)
    assert isinstance(report, MakeReport)
    assert life.reported(5.1) == []
    assert done(life.tick(5.1)) == [Stop(ABRT)]
    due = life.due
    assert life.reported(5.2) == []  # only the first step waits for it
    assert life.due == due == 13.1
    assert done(life.agent_ended(6.0, 0, "exited", alone=True)) == [End(134)]


@pytest.mark.parametrize("schedule", ["TERM", "TERM/5s/INT", "TERM/infinity/KILL"])
def test_an_agent_that_hangs_is_killed_in_the_end(schedule: str) -> None:
    life = make("--stop-schedule", schedule, "--watchdog", "1s")
    life.notified(0.0, {"WATCHDOG": "1"}, "agent (pid 7)")
    actions: list[Action] = []
    while life.state != KILLING:
        actions += life.tick(life.due)
    assert [a.number for a in actions if isinstance(a, Stop)] == [ABRT, *([INT] if "INT" in schedule else [])]
    assert life.due < 40


def test_who_is_ready_in_time_is_not_found_to_hang() -> None:
    life = make("--ready-timeout", "5s")
    assert life.due == 5.0
    life.notified(4.0, {"READY": "1"}, "agent (pid 7)")
    assert life.due == math.inf


def test_more_time_can_be_had_to_become_ready() -> None:
    life = make("--ready-timeout", "5s")
    for microseconds, due in (("2000000", 5.0), ("9000000", 10.0), ("0", 10.0)):
        assert life.notified(1.0, {"EXTEND_TIMEOUT_USEC": microseconds}, "agent (pid 7)") == []
        assert life.due == due


@pytest.mark.parametrize(
    ("flags", "at", "due"),
    [
        (["-t", "5s"], 1.0, 10.0),
        (["-t", "5s", "--max-grace", "7s"], 1.0, 7.0),
        (["-t", "5s", "--max-grace", "5s"], 1.0, None),
        (["-t", "20s"], 1.0, None),
        (["-t", "infinity"], 1.0, None),
        (["-t", "5s", "--stop-delay", "2s"], 1.0, None),
    ],
)
def test_more_time_can_be_had_for_a_stop(flags: list[str], at: float, due: float | None) -> None:
    """Not what is there already, not beyond the bound, not where there is no deadline or no step was sent."""
    life = make(*flags)
    life.signal(0.0, TERM, "a test")
    before = life._next_at
    answer = life.notified(at, {"EXTEND_TIMEOUT_USEC": "9000000"}, "agent (pid 7)")
    assert said(answer) == ([] if due is None else ["extended"])
    if due is not None:
        bound = ", 7s in all at most (--max-grace)" if "--max-grace" in flags else ""
        assert text(answer) == f"the agent asks for more time{bound}"
    assert life._next_at == (before if due is None else due)
    assert said(life.notified(at + 0.1, {"EXTEND_TIMEOUT_USEC": "9000000"}, "agent (pid 7)")) == []


# --- Ends. ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "told"), [(143, 0), (3, 3)])
def test_a_code_that_is_to_be_taken_for_success(code: int, told: int) -> None:
    life = make("--ok-exit", "143")
    actions = life.agent_ended(1.0, code, f"exited with code {code}", alone=True)
    assert done(actions) == [End(told)]
    assert text(actions).endswith(f"exit code {told}" + (" (--ok-exit 143)" if told == 0 else ""))


@pytest.mark.parametrize("ended", [True, False])
def test_what_does_not_die_of_sigkill_is_not_waited_for(ended: bool) -> None:
    life = make("-t", "1s")
    life.signal(0.0, TERM, "a test")
    life.tick(1.0)
    if ended:
        life.agent_ended(1.1, 7, "exited with code 7", alone=False)
    assert done(life.tick(1.2)) == [KillAll()]
    actions = life.tick(1.0 + GIVE_UP_AFTER)
    assert done(actions) == [KillAll(), End(7 if ended else 137)]
    assert said(actions) == ["left-behind", "ended"]
    assert (life.state, life.due) == (ENDED, math.inf)


def test_without_a_deadline_the_linger_time_is_the_limit() -> None:
    life = make("--stop-schedule", "TERM/1s/INT", "--linger", "4s")
    life.signal(0.0, TERM, "a test")
    life.agent_ended(0.5, 0, "exited", alone=False)
    assert life.due == 4.5
    assert done(life.tick(4.5)) == [KillAll()]


@pytest.mark.parametrize("now", [0.9, 4.9])
@pytest.mark.parametrize("flags", [[], ["--watchdog", "5s"], ["--ready-timeout", "5s"], ["-t", "9s"]], ids=" ".join)
def test_a_tick_before_its_time_does_nothing(flags: list[str], now: float) -> None:
    life = make(*flags)
    if "--watchdog" in flags:
        life.notified(0.0, {"WATCHDOG": "1"}, "the agent")
    if "-t" in flags:
        life.signal(0.0, TERM, "a test")
    before = dict(vars(life))
    assert life.tick(now) == []
    assert dict(vars(life)) == before


def test_actions_are_equal_by_what_they_say_and_show_it() -> None:
    assert Stop(15) == Stop(15) != Stop(9)
    assert Stop(0) != End(0)
    assert KillAll() == KillAll()
    assert (repr(Stop(15)), repr(KillAll())) == ("Stop(15,)", "KillAll()")

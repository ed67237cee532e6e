"""Each event of the state machine by itself: rare answers, messages, late events, and processes held back."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import pytest

from entrypoint.init.actions import (
    Action,
    Exit,
    Forward,
    KillAll,
    Log,
    LookAtRest,
    MakeStallReport,
    Stop,
    StopHeldBack,
    StopLeftovers,
    TakeCpuSnapshot,
)
from entrypoint.init.exit_status import Ending
from entrypoint.init.lifecycle import (
    ENDED,
    GIVE_UP_AFTER,
    GIVE_UP_AT_LAST,
    HELD_BACK_FOR,
    HELPERS_LEAVE,
    KILLING,
    LINGERING,
    MAX_HELD_BACK,
    MAX_STATUS_CHARACTERS,
    RUNNING,
    STOPPING,
    Lifecycle,
)
from entrypoint.signals import ABRT, HUP, INT, KILL, TERM, VALID
from tests.support.lifecycle import (
    OomKills,
    events,
    exited,
    facts,
    killed,
    logs,
    make,
    run_until,
    without_logs,
)

if TYPE_CHECKING:
    from collections.abc import Callable

USR1 = 10


# --- Signals. -------------------------------------------------------------------------------------------------------


def test_a_signal_can_be_dropped_or_replaced_by_another() -> None:
    life = make("-r", "USR1:0", "-r", "HUP:INT", "--stop-on", "TERM", "--unhandled", "forward")
    assert life.signal(1.0, USR1, "a test") == [Log("dropped", signal=USR1, sender="a test")]
    assert life.signal(1.0, HUP, "a test") == [Forward(INT, "a test", always=True)]
    assert life.state == RUNNING


def test_a_signal_that_nobody_handles_is_logged() -> None:
    life = make()
    assert life.unhandled(1.0, USR1, "a test") == [Log("shielded", signal=USR1, sender="a test")]
    assert life.state == RUNNING
    forwarder = make("--stop-on", "none")
    assert forwarder.unhandled(1.0, HUP, "a test") == [Log("shielded", signal=HUP, sender="a test")]


@pytest.mark.parametrize("state", [KILLING, LINGERING, ENDED])
def test_a_signal_that_comes_too_late_is_not_forwarded(state: str) -> None:
    life = make("-t", "1s", "--linger", "5s")
    if state == LINGERING:
        life.agent_ended(1.0, exited(0), alone=False)
    else:
        life.signal(0.0, TERM, "a test")
        life.tick(1.0)
    if state == ENDED:  # without the agent's exit having been seen
        life.tick(1.0 + GIVE_UP_AT_LAST)
    assert life.state == state
    assert life.signal(1.5, USR1, "a test") == [Log("not-forwarded", signal=USR1, sender="a test")]


def test_neither_the_end_nor_the_kill_can_be_requested_again() -> None:
    life = make("-t", "1s")
    life.signal(0.0, TERM, "a test")
    life.tick(1.0)
    assert life.signal(1.1, TERM, "a test") == []
    assert life.agent_ended(1.2, killed(), alone=False) == []
    assert life.state == KILLING
    assert without_logs(life.nothing_left(1.3)) == [Exit(137)]
    assert life.signal(1.4, TERM, "a test") == []
    assert (life.nothing_left(1.5), life.tick(1.6)) == ([], [])


@pytest.mark.parametrize(
    ("repeat", "event", "actions", "state"),
    [
        ("ignore", "stop-repeated", [], STOPPING),
        ("forward", "stop-repeated", [Stop(TERM)], STOPPING),
        ("escalate", "repeat-escalates", [KillAll()], KILLING),
    ],
)
def test_a_repeated_request(repeat: str, event: str, actions: list[Action], state: str) -> None:
    life = make("-t", "10s", "--repeat", repeat)
    life.signal(0.0, TERM, "a test")
    answer = life.signal(1.0, INT, "a test")
    log, *_ = logs(answer)
    passed_on: dict[str, Any] = {} if repeat == "escalate" else {"passed_on": TERM if repeat == "forward" else None}
    assert log == Log(event, signal=INT, sender="a test", left=9.0, elapsed=1.0, extended=False, **passed_on)
    assert (without_logs(answer), life.state) == (actions, state)


def test_a_repeated_request_that_escalates_is_not_a_deadline() -> None:
    life = make("--stop-schedule", "TERM/5s/INT/5s/KILL", "--repeat", "escalate")
    life.signal(0.0, TERM, "a test")
    escalated = life.signal(1.0, TERM, "a test")
    assert events(escalated) == ["repeat-escalates", "step"]
    assert logs(escalated)[1] == Log("step", signal=INT, elapsed=1.0, hung=False)
    at_once = life.signal(2.0, TERM, "a test")
    assert events(at_once) == ["repeat-escalates", "step"]
    assert logs(at_once)[1] == Log("step", signal=KILL, elapsed=2.0, hung=False)


def test_a_kill_by_the_schedule_is_a_deadline() -> None:
    life = make("--stop-schedule", "TERM/5s/INT/5s/KILL")
    life.signal(0.0, TERM, "a test")
    done = [a for _, a in run_until(life, 10.0) if isinstance(a, Log) and a.event in ("step", "deadline")]
    assert done == [
        Log("step", signal=INT, elapsed=5.0, hung=False),
        Log("deadline", signal=KILL, elapsed=10.0, hung=False),
    ]


@pytest.mark.parametrize(("now", "left"), [(9.75, 0.25), (10.5, 0.0)])
def test_the_time_left_is_never_negative(now: float, left: float) -> None:
    life = make("-t", "10s")
    life.signal(0.0, TERM, "a test")
    assert facts(life.signal(now, TERM, "a test"))["left"] == left


def test_without_a_deadline_there_is_no_time_left_but_a_time_since() -> None:
    life = make("-t", "infinity")
    life.signal(1.0, TERM, "a test")
    repeated = facts(life.signal(4.0, TERM, "a test"))
    assert (repeated["left"], repeated["elapsed"], repeated["extended"]) == (None, 3.0, False)


def test_leftover_processes_without_a_deadline_or_a_request_have_neither_time() -> None:
    life = make("-t", "infinity", "--linger", "infinity")
    life.agent_ended(1.0, exited(0), alone=False)
    assert life.tick(11.0) == [Log("stopping", status="", left=None, elapsed=None, extended=False)]


def test_an_extension_does_not_count_for_leftover_processes() -> None:
    life = make("-t", "5s", "--linger", "30s")
    life.signal(0.0, TERM, "a test")
    life.notified(1.0, {"EXTEND_TIMEOUT_USEC": "30000000"}, "agent (pid 7)")
    assert facts(life.signal(1.5, TERM, "a test"))["extended"] is True
    life.agent_ended(2.0, exited(0), alone=False)
    assert facts(life.signal(3.0, TERM, "a test"))["extended"] is False


@pytest.mark.parametrize(("flags", "passed_on"), [([], TERM), (["-r", "TERM:INT"], INT)])
def test_a_repeated_request_passes_on_the_same_signal(flags: list[str], passed_on: int) -> None:
    life = make("-t", "10s", "--repeat", "forward", *flags)
    assert without_logs(life.signal(0.0, TERM, "a test"))[0] == Stop(passed_on)
    repeated = life.signal(1.0, TERM, "a test")
    assert without_logs(repeated) == [Stop(passed_on)]
    assert facts(repeated)["passed_on"] == passed_on


def test_a_rewritten_request_does_not_replace_a_kill() -> None:
    life = make("--stop-schedule", "KILL", "-r", "TERM:INT")
    assert without_logs(life.signal(0.0, TERM, "a test")) == [KillAll()]


def test_before_the_first_step_no_repeated_request_is_passed_on() -> None:
    life = make("-t", "10s", "--repeat", "forward", "--stop-delay", "5s")
    life.signal(0.0, TERM, "a test")
    assert without_logs(life.signal(1.0, TERM, "a test")) == []


def test_while_lingering_the_first_request_starts_the_grace_and_the_next_escalates() -> None:
    life = make("-t", "3s", "--linger", "60s", "--repeat", "escalate")
    assert without_logs(life.agent_ended(0.0, exited(5), alone=False)) == [StopLeftovers(TERM)]
    assert life.due == 3.0  # no longer than the grace
    assert events(first := life.signal(1.0, TERM, "a test")) == ["stop-repeated"]
    assert without_logs(first) == []
    assert life.due == 3.0
    second = life.signal(2.0, TERM, "a test")
    assert without_logs(second) == [KillAll()]
    assert logs(second) == [
        Log("repeat-kills", signal=TERM, sender="a test", left=1.0, elapsed=1.0, extended=False),
    ]
    assert life.state == KILLING


def test_a_schedule_without_further_steps_is_not_escalated() -> None:
    life = make("--stop-schedule", "TERM/1s/INT", "--repeat", "escalate")
    life.signal(0.0, TERM, "a test")
    assert without_logs(life.signal(0.5, TERM, "a test")) == [Stop(INT)]
    assert without_logs(life.signal(0.6, TERM, "a test")) == []
    assert life.state == STOPPING


def test_only_signals_without_consequences_are_sent_at_once() -> None:
    life = make("--stop-on", "TERM,HUP", "-r", "USR1:INT", "--linger", "5s")
    assert life.sent_at_once == VALID - {TERM, HUP, USR1}
    life.agent_ended(1.0, exited(0), alone=False)
    assert life.sent_at_once == frozenset()
    killed_life = make("-t", "0")
    killed_life.signal(0.0, TERM, "a test")
    killed_life.tick(0.0)
    assert killed_life.state == KILLING
    assert killed_life.sent_at_once == frozenset()


# --- Messages. ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "log"),
    [
        ({"ERRNO": "2"}, Log("errno", errno=2)),
        ({"RELOADING": "1"}, Log("reloading")),
        ({"STOPPING": "1"}, Log("agent-stopping")),
        ({"READY": "1"}, Log("ready", seconds=2.0)),
        ({"STATUS": "busy"}, Log("status", status="busy")),
        ({"RELOADING": "1", "STOPPING": "1"}, Log("reloading")),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else None,
)
def test_messages_that_are_only_logged(fields: dict[str, str], log: Log) -> None:
    life = make()
    assert life.notified(2.0, fields, "agent (pid 7)") == [log]
    again = life.notified(3.0, fields, "agent (pid 7)")
    assert again == ([] if log.event in ("ready", "status") else [log])


@pytest.mark.parametrize(
    "fields",
    [{"RELOADING": "0"}, {"STOPPING": "0"}, {"READY": "0"}, {"WATCHDOG": "0"}, {"STATUS": ""}, {}],
    ids=str,
)
def test_messages_without_consequences(fields: dict[str, str]) -> None:
    life = make("--watchdog", "5s")
    assert life.notified(2.0, fields, "agent (pid 7)") == []
    assert life.due == math.inf


def test_a_long_status_is_cut() -> None:
    life = make()
    cut = "x" * MAX_STATUS_CHARACTERS
    assert life.notified(1.0, {"STATUS": cut + "y"}, "agent (pid 7)") == [Log("status", status=cut)]
    assert life.notified(1.0, {"STATUS": cut + "z"}, "agent (pid 7)") == []
    assert life.status == cut


def test_during_a_stop_stopping_and_a_trigger_have_no_effect() -> None:
    life = make()
    life.signal(0.0, TERM, "a test")
    assert life.notified(1.0, {"STOPPING": "1", "WATCHDOG": "trigger"}, "agent (pid 7)") == []


def test_the_last_watchdog_interval_counts() -> None:
    life = make("--watchdog", "5s")
    life.notified(0.0, {"WATCHDOG_USEC": "3000000"}, "agent (pid 7)")
    assert life.due == math.inf  # there was no sign of life yet
    life.notified(1.0, {"WATCHDOG": "1"}, "agent (pid 7)")
    assert life.due == 4.0
    life.notified(2.0, {"WATCHDOG_USEC": "1000000"}, "agent (pid 7)")
    assert life.due == 3.0
    life.notified(2.5, {"WATCHDOG_USEC": "0"}, "agent (pid 7)")
    assert life.due == math.inf
    life.notified(2.6, {"WATCHDOG": "1"}, "agent (pid 7)")
    assert life.due == math.inf


def test_a_process_that_is_ready_in_the_agents_place_is_not_watched_before_its_first_sign_of_life() -> None:
    life = make("--watchdog", "5s")
    actions = life.notified(1.0, {"READY": "1"}, "worker (pid 8)", by_agent=False)
    assert events(actions) == ["ready", "watchdog-waits"]
    assert logs(actions)[1].facts == {"sender": "worker (pid 8)"}
    assert life.due == math.inf
    life.notified(2.0, {"WATCHDOG": "1"}, "worker (pid 8)", by_agent=False)
    assert life.due == 7.0
    assert events(life.notified(3.0, {"READY": "1"}, "worker (pid 8)", by_agent=False)) == []
    assert life.due == 7.0


def test_during_a_stop_no_watchdog_waits() -> None:
    life = make("--watchdog", "5s")
    life.signal(0.0, TERM, "a test")
    due = life.due
    assert events(life.notified(1.0, {"READY": "1"}, "worker (pid 8)", by_agent=False)) == ["ready"]
    assert life.notified(1.5, {"WATCHDOG": "1"}, "agent (pid 7)") == []
    assert life.due == due


@pytest.mark.parametrize(
    ("flags", "allowed", "sender", "hung"),
    [
        (["--watchdog", "5s"], 5.0, None, "watchdog"),
        (["--ready-timeout", "5s"], 5.0, None, "ready-timeout"),
        ([], None, "agent (pid 7)", "watchdog"),
    ],
)
def test_a_hang_is_a_report_and_a_stop_with_abrt(
    flags: list[str], allowed: float | None, sender: str | None, hung: str
) -> None:
    life = make("-t", "8s", *flags)
    life.notified(0.0, {"WATCHDOG": "1", "STATUS": "busy"}, "agent (pid 7)")
    actions = life.tick(5.0) if flags else life.notified(5.0, {"WATCHDOG": "trigger"}, "agent (pid 7)")
    upcoming = {"steps": [(ABRT, 1.5), (KILL, 9.5)], "platform": None}
    assert logs(actions) == [Log(hung, allowed=allowed, sender=sender, upcoming=upcoming, status="busy")]
    assert without_logs(actions) == [MakeStallReport(1.5)]
    assert life.reported(5.1) == []
    assert without_logs(life.tick(5.1)) == [Stop(ABRT)]
    due = life.due
    assert life.reported(5.2) == []  # only the first step waits for it
    assert life.due == due == 13.1
    assert without_logs(life.agent_ended(6.0, exited(0), alone=True)) == [Exit(134)]


def test_the_exit_code_of_a_hung_agent_stays_if_it_is_not_zero() -> None:
    life = make()
    life.notified(0.0, {"WATCHDOG": "trigger"}, "agent (pid 7)")
    actions = life.agent_ended(1.0, exited(3), alone=True)
    assert without_logs(actions) == [Exit(3)]
    assert (facts(actions)["hung"], facts(actions)["why"]) == ("watchdog", "")


@pytest.mark.parametrize("code", [0, 3])
def test_a_hung_agent_never_ends_with_0(code: int) -> None:
    life = make("--ok-exit", str(code))
    life.notified(0.0, {"WATCHDOG": "trigger"}, "agent (pid 7)")
    actions = life.agent_ended(1.0, exited(code), alone=True)
    assert without_logs(actions) == [Exit(134)]
    assert facts(actions)["why"] == "hung"


def test_the_time_of_a_hung_agent_cannot_be_extended() -> None:
    life = make("-t", "8s")
    life.notified(0.0, {"WATCHDOG": "trigger"}, "agent (pid 7)")
    life.tick(1.5)
    assert life.notified(2.0, {"EXTEND_TIMEOUT_USEC": "9000000"}, "agent (pid 7)") == []
    assert next(at for at, a in run_until(life, 20.0) if isinstance(a, KillAll)) == 9.5


@pytest.mark.parametrize("schedule", ["TERM", "TERM/5s/INT", "TERM/infinity/KILL"])
def test_a_hung_agent_is_killed_in_the_end(schedule: str) -> None:
    life = make("--stop-schedule", schedule, "--watchdog", "1s")
    life.notified(0.0, {"WATCHDOG": "1"}, "agent (pid 7)")
    actions: list[Action] = []
    while life.state != KILLING:
        actions += life.tick(life.due)
    assert [a.number for a in actions if isinstance(a, Stop)] == [ABRT, *([INT] if "INT" in schedule else [])]
    assert life.due < 40


def test_an_agent_that_is_ready_in_time_does_not_hang() -> None:
    life = make("--ready-timeout", "5s")
    assert life.due == 5.0
    life.notified(4.0, {"READY": "1"}, "agent (pid 7)")
    assert life.due == math.inf


def test_the_time_to_become_ready_can_be_extended() -> None:
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
        (["-t", "5s", "--platform-grace", "9s"], 1.0, 7.0),
        (["--platform-grace", "9s"], 1.0, None),
        (["-t", "20s"], 1.0, None),
        (["-t", "infinity"], 1.0, None),
        (["-t", "5s", "--stop-delay", "2s"], 1.0, None),
    ],
)
def test_a_stop_can_be_extended(flags: list[str], at: float, due: float | None) -> None:
    """Never shortened, not beyond the bound, not where there is no deadline or no step was sent."""
    life = make(*flags)
    life.signal(0.0, TERM, "a test")
    before = life._at("step")
    answer = life.notified(at, {"EXTEND_TIMEOUT_USEC": "9000000"}, "agent (pid 7)")
    bound = 7.0 if due == 7.0 else math.inf
    by = "--platform-grace" if "--platform-grace" in flags else "--max-grace"
    assert answer == ([] if due is None else [Log("extended", max_grace=bound, limited_by=by)])
    assert life._at("step") == (before if due is None else due)
    assert events(life.notified(at + 0.1, {"EXTEND_TIMEOUT_USEC": "9000000"}, "agent (pid 7)")) == []


# --- Processes held back. -------------------------------------------------------------------------------------------


def stopped(*flags: str, environment: dict[str, str] | None = None) -> Lifecycle:
    """Return one whose stop signal went at 0.0 to descendants of a process that is held back from it."""
    life = make(*flags, environment=environment)
    assert without_logs(life.signal(0.0, TERM, "a test")) == [Stop(TERM), TakeCpuSnapshot()]
    assert [log.event for log in logs(life.held_back(0.0))] == ["held-back"]
    return life


def signalled_at(life: Lifecycle, end: float = 1000.0) -> list[float]:
    return [at for at, action in run_until(life, end) if isinstance(action, StopHeldBack)]


@pytest.mark.parametrize(
    ("flags", "environment", "at"),
    [
        (["-t", "20s"], {}, 10.0),
        (["-t", "4s"], {}, 2.0),
        (["-t", "2s"], {}, HELD_BACK_FOR),
        (["-t", "1s"], {}, None),
        (["-t", "infinity"], {}, MAX_HELD_BACK),
        ([], {"KUBERNETES_SERVICE_HOST": "x"}, MAX_HELD_BACK),
        (["--stop-schedule", "TERM/7s/INT"], {}, MAX_HELD_BACK),
        (["--stop-schedule", "TERM/7s/INT/9s/KILL"], {}, None),  # the next step comes before the half
    ],
)
def test_held_back_processes_are_signalled_at_half_of_the_grace(
    flags: list[str], environment: dict[str, str], at: float | None
) -> None:
    life = stopped(*flags, environment=environment)
    step = 7.0 if "TERM/7s/INT/9s/KILL" in flags else 1000.0
    assert signalled_at(life, step - 0.1) == ([] if at is None else [at])


def test_how_long_processes_are_held_back_is_logged() -> None:
    life = make("-t", "20s")
    life.signal(5.0, TERM, "a test")
    assert life.held_back(6.0) == [Log("held-back", signal=TERM, seconds=9.0)]
    assert life.tick(15.0) == [Log("held-back-signalled", signal=TERM), StopHeldBack(TERM)]


def test_held_back_processes_are_signalled_a_moment_after_the_recipients_have_exited() -> None:
    life = stopped("-t", "20s")
    assert life.recipients_ended(3.0) == []
    assert signalled_at(life) == [3.0 + HELD_BACK_FOR]


def test_the_exit_of_recipients_never_delays_what_comes_earlier() -> None:
    life = stopped("-t", "20s")
    life.recipients_ended(9.9)
    assert life.due == 10.0
    life.recipients_ended(3.0)
    life.recipients_ended(4.0)
    assert signalled_at(life) == [3.0 + HELD_BACK_FOR]


def test_held_back_processes_are_signalled_once() -> None:
    life = stopped("-t", "20s", "--repeat", "forward")
    assert signalled_at(life, 10.0) == [10.0]
    assert life.recipients_ended(10.5) == []
    assert without_logs(life.signal(11.0, TERM, "a test")) == [Stop(TERM)]
    assert life.held_back(11.0) == []
    assert signalled_at(life) == []


def test_held_back_processes_get_the_signal_of_the_last_step() -> None:
    life = stopped("--stop-schedule", "TERM/7s/INT/9s/KILL")
    done = run_until(life, 7.0)
    assert [a for _, a in done if isinstance(a, Stop | StopHeldBack)] == [Stop(INT)]
    assert life.held_back(7.0) == [Log("held-back", signal=INT, seconds=HELD_BACK_FOR)]
    assert [(at, a) for at, a in run_until(life, 15.0) if isinstance(a, StopHeldBack)] == [(8.5, StopHeldBack(INT))]


def test_a_step_without_recipients_leaves_the_time_of_those_held_back() -> None:
    life = stopped("--stop-schedule", "TERM/7s/INT/9s/KILL")
    done = [(at, a) for at, a in run_until(life, 15.0) if isinstance(a, Stop | StopHeldBack)]
    assert done == [(7.0, Stop(INT)), (8.0, StopHeldBack(INT))]


def test_an_escalation_gives_later_recipients_time_again() -> None:
    life = stopped("--stop-schedule", "TERM/20s/INT/20s/KILL", "--repeat", "escalate")
    life.recipients_ended(0.5)
    assert life.due == 2.0
    assert without_logs(life.signal(1.0, TERM, "a test")) == [Stop(INT)]
    assert life.held_back(1.0) == [Log("held-back", signal=INT, seconds=9.5)]
    assert signalled_at(life, 15.0) == [10.5]


def test_an_escalation_to_kill_ends_the_wait() -> None:
    life = stopped("-t", "20s", "--repeat", "escalate")
    assert without_logs(life.signal(1.0, TERM, "a test")) == [KillAll()]
    assert life.held_back(1.0) == []
    assert life.recipients_ended(1.0) == []
    assert signalled_at(life) == []


@pytest.mark.parametrize("repeat", ["ignore", "forward"])
def test_a_repeated_request_does_not_shorten_the_wait(repeat: str) -> None:
    life = stopped("-t", "20s", "--repeat", repeat)
    life.signal(1.0, TERM, "a test")
    if repeat == "forward":
        assert logs(life.held_back(1.0)) == [Log("held-back", signal=TERM, seconds=9.0)]
    assert signalled_at(life) == [10.0]


def test_an_extension_leaves_held_back_processes_half_of_the_new_time() -> None:
    life = stopped("-t", "20s")
    life.notified(4.0, {"EXTEND_TIMEOUT_USEC": "40000000"}, "worker (pid 8)")
    assert signalled_at(life) == [24.0]


def test_an_extension_that_is_no_longer_than_the_grace_does_not_prolong_the_wait() -> None:
    life = stopped("-t", "20s")
    life.notified(4.0, {"EXTEND_TIMEOUT_USEC": "9000000"}, "worker (pid 8)")
    assert signalled_at(life) == [10.0]


def test_an_extension_without_a_deadline_prolongs_the_wait_by_its_limit() -> None:
    life = stopped("--stop-schedule", "TERM/7s/INT")
    life.notified(4.0, {"EXTEND_TIMEOUT_USEC": "3600000000"}, "worker (pid 8)")
    assert signalled_at(life, 60.0) == [4.0 + MAX_HELD_BACK]


def test_an_extension_after_the_signal_does_not_hold_back_again() -> None:
    life = stopped("-t", "20s")
    assert signalled_at(life, 10.0) == [10.0]
    life.notified(11.0, {"EXTEND_TIMEOUT_USEC": "40000000"}, "worker (pid 8)")
    assert signalled_at(life, 50.0) == []


@pytest.mark.parametrize("alone", [True, False])
def test_nothing_is_held_back_after_the_agents_exit(alone: bool) -> None:
    life = stopped("-t", "20s", "--linger", "15s")
    life.agent_ended(1.0, exited(0), alone=alone)
    assert life.held_back(1.1) == []
    assert life.recipients_ended(1.2) == []
    assert signalled_at(life) == []


def test_while_running_nothing_is_held_back() -> None:
    life = make("-t", "20s")
    assert (life.held_back(1.0), life.recipients_ended(1.0)) == ([], [])
    assert life.due == math.inf


class Stopping:
    """A stop whose signal went to descendants. Each later Stop finds recipients again and holds others back again."""

    def __init__(self, repeat: str) -> None:
        self.life = stopped("--stop-schedule", "TERM/8s/INT/8s/KILL", "--linger", "4s", "--repeat", repeat)
        self.now = 0.0
        self.signalled = 0
        self.over = False

    def take(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Stop | StopHeldBack):
                assert not self.over
            if isinstance(action, StopHeldBack):
                self.signalled += 1
                assert self.signalled == 1
            elif isinstance(action, Stop):
                assert bool(self.life.held_back(self.now)) == (not self.signalled)
            elif isinstance(action, KillAll | Exit | StopLeftovers):
                self.over = True

    def time(self, seconds: float = 9.0) -> None:
        end = self.now + seconds
        while self.life.due <= end:
            self.now = self.life.due
            self.take(self.life.tick(self.now))
        self.now = end

    def recipients_ended(self) -> None:
        self.take(self.life.recipients_ended(self.now))
        assert self.over or self.signalled or self.life.due <= self.now + HELD_BACK_FOR

    def agent_ended(self) -> None:
        self.take(self.life.agent_ended(self.now, exited(0), alone=False))
        assert self.over

    def repeated_request(self) -> None:
        self.take(self.life.signal(self.now, TERM, "a test"))

    def extension(self) -> None:
        self.take(self.life.notified(self.now, {"EXTEND_TIMEOUT_USEC": "12000000"}, "worker (pid 8)"))


WHAT_HAPPENS = ("recipients_ended", "agent_ended", "repeated_request", "extension", "time")


@pytest.mark.parametrize("repeat", ["ignore", "forward", "escalate"])
@pytest.mark.parametrize("order", list(itertools.permutations(WHAT_HAPPENS)), ids=",".join)
def test_in_any_order_held_back_processes_are_signalled_once_or_the_stop_is_over(
    order: tuple[str, ...], repeat: str
) -> None:
    stop = Stopping(repeat)
    for event in order:
        stop.time(0.5)
        getattr(stop, event)()
        if event == "time":  # more than all that the others have left of the wait
            assert stop.signalled or stop.over or "extension" in order[: order.index("time")]
    stop.time(100.0)
    assert stop.life.state == ENDED
    assert stop.over


# --- Ends. ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "own", "why"), [(143, 0, "ok-exit"), (3, 3, "")])
def test_an_exit_code_that_counts_as_success(code: int, own: int, why: str) -> None:
    life = make("--ok-exit", "143")
    actions = life.agent_ended(1.0, exited(code), alone=True)
    assert without_logs(actions) == [Exit(own)]
    assert (facts(actions)["code"], facts(actions)["agent_code"], facts(actions)["why"]) == (own, code, why)


@pytest.mark.parametrize(
    ("ending", "cause", "code"),
    [
        (exited(0), "exited", 0),
        (exited(137), "exited", 137),
        (exited(1, OomKills(1)), "exited", 1),
        (killed(TERM), "signal", 143),
        (killed(), "killed", 137),
        (killed(memory=OomKills(0)), "killed", 137),
        (killed(memory=OomKills(None)), "killed", 137),
        (killed(memory=OomKills(2)), "oom", 137),
        (killed(kill_forwarded=True), "signal", 137),
        (killed(memory=OomKills(2), kill_forwarded=True), "signal", 137),
        (Ending(None), "lost", 125),
    ],
)
@pytest.mark.parametrize("alone", [True, False])
def test_the_cause_of_an_end(ending: Ending, cause: str, code: int, alone: bool) -> None:
    life = make()
    actions = life.agent_ended(1.0, ending, alone=alone)
    assert (facts(actions)["cause"], facts(actions)["ending"]) == (cause, ending)
    if not alone:
        actions = life.nothing_left(2.0)
    assert without_logs(actions) == [Exit(code)]
    assert (facts(actions)["cause"], facts(actions)["ending"]) == (cause, ending)


@pytest.mark.parametrize(
    ("ending", "cause"),
    [
        (killed(), "deadline"),
        (killed(memory=OomKills(1), kill_forwarded=True), "deadline"),
        (killed(TERM), "signal"),
        (exited(0), "exited"),
        (exited(137), "exited"),
        (Ending(None), "lost"),
    ],
)
def test_after_the_kill_only_sigkill_is_the_deadlines_work(ending: Ending, cause: str) -> None:
    life = make("-t", "1s")
    life.signal(0.0, TERM, "a test")
    life.tick(1.0)
    assert facts(life.agent_ended(1.1, ending, alone=True))["cause"] == cause


@pytest.mark.parametrize("ended", [True, False])
def test_what_survives_sigkill_is_not_waited_for(ended: bool) -> None:
    life = make("-t", "1s")
    life.signal(0.0, TERM, "a test")
    life.tick(1.0)
    if ended:
        life.agent_ended(1.1, exited(7), alone=False)
    assert without_logs(life.tick(1.2)) == [KillAll()]
    assert life.tick(1.0 + GIVE_UP_AFTER) == [KillAll(), LookAtRest()]
    actions = life.rest_seen(1.0 + GIVE_UP_AFTER, True, False)
    assert without_logs(actions) == [Exit(7 if ended else 137)]
    left_behind, end = logs(actions)
    assert left_behind == Log("left-behind", seconds=GIVE_UP_AFTER)
    assert (end.event, end.facts["agent_code"], end.facts["cause"]) == (
        "ended",
        7 if ended else 137,
        "exited" if ended else "",
    )
    assert (life.state, life.due) == (ENDED, math.inf)


def killed_at_1() -> Lifecycle:
    life = make("-t", "1s")
    life.signal(0.0, TERM, "a test")
    life.tick(1.0)
    return life


def test_what_is_exiting_is_waited_for() -> None:
    """It may have much memory to free, or little processor time."""
    life = killed_at_1()
    life.agent_ended(1.1, exited(7), alone=False)
    looks = []
    while life.state == KILLING:
        now = life.due
        actions = life.tick(now)
        if LookAtRest() in actions:
            looks.append(now)
            assert life.rest_seen(now, True, True) == []
    assert looks[0] == 1.0 + GIVE_UP_AFTER
    assert len(looks) > 10
    assert now == 1.0 + GIVE_UP_AT_LAST
    assert events(actions) == ["left-behind", "ended"]
    assert logs(actions)[0].facts == {"seconds": GIVE_UP_AT_LAST}


def test_sigkill_is_sent_again_ever_more_rarely() -> None:
    """What forks without a pause is met within a moment; what the kernel holds takes no processor time of ours."""
    life = killed_at_1()
    killed = [at for at, action in run_until(life, 5.9) if action == KillAll()]
    assert sum(at < 1.3 for at in killed) >= 14
    assert len(killed) < 100
    assert killed[-1] - killed[-2] < 0.3


@pytest.mark.parametrize("ended", [True, False])
def test_where_nothing_is_left_nobody_is_missed(ended: bool) -> None:
    """But for the agent itself: a debugger may hold it."""
    life = killed_at_1()
    if ended:
        life.agent_ended(1.1, exited(7), alone=False)
    assert LookAtRest() in life.tick(1.0 + GIVE_UP_AFTER)
    actions = life.rest_seen(1.0 + GIVE_UP_AFTER, False, True)
    assert events(actions) == (["ended"] if ended else ["left-behind", "ended"])
    assert without_logs(actions) == [Exit(7 if ended else 137)]
    assert life.rest_seen(4.0, True, False) == []


def test_without_a_deadline_the_linger_time_is_the_limit() -> None:
    life = make("--stop-schedule", "TERM/1s/INT", "--linger", "4s")
    life.signal(0.0, TERM, "a test")
    ending = exited(0)
    log, _ = life.agent_ended(0.5, ending, alone=False)
    assert isinstance(log, Log)
    assert (log.event, log.facts["cause"], log.facts["signal"], log.facts["linger"]) == (
        "lingering",
        "exited",
        TERM,
        4.0,
    )
    assert life.due == 4.5
    assert life.tick(4.5) == [Log("linger-over"), KillAll()]


def test_leftover_processes_keep_the_rhythm_of_the_progress() -> None:
    life = make("-t", "60s", "--linger", "30s")
    life.signal(0.0, TERM, "a test")
    life.agent_ended(4.0, exited(0), alone=False)
    progress = [(at, a.facts["left"]) for at, a in run_until(life, 33.0) if isinstance(a, Log)]
    assert progress == [(10.0, 24.0), (20.0, 14.0), (30.0, 4.0)]


@pytest.mark.parametrize("now", [0.9, 4.9])
@pytest.mark.parametrize("flags", [[], ["--watchdog", "5s"], ["--ready-timeout", "5s"], ["-t", "9s"]], ids=" ".join)
def test_a_tick_before_its_time_does_nothing(flags: list[str], now: float) -> None:
    life = make(*flags)
    if "--watchdog" in flags:
        life.notified(0.0, {"WATCHDOG": "1"}, "the agent")
    if "-t" in flags:
        life.signal(0.0, TERM, "a test")
    before = life.snapshot()
    assert life.tick(now) == []
    assert life.snapshot() == before


EXITED = exited(0)


@pytest.mark.parametrize(
    "event",
    [
        lambda life: life.signal(1.0, TERM, "a test"),
        lambda life: life.notified(1.0, {"READY": "1", "STATUS": "busy", "WATCHDOG_USEC": "9000000"}, "the agent"),
        lambda life: life.notified(1.0, {"WATCHDOG": "trigger"}, "the agent"),
        lambda life: life.agent_ended(1.0, EXITED, alone=False),
        lambda life: life.agent_ended(1.0, EXITED, alone=True),
        lambda life: life.tick(5.0),
    ],
    ids=["stop request", "message", "hang", "exit", "end", "timer"],
)
def test_an_event_can_be_undone(event: Callable[[Lifecycle], list[Action]]) -> None:
    life = make("-t", "9s", "--ready-timeout", "5s")
    before, due = life.snapshot(), life.due
    actions = event(life)
    assert actions
    assert life.snapshot() != before
    life.restore(before)
    assert life.snapshot() == before
    assert (life.state, life.due) == (RUNNING, due)
    assert event(life) == actions


# --- Actions. -------------------------------------------------------------------------------------------------------


def test_actions_compare_and_show_all_of_their_facts() -> None:
    assert Stop(15) == Stop(15) != Stop(9)
    assert Stop(0) != Exit(0)
    assert Stop(15) != StopHeldBack(15) != StopLeftovers(15)
    assert KillAll() == KillAll()
    assert Forward(15, "a", always=True) != Forward(15, "a", always=False)
    assert Forward(15, "a", always=True) != Forward(15, "b", always=True)
    assert Log("step", signal=15) == Log("step", signal=15)
    assert Log("step", signal=15) != Log("step", signal=9)
    assert Log("step", signal=15) != Log("deadline", signal=15)
    assert MakeStallReport(1.5) != MakeStallReport(1.0)
    assert (repr(Stop(15)), repr(KillAll())) == ("Stop(15,)", "KillAll()")


def test_everything_is_to_have_got_sigkill_once_killing_has_begun() -> None:
    life = make("-t", "5s")
    assert life.kill_due == math.inf
    life.signal(0.0, TERM, "a test")
    assert life.kill_due == 5.0
    run_until(life, 5.0)
    assert life.state == KILLING
    assert life.kill_due == -math.inf


def test_helpers_that_end_after_the_agent_are_not_logged_as_left_behind() -> None:
    life = make("-t", "20s")
    assert life.agent_ended(1.0, exited(0), alone=False, only_helpers=True) == [StopLeftovers(TERM)]
    assert life.due == 1.0 + HELPERS_LEAVE
    assert events(life.nothing_left(1.1)) == ["ended"]


def test_helpers_that_stay_are_logged_as_left_behind() -> None:
    life = make("-t", "20s")
    life.agent_ended(1.0, exited(0), alone=False, only_helpers=True)
    assert events(life.tick(life.due)) == ["lingering"]
    assert life.due > 1.0 + HELPERS_LEAVE


def test_helpers_that_are_killed_before_they_would_be_logged_are_logged() -> None:
    """The time to linger is shorter than their time to end; and the line comes once."""
    life = make("-t", "20s", "--linger", "300ms")
    life.agent_ended(1.0, exited(0), alone=False, only_helpers=True)
    assert life.due == 1.3
    assert events(life.tick(1.3)) == ["lingering", "linger-over"]
    life = make("-t", "20s")
    life.agent_ended(1.0, exited(0), alone=False, only_helpers=True)
    life.tick(1.0 + HELPERS_LEAVE)
    assert events(life.older_left(3.0)) == ["older-left"]

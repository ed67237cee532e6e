"""The state machine by itself: whole stops, and its promises whatever the order of events."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from entrypoint.init import lifecycle, stop_steps
from entrypoint.init.actions import (
    Action,
    Exit,
    Forward,
    KillAll,
    Log,
    LookAtRest,
    LookAtWork,
    MakeStallReport,
    Stop,
    StopHeldBack,
    StopLeftovers,
)
from entrypoint.init.exit_status import Ending
from entrypoint.init.lifecycle import ENDED, GIVE_UP_AFTER, GIVE_UP_AT_LAST, TIMERS, Lifecycle
from entrypoint.signals import CONT, HUP, INT, KILL, QUIT, TERM, parse
from tests.support.lifecycle import OomKills, events, exited, facts, killed, kinds, logs, make, run_until

if TYPE_CHECKING:
    from collections.abc import Callable

USR1 = parse("USR1")


# --- Whole stops. ---------------------------------------------------------------------------------------------------


def test_a_graceful_stop() -> None:
    life = make("-t", "25s")
    assert kinds(life.signal(1.0, TERM, "a test")) == ["Stop", "TakeCpuSnapshot"]
    (*_, end) = life.agent_ended(3.0, exited(0), alone=True)
    assert end == Exit(0)
    assert life.state == ENDED
    assert life.due == math.inf


def test_the_default_plan_kills_at_the_grace() -> None:
    life = make("-t", "25s")
    life.signal(1.0, TERM, "a test")
    done = run_until(life, 26.0)
    assert [at for at, action in done if isinstance(action, KillAll)] == [26.0]
    done = run_until(life, 40.0)
    looks = [at for at, action in done if isinstance(action, LookAtRest)]
    assert looks[0] == 26.0 + GIVE_UP_AFTER
    assert [(round(at - 26.0, 6), action) for at, action in done if isinstance(action, Exit)] == [
        (GIVE_UP_AT_LAST, Exit(137))
    ]


def test_progress_is_logged_every_ten_seconds() -> None:
    life = make("-t", "45s")
    life.signal(0.0, TERM, "a test")
    progress = [
        (at, a.facts["left"]) for at, a in run_until(life, 44.0) if isinstance(a, Log) and a.event == "stopping"
    ]
    assert progress == [(10.0, 35.0), (20.0, 25.0), (30.0, 15.0), (40.0, 5.0)]


def test_on_a_platform_one_report_comes_before_its_limit_and_no_kill() -> None:
    life = make(environment={"KUBERNETES_SERVICE_HOST": "10.0.0.1"})
    life.signal(0.0, TERM, "a test")
    done = run_until(life, 10_000.0)
    reports = [(at, a.facts) for at, a in done if isinstance(a, Log) and a.event == "limit-near"]
    assert reports == [(28.0, {"elapsed": 28.0, "hung": False, "platform": "Kubernetes (30s unless raised)"})]
    assert [(at, a) for at, a in done if isinstance(a, MakeStallReport)] == [(28.0, MakeStallReport(1.5))]
    assert not [a for _, a in done if isinstance(a, KillAll | Stop)]


def test_the_linger_time_follows_the_agents_end() -> None:
    life = make("-t", "25s", "--linger", "5s")
    actions = life.agent_ended(7.0, exited(3), alone=False)
    assert StopLeftovers(TERM) in actions
    assert [at for at, a in run_until(life, 12.0) if isinstance(a, KillAll)] == [12.0]
    assert life.nothing_left(12.1)[-1] == Exit(3)


@pytest.mark.parametrize("number", [HUP, QUIT])
def test_an_unhandled_hup_or_quit_is_a_stop_request(number: int) -> None:
    life = make()
    assert life.signal(0.0, number, "a test") == [Forward(number, "a test", always=False)]
    assert Stop(TERM) in life.unhandled(0.0, number, "a test")


def test_a_plain_forwarder_forwards_everything_always() -> None:
    life = make("--stop-on", "none")
    for number in (TERM, INT, HUP, USR1):
        assert life.signal(0.0, number, "a test") == [Forward(number, "a test", always=True)]


def test_a_rewrite_to_a_stop_request_is_one() -> None:
    life = make("-r", "USR1:TERM")
    assert Stop(TERM) in life.signal(0.0, USR1, "a test")


def test_a_machine_that_slept_past_the_deadline_goes_through_the_steps_at_once() -> None:
    life = make("--stop-schedule", "TERM/20s/INT/5s/KILL")
    life.signal(0.0, TERM, "a test")
    late = []
    while life.due <= 3600.0:
        late += kinds(life.tick(3600.0))
        if "KillAll" in late:
            break
    assert late == ["Stop", "KillAll"]


def notify(life: Lifecycle, now: float, **fields: str) -> list[Action]:
    return life.notified(now, fields, "a test")


def test_more_time_counts_from_the_message_and_never_shortens_a_step() -> None:
    life = make("-t", "25s")
    life.signal(0.0, TERM, "a test")
    notify(life, 1.0, EXTEND_TIMEOUT_USEC="5000000")
    assert [at for at, a in run_until(life, 24.9) if isinstance(a, KillAll)] == []
    notify(life, 24.0, EXTEND_TIMEOUT_USEC="5000000")
    assert [at for at, a in run_until(life, 30.0) if isinstance(a, KillAll)][:1] == [29.0]


def test_an_extension_and_the_status_are_in_the_progress() -> None:
    life = make("-t", "15s")
    life.signal(0.0, TERM, "a test")
    notify(life, 9.0, EXTEND_TIMEOUT_USEC="42000000", STATUS="draining 3 calls")
    log = next(a for _, a in run_until(life, 10.0) if isinstance(a, Log))
    assert log == Log("stopping", status="draining 3 calls", left=41.0, elapsed=10.0, extended=True)


def test_a_report_comes_before_each_escalation_that_leaves_time_for_it() -> None:
    life = make("--stop-schedule", "TERM/20s/INT/2s/USR1/500ms/KILL")
    life.signal(0.0, TERM, "a test")
    done = run_until(life, 30.0)
    assert [(round(at, 6), kind) for at, a in done for kind in kinds([a])][:5] == [
        (18.5, "MakeStallReport"),
        (20.0, "Stop"),
        (21.5, "MakeStallReport"),
        (22.0, "Stop"),
        (22.5, "KillAll"),
    ]


def test_an_agent_that_extends_its_time_early_enough_is_not_reported() -> None:
    life = make("-t", "10s")
    life.signal(0.0, TERM, "a test")
    done: list[tuple[float, Action]] = []
    for now in range(1, 60):
        notify(life, float(now), EXTEND_TIMEOUT_USEC="10000000")
        done += run_until(life, now + 0.5)
    assert "MakeStallReport" not in kinds([a for _, a in done])
    done = run_until(life, 100.0)
    assert [(at, kind) for at, a in done for kind in kinds([a])][:2] == [(67.5, "MakeStallReport"), (69.0, "KillAll")]


def test_a_stall_report_is_made_once_in_ten_seconds_however_often_the_time_is_extended() -> None:
    life = make("-t", "10s")
    life.signal(0.0, TERM, "a test")
    assert [at for at, a in run_until(life, 9.0) if isinstance(a, MakeStallReport)] == [8.5]
    notify(life, 9.0, EXTEND_TIMEOUT_USEC="5000000")
    assert [at for at, a in run_until(life, 13.0) if isinstance(a, MakeStallReport)] == []
    notify(life, 13.0, EXTEND_TIMEOUT_USEC="8000000")
    assert [at for at, a in run_until(life, 18.0) if isinstance(a, MakeStallReport)] == []
    notify(life, 19.0, EXTEND_TIMEOUT_USEC="8000000")
    assert [at for at, a in run_until(life, 26.0) if isinstance(a, MakeStallReport)] == [25.5]


def test_a_report_that_is_complete_early_is_not_waited_for() -> None:
    life = make("-t", "10s", "--watchdog", "5s")
    notify(life, 0.0, READY="1")
    assert [(at, kind) for at, a in run_until(life, 5.0) for kind in kinds([a])] == [(5.0, "MakeStallReport")]
    life.reported(5.5)
    assert [(at, kind) for at, a in run_until(life, 5.6) for kind in kinds([a])] == [(5.5, "Stop")]


@pytest.mark.parametrize("platform", [{}, {"KUBERNETES_SERVICE_HOST": "x"}])
def test_an_agent_that_hangs_is_killed_even_if_a_platform_ends_its_stops(platform: dict[str, str]) -> None:
    life = make("--watchdog", "5s", environment=platform)
    notify(life, 0.0, WATCHDOG="1")
    done = run_until(life, 60.0)
    assert [(at, kind) for at, a in done for kind in kinds([a])][:3] == [
        (5.0, "MakeStallReport"),
        (6.5, "Stop"),
        (16.5, "KillAll"),
    ]
    assert done[-1][1] == Exit(137)


@pytest.mark.parametrize("number", ["0", "4096", "2147483648", "9" * 19, "9" * 20, "-1", "x", "\u0663"])
def test_an_invalid_errno_is_ignored(number: str) -> None:
    life = make("-t", "25s")
    assert events(notify(life, 1.0, ERRNO=number, READY="1")) == ["ready"]


def test_an_invalid_watchdog_interval_is_ignored() -> None:
    life = make("--watchdog", "5s")
    notify(life, 0.0, READY="1", WATCHDOG_USEC="soon")
    assert life.due == 5.0


def test_an_agent_that_was_frozen_has_a_moment_for_a_sign_of_life_once() -> None:
    life = make("--watchdog", "2s")
    notify(life, 0.0, WATCHDOG="1")
    assert life.tick(2.2) == []
    assert life.due == 3.2
    notify(life, 3.0, WATCHDOG="1")
    assert life.tick(5.3) == [], "it has sent a sign of life since"
    assert life.due == 6.3
    assert "watchdog" in events(life.tick(6.5)), "once is enough on a slow machine"


def test_an_agent_that_was_frozen_for_long_has_its_whole_time() -> None:
    life = make("--watchdog", "2s", "--ready-timeout", "20s")
    notify(life, 0.0, WATCHDOG="1")
    assert life.tick(5.0) == []
    assert life.due == 7.0
    notify(life, 6.0, WATCHDOG="1", WATCHDOG_USEC="90000000")
    assert life.due == 23.0, "the time that it was frozen does not count as time to get ready"


def test_an_agent_that_was_frozen_before_its_first_message_has_a_moment_as_well() -> None:
    life = make("--ready-timeout", "2s")
    assert life.tick(2.2) == []
    assert life.due == 3.2
    assert events(life.tick(3.4)) == ["ready-timeout"]


@pytest.mark.parametrize(("now", "due"), [(3.0, 4.0), (3.1, 5.1)])
def test_a_freeze_of_more_than_a_moment_gives_the_whole_time_again(now: float, due: float) -> None:
    life = make("--watchdog", "2s")
    notify(life, 0.0, WATCHDOG="1")
    assert life.tick(now) == []
    assert life.due == due


def test_an_endless_wait_ends_for_an_agent_that_hangs() -> None:
    life = make("--watchdog", "1s", "--stop-schedule", "TERM/500ms/INT/infinity/KILL")
    notify(life, 0.0, WATCHDOG="1")
    assert next(at for at, a in run_until(life, 100.0) if isinstance(a, KillAll)) == 1.0 + 1.5 + 0.5 + 10.0


def test_a_step_before_an_endless_wait_can_be_extended() -> None:
    life = make("--stop-schedule", "TERM/1s/INT/infinity/KILL")
    life.signal(0.0, TERM, "a test")
    notify(life, 0.5, EXTEND_TIMEOUT_USEC="5000000")
    assert [(at, a) for at, a in run_until(life, 60.0) if isinstance(a, Stop)] == [(5.5, Stop(INT))]


def test_time_that_is_not_granted_is_not_logged_as_an_extension() -> None:
    life = make("-t", "12s", "--max-grace", "12s")
    life.signal(0.0, TERM, "a test")
    assert notify(life, 5.0, EXTEND_TIMEOUT_USEC="60000000") == []
    done = logs([a for _, a in run_until(life, 11.0)])
    assert done == [Log("stopping", status="", left=2.0, elapsed=10.0, extended=False)]


def test_a_step_that_comes_early_takes_its_report_along() -> None:
    life = make("--stop-schedule", "TERM/4s/INT", "--repeat", "escalate")
    life.signal(0.0, TERM, "a test")
    assert Stop(INT) in life.signal(0.5, TERM, "a test")
    assert life.due == 10.0, "the next is a line of progress"


def test_a_kill_that_was_requested_is_the_cause() -> None:
    life = make("-t", "60s", "--repeat", "escalate")
    life.signal(0.0, TERM, "a test")
    assert "KillAll" in kinds(life.signal(1.0, TERM, "a test"))
    assert facts(life.agent_ended(1.1, killed(), alone=True))["cause"] == "escalated"


# --- Figures, exactly. ----------------------------------------------------------------------------------------------


def test_an_extension_leaves_the_later_steps_their_time() -> None:
    life = make("--stop-schedule", "TERM/4s/INT/6s/KILL", "--max-grace", "20s")
    life.signal(0.0, TERM, "a test")
    notify(life, 1.0, EXTEND_TIMEOUT_USEC="90000000")
    assert life.due == 10.0
    assert [at for at, a in run_until(life, 14.5) if isinstance(a, Stop)] == [14.0]


def test_an_extension_can_be_less_than_a_second() -> None:
    life = make("-t", "2s")
    life.signal(0.0, TERM, "a test")
    notify(life, 1.9, EXTEND_TIMEOUT_USEC="500000")
    run_until(life, 2.3)
    assert life.due == pytest.approx(2.4)


def test_a_report_has_the_time_until_the_next_step() -> None:
    life = make("-t", "10s")
    life.signal(5.0, TERM, "a test")
    assert [(at, a.seconds) for at, a in run_until(life, 14.0) if isinstance(a, MakeStallReport)] == [(13.5, 1.5)]


@pytest.mark.parametrize(("now", "made"), [(9.75, [MakeStallReport(0.25)]), (9.85, [])])
def test_a_late_report_is_not_made_where_too_little_time_is_left(now: float, made: list[Action]) -> None:
    life = make("-t", "10s")
    life.signal(0.0, TERM, "a test")
    assert life.tick(now) == made
    assert life.due == 10.0


def test_a_late_wake_up_sends_signals_before_it_reports() -> None:
    """The delayed stop signal comes before the report on the platform's limit, that before the progress."""
    life = make("--stop-delay", "20s", environment={"KUBERNETES_SERVICE_HOST": "x"})
    life.signal(0.0, TERM, "a test")
    assert Stop(TERM) in life.tick(60.0)
    assert events(life.tick(60.0)) == ["limit-near"]
    assert events(life.tick(60.0)) == ["stopping"]
    assert life.due == 70.0


def test_a_late_wake_up_sends_the_next_step_before_it_signals_those_held_back() -> None:
    life = make("--stop-schedule", "TERM/4s/INT/4s/KILL")
    life.signal(0.0, TERM, "a test")
    life.held_back(0.0)
    assert kinds(life.tick(6.0)) == ["Stop"]
    assert kinds(life.tick(6.0)) == ["StopHeldBack"]


def test_progress_keeps_its_rhythm_after_a_late_tick() -> None:
    life = make("-t", "90s")
    life.signal(0.0, TERM, "a test")
    assert facts(life.tick(25.0))["left"] == 65.0
    assert life.due == 30.0


@pytest.mark.parametrize(("delay", "seconds"), [("5s", 5.0), ("0", 0.0)])
def test_the_steps_of_a_stop_are_logged_with_their_delay(delay: str, seconds: float) -> None:
    life = make("-t", "25s", "--stop-delay", delay)
    [log] = logs(life.signal(3.0, TERM, "a test"))
    upcoming = {"steps": [(TERM, seconds), (KILL, 25.0)], "platform": None}
    assert log == Log("stop-requested", signal=TERM, sender="a test", upcoming=upcoming)


@pytest.mark.parametrize(
    ("flags", "environment", "upcoming"),
    [
        (["-t", "0"], {}, {"steps": [(TERM, 0.0), (KILL, 0.0)], "platform": None}),
        (["-t", "infinity"], {}, {"steps": [(TERM, 0.0)], "platform": ""}),
        (["--stop-schedule", "TERM/1s/INT"], {}, {"steps": [(TERM, 0.0), (INT, 1.0)], "platform": ""}),
        ([], {"RENDER": "true"}, {"steps": [(TERM, 0.0)], "platform": "Render (30s unless raised)"}),
    ],
)
def test_the_steps_of_a_stop_are_logged_with_who_ends_it(
    flags: list[str], environment: dict[str, str], upcoming: dict[str, object]
) -> None:
    [log, *_] = logs(make(*flags, environment=environment).signal(3.0, TERM, "a test"))
    assert log.facts["upcoming"] == upcoming


def test_the_platforms_limit_is_logged_with_the_time_that_has_passed() -> None:
    life = make(environment={"KUBERNETES_SERVICE_HOST": "x"})
    life.signal(100.0, TERM, "a test")
    [log] = [a for _, a in run_until(life, 129.0) if isinstance(a, Log) and a.event == "limit-near"]
    assert log.facts["elapsed"] == 28.0


@pytest.mark.parametrize("number", [1, 4095])
def test_the_lowest_and_the_highest_errno_are_logged(number: int) -> None:
    assert notify(make(), 0.0, ERRNO=str(number)) == [Log("errno", errno=number)]


@pytest.mark.parametrize("code", [0, 3])
def test_the_end_is_logged_with_the_last_status_and_its_times(code: int) -> None:
    life = make("-t", "25s")
    notify(life, 7.0, STATUS="busy")
    life.signal(8.0, TERM, "a test")
    ending = exited(code)
    log, _ = life.agent_ended(10.0, ending, alone=True)
    assert log == Log(
        "ended",
        code=code,
        why="",
        agent_code=code,
        ending=ending,
        cause="exited",
        hung="",
        seconds=10.0,
        stop_seconds=2.0,
        status="busy",
    )


@pytest.mark.parametrize(("ended", "due"), [(101.0, 106.0), (107.0, 109.0), (108.5, 109.0), (110.0, 110.0)])
def test_the_linger_time_ends_with_the_grace(ended: float, due: float) -> None:
    life = make("-t", "9s", "--linger", "5s")
    life.signal(100.0, TERM, "a test")
    life.agent_ended(ended, exited(0), alone=False)
    assert life.due == due


def test_times_count_from_the_start() -> None:
    life = make("--ready-timeout", "5s", now=100.0)
    assert life.due == 105.0
    assert notify(life, 102.0, READY="1") == [Log("ready", seconds=2.0)]
    end = facts(life.agent_ended(107.0, exited(0), alone=True))
    assert (end["seconds"], end["stop_seconds"]) == (7.0, None)


def test_the_deadline_is_the_cause_of_what_it_kills() -> None:
    life = make("-t", "10s")
    life.signal(0.0, TERM, "a test")
    run_until(life, 10.0)
    assert facts(life.agent_ended(10.1, killed(), alone=True))["cause"] == "deadline"


# --- Any order of events. -------------------------------------------------------------------------------------------


def test_every_timer_calls_a_method_and_every_state_has_its_timers() -> None:
    states = {lifecycle.RUNNING, lifecycle.STOPPING, lifecycle.LINGERING, lifecycle.KILLING, lifecycle.ENDED}
    assert set(TIMERS) == states
    for timers in TIMERS.values():
        for method in timers.values():
            assert callable(getattr(Lifecycle, method))


DURATIONS = st.sampled_from(["0", "300ms", "3s", "11s", "25s", "infinity"])
SCHEDULES = st.sampled_from(
    [
        "TERM/3s/KILL",
        "TERM/2s/INT/1s/ABRT/500ms/KILL",
        "TERM",
        "TERM/1s/INT",
        "INT/infinity/KILL",
        "KILL",
        "TERM/INT/KILL",
    ]
)
FLAGS = st.one_of(
    st.builds(lambda t: ["-t", t], DURATIONS),
    st.builds(lambda s: ["--stop-schedule", s], SCHEDULES),
    st.just([]),
)
ENVIRONMENTS = st.sampled_from([{}, {"KUBERNETES_SERVICE_HOST": "x"}, {"RAILWAY_DEPLOYMENT_DRAINING_SECONDS": "0"}])
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "READY": st.just("1"),
        "RELOADING": st.just("1"),
        "WATCHDOG": st.sampled_from(["1", "trigger"]),
        "WATCHDOG_USEC": st.sampled_from(["0", "500000", "9000000"]),
        "EXTEND_TIMEOUT_USEC": st.sampled_from(["100000", "5000000", "20000000"]),
        "STATUS": st.sampled_from(["", "busy"]),
        "STOPPING": st.just("1"),
        "ERRNO": st.sampled_from(["0", "2"]),
    },
)
SIGNALS = st.sampled_from([TERM, INT, HUP, QUIT, USR1, CONT])
ENDINGS = st.sampled_from(
    [
        exited(0),
        exited(3),
        exited(143),
        exited(137),
        killed(),
        killed(kill_forwarded=True),
        killed(memory=OomKills(1)),
        killed(6),
        Ending(None),
    ]
)
MAX_STEPS = 5  # of a schedule, or of that of a hang


class AnyOrder(RuleBasedStateMachine):
    """Events in any order a supervisor could see them, ticks when they are due."""

    @initialize(
        flags=FLAGS,
        environment=ENVIRONMENTS,
        repeat=st.sampled_from(["ignore", "forward", "escalate"]),
        linger=DURATIONS,
        rewrite=st.sampled_from([[], ["-r", "TERM:QUIT"], ["-r", "HUP:0"], ["-r", "USR1:TERM"]]),
        ok=st.sampled_from([[], ["-e", "143"]]),
        watched=st.sampled_from([[], ["--watchdog", "3s"], ["--ready-timeout", "4s"]]),
        bound=st.sampled_from([25.0, 40.0, math.inf]),
        looks_through=st.booleans(),
    )
    def begin(
        self,
        flags: Any,
        environment: Any,
        repeat: str,
        linger: str,
        rewrite: Any,
        ok: Any,
        watched: Any,
        bound: float,
        looks_through: bool,
    ) -> None:
        """`looks_through`: the stop signal goes to descendants, and some processes are held back from it."""
        if "infinity" in flags or any("infinity" in flag for flag in flags):
            bound = math.inf
        bounded = [] if bound == math.inf else ["--max-grace", f"{bound:g}"]
        arguments = [*flags, "--repeat", repeat, "--linger", linger, *rewrite, *ok, *watched, *bounded]
        self.life = make(*arguments, environment=environment)
        self.attributes = set(vars(self.life))
        self.repeat, self.bound, self.extended = repeat, bound, 0.0
        self.looks_through, self.holding, self.all_signalled = looks_through, False, False
        self.now = 0.0
        self.frozen = 0.0  # seconds in all
        self.requested: float | None = None
        self.agent_ended_at: float | None = None
        self.works_on, self.cut = False, False
        self.linger_from: float | None = None
        self.killed: float | None = None
        self.exits: list[int] = []
        self.stops = 0
        self.requests = 0
        self.agent_code: int | None = None

    def event(self, event: Callable[..., list[Action]], *arguments: Any, **facts: Any) -> list[Action]:
        """Call an event twice, undone in between: the second time is the one that counts."""
        before = self.life.snapshot()
        values = state_of(self.life)
        first = event(self.now, *arguments, **facts)
        self.life.restore(before)
        assert state_of(self.life) == values, "restore undoes every event"
        second = event(self.now, *arguments, **facts)
        assert first == second
        return second

    def take(self, actions: list[Action]) -> None:
        for action in actions:
            assert not self.exits or isinstance(action, Log), "nothing follows the end"
            if isinstance(action, Stop | Forward | StopHeldBack):
                to_work = self.works_on and isinstance(action, Stop)
                assert self.agent_ended_at is None or to_work, "nothing is addressed to an agent that has ended"
                assert self.killed is None
            if isinstance(action, Stop):
                self.stops += 1
                if self.looks_through and not self.works_on:
                    held_back = self.event(self.life.held_back)
                    assert events(held_back) == ([] if self.all_signalled else ["held-back"])
                    self.holding = not self.all_signalled
            elif isinstance(action, StopHeldBack):
                assert not self.all_signalled, "once"
                assert self.stops, "no process is held back before the stop signal was sent"
                self.holding, self.all_signalled = False, True
            elif isinstance(action, Forward):
                unhandled = not action.always and action.number in (HUP, QUIT, USR1)
                if unhandled:
                    self.take(self.event(self.life.unhandled, action.number, "a test"))
            elif isinstance(action, KillAll):
                self.cut = self.cut or (self.killed is None and self.works_on)
                self.killed = self.now if self.killed is None else self.killed
            elif isinstance(action, Exit):
                self.exits.append(action.code)

    @precondition(lambda self: not self.exits)
    @rule(number=SIGNALS)
    def signal(self, number: int) -> None:
        before = self.life.state
        actions = self.event(self.life.signal, number, "a test")
        if before != "running":
            self.requests += 1
        self.take(actions)
        if before == "running" and self.life.state != "running":
            self.requested = self.now

    @precondition(lambda self: not self.exits)
    @rule(fields=MESSAGES, by_agent=st.booleans())
    def a_message_comes(self, fields: dict[str, str], by_agent: bool) -> None:
        before = self.life.state
        self.take(self.event(self.life.notified, fields, "a test", by_agent=by_agent))
        if before == "running" and self.life.state != "running":
            self.requested = self.now
        if before == "stopping" and (text := fields.get("EXTEND_TIMEOUT_USEC")) and self.requested is not None:
            self.extended = max(self.extended, self.now + int(text) / 1e6 - self.requested)

    @precondition(lambda self: not self.exits)
    @rule(seconds=st.sampled_from([0.0, 0.01, 0.3, 1.0, 4.0, 12.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        end = self.now + seconds
        while not self.exits and self.life.due <= end:
            self.now = max(self.now, self.life.due)
            self.ticks_until_nothing_is_due()
        self.now = max(self.now, end)

    @precondition(lambda self: not self.exits)
    @rule(seconds=st.sampled_from([0.15, 0.7, 5.0, 40.0]))
    def everything_is_frozen(self, seconds: float) -> None:
        """We wake late, and so does the agent."""
        self.now += seconds
        self.frozen += seconds
        self.ticks_until_nothing_is_due()

    def ticks_until_nothing_is_due(self) -> None:
        """Each tick at one time makes progress: there are no more of them than timers and steps."""
        for _ in range(sum(map(len, TIMERS.values())) + MAX_STEPS):
            if self.exits or self.life.due > self.now:
                return
            before, values = self.life.state, state_of(self.life)
            self.take(self.event(self.life.tick))
            assert state_of(self.life) != values
            if before == "running" and self.life.state == "stopping":
                self.requested = self.now
        assert self.exits or self.life.due > self.now, "ticks at one time come to an end"

    @precondition(lambda self: not self.exits and self.holding)
    @rule()
    def recipients_end(self) -> None:
        assert self.event(self.life.recipients_ended) == []
        if self.life.state == "stopping":
            assert self.life.due <= self.now + lifecycle.HELD_BACK_FOR

    @precondition(lambda self: not self.exits)
    @rule(event=st.sampled_from(["reported", "recipients_ended"]))
    def something_is_seen_late(self, event: str) -> None:
        """A report is complete, or recipients have exited, when that does not matter any more."""
        if event == "recipients_ended" and (self.agent_ended_at is not None or not (self.looks_through and self.stops)):
            return
        stopping = self.life.state == "stopping"
        values = state_of(self.life)
        assert self.event(getattr(self.life, event)) == []
        assert stopping or state_of(self.life) == values

    @precondition(lambda self: not self.exits and self.agent_ended_at is None)
    @rule(ending=ENDINGS, alone=st.booleans(), works_on=st.booleans(), only_helpers=st.booleans())
    def agent_ends(self, ending: Ending, alone: bool, works_on: bool, only_helpers: bool) -> None:
        """`works_on`: it was a wrapper, and its work has not exited."""
        self.agent_code = ending.code
        self.works_on = works_on and self.stops > 0 and self.life.state == "stopping" and not alone
        facts = {"alone": alone, "works_on": self.works_on, "only_helpers": only_helpers}
        actions = self.event(self.life.agent_ended, ending, **facts)
        self.agent_ended_at = self.now
        self.linger_from = None if self.works_on else self.now
        self.holding = False
        self.take(actions)
        assert bool(self.exits) == alone

    @precondition(lambda self: not self.exits and self.agent_ended_at is not None)
    @rule()
    def a_leftover_process_ends(self) -> None:
        assert self.event(self.life.leftover_ended) == []
        if self.killed is None:
            assert self.life.due <= self.now + lifecycle.NEXT_TURN_AFTER

    @precondition(lambda self: not self.exits and self.works_on)
    @rule(works_on=st.booleans())
    def the_work_ends(self, works_on: bool) -> None:
        """`works_on`: or only a part of it."""
        assert self.event(self.life.recipients_ended) == []
        while self.works_on and self.killed is None and self.life.due <= self.now + lifecycle.NEXT_TURN_AFTER:
            self.now = max(self.now, self.life.due)
            actions = self.event(self.life.tick)
            self.take(actions)
            if LookAtWork() in actions:
                self.works_on = works_on
                self.linger_from = None if works_on else self.now
                self.take(self.event(self.life.work_seen, works_on))
                return

    @precondition(lambda self: not self.exits)
    @rule(is_left=st.booleans(), is_exiting=st.booleans())
    def what_survives_sigkill_is_seen(self, is_left: bool, is_exiting: bool) -> None:
        actions = self.event(self.life.rest_seen, is_left, is_exiting)
        self.take(actions)
        assert bool(self.exits) == (self.killed is not None and not (is_left and is_exiting))

    @precondition(lambda self: not self.exits)
    @rule()
    def nothing_is_left(self) -> None:
        actions = self.event(self.life.nothing_left)
        if self.agent_ended_at is None:
            assert actions == [], "it may be seen before the exit"
        self.take(actions)
        assert bool(self.exits) == (self.agent_ended_at is not None)

    @precondition(lambda self: self.exits)
    @rule(number=SIGNALS)
    def something_comes_too_late(self, number: int) -> None:
        for late in (self.life.tick, self.life.nothing_left, self.life.held_back, self.life.recipients_ended):
            assert self.event(late) == []
        assert self.event(self.life.reported) == []
        self.take(self.event(self.life.signal, number, "a test"))
        assert self.life.due == math.inf

    @invariant()
    def the_state_has_no_timers_but_its_own(self) -> None:
        assert self.life._timers.keys() <= TIMERS[self.life.state].keys()
        assert math.inf not in self.life._timers.values()
        assert self.life.due == min(self.life._timers.values(), default=math.inf)
        assert set(vars(self.life)) == self.attributes, "or restore would leave some behind"

    @invariant()
    def a_tick_before_its_time_does_nothing(self) -> None:
        if self.life.due > self.now:
            values = state_of(self.life)
            assert self.life.tick(self.now) == []
            assert state_of(self.life) == values

    @invariant()
    def each_step_is_sent_once(self) -> None:
        steps = len(self.life.plan.steps)
        assert self.stops <= steps + (self.requests if self.repeat == "forward" else 0)

    @invariant()
    def an_end_can_be_reached(self) -> None:
        """From every state: the agent ends, and leaves nothing."""
        if self.exits:
            return
        life = copy.copy(self.life)
        if self.agent_ended_at is None:
            actions = life.agent_ended(self.now, exited(3), alone=True)
        else:
            actions = life.nothing_left(self.now)
        assert isinstance(actions[-1], Exit)
        assert life.due == math.inf

    @invariant()
    def a_kill_can_be_reached(self) -> None:
        """From every state: by a repeated stop request and time, unless neither is to lead there."""
        life = copy.copy(self.life)
        patient = self.life.plan.grace == math.inf and not self.life.hung
        if self.exits or (patient and (self.repeat != "escalate" or self.life.plan.steps[-1][0] != KILL)):
            return
        now, actions = self.now, []
        for _ in range(1 + len(self.life.plan.steps)):
            actions += life.signal(now, INT, "a test")
        while life.due < math.inf and now < self.now + 10_000:
            now = max(now, life.due)
            actions += life.tick(now)
        assert any(isinstance(action, KillAll) for action in actions)
        assert sum(isinstance(action, Exit) for action in actions) == 1

    @invariant()
    def those_held_back_are_signalled(self) -> None:
        """From every state in which they wait: by time alone, if no step of the schedule comes before it."""
        if not self.holding or self.life.state != "stopping":
            return
        life, now = copy.copy(self.life), self.now
        assert life.due < math.inf
        while life.state == "stopping":
            now = max(now, life.due)
            if any(isinstance(action, StopHeldBack | Stop) for action in life.tick(now)):
                break
        grace = 20.0 if life.hung else self.life.plan.grace + self.extended
        assert now <= self.now + (grace if grace < math.inf else lifecycle.MAX_HELD_BACK) + 1e-6

    @invariant()
    def the_end_comes_by_the_grace(self) -> None:
        """Or by an extension, after which the rest of the schedule follows; none of it beyond the bound."""
        grace = self.life.plan.grace
        if self.requested is None or self.exits or (grace == math.inf and not self.life.hung):
            return
        if self.life.hung:
            waits = [10.0 if wait == math.inf else wait for _, wait in self.life.plan.steps]
            grace = stop_steps.MAX_REPORT_SECONDS + max(10.0, sum(waits))
        else:
            grace = max(grace, min(self.bound, max(grace, self.extended + grace)))
        assert self.now <= self.requested + grace + GIVE_UP_AT_LAST + self.frozen + 1e-6

    @invariant()
    def it_ends_soon_after_the_kill(self) -> None:
        if self.killed is not None and not self.exits:
            assert self.now <= self.killed + GIVE_UP_AT_LAST + self.frozen + 1e-6

    @invariant()
    def the_linger_time_is_kept(self) -> None:
        if self.linger_from is not None and not self.exits:
            limit = self.life.settings.linger + GIVE_UP_AT_LAST + self.frozen
            assert self.now <= self.linger_from + limit + 1e-6

    @invariant()
    def the_exit_code_is_the_agents(self) -> None:
        if self.exits:
            code = 128 + KILL if self.agent_code is None or self.cut else self.agent_code
            code = 0 if code in self.life.settings.ok_exit else code
            assert self.exits == [134 if self.life.hung and code == 0 else code]


def state_of(life: Lifecycle) -> dict[str, object]:
    """Return all of the state, with copies of what could be mutated in place."""
    state = life.snapshot()
    return {
        name: list(value) if isinstance(value, list) else dict(value) if isinstance(value, dict) else value
        for name, value in state.items()
    }


AnyOrder.TestCase.settings = hypothesis_settings(max_examples=200, stateful_step_count=30, deadline=None)
TestAnyOrder = AnyOrder.TestCase

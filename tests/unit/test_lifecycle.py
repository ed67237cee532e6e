"""The state machine by itself: whatever the order of events, its promises hold."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from entrypoint import settings as reader
from entrypoint.init.lifecycle import (
    ENDED,
    GIVE_UP_AFTER,
    Action,
    End,
    Forward,
    KillAll,
    Lifecycle,
    MakeReport,
    Say,
    Stop,
    StopSurvivors,
)
from entrypoint.signals import CONT, HUP, INT, KILL, QUIT, TERM, parse
from tests.support.lifecycle import kinds, make, run_until

USR1 = parse("USR1")


# --- Single stories, as the reader would tell them. ---


def test_a_graceful_stop() -> None:
    life = make("-t", "25s")
    assert kinds(life.signal(1.0, TERM, "a test")) == ["Stop", "Measure"]
    (*_, end) = life.agent_ended(3.0, 0, "exited with code 0", alone=True)
    assert end == End(0)
    assert life.state == ENDED
    assert life.due == math.inf


def test_the_default_plan_kills_at_the_grace() -> None:
    life = make("-t", "25s")
    life.signal(1.0, TERM, "a test")
    done = run_until(life, 26.0)
    assert [at for at, action in done if isinstance(action, KillAll)] == [26.0]
    done = run_until(life, 27.0)
    assert [(round(at - 26.0, 6), action) for at, action in done if isinstance(action, End)] == [
        (GIVE_UP_AFTER, End(137))
    ]


def test_progress_is_told_every_ten_seconds() -> None:
    life = make("-t", "45s")
    life.signal(0.0, TERM, "a test")
    told = [(at, a.text) for at, a in run_until(life, 44.0) if isinstance(a, Say) and a.event == "stopping"]
    assert told == [
        (10.0, "stopping: 35s left"),
        (20.0, "stopping: 25s left"),
        (30.0, "stopping: 15s left"),
        (40.0, "stopping: 5s left"),
    ]


def test_on_a_platform_one_report_comes_before_its_limit_and_no_kill() -> None:
    life = make(environment={"KUBERNETES_SERVICE_HOST": "10.0.0.1"})
    life.signal(0.0, TERM, "a test")
    done = run_until(life, 10_000.0)
    reports = [(at, a.text) for at, a in done if isinstance(a, Say) and a.event == "limit-near"]
    assert [at for at, _ in reports] == [28.0]
    assert "Kubernetes (30s unless raised)" in reports[0][1]
    assert not [a for _, a in done if isinstance(a, KillAll | Stop)]


def test_the_linger_time_follows_the_agents_end() -> None:
    life = make("-t", "25s", "--linger", "5s")
    actions = life.agent_ended(7.0, 3, "exited with code 3", alone=False)
    assert StopSurvivors(TERM) in actions
    assert [at for at, a in run_until(life, 12.0) if isinstance(a, KillAll)] == [12.0]
    assert life.nothing_left(12.1)[-1] == End(3)


@pytest.mark.parametrize("number", [HUP, QUIT])
def test_an_unhandled_hup_or_quit_is_a_stop_request(number: int) -> None:
    life = make()
    assert life.signal(0.0, number, "a test") == [Forward(number, "a test", always=False)]
    assert Stop(TERM) in life.unhandled(0.0, number, "a test")


def test_a_pure_forwarder_forwards_everything_always() -> None:
    life = make("--stop-on", "none")
    for number in (TERM, INT, HUP, USR1):
        assert life.signal(0.0, number, "a test") == [Forward(number, "a test", always=True)]


def test_a_rewrite_to_a_stop_request_is_one() -> None:
    life = make("-r", "USR1:TERM")
    assert Stop(TERM) in life.signal(0.0, USR1, "a test")


def test_a_machine_that_slept_over_the_deadline_goes_through_the_steps_at_once() -> None:
    life = make("--stop-schedule", "TERM/20s/INT/5s/KILL")
    life.signal(0.0, TERM, "a test")
    late = []
    while life.due <= 3600.0:
        late += kinds(life.tick(3600.0))
        if "KillAll" in late:
            break
    assert late == ["Stop", "KillAll"]


def told(life: Lifecycle, now: float, **fields: str) -> list[Action]:
    return life.notified(now, fields, "a test")


def test_more_time_counts_from_the_message_and_only_beyond_what_there_is() -> None:
    life = make("-t", "25s")
    life.signal(0.0, TERM, "a test")
    told(life, 1.0, EXTEND_TIMEOUT_USEC="5000000")
    assert [at for at, a in run_until(life, 24.9) if isinstance(a, KillAll)] == []
    told(life, 24.0, EXTEND_TIMEOUT_USEC="5000000")
    assert [at for at, a in run_until(life, 30.0) if isinstance(a, KillAll)][:1] == [29.0]


def test_time_bought_and_status_show_in_the_progress() -> None:
    life = make("-t", "15s")
    life.signal(0.0, TERM, "a test")
    told(life, 9.0, EXTEND_TIMEOUT_USEC="42000000", STATUS="draining 3 calls")
    say = next(a for _, a in run_until(life, 10.0) if isinstance(a, Say))
    assert (say.text, say.census, say.tail) == (
        "stopping: 41s left (extended by the agent)",
        "count",
        ', "draining 3 calls"',
    )


def test_a_report_comes_before_each_escalation_that_leaves_time_for_it() -> None:
    life = make("--stop-schedule", "TERM/20s/INT/2s/USR1/500ms/KILL")
    life.signal(0.0, TERM, "a test")
    done = run_until(life, 30.0)
    assert [(round(at, 6), kind) for at, a in done for kind in kinds([a])][:5] == [
        (18.5, "MakeReport"),
        (20.0, "Stop"),
        (21.5, "MakeReport"),
        (22.0, "Stop"),
        (22.5, "KillAll"),
    ]


def test_who_asks_for_more_in_time_is_not_reported() -> None:
    life = make("-t", "10s")
    life.signal(0.0, TERM, "a test")
    done: list[tuple[float, Action]] = []
    for now in range(1, 60):
        told(life, float(now), EXTEND_TIMEOUT_USEC="10000000")
        done += run_until(life, now + 0.5)
    assert "MakeReport" not in kinds([a for _, a in done])
    done = run_until(life, 100.0)
    assert [(at, kind) for at, a in done for kind in kinds([a])][:2] == [(67.5, "MakeReport"), (69.0, "KillAll")]


def test_a_report_that_is_done_early_is_not_waited_for() -> None:
    life = make("-t", "10s", "--watchdog", "5s")
    told(life, 0.0, READY="1")
    assert [(at, kind) for at, a in run_until(life, 5.0) for kind in kinds([a])] == [(5.0, "MakeReport")]
    life.reported(5.5)
    assert [(at, kind) for at, a in run_until(life, 5.6) for kind in kinds([a])] == [(5.5, "Stop")]


@pytest.mark.parametrize("platform", [{}, {"KUBERNETES_SERVICE_HOST": "x"}])
def test_an_agent_that_hangs_is_killed_whatever_ends_its_stops(platform: dict[str, str]) -> None:
    life = make("--watchdog", "5s", environment=platform)
    told(life, 0.0, WATCHDOG="1")
    done = run_until(life, 60.0)
    assert [(at, kind) for at, a in done for kind in kinds([a])][:3] == [
        (5.0, "MakeReport"),
        (6.5, "Stop"),
        (16.5, "KillAll"),
    ]
    assert done[-1][1] == End(137)


@pytest.mark.parametrize("number", ["4096", "2147483648", "9" * 19])
def test_what_is_no_error_number_is_passed_over(number: str) -> None:
    life = make("-t", "25s")
    actions = told(life, 1.0, ERRNO=number, READY="1")
    assert [a.event for a in actions if isinstance(a, Say)] == ["ready"]


def test_what_is_no_interval_leaves_the_watchdog_as_it_was() -> None:
    life = make("--watchdog", "5s")
    told(life, 0.0, READY="1", WATCHDOG_USEC="soon")
    assert life.due == 5.0


def test_who_was_frozen_has_a_moment_to_speak_once() -> None:
    life = make("--watchdog", "2s")
    told(life, 0.0, WATCHDOG="1")
    assert life.tick(2.2) == []
    assert life.due == 3.2
    told(life, 3.0, WATCHDOG="1")
    assert life.tick(5.3) == [], "it has spoken since"
    assert life.due == 6.3
    assert "watchdog" in [a.event for a in life.tick(6.5) if isinstance(a, Say)], "once is enough on a slow machine"


def test_who_was_frozen_for_long_has_its_whole_time() -> None:
    life = make("--watchdog", "2s", "--ready-timeout", "20s")
    told(life, 0.0, WATCHDOG="1")
    assert life.tick(5.0) == []
    assert life.due == 7.0
    told(life, 6.0, WATCHDOG="1", WATCHDOG_USEC="90000000")
    assert life.due == 23.0, "the time that it was frozen does not count as time to get ready"


def test_an_endless_wait_is_not_one_for_an_agent_that_hangs() -> None:
    life = make("--watchdog", "1s", "--stop-schedule", "TERM/500ms/INT/infinity/KILL")
    told(life, 0.0, WATCHDOG="1")
    assert next(at for at, a in run_until(life, 100.0) if isinstance(a, KillAll)) == 1.0 + 1.5 + 0.5 + 10.0


def test_more_time_can_be_had_before_an_endless_wait() -> None:
    life = make("--stop-schedule", "TERM/1s/INT/infinity/KILL")
    life.signal(0.0, TERM, "a test")
    told(life, 0.5, EXTEND_TIMEOUT_USEC="5000000")
    assert [(at, a) for at, a in run_until(life, 60.0) if isinstance(a, Stop)] == [(5.5, Stop(INT))]


def test_time_that_is_not_granted_is_not_told_as_bought() -> None:
    life = make("-t", "12s", "--max-grace", "12s")
    life.signal(0.0, TERM, "a test")
    assert told(life, 5.0, EXTEND_TIMEOUT_USEC="60000000") == []
    texts = [a.text for _, a in run_until(life, 11.0) if isinstance(a, Say)]
    assert texts == ["stopping: 2s left"]


def test_a_step_that_was_brought_forward_takes_its_report_along() -> None:
    life = make("--stop-schedule", "TERM/4s/INT", "--repeat", "escalate")
    life.signal(0.0, TERM, "a test")
    assert Stop(INT) in life.signal(0.5, TERM, "a test")
    assert life.due == 10.0, "the next is a line of progress"


def test_a_kill_that_was_asked_for_is_told_as_that() -> None:
    life = make("-t", "60s", "--repeat", "escalate")
    life.signal(0.0, TERM, "a test")
    assert "KillAll" in kinds(life.signal(1.0, TERM, "a test"))
    say, _ = life.agent_ended(1.1, 137, "was killed by SIGKILL", alone=True)
    assert isinstance(say, Say)
    assert say.fields["cause"] == "escalated"
    assert "at a further stop request (--repeat escalate)" in say.text


# --- Figures and words, to the letter. ------------------------------------------------------------------------------


def test_what_is_bought_leaves_the_later_steps_their_time() -> None:
    life = make("--stop-schedule", "TERM/4s/INT/6s/KILL", "--max-grace", "20s")
    life.signal(0.0, TERM, "a test")
    told(life, 1.0, EXTEND_TIMEOUT_USEC="90000000")
    assert life.due == 10.0
    assert [at for at, a in run_until(life, 14.5) if isinstance(a, Stop)] == [14.0]


def test_less_than_a_second_can_be_bought() -> None:
    life = make("-t", "2s")
    life.signal(0.0, TERM, "a test")
    told(life, 1.9, EXTEND_TIMEOUT_USEC="500000")
    run_until(life, 2.3)
    assert life.due == pytest.approx(2.4)


def test_a_report_has_the_time_until_the_next_step() -> None:
    life = make("-t", "10s")
    life.signal(5.0, TERM, "a test")
    assert [(at, a.seconds) for at, a in run_until(life, 14.0) if isinstance(a, MakeReport)] == [(13.5, 1.5)]


def test_what_is_due_at_once_is_done_in_the_order_of_its_time() -> None:
    """The signal that was put off comes before the report on the platform's limit."""
    life = make("--stop-delay", "20s", environment={"KUBERNETES_SERVICE_HOST": "x"})
    life.signal(0.0, TERM, "a test")
    assert Stop(TERM) in life.tick(60.0)
    assert [a.event for a in life.tick(60.0) if isinstance(a, Say)] == ["limit-near"]


def test_progress_keeps_its_beat_after_a_late_tick() -> None:
    life = make("-t", "90s")
    life.signal(0.0, TERM, "a test")
    [say] = life.tick(25.0)
    assert isinstance(say, Say)
    assert (say.text, say.fields["left"], life.due) == ("stopping: 1m5s left", 65.0, 30.0)


@pytest.mark.parametrize(("delay", "told"), [("5s", "TERM to the agent after 5s"), ("0", "TERM to the agent")])
def test_the_plan_of_a_stop_is_told_with_its_delay(delay: str, told: str) -> None:
    life = make("-t", "25s", "--stop-delay", delay)
    say, *_ = life.signal(3.0, TERM, "a test")
    assert isinstance(say, Say)
    assert say.text == f"stop requested by TERM from a test: {told}, KILL after 25s"


def test_the_platforms_limit_is_told_with_the_time_that_has_passed() -> None:
    life = make(environment={"KUBERNETES_SERVICE_HOST": "x"})
    life.signal(100.0, TERM, "a test")
    [text] = [a.text for _, a in run_until(life, 129.0) if isinstance(a, Say) and a.event == "limit-near"]
    assert text.startswith("28s after the stop request the agent is still there; ")


@pytest.mark.parametrize("number", [1, 4095])
def test_the_first_and_the_last_of_all_errors_are_told(number: int) -> None:
    assert [a.fields for a in told(make(), 0.0, ERRNO=str(number)) if isinstance(a, Say)] == [{"errno": number}]


@pytest.mark.parametrize(("code", "tail"), [(0, ""), (3, '; its last status: "busy"')])
def test_the_last_status_is_told_where_the_end_is_no_good_one(code: int, tail: str) -> None:
    life = make("-t", "25s")
    told(life, 7.0, STATUS="busy")
    life.signal(8.0, TERM, "a test")
    say, _ = life.agent_ended(10.0, code, "exited", alone=True)
    assert isinstance(say, Say)
    assert (say.tail, say.fields["seconds"], say.fields["stop_seconds"]) == (tail, 10.0, 2.0)


@pytest.mark.parametrize(("ended", "due"), [(101.0, 106.0), (107.0, 109.0), (108.5, 109.0), (110.0, 110.0)])
def test_the_linger_time_ends_with_the_grace(ended: float, due: float) -> None:
    life = make("-t", "9s", "--linger", "5s")
    life.signal(100.0, TERM, "a test")
    life.agent_ended(ended, 0, "exited", alone=False)
    assert life.due == due


def test_times_are_counted_from_the_start_on() -> None:
    made = make("--ready-timeout", "5s")
    life = Lifecycle(made.settings, made.plan, 100.0)
    assert life.due == 105.0
    [ready] = told(life, 102.0, READY="1")
    end, _ = life.agent_ended(107.0, 0, "exited", alone=True)
    assert isinstance(ready, Say)
    assert isinstance(end, Say)
    assert ready.text == "the agent is ready, after 2s"
    assert "after 7s in all" in end.text


def test_what_is_killed_at_the_deadline_is_told_as_that() -> None:
    life = make("-t", "10s")
    life.signal(0.0, TERM, "a test")
    run_until(life, 10.0)
    say, _ = life.agent_ended(10.1, 137, "was killed", alone=True)
    assert isinstance(say, Say)
    assert (life.how, say.fields["cause"]) == ("was killed when its time was up", "deadline")


# --- All stories. ---

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
        "WATCHDOG": st.sampled_from(["1", "trigger"]),
        "WATCHDOG_USEC": st.sampled_from(["0", "500000", "9000000"]),
        "EXTEND_TIMEOUT_USEC": st.sampled_from(["100000", "5000000", "20000000"]),
        "STATUS": st.sampled_from(["", "busy"]),
        "STOPPING": st.just("1"),
    },
)
SIGNALS = st.sampled_from([TERM, INT, HUP, QUIT, USR1, CONT])


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
    )
    def begin(
        self, flags: Any, environment: Any, repeat: str, linger: str, rewrite: Any, ok: Any, watched: Any, bound: float
    ) -> None:
        if "infinity" in flags or any("infinity" in flag for flag in flags):
            bound = math.inf
        bounded = [] if bound == math.inf else ["--max-grace", f"{bound:g}"]
        words = [*flags, "--repeat", repeat, "--linger", linger, *rewrite, *ok, *watched, *bounded]
        self.life = make(*words, environment=environment)
        self.repeat, self.bound, self.bought = repeat, bound, 0.0
        self.now = 0.0
        self.requested: float | None = None
        self.agent_ended_at: float | None = None
        self.killed: float | None = None
        self.ended: list[int] = []
        self.stops = 0
        self.requests = 0
        self.agent_code: int | None = None

    def take(self, actions: list[Action]) -> None:
        for action in actions:
            assert not self.ended or isinstance(action, Say), "nothing follows the end"
            if isinstance(action, Stop | Forward):
                assert self.agent_ended_at is None, "nothing is addressed to an agent that has ended"
                assert self.killed is None
            if isinstance(action, Stop):
                self.stops += 1
            elif isinstance(action, Forward):
                unhandled = not action.always and action.number in (HUP, QUIT, USR1)
                if unhandled:
                    self.take(self.life.unhandled(self.now, action.number, "a test"))
            elif isinstance(action, KillAll):
                self.killed = self.now if self.killed is None else self.killed
            elif isinstance(action, End):
                self.ended.append(action.code)

    @precondition(lambda self: not self.ended)
    @rule(number=SIGNALS)
    def signal(self, number: int) -> None:
        before = self.life.state
        self.take(self.life.signal(self.now, number, "a test"))
        if before != "running":
            self.requests += 1
        elif self.life.state != "running":
            self.requested = self.now

    @precondition(lambda self: not self.ended)
    @rule(fields=MESSAGES)
    def the_agent_speaks(self, fields: dict[str, str]) -> None:
        before = self.life.state
        self.take(told(self.life, self.now, **fields))
        if before == "running" and self.life.state != "running":
            self.requested = self.now
        if before == "stopping" and (text := fields.get("EXTEND_TIMEOUT_USEC")) and self.requested is not None:
            self.bought = max(self.bought, self.now + int(text) / 1e6 - self.requested)

    @precondition(lambda self: not self.ended)
    @rule(seconds=st.sampled_from([0.0, 0.01, 0.3, 1.0, 4.0, 12.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        end = self.now + seconds
        ticks = 0
        while not self.ended and self.life.due <= end:
            self.now = max(self.now, self.life.due)
            before = self.life.state
            self.take(self.life.tick(self.now))
            if before == "running" and self.life.state == "stopping":
                self.requested = self.now
            ticks += 1
            assert ticks < 10_000, "a tick has to move on"
        self.now = max(self.now, end)

    @precondition(lambda self: not self.ended and self.agent_ended_at is None)
    @rule(code=st.sampled_from([0, 3, 143, 137]), alone=st.booleans())
    def agent_ends(self, code: int, alone: bool) -> None:
        self.agent_code = code
        actions = self.life.agent_ended(self.now, code, "ended", alone=alone)
        self.agent_ended_at = self.now
        self.take(actions)
        assert bool(self.ended) == alone

    @precondition(lambda self: not self.ended and self.agent_ended_at is not None)
    @rule()
    def nothing_is_left(self) -> None:
        self.take(self.life.nothing_left(self.now))
        assert self.ended

    @precondition(lambda self: self.ended)
    @rule(number=SIGNALS)
    def something_comes_too_late(self, number: int) -> None:
        self.take(self.life.signal(self.now, number, "a test"))
        self.take(self.life.tick(self.now))
        self.take(self.life.nothing_left(self.now))
        assert self.life.due == math.inf

    @invariant()
    def each_step_is_sent_once(self) -> None:
        steps = len(self.life.plan.steps)
        assert self.stops <= steps + (self.requests if self.repeat == "forward" else 0)

    @invariant()
    def an_end_can_be_reached(self) -> None:
        """From every state: the agent ends, and leaves nothing."""
        if self.ended:
            return
        life = copy.copy(self.life)
        if self.agent_ended_at is None:
            actions = life.agent_ended(self.now, 3, "ended", alone=True)
        else:
            actions = life.nothing_left(self.now)
        assert isinstance(actions[-1], End)
        assert life.due == math.inf

    @invariant()
    def a_kill_can_be_reached(self) -> None:
        """From every state: by a further stop request and time, unless neither is to lead there."""
        life = copy.copy(self.life)
        patient = self.life.plan.grace == math.inf and not self.life.hung
        if self.ended or (patient and (self.repeat != "escalate" or self.life.plan.steps[-1][0] != KILL)):
            return
        now, actions = self.now, []
        for _ in range(1 + len(self.life.plan.steps)):
            actions += life.signal(now, INT, "a test")
        while life.due < math.inf and now < self.now + 10_000:
            now = max(now, life.due)
            actions += life.tick(now)
        assert any(isinstance(action, KillAll) for action in actions)
        assert sum(isinstance(action, End) for action in actions) == 1

    @invariant()
    def the_end_comes_by_the_grace(self) -> None:
        """Or by what the agent bought, after which the rest of the schedule follows; none of it beyond the bound."""
        grace = self.life.plan.grace
        if self.requested is None or self.ended or (grace == math.inf and not self.life.hung):
            return
        if self.life.hung:
            waits = [10.0 if wait == math.inf else wait for _, wait in self.life.plan.steps]
            grace = reader.REPORT_TIME + max(10.0, sum(waits))
        else:
            grace = max(grace, min(self.bound, max(grace, self.bought + grace)))
        assert self.now <= self.requested + grace + GIVE_UP_AFTER + 1e-6

    @invariant()
    def it_ends_soon_after_the_kill(self) -> None:
        if self.killed is not None and not self.ended:
            assert self.now <= self.killed + GIVE_UP_AFTER + 1e-6

    @invariant()
    def the_linger_time_is_kept(self) -> None:
        if self.agent_ended_at is not None and not self.ended:
            assert self.now <= self.agent_ended_at + self.life.settings.linger + GIVE_UP_AFTER + 1e-6

    @invariant()
    def the_exit_code_is_the_agents(self) -> None:
        if self.ended:
            code = 128 + KILL if self.agent_code is None else self.agent_code
            code = 0 if code in self.life.settings.ok_exit else code
            assert self.ended == [134 if self.life.hung and code == 0 else code]


AnyOrder.TestCase.settings = hypothesis_settings(max_examples=150, stateful_step_count=25, deadline=None)
TestAnyOrder = AnyOrder.TestCase

"""The state machine: stops and more time by command, reports on request, and the file that says the agent is ready."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.init.actions import Exit, KillAll, Log, MakeStallReport, MarkReady, Stop
from entrypoint.init.lifecycle import LINGERING, STOPPING, Lifecycle
from entrypoint.init.stop_plan import INSIDE, OUTSIDE
from entrypoint.signals import INT, QUIT, TERM, parse
from tests.support.lifecycle import events, exited, kinds, logs, make, run_until, without_logs

USR1, USR2 = parse("USR1"), parse("USR2")
WHO = "a client"
KUBERNETES = {"KUBERNETES_SERVICE_HOST": "x"}


# --- Stops. ---------------------------------------------------------------------------------------------------------


def test_a_stop_by_command_is_one_by_term() -> None:
    one, other = make("-t", "5s"), make("-t", "5s")
    assert one.stop(1.0, WHO, INSIDE, None) == other.signal(1.0, TERM, WHO, INSIDE)
    assert one.stop(2.0, WHO, INSIDE, None) == other.signal(2.0, TERM, WHO, INSIDE)
    assert one.due == other.due


@pytest.mark.parametrize("rewrite", ["TERM:QUIT", "TERM:KILL", "TERM:TERM", "INT:QUIT"])
def test_its_stop_signal_is_that_of_a_rewritten_term(rewrite: str) -> None:
    one, other = make("-t", "5s", "-r", rewrite), make("-t", "5s", "-r", rewrite)
    assert one.stop(1.0, WHO, INSIDE, None) == other.signal(1.0, TERM, WHO, INSIDE)
    assert one.due == other.due
    assert one.adapts == other.adapts


@pytest.mark.parametrize(("grace", "flags"), [(9.0, []), (None, ["--stop-on", "none"])])
def test_a_rewritten_term_is_so_with_a_grace_too_and_where_no_signal_stops(
    grace: float | None, flags: list[str]
) -> None:
    life = make("-r", "TERM:QUIT", *flags)
    stops = [action for action in life.stop(1.0, WHO, INSIDE, grace) if isinstance(action, Stop)]
    assert [stop.number for stop in stops] == [QUIT]


def test_it_stops_whatever_signals_do() -> None:
    life = make("--stop-on", "none", "-r", "TERM:0")
    assert kinds(life.stop(1.0, WHO, INSIDE, None)) == ["Stop", "TakeCpuSnapshot"]


@pytest.mark.parametrize(
    ("flags", "grace", "kill"),
    [
        (["-t", "5s"], 50.0, 50.0),
        (["-t", "50s"], 5.0, 5.0),
        (["-t", "5s", "--max-grace", "20s"], 50.0, 20.0),
        (["--platform-grace", "22s"], 50.0, 20.0),
        (["-t", "9s", "--stop-delay", "3s"], 2.0, 2.0),
        (["--stop-schedule", "INT/1s/TERM/1s/KILL"], 7.0, 7.0),
    ],
)
def test_a_grace_is_for_this_stop(flags: list[str], grace: float, kill: float) -> None:
    life = make(*flags)
    life.stop(10.0, WHO, INSIDE, grace)
    done = run_until(life, 100.0)
    assert next(at for at, action in done if isinstance(action, KillAll)) == pytest.approx(10.0 + kill)


@pytest.mark.parametrize(("grace", "delay"), [(2.0, 0.0), (3.0, 0.0), (3.5, 3.0)])
def test_a_grace_that_leaves_no_time_for_the_stop_signal_leaves_out_the_delay(grace: float, delay: float) -> None:
    life = make("-t", "9s", "--stop-delay", "3s")
    sent = [(10.0, action) for action in life.stop(10.0, WHO, INSIDE, grace)] + run_until(life, 100.0)
    assert next(at for at, action in sent if isinstance(action, Stop)) == 10.0 + delay
    assert next(at for at, action in sent if isinstance(action, KillAll)) == 10.0 + grace


def test_a_grace_of_a_stop_that_has_begun_has_no_effect() -> None:
    life = make("-t", "5s")
    life.signal(1.0, TERM, WHO)
    assert events(life.stop(2.0, WHO, INSIDE, 50.0)) == ["stop-repeated"]
    assert life.kill_due == 6.0


def test_on_a_platform_a_grace_is_a_deadline_of_ours() -> None:
    life = make(environment=KUBERNETES)
    life.stop(1.0, WHO, INSIDE, 50.0)
    assert life.kill_due == 51.0
    assert "limit-near" not in [a.event for _, a in run_until(life, 60.0) if isinstance(a, Log)]


# --- More time. -----------------------------------------------------------------------------------------------------


def test_more_time_before_a_stop() -> None:
    life = make("-t", "5s")
    assert life.why_no_more_time == "not-stopping"
    assert life.more_time(1.0, 5.0, WHO) == []
    assert life.due == math.inf


def test_more_time_for_what_an_agent_leaves_that_exits_by_itself() -> None:
    """No stop was requested, so --max-grace would not bound it."""
    life = make("-t", "5s", "--max-grace", "8s", "--linger", "3s")
    life.agent_ended(1.0, exited(0), alone=False)
    assert life.state == LINGERING
    assert life.why_no_more_time == "not-stopping"
    assert life.more_time(2.0, 3600.0, WHO) == []
    assert life.kill_due == 4.0
    life.signal(2.0, TERM, WHO)
    life.more_time(2.0, 3600.0, WHO)
    assert life.kill_due == 10.0


@pytest.mark.parametrize("flags", [["--stop-schedule", "TERM"], ["-t", "infinity"]])
def test_more_time_without_a_deadline(flags: list[str]) -> None:
    life = make(*flags)
    life.signal(1.0, TERM, WHO)
    assert life.why_no_more_time == "no-deadline"
    assert life.more_time(2.0, 5.0, WHO) == []


def test_more_time_adds_up() -> None:
    life = make("-t", "5s")
    life.signal(1.0, TERM, WHO)
    [log] = logs(life.more_time(2.0, 5.0, WHO))
    assert (log.event, log.facts) == ("extended-by-command", {"sender": WHO, "left": 9.0})
    life.more_time(3.0, 5.0, WHO)
    assert life.kill_due == 16.0


def test_more_time_moves_the_next_step_and_all_after_it() -> None:
    life = make("--stop-schedule", "TERM/4s/INT/5s/KILL")
    life.signal(0.0, TERM, WHO)
    life.more_time(1.0, 10.0, WHO)
    done = run_until(life, 19.0)
    steps = [(at, action.number) for at, action in done if isinstance(action, Stop)]
    assert steps == [(14.0, INT)]
    assert [at for at, action in done if isinstance(action, KillAll)] == [19.0]


def test_more_time_while_the_stop_signal_is_delayed() -> None:
    life = make("-t", "10s", "--stop-delay", "4s", "--max-grace", "15s")
    life.signal(0.0, TERM, WHO)
    life.more_time(1.0, 3.0, WHO)
    assert life.kill_due == 13.0
    life.more_time(1.0, 30.0, WHO)
    assert life.kill_due == 15.0
    assert life.why_no_more_time == "--max-grace"
    assert [at for at, action in run_until(life, 5.0) if isinstance(action, Stop)] == [4.0]


def test_more_time_for_leftover_processes() -> None:
    life = make("-t", "60s", "--linger", "5s", "--max-grace", "60s")
    life.signal(0.0, TERM, WHO)
    life.agent_ended(2.0, exited(0), alone=False)
    assert life.state == LINGERING
    life.more_time(3.0, 20.0, WHO)
    assert life.kill_due == 27.0
    life.more_time(4.0, 100.0, WHO)
    assert life.kill_due == 60.0
    assert life.why_no_more_time == "--max-grace"


def test_more_time_for_a_hung_agent() -> None:
    life = make("-t", "20s", "--watchdog", "5s")
    life.notified(0.0, {"WATCHDOG": "trigger"}, WHO)
    run_until(life, 5.0)
    before = life.kill_due
    life.more_time(6.0, 5.0, WHO)
    assert life.kill_due == before + 5.0


def test_the_option_that_bounds_it_is_named() -> None:
    life = make("--platform-grace", "10s")
    life.signal(0.0, TERM, WHO)
    assert life.why_no_more_time == "--platform-grace"


@given(
    st.lists(st.tuples(st.floats(0.0, 5.0), st.floats(0.001, 50.0)), max_size=8),
    st.floats(1.0, 30.0),
    st.floats(30.0, 60.0),
)
def test_more_time_is_never_past_the_bound(requests: list[tuple[float, float]], grace: float, bound: float) -> None:
    life = make("-t", f"{grace:.3f}", "--max-grace", f"{bound:.3f}")
    life.signal(0.0, TERM, WHO)
    now = 0.0
    for wait, seconds in requests:
        now += wait
        run_until(life, now)
        if life.state != STOPPING:
            break
        before = life.kill_due
        life.more_time(now, seconds, WHO)
        assert before <= life.kill_due <= bound + 0.002
    done = run_until(life, 200.0)
    assert isinstance(done[-1][1], Exit) or life.state == "ended"


# --- Reports. -------------------------------------------------------------------------------------------------------


def test_a_report_on_a_signal_has_no_other_effect() -> None:
    life = make("--report-on", "USR2", "-t", "30s")
    assert USR2 not in life.sent_at_once
    assert USR1 in life.sent_at_once
    actions = life.signal(1.0, USR2, WHO)
    assert events(actions) == ["report-requested"]
    assert without_logs(actions) == [MakeStallReport(1.5)]
    assert (life.state, life.due) == ("running", math.inf)
    life.signal(2.0, TERM, WHO)
    assert kinds(life.signal(3.0, USR2, WHO)) == ["MakeStallReport"]
    run_until(life, 32.0)
    assert life.signal(32.5, USR2, WHO) == []


def test_a_report_comes_so_long_after_the_request_whatever_the_deadline() -> None:
    life = make("-t", "infinity", "--report-after", "60s")
    assert life.due == math.inf
    life.signal(1.0, TERM, WHO)
    done = [(at, a) for at, a in run_until(life, 1000.0) if isinstance(a, MakeStallReport)]
    assert done == [(61.0, MakeStallReport(1.5))]


def test_no_report_of_a_stop_that_has_ended() -> None:
    life = make("-t", "30s", "--linger", "20s", "--report-after", "3s")
    life.signal(0.0, TERM, WHO)
    life.agent_ended(1.0, exited(0), alone=False)
    assert not [a for _, a in run_until(life, 10.0) if isinstance(a, MakeStallReport)]


# --- The ready file. ------------------------------------------------------------------------------------------------

SHOWN, GONE = MarkReady(is_ready=True), MarkReady(is_ready=False)


def ready(*flags: str) -> Lifecycle:
    life = make("--ready-file", "/run/ready", *flags)
    assert life.notified(1.0, {"READY": "1"}, WHO)[-1] == SHOWN
    return life


def test_it_is_made_once() -> None:
    life = ready()
    assert life.notified(2.0, {"READY": "1"}, WHO) == []


def test_it_is_gone_before_the_stop_signal() -> None:
    life = ready("-t", "9s")
    actions = life.signal(2.0, TERM, WHO)
    assert actions[0] == GONE
    assert GONE not in life.signal(3.0, TERM, WHO)


def test_with_a_delay_it_is_gone_at_once() -> None:
    life = ready("-t", "9s", "--stop-delay", "3s")
    assert without_logs(life.signal(2.0, TERM, WHO)) == [GONE]


def test_it_is_gone_at_a_hang() -> None:
    life = ready("-t", "9s")
    assert life.notified(2.0, {"WATCHDOG": "trigger"}, WHO)[0] == GONE


@pytest.mark.parametrize("how", [{"alone": True}, {"alone": False}, {"alone": False, "only_older": True}])
def test_it_is_gone_when_the_agent_has_exited(how: dict[str, bool]) -> None:
    life = ready("-t", "9s")
    assert life.agent_ended(2.0, exited(0), **how)[0] == GONE


def test_it_is_not_made_of_an_agent_that_is_stopping() -> None:
    life = make("--ready-file", "/run/ready", "-t", "9s")
    life.signal(1.0, TERM, WHO)
    assert without_logs(life.notified(2.0, {"READY": "1"}, WHO)) == []


def test_without_the_option_nothing_is_marked() -> None:
    life = make("-t", "9s")
    assert without_logs(life.notified(1.0, {"READY": "1"}, WHO)) == []
    assert kinds(life.signal(2.0, TERM, WHO, OUTSIDE)) == ["Stop", "TakeCpuSnapshot"]

"""From what was seen of a run to the verdict, and from the verdicts to what to write."""

from __future__ import annotations

from typing import Any

import pytest

from entrypoint.rehearse import advice
from entrypoint.rehearse.judge import Facts, Judgement, judge
from entrypoint.rehearse.model import Mode, Run, Verdict
from entrypoint.rehearse.records import Line, Record
from entrypoint.rehearse.scenarios import NAMES, WAYS, Way, retries

TRACEBACK = [Line(11.0, "err", "Traceback (most recent call last):"), Line(11.0, "err", "ValueError: x")]
DEADLINE = Record(12.5, "deadline", "2.5s after the stop request, SIGKILL", {"processes": ["python agent.py (2)"]})
REPORT = [
    Record(11.0, "report", "report: python agent.py (2), the agent, sleeping"),
    Record(11.0, "report", "report: pid 2, main thread: idle in its event loop"),
]
LINGERING = Record(11.0, "lingering", "...", {"processes": ["sh (3)", "sleep (4)"]})


def judged(way: str = "term", **more: Any) -> Judgement:
    facts: dict[str, Any] = {"started": 5.0, "requested": 10.0, "ended": 12.0, "exit_code": 0, "sent": frozenset((15,))}
    return judge(Facts(NAMES[way], **{**facts, **more}))


def test_agent_that_ends_by_itself_has_held() -> None:
    assert judged() == Judgement(Verdict.HELD, (), False, None, (), None, (), False)


def test_deadline_names_what_was_still_running() -> None:
    found = judged(records=[*REPORT, DEADLINE], exit_code=137)
    assert found.verdict is Verdict.LOST
    assert found.killed
    assert found.reasons == ("killed at the deadline, 2.5s after the stop request; still running: python agent.py (2)",)
    assert found.held_up_by == "python agent.py (2), the agent, sleeping"


def test_report_of_a_stop_that_ended_in_time_holds_nothing_up() -> None:
    assert judged(records=REPORT).held_up_by is None


def test_rehearsal_that_gave_up_has_killed() -> None:
    found = judged(given_up=True, exit_code=None)
    assert found.killed
    assert "long after the deadline" in found.reasons[0]


@pytest.mark.parametrize("end", ["linger-over", "deadline"])
def test_what_had_to_be_killed_after_the_agent_is_left_over(end: str) -> None:
    found = judged(records=[LINGERING, Record(12.0, end, "...", {"processes": ["sh (3)"]})])
    assert found.left_over == ("sh (3)",)
    assert not found.killed
    assert found.reasons == ("left sh (3) behind, killed after the linger time",)


def test_what_ends_at_its_signal_is_not_left_over() -> None:
    assert judged(records=[LINGERING]).verdict is Verdict.HELD


@pytest.mark.parametrize(("code", "cut", "kept"), [(0, False, True), (22, False, False), (None, True, False)])
def test_work_is_kept_if_it_ends_well(code: int | None, cut: bool, kept: bool) -> None:
    found = judged(work_code=code, work_cut=cut)
    assert found.work_kept is kept
    assert (found.verdict is Verdict.HELD) is kept


@pytest.mark.parametrize("code", [0, 130, 143])
def test_ends_by_the_stop_signal_are_right(code: int) -> None:
    assert judged(exit_code=code).verdict is Verdict.HELD


@pytest.mark.parametrize(
    ("code", "reason"),
    [(1, "exited with code 1"), (139, "ended by SEGV (exit code 139)"), (129, "ended by HUP (exit code 129)")],
)
def test_other_exit_codes_are_not(code: int, reason: str) -> None:
    assert judged(exit_code=code).reasons == (reason,)


def test_hup_may_end_an_agent_that_was_sent_it() -> None:
    assert judged("hup", exit_code=129, sent=frozenset((1,))).verdict is Verdict.HELD


def test_agent_that_reloads_at_a_signal_owes_only_an_end() -> None:
    assert judged("hup", exit_code=1, work_code=1, lines=TRACEBACK, goes_on=True).verdict is Verdict.HELD
    assert judged("hup", records=[DEADLINE], goes_on=True).verdict is Verdict.LOST


def test_broken_lines_are_a_reason_and_the_first_is_shown() -> None:
    found = judged(lines=[*TRACEBACK, Line(11.5, "err", "Task was destroyed but it is pending!")])
    assert found.reasons == ('printed "ValueError: x" after the stop request, and 1 more line',)
    assert [line.rule for line in found.broken_lines] == ["traceback", "Task was destroyed but it is pending"]


def test_agent_without_its_child_or_dependency_may_complain_and_fail() -> None:
    for way in ("kill-child", "dependency-gone"):
        assert judged(way, lines=TRACEBACK, exit_code=1, work_code=1).verdict is Verdict.HELD
        assert judged(way, lines=[Line(11.0, "err", "RuntimeError: no running event loop")]).verdict is Verdict.LOST
        assert judged(way, records=[DEADLINE]).verdict is Verdict.LOST


def test_agent_that_is_stopped_early_may_end_with_any_code_but_not_with_a_traceback() -> None:
    assert judged("early", exit_code=3).verdict is Verdict.HELD
    assert judged("early", lines=TRACEBACK).verdict is Verdict.LOST


@pytest.mark.parametrize("way", [way for way in WAYS if not way.scenario.counts], ids=lambda way: way.name)
def test_what_no_agent_can_win_is_not_judged(way: Way) -> None:
    found = judged(way.name, records=[DEADLINE], exit_code=137)
    assert found.verdict is Verdict.INFORMATIONAL
    assert found.reasons


def test_skipped_run_has_one_reason() -> None:
    found = judged(skipped="no --break", requested=None, ended=None, exit_code=None)
    assert (found.verdict, found.reasons) == (Verdict.SKIPPED, ("no --break",))


def test_agent_that_did_not_come_up_again_is_lost() -> None:
    found = judged(problem="the agent was not seen to come up", requested=None, ended=None, exit_code=None)
    assert (found.verdict, found.reasons) == (Verdict.LOST, ("the agent was not seen to come up",))


# --- What to write. -------------------------------------------------------------------------------------------------


def run(way: Way = NAMES["term"], *, drain: float = 2.0, **more: Any) -> Run:
    values: dict[str, Any] = {
        "scenario": way.scenario,
        "number": 1,
        "mode": Mode.PROCESS_1,
        "verdict": Verdict.HELD,
        "reasons": (),
        "up_after": 1.0,
        "request_at": 5.0,
        "end_at": 5.0 + drain,
        "exit_code": 0,
        "killed": False,
        "work_kept": None,
        "left_over": (),
        "held_up_by": None,
    }
    return Run(**{**values, **more})


def advised(*runs: Run, work: bool = True, grace: float | None = 30.0) -> dict[str, str]:
    found = advice.advise(runs, work=work, grace=grace)
    return {f"{one.where} {one.line.split('=')[0].split(':')[0]}": one.line for one in found}


def test_times_are_the_longest_drain_and_a_quarter_and_the_reserve() -> None:
    found = advised(run(drain=58.4), run(NAMES["int"], drain=20.0))
    assert found == {
        "Kubernetes terminationGracePeriodSeconds": "terminationGracePeriodSeconds: 75",
        "Compose stop_grace_period": "stop_grace_period: 75s",
        "environment AGENT_INIT_GRACE": "AGENT_INIT_GRACE=73s",
    }


def test_no_agent_is_given_less_than_kubernetes_gives_by_default() -> None:
    found = advised(run(drain=0.1))
    assert found["Kubernetes terminationGracePeriodSeconds"] == "terminationGracePeriodSeconds: 30"
    assert found["environment AGENT_INIT_GRACE"] == "AGENT_INIT_GRACE=28s"


def test_reason_says_whether_there_was_work() -> None:
    for work, words in ((True, "with this work"), (False, "without any work")):
        (kubernetes, *_) = advice.advise([run()], work=work, grace=30.0)
        assert words in kubernetes.reason


def test_drain_that_the_scenario_holds_up_or_cuts_does_not_count() -> None:
    more = [run(NAMES[name], drain=500.0) for name in ("stdout-full", "early", "oom", "grace-too-short")]
    assert advised(run(), *more) == advised(run())


def test_agent_that_was_killed_gets_no_time_but_another_rehearsal() -> None:
    killed = run(verdict=Verdict.LOST, killed=True, drain=30.0, reasons=("killed",))
    assert advised(killed) == {"command line agent-initctl rehearse --grace 2m": "agent-initctl rehearse --grace 2m"}


@pytest.mark.parametrize(
    ("code", "interrupted", "option"), [(143, False, "-e 143"), (130, True, "-e 143"), (130, False, "-e 130")]
)
def test_end_by_a_signal_needs_an_option_where_a_failure_would_be_seen(
    code: int, interrupted: bool, option: str
) -> None:
    """130 counts as 143 only where agent-init has sent INT in place of TERM, and not with --stop-signal INT."""
    assert f"command line agent-init {option}" in advised(run(exit_code=code, interrupted=interrupted))
    early = run(NAMES["early"], exit_code=code, interrupted=interrupted)
    assert f"command line agent-init {option}" not in advised(early, run())


def test_end_by_several_signals_needs_several_options() -> None:
    assert "command line agent-init -e 130 -e 143" in advised(run(exit_code=143), run(NAMES["hup"], exit_code=130))


def test_exit_code_is_that_with_the_stop_signal_that_is_recommended() -> None:
    """Without it the work is lost, whatever the exit code is."""
    _, by_int, _ = retries(30.0, killed=False)
    lost = run(verdict=Verdict.LOST, work_kept=False, reasons=("the work failed",), exit_code=143)
    others = run(NAMES["hup"], exit_code=143)
    kept = run(by_int, verdict=Verdict.INFORMATIONAL, work_kept=True, exit_code=130)
    found = advised(lost, others, kept)
    assert "environment AGENT_INIT_STOP_SIGNAL" in found
    assert [line for line in found if line.startswith("command line")] == ["command line agent-init -e 130"]


def test_exit_code_with_the_delay_that_is_recommended_counts_too() -> None:
    _, _, delayed = retries(30.0, killed=False)
    lost = run(verdict=Verdict.LOST, work_kept=False, reasons=("the work failed",), exit_code=130, interrupted=True)
    kept = run(delayed, verdict=Verdict.INFORMATIONAL, work_kept=True, exit_code=130, interrupted=True)
    assert "command line agent-init -e 143" in advised(lost, kept)
    assert "command line agent-init -e 130 -e 143" in advised(lost, kept, run(NAMES["hup"], exit_code=130))


def test_int_in_place_of_term_is_seen() -> None:
    assert judged(records=[Record(10.0, "ended", "ended: ...", {"by_int": True})]).interrupted
    assert not judged(records=[Record(10.0, "ended", "ended: ...", {})]).interrupted


def test_option_that_keeps_the_work_helps_whatever_the_exit_code_is() -> None:
    """Ray exits with code 15 after a TERM."""
    lost = run(verdict=Verdict.LOST, work_kept=False, reasons=("the work failed", "exited with code 15"))
    _, _, delayed = retries(30.0, killed=False)
    kept: dict[str, Any] = {"work_kept": True, "verdict": Verdict.INFORMATIONAL, "reasons": ("exited with code 15",)}
    assert "environment AGENT_INIT_STOP_DELAY" in advised(lost, run(delayed, **kept))
    assert advised(lost, run(delayed, **kept | {"request_at": None})) == {}


def test_option_that_helped_is_recommended_and_one_that_did_not_is_not() -> None:
    lost = run(verdict=Verdict.LOST, work_kept=False, reasons=("the work failed",))
    longer, by_int, delayed = retries(30.0, killed=False)
    helps: dict[str, Any] = {"verdict": Verdict.INFORMATIONAL, "work_kept": True}
    fails: dict[str, Any] = {"verdict": Verdict.INFORMATIONAL, "work_kept": False, "reasons": ("the work failed",)}
    signal, delay = "environment AGENT_INIT_STOP_SIGNAL", "environment AGENT_INIT_STOP_DELAY"
    both = {signal, delay}
    assert both & advised(lost, run(longer, **fails), run(by_int, **helps), run(delayed, **helps)).keys() == {signal}
    assert both & advised(lost, run(by_int, **fails), run(longer, **fails), run(delayed, **helps)).keys() == {delay}
    assert advised(lost, run(by_int, **fails), run(longer, **fails), run(delayed, **fails)) == {}
    found = advised(lost, run(longer, **helps), run(by_int, **helps), run(delayed, **helps))
    assert found["environment AGENT_INIT_GRACE"] == "AGENT_INIT_GRACE=60s"
    assert found["Kubernetes terminationGracePeriodSeconds"] == "terminationGracePeriodSeconds: 62"
    assert not both & found.keys()


def test_delay_is_not_tried_for_an_agent_that_was_killed() -> None:
    assert [way.options for way in retries(5.0, killed=True)] == [("--grace", "10s"), ("--stop-signal", "INT")]
    assert [way.options[0] for way in retries(None, killed=False)] == ["--stop-signal", "--stop-delay"]

"""What people run behind an init, under agent-init: each trial has the right outcome.

The trials are data, in `trials/`. `python -m tests.field.table NAME` runs one under all inits and prints what it did.
"""

from __future__ import annotations

import pytest

from tests.field import failing, trial, trials
from tests.field.running import Event
from tests.field.trial import Right, Trial, drained


def cases(trials: dict[str, Trial], failing: dict[str, str]) -> list[object]:
    """Those that fail today are expected to, and have to be removed from `failing.py` once they do not."""
    return [
        pytest.param(
            case, id=name, marks=[pytest.mark.xfail(strict=True, reason=failing.get(name, ""))] * (name in failing)
        )
        for name, case in trials.items()
    ]


@pytest.mark.parametrize("case", cases(trials.ALL, failing.TRIALS))
def test_agent_init_does_what_is_right(case: Trial) -> None:
    if program := case.missing():
        pytest.skip(f"{program} is not installed: python -m tests.field.install")
    outcome = trial.run(case)
    assert not trial.problems(case, outcome), outcome.shown()


def test_everything_expected_to_fail_is_a_trial() -> None:
    assert set(failing.TRIALS) <= set(trials.ALL)


def outcome(*events: str, code: int = 0, seconds: float | None = 1.6, output: str = "") -> trial.Outcome:
    """What was seen of an agent that logs an event each 0.1 s from 0.1 s before the stop on."""
    log = [Event("agent", event, 100 + 0.1 * (number - 1), 2) for number, event in enumerate(events)]
    return trial.Outcome(True, log, 100, seconds, 5.5, code, output)


@pytest.mark.parametrize(
    ("right", "seen", "problems"),
    [
        (drained(), outcome("up", "TERM", "drained"), []),
        (drained(), outcome("up", "TERM", "TERM", "work lost", code=1),
         ["agent: TERM twice", "agent killed", "exit code 1"]),
        (drained(), outcome("up", code=143, seconds=0.1), ["agent: no TERM", "agent killed", "exit code 143"]),
        (drained(), outcome("up", "TERM", "drained", "up", code=0), ["agent started again"]),
        (drained(), outcome("up", "TERM", "drained", seconds=None), ["not over after 5.5 s"]),
        (drained(), outcome("up", "TERM", "drained", seconds=4.9), ["over late"]),
        (drained(), outcome(seconds=0.1), ["agent: no TERM", "agent not started"]),
        (drained(printed={"hint": "a.b"}), outcome("up", "TERM", "drained", output="a b"), []),
        (drained(printed={"hint": "a.b"}), outcome("up", "TERM", "drained"), ["no hint"]),
        (drained(never_printed={"warning": "a.b"}), outcome("up", "TERM", "drained", output="a b"), ["warning"]),
        (Right("prompt", at_most={("agent", "TERM"): 0.05}), outcome("up", "ready", "TERM"), ["agent: TERM late"]),
        (Right("late", at_least={("agent", "TERM"): 0.5}), outcome("up", "TERM"), ["agent: TERM too early"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found(right: Right, seen: trial.Outcome, problems: list[str]) -> None:
    case = Trial("", "", lambda place: place.agent, right)
    assert trial.problems(case, seen) == problems


def test_one_of_several_outcomes_is_enough() -> None:
    refused = Right("refused", codes=(125,), printed={"line": "PYTHONHOME"})
    case = Trial("", "", lambda place: place.agent, (drained(), refused))
    assert trial.problems(case, outcome(code=125, output="PYTHONHOME")) == []
    assert trial.problems(case, outcome(code=1)) != []

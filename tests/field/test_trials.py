"""What people run behind an init, under agent-init: each trial has the right outcome.

The trials are data, in `trials/`. `python -m tests.field.table NAME` runs one under all inits and prints what it did.
"""

from __future__ import annotations

import pytest

from tests.field import failing, trial, trials
from tests.field.trial import Trial


def cases(trials: dict[str, Trial], failing: dict[str, str]) -> list[object]:
    """Those that fail today are expected to, and have to be removed from `failing.py` once they do not."""
    return [
        pytest.param(case, id=name, marks=[pytest.mark.xfail(strict=True, reason=failing[name])] * (name in failing))
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

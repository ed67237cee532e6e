"""A stop behind each wrapper: the agent gets one TERM, drains, and then the container is over.

`python -m tests.field.table "wrapper: NAME"` shows the same under other inits.
"""

from __future__ import annotations

import pytest

from tests.field import failing, trial
from tests.field.wrappers import WRAPPERS, Wrapper

DRAINS = [name for name, wrapper in WRAPPERS.items() if not wrapper.ends_its_child]
ENDS_ITS_CHILD = [name for name, wrapper in WRAPPERS.items() if wrapper.ends_its_child]


def stop(wrapper: Wrapper) -> trial.Outcome:
    if program := wrapper.trial.missing():
        pytest.skip(f"{program} is not installed: python -m tests.field.install")
    return trial.run(wrapper.trial)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.xfail(strict=True, reason=failing.WRAPPERS.get(name, ""))])
        if name in failing.WRAPPERS
        else name
        for name in DRAINS
    ],
)
def test_an_agent_behind_a_wrapper_gets_one_term_and_drains(name: str) -> None:
    outcome = stop(WRAPPERS[name])
    assert not trial.problems(WRAPPERS[name].trial, outcome), outcome.shown()


@pytest.mark.parametrize("name", ENDS_ITS_CHILD)
def test_a_wrapper_that_ends_its_child_does_not_delay_the_stop(name: str) -> None:
    outcome = stop(WRAPPERS[name])
    assert outcome.started, outcome.shown()
    assert outcome.seconds is not None, outcome.shown()


def test_every_wrapper_expected_to_fail_is_one() -> None:
    assert set(failing.WRAPPERS) <= set(DRAINS)

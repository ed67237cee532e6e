"""A stop behind each wrapper: the agent gets one TERM, drains, and then the container is over.

`python -m tests.field.zoo` shows the same for other inits, and with all of the agent's 7 s. Here the drain is shorter
than that where nothing depends on it; so that our own time to linger cannot pass for a drain, it is shorter still.
"""

from __future__ import annotations

import pytest

from tests.field import zoo
from tests.field.wrappers import WRAPPERS, Outcome, Wrapper
from tests.support.init import AGENT_INIT

SHORT_DRAIN = 3.0  # more than the 2 s of su and script


def stop(wrapper: Wrapper) -> zoo.Result:
    if program := wrapper.missing():
        pytest.skip(f"{program} is not installed: python -m tests.field.install")
    drain = zoo.DRAIN if wrapper.full else SHORT_DRAIN
    grace = drain + zoo.SLACK + 2
    options = ["-t", f"{grace:g}s", *([] if wrapper.full else ["--linger", "1s"])]
    return zoo.stop(wrapper, [str(AGENT_INIT), *options, "--"], drain, patience=grace + zoo.SLACK)


def rows(*outcomes: Outcome) -> list[object]:
    """The wrappers with these outcomes; those that fall short are expected to fail, and have to once they hold."""
    return [
        pytest.param(
            wrapper,
            id=wrapper.name,
            marks=[pytest.mark.xfail(strict=True, reason=wrapper.why)] * (wrapper.outcome is Outcome.FALLS_SHORT),
        )
        for wrapper in WRAPPERS.values()
        if wrapper.outcome in outcomes
    ]


@pytest.mark.parametrize("wrapper", rows(Outcome.HOLDS, Outcome.FALLS_SHORT))
def test_an_agent_behind_a_wrapper_gets_one_term_and_drains(wrapper: Wrapper) -> None:
    result = stop(wrapper)
    assert result.holds, f"{result.problem}\n{result.output}"


@pytest.mark.parametrize("wrapper", rows(Outcome.ENDS_ITS_CHILD))
def test_a_wrapper_that_ends_its_child_does_not_delay_the_stop(wrapper: Wrapper) -> None:
    result = stop(wrapper)
    assert result.started, result.output
    assert result.seconds is not None, result.output
    assert result.seconds < result.drain + zoo.SLACK, result.output

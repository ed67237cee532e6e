"""What happens to a pod, under agent-init and its peers, on a real kubelet."""

from __future__ import annotations

import pytest

from . import table, trials
from .running import Run

CASES = [(name, init) for name, case in trials.ALL.items() for init in case.inits]


@pytest.mark.parametrize(("name", "init"), CASES)
def test_trial_ends_as_the_table_says(together: Run, restarts: Run, name: str, init: str) -> None:
    run = restarts if name in {**trials.CONTAINERD, **trials.KUBELET} else together
    assert run.outcomes[name, init] == trials.ALL[name].expected(init), run.pods[name, init].shown()


def test_page_has_the_table_of_this_run(together: Run, restarts: Run) -> None:
    """`python -m tests.kubernetes.table` writes it."""
    assert table.written() == table.rendered(together.outcomes | restarts.outcomes)

"""The state machine: looks at orphans, and what is left from before the agent."""

from __future__ import annotations

import math

import pytest

from entrypoint.init.actions import KillAll, Log, LookForOrphans, StopLeftovers
from entrypoint.init.lifecycle import KILLING, ORPHANS_AGAIN
from tests.support.lifecycle import events, exited, kinds, make, run_until, without_logs

TERM = 15


def test_orphans_are_looked_for_only_with_the_option() -> None:
    assert make().due == math.inf
    assert make("--orphans", "0").due == math.inf
    assert make("--orphans", "10m", now=3.0).due == 3.0


def test_a_look_says_when_the_next_one_is() -> None:
    life = make("--orphans", "10m")
    assert life.tick(0.0) == [LookForOrphans()]
    assert life.due == ORPHANS_AGAIN  # if nothing comes of it
    assert life.orphans_seen(0.1, 4.0) == []
    assert life.due == 4.0
    assert life.tick(4.0) == [LookForOrphans()]


@pytest.mark.parametrize("looked", ["before the stop", "during the stop"])
def test_a_stop_takes_over(looked: str) -> None:
    life = make("--orphans", "1s", "-t", "infinity")
    life.tick(0.0)
    if looked == "before the stop":
        life.orphans_seen(0.0, 1.0)
    life.signal(0.5, TERM, "a test")
    if looked == "during the stop":
        life.orphans_seen(0.6, 1.0)
    assert "LookForOrphans" not in kinds([action for _, action in run_until(life, 100.0)])


def test_an_agent_that_has_ended_leaves_no_looks() -> None:
    life = make("--orphans", "1s")
    life.agent_ended(0.5, exited(3), alone=False)
    life.orphans_seen(0.6, 1.0)
    assert life.due == 5.5


def test_a_readiness_limit_and_orphans_go_together() -> None:
    life = make("--orphans", "1s", "--ready-timeout", "3s")
    life.tick(0.0)
    life.orphans_seen(0.0, 1.0)
    assert life.tick(1.0) == [LookForOrphans()]
    life.orphans_seen(1.0, 9.0)
    assert life.due == 3.0


# --- Processes from before the agent. -------------------------------------------------------------------------------


def test_processes_from_before_the_agent_are_not_waited_for() -> None:
    life = make()
    actions = life.agent_ended(3.0, exited(4), alone=False, only_older=True)
    assert actions == [Log("older-left", signal=TERM), KillAll()]
    assert life.state == KILLING
    assert kinds(life.nothing_left(3.1)) == ["Exit"]


def test_their_time_is_over_once_everything_else_has_exited() -> None:
    life = make("--stop-signal", "INT")
    life.signal(1.0, TERM, "a test")
    assert without_logs(life.agent_ended(3.0, exited(0), alone=False)) == [StopLeftovers(2)]
    assert life.older_left(4.0) == [Log("older-left", signal=2), KillAll()]
    assert life.older_left(4.1) == []


def test_they_end_nothing_while_the_agent_runs_or_is_killed() -> None:
    life = make("-t", "1s")
    assert life.older_left(0.5) == []
    life.signal(1.0, TERM, "a test")
    run_until(life, 2.0)
    assert life.state == KILLING
    assert life.agent_ended(2.1, exited(0), alone=False, only_older=True) == []


# --- A successor. ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stopping", [False, True])
def test_a_successor_is_logged_where_no_stop_was_requested(stopping: bool) -> None:
    life = make()
    if stopping:
        life.signal(1.0, TERM, "a test")
    actions = life.agent_ended(3.0, exited(0), alone=False, successor="node (pid 9)")
    assert events(actions) == (["lingering"] if stopping else ["replaced", "lingering"])

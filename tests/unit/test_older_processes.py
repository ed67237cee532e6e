"""Processes from before the agent: which of them are waited for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from entrypoint.init import dispositions, older_processes, procfs, tree
from entrypoint.init.actions import StopLeftovers
from entrypoint.init.older_processes import OlderProcesses
from tests.support.world import AGENT, CHLD, KILL, OWN_PID, TERM, Harness, World, exited

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> dict[int, bool | None]:
    """Which pids the stop signal reaches."""
    which: dict[int, bool | None] = {}
    monkeypatch.setattr(
        dispositions, "is_reached", lambda process, number: number != TERM or which.get(process.pid, False)
    )
    return which


def older(*identities: tuple[int, int]) -> OlderProcesses:
    return OlderProcesses(frozenset(identities), tree.Descendants(()), TERM)


def test_all_descendants_are_found(world: World) -> None:
    del world.processes[AGENT]
    world.add(20, OWN_PID)
    world.add(21, 20)
    world.add(30, 1)
    assert older_processes.find() == {(20, 20), (21, 21)}
    world.no_proc = True
    assert older_processes.find() == frozenset()


def test_they_are_waited_for_with_anybody_else_or_if_they_handle_the_signal(
    world: World, reached: dict[int, bool | None]
) -> None:
    del world.processes[AGENT]
    found = older((20, 20))
    assert not found.are_not_waited_for()  # nothing is left
    world.add(20, OWN_PID)
    world.add(21, 20)
    assert found.are_not_waited_for()
    for answer in (True, None):
        reached[21] = answer
        assert not found.are_not_waited_for()
    del reached[21]
    world.add(30, OWN_PID)
    assert not found.are_not_waited_for()
    world.no_proc = True
    assert not found.are_not_waited_for()


def test_without_any_nothing_is_looked_at(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procfs, "pids", None)
    assert not older().are_not_waited_for()


def test_a_process_with_a_reused_pid_is_another(world: World, reached: dict[int, bool | None]) -> None:
    del world.processes[AGENT]
    world.add(20, OWN_PID)
    assert not older((20, 19)).are_not_waited_for()


@pytest.mark.parametrize("others", [False, True], ids=["alone", "after a leftover process"])
def test_they_are_killed_when_nothing_else_is_left(
    world: World, supervise: Callable[..., Harness], reached: dict[int, bool | None], others: bool
) -> None:
    harness = supervise("-t", "20s", older=frozenset({(20, 20)}))
    world.add(20, OWN_PID, "sleep", group=20)
    if others:
        world.add(30, OWN_PID, "tool", group=30)
    world.wait_results.append((AGENT, exited(3)))
    del world.processes[AGENT]
    harness.receive(CHLD)
    if others:
        assert harness.supervisor.lifecycle.state == "lingering"
        assert (20, TERM) in world.sent
        assert (20, KILL) not in world.sent
        del world.processes[30]
        harness.receive(CHLD)
    assert harness.supervisor.lifecycle.state == "killing"
    assert (20, KILL) in world.sent
    assert bool(harness.lines("left processes behind")) is others
    assert harness.lines("SIGKILL to what is older than the agent and does not handle TERM; still running: sleep (20)")
    world.no_children = True
    harness.receive(CHLD)
    assert harness.supervisor.execution.exit_code == 3


def test_they_are_killed_when_the_work_behind_a_wrapper_has_ended(
    world: World, supervise: Callable[..., Harness], reached: dict[int, bool | None]
) -> None:
    """Its exit is not seen here, nor is another one to come."""
    harness = supervise("-t", "20s", older=frozenset({(20, 20)}))
    supervisor = harness.supervisor
    world.add(20, OWN_PID, "sleep", group=20)
    world.add(30, OWN_PID, "work", group=30)
    world.wait_results.append((AGENT, exited(0)))
    del world.processes[AGENT]
    harness.receive(TERM)
    assert supervisor.lifecycle.state == "lingering"
    del world.processes[30]
    harness.do(StopLeftovers(TERM))
    assert supervisor.lifecycle.state == "killing"


def test_a_failure_to_look_leaves_the_linger_time(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: OlderProcesses) -> bool:
        raise MemoryError

    monkeypatch.setattr(OlderProcesses, "are_not_waited_for", fail)
    harness = supervise("-t", "20s", older=frozenset({(20, 20)}))
    world.add(20, OWN_PID, "sleep")
    world.wait_results.append((AGENT, exited(3)))
    del world.processes[AGENT]
    harness.receive(CHLD)
    harness.receive(CHLD)
    assert harness.supervisor.lifecycle.state == "lingering"
    assert os.getpid() == OWN_PID

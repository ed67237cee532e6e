"""The agent's main process, which it may name, and its successor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from entrypoint.init import procfs
from entrypoint.init.main_process import MainProcess
from tests.support.world import AGENT, CHLD, OWN_GROUP, OWN_PID, World, exited

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.world import Harness


def test_a_new_agent_is_a_group_of_its_own_and_runs(world: World) -> None:
    agent = MainProcess(AGENT, "/app/agent")
    assert (agent.pid, agent.group, agent.name) == (AGENT, AGENT, "agent")
    assert not agent.shares_our_group
    assert not agent.has_exited
    agent.status = exited(0)
    assert agent.has_exited
    agent.group = OWN_GROUP
    assert agent.shares_our_group


def test_the_user_of_an_agent_that_has_exited_is_the_one_seen_last(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, users = MainProcess(AGENT, "/app/agent"), {AGENT: 0}
    monkeypatch.setattr(procfs, "user_of", users.get)
    assert agent.user == 0
    users[AGENT] = 1001  # it has dropped its privileges
    assert agent.user == 1001
    agent.status = exited(0)
    users[AGENT] = 0  # another process with its pid
    assert agent.user == 1001


# --- The agent names its main process. ------------------------------------------------------------------------------


def test_a_main_process_that_is_named_twice_is_logged_once(world: World, supervise: Callable[..., Harness]) -> None:
    harness = supervise()
    main = world.add(20, AGENT, "main")
    for pid in (20, 20, AGENT, 20, 1):
        harness.notify(world.processes[AGENT], MAINPID=str(pid))
    assert harness.supervisor.agent.named is main
    assert harness.lines("main process is") == ["the agent's main process is main (pid 20)"] * 2
    assert harness.lines("MAINPID=1 is not a descendant of the agent; ignored")


def test_another_process_with_the_same_pid_is_a_new_main_process(world: World) -> None:
    agent = MainProcess(AGENT, "agent")
    agent.named = world.add(20, AGENT, "main")
    second = world.add(20, AGENT, "main")
    second.start += 1
    assert agent.name_successor(20, ()) is second
    assert agent.named is second


def test_an_agent_that_names_itself_names_no_other(world: World) -> None:
    agent = MainProcess(AGENT, "agent")
    world.add(20, AGENT, "main")
    assert agent.name_successor(20, ()) is world.processes[20]
    assert agent.name_successor(AGENT, ()) is None
    assert agent.named is None


def test_a_main_process_need_not_be_below_the_agent(world: World) -> None:
    """Its parent may have exited, as a daemon's does; then it is our child."""
    agent = MainProcess(AGENT, "agent")
    world.add(20, OWN_PID, "main")
    assert agent.name_successor(20, ()) is world.processes[20]


@pytest.mark.parametrize("which", ["a stranger", "a helper of ours", "gone", "without /proc"])
def test_other_processes_cannot_be_named(world: World, which: str) -> None:
    agent = MainProcess(AGENT, "agent")
    before = agent.named = world.add(20, AGENT, "main")
    helper_pids = set()
    if which == "a stranger":
        world.add(30, 1, "python")
    elif which == "a helper of ours":
        world.add(30, OWN_PID, "python")
        helper_pids.add(30)
    elif which == "without /proc":
        world.add(30, AGENT, "python")
        world.no_proc = True
    with pytest.raises(ValueError, match=r"^MAINPID=30 is not a descendant of the agent; ignored$"):
        agent.name_successor(30, helper_pids)
    assert agent.named is before


def test_a_reporter_cannot_be_named(world: World, supervise: Callable[..., Harness]) -> None:
    harness = supervise()
    world.add(30, OWN_PID, "python")
    harness.supervisor.helper_pids.add(30)
    harness.notify(world.processes[AGENT], MAINPID="30")
    assert harness.supervisor.agent.named is None


@pytest.mark.parametrize("text", ["", "x", "-1", "1e3", "\u0661", "9" * 10])
def test_text_that_is_not_a_pid_names_no_process(world: World, supervise: Callable[..., Harness], text: str) -> None:
    harness = supervise()
    harness.notify(world.processes[AGENT], MAINPID=text)
    assert harness.lines("MAINPID") == []
    assert harness.supervisor.agent.named is None


# --- The agent exits. -----------------------------------------------------------------------------------------------


def test_an_agent_without_a_named_process_has_no_successor(world: World) -> None:
    assert MainProcess(AGENT, "agent").hand_over() is None


def test_the_named_process_becomes_the_agent(world: World) -> None:
    agent = MainProcess(AGENT, "agent")
    agent.named = world.add(20, OWN_PID, "main", group=21)
    agent.status = exited(3)
    before = agent.dispositions
    assert agent.hand_over() is world.processes[20]
    assert (agent.pid, agent.group, agent.name) == (20, 21, "main")
    assert not agent.has_exited
    assert agent.named is None
    assert (before.pid, agent.dispositions.pid) == (0, 20)
    assert agent.hand_over() is None


@pytest.mark.parametrize("why", ["gone", "another", "dead", "not our child"])
def test_a_named_process_that_cannot_be_the_agent_does_not_become_it(
    world: World, supervise: Callable[..., Harness], why: str
) -> None:
    harness = supervise()
    harness.supervisor.agent.named = world.add(20, OWN_PID, "main")
    if why == "gone":
        del world.processes[20]
    elif why == "another":
        world.add(20, OWN_PID, "other").start += 1
    elif why == "dead":
        world.processes[20].alive = False
    else:
        world.add(20, AGENT, "main")
    world.wait_results.append((AGENT, exited(9)))
    world.no_children = True
    harness.receive(CHLD)
    assert harness.supervisor.execution.exit_code == 9
    assert not harness.lines("is the agent now")
    assert harness.supervisor.agent.dispositions, "still open"

"""Whose messages count, among simulated processes. With real ones: tests/process1/test_notify_access.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from entrypoint import notify
from entrypoint.init import notify_access, procfs, tree
from entrypoint.init.main_process import MainProcess
from tests.support.world import AGENT, OWN_PID, TERM, World

if TYPE_CHECKING:
    from entrypoint.init.notify_access import Accepted

MESSAGE = {"MAINPID": "20", "READY": "1", "STATUS": "x", "WATCHDOG": "1", "EXTEND_TIMEOUT_USEC": "1", "STOPPING": "1"}
OF_HELPERS = ["EXTEND_TIMEOUT_USEC", "STATUS", "WATCHDOG"]
ABOVE = 40


@pytest.fixture(autouse=True)
def no_argv(monkeypatch: pytest.MonkeyPatch) -> None:
    """The world has no command lines; wrappers are known by their names in it."""
    monkeypatch.setattr(procfs, "argv_of", lambda _: [])


def accept(pid: int, access: str = "auto", named: procfs.Process | None = None) -> Accepted:
    agent = MainProcess(AGENT, "agent")
    agent.named = named
    return notify_access.accept(MESSAGE, pid, agent, access)


def keys(accepted: Accepted) -> list[str]:
    return sorted(accepted.fields)


@pytest.mark.parametrize("access", ["auto", "main", "all"])
def test_everything_of_the_agent_and_its_named_main_process_counts(world: World, access: str) -> None:
    named = world.add(20, OWN_PID)
    assert accept(AGENT, access).fields == MESSAGE
    assert accept(20, access, named).fields == MESSAGE
    assert accept(20, access, named).sender is named


@pytest.mark.parametrize(("access", "kept"), [("auto", OF_HELPERS), ("main", []), ("all", sorted(MESSAGE))])
@pytest.mark.parametrize("parent", [AGENT, OWN_PID, 30], ids=["child", "orphan", "deeper"])
def test_what_counts_of_a_helper_depends_on_the_access(world: World, access: str, kept: list[str], parent: int) -> None:
    world.not_wrappers |= {AGENT, 30}
    world.add(30, AGENT)
    world.add(20, parent)
    accepted = accept(20, access)
    assert keys(accepted) == kept
    assert accepted.sender is world.processes[20]
    assert accepted.is_helpers == (access == "auto")


def test_a_message_of_a_helper_that_is_not_about_the_agent_is_complete(world: World) -> None:
    world.not_wrappers.add(AGENT)
    world.add(20, AGENT)
    accepted = notify_access.accept({"STATUS": "x"}, 20, MainProcess(AGENT, "agent"), "auto")
    assert (accepted.fields, accepted.is_helpers) == ({"STATUS": "x"}, False)


@pytest.mark.parametrize("access", ["auto", "main", "all"])
def test_a_line_for_the_log_counts_from_every_descendant(world: World, access: str) -> None:
    world.not_wrappers.add(AGENT)
    world.add(20, AGENT)
    world.add(30, 1)
    message = {notify.LOOP: "blocked 1 text"}
    assert notify_access.accept(message, 20, MainProcess(AGENT, "agent"), access).fields == message
    assert notify_access.accept(message, 30, MainProcess(AGENT, "agent"), access).fields == {}


@pytest.mark.parametrize(("access", "kept"), [("auto", []), ("main", []), ("all", ["WATCHDOG_USEC"])])
def test_a_helper_does_not_change_the_agents_watchdog(world: World, access: str, kept: list[str]) -> None:
    """A database with a watchdog of its own; it would turn the agent's off, or end an agent that pings more rarely."""
    world.not_wrappers.add(AGENT)
    world.add(20, AGENT, "postgres")
    agent = MainProcess(AGENT, "agent")
    accepted = notify_access.accept({"WATCHDOG_USEC": "0"}, 20, agent, access)
    assert keys(accepted) == kept
    assert accepted.is_helpers == (access == "auto")
    assert keys(notify_access.accept({"WATCHDOG_USEC": "0"}, AGENT, agent, access)) == ["WATCHDOG_USEC"]


@pytest.mark.parametrize("access", ["auto", "main", "all"])
@pytest.mark.parametrize("who", ["stranger", "outside", "gone"])
def test_nothing_of_a_stranger_counts(world: World, access: str, who: str) -> None:
    world.add(20, 1)
    accepted = accept({"stranger": 20, "outside": 0, "gone": 30}[who], access)
    assert (accepted.fields, accepted.is_helpers) == ({}, False)
    assert accepted.sender is (world.processes[20] if who == "stranger" else None)


@pytest.mark.parametrize(
    ("name", "waits", "handles_term", "speaks"),
    [
        ("bash", False, True, True),
        ("npm", False, True, True),
        ("tini", False, True, True),
        ("python", True, False, True),
        ("python", True, True, False),
        ("python", False, False, False),
    ],
)
def test_what_runs_behind_a_wrapper_speaks_for_it(
    world: World, name: str, waits: bool, handles_term: bool, speaks: bool
) -> None:
    """One that is not known by name must be seen waiting for its child, and not get the stop signal itself."""
    world.add(AGENT, OWN_PID, name, *[TERM] * handles_term)
    world.not_wrappers |= set() if waits else {AGENT}
    world.add(20, AGENT)
    assert (accept(20).fields == MESSAGE) == speaks


@pytest.mark.parametrize(("between", "speaks"), [("sh", True), ("python", False)])
@pytest.mark.parametrize("top", ["agent", "named"])
def test_every_process_above_must_be_a_wrapper(world: World, between: str, speaks: bool, top: str) -> None:
    world.add(AGENT, OWN_PID, "bash" if top == "agent" else "python")
    world.not_wrappers |= {AGENT, 30}
    named = world.add(ABOVE, AGENT, "bash")
    world.add(30, ABOVE if top == "named" else AGENT, between)
    world.add(20, 30)
    assert (accept(20, named=named if top == "named" else None).fields == MESSAGE) == speaks


@pytest.mark.parametrize(("parent", "speaks"), [(AGENT, True), (30, False)])
def test_systemd_notify_speaks_for_the_program_that_runs_it(world: World, parent: int, speaks: bool) -> None:
    world.not_wrappers |= {AGENT, 30}
    world.add(30, AGENT, "podman")
    world.add(20, parent, "systemd-notify")
    assert (accept(20).fields == MESSAGE) == speaks


def test_a_circle_of_parents_ends(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pids that are reused during the climb."""
    monkeypatch.setattr(tree, "is_below", lambda *_: True)
    world.add(20, 30, "sh")
    world.add(30, 20, "sh")
    assert keys(accept(20)) == OF_HELPERS
    world.add(30, 50, "sh")
    assert keys(accept(20)) == OF_HELPERS


@pytest.mark.parametrize(("name", "kept"), [("sh", ["READY", "STATUS", "WATCHDOG"]), ("python", [])])
def test_of_a_command_that_has_exited_only_harmless_fields_count(world: World, name: str, kept: list[str]) -> None:
    world.add(AGENT, OWN_PID, name)
    accepted = accept(20)
    assert keys(accepted) == kept
    assert str(accepted.sender) == ("a command (pid 20)" if kept else "None")
    for access in ("main", "all"):
        assert keys(accept(20, access)) == []


def test_of_a_command_that_has_exited_a_watchdog_that_is_triggered_does_not_count(world: World) -> None:
    world.add(AGENT, OWN_PID, "sh")
    accepted = notify_access.accept({"WATCHDOG": "trigger"}, 20, MainProcess(AGENT, "agent"), "auto")
    assert (accepted.fields, accepted.sender) == ({}, None)


def test_without_proc_only_the_agent_is_known(world: World) -> None:
    world.no_proc = True
    assert (accept(AGENT).fields, str(accept(AGENT).sender)) == (MESSAGE, f"the agent (pid {AGENT})")
    assert accept(20).fields == {}

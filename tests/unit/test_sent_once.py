"""The supervisor in a simulated world: each process gets a signal once, whatever is tried again or cannot be seen."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from entrypoint.init import delivery, dispositions, procfs
from entrypoint.init.actions import Forward, StopHeldBack, StopInterrupted, StopLeftovers
from entrypoint.init.execution import MAX_RETRIES
from entrypoint.init.exit_watch import ExitWatch
from entrypoint.init.fallback import Fallback
from entrypoint.signals import NUMBERS
from tests.support.world import AGENT, CHLD, CONT, INT, OWN_PID, TERM, Harness, World, exited, failing

if TYPE_CHECKING:
    from collections.abc import Callable

    Supervise = Callable[..., Harness]

MEMBER, OTHER = 20, 21
USR1, QUIT = NUMBERS["USR1"], NUMBERS["QUIT"]


@pytest.fixture(autouse=True)
def no_exit_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests report the exits themselves."""
    monkeypatch.setattr(ExitWatch, "start", lambda *_: None)


def exit_of_agent(harness: Harness, world: World) -> None:
    """The agent exits, and its children become ours."""
    del world.processes[AGENT]
    for process in world.processes.values():
        process.parent = OWN_PID
    world.wait_results.append((AGENT, exited(0)))
    harness.receive(CHLD)


def fail_for(pid: int, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no memory to send to this process, once."""
    errors: list[Exception] = [MemoryError()]

    def send(process: procfs.Process, *numbers: int) -> bool:
        if process.pid == pid and errors:
            raise errors.pop()
        return world.send(process, *numbers)

    monkeypatch.setattr(delivery, "send", send)


def do_until_done(harness: Harness) -> None:
    for _ in range(2 * MAX_RETRIES):
        try:
            harness.supervisor.execution.carry_out()
        except MemoryError:
            continue
        return
    raise AssertionError("it is never done")


# --- The agent's process group. ---


@pytest.mark.parametrize("comes_back", [False, True])
def test_what_was_signalled_with_the_group_is_not_signalled_again_when_the_agent_has_exited(
    world: World, supervise: Supervise, comes_back: bool
) -> None:
    """Nobody was seen at the stop, as /proc could not be listed; later it can, or still cannot."""
    harness = supervise("-g", "-t", "20s", "--linger", "5s")
    world.add(MEMBER, AGENT, "member", TERM)
    world.no_proc = True
    harness.receive(TERM)
    world.no_proc = not comes_back
    exit_of_agent(harness, world)
    assert world.sent == [(-AGENT, TERM), (-AGENT, CONT)]


def test_the_last_try_signals_the_group_once(
    world: World, supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise("-g", "-t", "20s", "--linger", "5s")
    stopper = harness.supervisor.delivery
    world.add(MEMBER, AGENT, "member", TERM)
    failure = failing(stopper._stop_recipients, *[MemoryError()] * (MAX_RETRIES + 1))
    monkeypatch.setattr(stopper, "_stop_recipients", failure)
    with pytest.raises(MemoryError):
        harness.receive(TERM)
    do_until_done(harness)
    exit_of_agent(harness, world)
    assert world.sent == [(-AGENT, TERM), (-AGENT, CONT)]


def test_leftovers_that_were_signalled_with_their_group_are_not_signalled_again(
    world: World, supervise: Supervise
) -> None:
    harness = supervise("-t", "20s", "--linger", "5s")
    world.add(MEMBER, OWN_PID, "left", TERM)
    world.add(OTHER, OWN_PID, "in another group", TERM, group=OTHER)
    world.no_proc = True
    harness.do(StopLeftovers(TERM))
    world.no_proc = False
    harness.do(StopLeftovers(TERM))
    assert world.sent == [(-AGENT, TERM), (-AGENT, CONT), (OTHER, TERM), (OTHER, CONT)]


def test_each_member_gets_its_own_signal_though_memory_runs_out_between_them(
    world: World, supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent prefers INT, and another member of its group handles TERM."""
    harness = supervise("-g", "-t", "20s", "--linger", "5s")
    world.handled[AGENT].add(INT)
    world.add(MEMBER, AGENT, "member", TERM)
    monkeypatch.setattr(dispositions, "prefers_int", lambda process: process.pid == AGENT)
    fail_for(MEMBER, world, monkeypatch)
    with pytest.raises(MemoryError):
        harness.receive(TERM)
    do_until_done(harness)
    exit_of_agent(harness, world)
    assert world.sent == [(AGENT, INT), (AGENT, CONT), (MEMBER, TERM), (MEMBER, CONT)]


# --- What is tried again. ---


def held_back(harness: Harness, world: World) -> None:
    """TERM goes to a worker; its parent and the agent may be agents themselves."""
    world.not_wrappers |= {AGENT, OTHER}
    world.add(OTHER, AGENT, "middle")
    world.add(MEMBER, OTHER, "worker", TERM)
    harness.receive(TERM)
    stopper = harness.supervisor.delivery
    stopper.held_back.sort(key=lambda process: process.pid)
    assert [process.pid for process in stopper.held_back] == [OTHER, AGENT]
    world.sent.clear()


@pytest.mark.parametrize("failing_part", ["the agent's signal", "its SIGCONT"])
def test_who_was_held_back_is_signalled_once(
    world: World, supervise: Supervise, monkeypatch: pytest.MonkeyPatch, failing_part: str
) -> None:
    harness = supervise("-t", "20s")
    held_back(harness, world)
    stopper = harness.supervisor.delivery
    send_agent, errors = stopper.send_agent, [MemoryError()]

    def send(number: int) -> None:
        if errors and number == (TERM if failing_part == "the agent's signal" else CONT):
            raise errors.pop()
        send_agent(number)

    monkeypatch.setattr(stopper, "send_agent", send)
    with pytest.raises(MemoryError):
        harness.do(StopHeldBack(TERM))
    do_until_done(harness)
    assert world.sent == [(OTHER, TERM), (OTHER, CONT), (AGENT, TERM), (AGENT, CONT)]


def test_the_agent_is_continued_though_the_memory_runs_out_after_its_signal(
    world: World, supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise()
    stopper = harness.supervisor.delivery
    send_agent, errors = stopper.send_agent, [MemoryError()]

    def send(number: int) -> None:
        if errors and number == CONT:
            raise errors.pop()
        send_agent(number)

    monkeypatch.setattr(stopper, "send_agent", send)
    with pytest.raises(MemoryError):
        harness.receive(TERM)
    do_until_done(harness)
    assert world.sent == [(AGENT, TERM), (AGENT, CONT)]


def test_who_was_interrupted_is_signalled_once(
    world: World, supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise("-t", "20s")
    harness.supervisor.delivery.presumed = [world.add(pid, AGENT, "work", TERM) for pid in (MEMBER, OTHER)]
    fail_for(OTHER, world, monkeypatch)
    with pytest.raises(MemoryError):
        harness.do(StopInterrupted(TERM))
    do_until_done(harness)
    assert world.sent == [(MEMBER, TERM), (OTHER, TERM)]


def test_a_forwarded_signal_is_sent_and_counted_once(
    world: World, supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise()
    for pid in (MEMBER, OTHER):
        world.add(pid, AGENT, "worker", USR1)
    fail_for(OTHER, world, monkeypatch)
    with pytest.raises(MemoryError):
        harness.do(Forward(USR1, "somebody", always=False))
    do_until_done(harness)
    assert world.sent == [(MEMBER, USR1), (OTHER, USR1)]
    assert harness.supervisor.execution.counters.forwarded[USR1] == 1


def test_the_same_signal_is_forwarded_again(world: World, supervise: Supervise) -> None:
    harness = supervise()
    world.add(MEMBER, AGENT, "worker", USR1)
    for _ in range(2):
        harness.do(Forward(USR1, "somebody", always=False))
    assert world.sent == [(MEMBER, USR1)] * 2


def test_a_successor_is_stopped_though_the_memory_runs_out(
    world: World, supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent has named its main process, and exits during the stop."""
    harness = supervise("--target", "child")
    harness.receive(TERM)
    world.sent.clear()
    harness.supervisor.agent.named = world.add(MEMBER, OWN_PID, "main", TERM, group=MEMBER)
    stopper = harness.supervisor.delivery
    monkeypatch.setattr(stopper, "send_agent", failing(stopper.send_agent, MemoryError()))
    world.wait_results.append((AGENT, exited(0)))
    with pytest.raises(MemoryError):
        harness.receive(CHLD)
    harness.receive()
    assert world.sent == [(MEMBER, TERM), (MEMBER, CONT)]


# --- What follows from a signal. ---


@pytest.mark.parametrize("failures", [1, MAX_RETRIES + 1])
def test_who_is_held_back_gets_the_signal_though_the_line_was_lost(
    world: World, supervise: Supervise, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    harness = supervise("-t", "20s")
    monkeypatch.setattr(harness.supervisor.delivery, "enders", failing(list, *[MemoryError()] * failures))
    held_back(harness, world)
    assert "held_back" in harness.supervisor.lifecycle._timers


@pytest.mark.parametrize("error", [MemoryError(), ValueError("odd")], ids=repr)
def test_work_that_was_not_signalled_gets_the_signal_though_the_line_was_lost(
    world: World, supervise: Supervise, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    harness = supervise("-t", "20s")
    harness.receive(TERM)
    work = world.add(MEMBER, OWN_PID, "work", TERM)
    stopper = harness.supervisor.delivery
    stopper.presumed, stopper.newly_presumed = [work], [work]
    narrator = harness.supervisor.narrator
    monkeypatch.setattr(narrator, "log", failing(narrator.log, error))
    harness.do(StopLeftovers(TERM))
    assert "last_term" in harness.supervisor.lifecycle._timers
    assert stopper.newly_presumed == []


def test_an_action_that_fails_in_every_way_is_given_up(
    world: World, supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise("-t", "20s")
    stopper = harness.supervisor.delivery
    monkeypatch.setattr(stopper, "stop", failing(lambda: None, *[ValueError("odd")] * 1000))
    monkeypatch.setattr(stopper, "stop_agent_at_least", failing(lambda: None, *[MemoryError()] * 1000))
    with pytest.raises(MemoryError):
        harness.receive(TERM)
    for _ in range(3 * MAX_RETRIES):
        if not harness.supervisor.execution.to_do:
            return
        try:
            harness.supervisor.execution.carry_out()
        except MemoryError:
            continue
    raise AssertionError("it holds up what comes after it")


# --- Patience, and what is left to the fallback. ---


def leave_to_fallback(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fallback, "block", lambda _: None)  # the signals of this process
    harness.supervisor.leave_to(Fallback(harness.supervisor.settings))


@pytest.mark.parametrize("what", ["exit", "signal"])
def test_one_failure_is_no_reason_to_give_up_though_something_else_has_failed_for_long(
    world: World, supervise: Supervise, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    harness = supervise("-t", "20s")
    supervisor = harness.supervisor
    world.handled[AGENT] |= {TERM, USR1}
    now = [1000.0]
    monkeypatch.setattr(supervisor.loop, "time", lambda: now[0])
    parts = (*supervisor._parts, failing(lambda: None, *[OSError("odd")] * 1000))
    monkeypatch.setattr(supervisor, "_parts", parts)
    for _ in range(100):
        now[0] += 0.05
        with pytest.raises(OSError, match="odd"):
            supervisor._catch_up()
    name = "_agent_ended" if what == "exit" else "_is_sent_at_once"
    monkeypatch.setattr(supervisor, name, failing(getattr(supervisor, name), MemoryError()))
    if what == "exit":
        world.wait_results.append((AGENT, exited(3)))
        world.no_children = True
    with pytest.raises(MemoryError):
        harness.receive(CHLD if what == "exit" else USR1)
    assert supervisor.loop._running
    now[0] += 0.05
    with contextlib.nullcontext() if what == "exit" else pytest.raises(OSError, match="odd"):  # that is the end
        supervisor._catch_up()
    assert supervisor.execution.exit_code == 3 if what == "exit" else world.sent == [(AGENT, USR1)]


@pytest.mark.parametrize("owed", [True, False])
def test_an_agent_that_is_held_back_is_stopped_by_the_fallback(
    world: World, supervise: Supervise, monkeypatch: pytest.MonkeyPatch, owed: bool
) -> None:
    harness = supervise("-t", "infinity")
    held_back(harness, world)
    if owed:
        harness.supervisor.execution.to_do.append(StopHeldBack(TERM))
    leave_to_fallback(harness, monkeypatch)
    assert world.sent == [(AGENT, TERM), (AGENT, CONT)]


def test_the_fallback_does_not_repeat_what_a_held_back_agent_has_had(
    world: World, supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise("-t", "infinity")
    held_back(harness, world)
    harness.do(StopHeldBack(TERM))
    world.sent.clear()
    leave_to_fallback(harness, monkeypatch)
    assert world.sent == []


def test_the_fallback_sends_the_step_that_is_due_next(
    world: World, supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise("-t", "30s", "--stop-delay", "10s", "-r", "TERM:QUIT")
    harness.receive(TERM)
    assert world.sent == []
    leave_to_fallback(harness, monkeypatch)
    assert world.sent == [(AGENT, QUIT), (AGENT, CONT)]

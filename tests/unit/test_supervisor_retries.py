"""The supervisor in a simulated world: looks that fail come again, and a step that is tried again signals once.

Also: what it takes for granted, and takes back; an agent that has named its main process, and stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from entrypoint.init import planning, tree
from entrypoint.init.actions import ForgetAllSignalled, LookAtWork, LookAtWrapper, NoteAllSignalled, Stop, StopLeftovers
from entrypoint.init.execution import MAX_RETRIES
from entrypoint.init.exit_watch import ExitWatch
from entrypoint.init.lifecycle import CONFIRM_AFTER, WAITING
from tests.support.world import AGENT, CHLD, CONT, INT, KILL, OWN_PID, TERM, Harness, World, exited, failing

if TYPE_CHECKING:
    from collections.abc import Callable

    Supervise = Callable[..., Harness]

WORK = 20


class Clock:
    """Moves a supervisor's time by hand, to whatever is due next."""

    def __init__(self, harness: Harness) -> None:
        self.now, self.harness = 1000.0, harness
        harness.supervisor.loop.time = lambda: self.now

    def run(self, seconds: float) -> None:
        """Let the time pass; each timer goes off when it is due."""
        end, supervisor = self.now + seconds, self.harness.supervisor
        turns = 0
        while supervisor.lifecycle.due <= end:
            self.now = max(self.now, supervisor.lifecycle.due)
            supervisor._catch_up()
            turns += 1
            assert turns < 1000, "it spins"
        self.now = end


@pytest.fixture(autouse=True)
def no_exit_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests report the exits themselves."""
    monkeypatch.setattr(ExitWatch, "start", lambda *_: None)


def to(pid: int, world: World) -> list[int]:
    return [number for to, number in world.sent if to == pid]


def counted(look: Callable[[], object], looks: list[int]) -> Callable[[], object]:
    def counts() -> object:
        looks.append(1)
        return look()

    return counts


# --- Looks. ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failures", [0, 1, 3])
def test_a_look_at_a_wrapper_that_fails_for_want_of_memory_comes_again(
    world: World, supervise: Supervise, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    """Even without a deadline it is signalled when it would stay."""
    harness = supervise("-t", "infinity")
    clock = Clock(harness)
    world.add(WORK, AGENT, "work", TERM)
    harness.receive(TERM)
    assert to(WORK, world) == [TERM, CONT]
    assert to(AGENT, world) == []
    del world.processes[WORK]
    delivery = harness.supervisor.delivery
    delivery.held_back = [world.processes[AGENT]]
    looks: list[int] = []
    answer = failing(lambda: WAITING, *[MemoryError()] * failures)
    monkeypatch.setattr(delivery, "look_at_wrapper", counted(answer, looks))
    harness.supervisor._recipients_exited()
    clock.run(5.0)
    assert to(AGENT, world) == [TERM, CONT]
    assert len(looks) == failures + 1
    clock.run(60.0)
    assert len(looks) == failures + 1
    assert harness.supervisor.lifecycle.state == "stopping"


def test_a_look_at_a_wrapper_that_always_fails_goes_on_without_spinning_and_ends_at_the_deadline(
    world: World, supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise("-t", "20s")
    clock = Clock(harness)
    world.add(WORK, AGENT, "work", TERM)
    harness.receive(TERM)
    monkeypatch.setattr(harness.supervisor.delivery, "look_at_wrapper", failing(lambda: "", *[MemoryError()] * 1000))
    harness.supervisor._recipients_exited()
    clock.run(26.0)  # SIGKILL at 20 s; what does not die of it is given up 5 s later
    assert (AGENT, KILL) in world.sent
    assert harness.supervisor.execution.exit_code == 137


def work_of_a_wrapper(world: World, supervise: Supervise, *flags: str) -> tuple[Harness, Clock]:
    """The agent was a wrapper and has exited by the stop signal; its work goes on."""
    harness = supervise(*flags)
    clock = Clock(harness)
    work = world.add(WORK, AGENT, "work", TERM)
    harness.receive(TERM)
    del world.processes[AGENT]
    work.parent = OWN_PID
    world.wait_results.append((AGENT, exited(0)))
    harness.receive(CHLD)
    assert harness.lines("before the program that it runs")
    return harness, clock


@pytest.mark.parametrize("failures", [0, 1, 3])
def test_a_look_at_work_that_fails_for_want_of_memory_comes_again(
    world: World, supervise: Supervise, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    """Without a deadline the stop has an end all the same: that of the linger time."""
    harness, clock = work_of_a_wrapper(world, supervise, "-t", "infinity", "--linger", "3s")
    looks: list[int] = []
    answer = failing(lambda: False, *[MemoryError()] * failures)
    monkeypatch.setattr(harness.supervisor.delivery, "look_at_work", counted(answer, looks))
    harness.supervisor._recipients_exited()
    clock.run(1.0)
    assert harness.supervisor.lifecycle.state == "lingering"
    assert len(looks) == failures + 1
    clock.run(5.0)
    assert harness.supervisor.execution.exit_code == 0
    assert (WORK, KILL) in world.sent


def test_a_look_at_work_that_always_fails_goes_on_without_spinning_and_ends_at_the_deadline(
    world: World, supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness, clock = work_of_a_wrapper(world, supervise, "-t", "20s")
    monkeypatch.setattr(harness.supervisor.delivery, "look_at_work", failing(lambda: False, *[MemoryError()] * 1000))
    harness.supervisor._recipients_exited()
    clock.run(26.0)
    assert (WORK, KILL) in world.sent
    assert harness.supervisor.execution.exit_code == 137


@pytest.mark.parametrize("action", [LookAtWrapper(), LookAtWork()], ids=repr)
def test_a_look_holds_up_nothing_that_comes_after_it(
    world: World, supervise: Supervise, monkeypatch: pytest.MonkeyPatch, action: LookAtWrapper | LookAtWork
) -> None:
    harness = supervise()
    for name in ("look_at_wrapper", "look_at_work"):
        monkeypatch.setattr(harness.supervisor.delivery, name, failing(lambda: None, *[MemoryError()] * 10))
    harness.do(action, Stop(TERM))
    assert world.sent == [(AGENT, TERM), (AGENT, CONT)]


# --- A step that is tried again. ------------------------------------------------------------------------------------


def do_again(harness: Harness, failures: int) -> None:
    for _ in range(failures - 1):
        with pytest.raises(MemoryError):
            harness.supervisor.execution.carry_out()
    harness.supervisor.execution.carry_out()


def failing_after(real: Callable[..., Any], failures: int) -> Callable[..., Any]:
    """Return `real`, but there is no memory for its result the first times."""
    left = [None] * failures

    def call(*arguments: Any, **more: Any) -> Any:
        result = real(*arguments, **more)
        if left:
            left.pop()
            raise MemoryError
        return result

    return call


@pytest.mark.parametrize("failures", [1, 3, MAX_RETRIES])
@pytest.mark.parametrize("flags", [(), ("-g",), ("--target", "child")], ids=["auto", "group", "child"])
@pytest.mark.parametrize("number", [TERM, INT], ids=["TERM", "INT"])
def test_the_agent_gets_one_signal_however_often_the_step_is_tried(
    world: World,
    supervise: Supervise,
    monkeypatch: pytest.MonkeyPatch,
    flags: tuple[str, ...],
    failures: int,
    number: int,
) -> None:
    harness = supervise(*flags)
    pid = -AGENT if flags == ("-g",) else AGENT
    delivery = harness.supervisor.delivery
    monkeypatch.setattr(delivery, "stop", failing_after(delivery.stop, failures))
    with pytest.raises(MemoryError):
        harness.do(Stop(number))
    do_again(harness, failures)
    assert world.sent == [(pid, number), (pid, CONT)]


def test_the_last_try_sends_nothing_to_an_agent_that_has_had_it(
    world: World, supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try fails after the signal, each later one before it."""
    harness = supervise()
    delivery = harness.supervisor.delivery
    monkeypatch.setattr(delivery, "stop", failing_after(delivery.stop, 1))
    with pytest.raises(MemoryError):
        harness.do(Stop(TERM))
    monkeypatch.setattr(
        delivery, "_stop_recipients", failing(delivery._stop_recipients, *[MemoryError()] * 2 * MAX_RETRIES)
    )
    do_again(harness, MAX_RETRIES)
    assert world.sent == [(AGENT, TERM), (AGENT, CONT)]


def test_the_last_try_sends_nothing_to_an_agent_whose_recipients_have_had_it(
    world: World, supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise()
    world.add(WORK, AGENT, "work", TERM)
    delivery = harness.supervisor.delivery
    monkeypatch.setattr(delivery, "stop", failing_after(delivery.stop, 1))
    with pytest.raises(MemoryError):
        harness.do(Stop(TERM))
    monkeypatch.setattr(
        delivery, "_stop_recipients", failing(delivery._stop_recipients, *[MemoryError()] * 2 * MAX_RETRIES)
    )
    do_again(harness, MAX_RETRIES)
    assert world.sent == [(WORK, TERM), (WORK, CONT)]


def test_the_next_step_is_another_signal(world: World, supervise: Supervise, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = supervise()
    delivery = harness.supervisor.delivery
    monkeypatch.setattr(delivery, "stop", failing_after(delivery.stop, 1))
    with pytest.raises(MemoryError):
        harness.do(Stop(TERM), Stop(TERM))
    do_again(harness, 1)
    assert world.sent == [(AGENT, TERM), (AGENT, CONT)] * 2


def test_who_was_sent_int_is_noted_once(world: World, supervise: Supervise, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = supervise("-t", "20s")
    delivery = harness.supervisor.delivery
    world.handled[AGENT].add(INT)
    monkeypatch.setattr("entrypoint.init.dispositions.prefers_int", lambda _: True)
    harness.supervisor.lifecycle.adapts = True
    send_agent, fails = delivery.send_agent, [MemoryError()] * 2

    def send(number: int) -> None:
        if fails:
            raise fails.pop()
        send_agent(number)

    monkeypatch.setattr(delivery, "send_agent", send)
    with pytest.raises(MemoryError):
        harness.do(Stop(TERM))
    do_again(harness, 2)
    assert [process.pid for process in delivery.interrupted] == [AGENT]
    assert world.sent == [(AGENT, INT), (AGENT, CONT)]
    assert len(harness.lines(f"INT sent to agent ({AGENT}), which does not handle TERM")) == 1


# --- What the platform has signalled. -------------------------------------------------------------------------------


def test_what_was_presumed_to_be_signalled_is_signalled_once_that_is_taken_back(
    world: World, supervise: Supervise
) -> None:
    """But what has had the signal from us does not get it again."""
    harness = supervise()
    delivery = harness.supervisor.delivery
    world.add(WORK, OWN_PID, "work", TERM)
    had_it = world.add(WORK + 1, OWN_PID, "had it", TERM)
    delivery.note_stopped([had_it.identity])
    del world.processes[AGENT]
    harness.do(NoteAllSignalled(TERM), StopLeftovers(TERM))
    assert world.sent == []
    harness.do(ForgetAllSignalled(), StopLeftovers(TERM))
    assert world.sent == [(WORK, TERM), (WORK, CONT)]
    harness.do(ForgetAllSignalled(), StopLeftovers(TERM))
    assert world.sent == [(WORK, TERM), (WORK, CONT)]


def test_without_proc_nothing_is_presumed_or_taken_back(world: World, supervise: Supervise) -> None:
    harness = supervise()
    world.no_proc = True
    harness.do(NoteAllSignalled(TERM), ForgetAllSignalled())
    assert harness.supervisor.delivery._platform_sent == 0
    assert not harness.lines("unexpected")


@pytest.mark.parametrize("works_on", [True, False], ids=["work", "leftover"])
@pytest.mark.parametrize("from_outside", [True, False], ids=["confirmed", "not confirmed"])
def test_an_agent_that_dies_of_a_term_of_its_own_on_heroku(
    world: World, supervise: Supervise, works_on: bool, from_outside: bool
) -> None:
    harness = supervise("-t", "20s", "--linger", "5s")
    clock = Clock(harness)
    supervisor = harness.supervisor
    supervisor.lifecycle.plan = planning.make(supervisor.settings, {"DYNO": "web.1"}, lambda _: False)
    work = world.add(WORK, AGENT, "work", *[TERM] * works_on)
    del world.processes[AGENT]
    work.parent = OWN_PID
    world.wait_results.append((AGENT, TERM))
    harness.receive(CHLD)
    assert harness.lines("stop requested by TERM from Heroku, it seems")
    assert bool(harness.lines("before the program that it runs, which has had TERM")) is works_on
    assert world.sent == []
    if from_outside:
        harness.receive(TERM)
    clock.run(CONFIRM_AFTER + 0.1)
    assert to(WORK, world) == ([] if from_outside else [TERM, CONT])
    clock.run(4.0)
    assert to(WORK, world) == ([] if from_outside else [TERM, CONT])


# --- An agent that has named its main process. ----------------------------------------------------------------------


@pytest.mark.parametrize("parent", [AGENT, OWN_PID], ids=["below", "orphan"])
def test_an_agent_that_stays_when_its_named_main_process_has_exited_is_signalled(
    world: World, supervise: Supervise, parent: int
) -> None:
    """One that is not below the agent is not what it waits for: nobody looks."""
    harness = supervise("-t", "20s")
    clock = Clock(harness)
    harness.supervisor.agent.named = world.add(WORK, parent, "main", TERM)
    harness.receive(TERM)
    assert world.sent == [(WORK, TERM), (WORK, CONT)]
    assert (harness.supervisor.delivery.wrapper is not None) is (parent == AGENT)
    del world.processes[WORK]
    if parent == AGENT:
        harness.supervisor._recipients_exited()
    clock.run(5.0)
    assert to(AGENT, world) == ([TERM, CONT] if parent == AGENT else [])


def test_an_agent_that_names_itself_is_no_wrapper(world: World, supervise: Supervise) -> None:
    harness = supervise()
    harness.supervisor.agent.named = world.processes[AGENT]
    harness.receive(TERM)
    assert world.sent == [(AGENT, TERM), (AGENT, CONT)]
    assert harness.supervisor.delivery.wrapper is None


def test_if_the_processes_cannot_be_listed_the_named_main_process_is_signalled_all_the_same(
    world: World, supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise()
    harness.supervisor.agent.named = world.add(WORK, AGENT, "main", TERM)
    monkeypatch.setattr(tree, "everything", failing(tree.everything, *[OSError()] * 10))
    harness.receive(TERM)
    assert world.sent == [(WORK, TERM), (WORK, CONT)]
    assert harness.supervisor.delivery.wrapper is None

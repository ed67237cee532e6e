"""Which process gets which signal, in a simulated world. Sending to one process is tested in test_delivery_send."""

from __future__ import annotations

import errno
import os
import posix
from typing import TYPE_CHECKING

import pytest

from entrypoint.init import delivery, dispositions, foreground, leftovers, names, procfs, recipients, tree, wrapper
from entrypoint.init.actions import (
    Exit,
    ForgetAllSignalled,
    Forward,
    KillAll,
    LookAtAwaited,
    NoteAllSignalled,
    Stop,
    StopHeldBack,
    StopInterrupted,
    StopLeftovers,
)
from entrypoint.init.execution import KILLS_ONE_BY_ONE, SPARED_SECONDS
from entrypoint.init.lifecycle import RESTARTING, WAITING, WORKING
from entrypoint.init.procfs import Process
from tests.support.world import (
    ABRT,
    AGENT,
    CHLD,
    CONT,
    INT,
    KILL,
    OWN_GROUP,
    OWN_PID,
    TERM,
    USR1,
    World,
    exited,
    failing,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.world import Harness


def pids(processes: list[procfs.Process]) -> list[int]:
    return [process.pid for process in processes]


# --- A step of the stop. --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("agent", "number", "recipient"),
    [
        pytest.param("agent", TERM, AGENT, id="the agent handles it"),
        pytest.param("bash", TERM, AGENT, id="a shell handles it"),
        pytest.param("bash", INT, 20, id="a shell's habit"),
    ],
)
def test_an_agent_that_handles_the_stop_signal_gets_it_even_if_a_child_does_too(
    world: World, supervise: Callable[..., Harness], agent: str, number: int, recipient: int
) -> None:
    harness = supervise()
    world.add(AGENT, OWN_PID, agent, number)
    world.add(20, AGENT, "worker", number)
    harness.do(Stop(number))
    assert world.sent == [(recipient, number), (recipient, CONT)]


def test_the_reason_for_signalling_other_processes_is_logged(world: World, supervise: Callable[..., Harness]) -> None:
    harness = supervise()
    world.add(20, AGENT, "worker", TERM)
    harness.do(Stop(TERM), Stop(ABRT))
    assert harness.lines("sent to") == [
        "agent does not handle TERM; TERM sent to worker (20)",
        "as before; ABRT sent to worker (20)",
    ]


def test_a_stop_looks_at_all_processes_and_a_forwarded_signal_does_not(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quick look may miss one."""
    harness = supervise()
    for pid in (20, 21):
        world.add(pid, AGENT, "worker", TERM, USR1)
    monkeypatch.setattr(procfs, "children", lambda _: [world.processes[20]])
    harness.do(Forward(USR1, "a test", always=False))
    assert world.sent == [(20, USR1)]
    world.sent.clear()
    harness.do(Stop(TERM))
    assert world.sent == [(20, TERM), (20, CONT), (21, TERM), (21, CONT)]


@pytest.mark.parametrize("target", ["child", "group"])
def test_without_target_auto_only_the_agent_is_signalled(
    world: World, supervise: Callable[..., Harness], target: str
) -> None:
    harness = supervise("--target", target)
    world.add(20, AGENT, "worker", TERM)
    harness.supervisor.agent.named = world.add(21, AGENT, "main", TERM)
    harness.supervisor.agent.last_sender = world.processes[20]
    harness.supervisor.lifecycle.hung = "watchdog"
    harness.do(Stop(TERM))
    to = -AGENT if target == "group" else AGENT
    assert world.sent == [(to, TERM), (to, CONT)]


def test_a_later_step_goes_to_the_recipients_of_the_first(world: World, supervise: Callable[..., Harness]) -> None:
    harness = supervise("-q")
    world.add(20, AGENT, "worker", TERM)
    harness.do(Stop(TERM), Stop(ABRT))
    assert world.sent == [(20, TERM), (20, CONT), (20, ABRT), (20, CONT)]
    assert harness.lines("sent to") == []
    del world.processes[20]
    world.sent.clear()
    harness.do(Stop(ABRT))
    assert world.sent == [(AGENT, ABRT), (AGENT, CONT)]


def test_abrt_goes_to_the_sender_of_the_last_sign_of_life(world: World, supervise: Callable[..., Harness]) -> None:
    harness = supervise("--watchdog", "1s")
    worker = world.add(20, AGENT, "worker")
    harness.notify(worker, STATUS="busy")
    assert harness.supervisor.agent.last_sender is None
    harness.notify(worker, WATCHDOG="1")
    assert harness.supervisor.agent.last_sender is worker
    harness.supervisor.lifecycle.hung = "watchdog"
    harness.do(Stop(ABRT))
    assert world.sent == [(20, ABRT), (20, CONT)]
    assert harness.lines("worker sent the last message; ABRT sent to worker (20)")
    harness.supervisor.delivery.previous_recipients = []
    harness.notify(world.processes[AGENT], WATCHDOG="1")
    world.sent.clear()
    harness.do(Stop(ABRT))
    assert world.sent == [(AGENT, ABRT), (AGENT, CONT)]


@pytest.mark.parametrize("hung", [True, False])
def test_abrt_goes_to_the_agent_if_the_sender_is_gone_or_nothing_hangs(
    world: World, supervise: Callable[..., Harness], hung: bool
) -> None:
    harness = supervise()
    harness.notify(world.add(20, AGENT, "worker"), WATCHDOG="1")
    harness.supervisor.lifecycle.hung = "watchdog" if hung else ""
    if hung:
        del world.processes[20]
    harness.do(Stop(ABRT))
    assert world.sent == [(AGENT, ABRT), (AGENT, CONT)]


def test_abrt_goes_to_the_agent_if_no_message_ever_came(world: World, supervise: Callable[..., Harness]) -> None:
    harness = supervise()
    harness.supervisor.lifecycle.hung = "ready-timeout"
    harness.do(Stop(ABRT))
    assert world.sent == [(AGENT, ABRT), (AGENT, CONT)]
    assert not harness.lines("unexpected")


def test_with_a_group_as_target_its_members_have_had_the_stop_signal(
    world: World, supervise: Callable[..., Harness]
) -> None:
    harness = supervise("--target", "group")
    world.add(20, AGENT, "member")
    world.add(21, AGENT, "other", group=21)
    harness.do(Stop(TERM))
    assert world.sent == [(-AGENT, TERM), (-AGENT, CONT)]
    del world.processes[AGENT]
    world.add(20, OWN_PID, "member")
    world.add(21, OWN_PID, "other", group=21)
    world.sent.clear()
    harness.do(StopLeftovers(TERM))
    assert world.sent == [(21, TERM), (21, CONT)]


def test_without_proc_a_group_as_target_is_signalled_and_continued(
    world: World, supervise: Callable[..., Harness]
) -> None:
    world.no_proc = True
    harness = supervise("--target", "group")
    harness.do(Stop(TERM))
    assert world.sent == [(-AGENT, TERM), (-AGENT, CONT)]
    assert not harness.lines("unexpected")


@pytest.mark.parametrize(
    ("agent", "member", "to_agent", "to_member"),
    [
        ((INT,), (TERM,), INT, TERM),
        ((INT,), (INT,), None, None),  # all of them prefer INT
        ((INT,), (), None, None),
        ((TERM,), (INT,), None, None),
        ((INT, TERM), (TERM,), None, None),
    ],
)
def test_with_a_group_as_target_each_member_gets_int_or_term_where_they_differ(
    world: World,
    supervise: Callable[..., Harness],
    agent: tuple[int, ...],
    member: tuple[int, ...],
    to_agent: int | None,
    to_member: int | None,
) -> None:
    harness = supervise("--target", "group", "-t", "20s")
    world.add(AGENT, OWN_PID, "agent", *agent)
    world.add(20, AGENT, "member", *member)
    world.add(21, AGENT, "other", TERM, group=21)
    harness.receive(TERM)
    if to_agent is None:
        to_group = INT if agent == (INT,) else TERM
        assert world.sent == [(-AGENT, to_group), (-AGENT, CONT)]
    else:
        assert world.sent == [(AGENT, to_agent), (AGENT, CONT), (20, to_member), (20, CONT)]
    world.sent.clear()
    harness.do(StopInterrupted(TERM))
    assert world.sent == ([(AGENT, TERM)] if agent == (INT,) else [])
    world.sent.clear()
    for pid in (20, 21):
        world.processes[pid].parent = OWN_PID
    del world.processes[AGENT]
    harness.do(StopLeftovers(TERM))
    assert world.sent == [(21, TERM), (21, CONT)]


@pytest.mark.parametrize("step", [ABRT, INT])
def test_with_a_group_as_target_other_steps_go_to_the_group_at_once(
    world: World, supervise: Callable[..., Harness], step: int
) -> None:
    harness = supervise("--target", "group", "-t", "20s")
    world.add(AGENT, OWN_PID, "agent", INT)
    world.add(20, AGENT, "member", TERM)
    harness.supervisor.delivery.stop(step, adapts=True, hung=False)
    harness.supervisor.delivery.stop(TERM, adapts=False, hung=False)
    assert world.sent == [(-AGENT, step), (-AGENT, CONT), (-AGENT, TERM), (-AGENT, CONT)]


@pytest.mark.parametrize("how", ["shared group", "no agent", "no /proc"])
def test_with_a_group_as_target_its_members_do_not_differ_where_the_agent_has_none_of_its_own_or_is_not_seen(
    world: World, supervise: Callable[..., Harness], how: str
) -> None:
    harness = supervise("--target", "group")
    group = OWN_GROUP if how == "shared group" else AGENT
    world.add(AGENT, OWN_PID, "agent", INT, group=group)
    world.add(20, OWN_PID, "member", TERM, group=group)
    harness.supervisor.agent.group = group
    if how == "no agent":
        del world.processes[AGENT]
    world.no_proc = how == "no /proc"
    harness.supervisor.delivery.stop(TERM, adapts=True, hung=False)
    to, number = (AGENT, INT) if how == "shared group" else (-AGENT, TERM)
    assert world.sent == [(to, number), (to, CONT)]


def test_what_the_agent_left_gets_the_stop_signal_once_where_it_is_not_seen(
    world: World, supervise: Callable[..., Harness]
) -> None:
    """An attempt that fails later, for want of memory, is repeated."""
    harness = supervise()
    world.no_proc = True
    for number in (TERM, TERM, INT):
        harness.supervisor.delivery.stop_leftovers(number)
    assert world.sent == [(-AGENT, TERM), (-AGENT, CONT), (-AGENT, INT), (-AGENT, CONT)]


def test_what_the_agent_left_gets_the_signal_at_the_next_attempt_if_it_was_not_sent(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise()
    world.no_proc = True
    stopper = harness.supervisor.delivery
    monkeypatch.setattr(stopper, "send_group", failing(stopper.send_group, MemoryError()))
    with pytest.raises(MemoryError):
        stopper.stop_leftovers(TERM)
    stopper.stop_leftovers(TERM)
    assert world.sent == [(-AGENT, TERM), (-AGENT, CONT)]


@pytest.mark.parametrize("error", [MemoryError(), SystemError()], ids=repr)
def test_a_process_that_has_got_the_first_of_two_signals_counts_as_reached(error: Exception) -> None:
    """There is no memory for the second; the first must not come again."""
    sent: list[int] = []

    def send_one(number: int) -> None:
        if sent:
            raise error
        sent.append(number)

    assert delivery._send_all(send_one, (TERM, CONT))
    assert sent == [TERM]
    sent.clear()
    with pytest.raises(type(error)):
        delivery._send_all(fail_with(error), (TERM, CONT))


def fail_with(error: Exception) -> Callable[[int], None]:
    def fail(_: int) -> None:
        raise error

    return fail


# --- Processes that are held back. ----------------------------------------------------------------------------------


def test_a_process_between_a_shell_and_the_recipient_is_held_back(
    world: World, supervise: Callable[..., Harness]
) -> None:
    harness = supervise("-t", "20s")
    world.not_wrappers.add(20)
    world.add(20, AGENT, "launcher")
    world.add(21, 20, "worker", TERM)
    harness.do(Stop(TERM), StopHeldBack(TERM))
    assert world.sent == [(21, TERM), (21, CONT), (20, TERM), (20, CONT)]


def test_held_back_processes_count_as_stopped_once_they_were_signalled(
    world: World, supervise: Callable[..., Harness]
) -> None:
    """All but one that could not be reached."""
    harness = supervise("-t", "20s")
    world.not_wrappers |= {20, 22}
    world.add(20, AGENT, "launcher")
    world.add(21, 20, "worker", TERM)
    world.add(22, AGENT, "launcher")
    world.add(23, 22, "worker", TERM)
    world.send_errors[20] = PermissionError(1, "no")
    harness.do(Stop(TERM), StopHeldBack(TERM))
    assert (22, TERM) in world.sent
    world.send_errors.clear()
    world.sent.clear()
    for exited_pid in (21, 22, 23):
        del world.processes[exited_pid]
    harness.do(StopLeftovers(INT))
    assert world.sent == [(AGENT, INT), (AGENT, CONT), (20, INT), (20, CONT)]


def test_a_step_sent_after_all_were_signalled_goes_to_all(world: World, supervise: Callable[..., Harness]) -> None:
    """Also to those that do not handle it."""
    harness = supervise("-t", "20s")
    world.not_wrappers.add(AGENT)
    world.add(20, AGENT, "worker", TERM, ABRT)
    harness.do(Stop(TERM))
    assert world.sent == [(20, TERM), (20, CONT)]
    harness.do(StopHeldBack(TERM))
    assert world.sent[2:] == [(AGENT, TERM), (AGENT, CONT)]
    for number in (ABRT, INT):
        world.sent.clear()
        harness.do(Stop(number))
        assert world.sent == [(20, number), (20, CONT), (AGENT, number), (AGENT, CONT)]


def test_a_step_to_others_does_not_forget_those_held_back(world: World, supervise: Callable[..., Harness]) -> None:
    """Here the agent names its main process meanwhile. The log says that the agent will get the signal."""
    harness = supervise("-t", "20s")
    world.not_wrappers.add(AGENT)
    world.add(20, AGENT, "worker", TERM)
    harness.do(Stop(TERM))
    harness.supervisor.agent.named = world.add(21, AGENT, "main", TERM)
    harness.do(Stop(INT))
    assert world.sent == [(20, TERM), (20, CONT), (21, INT), (21, CONT)]
    world.sent.clear()
    harness.do(StopHeldBack(INT))
    assert world.sent == [(AGENT, INT), (AGENT, CONT)]


# --- Relays, and shells with traps. ---------------------------------------------------------------------------------


@pytest.fixture
def shell(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The agent is a shell with a trap for TERM, and all its children are in its foreground."""
    world.add(AGENT, OWN_PID, "bash", TERM)
    monkeypatch.setattr(foreground, "children", lambda _, among: among)
    return world


def test_shell_gets_the_stop_signal_before_its_foreground(shell: World, supervise: Callable[..., Harness]) -> None:
    harness = supervise()
    shell.add(20, AGENT, "worker", TERM)
    harness.do(Stop(TERM))
    assert shell.sent == [(AGENT, TERM), (AGENT, CONT), (20, TERM), (20, CONT)]
    assert harness.lines("sent to") == [
        f"agent handles TERM, but waits for what runs in its foreground; TERM sent to bash ({AGENT}), worker (20)"
    ]
    shell.sent.clear()
    shell.add(30, OWN_PID, "daemon")
    harness.do(StopLeftovers(TERM))
    assert shell.sent == [(30, TERM), (30, CONT)]


def test_shell_that_runs_its_trap_is_not_signalled_again(
    shell: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise("-t", "20s")
    shell.add(20, AGENT, "worker", TERM)
    harness.do(Stop(TERM))
    seen = WAITING, [shell.processes[AGENT]]
    monkeypatch.setattr(wrapper.Wrapper, "look", lambda _: seen)
    assert harness.supervisor.delivery.look_at_wrapper() == WORKING
    seen = RESTARTING, [shell.processes[20], shell.processes[AGENT]]
    assert harness.supervisor.delivery.look_at_wrapper() == RESTARTING
    assert harness.supervisor.delivery.held_back == [shell.processes[20]]


def test_what_a_shell_sleeps_for_ends_after_the_shell_got_its_signal(
    shell: World, supervise: Callable[..., Harness]
) -> None:
    harness = supervise()
    shell.add(20, AGENT, "sleep")
    harness.do(Stop(TERM))
    assert shell.sent == [(AGENT, TERM), (AGENT, CONT), (20, TERM), (20, CONT)]
    assert not harness.lines("sent to")


def test_the_line_before_the_kill_names_who_gets_the_signal_then(
    shell: World, supervise: Callable[..., Harness]
) -> None:
    harness = supervise("-t", "20s")
    shell.add(20, AGENT, "job")
    harness.receive(TERM)
    harness.do(StopInterrupted(TERM))
    assert harness.lines("before the KILL") == ["TERM sent to job (20) before the KILL, as it has not exited"]
    harness.do(StopInterrupted(TERM))
    assert len(harness.lines("before the KILL")) == 1, "nobody is left who needs it"


def test_what_a_shell_waits_for_before_its_trap_gets_the_signal_before_the_kill(
    shell: World, supervise: Callable[..., Harness]
) -> None:
    harness = supervise("-t", "20s")
    shell.add(20, AGENT, "job")
    harness.receive(TERM)
    harness.do(Stop(TERM))
    assert (20, TERM) not in shell.sent
    assert harness.supervisor.lifecycle._timers["last_term"]
    shell.sent.clear()
    harness.do(StopInterrupted(TERM))
    assert shell.sent == [(20, TERM)]
    harness.do(StopLeftovers(TERM))
    harness.do(Stop(TERM))
    harness.do(StopInterrupted(TERM))
    assert [pid for pid, number in shell.sent if number == TERM] == [20, AGENT]


def test_what_a_shell_waits_for_before_its_trap_gets_the_signal_once_it_handles_it(
    shell: World, supervise: Callable[..., Harness]
) -> None:
    harness = supervise("-t", "20s")
    for pid in (20, 21):
        shell.add(pid, AGENT, "job")
    harness.receive(TERM)
    shell.sent.clear()
    harness.do(LookAtAwaited(TERM))
    assert shell.sent == []
    shell.handled[20].add(TERM)
    for _ in range(2):
        harness.do(LookAtAwaited(TERM))
    assert shell.sent == [(20, TERM), (20, CONT)]
    assert harness.lines("by now") == ["TERM sent to job (20), which handles it by now"]
    assert harness.supervisor.lifecycle._timers["awaited"]
    del shell.processes[21]
    harness.do(LookAtAwaited(TERM))
    assert "awaited" not in harness.supervisor.lifecycle._timers
    harness.do(StopInterrupted(TERM), StopLeftovers(TERM))
    assert shell.sent == [(20, TERM), (20, CONT)]


def test_what_a_foreground_program_has_started_gets_the_signal_once_it_handles_it(
    shell: World, supervise: Callable[..., Harness]
) -> None:
    """Behind another shell with a trap, which gets it first; the program itself may start another."""
    harness = supervise("-t", "20s")
    shell.add(20, AGENT, "job")
    harness.receive(TERM)
    shell.sent.clear()
    shell.add(21, 20, "bash", TERM)
    shell.add(22, 21, "worker", TERM)
    for _ in range(2):
        harness.do(LookAtAwaited(TERM))
    assert shell.sent == [(21, TERM), (21, CONT), (22, TERM), (22, CONT)]
    assert harness.supervisor.lifecycle._timers["awaited"]
    harness.do(StopInterrupted(TERM))
    assert shell.sent[4:] == [(20, TERM)]


@pytest.mark.parametrize("why", ["it is starting", "another process", "no /proc"])
def test_nothing_is_sent_where_it_is_not_known_whether_the_signal_is_handled_by_now(
    shell: World, supervise: Callable[..., Harness], why: str
) -> None:
    """One that is starting may still have the handlers of its parent."""
    harness = supervise("-t", "20s")
    shell.add(20, AGENT, "job")
    harness.receive(TERM)
    shell.sent.clear()
    shell.handled[20].add(TERM)
    start = 21 if why == "another process" else 20
    shell.processes[20] = Process(20, "job", AGENT, AGENT, start, waits=why != "it is starting")
    shell.no_proc = why == "no /proc"
    harness.do(LookAtAwaited(TERM))
    assert shell.sent == []


def test_what_exits_before_it_gets_the_late_signal_has_not_had_it(
    shell: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise("-t", "20s")
    job = shell.add(20, AGENT, "job")
    harness.receive(TERM)
    shell.handled[20].add(TERM)
    monkeypatch.setattr(delivery, "send", lambda *_: False)
    harness.do(LookAtAwaited(TERM))
    assert job.identity not in harness.supervisor.delivery._stopped
    assert not harness.lines("by now")


def test_what_a_trap_waited_for_and_has_exited_gets_nothing(
    shell: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise("-t", "20s")
    shell.add(20, AGENT, "job")
    harness.receive(TERM)
    harness.do(Stop(TERM))
    job = shell.processes.pop(20)
    monkeypatch.setattr(delivery, "send", lambda *_: False)
    harness.do(StopInterrupted(TERM))
    assert job.identity not in harness.supervisor.delivery._stopped


def test_what_a_shell_with_a_trap_for_exit_alone_waits_for_is_not_awaited(
    shell: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreground, "has_trap", lambda *_: False)
    shell.add(20, AGENT, "job")
    harness = supervise("-t", "20s")
    harness.receive(TERM)
    harness.do(Stop(TERM))
    assert not harness.supervisor.delivery.awaited


def test_forwarded_signal_is_for_the_shell_and_its_foreground(shell: World, supervise: Callable[..., Harness]) -> None:
    harness = supervise()
    shell.handled[AGENT].add(USR1)
    shell.add(20, AGENT, "worker", USR1)
    harness.receive(USR1)
    assert shell.sent == [(AGENT, USR1), (20, USR1)]


def test_relay_gets_the_stop_signal_where_the_program_behind_it_may_not_be_signalled(
    world: World, supervise: Callable[..., Harness]
) -> None:
    harness = supervise()
    world.add(AGENT, OWN_PID, "su", TERM)
    world.add(20, AGENT, "worker", TERM)
    world.send_errors[20] = PermissionError(1, "Operation not permitted")
    harness.do(Stop(TERM))
    assert world.sent == [(AGENT, TERM), (AGENT, CONT)]
    assert harness.lines("cannot send TERM to worker (pid 20): Operation not permitted")
    assert harness.lines("agent is a wrapper; TERM sent to su")


def test_shell_that_had_the_signal_is_no_guardian(shell: World, supervise: Callable[..., Harness]) -> None:
    harness = supervise()
    shell.add(20, AGENT, "worker", TERM)
    shell.send_errors[20] = PermissionError(1, "Operation not permitted")
    harness.do(Stop(TERM))
    assert shell.sent == [(AGENT, TERM), (AGENT, CONT)]


def test_nobody_takes_the_place_of_a_process_that_has_exited(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise()
    world.add(AGENT, OWN_PID, "su", TERM)
    for pid in (20, 21):
        world.add(pid, AGENT, "worker", TERM)
    real = world.send

    def send(process: procfs.Process, *numbers: int) -> bool:
        if process.pid == 20:
            world.processes[20].alive = False
            return False
        return real(process, *numbers)

    monkeypatch.setattr(delivery, "send", send)
    harness.do(Stop(TERM))
    assert world.sent == [(21, TERM), (21, CONT)]


def test_a_process_that_may_not_be_signalled_has_no_guardian_below_a_plain_wrapper(
    world: World, supervise: Callable[..., Harness]
) -> None:
    harness = supervise()
    for pid in (20, 21):
        world.add(pid, AGENT, "worker", TERM)
    world.send_errors[20] = PermissionError(1, "Operation not permitted")
    harness.do(Stop(TERM))
    assert world.sent == [(21, TERM), (21, CONT)]


def test_a_step_that_is_tried_again_reaches_each_process_once(
    shell: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness, step = supervise(), object()
    shell.add(20, AGENT, "worker", TERM)
    monkeypatch.setattr(delivery, "send", failing(shell.send, *[]))
    supervisor = harness.supervisor
    supervisor.delivery.stop(TERM, adapts=False, hung=False, step=step)
    supervisor.delivery.stop(TERM, adapts=False, hung=False, step=step)
    assert shell.sent == [(AGENT, TERM), (AGENT, CONT), (20, TERM), (20, CONT)]


def test_agent_that_ignores_the_signal_is_looked_through_if_it_traces_a_child(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise()
    world.add(20, AGENT, "worker", TERM)
    monkeypatch.setattr(harness.supervisor.agent.dispositions, "handles_or_ignores", lambda _: True)
    harness.do(Stop(TERM))
    assert world.sent == [(AGENT, TERM), (AGENT, CONT)]
    world.sent.clear()
    monkeypatch.setattr(procfs, "tracer_of", lambda _: AGENT)
    harness.do(Stop(TERM))
    assert world.sent == [(20, TERM), (20, CONT)]


def test_launcher_that_handles_the_stop_signal_from_its_start_is_looked_through_for_a_stop(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise()
    world.add(20, AGENT, "worker", TERM)
    monkeypatch.setattr(harness.supervisor.agent.dispositions, "handles_or_ignores", lambda _: True)
    monkeypatch.setattr(recipients, "is_in_runtime", lambda process: process.pid == AGENT)
    monkeypatch.setattr(recipients, "only_reads_output", lambda _, children: [child.pid for child in children] == [20])
    monkeypatch.setattr(procfs, "child_pids", lambda _: [20])
    assert harness.supervisor.delivery.resolve(TERM, to_stop=False).processes == []
    harness.do(Stop(TERM))
    assert world.sent == [(20, TERM), (20, CONT)]


@pytest.mark.parametrize(("in_runtime", "looks"), [(False, 0), (True, 1)])
def test_the_children_of_an_agent_that_handles_the_stop_signal_are_not_looked_at_one_by_one(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch, in_runtime: bool, looks: int
) -> None:
    """It may have thousands, and the stop signal waits for the look."""
    harness = supervise()
    listed: list[int] = []
    monkeypatch.setattr(harness.supervisor.agent.dispositions, "handles_or_ignores", lambda _: True)
    monkeypatch.setattr(harness.supervisor.agent.dispositions, "handles", lambda _: True)
    monkeypatch.setattr(recipients, "is_in_runtime", lambda _: in_runtime)
    monkeypatch.setattr(procfs, "child_pids", lambda pid: listed.append(pid) or list(range(20, 5020)))  # type: ignore[func-returns-value]
    monkeypatch.setattr(procfs, "children", failing)
    assert harness.supervisor.delivery.resolve(TERM, to_stop=True).processes == []
    assert len(listed) == looks


def test_whether_the_agent_may_be_looked_through_is_looked_at_once_for_each_program(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise()
    looks: list[int] = []
    image = [(b"7 (uv", b"1")]

    def first(process: procfs.Process) -> bool:
        looks.append(process.pid)
        return len(looks) < 2

    monkeypatch.setattr(names, "may_be_looked_through", first)
    monkeypatch.setattr(harness.supervisor.agent.dispositions, "image", lambda: image[0])
    asked = harness.supervisor.delivery.may_be_looked_through
    assert [asked(), asked(), asked()] == [True, True, True]
    image[0] = (b"7 (agent", b"1")
    assert [asked(), asked()] == [False, False]
    assert looks == [AGENT, AGENT]
    image[0] = None  # type: ignore[call-overload]
    del world.processes[AGENT]
    assert [asked(), asked()] == [False, False]


def test_signal_that_a_relay_handles_is_not_sent_at_once(world: World, supervise: Callable[..., Harness]) -> None:
    harness = supervise()
    world.add(AGENT, OWN_PID, "uv", USR1)
    world.add(20, AGENT, "worker")
    harness.receive(USR1)
    assert world.sent == []
    assert harness.lines("USR1 from outside the container dropped: no process handles it")
    world.handled[20].add(USR1)
    harness.receive(USR1)
    assert world.sent == [(20, USR1)]


def test_with_target_child_a_relay_is_any_agent(world: World, supervise: Callable[..., Harness]) -> None:
    harness = supervise("--target", "child")
    world.add(AGENT, OWN_PID, "uv", USR1)
    harness.receive(USR1)
    assert world.sent == [(AGENT, USR1)]


@pytest.mark.parametrize("trouble", ["", "no proc", "our group"])
def test_with_target_group_a_signal_goes_to_the_members_that_handle_it(
    world: World, supervise: Callable[..., Harness], trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise("--target", "group")
    world.add(20, AGENT, "member", USR1)
    world.add(21, AGENT, "member")
    world.add(22, AGENT, "stranger", USR1, group=22)
    if trouble == "our group":
        harness.supervisor.agent.group = OWN_GROUP
        world.add(20, AGENT, "member", USR1, group=OWN_GROUP)
    if trouble == "no proc":
        monkeypatch.setattr(tree.Descendants, "all", failing(list, FileNotFoundError(2, "gone")))
    harness.receive(USR1)
    assert world.sent == ([(20, USR1)] if not trouble else [])


# --- Who was left to others. ----------------------------------------------------------------------------------------


def test_processes_below_one_that_handles_the_stop_signal_are_left_to_it(
    world: World, supervise: Callable[..., Harness]
) -> None:
    harness = supervise()
    world.add(AGENT, OWN_PID, "supervisor", TERM)
    world.add(20, AGENT, "worker", TERM)
    world.add(21, AGENT, "other")
    world.add(22, 21, "below", TERM)
    world.add(23, OWN_PID, "daemon", TERM)
    harness.do(Stop(TERM))
    caught, left = harness.supervisor.delivery.left_to_others(TERM)
    assert [process.pid for process in caught] == [AGENT]
    assert [process.pid for process in left] == [20, 22]
    assert harness.supervisor.delivery.left_to_others(TERM) == ([], []), "once"


def test_those_below_a_process_that_has_no_handler_are_left_to_nobody(
    world: World, supervise: Callable[..., Harness]
) -> None:
    harness = supervise()
    world.add(20, AGENT, "worker")
    harness.do(Stop(TERM))
    world.handled[20].add(TERM)
    assert harness.supervisor.delivery.left_to_others(TERM) == ([], [])


def test_behind_a_shell_all_processes_are_named(shell: World, supervise: Callable[..., Harness]) -> None:
    harness = supervise()
    shell.add(20, AGENT, "rsync")
    harness.do(Stop(TERM))
    caught, left = harness.supervisor.delivery.left_to_others(TERM)
    assert ([process.pid for process in caught], [process.pid for process in left]) == ([AGENT], [20])


def test_not_more_are_named_than_a_line_holds(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise()
    world.add(AGENT, OWN_PID, "supervisor", TERM)
    for pid in range(20, 60):
        world.add(pid, AGENT, "worker", TERM)
    harness.do(Stop(TERM))
    assert len(harness.supervisor.delivery.left_to_others(TERM)[1]) == delivery.MAX_NAMED
    another = supervise()
    another.do(Stop(TERM))
    monkeypatch.setattr(tree.Descendants, "listable", lambda _: None)
    assert another.supervisor.delivery.left_to_others(TERM) == ([], [])


def test_a_climb_in_a_circle_ends(world: World, supervise: Callable[..., Harness]) -> None:
    harness = supervise()
    seen = {20: world.add(20, 21, "a", TERM), 21: world.add(21, 20, "b", TERM)}
    assert harness.supervisor.delivery._signalled_above(seen[20], seen) is None


def test_program_that_ends_what_it_runs_is_named(world: World, supervise: Callable[..., Harness]) -> None:
    harness = supervise()
    world.add(AGENT, OWN_PID, "gdb", TERM)
    harness.do(Stop(TERM))
    assert harness.lines(f"gdb ({AGENT}): known to end its program by itself")


# --- Forwarded signals. ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("handles", "sent"), [(True, [(20, USR1)]), (False, [])])
def test_a_signal_is_forwarded_to_the_named_main_process_if_it_handles_it(
    world: World, supervise: Callable[..., Harness], handles: bool, sent: list[tuple[int, int]]
) -> None:
    harness = supervise()
    world.handled[AGENT].add(USR1)
    harness.supervisor.agent.named = world.add(20, AGENT, "main", *([USR1] if handles else []))
    harness.receive(USR1, USR1)
    assert world.sent == sent * 2
    assert bool(harness.lines("USR1 from outside the container dropped")) is not handles


def test_a_named_main_process_that_has_exited_gets_nothing(world: World, supervise: Callable[..., Harness]) -> None:
    harness = supervise()
    world.handled[AGENT].add(USR1)
    harness.supervisor.agent.named = world.add(20, AGENT, "main", USR1)
    world.processes[20].alive = False
    harness.receive(USR1)
    assert world.sent == [(AGENT, USR1)]


def test_a_signal_that_a_shell_ignores_by_habit_is_not_handled(world: World, supervise: Callable[..., Harness]) -> None:
    harness = supervise("--stop-on", "TERM")
    world.add(AGENT, OWN_PID, "bash")
    harness.receive(INT)
    assert world.sent == []
    assert harness.lines("INT from outside the container dropped: no process handles it")
    world.handled[AGENT].add(INT)
    harness.receive(INT)
    assert world.sent == [(AGENT, INT)]


def test_without_proc_every_signal_is_forwarded(world: World, supervise: Callable[..., Harness]) -> None:
    world.no_proc = True
    harness = supervise("-v")
    harness.receive(USR1)
    assert world.sent == [(AGENT, USR1)]


# --- Leftovers, and the end. ----------------------------------------------------------------------------------------


def test_without_proc_the_agent_and_its_group_are_signalled(world: World, supervise: Callable[..., Harness]) -> None:
    world.no_proc = True
    harness = supervise("-t", "1s")
    harness.do(Stop(TERM), StopLeftovers(TERM), KillAll())
    assert world.sent == [
        (AGENT, TERM),
        (AGENT, CONT),
        (-AGENT, TERM),
        (-AGENT, CONT),
        (AGENT, KILL),
        (-AGENT, KILL),
    ]


def test_whole_groups_are_killed_unless_other_processes_are_in_them(
    world: World, supervise: Callable[..., Harness]
) -> None:
    harness = supervise()
    world.add(20, AGENT, group=20)
    world.add(21, 20, group=20)
    world.add(30, AGENT, group=30)
    world.add(31, 1, "stranger", group=30)
    world.add(40, AGENT, group=OWN_GROUP)
    harness.do(KillAll())
    alone = [(pid, KILL) for pid in (AGENT, AGENT, 20, 21, 30, 40)]
    assert sorted(world.sent) == sorted([(-AGENT, KILL), (-20, KILL), *alone])


def test_a_reaped_agent_is_not_killed_again(world: World, supervise: Callable[..., Harness]) -> None:
    harness = supervise()
    del world.processes[AGENT]
    harness.supervisor.agent.status = exited(0)
    world.add(20, OWN_PID, group=20)
    harness.do(KillAll())
    assert world.sent == [(-20, KILL), (20, KILL)]


def test_process_1_kills_everything_in_one_call(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise()
    monkeypatch.setattr(posix, "getpid", lambda: 1)
    harness.do(KillAll())
    assert world.sent == [(-1, KILL)]


def test_process_1_spares_whoever_waits_for_the_end_for_a_while(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise()
    monkeypatch.setattr(posix, "getpid", lambda: 1)
    world.processes[AGENT].parent = 1
    world.add(30, 0, "a client")
    harness.supervisor.execution.is_awaited = lambda: True
    for _ in range(KILLS_ONE_BY_ONE):
        harness.do(KillAll())
    assert {pid for pid, _ in world.sent} == {AGENT}
    harness.do(KillAll())
    assert world.sent[-1] == (-1, KILL)


@pytest.mark.parametrize("why", ["time is up", "no memory", "nobody waits"])
def test_process_1_spares_nobody_for_long(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    harness = supervise()
    monkeypatch.setattr(posix, "getpid", lambda: 1)
    execution, now = harness.supervisor.execution, [1000.0]
    execution.is_awaited = failing(lambda: why != "nobody waits", *[MemoryError()] * (why == "no memory"))
    monkeypatch.setattr(harness.supervisor.loop, "time", lambda: now[0])
    if why == "time is up":
        harness.do(KillAll())
        assert (-1, KILL) not in world.sent
        now[0] += 2 * SPARED_SECONDS
    harness.do(KillAll())
    assert world.sent[-1] == (-1, KILL)


@pytest.mark.parametrize("target", ["child", "group"])
def test_an_agent_in_our_own_group_is_signalled_alone(
    world: World, supervise: Callable[..., Harness], target: str
) -> None:
    world.no_proc = target == "child"
    world.processes[AGENT].group = OWN_GROUP
    harness = supervise("--target", target)
    harness.supervisor.agent.group = OWN_GROUP
    harness.do(Stop(TERM), StopLeftovers(TERM), KillAll())
    assert {pid for pid, _ in world.sent} == {AGENT}


def test_a_kill_without_memory_to_look_for_processes_reaches_the_group(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise()
    monkeypatch.setattr(tree, "everything", failing(tree.everything, MemoryError()))
    harness.do(KillAll())
    assert world.sent == [(AGENT, KILL), (-AGENT, KILL)]


# --- Where kill(2) is refused, as by a seccomp profile. -------------------------------------------------------------


@pytest.fixture
def refuse_kill(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, int]]]:
    """kill(2) is refused for all, and the agent has a pidfd. The value: what was sent by pidfds."""
    sent: list[tuple[int, int]] = []
    refused = PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    world.send_errors = dict.fromkeys((-1, AGENT, -AGENT), refused)
    fd = os.open("/", os.O_RDONLY)
    world.pidfds[AGENT] = fd
    monkeypatch.setattr("_signal.pidfd_send_signal", lambda _, number: sent.append((AGENT, number)))
    yield sent
    os.close(fd)


def test_the_agent_is_signalled_by_a_pidfd(
    supervise: Callable[..., Harness], refuse_kill: list[tuple[int, int]]
) -> None:
    harness = supervise("-q")
    opened = len(os.listdir("/proc/self/fd"))
    harness.do(Stop(TERM))
    assert refuse_kill == [(AGENT, TERM), (AGENT, CONT)]
    assert harness.lines() == []
    assert len(os.listdir("/proc/self/fd")) == opened


def test_process_1_kills_one_by_one(
    world: World,
    supervise: Callable[..., Harness],
    refuse_kill: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`send` has its own way round. That there is no call that reaches all is logged once."""
    harness = supervise("-q")
    monkeypatch.setattr(posix, "getpid", lambda: 1)
    for process in world.processes.values():
        process.parent = 1
    world.add(20, 1, group=20)
    for _ in range(3):
        harness.do(KillAll())
    assert refuse_kill == [(AGENT, KILL)] * 3
    assert world.sent.count((20, KILL)) == 3
    once = "warning: cannot send KILL to pid {}: Operation not permitted"
    assert [line for line in harness.lines() if "pid -1:" in line] == [once.format(-1)]


def test_a_signal_that_a_pidfd_cannot_send_either_is_logged(
    supervise: Callable[..., Harness], refuse_kill: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    harness = supervise("-q")
    opened = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr("_signal.pidfd_send_signal", refuse)
    harness.do(Stop(TERM))
    assert len(harness.lines("cannot send TERM to pid")) == 1
    assert len(os.listdir("/proc/self/fd")) == opened


# --- Failures. ------------------------------------------------------------------------------------------------------


def test_a_failing_look_leaves_the_signal_to_the_agent(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise()
    world.add(20, AGENT, "worker", TERM)
    monkeypatch.setattr(recipients, "resolve", failing(recipients.resolve, OSError("no /proc")))
    harness.do(Stop(TERM))
    assert world.sent == [(AGENT, TERM), (AGENT, CONT)]


def test_nothing_is_sent_to_a_reaped_agent(world: World, supervise: Callable[..., Harness]) -> None:
    harness = supervise()
    harness.supervisor.agent.status = exited(0)
    harness.do(Stop(TERM), Forward(USR1, "a test", always=True))
    assert world.sent == []


@pytest.mark.parametrize(
    ("error", "lines"), [(ProcessLookupError(), []), (PermissionError(1, "no"), [f"to pid {AGENT}: no"] * 2)]
)
def test_a_signal_that_cannot_be_sent_is_logged_unless_the_process_has_exited(
    world: World, supervise: Callable[..., Harness], error: OSError, lines: list[str]
) -> None:
    harness = supervise()
    world.send_errors[AGENT] = error
    harness.do(Stop(TERM), Exit(3))
    assert [line.partition(" ")[2].split(" ", 3)[3] for line in harness.lines("cannot send")] == lines
    assert harness.supervisor.execution.exit_code == 3


def test_a_recipient_that_cannot_be_signalled_leaves_the_signal_to_the_agent(
    world: World, supervise: Callable[..., Harness]
) -> None:
    harness = supervise()
    world.add(20, AGENT, "worker", TERM)
    world.send_errors[20] = PermissionError(1, "Operation not permitted")
    harness.do(Stop(TERM))
    assert harness.lines("cannot send") == ["warning: cannot send TERM to worker (pid 20): Operation not permitted"]
    assert world.sent == [(AGENT, TERM), (AGENT, CONT)]


@pytest.mark.parametrize("reached", ["a shell", "the agent", "a recipient", "nobody"])
def test_a_step_that_fails_half_way_is_not_sent_to_the_agent_again(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch, reached: str
) -> None:
    harness = supervise()
    handles = {"a shell": (TERM, TERM), "the agent": (TERM, 0), "a recipient": (0, TERM), "nobody": (TERM, TERM)}
    of_agent, of_worker = handles[reached]
    world.add(AGENT, OWN_PID, "agent" if reached == "the agent" else "bash", of_agent)
    world.add(20, AGENT, "worker", of_worker)
    monkeypatch.setattr(foreground, "children", lambda _, among: among)
    real, odd = harness.supervisor.delivery.send, ValueError("odd")
    fails_for = {"a shell": (20, TERM), "nobody": (AGENT, TERM)}.get(reached)

    def send(process: procfs.Process, *numbers: int) -> bool:
        if (process.pid, numbers[0]) == fails_for:
            raise odd
        return real(process, *numbers)

    def send_agent(number: int) -> None:
        world.kill(AGENT, number)
        if number == CONT:
            raise odd

    monkeypatch.setattr(harness.supervisor.delivery, "send", send)
    if reached == "the agent":
        monkeypatch.setattr(harness.supervisor.delivery, "send_agent", send_agent)
    if reached == "a recipient":
        monkeypatch.setattr(harness.supervisor.delivery, "_stopped", None)
    step = Stop(TERM)
    harness.do(step)
    assert len(harness.lines("unexpected")) == 1
    expected = {
        "a shell": [(AGENT, TERM), (AGENT, CONT)],
        "the agent": [(AGENT, TERM), (AGENT, CONT)],
        "a recipient": [(20, TERM), (20, CONT)],
        "nobody": [(AGENT, TERM), (AGENT, CONT)],
    }
    assert world.sent == expected[reached]
    assert harness.supervisor.delivery.has_reached(step)


# --- What the platform has signalled. -------------------------------------------------------------------------------


def test_what_the_platform_has_not_signalled_after_all_is_signalled(
    world: World, supervise: Callable[..., Harness]
) -> None:
    harness = supervise()
    world.add(20, AGENT, "had it", TERM)
    world.add(21, AGENT, "has not", TERM)
    harness.supervisor.delivery.note_stopped([world.processes[20].identity])
    harness.do(NoteAllSignalled(TERM))
    del world.processes[AGENT]
    for pid in (20, 21):
        world.processes[pid].parent = OWN_PID
    harness.do(StopLeftovers(TERM))
    assert world.sent == []
    harness.do(ForgetAllSignalled(), StopLeftovers(TERM))
    assert world.sent == [(21, TERM), (21, CONT)]


def test_without_proc_it_is_not_known_whom_the_platform_has_signalled(
    world: World, supervise: Callable[..., Harness]
) -> None:
    harness = supervise()
    world.no_proc = True
    harness.do(NoteAllSignalled(TERM), ForgetAllSignalled())
    world.no_proc = False
    del world.processes[AGENT]
    world.add(20, OWN_PID, "left")
    harness.do(StopLeftovers(TERM))
    assert world.sent == [(20, TERM), (20, CONT)]


@pytest.mark.parametrize(
    ("name", "status", "left"),
    [("agent", TERM, [20]), ("agent", exited(143), [20]), ("agent", exited(0), []), ("bash", exited(0), [20])],
)
def test_below_an_agent_that_the_platform_has_signalled_what_handles_the_signal_is_work(
    world: World, supervise: Callable[..., Harness], name: str, status: int, left: list[int]
) -> None:
    harness = supervise()
    world.add(20, AGENT, "work", TERM)
    world.add(21, AGENT, "sleep")
    harness.do(NoteAllSignalled(TERM))
    harness.supervisor.agent.name = name
    gone(world, harness, status)
    assert harness.supervisor.delivery.agent_left() == bool(left)
    assert [process.pid for process in harness.supervisor.delivery.departures.work] == left


def test_the_exit_of_an_agent_that_the_platform_has_not_signalled_after_all_shows_no_work(
    world: World, supervise: Callable[..., Harness]
) -> None:
    harness = supervise()
    world.add(20, AGENT, "work", TERM)
    harness.do(NoteAllSignalled(TERM), ForgetAllSignalled())
    gone(world, harness, TERM)
    assert not harness.supervisor.delivery.agent_left()


# --- An agent that exits before its work. ---------------------------------------------------------------------------


def gone(world: World, harness: Harness, status: int) -> None:
    """The agent has exited, and what is below it has been adopted."""
    del world.processes[AGENT]
    harness.supervisor.agent.status = status
    for pid, process in world.processes.items():
        if process.parent == AGENT:  # a process that was seen before keeps its parent
            world.processes[pid] = Process(pid, process.name, OWN_PID, process.group, process.start)


def test_work_below_an_agent_that_died_of_the_signal_gets_it(world: World, supervise: Callable[..., Harness]) -> None:
    harness = supervise()
    world.add(AGENT, OWN_PID, "agent", TERM)
    world.add(20, AGENT, "work", TERM)
    harness.do(Stop(TERM))
    delivery = harness.supervisor.delivery
    assert not delivery.agent_left(), "it is still there"
    gone(world, harness, TERM)
    assert delivery.agent_left()
    assert pids(delivery.previous_recipients) == [20]
    assert delivery.presumed == []
    assert delivery.was_wrapper
    assert delivery.work_had_it is False
    world.sent.clear()
    harness.do(StopLeftovers(TERM))
    assert world.sent == [(20, TERM), (20, CONT)]
    del world.processes[20]
    assert not delivery.look_at_work()


@pytest.mark.parametrize(
    ("status", "adapts", "works_on"),
    [
        pytest.param(TERM, False, True, id="it died of the signal"),
        pytest.param(exited(128 + TERM), False, True, id="it exited with the code of that"),
        pytest.param(INT, True, True, id="it died of INT"),
        pytest.param(TERM, True, False, id="it died of another than it got"),
        pytest.param(exited(0), False, False, id="it ended by itself"),
    ],
)
def test_what_got_the_signal_before_an_agent_that_died_of_it_is_work(
    world: World,
    supervise: Callable[..., Harness],
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    adapts: bool,
    works_on: bool,
) -> None:
    """The agent was held back: nothing showed whether it is a launcher that polls or has a database beside it."""
    harness = supervise("-t", "20s")
    world.not_wrappers.add(AGENT)
    world.add(20, AGENT, "work", TERM)
    harness.do(Stop(TERM))
    delivery = harness.supervisor.delivery
    delivery._adapts = adapts
    monkeypatch.setattr(dispositions, "prefers_int", lambda process: adapts and process.pid == AGENT)
    harness.do(StopHeldBack(TERM))
    assert world.sent == [(20, TERM), (20, CONT), (AGENT, INT if adapts else TERM), (AGENT, CONT)]
    gone(world, harness, status)
    assert delivery.agent_left() is works_on
    assert not delivery.was_wrapper
    assert pids(delivery.departures.work) == [20] * works_on
    assert delivery.work_had_it


def test_work_that_a_shell_may_have_signalled_gets_the_signal_before_the_kill_only(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreground, "children", lambda *_: [])
    harness = supervise()
    world.add(AGENT, OWN_PID, "bash", TERM)
    world.add(20, AGENT, "work", TERM)
    delivery = harness.supervisor.delivery
    harness.do(Stop(TERM))
    assert world.sent == [(AGENT, TERM), (AGENT, CONT)]
    gone(world, harness, exited(3))
    assert delivery.agent_left()
    assert pids(delivery.presumed) == pids(delivery.newly_presumed) == [20]
    assert delivery.work_had_it is None
    world.sent.clear()
    harness.do(StopLeftovers(TERM))
    assert world.sent == []
    harness.do(StopInterrupted(TERM))
    assert world.sent == [(20, TERM)]


def test_an_agent_that_was_held_back_may_not_be_a_wrapper(world: World, supervise: Callable[..., Harness]) -> None:
    harness = supervise("-t", "20s")
    world.not_wrappers.add(AGENT)
    world.add(20, AGENT, "worker", TERM)
    harness.do(Stop(TERM))
    gone(world, harness, exited(0))
    assert not harness.supervisor.delivery.agent_left()


@pytest.mark.parametrize("died", [True, False])
def test_recipients_go_on_after_the_wrapper_that_was_looked_through(
    world: World, supervise: Callable[..., Harness], died: bool
) -> None:
    harness = supervise("-t", "20s")
    for pid in (20, 21):
        world.add(pid, AGENT, "worker", TERM)
    world.add(22, 20, "work of it", TERM)
    harness.do(Stop(TERM))
    gone(world, harness, exited(143 if died else 3))
    del world.processes[20]
    assert harness.supervisor.delivery.agent_left()
    assert pids(harness.supervisor.delivery.departures.work) == ([21, 22] if died else [21])


def test_where_what_is_below_cannot_be_looked_at_the_signal_is_sent(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise()
    world.add(AGENT, OWN_PID, "agent", TERM)
    monkeypatch.setattr(leftovers.Departures, "note", failing(leftovers.Departures.note, KeyError()))
    harness.do(Stop(TERM))
    assert world.sent == [(AGENT, TERM), (AGENT, CONT)]
    assert not harness.lines("unexpected")


# --- A shell that is left behind. -----------------------------------------------------------------------------------


def test_a_shell_that_is_left_behind_and_its_foreground_are_signalled_together(
    shell: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise()
    shell.add(20, OWN_PID, "bash", TERM)
    shell.add(21, 20, "work", TERM)
    shell.add(22, 20, "job", TERM)
    shell.add(23, 21, "worker", TERM)
    del shell.processes[AGENT]
    monkeypatch.setattr(foreground, "children", lambda _, among: [child for child in among if child.pid == 21])
    harness.do(StopLeftovers(TERM))
    assert shell.sent == [(20, TERM), (20, CONT), (21, TERM), (21, CONT)]


def test_too_many_leftovers_are_signalled_at_once_but_for_those_that_had_it(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "MAX_LISTED", 2)
    harness = supervise()
    del world.processes[AGENT]
    for pid in (20, 21, 22):
        world.add(pid, pid - 1 if pid > 20 else OWN_PID, "worker", TERM)
    harness.supervisor.delivery.note_stopped([world.processes[20].identity])
    harness.do(StopLeftovers(TERM))
    assert world.sent == [(21, TERM), (21, CONT), (22, TERM), (22, CONT)]


# --- A successor. ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("had_it", [False, True])
def test_a_successor_gets_the_last_step_of_a_running_stop(
    world: World, supervise: Callable[..., Harness], had_it: bool
) -> None:
    harness = supervise("--target", "child")
    before = harness.supervisor.agent.dispositions
    harness.supervisor.agent.named = world.add(20, OWN_PID, "main", TERM, group=20)
    harness.receive(TERM)
    assert world.sent == [(AGENT, TERM), (AGENT, CONT)]
    if had_it:
        harness.supervisor.delivery._stopped.add(world.processes[20].identity)
    world.sent.clear()
    world.wait_results.append((AGENT, exited(0)))
    harness.receive(CHLD)
    assert harness.lines("its main process main (pid 20) is the agent now")
    assert not before, "closed"
    assert world.sent == ([] if had_it else [(20, TERM), (20, CONT)])
    world.wait_results.append((20, exited(6)))
    world.no_children = True
    harness.receive(CHLD)
    assert harness.supervisor.execution.exit_code == 6


def test_a_successor_that_prefers_int_gets_it(world: World, supervise: Callable[..., Harness]) -> None:
    harness = supervise("-t", "20s")
    world.add(AGENT, OWN_PID, "agent", TERM)
    harness.receive(TERM)
    harness.supervisor.agent.named = world.add(20, OWN_PID, "main", INT, group=20)
    world.sent.clear()
    world.wait_results.append((AGENT, exited(0)))
    harness.receive(CHLD)
    assert world.sent == [(20, INT), (20, CONT)]
    harness.do(StopInterrupted(TERM))
    assert world.sent[2:] == [(20, TERM)]


@pytest.mark.parametrize(
    ("parent", "pid", "failing_look", "has_wrapper"),
    [
        pytest.param(AGENT, 20, False, True, id="below the agent"),
        pytest.param(OWN_PID, 20, False, False, id="not below it"),
        pytest.param(OWN_PID, AGENT, False, False, id="the agent itself"),
        pytest.param(AGENT, 20, True, False, id="no /proc"),
    ],
)
def test_the_agent_may_stay_after_a_named_process_below_it(
    world: World,
    supervise: Callable[..., Harness],
    monkeypatch: pytest.MonkeyPatch,
    parent: int,
    pid: int,
    failing_look: bool,
    has_wrapper: bool,
) -> None:
    harness = supervise("-t", "20s")
    harness.supervisor.agent.named = world.add(pid, parent, "main", TERM)
    if failing_look:
        monkeypatch.setattr(tree, "everything", failing(tree.everything, OSError("no /proc")))
    harness.supervisor.delivery.stop(TERM, adapts=True, hung=False)
    assert world.sent == [(pid, TERM), (pid, CONT)]
    made = harness.supervisor.delivery.wrapper
    assert (made is not None) == has_wrapper
    if not has_wrapper:
        return
    del world.processes[pid]
    world.add(21, AGENT, "tail")
    monkeypatch.setattr(wrapper.Wrapper, "look", lambda _: (WAITING, [world.processes[AGENT]]))
    assert harness.supervisor.delivery.look_at_wrapper() == WAITING
    assert harness.supervisor.delivery.held_back == [world.processes[AGENT]]


def test_before_the_first_step_a_successor_gets_nothing(world: World, supervise: Callable[..., Harness]) -> None:
    harness = supervise("-t", "20s", "--stop-delay", "10s")
    harness.receive(TERM)
    harness.supervisor.agent.named = world.add(20, OWN_PID, "main", TERM, group=20)
    world.wait_results.append((AGENT, exited(0)))
    harness.receive(CHLD)
    assert harness.lines("its main process main (pid 20) is the agent now")
    assert world.sent == []


def test_without_a_stop_a_successor_gets_nothing(world: World, supervise: Callable[..., Harness]) -> None:
    harness = supervise()
    harness.supervisor.agent.named = world.add(20, OWN_PID, "main", TERM, group=20)
    world.wait_results.append((AGENT, exited(0)))
    harness.receive(CHLD)
    assert harness.lines("its main process main (pid 20) is the agent now")
    assert world.sent == []


def test_a_successor_gets_the_last_step_even_if_the_memory_runs_out(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise("--target", "child")
    harness.supervisor.agent.named = world.add(20, OWN_PID, "main", TERM, group=20)
    harness.receive(TERM)
    world.sent.clear()
    monkeypatch.setattr(dispositions, "Dispositions", failing(dispositions.Dispositions, MemoryError()))
    world.wait_results.append((AGENT, exited(0)))
    with pytest.raises(MemoryError):
        harness.receive(CHLD)
    harness.receive()
    assert world.sent == [(20, TERM), (20, CONT)]
    assert harness.supervisor.agent.dispositions


# --- INT in place of TERM. ------------------------------------------------------------------------------------------


def test_an_interrupted_agent_gets_term_as_long_as_it_does_not_handle_it(
    world: World, supervise: Callable[..., Harness]
) -> None:
    harness = supervise("-t", "20s")
    world.add(AGENT, OWN_PID, "agent", INT)
    harness.receive(TERM)
    assert world.sent == [(AGENT, INT), (AGENT, CONT)]
    assert harness.lines("INT sent to agent (10000001), which does not handle TERM")
    harness.do(StopInterrupted(TERM))
    assert world.sent[2:] == [(AGENT, TERM)]
    world.handled[AGENT].add(TERM)
    harness.do(StopInterrupted(TERM))
    assert world.sent[3:] == []


def test_an_agent_that_is_interrupted_twice_gets_term_once(world: World, supervise: Callable[..., Harness]) -> None:
    harness = supervise("-t", "20s")
    world.add(AGENT, OWN_PID, "agent", INT)
    for _ in range(2):
        harness.supervisor.delivery.stop(TERM, adapts=True, hung=False)
    assert world.sent == 2 * [(AGENT, INT), (AGENT, CONT)]
    harness.do(StopInterrupted(TERM))
    assert world.sent[4:] == [(AGENT, TERM)]


def test_an_interrupted_recipient_gets_term_itself(world: World, supervise: Callable[..., Harness]) -> None:
    harness = supervise("-t", "20s")
    world.add(20, AGENT, "worker", INT)
    harness.receive(TERM)
    harness.do(StopInterrupted(TERM))
    assert world.sent == [(20, INT), (20, CONT), (20, TERM)]


def test_without_proc_a_wrapper_counts_as_working(supervise: Callable[..., Harness]) -> None:
    class Unseen:
        def look(self) -> tuple[str, list[procfs.Process]]:
            raise OSError

    delivery = supervise().supervisor.delivery
    delivery.wrapper = Unseen()  # type: ignore[assignment]
    assert delivery.look_at_wrapper() == WORKING

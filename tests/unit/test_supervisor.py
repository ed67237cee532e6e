"""The supervisor in a simulated world: failures at any point, and events in an order that is rare in a real run.

Everything else that it does is tested from outside, in tests/process1. Its parts have files of their own, such as
test_delivery and test_job_control.
"""

from __future__ import annotations

import errno
import json
import math
import os
import posix
import socket
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest

from entrypoint.init import delivery, leftovers, procfs, terminal, tree, zombies
from entrypoint.init.actions import (
    Action,
    Exit,
    ForgetAllSignalled,
    Forward,
    KillAll,
    Log,
    LookAtRest,
    LookAtWork,
    LookAtWrapper,
    LookForOrphans,
    MakeStallReport,
    NoteAllSignalled,
    Stop,
    StopHeldBack,
    StopLeftovers,
    TakeCpuSnapshot,
)
from entrypoint.init.execution import MAX_RETRIES
from entrypoint.init.exit_watch import ExitWatch
from entrypoint.init.fallback import Fallback
from entrypoint.init.fast_path import FastPath
from entrypoint.init.job_control import JobControl
from entrypoint.init.narrator import Narrator, Sender
from entrypoint.init.procfs import Process
from entrypoint.init.signalfd import Received
from entrypoint.init.stall_report import Reporter
from entrypoint.init.supervisor import MAX_CLOCK_FAILURES, MAX_OVERDUE, MAX_REAPED_AT_ONCE, MAX_UNREAD
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
    TSTP,
    USR1,
    WINCH,
    FakeDispositions,
    World,
    exited,
    failing,
    stopped,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from entrypoint.init.main_process import MainProcess
    from tests.support.world import Harness


# Events of the state machine: one of each kind that the narrator distinguishes.
ERRNO = Log("errno", errno=5)
PROGRESS = Log("stopping", status="", left=7.0, elapsed=3.0, extended=False)
STEP = Log("step", signal=INT, elapsed=3.0, hung=False)
SHIELDED = Log("shielded", signal=USR1, sender="a test")
LIMIT_NEAR = Log("limit-near", elapsed=8.0, hung=False, platform="docker stop")


def ended(*, code: int = 0, cause: str = "exited", status: str = "") -> Log:
    return Log(
        "ended",
        code=code,
        why="",
        agent_code=code,
        ending=None,
        cause=cause,
        hung="",
        seconds=9.0,
        stop_seconds=None,
        status=status,
    )


# --- What is logged. ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pid", "code", "text"),
    [
        (None, 0, "an unknown sender"),
        (0, 0x80, "the kernel"),
        (0, 0, "outside the container"),
        (AGENT, 0, f"agent (pid {AGENT})"),
        (17, 0, "pid 17"),
    ],
)
def test_the_sender_of_a_signal_is_logged_as_far_as_it_is_known(
    world: World, pid: int | None, code: int, text: str
) -> None:
    numbers = (TERM, 0, code, pid or 0)
    info = b"" if pid is None else b"".join(number.to_bytes(4, "little") for number in numbers)
    assert str(Sender(Received(TERM, info))) == text


def test_problems_before_the_start_of_the_agent_are_logged(supervise: Callable[..., Harness]) -> None:
    harness = supervise("-q", problems=["no socket", "no subreaper"])
    harness.receive()
    assert harness.lines() == ["warning: no socket", "warning: no subreaper"]


@pytest.mark.parametrize(
    ("flags", "pid", "command", "role"),
    [
        ([], 1, "agent", "process 1"),
        (["-v"], 2, "agent", "subreaper"),
        (["-s"], 2, "agent", "subreaper"),
        (["--no-subreaper", "-vv"], 2, "/app/agent secret", "plain parent"),
    ],
)
def test_the_first_line_has_the_command_and_our_role(
    supervise: Callable[..., Harness],
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    pid: int,
    command: str,
    role: str,
) -> None:
    """Arguments may hold secrets: they are logged with -vv only."""
    monkeypatch.setattr(posix, "getpid", lambda: pid)
    harness = supervise(*flags)
    why = harness.supervisor.lifecycle.plan.why
    assert harness.lines() == [f"started {command} (pid {AGENT}), as {role}; {why}"]
    assert harness.supervisor.reporter._fixed["arguments"] is ("secret" in command)


@pytest.mark.parametrize(
    ("name", "hint"), [("AGENT_INIT_GRACEE", "; did you mean AGENT_INIT_GRACE?"), ("AGENT_INIT_QWXYZ", "")]
)
def test_unknown_variables_are_logged(supervise: Callable[..., Harness], name: str, hint: str) -> None:
    harness = supervise("-q", variables={name: "1"})
    assert harness.lines() == [f"warning: unknown variable {name}{hint}"]


@pytest.mark.parametrize(("grace", "seconds"), [("5s", 5), ("infinity", None)])
def test_the_first_line_in_json(supervise: Callable[..., Harness], grace: str, seconds: int | None) -> None:
    harness = supervise("--log-format", "json", "-t", grace)
    [started] = map(json.loads, harness.lines())
    assert (started["event"], started["pid"], started["program"], started["role"]) == (
        "started",
        AGENT,
        "agent",
        "subreaper",
    )
    assert (started["grace"], started["grace_from"]) == (seconds, harness.supervisor.lifecycle.plan.why)


def test_a_forwarded_signal_is_logged_with_v(world: World, supervise: Callable[..., Harness]) -> None:
    harness = supervise("-v")
    world.handled[AGENT].add(USR1)
    harness.receive(USR1)
    assert world.sent == [(AGENT, USR1)]
    assert harness.lines("USR1 from outside the container forwarded to the agent")


@pytest.mark.parametrize("no_proc", [False, True])
def test_too_many_processes_are_neither_listed_nor_counted(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch, no_proc: bool
) -> None:
    """The same without /proc."""
    monkeypatch.setattr(tree, "MAX_LISTED", 1)
    harness = supervise("-q")
    world.no_proc = no_proc
    if not no_proc:
        world.add(20, AGENT)
    harness.do(STEP)
    harness.supervisor.agent.status = exited(0)
    harness.do(STEP)
    assert harness.lines() == [
        f"warning: 3s after the stop request, INT; still running: agent ({AGENT}), and perhaps others: "
        "too many to list, or none visible",
        "warning: 3s after the stop request, INT; too many processes to list, or none visible",
    ]


def test_too_many_processes_do_not_change_the_last_line(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "MAX_LISTED", 1)
    harness = supervise()
    world.add(20, AGENT)
    harness.do(STEP, ended(code=137, cause="deadline"))
    assert harness.lines("ended")[0].endswith("exit code 137")


def test_running_processes_are_counted_or_listed(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last line has those of the line before: at the end none is running."""
    monkeypatch.setattr(tree, "MAX_LISTED", 2)
    harness = supervise()
    harness.do(Log("stopping", status="busy", left=7.0, elapsed=3.0, extended=False))
    world.add(20, AGENT)
    harness.do(PROGRESS, STEP)
    del world.processes[20]
    harness.do(ended(code=137, cause="deadline", status="busy"))
    del world.processes[AGENT]
    harness.do(STEP)
    assert harness.lines()[1:] == [
        'stopping: 7s left, 1 process, "busy"',
        "stopping: 7s left, 2 processes",
        f"warning: 3s after the stop request, INT; still running: agent ({AGENT}), child (20)",
        "ended: the agent was sent SIGKILL and has not exited yet, after 9s in all; exit code 137; "
        f'running when it was sent: agent ({AGENT}), child (20); its last status: "busy"',
        "warning: 3s after the stop request, INT",
    ]


@pytest.mark.parametrize(("count", "end"), [(12, "child (30)"), (13, "child (30) and 1 more"), (21, "and 9 more")])
def test_of_many_processes_the_first_are_listed(
    world: World, supervise: Callable[..., Harness], count: int, end: str
) -> None:
    harness = supervise("-q")
    for pid in range(20, 20 + count - 1):
        world.add(pid, AGENT)
    harness.do(STEP)
    assert harness.lines()[0].endswith(end)


# --- No memory, and other failures. ---------------------------------------------------------------------------------


def test_a_stop_request_that_fails_for_want_of_memory_is_tried_again(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state is as before meanwhile."""
    harness = supervise()
    lifecycle = harness.supervisor.lifecycle

    def fails_half_way(*_: object) -> list[Action]:
        lifecycle.state = "stopping"
        raise MemoryError

    with monkeypatch.context() as full:
        full.setattr(lifecycle, "signal", fails_half_way)
        with pytest.raises(MemoryError):
            harness.receive(TERM)
    assert lifecycle.state == "running"
    assert world.sent == []
    harness.receive()
    assert lifecycle.state == "stopping"
    assert world.sent == [(AGENT, TERM), (AGENT, CONT)]
    assert len(harness.lines("stop requested by TERM from outside the container")) == 1


def test_a_signal_that_the_fast_path_fails_at_does_not_block_others(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is it lost."""
    world.handled[AGENT] = {USR1}
    harness = supervise()
    monkeypatch.setattr(FastPath, "send", fails(ValueError("odd")))
    harness.receive(USR1, TERM)
    assert [line.partition(" (")[0] for line in harness.lines("unexpected")] == ["error: unexpected ValueError: odd"]
    assert world.sent == [(AGENT, USR1), (AGENT, TERM), (AGENT, CONT)]


def test_a_signal_that_cannot_be_handled_does_not_block_others(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise()
    lifecycle = harness.supervisor.lifecycle
    monkeypatch.setattr(lifecycle, "signal", failing(lifecycle.signal, ValueError("odd")))
    harness.receive(USR1, TERM)
    assert [line.partition(" (")[0] for line in harness.lines("unexpected")] == ["error: unexpected ValueError: odd"]
    assert world.sent == [(AGENT, TERM), (AGENT, CONT)]


def test_a_stop_is_tried_again_for_a_while_and_then_sent_to_the_agent_itself(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise()
    monkeypatch.setattr(
        harness.supervisor.delivery, "_stop_recipients", failing(lambda _: ([], [], ""), *[MemoryError()] * 100)
    )
    with pytest.raises(MemoryError):
        harness.do(Stop(TERM), Exit(3))
    for _ in range(MAX_RETRIES - 1):
        with pytest.raises(MemoryError):
            harness.supervisor.execution.carry_out()
    assert world.sent == []
    harness.supervisor.execution.carry_out()
    assert world.sent == [(AGENT, TERM), (AGENT, CONT)]
    assert harness.supervisor.execution.exit_code == 3
    with pytest.raises(MemoryError):  # the next action has as many retries
        harness.do(Stop(TERM))
    assert world.sent == [(AGENT, TERM), (AGENT, CONT)]


def test_a_stop_that_fails_for_another_reason_is_sent_to_the_agent_at_once(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise()
    monkeypatch.setattr(
        harness.supervisor.delivery, "_stop_recipients", failing(lambda _: ([], [], ""), ValueError("odd"))
    )
    harness.do(Stop(TERM), Exit(3))
    assert world.sent == [(AGENT, TERM), (AGENT, CONT)]
    assert harness.lines("unexpected ValueError: odd (world.py:")
    assert harness.supervisor.execution.exit_code == 3


@pytest.mark.parametrize(
    ("action", "retried"),
    [
        (Exit(3), True),
        (Stop(TERM), True),
        (StopHeldBack(TERM), True),
        (Forward(USR1, "x", always=True), True),
        (StopLeftovers(TERM), True),
        (NoteAllSignalled(TERM), True),
        (ForgetAllSignalled(), True),
        (LookAtWrapper(), False),
        (LookAtWork(), False),
        (LookForOrphans(), False),
        (KillAll(), False),
        (TakeCpuSnapshot(), False),
        (MakeStallReport(1.0), False),
        (SHIELDED, False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_which_actions_are_tried_again_for_want_of_memory(
    supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch, action: Action, retried: bool
) -> None:
    harness = supervise()
    done: list[Action] = []
    monkeypatch.setattr(harness.supervisor.execution, "_do", failing(done.append, MemoryError()))
    last = Log("reloading")
    if retried:
        with pytest.raises(MemoryError):
            harness.do(action, last)
        assert done == []
        harness.supervisor.execution.carry_out()
        assert done == [action, last]
    else:
        harness.do(action, last)
        assert done == [last]


def test_leftovers_are_looked_for_again_at_a_retry(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    """But those that have had the signal do not get it again."""
    harness = supervise()
    del world.processes[AGENT]
    world.add(20, OWN_PID)
    world.add(21, OWN_PID)
    send = world.send

    def fails_once(process: Process, *numbers: int) -> bool:
        if process.pid == 21 and 22 not in world.processes:
            world.add(22, OWN_PID)
            raise MemoryError
        return send(process, *numbers)

    monkeypatch.setattr(delivery, "send", fails_once)
    with pytest.raises(MemoryError):
        harness.do(StopLeftovers(TERM))
    harness.supervisor.execution.carry_out()
    assert world.sent == [(pid, number) for pid in (20, 21, 22) for number in (TERM, CONT)]


def test_a_start_that_cannot_be_logged_is_supervised_all_the_same(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Narrator, "log_start", failing(lambda: None, MemoryError()))
    harness = supervise()
    assert not harness.lines("started")
    harness.receive(TERM)
    assert world.sent == [(AGENT, TERM), (AGENT, CONT)]


def test_a_failure_that_cannot_even_be_logged_ends_nothing(
    supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise()
    monkeypatch.setattr(harness.supervisor.console, "log", failing(lambda: None, *[MemoryError()] * 10))
    monkeypatch.setattr(harness.supervisor.narrator, "log", failing(lambda: None, *[ValueError()] * 10))
    harness.do(SHIELDED, Exit(4))
    assert harness.supervisor.execution.exit_code == 4


def test_an_error_without_a_traceback_is_logged_without_a_place(supervise: Callable[..., Harness]) -> None:
    harness = supervise("-q")
    harness.supervisor.faults.log(ValueError("odd"))
    assert harness.lines() == ["error: unexpected ValueError: odd; continuing"]


class FakeEnvironment:
    """Stands in for the agent's environment; its cleanup fails."""

    socket, parent_socket, responders = None, "", "@x"
    cleaned_up = False

    def cleanup(self) -> None:
        self.cleaned_up = True
        raise MemoryError


def test_the_exit_code_is_returned_even_if_the_cleanup_fails(supervise: Callable[..., Harness]) -> None:
    environment = FakeEnvironment()
    harness = supervise(environment=environment)
    harness.supervisor.execution.to_do.append(Exit(7))
    assert harness.supervisor.run() == 7
    assert environment.cleaned_up


def test_the_terminal_is_given_back_even_if_the_cleanup_fails(world: World, supervise: Callable[..., Harness]) -> None:
    harness = supervise(environment=FakeEnvironment(), previous_foreground=77)
    world.foreground = AGENT
    harness.supervisor.execution.to_do.append(Exit(7))
    assert harness.supervisor.run() == 7
    assert world.foreground == 77


def test_the_exit_code_is_returned_even_if_the_terminal_cannot_be_given_back(
    supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise(previous_foreground=77)
    monkeypatch.setattr(terminal, "foreground", failing(terminal.foreground, MemoryError()))
    harness.supervisor.execution.to_do.append(Exit(7))
    assert harness.supervisor.run() == 7


@pytest.mark.parametrize("failing_part", ["the second signal", "what follows"])
def test_a_stop_that_is_tried_again_does_not_signal_twice(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch, failing_part: str
) -> None:
    """A second TERM tells many programs to exit at once."""
    harness = supervise()
    for pid in (20, 21):
        world.add(pid, AGENT, "worker", TERM)
    real_send, real_watch, failed = world.send, harness.supervisor.execution._watch, list[str]()

    def fail_once() -> None:
        if not failed:
            failed.append(failing_part)
            raise MemoryError

    def send(process: Process, *numbers: int) -> bool:
        if failing_part == "the second signal" and process.pid == 21:
            fail_once()
        return real_send(process, *numbers)

    def watch(processes: Sequence[Process] = ()) -> None:
        if failing_part == "what follows":
            fail_once()
        real_watch(processes)

    monkeypatch.setattr(delivery, "send", send)
    monkeypatch.setattr(harness.supervisor.execution, "_watch", watch)
    with pytest.raises(MemoryError):
        harness.receive(TERM)
    harness.receive()
    assert world.sent == [(20, TERM), (20, CONT), (21, TERM), (21, CONT)]
    assert harness.lines("TERM sent to worker (20), worker (21)")


def test_one_failing_part_does_not_stop_the_others(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An orphan that cannot be logged, a stop that cannot be handled, a socket that cannot be read."""
    harness = supervise()
    parts = [(harness.supervisor, "_orphan_reaped"), (JobControl, "agent_stopped"), (harness.supervisor, "_receive")]
    for owner, part in parts:
        monkeypatch.setattr(owner, part, failing(lambda: None, ValueError(f"in {part}")))
    world.wait_results += [(20, exited(0)), (AGENT, stopped(TSTP)), (AGENT, exited(8))]
    world.no_children = True
    harness.receive(CHLD)
    logged = [line.partition(" (")[0] for line in harness.lines("unexpected")]
    assert logged == [f"error: unexpected ValueError: in {part}" for _, part in parts]
    assert harness.supervisor.execution.exit_code == 8


# --- A part that fails for ever. -----------------------------------------------------------------------------------


class Clock:
    """The loop's clock; the supervisor's parts take no time, and each failure 10 ms."""

    def __init__(self, harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
        self.harness, self.now = harness, 1000.0
        harness.supervisor.loop.time = lambda: self.now
        monkeypatch.setattr(time, "sleep", self.advance)

    def advance(self, seconds: float) -> None:
        self.now += seconds

    def run_until(self, time: float) -> None:
        """Have the loop try again and again, until some time or the end of the loop."""
        loop = self.harness.supervisor.loop
        while self.now < time and loop._running:
            if loop._try(loop._recover):
                self.now += 0.01


def fails(error: BaseException) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("part", ["source.read", "notify_socket.resume", "console.log", "narrator.log", "reporter.end"])
@pytest.mark.parametrize("error", [MemoryError(), ValueError("odd")], ids=repr)
def test_the_deadline_is_kept_while_a_part_fails_for_ever(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch, part: str, error: BaseException
) -> None:
    harness = supervise("-t", "500ms")
    harness.supervisor.notify_socket = FakeNotifySocket()  # type: ignore[assignment]
    clock = Clock(harness, monkeypatch)
    harness.receive(TERM)
    owner, name = part.split(".")
    monkeypatch.setattr(Reporter if owner == "reporter" else getattr(harness.supervisor, owner), name, fails(error))
    clock.run_until(1000.75)
    assert (AGENT, KILL) in world.sent
    assert len(harness.lines("unexpected")) <= 2


@pytest.mark.parametrize("may_have_more", [False, True])
def test_signals_that_were_just_read_are_read_on_only_where_more_may_have_come(
    supervise: Callable[..., Harness], may_have_more: bool
) -> None:
    """The agent's exit is looked at next, and a stop request that came before it must be known then."""
    harness = supervise()
    harness.supervisor._inbox.append(Received(CHLD))
    harness.source.may_have_more, harness.source.pending = may_have_more, [TERM]
    harness.supervisor._catch_up()
    assert (harness.source.pending == []) is may_have_more
    harness.supervisor._catch_up()
    assert harness.supervisor.lifecycle.state == "stopping"


def test_a_step_that_fails_for_ever_is_left_to_the_fallback(
    supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise("-t", "500ms")
    clock = Clock(harness, monkeypatch)
    harness.receive(TERM)
    monkeypatch.setattr(harness.supervisor.lifecycle, "tick", fails(MemoryError()))
    clock.run_until(1000.3)  # the stall report
    assert harness.supervisor.loop._running
    clock.run_until(1002)
    assert clock.now < 1000.5 + MAX_OVERDUE + 0.05
    made = Fallback(harness.supervisor.settings)
    monkeypatch.setattr(Fallback, "block", lambda _: None)
    harness.supervisor._inbox.append(Received(USR1))
    harness.source.pending = [WINCH]
    harness.supervisor.leave_to(made)
    assert (made.pid, made.status, made.stop_sent) == (AGENT, None, True)
    assert made.kill_at == pytest.approx(1000.5)
    assert made.inbox == [USR1, WINCH]


def test_where_not_even_the_clock_can_be_read_the_fallback_goes_on_soon(
    supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock returns a number, which takes memory."""
    harness = supervise()
    supervisor = harness.supervisor
    with monkeypatch.context() as full:
        full.setattr(supervisor, "_parts", (*supervisor._parts, fails(MemoryError())))
        full.setattr(supervisor.loop, "time", fails(MemoryError()))
        for _ in range(MAX_CLOCK_FAILURES - 1):
            with pytest.raises(MemoryError):
                supervisor._catch_up()
        assert supervisor.loop._running
        with pytest.raises(MemoryError):
            supervisor._catch_up()
    assert not supervisor.loop._running


def test_the_clock_counts_as_unreadable_only_if_that_does_not_end(
    supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise()
    supervisor = harness.supervisor
    for _ in range(2 * MAX_CLOCK_FAILURES):
        with monkeypatch.context() as full:
            full.setattr(supervisor, "_parts", (*supervisor._parts, fails(MemoryError())))
            full.setattr(supervisor.loop, "time", fails(MemoryError()))
            with pytest.raises(MemoryError):
                supervisor._catch_up()
        supervisor._catch_up()
    assert supervisor.loop._running


def test_an_exit_that_cannot_be_handled_is_left_to_the_fallback(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise("-t", "500ms")
    clock = Clock(harness, monkeypatch)
    monkeypatch.setattr(harness.supervisor.lifecycle, "agent_ended", fails(MemoryError()))
    world.wait_results.append((AGENT, exited(3)))
    clock.run_until(1002)
    assert clock.now < 1000 + MAX_OVERDUE + 0.05
    made = Fallback(harness.supervisor.settings)
    monkeypatch.setattr(Fallback, "block", lambda _: None)
    harness.supervisor.leave_to(made)
    assert (made.status, made.stop_sent, made.kill_at) == (exited(3), False, math.inf)


def test_signals_that_cannot_be_read_are_left_to_the_fallback(
    supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise()
    clock = Clock(harness, monkeypatch)
    monkeypatch.setattr(harness.source, "read", fails(OSError("odd")))
    clock.run_until(1005)
    assert 1000 + MAX_UNREAD <= clock.now < 1000 + MAX_UNREAD + 0.05
    assert harness.supervisor.run() is None


def test_what_fails_while_nothing_waits_for_it_is_tried_again_for_ever(
    supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise()
    clock = Clock(harness, monkeypatch)
    with monkeypatch.context() as broken:
        broken.setattr(harness.supervisor, "_parts", (*harness.supervisor._parts, fails(OSError("odd"))))
        clock.run_until(1010)
        assert len(harness.lines("unexpected OSError")) == 1
    harness.receive()
    assert harness.supervisor._failing_since == math.inf


def test_a_stop_whose_signal_was_not_sent_yet_is_sent_by_the_fallback(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise("-t", "5s", "--stop-delay", "2s")
    harness.receive(TERM)
    assert world.sent == []
    made = Fallback(harness.supervisor.settings)
    monkeypatch.setattr(Fallback, "block", fails(MemoryError()))
    harness.supervisor.leave_to(made)
    assert world.sent == [(AGENT, TERM), (AGENT, CONT)]
    assert made.kill_at == pytest.approx(harness.supervisor.lifecycle.kill_due)


def test_a_stop_signal_that_was_decided_and_reached_nobody_is_sent_by_the_fallback(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise("-t", "5s")
    with monkeypatch.context() as full:
        full.setattr(harness.supervisor.execution, "_stop", fails(SystemError("no memory")))
        with pytest.raises(SystemError):
            harness.receive(TERM)
    assert harness.supervisor.lifecycle.last_sent == TERM
    made = Fallback(harness.supervisor.settings)
    monkeypatch.setattr(Fallback, "block", fails(MemoryError()))
    harness.supervisor.leave_to(made)
    assert world.sent == [(AGENT, TERM), (AGENT, CONT)]


def test_the_fallback_sends_the_step_that_was_decided_and_what_was_to_be_forwarded(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no earlier step again."""
    harness = supervise("--stop-schedule", "TERM/5s/ABRT/5s/KILL")
    harness.receive(TERM)
    assert world.sent == [(AGENT, TERM), (AGENT, CONT)]
    execution = harness.supervisor.execution
    execution.to_do += [Forward(WINCH, "x", always=True), Exit(3), Stop(ABRT), Stop(INT)]
    made = Fallback(harness.supervisor.settings)
    monkeypatch.setattr(Fallback, "block", fails(MemoryError()))
    harness.supervisor.leave_to(made)
    assert world.sent[2:] == [(AGENT, ABRT), (AGENT, CONT), (AGENT, WINCH)]


def test_a_step_that_fails_before_anything_is_not_taken_for_the_one_before(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise()
    world.add(AGENT, OWN_PID, "agent", TERM, ABRT)
    first, second = Stop(TERM), Stop(ABRT)
    harness.do(first)
    stopper = harness.supervisor.delivery
    assert stopper.has_reached(first)
    assert not stopper.has_reached(second)
    with monkeypatch.context() as full:
        full.setattr(stopper, "_begin", fails(MemoryError()))
        with pytest.raises(MemoryError):
            harness.do(second)
    harness.supervisor.execution.carry_out()
    assert world.sent == [(AGENT, TERM), (AGENT, CONT), (AGENT, ABRT), (AGENT, CONT)]


@pytest.mark.parametrize("fails_at", ["departures", "topmost"])
def test_what_is_left_gets_the_signal_in_no_order_where_there_is_no_memory_to_find_one(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch, fails_at: str
) -> None:
    harness = supervise()
    del world.processes[AGENT]
    world.add(20, OWN_PID)
    world.add(21, 20)
    if fails_at == "departures":
        monkeypatch.setattr(delivery.Delivery, "departures", property(fails(MemoryError())))
    else:
        monkeypatch.setattr(leftovers, "topmost", fails(MemoryError()))
    harness.supervisor.execution.to_do.append(StopLeftovers(TERM))
    for _ in range(MAX_RETRIES):
        with pytest.raises(MemoryError):
            harness.supervisor.execution.carry_out()
    assert world.sent == []
    harness.supervisor.execution.carry_out()
    assert world.sent == [(20, TERM), (20, CONT), (21, TERM), (21, CONT)]


def test_what_is_left_gets_the_signal_from_the_top_down_if_something_else_fails_after_that(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise()
    del world.processes[AGENT]
    world.add(20, OWN_PID, "worker", TERM)
    world.add(21, 20)
    monkeypatch.setattr(harness.supervisor.execution, "_watch", fails(MemoryError()))
    harness.supervisor.execution.to_do.append(StopLeftovers(TERM))
    for _ in range(MAX_RETRIES):
        with pytest.raises(MemoryError):
            harness.supervisor.execution.carry_out()
    harness.supervisor.execution.carry_out()
    assert world.sent == [(20, TERM), (20, CONT)]


@pytest.mark.parametrize("error", [MemoryError(), ValueError("odd")], ids=repr)
def test_a_stop_that_cannot_be_sent_at_all_holds_nothing_up(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    harness = supervise()
    monkeypatch.setattr(harness.supervisor.delivery, "_stop_recipients", fails(error))
    monkeypatch.setattr(harness.supervisor.delivery, "send_agent", fails(error))
    execution = harness.supervisor.execution
    execution.to_do += [Stop(TERM), Exit(3)]
    attempts = 1
    while execution.exit_code is None:
        try:
            execution.carry_out()
        except MemoryError:
            attempts += 1
    assert attempts == (2 * MAX_RETRIES + 1 if isinstance(error, MemoryError) else 1)
    assert execution.exit_code == 3


# --- Signals. -------------------------------------------------------------------------------------------------------


def test_one_look_serves_many_signals_that_no_process_handles(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise()
    looks: list[int] = []
    real = harness.supervisor.delivery.agent_handles_or_ignores

    def look(number: int) -> bool:
        looks.append(number)
        return real(number)

    monkeypatch.setattr(harness.supervisor.delivery, "agent_handles_or_ignores", look)
    harness.receive(*[USR1] * 5)
    assert looks == [USR1]
    assert len(harness.lines("dropped: no process handles it")) == 5
    harness.receive(USR1)
    assert looks == [USR1] * 2


def test_one_look_serves_many_signals_that_the_agent_handles(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise()
    world.handled[AGENT].add(USR1)
    looks: list[int] = []

    def look(dispositions: FakeDispositions, number: int) -> bool | None:
        looks.append(number)
        return dispositions.handles(number)

    monkeypatch.setattr(FakeDispositions, "handles_or_ignores", look)
    harness.receive(*[USR1] * 5)
    assert looks == [USR1]
    assert world.sent == [(AGENT, USR1)] * 5
    harness.receive(USR1)
    assert looks == [USR1] * 2


def test_signals_are_handled_in_the_order_of_their_arrival(world: World, supervise: Callable[..., Harness]) -> None:
    harness = supervise()
    harness.receive(CONT, TERM, WINCH)
    assert world.sent == [(AGENT, CONT), (AGENT, TERM), (AGENT, CONT), (AGENT, WINCH)]


def test_a_signal_that_comes_after_the_exit_of_the_agent_goes_nowhere(
    world: World, supervise: Callable[..., Harness]
) -> None:
    """Whether or not the exit was seen at the same time."""
    harness = supervise("-v")
    world.handled[AGENT].add(USR1)
    world.add(20, OWN_PID)
    harness.supervisor.agent.status = exited(0)
    harness.receive(USR1)
    assert (20, USR1) not in world.sent
    assert (AGENT, USR1) not in world.sent
    harness.receive(USR1)
    assert harness.lines("USR1 from outside the container comes too late for the agent")
    assert {number for _, number in world.sent} == {TERM, CONT}


# --- Processes that are held back from the stop signal. ---------------------------------------------------------------


@pytest.fixture
def launcher(world: World, supervise: Callable[..., Harness]) -> Harness:
    """An agent that does not wait for its child; the child handles TERM. Its time is `harness.supervisor.loop.time`."""
    world.not_wrappers.add(AGENT)
    world.add(20, AGENT, "worker", TERM)
    harness = supervise("-t", "20s")
    harness.supervisor.loop.time = lambda: 1000.0
    return harness


def test_the_agent_is_signalled_soon_after_its_recipients_have_exited(world: World, launcher: Harness) -> None:
    launcher.receive(TERM)
    assert world.sent == [(20, TERM), (20, CONT)]
    assert launcher.supervisor.lifecycle.due > 1001.5
    del world.processes[20]
    launcher.supervisor.loop.time = lambda: 1000.2  # a look where no descriptor shows an exit
    launcher.run_loop_once()
    assert launcher.supervisor.lifecycle.due == pytest.approx(1001.7)
    assert launcher.supervisor._timer is not None
    assert launcher.supervisor._timer.when == pytest.approx(1001.7)
    launcher.supervisor.loop.time = lambda: 1001.7
    launcher.run_loop_once()
    assert world.sent[2:] == [(AGENT, TERM), (AGENT, CONT)]
    assert launcher.lines("the agent has not exited: TERM or INT to it as well")


def test_recipients_that_exit_at_once_are_noticed(
    world: World, launcher: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exits(process: Process, *_: int) -> bool:
        del world.processes[process.pid]
        return True

    monkeypatch.setattr(delivery, "send", exits)
    launcher.receive(TERM)
    assert launcher.supervisor.lifecycle.due == 1001.5


def test_an_agent_that_exits_first_leaves_nobody_held_back(world: World, launcher: Harness) -> None:
    launcher.receive(TERM)
    world.wait_results.append((AGENT, exited(0)))
    del world.processes[AGENT]
    world.add(20, OWN_PID, "worker", TERM)
    launcher.receive(CHLD)
    assert launcher.supervisor.lifecycle.state == "lingering"
    due = launcher.supervisor.lifecycle.due
    del world.processes[20]
    launcher.supervisor.loop.time = lambda: 1000.2
    launcher.run_loop_once()
    assert launcher.supervisor.lifecycle.due == due
    assert world.sent == [(20, TERM), (20, CONT)]


# --- Exits. ---------------------------------------------------------------------------------------------------------


def test_many_exits_are_handled_in_parts(world: World, supervise: Callable[..., Harness]) -> None:
    """The clock and the signals have their turn in between; then the loop goes on by itself."""
    harness = supervise("-vv")
    world.wait_results += [(pid, exited(0)) for pid in range(20_000, 20_000 + MAX_REAPED_AT_ONCE + 1)]
    harness.receive(CHLD)
    assert len(world.wait_results) == 1
    assert len(harness.lines("reaped orphan")) == MAX_REAPED_AT_ONCE
    harness.run_loop_once()
    assert world.wait_results == []


def test_an_agent_whose_exit_status_is_lost_ends_with_125(world: World, supervise: Callable[..., Harness]) -> None:
    harness = supervise()
    world.no_children = True
    harness.receive()
    assert harness.supervisor.execution.exit_code == 125
    assert harness.lines("ended: the agent has exited, its exit status was lost")


def test_the_end_comes_when_the_last_child_is_reaped(world: World, supervise: Callable[..., Harness]) -> None:
    harness = supervise()
    world.add(20, OWN_PID, "leftover")
    world.wait_results.append((AGENT, exited(6)))
    harness.receive(CHLD)
    assert harness.supervisor.execution.exit_code is None
    world.wait_results.append((20, exited(0)))
    harness.receive(CHLD)
    assert harness.supervisor.execution.exit_code is None  # there may be others
    world.no_children = True
    harness.receive(CHLD)
    assert harness.supervisor.execution.exit_code == 6


@pytest.mark.parametrize("leftover", [False, True])
def test_a_reporter_is_no_process_that_the_agent_left_behind(
    world: World, supervise: Callable[..., Harness], leftover: bool
) -> None:
    harness = supervise()
    world.add(30, OWN_PID, "python")
    harness.supervisor.helper_pids.add(30)
    harness.supervisor.reporter.pids.add(30)
    if leftover:
        world.add(20, OWN_PID, "leftover")
    del world.processes[AGENT]
    world.wait_results.append((AGENT, exited(4)))
    harness.receive(CHLD)
    assert (30, KILL) in world.sent
    assert harness.supervisor.execution.exit_code == (None if leftover else 4)
    assert bool(harness.lines("left processes behind")) is leftover
    if leftover:  # else this is the end of process 1
        world.wait_results.append((30, 9))
        harness.receive(CHLD)
        assert harness.supervisor.helper_pids == harness.supervisor.reporter.pids == set()
    assert not harness.lines("reaped")


class FakeMemory:
    """Stands in for the control group's memory."""

    available_bytes = None

    def __init__(self, new_kills: int | None, limit: int | None = None, peak: int | None = None) -> None:
        self.new_kills, self.limit, self.peak = new_kills, limit, peak


LIMIT = 64 << 20


@pytest.mark.parametrize(
    ("status", "memory", "text", "code"),
    [
        (9, FakeMemory(0), "was killed by SIGKILL (sent neither by agent-init nor by the OOM killer)", 137),
        (9, FakeMemory(None), "was killed by SIGKILL (not sent by agent-init)", 137),
        (
            9,
            FakeMemory(1),
            "most likely for want of memory: the kernel's OOM killer killed once in this container",
            137,
        ),
        (9, FakeMemory(3, LIMIT, LIMIT), "killed 3 times in this container (memory: limit 64 MiB, peak 64 MiB)", 137),
        (9, FakeMemory(1, LIMIT), "killed once in this container (memory: limit 64 MiB)", 137),
        (exited(1), FakeMemory(1), "exited with code 1; meanwhile the kernel's OOM killer killed once", 1),
        (15, FakeMemory(1), "was killed by SIGTERM; meanwhile the kernel's OOM killer killed once", 143),
        (15, FakeMemory(0), "was killed by SIGTERM, after", 143),
    ],
)
def test_the_last_line_claims_no_more_than_is_certain(
    world: World, supervise: Callable[..., Harness], status: int, memory: FakeMemory, text: str, code: int
) -> None:
    harness = supervise()
    harness.supervisor.memory = memory  # type: ignore[assignment]
    world.wait_results.append((AGENT, status))
    world.no_children = True
    harness.receive(CHLD)
    assert harness.supervisor.execution.exit_code == code
    assert text in harness.lines("ended: ")[0]


def test_an_agent_killed_by_a_forwarded_sigkill(world: World, supervise: Callable[..., Harness]) -> None:
    harness = supervise("-r", "USR1:KILL", "--unhandled", "forward")
    harness.receive(USR1)
    assert world.sent == [(AGENT, KILL)]
    world.wait_results.append((AGENT, 9))
    world.no_children = True
    harness.receive(CHLD)
    assert "was killed by SIGKILL, which agent-init forwarded" in harness.lines("ended: ")[0]


def test_reaped_orphans_are_logged_by_name_with_w(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is reaped alone, after its name was read; one that has stopped is not reaped, one without /proc has none."""

    class Found:
        def __init__(self, pid: int) -> None:
            self.si_pid, self.si_status = pid, exits.get(pid, 0)
            self.si_code = posix.CLD_KILLED if self.si_status == KILL else posix.CLD_EXITED

    exits = {20: exited(1), 21: 9, 23: exited(0)}
    suspended = [Found(22), Found(AGENT)]

    def waitid(of: int, pid: int, options: int) -> Found | None:
        assert (of, pid) == (os.P_ALL, 0)
        if options == os.WSTOPPED | os.WNOHANG | os.WNOWAIT:
            return suspended[-1] if suspended else None
        assert options == os.WEXITED | os.WNOHANG | os.WNOWAIT
        return Found(min(exits)) if exits else None

    def waitpid(pid: int, options: int) -> tuple[int, int]:
        assert options == os.WNOHANG | os.WUNTRACED
        if pid in exits:
            return pid, exits.pop(pid)
        assert suspended.pop().si_pid == pid
        return pid, stopped(TSTP)

    monkeypatch.setattr(posix, "waitid", waitid)
    monkeypatch.setattr(posix, "waitpid", waitpid)
    harness = supervise("-w", "-q")
    world.add(20, OWN_PID, "daemon")
    harness.receive(CHLD)
    assert harness.lines("reaped") == [
        "warning: reaped orphan daemon (pid 20), which exited with code 1",
        "warning: reaped orphan pid 21, which was killed by SIGKILL",
        "warning: reaped orphan pid 23, which exited with code 0",
    ]
    assert not suspended
    assert not exits


@pytest.mark.parametrize("lost", [False, True], ids=["", "no memory for what waitpid(2) returns"])
def test_with_w_the_exit_code_is_the_agents_that_exits_between_two_calls(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch, *, lost: bool
) -> None:
    """waitid(2) that asks for stops alone reports "no child is left" when all of them are zombies."""

    class Found:
        si_pid, si_code, si_status = AGENT, posix.CLD_EXITED, 3

    exits: list[int] = []
    waited: list[int] = []

    def waitid(of: int, pid: int, options: int) -> Found | None:
        if waited:
            raise ChildProcessError
        if options & os.WEXITED:
            return Found() if exits else None
        exits.append(AGENT)
        raise ChildProcessError

    def waitpid(pid: int, options: int) -> tuple[int, int]:
        waited.append(pid)
        if lost:
            raise MemoryError
        return pid, exited(3)

    monkeypatch.setattr(posix, "waitid", waitid)
    monkeypatch.setattr(posix, "waitpid", waitpid)
    harness = supervise("-w")
    with pytest.raises(MemoryError) if lost else nullcontext():
        harness.receive(CHLD)
    harness.receive(CHLD)
    assert harness.supervisor.execution.exit_code == 3
    assert waited == [AGENT]


def test_with_w_a_kernel_that_always_denies_stopped_children_is_asked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def waitid(of: int, pid: int, options: int) -> None:
        asked.append(options)
        if options & os.WSTOPPED:
            raise ChildProcessError

    monkeypatch.setattr(posix, "waitid", waitid)
    assert zombies.find() == (0, None, "")
    assert len(asked) == 4


def test_with_w_the_agent_ends_when_nothing_is_left(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its exit was reported by "no child is left" alone, as waitid(2) says it."""

    def nothing_is_left(*_: object) -> None:
        raise ChildProcessError

    monkeypatch.setattr(posix, "waitid", nothing_is_left)
    harness = supervise("-w")
    harness.receive(CHLD)
    assert harness.lines("ended: ")


def test_without_waitid_reaped_orphans_have_no_names(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(posix, "waitid")
    harness = supervise("-w", "-q")
    world.wait_results.append((20, exited(1)))
    harness.receive(CHLD)
    assert harness.lines("reaped") == ["warning: reaped orphan pid 20, which exited with code 1"]


def test_where_waitid_is_refused_orphans_are_reaped_all_the_same(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(posix, "waitid", refuse)
    harness = supervise("-w", "-q")
    world.wait_results.append((20, exited(1)))
    harness.receive(CHLD)
    assert harness.lines() == ["warning: reaped orphan pid 20, which exited with code 1"]


# --- Stall reports. -------------------------------------------------------------------------------------------------


def test_lines_of_a_reaped_reporter_are_logged_before_the_last_line(
    world: World, supervise: Callable[..., Harness]
) -> None:
    """The reporter and the agent may exit at the same moment."""
    harness = supervise()
    reporter = harness.supervisor.reporter
    reporter._fd, writer = os.pipe()
    harness.supervisor.loop.add_reader(reporter._fd, reporter._read)
    harness.supervisor.helper_pids.add(30)
    reporter.pids.add(30)
    os.write(writer, b"three\n")
    os.close(writer)
    world.wait_results += [(30, exited(0)), (AGENT, exited(4))]
    world.no_children = True
    harness.receive(CHLD)
    report, end = harness.lines()[-2:]
    assert report == "warning: three"
    assert end.startswith("ended: ")
    assert reporter._fd < 0
    assert world.sent == []


@pytest.mark.parametrize("no_proc", [False, True])
def test_the_cpu_snapshot_has_all_descendants(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch, no_proc: bool
) -> None:
    snapshots: list[list[Process]] = []
    monkeypatch.setattr(Reporter, "take_cpu_snapshot", lambda _, processes: snapshots.append(list(processes)))
    harness = supervise()
    world.no_proc = no_proc
    harness.do(TakeCpuSnapshot())
    assert snapshots == [[] if no_proc else [world.processes[AGENT]]]


@pytest.mark.parametrize("action", [Stop(TERM), KillAll()], ids=repr)
def test_a_report_does_not_delay_what_comes_after_it(
    world: World, supervise: Callable[..., Harness], action: Action
) -> None:
    harness = supervise()
    harness.supervisor.reporter.pids.add(30)
    harness.do(action)
    assert world.sent[0] == (30, KILL)


def test_what_waits_for_a_report_is_done_as_soon_as_the_report_is_complete(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reporter, "start", lambda *_: None)
    harness = supervise("-t", "20s")
    harness.notify(world.processes[AGENT], WATCHDOG="trigger")
    assert world.sent == []
    harness.supervisor._report_complete()
    harness.run_loop_once()
    assert world.sent == [(AGENT, ABRT), (AGENT, CONT)]


# --- Time. ----------------------------------------------------------------------------------------------------------


def test_the_loop_wakes_up_when_a_timer_is_due_and_only_then(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ExitWatch, "start", lambda *_: None)  # without a pidfd, as here, it looks again and again
    harness = supervise("-t", "60s", "--linger", "5s")
    loop, lifecycle = harness.supervisor.loop, harness.supervisor.lifecycle
    harness.receive()
    assert loop._timers == []
    dues = []
    world.add(20, OWN_PID, "leftover")
    for number, exits in ((TERM, []), (CHLD, [(AGENT, exited(4))]), (TERM, [])):
        world.wait_results += exits
        if exits:
            del world.processes[AGENT]
        harness.receive(number)
        dues.append(lifecycle.due)
        assert [timer.when for timer in loop._timers] == [lifecycle.due]
    assert len(set(dues)) == 2
    world.no_children = True
    harness.receive(CHLD)  # the end: the timers go with the process
    assert (harness.supervisor.execution.exit_code, lifecycle.due) == (4, math.inf)


def test_timers_due_at_the_same_time_go_off_one_after_the_other(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reporter, "start", lambda *_: None)
    harness = supervise("--stop-schedule", "TERM/10s/INT/30s/KILL")
    now = 1000.0
    harness.supervisor.loop.time = lambda: now
    harness.receive(TERM)
    now = 1008.5  # a report
    harness.run_loop_once()
    world.sent.clear()
    now = 1010.0  # the next step, and a line of progress
    harness.run_loop_once()
    assert world.sent == [(AGENT, INT), (AGENT, CONT)]
    assert not harness.lines("stopping: ")
    harness.run_loop_once()
    assert harness.lines("stopping: 30s left, 1 process")


# --- Messages. ------------------------------------------------------------------------------------------------------


class FakeNotifySocket:
    """Stands in for the notify socket: the agent is ready."""

    resumed = 0

    def receive(self, agent: MainProcess, handle: Callable[[dict[str, str], Process], object]) -> None:
        handle({"READY": "1"}, Process(agent.pid, agent.name, OWN_PID, agent.group, 1))

    def resume(self) -> None:
        self.resumed += 1


def test_a_message_takes_effect_at_once(world: World, supervise: Callable[..., Harness]) -> None:
    harness = supervise("--watchdog", "5s", "--ready-timeout", "60s")
    fake = harness.supervisor.notify_socket = FakeNotifySocket()  # type: ignore[assignment]
    harness.receive()
    assert fake.resumed == 1
    harness.supervisor._message_waiting()
    assert harness.lines("the agent is ready")
    assert [timer.when for timer in harness.supervisor.loop._timers] == [harness.supervisor.lifecycle.due]


class NotifiedEnvironment:
    """Stands in for the agent's environment; its notify socket is real."""

    parent_socket = responders = ""

    def __init__(self, receiver: socket.socket) -> None:
        self.socket = receiver


def test_the_notify_socket_is_read_when_a_message_comes(world: World, supervise: Callable[..., Harness]) -> None:
    world.add(OWN_PID, 1, "pytest")
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sender, receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        harness = supervise("--notify-access", "main", environment=NotifiedEnvironment(receiver))
        harness.receive()
        sender.send(b"READY=1")
        harness.run_loop_once()
    assert harness.lines(f"ignored a message to the notify socket from pytest (pid {OWN_PID}) (--notify-access main)")


@pytest.mark.parametrize("where", ["the state machine", "what follows"])
def test_a_message_that_fails_for_want_of_memory_is_handled_again_and_takes_effect_once(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sender, receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        harness = supervise("-t", "20s", "--ready-timeout", "60s", environment=NotifiedEnvironment(receiver))
        monkeypatch.setattr(Reporter, "start", lambda *_: harness.supervisor._report_complete())
        supervisor = harness.supervisor
        supervisor.agent.named = world.add(OWN_PID, os.getppid(), "pytest", group=OWN_GROUP)
        if where == "the state machine":
            monkeypatch.setattr(supervisor.lifecycle, "notified", failing(supervisor.lifecycle.notified, MemoryError()))
        else:
            monkeypatch.setattr(supervisor.execution, "_stop", failing(supervisor.execution._stop, MemoryError()))
        sender.send(b"READY=1\nWATCHDOG=trigger")
        attempts = 0
        while not world.sent and attempts < 10:
            attempts += 1
            try:
                harness.run_loop_once()
            except MemoryError:
                supervisor._catch_up()  # as the loop does
        harness.run_loop_once()
        with pytest.raises(BlockingIOError):
            receiver.recv(1, socket.MSG_DONTWAIT)
    assert world.sent == [(OWN_PID, ABRT), (OWN_PID, CONT)]
    assert len(harness.lines("the agent is ready")) == 1


def test_a_sign_of_life_that_came_in_time_counts_even_if_we_are_late(
    supervise: Callable[..., Harness], world: World
) -> None:
    harness = supervise("--watchdog", "1s")
    now = time.monotonic()
    harness.supervisor.loop.time = lambda: now

    def ping() -> None:
        harness.notify(world.processes[AGENT], WATCHDOG="1")

    ping()
    now += 1
    harness.supervisor._receive = ping  # type: ignore[method-assign]
    harness.receive()
    assert harness.supervisor.lifecycle.state == "running"
    assert harness.supervisor.lifecycle.due == now + 1


# --- Helpers that end after the agent. ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "helpers"),
    [
        ("from multiprocessing.resource_tracker import main;main(5)", True),
        ("from multiprocessing.forkserver import main; main(1)", True),
        ("from multiprocessing.spawn import spawn_main; spawn_main()", False),
        ("", False),
    ],
)
def test_helpers_of_multiprocessing_are_known(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch, code: str, helpers: bool
) -> None:
    harness = supervise()
    del world.processes[AGENT]
    assert not harness.supervisor.execution.are_only_helpers_left()
    harness.supervisor.descendants.forget()
    world.add(20, os.getpid())
    monkeypatch.setattr(procfs, "argv_of", lambda _: ["python", "-c", code])
    assert harness.supervisor.execution.are_only_helpers_left() is helpers


def test_what_is_left_counts_as_more_than_helpers_if_that_is_not_known(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise()

    def fails(_: int) -> list[str]:
        raise MemoryError

    monkeypatch.setattr(procfs, "argv_of", fails)
    assert not harness.supervisor.execution.are_only_helpers_left()


# --- After SIGKILL. -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "dying", "answer"),
    [((), (), (False, True)), ((20, 21), (20, 21), (True, True)), ((20, 21), (20,), (True, False))],
)
def test_after_sigkill_it_is_seen_what_is_left_and_exits(
    world: World,
    supervise: Callable[..., Harness],
    monkeypatch: pytest.MonkeyPatch,
    left: tuple[int, ...],
    dying: tuple[int, ...],
    answer: tuple[bool, bool],
) -> None:
    harness = supervise()
    answers: list[tuple[bool, bool]] = []

    def rest_seen(_now: float, is_left: bool, is_exiting: bool) -> list[Action]:
        answers.append((is_left, is_exiting))
        return []

    monkeypatch.setattr(harness.supervisor.lifecycle, "rest_seen", rest_seen)
    monkeypatch.setattr(procfs, "is_dying", lambda process: process.pid in dying)
    del world.processes[AGENT]
    for pid in left:
        world.add(pid, os.getpid())
    harness.do(LookAtRest())
    monkeypatch.setattr(tree, "MAX_LISTED", -1)
    harness.do(LookAtRest())
    assert answers == [answer, (True, False)]


# --- The termination log. -------------------------------------------------------------------------------------------


def test_the_ready_file_exists_while_the_agent_is_ready(
    world: World, supervise: Callable[..., Harness], tmp_path: Path
) -> None:
    path = tmp_path / "ready"
    harness = supervise("-t", "5s", "--ready-file", str(path))
    harness.notify(world.processes[AGENT], READY="1")
    assert path.exists()
    harness.receive(TERM)
    assert not path.exists()
    assert not harness.lines("ready file")


def test_a_ready_file_that_cannot_be_made_is_logged(
    world: World, supervise: Callable[..., Harness], tmp_path: Path
) -> None:
    harness = supervise("-t", "5s", "--ready-file", str(tmp_path / "none" / "ready"))
    harness.notify(world.processes[AGENT], READY="1")
    assert harness.lines("warning: cannot keep the ready file")


def test_the_termination_log_is_written_from_the_stop_request_on(
    supervise: Callable[..., Harness], tmp_path: Path
) -> None:
    log = tmp_path / "termination-log"
    harness = supervise("--termination-log", str(log))
    harness.do(ERRNO)  # before the stop: no part of the final message
    assert not log.exists()
    harness.receive(TERM)
    harness.do(SHIELDED, PROGRESS)
    running = f"; still running: agent ({AGENT})"
    [line] = log.read_text().splitlines()
    assert line.startswith("stopping since ")
    assert running in line
    step = f"3s after the stop request, INT{running}"
    harness.do(STEP)
    assert log.read_text().splitlines()[1:] == [step]
    harness.supervisor.narrator.report_line("three")
    harness.supervisor._report_complete()
    harness.run_loop_once()
    assert harness.lines("three") == ["warning: three"]
    assert log.read_text().splitlines()[1:] == [step, "three"]
    harness.do(ended(code=3))
    [end] = harness.lines("ended: ")
    first, requested, *rest = log.read_text().splitlines()
    assert (first, rest) == (end, [step, "three"])
    assert requested.startswith("stop requested at ")


def test_a_good_end_empties_the_termination_log(supervise: Callable[..., Harness], tmp_path: Path) -> None:
    log = tmp_path / "termination-log"
    harness = supervise("--termination-log", str(log))
    harness.receive(TERM)
    harness.do(STEP)
    assert log.read_text()
    harness.do(ended(code=0))
    assert harness.lines("ended: ")
    assert log.read_text() == ""

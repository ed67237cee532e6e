"""The supervisor in a made-up world: what goes wrong in between, and what only happens by chance in a real run.

Everything else it does is shown from outside, in tests/process1.
"""

from __future__ import annotations

import json
import math
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from entrypoint import settings as reader
from entrypoint.init import recipients, tree
from entrypoint.init import spawn as process
from entrypoint.init import stop_plan as plan
from entrypoint.init import supervisor as supervisors
from entrypoint.init.lifecycle import Action, End, Forward, KillAll, Measure, Say, Stop, StopHeldBack, StopSurvivors
from entrypoint.init.signalfd import Received
from entrypoint.init.stall_report import Reporter
from entrypoint.init.supervisor import MOST_RETRIES, REAPED_AT_ONCE, Sender, Supervisor
from entrypoint.init.tree import Process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

AGENT = 10_000_001  # no such pid can be: nothing that is sent to it would reach anybody
US = os.getpid()
ABRT, CHLD, CONT, INT, KILL, TERM, TSTP, TTIN, USR1, WINCH = (
    int(getattr(signal, f"SIG{name}")) for name in "ABRT CHLD CONT INT KILL TERM TSTP TTIN USR1 WINCH".split()
)


def exited(code: int) -> int:
    return code << 8


def stopped(number: int) -> int:
    return number << 8 | 0x7F


class World:
    """All processes there are, who of them handles what, and what becomes of signals."""

    def __init__(self) -> None:
        self.processes: dict[int, Process] = {}
        self.handled: dict[int, set[int]] = {}
        self.ended: list[tuple[int, int]] = []  # what waitpid(2) will tell
        self.alone = False  # ... and that there is no child any more
        self.sent: list[tuple[int, int]] = []
        self.refused: dict[int, OSError] = {}  # what comes of a signal to this pid
        self.blind = False  # no /proc
        self.front: int | None = None  # the terminal's foreground group
        self.front_meanwhile: int | None = None  # ... while we were stopped
        self.job_control = False
        self.busy: set[int] = set()  # do not wait for their children
        self.helpers: set[int] = set()  # are in a conversation with their parents
        self.add(AGENT, US, "agent")

    def add(self, pid: int, parent: int, name: str = "child", *handled: int, group: int = AGENT) -> Process:
        self.processes[pid] = Process(pid, name, parent, group, pid % 1000)
        self.handled[pid] = set(handled)
        return self.processes[pid]

    def look(self, pid: int) -> Process | None:
        return None if self.blind else self.processes.get(pid)

    def pids(self) -> list[int]:
        if self.blind:
            raise FileNotFoundError
        return list(self.processes)

    def children(self, pid: int) -> list[Process]:
        return [] if self.blind else [process for process in self.processes.values() if process.parent == pid]

    def kill(self, pid: int, number: int) -> None:
        if pid in self.refused:
            raise self.refused[pid]
        if (pid, number) == (US, signal.SIGSTOP):
            self.front_meanwhile = self.front
        self.sent.append((pid, number))

    def send(self, process: Process, *numbers: int) -> bool:
        for number in numbers:
            self.kill(process.pid, number)
        return True

    def waitpid(self, pid: int, flags: int) -> tuple[int, int]:
        assert (pid, flags) == (-1, os.WNOHANG | os.WUNTRACED)
        if self.ended:
            return self.ended.pop(0)
        if self.alone:
            raise ChildProcessError
        return 0, 0

    def give_terminal(self, group: int) -> None:
        self.front = group


class Known:
    """Takes the place of `tree.Dispositions`."""

    world: World

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def __bool__(self) -> bool:
        return not self.world.blind and self.pid in self.world.handled

    def catches(self, number: int) -> bool:
        return bool(self) and number in self.world.handled[self.pid]

    def minds(self, number: int) -> bool:
        return not self or self.catches(number)

    def close(self) -> None:
        self.pid = 0


class Source:
    """Takes the place of the signalfd."""

    def __init__(self, fd: int) -> None:
        self.fd, self.there = fd, list[int]()

    def read(self, inbox: list[Received]) -> None:
        inbox += [Received(number, bytes(16)) for number in self.there]  # from outside
        self.there.clear()


class Kills:
    """Takes the place of the control group's memory."""

    room = None

    def __init__(self, new_kills: int | None, limit: int | None = None, peak: int | None = None) -> None:
        self.new_kills, self.limit, self.peak = new_kills, limit, peak


class Stage:
    """A supervisor of the agent AGENT."""

    def __init__(self, world: World, directory: Path, *flags: str, **more: Any) -> None:
        self.world, self.output = world, directory / "stderr"
        self.fd = os.open(self.output, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        read_end, writer = os.pipe()
        self.source = Source(read_end)
        self.fds = [self.fd, read_end, writer]
        given = {"package": "/none", "stderr": self.fd, "terminal_of": None, "problems": (), **more}
        settings = reader.read([*flags, "--", "/app/agent", "secret"], given.pop("environment", {}))
        self.supervisor = Supervisor(
            settings,
            plan.make(settings, {}, lambda _: False),
            self.source,  # type: ignore[arg-type]
            AGENT,
            given.pop("offered", None),
            started=time.monotonic(),
            **given,
        )

    def came(self, *numbers: int) -> None:
        """Signals."""
        self.source.there += numbers
        self.supervisor._catch_up()

    def turn(self) -> None:
        """What the loop does next, if it does anything now."""
        loop = self.supervisor.loop
        later = loop.call_at(loop.time() + 0.01, lambda: None)
        loop._run_once()
        loop.cancel(later)

    def do(self, *actions: Action) -> None:
        self.supervisor._to_do += actions
        self.supervisor._carry_out()

    def lines(self, word: str = "") -> list[str]:
        lines = self.output.read_text().splitlines()
        return [line.removeprefix("agent-init: ") for line in lines if word in line]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    Known.world = made
    for name in ("look", "pids", "send"):
        monkeypatch.setattr(tree, name, getattr(made, name))
    monkeypatch.setattr(tree, "children", made.children)
    monkeypatch.setattr(tree, "program_names", lambda process: {process.name})
    monkeypatch.setattr(recipients, "is_wrapper", lambda process, _: process.pid not in made.busy)
    monkeypatch.setattr(recipients, "is_helper", lambda child, _: child.pid in made.helpers)
    monkeypatch.setattr(tree, "Dispositions", Known)
    monkeypatch.setattr(os, "kill", made.kill)
    monkeypatch.setattr(os, "waitpid", made.waitpid)
    monkeypatch.setattr(process, "foreground", lambda: made.front)
    monkeypatch.setattr(process, "give_terminal", made.give_terminal)
    monkeypatch.setattr(process, "has_job_control_above", lambda: made.job_control)
    return made


@pytest.fixture
def stage(world: World, tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    made: list[Stage] = []

    def make(*flags: str, **more: Any) -> Stage:
        made.append(Stage(world, tmp_path, *flags, **more))
        return made[-1]

    yield make
    for fd in (fd for one in made for fd in one.fds):
        os.close(fd)


def failing(real: Callable[..., Any], *errors: BaseException) -> Callable[..., Any]:
    """`real`, which fails at first: once with each of the errors."""
    left = list(errors)

    def call(*arguments: Any, **more: Any) -> Any:
        if left:
            raise left.pop(0)
        return real(*arguments, **more)

    return call


# --- Words. ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pid", "code", "told"),
    [
        (None, 0, "somebody"),
        (0, 0x80, "the kernel"),
        (0, 0, "outside the container"),
        (AGENT, 0, f"agent (pid {AGENT})"),
        (17, 0, "pid 17"),
    ],
)
def test_who_sent_a_signal_is_told_as_far_as_it_is_known(world: World, pid: int | None, code: int, told: str) -> None:
    numbers = (TERM, 0, code, pid or 0)
    info = b"" if pid is None else b"".join(number.to_bytes(4, "little") for number in numbers)
    assert str(Sender(Received(TERM, info))) == told


def test_what_went_wrong_on_the_way_here_is_told(stage: Callable[..., Stage]) -> None:
    played = stage("-q", problems=["no socket", "no subreaper"])
    played.came()
    assert played.lines() == ["warning: no socket", "warning: no subreaper"]


@pytest.mark.parametrize(
    ("flags", "pid", "what", "role"),
    [
        ([], 1, "agent", "process 1"),
        (["-v"], 2, "agent", "subreaper"),
        (["-s"], 2, "agent", "subreaper"),
        (["--no-subreaper", "-vv"], 2, "/app/agent secret", "plain parent"),
    ],
)
def test_what_was_started_is_told_and_as_what(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch, flags: list[str], pid: int, what: str, role: str
) -> None:
    """Its arguments, which may hold secrets, only where all is to be told."""
    monkeypatch.setattr(os, "getpid", lambda: pid)
    played = stage(*flags)
    played.supervisor._carry_out()
    why = played.supervisor.plan.why
    assert played.lines() == [f"started {what} (pid {AGENT}), as {role}; {why}"]
    assert played.supervisor.reporter._fixed["arguments"] is ("secret" in what)


@pytest.mark.parametrize(
    ("name", "hint"), [("AGENT_INIT_GRACEE", "; did you mean AGENT_INIT_GRACE?"), ("AGENT_INIT_QWXYZ", "")]
)
def test_a_variable_that_is_none_of_ours_is_told(stage: Callable[..., Stage], name: str, hint: str) -> None:
    played = stage("-q", environment={name: "1"})
    played.supervisor._carry_out()
    assert played.lines() == [f"warning: {name} is no variable of agent-init{hint}"]


@pytest.mark.parametrize(("grace", "told"), [("5s", 5), ("infinity", None)])
def test_the_first_line_in_json(stage: Callable[..., Stage], grace: str, told: int | None) -> None:
    played = stage("--log-format", "json", "-t", grace)
    played.supervisor._carry_out()
    [started] = map(json.loads, played.lines())
    assert (started["event"], started["pid"], started["program"], started["role"]) == (
        "started",
        AGENT,
        "agent",
        "subreaper",
    )
    assert (started["grace"], started["grace_from"]) == (told, played.supervisor.plan.why)


# --- No memory, or worse. -------------------------------------------------------------------------------------------


def test_a_request_for_which_there_is_no_memory_has_not_happened_yet(
    world: World, stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    played = stage()
    life = played.supervisor.lifecycle

    def fails_half_way(*_: object) -> list[Action]:
        life.state = "stopping"
        raise MemoryError

    with monkeypatch.context() as full:
        full.setattr(life, "signal", fails_half_way)
        with pytest.raises(MemoryError):
            played.came(TERM)
    assert life.state == "running"
    assert world.sent == []
    played.came()
    assert life.state == "stopping"
    assert world.sent == [(AGENT, TERM), (AGENT, CONT)]
    assert len(played.lines("stop requested by TERM from outside the container")) == 1


def test_a_signal_that_cannot_be_dealt_with_does_not_hold_up_the_others(
    world: World, stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    played = stage()
    life = played.supervisor.lifecycle
    monkeypatch.setattr(life, "signal", failing(life.signal, ValueError("odd")))
    played.came(USR1, TERM)
    assert [line.partition(" (")[0] for line in played.lines("unexpected")] == ["error: unexpected ValueError: odd"]
    assert world.sent == [(AGENT, TERM), (AGENT, CONT)]


def test_a_stop_is_tried_again_for_a_while_and_then_goes_to_the_agent_itself(
    world: World, stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    played = stage()
    played.supervisor._carry_out()
    monkeypatch.setattr(played.supervisor, "_instead", failing(lambda _: ([], ""), *[MemoryError()] * 100))
    with pytest.raises(MemoryError):
        played.do(Stop(TERM), End(3))
    for _ in range(MOST_RETRIES - 1):
        with pytest.raises(MemoryError):
            played.supervisor._carry_out()
    assert world.sent == []
    played.supervisor._carry_out()
    assert world.sent == [(AGENT, TERM)]
    assert played.supervisor.exit_code == 3
    with pytest.raises(MemoryError):  # the next has as many tries
        played.do(Stop(TERM))
    assert world.sent == [(AGENT, TERM)]


def test_a_stop_that_fails_for_another_reason_goes_to_the_agent_at_once(
    world: World, stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    played = stage()
    monkeypatch.setattr(played.supervisor, "_instead", failing(lambda _: ([], ""), ValueError("odd")))
    played.do(Stop(TERM), End(3))
    assert world.sent == [(AGENT, TERM)]
    assert played.lines("unexpected ValueError: odd (test_supervisor.py:")
    assert played.supervisor.exit_code == 3


@pytest.mark.parametrize(
    ("action", "retried"),
    [
        (End(3), True),
        (Forward(USR1, "x", always=True), True),
        (StopSurvivors(TERM), True),
        (KillAll(), False),
        (Say(0, "event", "text"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_tried_again_for_want_of_memory(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch, action: Action, retried: bool
) -> None:
    played = stage()
    played.supervisor._carry_out()
    done: list[Action] = []
    monkeypatch.setattr(played.supervisor, "_do", failing(done.append, MemoryError()))
    last = Say(0, "last", "text")
    if retried:
        with pytest.raises(MemoryError):
            played.do(action, last)
        assert done == []
        played.supervisor._carry_out()
        assert done == [action, last]
    else:
        played.do(action, last)
        assert done == [last]


def test_of_the_first_line_nothing_hangs(stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch) -> None:
    played = stage(problems=["no socket"])
    monkeypatch.setattr(played.supervisor, "_do", failing(played.supervisor._do, MemoryError()))
    played.supervisor._carry_out()
    assert played.lines() == ["warning: no socket"]


def test_survivors_that_are_tried_again_are_looked_for_again(
    world: World, stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """But who has had the signal does not get it again."""
    played = stage()
    played.supervisor._carry_out()
    del world.processes[AGENT]
    world.add(20, US)
    world.add(21, US)
    send = world.send

    def fails_once(process: Process, *numbers: int) -> bool:
        if process.pid == 21 and 22 not in world.processes:
            world.add(22, US)
            raise MemoryError
        return send(process, *numbers)

    monkeypatch.setattr(tree, "send", fails_once)
    with pytest.raises(MemoryError):
        played.do(StopSurvivors(TERM))
    played.supervisor._carry_out()
    assert world.sent == [(pid, number) for pid in (20, 21, 22) for number in (TERM, CONT)]


def test_what_cannot_even_be_told_ends_nothing(stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch) -> None:
    played = stage()
    monkeypatch.setattr(played.supervisor.console, "say", failing(lambda: None, *[MemoryError()] * 10))
    monkeypatch.setattr(played.supervisor, "_say", failing(lambda: None, *[ValueError()] * 10))
    played.do(Say(0, "event", "text"), End(4))
    assert played.supervisor.exit_code == 4


def test_an_error_without_a_trace_is_told_without_a_place(stage: Callable[..., Stage]) -> None:
    played = stage()
    played.supervisor._unexpected(ValueError("odd"))
    assert played.lines() == ["error: unexpected ValueError: odd; going on"]


class Offered:
    """Takes the place of what was offered; to withdraw it fails."""

    socket, above, responders = None, "", "@x"
    withdrawn = False

    def withdraw(self) -> None:
        self.withdrawn = True
        raise MemoryError


def test_the_exit_code_comes_whatever_happens_at_the_end(stage: Callable[..., Stage]) -> None:
    offered = Offered()
    played = stage(offered=offered)
    played.supervisor._to_do.append(End(7))
    assert played.supervisor.run() == 7
    assert offered.withdrawn


@pytest.mark.parametrize(("front", "after"), [(AGENT, 77), (5, 5), (None, None)])
def test_the_terminal_is_given_back_if_the_agent_still_has_it(
    world: World, stage: Callable[..., Stage], front: int | None, after: int | None
) -> None:
    played = stage(terminal_of=77)
    world.front = front
    played.supervisor._to_do.append(End(7))
    assert played.supervisor.run() == 7
    assert world.front == after


# --- The main process. ----------------------------------------------------------------------------------------------


def test_a_main_process_that_is_named_twice_is_told_once(world: World, stage: Callable[..., Stage]) -> None:
    played = stage()
    main = world.add(20, AGENT, "main")
    for pid in (20, 20, AGENT, 20, 1):
        played.supervisor._heed({"MAINPID": str(pid)}, world.processes[AGENT])
    assert played.supervisor.main is main
    assert played.lines("main process is") == ["the agent's main process is main (pid 20)"] * 2
    assert played.lines("MAINPID=1 is no descendant of the agent; passed over")


def test_the_reporter_cannot_be_named(world: World, stage: Callable[..., Stage]) -> None:
    played = stage()
    world.add(30, US, "python")
    played.supervisor.reporter.pids.add(30)
    played.supervisor._heed({"MAINPID": "30"}, world.processes[AGENT])
    assert played.supervisor.main is None


@pytest.mark.parametrize("text", ["", "x", "-1", "1e3", "\u0661", "9" * 10])
def test_what_is_no_pid_names_nobody(world: World, stage: Callable[..., Stage], text: str) -> None:
    played = stage()
    played.supervisor._carry_out()
    played.supervisor._heed({"MAINPID": text}, world.processes[AGENT])
    assert played.lines("MAINPID") == []


@pytest.mark.parametrize(("handles", "sent"), [(True, [(20, USR1)]), (False, [])])
def test_what_is_forwarded_goes_to_the_main_process_if_it_minds(
    world: World, stage: Callable[..., Stage], handles: bool, sent: list[tuple[int, int]]
) -> None:
    played = stage()
    world.handled[AGENT].add(USR1)
    played.supervisor.main = world.add(20, AGENT, "main", *([USR1] if handles else []))
    played.came(USR1, USR1)
    assert world.sent == sent * 2
    assert bool(played.lines("USR1 from outside the container dropped")) is not handles


def test_one_look_serves_a_crowd_of_signals_that_nobody_handles(world: World, stage: Callable[..., Stage]) -> None:
    played = stage()
    looks: list[int] = []
    minds = played.supervisor._minds
    played.supervisor._minds = lambda number: (looks.append(number), minds(number))[1]  # type: ignore[method-assign, func-returns-value]
    played.came(*[USR1] * 5)
    assert looks == [USR1]
    assert len(played.lines("dropped: nobody handles it")) == 5
    played.came(USR1)
    assert looks == [USR1] * 2


def test_one_look_serves_a_crowd_of_signals_that_the_agent_handles(
    world: World, stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    played = stage()
    world.handled[AGENT].add(USR1)
    looks: list[int] = []

    def minds(known: Known, number: int) -> bool:
        looks.append(number)
        return known.catches(number)

    monkeypatch.setattr(Known, "minds", minds)
    played.came(*[USR1] * 5)
    assert looks == [USR1]
    assert world.sent == [(AGENT, USR1)] * 5
    played.came(USR1)
    assert looks == [USR1] * 2


def test_signals_are_dealt_with_in_the_order_of_their_coming(world: World, stage: Callable[..., Stage]) -> None:
    played = stage()
    played.came(CONT, TERM, WINCH)
    assert world.sent == [(AGENT, CONT), (AGENT, TERM), (AGENT, CONT), (AGENT, WINCH)]


@pytest.mark.parametrize("had_it", [False, True])
def test_who_takes_over_in_a_stop_gets_the_step_that_is_under_way(
    world: World, stage: Callable[..., Stage], had_it: bool
) -> None:
    played = stage("--target", "child")
    before = played.supervisor.dispositions
    played.supervisor.main = world.add(20, US, "main", TERM, group=20)
    played.came(TERM)
    assert world.sent == [(AGENT, TERM), (AGENT, CONT)]
    if had_it:
        played.supervisor.stopped.add(world.processes[20].identity)
    world.sent.clear()
    world.ended.append((AGENT, exited(0)))
    played.came(CHLD)
    assert played.lines("its main process main (pid 20) is the agent now")
    assert not before, "closed"
    assert world.sent == ([] if had_it else [(20, TERM), (20, CONT)])
    world.ended.append((20, exited(6)))
    world.alone = True
    played.came(CHLD)
    assert played.supervisor.exit_code == 6


@pytest.mark.parametrize("why", ["gone", "another", "dead", "not our child"])
def test_who_cannot_take_over_does_not(world: World, stage: Callable[..., Stage], why: str) -> None:
    played = stage()
    main = world.add(20, US, "main")
    played.supervisor.main = main
    if why == "gone":
        del world.processes[20]
    elif why == "another":
        world.add(20, US, "other").start += 1
    elif why == "dead":
        world.processes[20].alive = False
    else:
        world.add(20, AGENT, "main")
    world.ended.append((AGENT, exited(9)))
    world.alone = True
    played.came(CHLD)
    assert played.supervisor.exit_code == 9
    assert not played.lines("is the agent now")


def test_abrt_goes_to_who_was_heard_of_last(world: World, stage: Callable[..., Stage]) -> None:
    played = stage("--watchdog", "1s")
    speaker = world.add(20, AGENT, "worker")
    played.supervisor._heed({"STATUS": "busy"}, speaker)
    assert played.supervisor.speaker is None
    played.supervisor._heed({"WATCHDOG": "1"}, speaker)
    assert played.supervisor.speaker is speaker
    played.supervisor.lifecycle.hung = "watchdog"
    played.do(Stop(ABRT))
    assert world.sent == [(20, ABRT), (20, CONT)]
    assert played.lines("worker was heard of last; ABRT sent to worker (20)")
    played.supervisor.stood_in = []
    played.supervisor._heed({"WATCHDOG": "1"}, world.processes[AGENT])
    world.sent.clear()
    played.do(Stop(ABRT))
    assert world.sent == [(AGENT, ABRT), (AGENT, CONT)]


def test_who_has_not_spoken_yet_gets_its_abrt_itself(world: World, stage: Callable[..., Stage]) -> None:
    played = stage()
    played.supervisor.lifecycle.hung = "ready-timeout"
    played.do(Stop(ABRT))
    assert world.sent == [(AGENT, ABRT), (AGENT, CONT)]
    assert not played.lines("unexpected")


def test_before_the_first_step_who_takes_over_gets_nothing(world: World, stage: Callable[..., Stage]) -> None:
    played = stage("-t", "20s", "--stop-delay", "10s")
    played.came(TERM)
    played.supervisor.main = world.add(20, US, "main", TERM, group=20)
    world.ended.append((AGENT, exited(0)))
    played.came(CHLD)
    assert played.lines("its main process main (pid 20) is the agent now")
    assert world.sent == []


@pytest.mark.parametrize(
    ("agent", "number", "to"),
    [
        pytest.param("agent", TERM, AGENT, id="the agent handles it"),
        pytest.param("bash", TERM, AGENT, id="a shell handles it"),
        pytest.param("bash", INT, 20, id="a shell's habit"),
    ],
)
def test_who_gets_the_stop_signal_where_a_child_handles_it_too(
    world: World, stage: Callable[..., Stage], agent: str, number: int, to: int
) -> None:
    played = stage()
    world.add(AGENT, US, agent, number)
    world.add(20, AGENT, "worker", number)
    played.do(Stop(number))
    assert world.sent == [(to, number), (to, CONT)]


def test_a_stop_looks_at_all_and_what_is_forwarded_does_not(
    world: World, stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quick look may miss one."""
    played = stage()
    for pid in (20, 21):
        world.add(pid, AGENT, "worker", TERM, USR1)
    monkeypatch.setattr(tree, "children", lambda _: [world.processes[20]])
    played.do(Forward(USR1, "a test", always=False))
    assert world.sent == [(20, USR1)]
    world.sent.clear()
    played.do(Stop(TERM))
    assert world.sent == [(20, TERM), (20, CONT), (21, TERM), (21, CONT)]


def test_a_step_sent_after_all_were_signalled_goes_to_all(world: World, stage: Callable[..., Stage]) -> None:
    played = stage("-t", "20s")
    world.busy.add(AGENT)
    world.add(20, AGENT, "worker", TERM, ABRT)
    played.do(Stop(TERM))
    assert world.sent == [(20, TERM), (20, CONT)]
    played.do(StopHeldBack(TERM))
    assert world.sent[2:] == [(AGENT, TERM), (AGENT, CONT)]
    world.sent.clear()
    played.do(Stop(ABRT))
    assert world.sent == [(20, ABRT), (20, CONT), (AGENT, ABRT), (AGENT, CONT)]


def test_a_process_between_a_shell_and_the_recipient_is_held_back_too(
    world: World, stage: Callable[..., Stage]
) -> None:
    played = stage("-t", "20s")
    world.busy.add(20)
    world.add(20, AGENT, "launcher")
    world.add(21, 20, "worker", TERM)
    played.do(Stop(TERM), StopHeldBack(TERM))
    assert world.sent == [(21, TERM), (21, CONT), (20, TERM), (20, CONT)]


def test_with_a_group_as_target_it_has_had_the_stop_signal(world: World, stage: Callable[..., Stage]) -> None:
    played = stage("--target", "group")
    world.add(20, AGENT, "member")
    world.add(21, AGENT, "other", group=21)
    played.do(Stop(TERM))
    assert world.sent == [(-AGENT, TERM), (-AGENT, CONT)]
    del world.processes[AGENT]
    world.add(20, US, "member")
    world.add(21, US, "other", group=21)
    world.sent.clear()
    played.do(StopSurvivors(TERM))
    assert world.sent == [(21, TERM), (21, CONT)]


def test_a_later_step_goes_to_who_had_the_first(world: World, stage: Callable[..., Stage]) -> None:
    played = stage("-q")
    world.add(20, AGENT, "worker", TERM)
    played.do(Stop(TERM), Stop(ABRT))
    assert world.sent == [(20, TERM), (20, CONT), (20, ABRT), (20, CONT)]
    assert played.lines("sent to") == []
    del world.processes[20]
    world.sent.clear()
    played.do(Stop(ABRT))
    assert world.sent == [(AGENT, ABRT), (AGENT, CONT)]


# --- Ends. ----------------------------------------------------------------------------------------------------------


def test_many_ends_are_taken_in_parts(world: World, stage: Callable[..., Stage]) -> None:
    """The clock and the signals have their turn in between; then it comes back by itself."""
    played = stage("-vv")
    world.ended += [(pid, exited(0)) for pid in range(20_000, 20_000 + REAPED_AT_ONCE + 1)]
    played.came(CHLD)
    assert len(world.ended) == 1
    assert len(played.lines("reaped orphan")) == REAPED_AT_ONCE
    played.turn()
    assert world.ended == []


def test_where_the_agents_status_is_lost_its_end_is_told_as_such(world: World, stage: Callable[..., Stage]) -> None:
    played = stage()
    world.alone = True
    played.came()
    assert played.supervisor.exit_code == 125
    assert played.lines("ended: the agent has ended, its exit status was lost")


@pytest.mark.parametrize("heir", [False, True])
def test_a_reporter_is_not_left_behind_by_the_agent(world: World, stage: Callable[..., Stage], heir: bool) -> None:
    played = stage()
    world.add(30, US, "python")
    played.supervisor.reporter.pids.add(30)
    if heir:
        world.add(20, US, "heir")
    del world.processes[AGENT]
    world.ended.append((AGENT, exited(4)))
    played.came(CHLD)
    assert (30, KILL) in world.sent
    assert played.supervisor.exit_code == (None if heir else 4)
    assert bool(played.lines("left processes behind")) is heir
    world.ended.append((30, 9))
    played.came(CHLD)
    assert played.supervisor.reporter.pids == set()
    assert not played.lines("reaped")


LIMIT = 64 << 20


@pytest.mark.parametrize(
    ("status", "memory", "said", "code"),
    [
        (9, Kills(0), "which neither agent-init nor an OOM killer sent: somebody else did", 137),
        (9, Kills(None), "which agent-init did not send", 137),
        (9, Kills(1), "most likely for want of memory: the kernel's OOM killer struck once in this container", 137),
        (9, Kills(3, LIMIT, LIMIT), "struck 3 times in this container (memory: limit 64 MiB, peak 64 MiB)", 137),
        (9, Kills(1, LIMIT), "struck once in this container (memory: limit 64 MiB)", 137),
        (exited(1), Kills(1), "exited with code 1; meanwhile the kernel's OOM killer struck once", 1),
        (15, Kills(1), "was killed by SIGTERM; meanwhile the kernel's OOM killer struck once", 143),
        (15, Kills(0), "was killed by SIGTERM, after", 143),
    ],
)
def test_what_is_known_of_an_end_is_told_and_no_more(
    world: World, stage: Callable[..., Stage], status: int, memory: Kills, said: str, code: int
) -> None:
    played = stage()
    played.supervisor.memory = memory  # type: ignore[assignment]
    world.ended.append((AGENT, status))
    world.alone = True
    played.came(CHLD)
    assert played.supervisor.exit_code == code
    assert said in played.lines("ended: ")[0]


def test_a_kill_that_was_passed_on_is_told_as_such(world: World, stage: Callable[..., Stage]) -> None:
    played = stage("-r", "USR1:KILL", "--unhandled", "forward")
    played.came(USR1)
    assert world.sent == [(AGENT, KILL)]
    world.ended.append((AGENT, 9))
    world.alone = True
    played.came(CHLD)
    assert "was killed by SIGKILL, which was passed on to it" in played.lines("ended: ")[0]


def test_orphans_are_told_by_name_where_that_was_asked_for(
    world: World, stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that ends between the two looks has no name; one that is stopped is none."""

    class Found:
        def __init__(self, pid: int) -> None:
            self.si_pid = pid

    first = [Found(20), Found(99), None]
    monkeypatch.setattr(os, "waitid", lambda *_: first.pop(0) if first else None)
    played = stage("-w", "-q")
    world.add(20, US, "daemon")
    world.ended += [(20, exited(1)), (21, 9), (22, stopped(TSTP)), (23, exited(0))]
    played.came(CHLD)
    assert played.lines("reaped") == [
        "warning: reaped orphan daemon (pid 20), which exited with code 1",
        "warning: reaped orphan pid 21, which was killed by SIGKILL",
        "warning: reaped orphan pid 23, which exited with code 0",
    ]


# --- The report. ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blind", [False, True])
def test_what_each_process_has_used_before_is_known_to_the_report(
    world: World, stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch, blind: bool
) -> None:
    measured: list[list[Process]] = []
    monkeypatch.setattr(Reporter, "measure", lambda _, processes: measured.append(list(processes)))
    played = stage()
    world.blind = blind
    played.do(Measure())
    assert measured == [[] if blind else [world.processes[AGENT]]]


# --- Time. ----------------------------------------------------------------------------------------------------------


def test_the_loop_comes_back_when_something_is_due_and_only_then(world: World, stage: Callable[..., Stage]) -> None:
    played = stage("-t", "60s", "--linger", "5s")
    loop, life = played.supervisor.loop, played.supervisor.lifecycle
    played.came()
    assert loop._timers == []
    dues = []
    world.add(20, US, "heir")
    for number, ended in ((TERM, []), (CHLD, [(AGENT, exited(4))]), (TERM, [])):
        world.ended += ended
        played.came(number)
        dues.append(life.due)
        assert [timer.when for timer in loop._timers] == [life.due]
    assert len(set(dues)) == 2
    world.alone = True
    played.came(CHLD)
    assert (loop._timers, life.due) == ([], math.inf)


def test_what_is_due_at_the_same_time_is_done_one_after_the_other(
    world: World, stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reporter, "start", lambda *_: None)
    played = stage("--stop-schedule", "TERM/10s/INT/30s/KILL")
    now = 1000.0
    played.supervisor.loop.time = lambda: now
    played.came(TERM)
    now = 1008.5  # a report
    played.turn()
    world.sent.clear()
    now = 1010.0  # the next step, and a line of progress
    played.turn()
    assert world.sent == [(AGENT, INT), (AGENT, CONT)]
    assert not played.lines("stopping: ")
    played.turn()
    assert played.lines("stopping: 30s left, 1 process")


class Ear:
    """Takes the place of who listens at the notify socket: the agent is ready."""

    resumed = 0

    def hear(self, agent: int, main: Process | None) -> list[tuple[dict[str, str], Process]]:
        return [({"READY": "1"}, Process(agent, "agent", US, agent, 1))]

    def resume(self) -> None:
        self.resumed += 1


def test_what_the_agent_says_is_heard_and_counts_at_once(world: World, stage: Callable[..., Stage]) -> None:
    played = stage("--watchdog", "5s", "--ready-timeout", "60s")
    ear = played.supervisor.ear = Ear()  # type: ignore[assignment]
    played.came()
    assert ear.resumed == 1
    played.supervisor._told()
    assert played.lines("the agent is ready")
    assert [timer.when for timer in played.supervisor.loop._timers] == [played.supervisor.lifecycle.due]


def test_a_sign_of_life_that_came_in_time_is_heard_in_time(stage: Callable[..., Stage], world: World) -> None:
    """Both wait for process 1, which was late."""
    played = stage("--watchdog", "1s")
    now = time.monotonic()
    played.supervisor.loop.time = lambda: now
    alive = {"WATCHDOG": "1"}, world.processes[AGENT]
    played.supervisor._heed(*alive)
    now += 1
    played.supervisor._hear = lambda: played.supervisor._heed(*alive)  # type: ignore[method-assign]
    played.came()
    assert played.supervisor.lifecycle.state == "running"
    assert played.supervisor.lifecycle.due == now + 1


def test_what_waits_for_a_report_goes_on_as_soon_as_it_is_done(
    world: World, stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reporter, "start", lambda *_: None)
    played = stage("-t", "20s")
    played.supervisor._heed({"WATCHDOG": "trigger"}, world.processes[AGENT])
    assert world.sent == []
    played.supervisor._reported()
    played.turn()
    assert world.sent == [(AGENT, ABRT), (AGENT, CONT)]


# --- The termination log. -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 3])
def test_where_a_platform_will_kill_us_the_termination_log_is_written_early(
    stage: Callable[..., Stage], tmp_path: Path, code: int
) -> None:
    log = tmp_path / "termination-log"
    played = stage("--termination-log", str(log))
    played.do(Say(0, "event", "while it runs"))
    played.came(TERM)
    played.do(Say(0, "event", "one"), Say(0, "shielded", "dropped"), Say(1, "event", "progress"))
    played.supervisor._reported()
    assert not log.exists()
    played.do(Say(0, "limit-near", "two"))
    assert log.read_text() == "one\ntwo\n"
    played.supervisor._report_line("three")
    assert played.lines("three") == ["warning: three"]
    played.supervisor._reported()
    assert log.read_text() == "one\ntwo\nthree\n"
    played.do(Say(1, "ended", "the end", code=code))
    assert log.read_text() == ("the end\none\ntwo\nthree\n" if code else "")


def test_an_end_that_is_good_leaves_no_termination_log(stage: Callable[..., Stage], tmp_path: Path) -> None:
    log = tmp_path / "termination-log"
    played = stage("--termination-log", str(log))
    played.came(TERM)
    played.do(Say(0, "event", "one"), Say(1, "ended", "the end", code=0))
    assert played.lines("the end")
    assert not log.exists()


# --- The terminal. --------------------------------------------------------------------------------------------------

OURS = os.getpgrp()


@pytest.mark.parametrize(
    ("number", "front", "job", "after", "sent"),
    [
        pytest.param(TTIN, OURS, False, AGENT, [(-AGENT, CONT)], id="it wants what we have"),
        pytest.param(TTIN, OURS, True, AGENT, [(-AGENT, CONT)], id="it wants what we have, as a job"),
        pytest.param(TSTP, AGENT, True, AGENT, [(US, 19), (-AGENT, CONT)], id="Ctrl-Z, as a job"),
        pytest.param(TTIN, 77, True, 77, [(US, 19), (-AGENT, CONT)], id="in the background, as a job"),
        pytest.param(TSTP, AGENT, False, AGENT, [(-AGENT, CONT)], id="Ctrl-Z, and nobody to continue it"),
        pytest.param(TTIN, 77, False, 77, [], id="no terminal of its own"),
        pytest.param(TSTP, None, True, None, [], id="no terminal"),
        pytest.param(19, AGENT, True, AGENT, [], id="STOP"),
    ],
)
def test_a_stopped_agent(
    world: World,
    stage: Callable[..., Stage],
    number: int,
    front: int | None,
    job: bool,
    after: int | None,
    sent: list[tuple[int, int]],
) -> None:
    played = stage()
    world.front, world.job_control = front, job
    world.ended.append((AGENT, stopped(number)))
    played.came(CHLD)
    assert world.sent == sent
    # A job that stops gives the terminal back first; what is ours when it goes on, as after `fg`, is the agent's again.
    assert world.front == after
    if (US, 19) in sent:
        assert world.front_meanwhile == (OURS if front == AGENT else front)
    assert bool(played.lines("no terminal of its own")) is (not sent and front == 77)


def test_who_is_stopped_beside_the_agent_is_not_continued(world: World, stage: Callable[..., Stage]) -> None:
    played = stage()
    world.front = AGENT
    world.ended.append((20, stopped(TSTP)))
    played.came(CHLD)
    assert world.sent == []


def test_a_shell_that_brings_us_forward_brings_the_agent(world: World, stage: Callable[..., Stage]) -> None:
    played = stage()
    world.handled[AGENT].add(CONT)
    world.front = OURS
    played.came(CONT)
    assert (world.front, played.supervisor.terminal_of) == (AGENT, OURS)
    assert world.sent == [(AGENT, CONT)]


@pytest.mark.parametrize(
    ("front", "job", "after", "sent"),
    [
        pytest.param(OURS, True, AGENT, [(-AGENT, TSTP)], id="a job whose terminal was still ours"),
        pytest.param(AGENT, True, AGENT, [], id="a job whose agent has it"),
        pytest.param(OURS, False, OURS, [], id="nobody to continue it"),
    ],
)
def test_ctrl_z_that_comes_to_us(
    world: World,
    stage: Callable[..., Stage],
    front: int,
    job: bool,
    after: int,
    sent: list[tuple[int, int]],
) -> None:
    """It is the agent's to stop by; where we cannot know of that, it is a signal like any other."""
    played = stage()
    world.front, world.job_control = front, job
    played.came(TSTP)
    assert (world.front, world.sent) == (after, sent)
    assert bool(played.lines("TSTP from outside the container dropped")) is not bool(sent)


def test_a_running_job_without_its_agent_is_stopped_as_any(world: World, stage: Callable[..., Stage]) -> None:
    played = stage("--unhandled", "forward")
    world.front, world.job_control = OURS, True
    played.supervisor.group = OURS
    played.came(TSTP)
    assert world.sent == [(AGENT, TSTP)]


# --- Nothing to see. ------------------------------------------------------------------------------------------------


def test_without_proc_the_agent_and_its_group_are_reached(world: World, stage: Callable[..., Stage]) -> None:
    world.blind = True
    played = stage("-t", "1s")
    played.do(Stop(TERM), StopSurvivors(TERM), KillAll())
    assert world.sent == [
        (AGENT, TERM),
        (AGENT, CONT),
        (-AGENT, TERM),
        (-AGENT, CONT),
        (AGENT, KILL),
        (-AGENT, KILL),
    ]


def test_groups_are_killed_whole_unless_somebody_else_is_in_them(world: World, stage: Callable[..., Stage]) -> None:
    played = stage()
    world.add(20, AGENT, group=20)
    world.add(21, 20, group=20)
    world.add(30, AGENT, group=30)
    world.add(31, 1, "stranger", group=30)
    world.add(40, AGENT, group=OURS)
    played.do(KillAll())
    alone = [(pid, KILL) for pid in (AGENT, AGENT, 20, 21, 30, 40)]
    assert sorted(world.sent) == sorted([(-AGENT, KILL), (-20, KILL), *alone])


def test_process_1_kills_all_in_one_call(
    world: World, stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    played = stage()
    monkeypatch.setattr(os, "getpid", lambda: 1)
    played.do(KillAll())
    assert world.sent == [(-1, KILL)]


def test_where_nothing_is_known_all_is_forwarded(world: World, stage: Callable[..., Stage]) -> None:
    world.blind = True
    played = stage("-v")
    played.came(USR1)
    assert world.sent == [(AGENT, USR1)]


@pytest.mark.parametrize("target", ["child", "group"])
def test_an_agent_in_our_own_group_is_sent_to_alone(world: World, stage: Callable[..., Stage], target: str) -> None:
    world.blind = target == "child"
    world.processes[AGENT].group = OURS
    played = stage("--target", target)
    played.supervisor.group = OURS
    played.do(Stop(TERM), StopSurvivors(TERM), KillAll())
    assert {pid for pid, _ in world.sent} == {AGENT}


def test_a_look_that_fails_on_the_way_leaves_the_signal_to_the_agent(
    world: World, stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    played = stage()
    world.add(20, AGENT, "worker", TERM)
    monkeypatch.setattr(recipients, "resolve", failing(recipients.resolve, OSError("no /proc")))
    played.do(Stop(TERM))
    assert world.sent == [(AGENT, TERM), (AGENT, CONT)]


def test_what_a_shell_ignores_by_habit_it_does_not_mind(world: World, stage: Callable[..., Stage]) -> None:
    played = stage("--stop-on", "TERM")
    world.add(AGENT, US, "bash")
    played.came(INT)
    assert world.sent == []
    assert played.lines("INT from outside the container dropped: nobody handles it")
    world.handled[AGENT].add(INT)
    played.came(INT)
    assert world.sent == [(AGENT, INT)]


def test_to_nobody_anything_is_sent_whose_end_was_seen(world: World, stage: Callable[..., Stage]) -> None:
    played = stage()
    played.supervisor.agent_status = exited(0)
    played.do(Stop(TERM), Forward(USR1, "a test", always=True))
    assert world.sent == []


@pytest.mark.parametrize(
    ("error", "told"), [(ProcessLookupError(), []), (PermissionError(1, "no"), [f"to pid {AGENT}: no"] * 2)]
)
def test_what_cannot_be_sent_is_told_unless_it_has_ended(
    world: World, stage: Callable[..., Stage], error: OSError, told: list[str]
) -> None:
    played = stage()
    world.refused[AGENT] = error
    played.do(Stop(TERM), End(3))
    assert [line.partition(" ")[2].split(" ", 3)[3] for line in played.lines("cannot send")] == told
    assert played.supervisor.exit_code == 3


def test_a_stand_in_that_cannot_be_sent_to_leaves_the_signal_to_the_agent(
    world: World, stage: Callable[..., Stage]
) -> None:
    played = stage()
    world.add(20, AGENT, "worker", TERM)
    world.refused[20] = PermissionError(1, "Operation not permitted")
    played.do(Stop(TERM))
    assert played.lines("cannot send") == ["warning: cannot send TERM to worker (pid 20): Operation not permitted"]
    assert world.sent == [(AGENT, TERM), (AGENT, CONT)]


@pytest.mark.parametrize("blind", [False, True])
def test_a_crowd_is_neither_named_nor_counted(
    world: World, stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch, blind: bool
) -> None:
    """Nor is anybody where there is no /proc."""
    monkeypatch.setattr(supervisors, "COUNTED_AT_MOST", 1)
    played = stage()
    world.blind = blind
    if not blind:
        world.add(20, AGENT)
    played.do(Say(0, "event", "text", census="names"), Say(0, "event", "text", census="last"))
    played.supervisor.agent_status = exited(0)
    played.do(Say(0, "event", "text", census="count"))
    assert played.lines("warning") == [
        f"warning: text; still there: agent ({AGENT}), and whoever else there is: too many to look at",
        "warning: text",
        "warning: text; too many processes to look at, or none to be seen",
    ]


def test_who_is_there_is_counted_or_named(
    world: World, stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the end who was there when it was told last: by then nobody is."""
    monkeypatch.setattr(supervisors, "COUNTED_AT_MOST", 2)
    played = stage()
    played.do(Say(1, "event", "text", census="count", tail="; busy"))
    world.add(20, AGENT)
    played.do(Say(1, "event", "text", census="count"), Say(1, "event", "text", census="names", tail="; busy"))
    del world.processes[20]
    played.do(Say(1, "event", "text", census="last"))
    del world.processes[AGENT]
    played.do(Say(1, "event", "text", census="names"))
    assert played.lines("text") == [
        "text, 1 process; busy",
        "text, 2 processes",
        f"text; still there: agent ({AGENT}), child (20); busy",
        f"text; there when it was sent: agent ({AGENT}), child (20)",
        "text",
    ]


@pytest.mark.parametrize(("count", "told"), [(12, "child (30)"), (13, "child (30) and 1 more"), (21, "and 9 more")])
def test_of_many_the_first_are_named(world: World, stage: Callable[..., Stage], count: int, told: str) -> None:
    played = stage()
    for pid in range(20, 20 + count - 1):
        world.add(pid, AGENT)
    played.do(Say(0, "event", "text", census="names"))
    assert played.lines("text")[0].endswith(told)


# --- One failing part does not take the others with it. ---------------------------------------------------------------


def test_what_fails_on_the_way_to_an_end_does_not_hold_it_up(
    world: World, stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An orphan of which nothing can be told, a stop of no consequence, a socket that cannot be read."""
    played = stage()
    for part in ("_say_reaped", "_agent_stopped", "_hear"):
        monkeypatch.setattr(played.supervisor, part, failing(lambda: None, ValueError(f"in {part}")))
    world.ended += [(20, exited(0)), (AGENT, stopped(TSTP)), (AGENT, exited(8))]
    world.alone = True
    played.came(CHLD)
    told = [line.partition(" (")[0] for line in played.lines("unexpected")]
    assert told == [f"error: unexpected ValueError: in {part}" for part in ("_say_reaped", "_agent_stopped", "_hear")]
    assert played.supervisor.exit_code == 8


def test_the_last_child_to_be_reaped_is_the_end(world: World, stage: Callable[..., Stage]) -> None:
    played = stage()
    world.add(20, US, "heir")
    world.ended.append((AGENT, exited(6)))
    played.came(CHLD)
    assert played.supervisor.exit_code is None
    world.ended.append((20, exited(0)))
    played.came(CHLD)
    assert played.supervisor.exit_code is None  # not all is known to have ended
    world.alone = True
    played.came(CHLD)
    assert played.supervisor.exit_code == 6


@pytest.mark.parametrize("action", [Stop(TERM), KillAll()], ids=repr)
def test_a_report_is_not_waited_for_by_what_comes_after_it(
    world: World, stage: Callable[..., Stage], action: Action
) -> None:
    played = stage()
    played.supervisor.reporter.pids.add(30)
    played.do(action)
    assert world.sent[0] == (30, KILL)


def test_what_is_passed_on_is_told_where_that_was_asked_for(world: World, stage: Callable[..., Stage]) -> None:
    played = stage("-v")
    world.handled[AGENT].add(USR1)
    played.came(USR1)
    assert world.sent == [(AGENT, USR1)]
    assert played.lines("USR1 from outside the container forwarded to the agent")

"""Orphans that are stopped while the agent runs: who, when, and never anybody else."""

from __future__ import annotations

import errno
import math
import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from entrypoint.init import dispositions, orphans, procfs, tree
from entrypoint.init.orphans import FROZEN_AFTER, MAX_PAUSE, MIN_PAUSE, OVERDUE_PAUSE, STOPPING_PAUSE, Orphans
from entrypoint.init.procfs import Process
from tests.support.world import AGENT, CONT, KILL, OWN_GROUP, OWN_PID, TERM, Harness, World

if TYPE_CHECKING:
    from collections.abc import Callable

    Identity = tuple[int, int]

ALLOWED, LINGER = 60.0, 5.0


def handles_none(_: Process) -> bool:
    return False


def process(pid: int, parent: int = OWN_PID) -> Process:
    return Process(pid, "tool", parent, pid, pid)


# --- The decisions. -------------------------------------------------------------------------------------------------


def test_an_orphan_counts_from_the_first_look_and_is_stopped_then_killed() -> None:
    plan, orphan = Orphans(ALLOWED, LINGER), process(20)
    assert plan.look(0.0, [orphan]) == []
    assert plan.look(59.9, [orphan]) == []
    assert plan.next_look(59.9) == 60.0
    assert plan.look(60.0, [orphan]) == [orphan]
    assert plan.decide(60.0, [orphan], handles_none) == ([orphan], [])
    assert plan.adopted_at(orphan) == 0.0
    now = plan.next_look(60.0)
    assert now == 60.0 + STOPPING_PAUSE
    while now < 65.0:
        assert plan.look(now, [orphan]) == [orphan]
        assert plan.decide(now, [orphan], handles_none) == ([], [])
        now = plan.next_look(now)
    assert now == 65.0
    assert not plan.was_killed(orphan)
    assert plan.decide(65.0, [orphan], handles_none) == ([], [orphan])
    assert plan.was_killed(orphan)
    assert plan.next_look(65.0) == 65.0 + ALLOWED / orphans.LOOKS
    assert plan.look(71.0, [orphan]) == [orphan]
    assert plan.decide(71.0, [orphan], handles_none) == ([], [orphan])  # again


def test_an_orphan_that_has_exited_is_forgotten() -> None:
    plan, orphan = Orphans(ALLOWED, LINGER), process(20)
    plan.look(0.0, [orphan])
    plan.decide(60.0, [orphan], handles_none)
    plan.decide(65.0, [orphan], handles_none)
    plan.forget(lambda _: True)
    assert plan.signalled == {orphan.identity}
    plan.forget(lambda _: False)
    assert plan.signalled == frozenset()
    assert not plan.was_killed(orphan)
    plan.look(66.0, [])
    assert vars_of(plan) == vars_of(Orphans(ALLOWED, LINGER))


def vars_of(plan: Orphans) -> dict[str, object]:
    return {name: getattr(plan, name) for name in Orphans.__slots__ if name != "_due"}


def test_another_process_with_the_pid_counts_anew() -> None:
    plan = Orphans(ALLOWED, LINGER)
    plan.look(0.0, [process(20)])
    other = Process(20, "other", OWN_PID, 20, 21)
    assert plan.look(60.0, [other]) == []
    assert plan.look(120.0, [other]) == [other]


@pytest.mark.parametrize(
    ("allowed", "pause"), [(0.2, MIN_PAUSE), (1.0, MIN_PAUSE), (50.0, 5.0), (100.0, MAX_PAUSE), (3600.0, MAX_PAUSE)]
)
def test_looks_are_a_part_of_the_time_apart(allowed: float, pause: float) -> None:
    plan = Orphans(allowed, LINGER)
    plan.look(1.0, [])
    assert plan.next_look(1.0) == 1.0 + pause


def test_a_look_is_never_due_at_once() -> None:
    """What had no turn has it soon."""
    plan, orphan = Orphans(ALLOWED, LINGER), process(20)
    plan.look(0.0, [orphan])
    assert plan.next_look(90.0) == 90.0 + OVERDUE_PAUSE


@pytest.mark.parametrize("late", [FROZEN_AFTER - 0.1, 30.0])
def test_time_in_which_process_1_was_frozen_does_not_count(late: float) -> None:
    plan, orphan, other = Orphans(ALLOWED, LINGER), process(20), process(21)
    plan.look(0.0, [orphan])
    plan.look(30.0, [orphan, other])
    plan.decide(60.0, [orphan], handles_none)
    due = plan.next_look(60.0)
    counts = late <= FROZEN_AFTER
    plan.look(due + late, [orphan, other])
    before = 65.0 if counts else 65.0 + late
    assert plan.decide(before - 0.1, [orphan], handles_none) == ([], [])
    assert plan.decide(before, [orphan], handles_none) == ([], [orphan])
    plan.next_look(before)
    assert plan.look(before, [orphan, other]) == [orphan]
    at = 90.0 if counts else 90.0 + late
    plan._due = math.inf
    assert plan.look(at - 0.1, [other]) == []
    assert plan.look(at, [other]) == [other]


def test_the_topmost_handlers_come_first_and_the_rest_when_they_are_gone() -> None:
    shell, one, worker, tee = process(20), process(21, 20), process(22, 21), process(23, 20)
    two = process(24, 23)
    plan = Orphans(ALLOWED, LINGER)
    plan.look(0.0, [shell])
    family = [shell, one, tee, worker, two]
    handles = [one, worker, two]
    assert plan.decide(60.0, family, handles.__contains__) == ([one, two], [])
    assert plan.decide(61.0, family, handles.__contains__) == ([], [])  # once each
    # The worker has become our child, and had no signal; the rest of the tree has it now.
    worker.parent = OWN_PID
    assert plan.look(63.0, [shell, worker]) == [shell, worker]
    assert plan.decide(63.0, [shell, tee], handles.__contains__) == ([shell, tee], [])
    assert plan.decide(63.0, [worker], handles.__contains__) == ([worker], [])
    assert plan.adopted_at(worker) == 0.0
    assert plan.decide(67.9, [shell], handles.__contains__) == ([], [])
    assert plan.decide(68.0, [shell], handles.__contains__) == ([], [shell])
    assert plan.decide(68.0, [worker], handles.__contains__) == ([], [worker])


def test_a_shell_that_starts_more_and_more_gets_no_more_time() -> None:
    shell = process(20)
    plan = Orphans(ALLOWED, LINGER)
    plan.look(0.0, [shell])
    for n in range(5):
        program = process(30 + n, 20)
        assert plan.decide(60.0 + n, [shell, program], [program].__contains__) == ([program], [])
    assert plan.decide(65.0, [shell, process(40, 20)], handles_none)[1]


def test_an_orphan_that_is_spared_counts_anew() -> None:
    plan, orphan = Orphans(ALLOWED, LINGER), process(20)
    plan.look(0.0, [orphan])
    plan.spare(60.0, orphan)
    assert plan.look(119.0, [orphan]) == []
    plan.decide(120.0, [orphan], handles_none)
    plan.spare(121.0, orphan)
    assert plan.look(130.0, [orphan]) == []


def test_what_is_overdue_has_its_turn_in_a_while_and_no_other_waits_longer_for_that() -> None:
    plan, overdue, other, soon = Orphans(ALLOWED, LINGER), process(20), process(21), process(22)
    plan.look(0.0, [overdue])
    plan.look(60.5, [overdue, other])
    assert plan.next_look(60.5) == 60.5 + OVERDUE_PAUSE
    plan.look(0.3, [overdue, other, soon])
    plan._adopted[soon.identity] = 0.7
    assert plan.next_look(60.5) == 60.7


@pytest.mark.parametrize("spared", [True, False], ids=["spared", "killed"])
def test_the_end_of_the_linger_time_makes_no_look_due_at_once_again_and_again(spared: bool) -> None:
    """`spared`: it is no orphan any more, but known as one that is being stopped."""
    plan, orphan = Orphans(ALLOWED, LINGER), process(20)
    plan.look(0.0, [orphan])
    plan.decide(60.0, [orphan], handles_none)
    now, looks = 60.0, 0
    while now < 125.0:
        for found in plan.look(now, [] if spared else [orphan]):
            plan.decide(now, [found], handles_none)
        plan.forget(lambda _: True)
        following = plan.next_look(now)
        assert following >= now + MIN_PAUSE or following == 65.0
        now, looks = following, looks + 1
    assert plan.was_killed(orphan) is not spared
    assert looks <= LINGER / STOPPING_PAUSE + 60.0 / (ALLOWED / orphans.LOOKS) + 3


class AnyTrees(RuleBasedStateMachine):
    """Processes come and go below us in any order; a look comes whenever it is due, or later."""

    @initialize(linger=st.sampled_from([0.0, 3.0, 5.0]))
    def begin(self, linger: float) -> None:
        self.plan = Orphans(10.0, linger)
        self.now, self.linger = 0.0, linger
        self.next_pid, self.next_look = 100, 0.0
        self.alive: dict[int, Process] = {}
        self.started_by: dict[int, int] = {}
        self.handlers: set[Identity] = set()
        self.adopted: dict[Identity, float] = {}  # as the world has it: when it became a child of ours
        self.stopped: dict[Identity, float] = {}
        self.began: dict[Identity, float] = {}  # when its tree got the stop signal first, or it did as an orphan

    def add(self, parent: int, *, handles: bool) -> None:
        new = process(self.next_pid, parent)
        self.next_pid += 1
        self.started_by[new.pid] = parent
        self.alive[new.pid] = new
        if handles:
            self.handlers.add(new.identity)
        if parent == OWN_PID:
            self.adopted[new.identity] = self.now

    @rule(handles=st.booleans())
    def an_orphan_is_adopted(self, handles: bool) -> None:
        self.add(OWN_PID, handles=handles)

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), handles=st.booleans())
    def a_process_forks(self, data: Any, handles: bool) -> None:
        self.add(data.draw(st.sampled_from(sorted(self.alive))), handles=handles)

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def a_process_exits(self, data: Any) -> None:
        self.ends(data.draw(st.sampled_from(sorted(self.alive))))

    def ends(self, pid: int) -> None:
        del self.alive[pid]
        for child in self.alive.values():
            if child.parent == pid:
                child.parent = OWN_PID
                self.adopted[child.identity] = self.now

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0, 4.0]))
    def time_passes(self, seconds: float) -> None:
        end = self.now + seconds
        while self.next_look <= end:
            self.now = max(self.now, self.next_look)
            self.look()
        self.now = end

    def look(self) -> None:
        children = [p for p in self.alive.values() if p.parent == OWN_PID]
        for orphan in self.plan.look(self.now, children):
            family = [orphan, *tree.below(orphan.pid, self.alive)]
            to_stop, to_kill = self.plan.decide(self.now, family, lambda p: p.identity in self.handlers)
            assert not (to_stop and to_kill)
            for p in to_stop:
                assert p.identity not in self.stopped, "one stop signal each"
                assert self.has_waited(p.pid), "not before its time"
                above = self.alive.get(p.parent)
                assert above is None or above.identity not in self.handlers, "not below a handler"
            for p in to_stop:
                self.stopped[p.identity] = self.now
            if to_stop and (orphan in to_stop or orphan.identity not in self.began):
                self.began[orphan.identity] = self.now
            for p in family[1:] if orphan.identity in self.began else ():
                self.began.setdefault(p.identity, self.began[orphan.identity])
            if to_kill:
                assert self.now >= self.began[orphan.identity] + self.linger, "the stop signal and its time come first"
            for p in to_kill:
                self.ends(p.pid)
        self.plan.forget(lambda known: known[0] in self.alive)
        self.next_look = self.plan.next_look(self.now)
        assert self.next_look > self.now

    def has_waited(self, pid: int) -> bool:
        """Whether the process, or one that it descends from, was an orphan for long enough."""
        while pid != OWN_PID:
            if self.now >= self.adopted.get((pid, pid), math.inf) + self.plan.allowed - 1e-9:
                return True
            pid = self.started_by[pid]
        return False

    @invariant()
    def no_orphan_outlives_its_time(self) -> None:
        """Its own time, a linger time for each generation above that handles the signal, and the pauses."""
        if not hasattr(self, "plan"):
            return
        for p in self.alive.values():
            at = self.adopted.get(p.identity)
            if at is not None and p.parent == OWN_PID:
                assert self.now <= at + 10.0 + 2 * self.linger + 5 * STOPPING_PAUSE + 1.0


AnyTrees.TestCase.settings = hypothesis_settings(max_examples=150, stateful_step_count=40, deadline=None)
TestAnyTrees = AnyTrees.TestCase


# --- The looks, in a simulated world. -------------------------------------------------------------------------------


@pytest.fixture
def look(world: World, supervise: Callable[..., Harness]) -> Callable[..., Callable[[float], float]]:
    """Make a supervisor with the given options; return its look at a time."""

    def make(*flags: str, **more: Any) -> Callable[[float], float]:
        harness = supervise("--orphans", "60s", *flags, **more)
        make.harness = harness  # type: ignore[attr-defined]
        assert harness.supervisor.execution.orphans is not None
        return harness.supervisor.execution.orphans.look

    return make


def drive(see: Callable[[float], float], until: float, now: float = 0.0) -> float:
    """Look whenever it is time, up to `until`; return when the next look would be."""
    while now <= until:
        now = see(now)
    return now


def lines_of(look: Any, text: str = "orphan") -> list[str]:
    return list(look.harness.lines(text))


def test_an_orphan_and_its_tree_are_stopped_killed_and_logged(world: World, look: Any) -> None:
    see = look()
    world.add(20, OWN_PID, "bash")
    world.add(21, 20, "node")
    world.add(30, AGENT, "child")
    assert see(0.0) == 6.0
    assert drive(see, 60.0) == pytest.approx(60.2)
    assert world.sent == [(20, TERM), (20, CONT), (21, TERM), (21, CONT)]
    assert lines_of(look) == ["orphan bash (pid 20), adopted 1m ago: TERM to bash (20), node (21)"]
    assert set(look.harness.supervisor.execution.orphans.signalled) == {(20, 20), (21, 21)}
    world.sent.clear()
    del world.processes[21]
    assert drive(see, 65.0, 60.2) == pytest.approx(71.0)
    assert world.sent == [(20, KILL)]
    assert lines_of(look)[1:] == [
        "warning: orphan bash (pid 20), adopted 1m5s ago: 5s after TERM, SIGKILL to bash (20)"
    ]
    see(71.0)
    assert world.sent == [(20, KILL)] * 2, "again, without a line"
    assert len(lines_of(look)) == 2
    del world.processes[20]
    see(77.0)
    assert set(look.harness.supervisor.execution.orphans.signalled) == set()


def test_a_process_that_may_not_be_signalled_is_logged_once(world: World, look: Any) -> None:
    see = look()
    world.add(20, OWN_PID, "sudo")
    world.send_errors[20] = PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    drive(see, 90.0)
    assert lines_of(look, "cannot send") == [
        "warning: cannot send TERM to sudo (pid 20): Operation not permitted",
        "warning: cannot send KILL to sudo (pid 20): Operation not permitted",
    ]
    assert len(lines_of(look)) == 1


@pytest.mark.parametrize(
    "who", ["agent", "named", "sender", "helper", "older", "zombie", "above the main process", "group"]
)
def test_others_are_not_touched(world: World, look: Any, who: str) -> None:
    see = look(*(["-g"] if who == "group" else []), older=frozenset({(20, 20)}) if who == "older" else ())
    supervisor = look.harness.supervisor
    orphan = world.add(20, OWN_PID, "python", group=20)
    world.add(21, OWN_PID, "other", group=21)
    if who == "agent":
        del world.processes[20]
    elif who == "named":
        supervisor.agent.named = orphan
    elif who == "sender":
        supervisor.agent.last_sender = orphan
    elif who == "helper":
        supervisor.helper_pids.add(20)
    elif who == "zombie":
        orphan.alive = False
    elif who == "above the main process":
        supervisor.agent.named = world.add(22, 20, "main", group=20)
    elif who == "group":
        orphan.group = AGENT
    drive(see, 110.0)
    assert {pid for pid, _ in world.sent} == {21}


def test_a_process_that_is_named_while_its_tree_is_stopped_is_spared(world: World, look: Any) -> None:
    see = look()
    world.add(20, OWN_PID, "python")
    main = world.add(21, 20, "main")
    now = drive(see, 60.0)
    world.sent.clear()
    look.harness.supervisor.agent.named = main
    drive(see, 110.0, now)
    assert world.sent == []


@pytest.mark.parametrize("attribute", ["last_sender", "named"])
def test_an_orphan_that_speaks_for_the_agent_when_it_is_stopped_causes_no_more_looks(
    world: World, look: Any, attribute: str
) -> None:
    """It pings in its TERM handler: the end of the linger time is in the past then, for ever."""
    see = look("--linger", "5s")
    orphan = world.add(20, OWN_PID, "daemon", TERM)
    now = drive(see, 60.0)
    assert world.sent == [(20, TERM), (20, CONT)]
    setattr(look.harness.supervisor.agent, attribute, orphan)
    now, looks = drive(see, 66.0, now), 0
    while now <= 300.0:
        now, looks = see(now), looks + 1
    assert looks <= 300.0 / 6.0
    assert world.sent == [(20, TERM), (20, CONT)]


def test_where_it_is_unknown_who_handles_the_signal_the_topmost_gets_it(
    world: World, look: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispositions, "handles", lambda *_: None)
    see = look()
    world.add(20, OWN_PID, "bash")
    world.add(21, 20, "node")
    drive(see, 60.0)
    assert world.sent == [(20, TERM), (20, CONT)]


@pytest.mark.parametrize("why", ["not listed", "too many", "no /proc"])
def test_a_kernel_that_does_not_list_children(
    world: World, look: Any, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """Then all processes are looked at, unless there are too many."""
    see = look()
    monkeypatch.setattr(procfs, "children", lambda _: [])
    if why == "too many":
        monkeypatch.setattr(tree, "MAX_LISTED", 2)
    world.no_proc = why == "no /proc"
    world.add(20, OWN_PID, "bash")
    world.add(21, 20, "node")
    drive(see, 60.0)
    assert [pid for pid, _ in world.sent] == ([20, 20, 21, 21] if why == "not listed" else [])


def test_a_look_has_a_limit_and_the_rest_has_its_turn_later(
    world: World, look: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    see = look()
    monkeypatch.setattr(tree, "MAX_LISTED", 3)
    for pid in (20, 30, 40):
        world.add(pid, OWN_PID, "bash")
        for child in range(pid + 1, pid + 5):
            world.add(child, pid, "sleep")
    assert drive(see, 60.0) == pytest.approx(60.0 + STOPPING_PAUSE)
    assert [pid for pid, number in world.sent if number == TERM] == [20, 21, 22]


def test_a_circle_of_reused_pids_ends(world: World, look: Any) -> None:
    see = look()
    world.add(20, OWN_PID, "bash")
    world.add(21, 20, "node")
    real = world.children
    procfs_children = lambda pid: [world.processes[20]] if pid == 21 else real(pid)  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(procfs, "children", procfs_children)
        drive(see, 60.0)
    assert [pid for pid, number in world.sent if number == TERM] == [20, 21]


def test_without_proc_the_option_is_logged_as_useless(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(procfs, "MOUNTED", False)
    assert supervise("--orphans", "60s").lines("has no effect") == [f"warning: {orphans.NO_PROC}"]
    assert supervise().lines("has no effect") == []


# --- In the supervisor. ---------------------------------------------------------------------------------------------


def test_the_supervisor_looks_when_it_is_time_and_leaves_the_rest_to_the_stop(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise("--orphans", "60s")
    life, loop = harness.supervisor.lifecycle, harness.supervisor.loop
    now = loop.time() + 1.0
    monkeypatch.setattr(loop, "time", lambda: now)
    world.add(20, OWN_PID, "tool", group=OWN_GROUP)
    harness.receive()
    assert life.due == now + 6.0
    for _ in range(10):
        now += 6.0
        harness.receive()
    assert world.sent == [(20, TERM), (20, CONT)]
    world.wait_results.append((AGENT, 0))
    del world.processes[AGENT]
    harness.receive()
    assert life.state == "lingering"
    assert world.sent == [(20, TERM), (20, CONT)], "it has had its signal"


def test_a_look_that_fails_is_not_the_last(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise("--orphans", "60s")
    looks: list[float] = []

    def fail(now: float) -> float:
        looks.append(now)
        raise MemoryError

    monkeypatch.setattr(orphans.OrphanStopper, "look", lambda _, now: fail(now))
    now = harness.supervisor.loop.time() + 1.0
    monkeypatch.setattr(harness.supervisor.loop, "time", lambda: now)
    harness.receive()
    now += 10.0
    harness.receive()
    assert len(looks) == 2

"""What is below a wrapper that exits: work or not, signalled or not. Processes are made up."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from entrypoint.init import dispositions, foreground, leftovers, names, procfs, recipients, tree
from entrypoint.init.foreground import OF_EXIT_TRAP
from entrypoint.init.leftovers import Departures, Wrapper
from entrypoint.init.procfs import Process
from entrypoint.signals import QUIT, TERM

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT, SHELL, WORK, OTHER = 10, 11, 12, 13


class World:
    """A wrapper, and below it a process that handles TERM."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.processes: dict[int, Process] = {}
        self.handling: set[int] = set()
        self.ignoring: set[int] = set()
        self.background: set[int] = set()
        self.switches: dict[int, int] = {}
        self.running: set[int] = set()
        self.pending: set[int] = set()
        self.helpers: set[int] = set()
        self.known: set[int] = set()
        self.argvs: dict[int, list[str]] = {}
        self.channel, self.call = b"", b""
        self.add(ROOT, 1, "launcher")
        self.add(WORK, ROOT, "python", handles=True)
        monkeypatch.setattr(procfs, "look", self.processes.get)
        monkeypatch.setattr(dispositions, "handles", lambda process, _: process.pid in self.handling)
        monkeypatch.setattr(
            dispositions, "handles_or_ignores", lambda process, _: process.pid in self.handling | self.ignoring
        )
        monkeypatch.setattr(dispositions, "prefers_int", lambda process: process.name == "asyncio")
        monkeypatch.setattr(procfs, "program_names", lambda process: {process.name})
        monkeypatch.setattr(procfs, "argv_of", lambda pid: self.argvs.get(pid, []))
        monkeypatch.setattr(procfs, "wait_channel", lambda _: self.channel)
        monkeypatch.setattr(procfs, "read_file", self.read)
        monkeypatch.setattr(dispositions, "masks_are_false", lambda: False)
        monkeypatch.setattr(recipients, "is_helper", lambda child, *_: child.pid in self.helpers)
        monkeypatch.setattr(names, "is_wrapper", lambda process: process.pid in self.known)
        monkeypatch.setattr(
            foreground, "children", lambda _, among: [child for child in among if child.pid not in self.background]
        )

    def add(self, pid: int, parent: int, name: str, *, handles: bool = False) -> Process:
        self.processes[pid] = Process(pid, name, parent, 1, pid)
        self.switches[pid] = 100
        if handles:
            self.handling.add(pid)
        return self.processes[pid]

    def read(self, path: str, _: int = 0) -> bytes:
        pid, name = path.split("/")[-2:]
        if name == "syscall":
            if not self.call:
                raise PermissionError
            return self.call
        if int(pid) not in self.switches:
            raise FileNotFoundError
        mask = 1 << (TERM - 1) if int(pid) in self.pending else 0
        ignored = 1 << (QUIT - 1) if int(pid) in self.background else 0
        state = "R (running)" if int(pid) in self.running else "S (sleeping)"
        return (
            f"Name:\tx\nState:\t{state}\nSigPnd:\t0\nShdPnd:\t{mask:x}\nSigBlk:\t0\nSigIgn:\t{ignored:x}\n"
            f"voluntary_ctxt_switches:\t{self.switches[int(pid)]}\nnonvoluntary_ctxt_switches:\t7\n"
        ).encode()

    def wrapper(self, *, adapts: bool = False, is_enough: Callable[[], bool] = bool) -> Wrapper:
        of = tree.children_among(self.processes)
        return Wrapper(self.processes[ROOT], of, TERM, adapts=adapts, is_enough=is_enough)

    def left(self, made: Wrapper, *, died: bool) -> tuple[list[int], list[int]]:
        work, signalled = made.left(died=died)
        return [process.pid for process in work], [process.pid for process in signalled]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


# --- What is work. --------------------------------------------------------------------------------------------------


def test_below_a_wrapper_that_died_of_the_stop_signal_there_is_work(world: World) -> None:
    assert world.left(world.wrapper(), died=True) == ([WORK], [])


def test_below_an_agent_that_exited_with_a_code_there_is_none(world: World) -> None:
    assert world.left(world.wrapper(), died=False) == ([], [])


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (b"61 0xc 0x0 0x0 0x0", [WORK]),  # wait4(12)
        (b"247 0x1 0xc 0x0 0x4", [WORK]),  # waitid(P_PID, 12)
        (b"61 0xffffffff 0x0 0x0", []),  # wait4(-1)
        (b"61 0xffffffffffffffff 0x0 0x0", []),
        (b"61 0xd 0x0 0x0", []),
        (b"running", []),
        (b"", []),  # it may not be read
    ],
)
def test_what_a_process_waits_for_is_its_work(world: World, call: bytes, expected: list[int]) -> None:
    world.channel, world.call = b"do_wait", call
    made = world.wrapper()
    world.switches[WORK] += 2
    assert world.left(made, died=False) == (expected, expected)


def test_what_is_below_a_shell_that_a_process_waits_for_is_its_work(world: World) -> None:
    world.add(SHELL, ROOT, "sh")
    world.add(OTHER, SHELL, "python", handles=True)
    world.channel, world.call = b"do_wait", b"61 0xb 0x0 0x0"
    assert world.left(world.wrapper(), died=False)[0] == [OTHER]


def test_a_helper_is_no_work_unless_the_wrapper_is_known(world: World) -> None:
    world.add(OTHER, ROOT, "node", handles=True)
    world.helpers.add(OTHER)
    assert world.left(world.wrapper(), died=True)[0] == [WORK]
    world.known.add(ROOT)
    assert world.left(world.wrapper(), died=True)[0] == [WORK, OTHER]


def test_only_the_topmost_that_handle_the_signal_are_work(world: World) -> None:
    world.add(OTHER, WORK, "worker", handles=True)
    world.add(SHELL, ROOT, "sleep")
    assert world.left(world.wrapper(), died=True)[0] == [WORK]


def test_a_process_that_prefers_int_is_work_where_int_may_be_sent(world: World) -> None:
    world.add(OTHER, ROOT, "asyncio")
    assert world.left(world.wrapper(), died=True)[0] == [WORK]
    assert world.left(world.wrapper(adapts=True), died=True)[0] == [WORK, OTHER]


@pytest.mark.parametrize("died", [True, False])
def test_a_wrapper_that_has_waited_for_its_work_leaves_none(world: World, died: bool) -> None:
    world.known.add(ROOT)
    world.add(OTHER, ROOT, "Xvfb", handles=True)
    made = world.wrapper()
    del world.processes[WORK]
    assert world.left(made, died=died) == ([], [])


def test_a_process_that_ignores_the_signal_is_work_too(world: World) -> None:
    world.handling.clear()
    world.ignoring.add(WORK)
    world.add(OTHER, ROOT, "sleep")
    assert world.left(world.wrapper(), died=True)[0] == [WORK]


@pytest.mark.parametrize(
    ("name", "targets", "seconds", "expected"),
    [
        ("node", {0: "/dev/null", 20: "pipe:[1]"}, 0.5, [WORK]),
        ("node", {0: "socket:[1]", 20: "socket:[1]"}, 0.5, [WORK]),
        ("node", {0: "/dev/null", 20: "socket:[2]"}, 0.5, []),
        ("node", {}, 0.5, []),
        ("node", None, 0.5, []),
        ("node", {0: "/dev/null"}, 1.5, []),
        ("python", {0: "/dev/null"}, 0.5, []),
    ],
)
def test_below_a_program_for_node_without_sockets_there_is_work(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    targets: dict[int, str] | None,
    seconds: float,
    expected: list[int],
) -> None:
    now = 1000.0
    world.processes[ROOT].name = name
    monkeypatch.setattr(time, "monotonic", lambda: now)
    held: dict[str, list[str]] = {}
    for fd, target in (targets or {}).items():
        held.setdefault(target, []).append(str(fd))
    answers = iter([held if targets is not None else None])
    monkeypatch.setattr(procfs, "descriptors", lambda *_: next(answers, held))
    made = world.wrapper()
    now += seconds
    assert world.left(made, died=False)[0] == expected


def test_a_process_with_too_many_descriptors_is_no_wrapper_unless_it_is_known(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(procfs, "descriptors", lambda _, at_most: None if at_most < 1000 else {})
    assert world.left(world.wrapper(), died=True) == ([], [])
    world.known.add(ROOT)
    assert world.left(world.wrapper(), died=True) == ([WORK], [])


@pytest.mark.parametrize("name", ["launcher", "node"])
def test_the_descriptors_of_a_process_are_listed_once_for_all_its_children(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    world.processes[ROOT].name = name
    world.add(OTHER, ROOT, "node", handles=True)
    held: dict[str, list[str]] = {"pipe:[1]": ["5"]}
    listed: list[int] = []
    asked: list[object] = []

    def descriptors(pid: int, _: int) -> dict[str, list[str]]:
        listed.append(pid)
        return held

    monkeypatch.setattr(procfs, "descriptors", descriptors)
    monkeypatch.setattr(recipients, "is_helper", lambda *arguments: asked.append(arguments[2]))
    world.wrapper()
    assert listed == [ROOT]
    assert asked == [held, held]


def test_what_is_below_a_wrapper_is_looked_at_for_so_long(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stop signal waits for it."""
    world.add(OTHER, ROOT, "python", handles=True)
    answers = iter([False, True])
    assert world.left(world.wrapper(is_enough=lambda: next(answers)), died=True)[0] == [WORK]


def test_a_few_are_looked_at_however_long_that_takes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Process 1 may get no processor meanwhile."""
    now = 1000.0

    def slow() -> float:
        nonlocal now
        now += 2 * leftovers.MAX_LOOK_SECONDS
        return now

    for pid in range(100, 100 + leftovers.MIN_LOOKED_AT):
        world.add(pid, ROOT, "python", handles=True)
    monkeypatch.setattr(time, "monotonic", slow)
    departures, root = Departures(), world.processes[ROOT]
    departures.note([root], list(world.processes.values()), TERM, adapts=False)
    del world.processes[ROOT]
    departures.look([root], died=True)
    assert len(departures.work) == leftovers.MIN_LOOKED_AT


def test_all_wrappers_together_are_looked_at_for_so_long(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    second = world.add(20, 1, "launcher")
    world.add(21, 20, "python", handles=True)

    def slow(pid: int, _: int) -> dict[str, list[str]]:
        nonlocal now
        now += 2 * leftovers.MAX_LOOK_SECONDS if pid == 20 else 0.0
        return {}

    monkeypatch.setattr(leftovers, "MIN_LOOKED_AT", 1)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(procfs, "descriptors", slow)
    departures = Departures()
    former = [world.processes[ROOT], second]
    departures.note(former, list(world.processes.values()), TERM, adapts=False)
    for process in former:
        del world.processes[process.pid]
    departures.look(former, died=True)
    assert [process.pid for process in departures.work] == [WORK]


# --- Who was signalled. ---------------------------------------------------------------------------------------------


def woken(world: World, *, died: bool) -> list[int]:
    made = world.wrapper()
    world.switches[WORK] += 2
    work, signalled = world.left(made, died=died)
    assert work == [WORK]
    return signalled


def test_a_known_wrapper_that_exits_with_a_code_may_have_signalled_what_has_been_woken(world: World) -> None:
    world.known.add(ROOT)
    assert woken(world, died=False) == [WORK]
    assert woken(world, died=True) == []
    assert world.left(world.wrapper(), died=False) == ([WORK], [])


def test_a_wrapper_has_signalled_its_child_not_that_ones_children(world: World) -> None:
    """Such as yarn, whose shell dies."""
    world.known.add(ROOT)
    world.add(SHELL, ROOT, "sh")
    world.add(WORK, SHELL, "python")
    made = world.wrapper()
    world.switches[WORK] += 2
    del world.processes[SHELL]
    assert world.left(made, died=False) == ([WORK], [])


def test_watch_signals_nobody(world: World) -> None:
    world.known.add(ROOT)
    world.processes[ROOT].name = "watch"
    assert woken(world, died=False) == []


def running(world: World) -> None:
    world.running.add(WORK)


def pending(world: World) -> None:
    world.pending.add(WORK)


def unreadable(world: World) -> None:
    del world.switches[WORK]


@pytest.mark.parametrize("change", [running, pending, unreadable])
def test_what_is_not_known_to_sleep_may_have_been_signalled(world: World, change: Callable[[World], None]) -> None:
    world.known.add(ROOT)
    made = world.wrapper()
    change(world)
    assert world.left(made, died=False) == ([WORK], [WORK])


def test_where_masks_are_false_nothing_is_known_to_sleep(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.known.add(ROOT)
    made = world.wrapper()
    monkeypatch.setattr(dispositions, "masks_are_false", lambda: True)
    assert world.left(made, died=False) == ([WORK], [WORK])


@pytest.mark.parametrize("died", [True, False])
@pytest.mark.parametrize(
    ("argv", "background", "expected"),
    [
        (["bash", "-c", "trap 'kill $c' TERM; ..."], True, [WORK]),
        (["bash", "-c", "trap 'kill $c' TERM; ..."], False, []),
        (["bash", "-eu", "-o", "pipefail", "-c", "trap 'kill 0' EXIT; ..."], True, [WORK]),
        (["bash", "-eu", "-o", "pipefail", "-c", "trap 'rm pid' EXIT; ..."], True, []),
        (["bash", "-lc", "trap 'rm pid' EXIT; ..."], True, []),
    ],
)
def test_a_shell_may_have_signalled_its_background_jobs(
    world: World, argv: list[str], background: bool, expected: list[int], died: bool
) -> None:
    world.processes[ROOT].name = "bash"
    world.argvs[ROOT] = argv
    world.background = {WORK} if background else set()
    assert woken(world, died=died) == expected


@pytest.mark.parametrize("argv", [["bash", "/entrypoint.sh", "-c", "kill"], ["bash", "--norc"], []])
@pytest.mark.parametrize("died", [True, False])
def test_a_shell_whose_script_is_not_known_may_have_signalled_them_unless_it_died(
    world: World, argv: list[str], died: bool
) -> None:
    world.processes[ROOT].name = "bash"
    world.argvs[ROOT] = argv
    world.background = {WORK}
    assert woken(world, died=died) == ([] if died else [WORK])


@pytest.mark.parametrize(
    ("handling", "expected"), [(set(), []), ({TERM}, [WORK]), ({TERM, OF_EXIT_TRAP}, []), ({OF_EXIT_TRAP}, [])]
)
def test_a_shell_that_has_died_in_its_own_trap_may_have_signalled_its_jobs(
    world: World, monkeypatch: pytest.MonkeyPatch, handling: set[int], expected: list[int]
) -> None:
    """`trap 'trap - TERM; kill 0' TERM`. A trap for EXIT is there to clean up."""
    world.processes[ROOT].name, world.argvs[ROOT] = "bash", ["bash", "/entrypoint.sh"]
    world.background = {WORK}
    monkeypatch.setattr(
        dispositions,
        "handles",
        lambda process, number: number in handling if process.pid == ROOT else process.pid == WORK,
    )
    assert woken(world, died=True) == expected


@pytest.mark.parametrize(
    ("name", "leads", "background", "died", "expected"),
    [
        ("mksh", True, True, True, [WORK]),
        ("mksh", True, True, False, []),
        ("mksh", True, False, True, []),
        ("mksh", False, True, True, []),
        ("bash", True, True, True, []),
    ],
)
def test_mksh_that_dies_of_a_signal_passes_it_on_to_the_process_group_that_it_leads(
    world: World, name: str, leads: bool, background: bool, died: bool, expected: list[int]
) -> None:
    root = world.processes[ROOT]
    root.name, root.group = name, ROOT if leads else 1
    world.argvs[ROOT] = [name, "-c", "python & wait"]
    world.background = {WORK} if background else set()
    assert woken(world, died=died) == expected


@pytest.mark.parametrize("died", [True, False])
@pytest.mark.parametrize(
    ("script", "background", "slept", "expected"),
    [
        ("trap 'kill $a $b' TERM; a & b & wait $a; wait $b", True, False, [OTHER]),
        ("trap 'kill $a $b' TERM; a & b & wait $a; wait $b", True, True, []),  # not signalled: Xvfb
        ("trap 'kill $b' TERM; b & a", False, False, []),
        ("trap 'rm pid' TERM; a & b & wait $a; wait $b", True, False, []),
    ],
)
def test_a_shell_that_has_waited_for_one_job_has_signalled_the_other(
    world: World, script: str, background: bool, slept: bool, expected: list[int], died: bool
) -> None:
    world.processes[ROOT].name = "bash"
    world.argvs[ROOT] = ["bash", "-c", script]
    world.add(OTHER, ROOT, "python", handles=True)
    world.background = {WORK, OTHER} if background else {WORK}
    made = world.wrapper()
    world.switches[OTHER] += 0 if slept else 2
    del world.processes[WORK]
    assert world.left(made, died=died) == (expected, expected)


def test_any_other_wrapper_that_has_waited_for_one_program_leaves_no_work(world: World) -> None:
    world.known.add(ROOT)
    world.add(OTHER, ROOT, "python", handles=True)
    made = world.wrapper()
    world.switches[OTHER] += 2
    del world.processes[WORK]
    assert world.left(made, died=False) == ([], [])


# --- One wrapper after the other. -----------------------------------------------------------------------------------


def test_work_below_work_that_has_died_of_the_signal_is_found(world: World) -> None:
    departures = Departures()
    seen = list(world.processes.values())
    root, work = world.processes[ROOT], world.processes[WORK]
    worker = world.add(OTHER, WORK, "worker", handles=True)
    departures.note([root, work], [*seen, worker], TERM, adapts=False)
    del world.processes[ROOT]
    departures.statuses[ROOT] = TERM
    assert departures.look([root]) == []
    assert departures.work == [work]
    del world.processes[WORK]
    departures.statuses[WORK] = 9 << 8
    assert departures.look([work]) == []
    assert departures.work == [], "it exited with a code"
    departures.statuses[WORK] = TERM
    departures.look([work])
    assert departures.work == [worker]
    assert departures.look([worker]) == []
    assert departures.work == [worker]


@pytest.mark.parametrize("died", [True, False])
def test_where_the_status_is_not_known_the_code_of_the_shell_above_counts(world: World, died: bool) -> None:
    departures = Departures()
    root = world.processes[ROOT]
    departures.note([root, world.add(OTHER, 1, "alone")], list(world.processes.values()), TERM, adapts=False)
    del world.processes[ROOT]
    departures.look([root], died=died)
    assert [process.pid for process in departures.work] == ([WORK] if died else [])


# --- From the top down. ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("works_on", [True, False])
def test_leftovers_from_the_top_down(world: World, works_on: bool) -> None:
    shell = world.add(20, 1, "sh")
    master = world.add(21, 20, "master", handles=True)
    worker = world.add(22, 21, "worker", handles=True)
    filters = world.add(23, 20, "tee")
    idle = [world.add(24, 1, "sh"), world.add(25, 24, "sleep")]
    stopped = world.add(26, 1, "stopped", handles=True)
    below = world.add(27, 26, "below")
    now, later = leftovers.topmost(
        [shell, *idle, stopped, master, filters, below, worker],
        lambda process: process.pid in world.handling,
        lambda process: process is stopped,
        works_on=works_on,
    )
    assert now == [master, *([] if works_on else idle)]
    assert later == [below, worker, shell, *(idle if works_on else []), filters]


@pytest.mark.parametrize("had_it", [True, False])
def test_what_a_shell_waits_for_before_its_trap_is_signalled_with_it(world: World, had_it: bool) -> None:
    shell = world.add(20, 1, "bash", handles=True)
    work = world.add(21, 20, "work", handles=True)
    job = world.add(22, 20, "job", handles=True)
    inner = world.add(23, 21, "bash", handles=True)
    innermost = world.add(24, 23, "work", handles=True)
    sleep = world.add(25, 20, "sleep")
    foreground_of = {20: [work, sleep], 23: [innermost]}
    now, later = leftovers.topmost(
        [shell, work, job, sleep, inner, innermost],
        lambda process: process.pid in world.handling,
        lambda process: process is shell and had_it,
        lambda process: foreground_of.get(process.pid, []),
        works_on=False,
    )
    assert now == ([work] if had_it else [shell, work])
    assert later == [job, inner, innermost, sleep], "the inner shell waits, and so does its work"

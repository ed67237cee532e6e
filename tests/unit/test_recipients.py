"""Who gets a signal that the agent does not handle: wrappers are looked through, agents with helpers are not."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.init import dispositions, foreground, names, output_pipes, procfs, recipients, tree
from entrypoint.init.procfs import Process
from tests.support.init import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TERM = int(signal.SIGTERM)


# --- Among processes that are made up. ------------------------------------------------------------------------------


class Family:
    """10 has 11 and 12; 11 has 13, 13 has 15; 12 has 14."""

    PARENTS = {10: 1, 11: 10, 12: 10, 13: 11, 14: 12, 15: 13}

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.handling: set[int] = set()
        self.agents: set[int] = set()  # no wrappers: they do not wait for their children
        self.helpers: set[int] = set()
        self.zombies: set[int] = set()
        self.listed = set(self.PARENTS)  # as children, in /proc/pid/task/tid/children
        monkeypatch.setattr(tree, "everything", lambda: {pid: self.process(pid) for pid in self.PARENTS})
        monkeypatch.setattr(procfs, "children", self.children)
        monkeypatch.setattr(dispositions, "handles", lambda process, _: process.pid in self.handling)
        monkeypatch.setattr(recipients, "is_wrapper", lambda process, _: process.pid not in self.agents)
        monkeypatch.setattr(recipients, "is_helper", lambda child, *_: child.pid in self.helpers)

    def process(self, pid: int) -> Process:
        return Process(pid, f"p{pid}", self.PARENTS[pid], pid, 0, alive=pid not in self.zombies)

    def children(self, pid: int) -> list[Process]:
        return [self.process(child) for child in self.listed if self.PARENTS[child] == pid]

    def resolve(self, *, to_stop: bool = True, quickly: bool = False) -> tuple[set[int], set[int]]:
        found = recipients.resolve(self.process(10), TERM, to_stop=to_stop, quickly=quickly)
        assert len({process.pid for process in found.processes}) == len(found.processes)
        return {process.pid for process in found.processes}, {process.pid for process in found.held_back}


@pytest.fixture
def family(monkeypatch: pytest.MonkeyPatch) -> Family:
    return Family(monkeypatch)


@pytest.mark.parametrize("quickly", [False, True])
@pytest.mark.parametrize(
    ("handling", "found"),
    [(set(), set()), ({15}, {15}), ({11, 13, 15}, {11}), ({11, 15, 14}, {11, 14}), ({12, 13}, {12, 13})],
)
def test_below_wrappers_the_topmost_handlers_are_recipients(
    family: Family, handling: set[int], found: set[int], quickly: bool
) -> None:
    family.handling = handling
    assert family.resolve(quickly=quickly) == (found, set())


def test_a_quick_look_may_miss_a_recipient_and_a_thorough_one_does_not(family: Family) -> None:
    family.handling = {11, 12}
    family.listed = {11}
    assert family.resolve(quickly=True) == ({11}, set())
    assert family.resolve() == ({11, 12}, set())


def test_a_quick_look_that_finds_no_recipient_is_followed_by_a_thorough_one(family: Family) -> None:
    """Not every kernel lists children."""
    family.handling = {13}
    family.listed = set()
    assert family.resolve(quickly=True) == ({13}, set())


def test_a_zombie_is_no_recipient(family: Family) -> None:
    family.handling, family.zombies = {11, 12}, {11}
    assert family.resolve() == ({12}, set())


def test_an_agent_with_a_helper_is_signalled_itself(family: Family) -> None:
    family.handling, family.agents, family.helpers = {11, 12}, {10}, {11}
    assert family.resolve() == (set(), set())


def test_an_agent_without_a_helper_is_held_back(family: Family) -> None:
    family.handling, family.agents = {11, 12}, {10}
    assert family.resolve() == ({11, 12}, {10})


def test_only_processes_above_a_recipient_are_held_back(family: Family) -> None:
    family.handling, family.agents = {15, 14}, {11, 13, 14}
    assert family.resolve() == ({14, 15}, {11, 13})


def test_below_a_wrapper_an_agent_with_a_helper_is_a_recipient_of_the_stop_signal_only(family: Family) -> None:
    family.handling, family.agents, family.helpers = {13, 14}, {11}, {13}
    assert family.resolve() == ({11, 14}, set())
    assert family.resolve(to_stop=False) == ({14}, set())


def test_a_launcher_above_several_recipients_is_held_back_once(family: Family) -> None:
    family.handling, family.agents = {13, 14}, {10, 11, 12}
    assert family.resolve() == ({13, 14}, {10, 11, 12})


def test_a_process_above_an_agent_with_a_helper_is_held_back(family: Family) -> None:
    """As above any other recipient: the two may be a launcher and the agent."""
    family.agents, family.helpers = {10, 11}, {13}
    assert family.resolve() == ({11}, {10})
    assert family.resolve(to_stop=False) == (set(), set())
    family.agents, family.helpers = {10, 11, 13}, {15}
    assert family.resolve() == ({13}, {10, 11})
    family.agents = {11, 13}
    assert family.resolve() == ({13}, {11})


def test_pids_in_a_circle_end_the_search(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pid that was reused during the look may be its own ancestor's parent."""
    monkeypatch.setattr(family, "PARENTS", {10: 13, 11: 10, 13: 11})
    assert family.resolve() == (set(), set())
    family.handling = {13}
    assert family.resolve() == ({13}, set())


def test_where_proc_cannot_be_read_a_thorough_look_fails(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> dict[int, Process]:
        raise OSError("no processes visible")

    family.listed = set()
    monkeypatch.setattr(tree, "everything", fail)
    for quickly in (False, True):
        with pytest.raises(OSError, match="no processes visible"):
            family.resolve(quickly=quickly)


@given(st.data())
def test_every_topmost_handler_is_found(data: st.DataObject) -> None:
    """In any tree: each recipient handles the signal, no ancestor of it does, and no such process is left out."""
    parents = {10: 1} | {
        pid: data.draw(st.integers(10, pid - 1), label=f"parent of {pid}")
        for pid in range(11, data.draw(st.integers(11, 25)))
    }
    handling = data.draw(st.sets(st.sampled_from(sorted(parents))))
    with pytest.MonkeyPatch.context() as monkeypatch:
        family = Family(monkeypatch)
        family.PARENTS = parents
        family.handling, family.listed = handling - {10}, set(parents) - {10}
        found, held_back = family.resolve(quickly=data.draw(st.booleans()))

    def above(pid: int) -> set[int]:
        return set() if pid == 10 else {parents[pid]} | above(parents[pid])

    assert found == {pid for pid in family.handling if not above(pid) & family.handling}
    assert held_back == set()


@pytest.mark.parametrize(
    ("takes_int", "handling", "agents", "expected"),
    [
        ({12}, set(), set(), {12}),  # behind a wrapper
        ({11, 13, 15}, set(), set(), {15}),  # launchers are looked through, too
        ({11, 13}, set(), {13}, {13}),
        ({11, 13}, set(), {11, 13}, {11}),  # an agent with workers, which INT would interrupt as well
        ({12, 15}, {11}, set(), {11, 12}),  # each for itself
        ({11, 15}, {13}, {11}, {13}),  # TERM first
        ({10, 12}, {11}, {10}, {11}),  # the workers of an agent that takes INT itself are left to it
        ({12}, {11}, {10}, {11, 12}),
        ({10, 11}, set(), set(), {11}),
        ({10}, set(), set(), set()),  # the agent itself
        ({10, 11}, set(), {10}, set()),
    ],
)
def test_where_no_process_handles_term_those_that_prefer_int_are_recipients(
    monkeypatch: pytest.MonkeyPatch,
    family: Family,
    takes_int: set[int],
    handling: set[int],
    agents: set[int],
    expected: set[int],
) -> None:
    family.handling, family.agents = handling, agents
    monkeypatch.setattr(dispositions, "prefers_int", lambda process: process.pid in takes_int)
    found = recipients.resolve(family.process(10), TERM, to_stop=True, adapts=True)
    assert {process.pid for process in found.processes} == expected
    assert found.seen.keys() == family.PARENTS.keys()


# --- Among real processes. ------------------------------------------------------------------------------------------


@pytest.fixture
def run() -> Iterator[Callable[..., Process]]:
    """Start Python code and return it as a process, once it waits in the kernel function `where`."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(code: str, where: bytes, **more: Any) -> Process:
        process = subprocess.Popen([sys.executable, "-S", "-c", "import subprocess, time, os; " + code], **more)
        started.append(process)
        until(lambda: where in procfs.wait_channel(process.pid), f"a process in {where!r}")
        return look(process.pid)

    yield begin
    for process in started:
        for child in procfs.children(process.pid):
            os.kill(child.pid, signal.SIGKILL)
        process.kill()
        process.communicate()


def look(pid: int) -> Process:
    process = procfs.look(pid)
    assert process is not None
    return process


def only_child(parent: Process) -> Process:
    [child] = until(lambda: procfs.children(parent.pid), "a child")
    until(lambda: "sleep" in procfs.program_names(child), "its exec")
    return look(child.pid)


SLEEP = "p = subprocess.Popen(['sleep', '60']{}); "


@pytest.mark.parametrize(
    ("code", "where", "expected"),
    [
        (SLEEP.format("") + "p.wait()", b"do_wait", True),
        (SLEEP.format("") + "os.waitid(os.P_PID, p.pid, os.WEXITED)", b"do_wait", True),
        (SLEEP.format(", stdout=subprocess.PIPE") + "p.stdout.read()", b"pipe_read", True),
        (SLEEP.format(", stdin=subprocess.PIPE, stdout=subprocess.PIPE") + "p.stdout.read()", b"pipe_read", False),
        (SLEEP.format(", stdout=subprocess.PIPE") + "os.read(0, 1)", b"pipe_read", False),
        (SLEEP.format("") + "time.sleep(60)", b"nanosleep", False),
        # Since Linux 6.16 that is `futex_do_wait`.
        (SLEEP.format("") + "import threading; threading.Event().wait()", b"futex", False),
    ],
)
def test_a_process_that_waits_for_its_child_is_a_wrapper(
    run: Callable[..., Process], code: str, where: bytes, expected: bool
) -> None:
    parent = run(code, where, stdin=subprocess.PIPE)
    assert recipients.is_wrapper(parent, [only_child(parent)]) is expected


@pytest.mark.parametrize("of_ours", ["stdin", "stdout"])
@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("", False),  # inherited, a pipe of ours in one case
        (", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL", False),
        (", stdin=subprocess.PIPE", True),
        (", stdout=subprocess.PIPE", True),
        (", stderr=subprocess.PIPE", False),
        (", stdin=far", True),
        (", stdout=far", True),
    ],
)
def test_a_child_on_a_pipe_or_socket_of_its_parent_is_a_helper(
    run: Callable[..., Process], how: str, expected: bool, of_ours: str
) -> None:
    code = "import socket; near, far = socket.socketpair(); " + SLEEP.format(how) + "time.sleep(60)"
    parent = run(code, b"nanosleep", **{of_ours: subprocess.PIPE})
    assert recipients.is_helper(only_child(parent), parent) is expected


def test_a_child_on_a_socket_that_its_parent_inherited_is_no_helper(run: Callable[..., Process]) -> None:
    near, far = socket.socketpair()
    with near, far:
        parent = run(SLEEP.format("") + "time.sleep(60)", b"nanosleep", stdin=far, stdout=far)
        assert not recipients.is_helper(only_child(parent), parent)


def test_a_process_that_has_exited_is_neither_wrapper_nor_helper() -> None:
    gone = Process(10_000_001, "gone", os.getpid(), 1, 0)
    assert not recipients.is_wrapper(gone, [gone])
    assert not recipients.is_helper(gone, look(os.getpid()))
    assert not recipients.is_helper(gone, gone)


def test_a_wrapper_that_copies_its_childs_output_is_known_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procfs, "argv_of", lambda _: ["/usr/bin/perl", "/usr/bin/chronic", "agent"])
    assert recipients.is_wrapper(Process(10_000_001, "chronic", 1, 20, 0), [])


# --- Processes that handle the signal and are looked through. -------------------------------------------------------


@pytest.fixture
def relays(monkeypatch: pytest.MonkeyPatch, family: Family) -> dict[str, set[int]]:
    """The pids of relays, inits, shells, shells with a trap, and idle programs; 13 handles or ignores the signal."""
    kinds: dict[str, set[int]] = {name: set() for name in "relay init shell trap idle pipe ignores".split()}

    def is_(kind: str) -> Callable[[Process], bool]:
        return lambda process: process.pid in kinds[kind]

    monkeypatch.setattr(names, "is_relay", is_("relay"))
    monkeypatch.setattr(names, "is_init", is_("init"))
    monkeypatch.setattr(names, "is_idle", is_("idle"))
    monkeypatch.setattr(procfs, "is_shell", is_("shell"))
    monkeypatch.setattr(dispositions, "handles_or_ignores", lambda process, _: process.pid in kinds["ignores"])
    monkeypatch.setattr(foreground, "has_trap", lambda process, _: process.pid in kinds["trap"])
    monkeypatch.setattr(foreground, "children", lambda _, among: among)
    monkeypatch.setattr(recipients, "_leads_to", lambda _, child, fd: fd == 0 and child.pid in kinds["pipe"])
    return kinds


def found(family: Family, *, to_stop: bool = True) -> recipients.Recipients:
    return recipients.resolve(family.process(10), TERM, to_stop=to_stop)


def pids(processes: list[Process]) -> list[int]:
    return [process.pid for process in processes]


@pytest.mark.parametrize("to_stop", [True, False])
def test_launcher_that_handles_the_stop_signal_from_its_start_is_looked_through(
    monkeypatch: pytest.MonkeyPatch, family: Family, relays: dict[str, set[int]], to_stop: bool
) -> None:
    monkeypatch.setattr(recipients, "is_launcher", lambda process, _: process.pid == 11)
    family.handling = {11, 15}
    result = found(family, to_stop=to_stop)
    assert pids(result.processes) == ([15] if to_stop else [11])
    assert [guardian.pid for guardian in result.guardians.values()] == ([11] if to_stop else [])


@pytest.mark.parametrize(
    ("programs", "children", "where", "expected"),
    [
        ({"node", "agent title"}, 1, b"ep_poll", True),
        ({"php8.4"}, 1, b"poll_schedule", True),
        ({"ruby"}, 1, b"anon_pipe_read", False),  # of another pipe
        ({"node"}, 2, b"ep_poll", False),
        ({"python3"}, 1, b"ep_poll", False),
    ],
)
def test_launcher_of_a_language_that_handles_term_from_its_start(
    monkeypatch: pytest.MonkeyPatch, family: Family, programs: set[str], children: int, where: bytes, expected: bool
) -> None:
    monkeypatch.setattr(procfs, "program_names", lambda _: programs)
    monkeypatch.setattr(procfs, "wait_channel", lambda _: where)
    monkeypatch.setattr(output_pipes, "copies_output", lambda *_: True)
    below = [family.process(pid) for pid in (11, 12)][:children]
    assert recipients.is_launcher(family.process(10), below) is expected


def test_of_a_process_with_no_child_or_several_the_program_is_not_looked_at(
    monkeypatch: pytest.MonkeyPatch, family: Family
) -> None:
    """There may be thousands, and each look is two files."""
    monkeypatch.setattr(procfs, "program_names", lambda _: pytest.fail("looked at"))
    assert not recipients.is_launcher(family.process(10), [])
    assert not recipients.is_launcher(family.process(10), [family.process(11), family.process(12)])


def test_relay_is_looked_through_for_those_that_handle_the_signal(family: Family, relays: dict[str, set[int]]) -> None:
    family.handling, relays["relay"] = {10, 11, 12, 15}, {10, 11}
    result = found(family)
    assert sorted(pids(result.processes)) == [12, 15]
    assert {pid: guardian.pid for pid, guardian in result.guardians.items()} == {15: 11, 12: 10}
    assert (result.shells, result.idle, result.unhandled) == ([], [], False)


def test_relay_gets_the_signal_where_nobody_behind_it_handles_it(family: Family, relays: dict[str, set[int]]) -> None:
    family.handling, relays["relay"] = {11, 12}, {11}
    assert sorted(pids(found(family).processes)) == [11, 12]
    assert pids(found(family, to_stop=False).processes) == [12]
    relays["ignores"] = {13}
    assert sorted(pids(found(family, to_stop=False).processes)) == [11, 12]


def test_signal_is_unhandled_where_the_agent_is_a_relay_and_nobody_behind_it_handles_it(
    family: Family, relays: dict[str, set[int]]
) -> None:
    family.handling, relays["relay"] = {10}, {10}
    assert found(family, to_stop=False).unhandled
    assert not found(family).unhandled
    relays["ignores"], relays["shell"] = {11}, {11}
    assert found(family, to_stop=False).unhandled, "shells ignore signals for their own sake"
    relays["ignores"] = {12}
    assert not found(family, to_stop=False).unhandled


def test_helper_of_a_relay_is_no_program_that_it_runs(family: Family, relays: dict[str, set[int]]) -> None:
    family.handling, relays["relay"], relays["pipe"] = {10, 11, 12}, {10}, {11, 12}
    assert pids(found(family).processes) == []
    assert not found(family, to_stop=False).unhandled


def test_relay_that_passes_its_stdin_on_is_looked_through(
    monkeypatch: pytest.MonkeyPatch, family: Family, relays: dict[str, set[int]]
) -> None:
    monkeypatch.setattr(names, "feeds_its_program", lambda process: process.pid == 10)
    family.handling, relays["relay"], relays["pipe"] = {10, 11}, {10}, {11}
    assert pids(found(family).processes) == [11]


@pytest.mark.parametrize("to_stop", [True, False])
@pytest.mark.parametrize(("handling", "expected"), [({11, 15, 14}, [14]), ({11}, [])])
def test_display_or_bus_beside_the_program_is_no_recipient(
    monkeypatch: pytest.MonkeyPatch, family: Family, handling: set[int], expected: list[int], to_stop: bool
) -> None:
    monkeypatch.setattr(names, "SERVERS", {"p11"})
    family.handling = handling
    assert pids(found(family, to_stop=to_stop).processes) == expected


@pytest.mark.parametrize(
    ("agents", "handling", "expected"),
    [
        (set(), {11, 12}, [12]),
        (set(), {11}, []),  # the program beside it does not handle the signal: the shell gets it
        ({10}, {11, 12}, [12]),
        ({10, 12}, {11}, []),  # it is the agent's own
    ],
)
def test_data_store_or_browser_is_left_to_the_program(
    monkeypatch: pytest.MonkeyPatch, family: Family, agents: set[int], handling: set[int], expected: list[int]
) -> None:
    monkeypatch.setattr(names, "BACKENDS", {"p11"})
    family.agents, family.handling = agents, handling
    assert pids(found(family).processes) == expected


def test_data_store_or_browser_may_be_the_only_program_of_a_wrapper(
    monkeypatch: pytest.MonkeyPatch, family: Family
) -> None:
    monkeypatch.setattr(names, "BACKENDS", {"p13"})
    family.handling = {13, 14}
    assert family.resolve() == ({13, 14}, set())
    family.agents = {11}
    assert family.resolve() == ({14}, set())


@pytest.mark.parametrize("agent_handles", [True, False])
def test_init_sends_what_the_program_behind_it_handles(
    family: Family, relays: dict[str, set[int]], agent_handles: bool
) -> None:
    relays["init"] = {11}
    family.handling = {11, 13} if agent_handles else {11}
    assert pids(found(family, to_stop=False).processes) == ([11] if agent_handles else [])
    assert pids(found(family).processes) == [11]


@pytest.mark.parametrize("to_stop", [True, False])
@pytest.mark.parametrize(
    ("trap", "several", "expected", "shells"),
    [
        (False, False, [15], []),  # tini would end the shell, and the shell's end tini
        (True, False, [15], [13]),
        (False, True, [11], []),
        (True, True, [11], []),
    ],
)
def test_a_program_behind_a_shell_behind_an_init_gets_the_signal_itself(
    monkeypatch: pytest.MonkeyPatch,
    family: Family,
    relays: dict[str, set[int]],
    to_stop: bool,
    trap: bool,
    several: bool,
    expected: list[int],
    shells: list[int],
) -> None:
    monkeypatch.setattr(names, "runs_one_program", lambda _: not several)
    relays["init"], relays["shell"] = {11}, {13}
    family.handling = {11, 15, 13} if trap else {11, 15}
    relays["trap"] = {13} if trap else set()
    result = found(family, to_stop=to_stop)
    assert (pids(result.processes), pids(result.shells)) == (expected, shells)


@pytest.mark.parametrize(
    ("handling", "several", "expected"), [({11}, False, 15), ({11}, True, 11), ({11, 13}, False, 11)]
)
def test_program_that_prefers_int_is_interrupted_behind_an_init(
    monkeypatch: pytest.MonkeyPatch,
    family: Family,
    relays: dict[str, set[int]],
    handling: set[int],
    several: bool,
    expected: int,
) -> None:
    family.handling, relays["init"] = handling, {11}
    monkeypatch.setattr(names, "runs_one_program", lambda _: not several)
    monkeypatch.setattr(dispositions, "prefers_int", lambda process: process.pid == 15)
    result = recipients.resolve(family.process(10), TERM, to_stop=True, adapts=True)
    assert pids(result.processes) == [expected]


@pytest.mark.parametrize("handles", [True, False])
def test_mksh_gets_no_signal_that_requests_no_stop(
    monkeypatch: pytest.MonkeyPatch, family: Family, relays: dict[str, set[int]], handles: bool
) -> None:
    monkeypatch.setattr(procfs, "program_names", lambda process: {"mksh" if process.pid == 11 else "x"})
    family.handling = {11, 13} if handles else {11}
    relays["shell"], relays["trap"] = {11}, {11}
    result = found(family, to_stop=False)
    assert (pids(result.processes), pids(result.shells)) == ([13] if handles else [], [])
    result = found(family)
    assert (pids(result.processes), pids(result.shells)) == (([13], [11]) if handles else ([11], []))


def test_shells_with_a_trap_come_before_their_foreground_outermost_first(
    family: Family, relays: dict[str, set[int]]
) -> None:
    family.handling = {10, 11, 13, 15, 14}
    relays["shell"], relays["trap"] = {10, 11, 13}, {10, 13}
    result = found(family)
    assert sorted(pids(result.processes)) == [14, 15]
    assert pids(result.shells) == [10, 13]
    assert result.guardians[15].pid == 13


@pytest.mark.parametrize(
    ("trap", "idle", "to_stop", "processes", "woken"),
    [
        ({11}, {13}, True, [11], [13]),
        (set(), {13}, True, [11], [13]),
        ({11}, set(), True, [11], []),
        ({11}, set(), False, [11], []),
        (set(), {13}, False, [11], []),
        (set(), set(), False, [], []),
    ],
)
def test_shell_gets_the_signal_itself_where_its_foreground_does_not_handle_it(
    family: Family,
    relays: dict[str, set[int]],
    trap: set[int],
    idle: set[int],
    to_stop: bool,
    processes: list[int],
    woken: list[int],
) -> None:
    family.handling = {11}
    relays["shell"], relays["trap"], relays["idle"] = {11}, trap, idle
    result = found(family, to_stop=to_stop)
    assert pids(result.processes) == processes
    assert pids(result.idle) == woken


@pytest.mark.parametrize(
    ("kind", "starting", "passive", "to_stop", "woken"),
    [
        ("shell", {13}, set(), True, [13]),
        ("shell", {13}, {16}, True, [13]),  # | tee
        ("shell", {13}, set(), False, []),
        ("shell", set(), {16}, True, []),
        ("relay", {13}, set(), True, [13]),
        ("relay", {13}, {16}, True, [13]),
        ("relay", set(), set(), True, []),
    ],
)
def test_a_program_that_is_starting_gets_the_signal_after_the_wrapper_that_caught_it(
    monkeypatch: pytest.MonkeyPatch,
    family: Family,
    relays: dict[str, set[int]],
    kind: str,
    starting: set[int],
    passive: set[int],
    to_stop: bool,
    woken: list[int],
) -> None:
    """It would have its handlers, and begin to work, when the stop signal has gone by."""
    monkeypatch.setattr(Process, "is_starting", property(lambda process: process.pid in starting))
    monkeypatch.setattr(names, "is_passive", lambda process: process.pid in passive)
    family.PARENTS = {10: 1, 11: 10, 13: 11, **dict.fromkeys(passive, 11)}
    family.listed = set(family.PARENTS)
    family.handling, relays[kind], relays["trap"] = {11}, {11}, {11} if kind == "shell" else set()
    result = found(family, to_stop=to_stop)
    assert pids(result.processes) == ([11] if to_stop or kind == "shell" else [])
    assert pids(result.idle) == woken


@pytest.mark.parametrize(("starting", "recipients_", "woken"), [(True, [11], [13]), (False, [13], [])])
def test_a_fork_of_a_shell_before_its_exec_is_no_recipient(
    monkeypatch: pytest.MonkeyPatch,
    family: Family,
    relays: dict[str, set[int]],
    starting: bool,
    recipients_: list[int],
    woken: list[int],
) -> None:
    """It still has the shell's handlers, and execve(2) takes them away, and the signal with them."""
    monkeypatch.setattr(Process, "is_starting", property(lambda process: starting and process.pid == 13))
    family.PARENTS = {10: 1, 11: 10, 13: 11}
    family.listed = set(family.PARENTS)
    family.handling, relays["shell"] = {11, 13}, {11, 13}
    result = found(family)
    assert (pids(result.processes), pids(result.idle)) == (recipients_, woken)


@pytest.mark.parametrize(
    ("starting", "stays", "recipients_"), [(True, False, []), (True, True, [13]), (False, False, [13])]
)
def test_a_fork_of_a_program_before_its_exec_is_no_recipient(
    monkeypatch: pytest.MonkeyPatch, family: Family, starting: bool, stays: bool, recipients_: list[int]
) -> None:
    """Of Node's or Python's: it has the handlers of its parent, or blocks all signals."""
    monkeypatch.setattr(Process, "is_starting", property(lambda process: starting and process.pid == 13))
    monkeypatch.setattr(dispositions, "handles_once_started", lambda *_: stays)
    family.PARENTS = {10: 1, 11: 10, 13: 11}
    family.listed = set(family.PARENTS)
    family.handling = {13}
    assert pids(found(family).processes) == recipients_


def test_tracer_has_a_child_that_it_traces(monkeypatch: pytest.MonkeyPatch, family: Family) -> None:
    tracers = {12: 10}
    monkeypatch.setattr(procfs, "tracer_of", lambda pid: tracers.get(pid, 0))
    assert recipients.is_tracer(family.process(10))
    assert not recipients.is_tracer(family.process(12))


def test_nobody_below_a_recipient_gets_the_signal(
    monkeypatch: pytest.MonkeyPatch, family: Family, relays: dict[str, set[int]]
) -> None:
    """Such as concurrently, which passes it on: its shell would get it twice."""
    monkeypatch.setattr(names, "runs_one_program", lambda _: False)
    relays["init"], relays["shell"], relays["trap"] = {11}, {13}, {13}
    family.handling = {11, 13, 15}
    result = found(family)
    assert pids(result.processes) == [11]
    assert result.shells == []
    relays["idle"], family.handling = {15}, {11, 13}
    result = found(family)
    assert (pids(result.processes), result.idle) == ([11], [])


def test_nobody_below_a_recipient_is_held_back(
    monkeypatch: pytest.MonkeyPatch, family: Family, relays: dict[str, set[int]]
) -> None:
    monkeypatch.setattr(names, "runs_one_program", lambda _: False)
    relays["init"], family.handling, family.agents = {11}, {11, 15, 14}, {10, 12, 13}
    result = found(family)
    assert sorted(pids(result.processes)) == [11, 14]
    assert sorted(pids(result.held_back)) == [10, 12]


@pytest.mark.parametrize(
    ("argvs", "expected"),
    [
        ({10: ["make", "x"], 11: ["agent"], 12: ["other"]}, [11, 12]),
        ({10: ["task", "x"], 11: ["task", "x"], 12: ["task", "x"]}, []),  # forks of itself: its workers
        ({10: ["watch", "x"], 11: ["watch", "x"]}, [11]),  # one fork, which runs the program
        ({11: [], 12: []}, [11, 12]),  # not known
    ],
)
def test_forks_of_a_program_with_a_relays_name_are_its_workers(
    monkeypatch: pytest.MonkeyPatch,
    family: Family,
    relays: dict[str, set[int]],
    argvs: dict[int, list[str]],
    expected: list[int],
) -> None:
    monkeypatch.setattr(procfs, "argv_of", lambda pid: argvs.get(pid, []))
    family.PARENTS = {10: 1, **{pid: 10 for pid in argvs if pid != 10}}
    family.handling, relays["relay"] = {10, 11, 12}, {10}
    assert pids(found(family).processes) == expected


def test_a_pipe_that_parent_and_child_have_inherited_makes_no_helper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Process 1 may hold the other end of it, or the parent may: as a container's stdout."""
    targets = {(10, 1): "pipe:[1]", (11, 1): "pipe:[1]", (11, 0): "/dev/null", (12, 1): "pipe:[2]"}
    monkeypatch.setattr(procfs, "descriptor_target", lambda pid, fd: targets.get((pid, fd), ""))
    monkeypatch.setattr(procfs, "open_modes", lambda *_: iter([os.O_RDWR]))
    parent = Process(10, "parent", 1, 10, 0)
    assert not recipients.is_helper(Process(11, "child", 10, 10, 0), parent)
    assert recipients.is_helper(Process(12, "child", 10, 10, 0), parent)


def test_descriptors_of_the_parent_that_are_known_are_not_listed_again(
    run: Callable[..., Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = run(SLEEP.format(", stdin=subprocess.PIPE") + "time.sleep(60)", b"nanosleep")
    child = only_child(parent)
    held = procfs.descriptors(parent.pid)
    monkeypatch.setattr(procfs, "descriptors", lambda *_: pytest.fail("listed again"))
    assert recipients.is_helper(child, parent, held)
    assert not recipients.is_helper(child, parent, {}), "none of them can be seen"

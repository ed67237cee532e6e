"""Where /proc shows signal masks that are not true (gVisor, qemu-user): how that is found out, and who gets signals."""

from __future__ import annotations

import _signal
import errno
import os
import posix
import signal
from typing import TYPE_CHECKING

import pytest

from entrypoint.init import by_name, dispositions, names, procfs, recipients, tree
from entrypoint.init.dispositions import Dispositions
from entrypoint.init.procfs import Process
from tests.support.world import AGENT, OWN_PID, Harness, World, failing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HUP, INT, QUIT, USR1, TERM, WINCH = (
    int(getattr(signal, f"SIG{name}")) for name in "HUP INT QUIT USR1 TERM WINCH".split()
)
RTMIN = int(signal.SIGRTMIN)


def bits(*numbers: int) -> int:
    return sum(1 << number - 1 for number in numbers)


ALL = bits(*range(1, 32))


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispositions, "_masks_are_false", None)
    monkeypatch.setattr(dispositions, "_reports", {})


# --- What /proc shows of process 1 itself. --------------------------------------------------------------------------


class OwnStat:
    """The masks that /proc shows of this process, and the ones that it has."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.blocked = self.ignored = self.caught = 0
        self.really_blocked: set[int] = set()
        self.really_caught = {INT}
        monkeypatch.setattr(procfs, "read_file", self.read)
        monkeypatch.setattr(_signal, "pthread_sigmask", lambda *_: self.really_blocked)
        monkeypatch.setattr(_signal, "getsignal", lambda number: print if number in self.really_caught else 0)

    def read(self, path: str, max_bytes: int = 4096) -> bytes:
        assert path == f"/proc/{os.getpid()}/task/{os.getpid()}/stat"
        return b"1 (a) b) S " + b"0 " * 28 + b"%d %d %d 0 0\n" % (self.blocked, self.ignored, self.caught)


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> OwnStat:
    return OwnStat(monkeypatch)


def test_masks_are_true_if_they_show_what_we_block(own: OwnStat) -> None:
    own.really_blocked = {*range(1, 65)} - {9, 19}
    own.blocked, own.caught = ALL & ~bits(9, 19), bits(INT)
    assert not dispositions.masks_are_false()


@pytest.mark.parametrize(("blocked", "caught"), [(0, 0), (0, ALL), (ALL, ALL), (bits(TERM), bits(INT))])
def test_masks_are_false_if_a_blocked_signal_is_missing_or_one_too_many_is_caught(
    own: OwnStat, blocked: int, caught: int
) -> None:
    """Nothing at all is what gVisor shows; everything caught is what qemu's emulation shows."""
    own.really_blocked = {*range(1, 65)} - {9, 19}
    own.blocked, own.caught = blocked, caught
    assert dispositions.masks_are_false()


@pytest.mark.parametrize(("caught", "are_false"), [(0, True), (bits(INT, TERM), False), (ALL, True)])
def test_without_blocked_signals_the_handled_ones_are_looked_for(own: OwnStat, caught: int, are_false: bool) -> None:
    """Without signalfd(2) process 1 blocks nothing and has handlers."""
    own.really_caught = {INT, TERM}
    own.caught = caught
    assert dispositions.masks_are_false() is are_false


def test_handlers_of_debugging_aids_are_no_evidence(own: OwnStat) -> None:
    own.caught = bits(INT, int(signal.SIGSEGV), int(signal.SIGABRT))
    assert not dispositions.masks_are_false()


def test_nothing_is_concluded_from_a_failed_look(own: OwnStat, monkeypatch: pytest.MonkeyPatch) -> None:
    own.really_blocked = {TERM}
    monkeypatch.setattr(procfs, "read_file", failing(own.read, OSError(errno.EMFILE, "full")))
    assert not dispositions.masks_are_false()
    assert dispositions.masks_are_false(), "the next look"
    own.blocked = bits(TERM)
    assert dispositions.masks_are_false(), "it is not repeated"


def test_without_proc_nothing_is_false(own: OwnStat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procfs, "MOUNTED", False)
    assert not dispositions.masks_are_false()


def test_on_this_machine_the_masks_are_true() -> None:
    assert not dispositions.masks_are_false()


# --- What processes report of themselves. ---------------------------------------------------------------------------


def answers(number: int) -> tuple[bool | None, bool | None]:
    own = Dispositions(os.getpid())
    try:
        return own.handles(number), own.handles_or_ignores(number)
    finally:
        own.close()


def ourselves() -> Process:
    found = procfs.look(os.getpid())
    assert found is not None
    return found


def test_where_masks_are_false_only_a_report_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispositions, "_masks_are_false", True)
    assert answers(INT) == (None, None), "although pytest handles it"
    dispositions.note_report(ourselves(), frozenset({USR1, RTMIN}))
    assert [answers(number) for number in (USR1, RTMIN, INT)] == [(True, True), (True, True), (False, False)]
    dispositions.note_report(ourselves(), frozenset({INT}))
    assert [answers(number) for number in (USR1, INT)] == [(False, False), (True, True)]
    assert (dispositions.handles(ourselves(), INT), dispositions.handles_or_ignores(ourselves(), USR1)) == (True, False)


def test_where_masks_are_true_a_report_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispositions, "_masks_are_false", False)
    dispositions.note_report(ourselves(), frozenset({RTMIN}))
    assert answers(RTMIN) == (False, False)


def test_a_report_does_not_count_for_the_next_process_with_the_pid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispositions, "_masks_are_false", True)
    before = ourselves()
    dispositions.note_report(Process(before.pid, before.name, 1, 1, before.start + 1), frozenset({USR1}))
    assert answers(USR1) == (None, None)


def test_without_proc_the_agents_report_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procfs, "MOUNTED", False)
    assert answers(USR1) == (None, None)
    dispositions.note_report(Process(os.getpid(), "the agent", 1, 1, 0), frozenset({USR1}))
    assert answers(USR1) == (True, True)


def test_the_number_of_reports_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    living: dict[int, Process] = {}
    monkeypatch.setattr(procfs, "look", living.get)
    for pid in range(1, 200):
        living[pid] = Process(pid, "x", 1, 1, pid)
        dispositions.note_report(living[pid], frozenset({USR1}))
    assert len(dispositions._reports) == dispositions.MAX_REPORTS
    assert 199 in dispositions._reports
    for pid in range(180, 185):
        living[pid] = Process(pid, "another", 1, 1, 0)
    for pid in range(185, 190):
        del living[pid]
    dispositions.note_report(Process(200, "x", 1, 1, 200), frozenset({USR1}))
    dropped = {pid for pid in range(136, 201) if pid not in dispositions._reports}
    assert dropped == set(range(180, 190)), "those that are gone"


# --- Names. ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "is_wrapper"),
    [
        (["/bin/sh", "-c", "x"], True),
        (["su", "-c", "x"], True),
        (["/usr/local/bin/uv", "run", "x"], True),
        (["/usr/bin/python3", "/usr/local/bin/poetry", "run", "x"], True),
        (["node", "/usr/lib/node_modules/npm/bin/npm-cli.js", "start"], True),
        (["npm start"], True),
        (["node", "/opt/pnpm.cjs", "start"], True),
        (["python3.11", "agent.py", "su"], False),
        (["my-agent", "su"], False),
        ([], False),
    ],
)
def test_wrappers_are_known_by_name(monkeypatch: pytest.MonkeyPatch, argv: list[str], is_wrapper: bool) -> None:
    monkeypatch.setattr(procfs, "argv_of", lambda _: argv)
    assert names.is_wrapper(Process(AGENT, "comm", 1, 1, 0)) is is_wrapper


@pytest.mark.parametrize(
    ("cmdline", "argv"),
    [
        (b"/usr/bin/qemu-aarch64-static\0/bin/sh\0-c\0x\0", ["/bin/sh", "-c", "x"]),
        (b"/usr/bin/qemu-aarch64-static\0", ["/usr/bin/qemu-aarch64-static"]),
        (b"qemu-system-x86_64\0-m\0", ["qemu-system-x86_64", "-m"]),
    ],
)
def test_an_emulator_is_no_part_of_the_command_line(
    monkeypatch: pytest.MonkeyPatch, cmdline: bytes, argv: list[str]
) -> None:
    monkeypatch.setattr(procfs, "read_file", lambda *_: cmdline)
    assert procfs.argv_of(AGENT) == argv


def test_an_emulated_shell_is_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procfs, "read_file", lambda *_: b"/usr/bin/qemu-arm\0/bin/sh\0-c\0x\0")
    monkeypatch.setattr(posix, "readlink", lambda _: "/usr/bin/qemu-arm")
    assert procfs.program_names(Process(AGENT, "sh", 1, 1, 0)) == {"sh"}


# --- Who gets a signal. ---------------------------------------------------------------------------------------------


class Family:
    """Processes by pid, each with its program and its parent. 10 is the agent."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.processes: dict[int, Process] = {}
        self.handles: dict[int, bool] = {}  # those that are known
        self.waiting: set[int] = set()  # seen waiting for a child
        self.sleeping: set[int] = set()  # seen waiting for something else
        monkeypatch.setattr(tree, "everything", lambda: self.processes)
        monkeypatch.setattr(procfs, "program_names", lambda process: frozenset({process.name}))
        monkeypatch.setattr(procfs, "argv_of", lambda _: [])
        monkeypatch.setattr(dispositions, "handles", lambda process, _: self.handles.get(process.pid))
        monkeypatch.setattr(procfs, "wait_channel", self.wait_channel)

    def wait_channel(self, pid: int) -> bytes:
        return b"do_wait" if pid in self.waiting else b"ep_poll" if pid in self.sleeping else b""

    def add(self, pid: int, name: str, parent: int = 10, *, alive: bool = True) -> None:
        self.processes[pid] = Process(pid, name, parent, 10, 0, alive=alive)

    def resolve(self, number: int = TERM, *, to_stop: bool = True) -> set[int]:
        found = by_name.resolve(self.processes[10], number, to_stop=to_stop)
        assert not found.held_back
        assert len({process.pid for process in found.processes}) == len(found.processes)
        return {process.pid for process in found.processes}


@pytest.fixture
def family(monkeypatch: pytest.MonkeyPatch) -> Family:
    return Family(monkeypatch)


def test_a_program_that_is_no_wrapper_is_signalled_itself(family: Family) -> None:
    family.add(10, "python3")
    family.add(11, "node")
    family.handles = {11: True}
    assert family.resolve() == set()


def test_a_process_that_is_seen_doing_something_else_is_signalled_itself(family: Family) -> None:
    family.add(10, "python3")
    family.add(11, "python3")
    family.sleeping = {10}
    assert family.resolve() == set()


def test_a_process_that_is_seen_waiting_for_a_child_is_looked_through(family: Family) -> None:
    family.add(10, "python3")
    family.add(11, "python3")
    family.waiting = {10}
    assert family.resolve() == {11}


@pytest.mark.parametrize("wrapper", ["bash", "su", "uv", "npm", "timeout"])
def test_the_topmost_programs_below_wrappers_get_the_stop_signal(family: Family, wrapper: str) -> None:
    family.add(10, "sh")
    family.add(11, wrapper)
    family.add(12, "python3", 11)
    family.add(13, "node", 12)
    family.add(14, "python3")
    assert family.resolve() == {12, 14}


def test_all_processes_are_returned_as_seen(family: Family) -> None:
    """The exit of a wrapper is looked at by them."""
    family.add(10, "sh")
    family.add(11, "python3")
    assert by_name.resolve(family.processes[10], TERM, to_stop=True).seen == family.processes
    family.processes[10].name = "python3"
    assert by_name.resolve(family.processes[10], TERM, to_stop=True).seen == {}, "nothing was looked at"


@pytest.mark.parametrize("backend", ["redis-server", "chromium"])
def test_data_stores_and_browsers_get_no_stop_signal_beside_a_program(family: Family, backend: str) -> None:
    family.add(10, "bash")
    family.add(11, backend)
    assert family.resolve() == {11}
    family.add(12, "tail")
    assert family.resolve() == {11}
    family.add(13, "python3")
    assert family.resolve() == {13}


@pytest.mark.parametrize("passive", ["sleep", "tee", "tail", "Xvfb"])
def test_passive_processes_and_servers_get_no_stop_signal(family: Family, passive: str) -> None:
    family.add(10, "bash")
    family.add(11, passive)
    assert family.resolve() == set(), "the shell itself"
    family.add(12, "python3")
    assert family.resolve() == {12}


def test_an_inner_wrapper_gets_the_stop_signal_only_if_no_program_runs(family: Family) -> None:
    """The inner one may be the reader of the agent's output: `exec > >(while read ...)`."""
    family.add(10, "bash")
    family.add(11, "bash")
    family.add(12, "bash", 11)
    family.add(13, "sleep", 12)
    assert family.resolve() == {12}
    family.add(14, "python3")
    assert family.resolve() == {14}


def test_processes_that_have_exited_get_nothing(family: Family) -> None:
    family.add(10, "bash")
    family.add(11, "python3", alive=False)
    assert family.resolve() == set()


def test_a_program_that_has_reported_is_not_looked_through(family: Family) -> None:
    family.add(10, "sh")
    family.add(11, "bash")
    family.add(12, "python3", 11)
    family.handles = {11: True}
    assert family.resolve() == {11}


def test_below_a_shell_other_signals_reach_only_programs_that_have_reported(family: Family) -> None:
    family.add(10, "sh")
    family.add(11, "uv")
    family.add(12, "python3", 11)
    family.add(13, "python3")
    assert family.resolve(USR1, to_stop=False) == set()
    family.handles = {12: True, 13: False}
    assert family.resolve(USR1, to_stop=False) == {12}


def test_below_a_relay_other_signals_are_forwarded_without_knowing(family: Family) -> None:
    family.add(10, "uv")
    family.add(11, "python3")
    family.add(12, "sh")
    family.add(13, "python3", 12)
    assert family.resolve(USR1, to_stop=False) == {11}
    assert family.resolve(RTMIN, to_stop=False) == set()
    family.handles = {11: False}
    assert family.resolve(USR1, to_stop=False) == set()


def test_harmless_signals_reach_all_programs(family: Family) -> None:
    family.add(10, "sh")
    family.add(11, "python3")
    assert family.resolve(WINCH, to_stop=False) == {11}


def test_pids_in_a_circle_end_the_search(family: Family) -> None:
    family.add(10, "sh", 12)
    family.add(11, "sh", 10)
    family.add(12, "sh", 11)
    assert family.resolve() == {12}


# --- As the supervisor. ---------------------------------------------------------------------------------------------


@pytest.fixture
def blind(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world in which nothing is known of handlers; a name decides what is a wrapper."""
    monkeypatch.setattr(dispositions, "_masks_are_false", True)
    monkeypatch.setattr(dispositions, "Dispositions", Dispositions)  # not the fake
    monkeypatch.setattr(procfs, "argv_of", lambda _: [])
    monkeypatch.setattr(procfs, "wait_channel", lambda _: b"")
    monkeypatch.setattr(recipients, "is_wrapper", lambda process, _: procfs.is_shell(process))
    return world


def test_the_start_says_that_handlers_cannot_be_seen(blind: World, supervise: Callable[..., Harness]) -> None:
    (line,) = supervise().lines("signal handlers cannot be seen here")
    assert "X_AGENT_INIT_HANDLES" in line


def test_with_true_masks_the_start_says_nothing_of_it(world: World, supervise: Callable[..., Harness]) -> None:
    assert not supervise().lines("cannot be seen")


@pytest.mark.parametrize("number", [HUP, QUIT, USR1])
def test_a_signal_is_forwarded_to_an_agent_of_which_nothing_is_known(
    blind: World, supervise: Callable[..., Harness], number: int
) -> None:
    supervise().receive(number)
    assert blind.sent == [(AGENT, number)]


@pytest.fixture
def command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The agent's /proc/PID/cmdline."""
    path = tmp_path / "cmdline"
    path.write_bytes(b"python\0agent.py\0")
    real = os.open

    def open_it(name: str, flags: int) -> int:
        return real(path if name == f"/proc/{AGENT}/cmdline" else name, flags)

    monkeypatch.setattr(by_name.posix, "open", open_it)  # type: ignore[attr-defined]
    return path


def count_looks(monkeypatch: pytest.MonkeyPatch, world: World) -> list[int]:
    looks: list[int] = []

    def look(pid: int) -> Process | None:
        looks.append(pid)
        return world.look(pid)

    monkeypatch.setattr(procfs, "look", look)
    return looks


def test_one_look_at_the_agent_serves_until_it_runs_another_program(
    blind: World, supervise: Callable[..., Harness], command_line: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = supervise()
    looks = count_looks(monkeypatch, blind)
    for _ in range(3):
        harness.receive(USR1)
    assert blind.sent == [(AGENT, USR1)] * 3
    assert len(looks) == 1
    command_line.write_bytes(b"sh\0start.sh\0")
    blind.processes[AGENT].name = "sh"
    harness.receive(USR1)
    assert blind.sent == [(AGENT, USR1)] * 3
    assert harness.lines("USR1 from outside the container dropped")


def test_a_real_time_signal_and_one_to_a_program_seen_waiting_take_the_long_way(
    blind: World, supervise: Callable[..., Harness], command_line: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(procfs, "wait_channel", lambda _: b"do_wait")
    harness = supervise()
    assert not harness.supervisor.delivery.agent_gets_unknown(USR1)
    assert not harness.supervisor.delivery.agent_gets_unknown(RTMIN)
    assert command_line.exists()


def test_an_agent_that_has_exited_is_not_known_as_a_plain_program(
    blind: World, supervise: Callable[..., Harness], command_line: Path
) -> None:
    """A zombie has no command line, and no look at it is possible once it was reaped."""
    delivery = supervise().supervisor.delivery
    assert delivery.agent_gets_unknown(USR1)
    command_line.write_bytes(b"")
    del blind.processes[AGENT]
    assert not delivery.agent_gets_unknown(USR1)


def test_the_next_agent_has_a_command_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is read through one descriptor, which is closed when there is another agent."""
    monkeypatch.setattr(names, "is_wrapper", lambda _: False)
    monkeypatch.setattr(procfs, "wait_channel", lambda _: b"")
    plain = by_name.PlainProgram()
    opened = len(os.listdir("/proc/self/fd"))
    for pid in (os.getpid(), os.getppid(), os.getpid()):
        assert plain.is_plain(pid)
        assert len(os.listdir("/proc/self/fd")) == opened + 1
    assert not plain.is_plain(AGENT)
    assert len(os.listdir("/proc/self/fd")) == opened
    assert plain.is_plain(os.getpid())


def test_real_time_signals_are_dropped_and_the_line_says_why(blind: World, supervise: Callable[..., Harness]) -> None:
    harness = supervise()
    harness.receive(RTMIN)
    assert blind.sent == []
    assert harness.lines("RTMIN from outside the container dropped: no process is known to handle it") or harness.lines(
        f"{RTMIN} from outside the container dropped: no process is known to handle it"
    )


def test_signals_to_a_shell_are_dropped_and_hup_stops_what_it_runs(
    blind: World, supervise: Callable[..., Harness]
) -> None:
    blind.processes[AGENT].name = "sh"
    blind.add(AGENT + 1, AGENT, "python3")
    harness = supervise()
    harness.receive(USR1, int(signal.SIGUSR2))
    assert blind.sent == []
    assert len(harness.lines("dropped: no process is known to handle it")) == 2
    harness.receive(HUP)
    assert blind.sent == [(AGENT + 1, TERM), (AGENT + 1, int(signal.SIGCONT))]
    assert harness.lines("is a wrapper; TERM sent to python3")


def test_a_shell_without_children_gets_the_stop_signal_itself(blind: World, supervise: Callable[..., Harness]) -> None:
    blind.processes[AGENT].name = "sh"
    supervise().receive(TERM)
    assert (AGENT, TERM) in blind.sent


def test_a_report_decides_for_its_sender(blind: World, supervise: Callable[..., Harness]) -> None:
    harness = supervise()
    harness.notify(blind.processes[AGENT], X_AGENT_INIT_HANDLES="TERM, 10,RTMIN")
    harness.receive(USR1)
    harness.receive(RTMIN)
    harness.receive(int(signal.SIGUSR2))
    assert blind.sent == [(AGENT, USR1), (AGENT, RTMIN)]
    harness.receive(HUP)
    assert blind.sent[2:] == [(AGENT, TERM), (AGENT, int(signal.SIGCONT))], "a stop request: it does not handle HUP"


def test_a_report_of_the_program_below_a_shell_counts(blind: World, supervise: Callable[..., Harness]) -> None:
    blind.processes[AGENT].name = "sh"
    below = blind.add(AGENT + 1, AGENT, "python3")
    harness = supervise()
    harness.notify(below, X_AGENT_INIT_HANDLES="10")
    harness.receive(USR1)
    assert blind.sent == [(AGENT + 1, USR1)]


@pytest.mark.parametrize("value", ["foo", "15,foo", "0", "-1", "999"])
def test_a_malformed_report_is_ignored_and_quoted(blind: World, supervise: Callable[..., Harness], value: str) -> None:
    harness = supervise()
    harness.notify(blind.processes[AGENT], X_AGENT_INIT_HANDLES=value)
    (line,) = harness.lines("X_AGENT_INIT_HANDLES from agent")
    assert repr(value.split(",")[-1]) in line
    assert "accepted:" in line
    assert not dispositions._reports


@pytest.mark.parametrize(("number", "sent"), [(USR1, True), (RTMIN, False)])
def test_a_named_main_process_is_judged_in_the_same_way(
    blind: World, supervise: Callable[..., Harness], number: int, sent: bool
) -> None:
    named = blind.add(AGENT + 1, AGENT, "python3")
    harness = supervise()
    harness.supervisor.agent.named = named
    harness.receive(number)
    assert blind.sent == ([(AGENT + 1, number)] if sent else [])


def test_an_agent_of_which_nothing_is_known_for_the_moment_gets_the_signal(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No descriptor left, for example: the real masks are true, so this is over soon."""
    harness = supervise()
    monkeypatch.setattr(type(harness.supervisor.agent.dispositions), "handles_or_ignores", lambda *_: None)
    harness.receive(RTMIN)
    assert world.sent == [(AGENT, RTMIN)]
    assert OWN_PID not in dict(world.sent)

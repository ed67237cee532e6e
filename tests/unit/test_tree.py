"""What is read of other processes: where there is no /proc, where it fails, and where a process ends meanwhile.

What becomes of whole trees is in tests/process1 and tests/faults.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from entrypoint.init import tree
from entrypoint.init.tree import Dispositions, Process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TERM, USR1, USR2, RTMIN = int(signal.SIGTERM), int(signal.SIGUSR1), int(signal.SIGUSR2), int(signal.SIGRTMIN)


def failing(real: Callable[..., Any], *numbers: int) -> Callable[..., Any]:
    """`real`, which fails at first: once with each of the errors."""
    left = list(numbers)

    def call(*arguments: Any) -> Any:
        if left:
            number = left.pop(0)
            raise OSError(number, os.strerror(number))
        return real(*arguments)

    return call


def always(number: int) -> Callable[..., Any]:
    return failing(os.getpid, *[number] * 100)


@pytest.fixture
def child(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    """One that handles USR1, ignores USR2 and blocks RTMIN; and has said so. `request.param`: what it does before."""
    code = getattr(request, "param", "") + (
        "import signal, time; signal.signal(signal.SIGUSR1, lambda *_: None); "
        "signal.signal(signal.SIGUSR2, signal.SIG_IGN); signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMIN}); "
        "print(flush=True); time.sleep(100)"
    )
    with subprocess.Popen([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE) as started:
        assert started.stdout
        started.stdout.readline()
        yield started
        started.kill()


def seen(child: subprocess.Popen[bytes] | int) -> Process:
    found = tree.look(child if isinstance(child, int) else child.pid)
    assert found is not None
    return found


@pytest.fixture
def gone() -> int:
    """A pid that was just given back: the kernel goes through all the others before it gives it away again."""
    with subprocess.Popen(["true"]) as started:
        pass
    return started.pid


# --- /proc. ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("errors", "ours"),
    [
        ([], True),
        ([errno.ENOMEM], True),
        ([errno.ENOMEM, errno.EMFILE], True),
        ([errno.ENOMEM] * 3, False),
        ([errno.ENOENT], False),
    ],
)
def test_one_failure_does_not_take_proc_away(monkeypatch: pytest.MonkeyPatch, errors: list[int], ours: bool) -> None:
    monkeypatch.setattr(os, "readlink", failing(os.readlink, *errors))
    assert tree._proc_is_ours() is ours


def test_proc_of_another_namespace_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "readlink", lambda _: "1")
    assert tree._proc_is_ours() is (os.getpid() == 1)


def test_without_proc_nothing_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "PROC", False)
    assert tree.look(os.getpid()) is None
    for look in (tree.pids, tree.everything, lambda: tree.descendants(os.getpid())):
        with pytest.raises(OSError, match="no process to be seen"):
            look()
    assert not Dispositions(os.getpid())


def stat(*fields: int, state: str = "S") -> bytes:
    """What /proc says of process 17: proc(5), the fields from the fourth on."""
    return f"17 (na) S (me) {' '.join([state, *map(str, fields)])}\n".encode()


@pytest.mark.parametrize("there", [2, 18])
def test_who_is_gone_or_half_there_is_not_seen(monkeypatch: pytest.MonkeyPatch, gone: int, there: int) -> None:
    assert tree.look(gone) is None
    monkeypatch.setattr(tree, "contents", lambda *_: stat(*range(there)))
    assert tree.look(17) is None


def test_what_is_seen_stands_where_proc_5_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "contents", lambda *_: stat(*range(4, 23)))
    found = seen(17)
    assert (found.pid, found.name, found.parent, found.group) == (17, "na) S (me", 4, 5)
    assert (found.cpu, found.identity, found.alive) == (14 + 15, (17, 22), True)


@pytest.mark.parametrize(
    ("state", "threads", "alive"), [("S", 1, True), ("Z", 1, False), ("X", 1, False), ("Z", 2, True), ("X", 0, False)]
)
def test_what_has_ended_but_for_some_threads_lives(
    monkeypatch: pytest.MonkeyPatch, state: str, threads: int, alive: bool
) -> None:
    others = 1 if alive else 9
    fields = [others] * 16 + [threads] + [others] * 30
    monkeypatch.setattr(tree, "contents", lambda *_: stat(*fields, state=state))
    assert seen(17).alive is alive


def test_elsewhere_than_on_linux_psutil_answers(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes], gone: int
) -> None:
    here = seen(child)
    monkeypatch.setattr(tree, "LINUX", False)
    there = seen(child)
    assert (there.pid, there.parent, there.group, there.alive) == (here.pid, os.getpid(), here.group, True)
    assert there.cpu == 0
    assert there.name.startswith("python")
    assert {os.getpid(), child.pid} <= set(tree.pids())
    assert [found.pid for found in tree.descendants(os.getpid())] == [child.pid]
    assert tree.look(gone) is None
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not seen(child).alive


def test_elsewhere_too_a_pid_given_again_is_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    born = 1_700_000_000.0
    monkeypatch.setattr(tree, "LINUX", False)
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: born)
    before = seen(os.getpid())
    assert seen(os.getpid()).identity == before.identity
    born += 0.1
    assert seen(os.getpid()).identity != before.identity


# --- Trees that change while one looks. -----------------------------------------------------------------------------


class Forest:
    """Processes that are made up: `parents` by pid, and what a second look at each shows of it."""

    def __init__(self, parents: dict[int, int], later: dict[int, int | None] | None = None) -> None:
        self.parents: dict[int, int | None] = {**parents}
        self.later = later or {}
        self.looks: list[int] = []

    def pids(self) -> list[int]:
        return list(self.parents)

    def look(self, pid: int) -> Process | None:
        self.looks.append(pid)
        parent = self.parents.get(pid)
        if pid in self.later:
            self.parents[pid] = self.later[pid]
        return None if parent is None else Process(pid, f"p{pid}", parent, pid, 0)


@pytest.fixture
def forest(monkeypatch: pytest.MonkeyPatch) -> Callable[[Forest], None]:
    def use(made: Forest) -> None:
        monkeypatch.setattr(tree, "pids", made.pids)
        monkeypatch.setattr(tree, "look", made.look)

    return use


def test_whose_parent_ended_meanwhile_is_looked_at_again(forest: Callable[[Forest], None]) -> None:
    made = Forest({1: 0, 2: 1, 3: 99, 4: 98, 5: 97}, later={3: 1, 4: 98, 5: None})
    forest(made)
    parents = {pid: process.parent for pid, process in tree.everything().items()}
    assert parents == {1: 0, 2: 1, 3: 1, 4: 98, 5: 97}
    assert made.looks == [1, 2, 3, 4, 5, 3, 4, 5]  # whose parent is 0 has none in here
    assert [found.pid for found in tree.descendants(1)] == [2, 3]


def test_descendants_come_parents_first_and_without_the_dead() -> None:
    parents = {9: 2, 4: 3, 3: 2, 2: 1, 7: 1}
    processes = {pid: Process(pid, "p", parent, pid, 0, alive=pid != 3) for pid, parent in parents.items()}
    assert [found.pid for found in tree.below(1, processes)] == [2, 7, 9, 4]


@pytest.mark.parametrize(("root", "expected"), [(0, True), (1, True), (2, True), (3, False), (8, False)])
def test_an_ancestor_is_found_by_climbing(forest: Callable[[Forest], None], root: int, expected: bool) -> None:
    forest(Forest({1: 0, 2: 1, 3: 2, 8: 1}))
    assert tree.is_below(root, tree.look(3)) is expected


def test_climbing_ends_where_the_way_is_lost_or_goes_in_a_circle(forest: Callable[[Forest], None]) -> None:
    forest(Forest({5: 6, 6: 5, 7: 77}))
    assert not tree.is_below(1, tree.look(5))
    assert not tree.is_below(1, tree.look(7))
    assert not tree.is_below(1, None)


def test_climbing_ends_at_process_0_where_there_is_one(forest: Callable[[Forest], None]) -> None:
    made = Forest({0: 0, 1: 0, 2: 1})
    forest(made)
    assert not tree.is_below(9, tree.look(2))
    assert made.looks == [2, 1, 0]


# --- What one does with a signal. -----------------------------------------------------------------------------------


def test_what_is_handled_ignored_and_blocked_is_told_apart(child: subprocess.Popen[bytes]) -> None:
    dispositions = Dispositions(child.pid)
    told = {number: (dispositions.catches(number), dispositions.minds(number)) for number in (TERM, USR1, USR2, RTMIN)}
    assert told == {TERM: (False, False), USR1: (True, True), USR2: (False, True), RTMIN: (True, True)}
    dispositions.close()
    assert (dispositions.catches(USR1), dispositions.minds(TERM)) == (False, True)
    dispositions.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may set groups")
@pytest.mark.parametrize("child", ["import os; os.setgroups(range(10**9, 10**9 + 600)); "], indirect=True, ids=["600"])
def test_many_groups_hide_no_real_time_signal(child: subprocess.Popen[bytes]) -> None:
    """They stand in the same file, before it."""
    dispositions = Dispositions(child.pid)
    assert (dispositions.catches(RTMIN), dispositions.minds(RTMIN + 1)) == (True, False)
    dispositions.close()


def test_real_time_signals_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is above 31 stands in another file."""
    dispositions = Dispositions(os.getpid())
    masks = [0, 0, 0]

    def read(path: str, most: int = 0) -> bytes:
        if path.endswith("/wchan"):
            return b"0"
        assert path == f"/proc/{os.getpid()}/status"
        return b"Name:\tx\nShdPnd:\t%016x\nSigBlk:\t%016x\nSigIgn:\t%016x\nSigCgt:\t%016x\nCapInh:\t%016x\n" % (
            (1 << 64) - 1,
            *masks,
            (1 << 64) - 1,
        )

    def told() -> dict[int, tuple[bool, bool]]:
        looks = {number: (dispositions.catches(number), dispositions.minds(number)) for number in range(32, 65)}
        return {number: found for number, found in looks.items() if True in found}

    monkeypatch.setattr(tree, "contents", read)
    for which, expected in enumerate([(True, True), (False, True), (True, True)]):  # blocked, ignored, handled
        for number in range(32, 65):
            masks[which] = 1 << number - 1
            assert told() == {number: expected}
        masks[which] = 0
    dispositions.close()


def test_the_descriptor_is_held_from_the_start_and_let_go_of_once(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes]
) -> None:
    """Later there may be none left."""
    before = len(os.listdir("/proc/self/fd"))
    dispositions = Dispositions(child.pid)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    closed: list[int] = []
    real = os.close

    def close(fd: int) -> None:
        closed.append(fd)
        real(fd)

    monkeypatch.setattr(os, "open", always(errno.EMFILE))
    monkeypatch.setattr(os, "close", close)
    assert (dispositions.catches(USR1), dispositions.minds(TERM)) == (True, False)
    dispositions.close()
    assert not dispositions
    dispositions.close()
    assert len(closed) == 1
    monkeypatch.undo()
    assert len(os.listdir("/proc/self/fd")) == before


def test_of_one_that_cannot_be_looked_at_nothing_is_known_until_it_can(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes]
) -> None:
    with monkeypatch.context() as full:
        full.setattr(os, "open", always(errno.EMFILE))
        dispositions = Dispositions(child.pid)
        assert not dispositions
        assert (dispositions.catches(USR1), dispositions.minds(TERM)) == (False, True)
    assert (dispositions.catches(USR1), dispositions.minds(TERM)) == (True, False)
    dispositions.close()


def test_a_descriptor_that_comes_in_time_is_used(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes]
) -> None:
    monkeypatch.setattr(os, "open", failing(os.open, errno.EMFILE, errno.EMFILE))
    dispositions = Dispositions(child.pid)
    assert not dispositions.minds(TERM)
    dispositions.close()


@pytest.mark.parametrize("failures", [2, 3])
def test_a_read_is_tried_three_times(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes], failures: int
) -> None:
    dispositions = Dispositions(child.pid)
    monkeypatch.setattr(os, "pread", failing(os.pread, *[errno.EIO] * failures))
    assert dispositions.minds(TERM) is (failures == 3)
    dispositions.close()


@pytest.mark.parametrize("line", [b"", b"1 (x) S 1 2", b"1 (x) " + b"x " * 60], ids=["empty", "short", "no numbers"])
def test_a_line_that_makes_no_sense_tells_nothing(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes], line: bytes
) -> None:
    dispositions = Dispositions(child.pid)
    monkeypatch.setattr(os, "pread", lambda *_: line)
    monkeypatch.setattr(tree, "contents", lambda *_: line)
    assert (dispositions.catches(USR1), dispositions.minds(TERM)) == (False, True)
    assert (dispositions.catches(RTMIN), dispositions.minds(RTMIN + 1)) == (False, True)
    dispositions.close()


def test_of_one_that_has_ended_nothing_is_known(child: subprocess.Popen[bytes]) -> None:
    dispositions = Dispositions(child.pid)
    child.kill()
    child.wait()
    assert (dispositions.catches(USR1), dispositions.minds(TERM)) == (False, True)
    dispositions.close()


@pytest.mark.parametrize(("wchan", "waits"), [(b"do_sigtimedwait.isra.0", True), (b"do_select", False), (None, False)])
def test_one_that_waits_for_signals_catches_them(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes], wchan: bytes | None, waits: bool
) -> None:
    """Inside of sigwait(3) the kernel shows them unblocked."""

    def read(path: str, most: int = 0) -> bytes:
        assert path == f"/proc/{child.pid}/wchan"
        if wchan is None:
            raise PermissionError
        return wchan

    dispositions = Dispositions(child.pid)
    monkeypatch.setattr(tree, "contents", read)
    assert (dispositions.catches(TERM), dispositions.minds(TERM)) == (waits, waits)
    dispositions.close()


def test_minds_of_a_process(child: subprocess.Popen[bytes]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    assert [tree.minds(seen(child), number) for number in (TERM, USR1, USR2)] == [False, True, True]
    assert len(os.listdir("/proc/self/fd")) == before


# --- Children, and what a process is doing. -------------------------------------------------------------------------


def test_children_are_those_of_all_threads_and_none_of_one_that_is_gone(
    child: subprocess.Popen[bytes], gone: int
) -> None:
    assert child.pid in [process.pid for process in tree.children(os.getpid())]
    assert tree.children(child.pid) == []
    assert tree.children(gone) == []


@pytest.mark.parametrize(("name", "catches"), [("agent", True), ("bash", False)])
def test_what_a_shell_catches_by_habit_does_not_count(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes], name: str, catches: bool
) -> None:
    process = Process(child.pid, name, os.getpid(), child.pid, 0)
    monkeypatch.setattr(tree, "SHELL_HABITS", (USR1,))
    monkeypatch.setattr(tree, "program_names", lambda process: {process.name})
    before = len(os.listdir("/proc/self/fd"))
    assert tree.really_catches(process, USR1) is catches
    assert tree.really_catches(process, RTMIN)
    assert not tree.really_catches(process, TERM)
    assert len(os.listdir("/proc/self/fd")) == before


# --- Sending. -------------------------------------------------------------------------------------------------------


def refuse_pidfd(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    if how == "no such call":
        monkeypatch.delattr(os, "pidfd_open")
    elif how == "refused":
        monkeypatch.setattr(os, "pidfd_open", always(errno.EPERM))


def ended_by(child: subprocess.Popen[bytes]) -> int:
    return -child.wait(20)


@pytest.mark.parametrize("how", ["by pidfd", "refused", "no such call"])
def test_signals_go_to_the_process_that_was_looked_at(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes], how: str
) -> None:
    refuse_pidfd(monkeypatch, how)
    assert tree.send(seen(child), USR1, USR2, TERM)
    assert ended_by(child) == TERM


@pytest.mark.parametrize("how", ["by pidfd", "refused"])
def test_none_goes_to_another_one_of_its_pid(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes], how: str
) -> None:
    refuse_pidfd(monkeypatch, how)
    before = seen(child)
    before.start -= 1
    assert not tree.send(before, TERM)
    time.sleep(0.02)
    assert child.poll() is None


@pytest.mark.parametrize("how", ["by pidfd", "refused"])
def test_one_that_is_gone_gets_none(monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes], how: str) -> None:
    before = seen(child)
    child.kill()
    child.wait()
    refuse_pidfd(monkeypatch, how)
    assert not tree.send(before, TERM)


def test_a_zombie_gets_none(child: subprocess.Popen[bytes]) -> None:
    before = seen(child)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not tree.send(before, TERM)


@pytest.mark.parametrize("how", ["by pidfd", "refused"])
def test_one_that_ends_between_the_look_and_the_signal_is_not_reached(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes], how: str
) -> None:
    before, look = seen(child), tree.look

    def look_and_end(pid: int) -> Process | None:
        found = look(pid)
        child.kill()
        child.wait()
        return found

    refuse_pidfd(monkeypatch, how)
    opened = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(tree, "look", look_and_end)
    assert not tree.send(before, TERM)
    assert len(os.listdir("/proc/self/fd")) == opened


def test_where_nothing_can_be_seen_a_pidfd_is_trusted(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes]
) -> None:
    before = seen(child)
    monkeypatch.setattr(tree, "PROC", False)
    assert tree.send(before, TERM)
    assert ended_by(child) == TERM


def test_where_nothing_can_be_seen_a_mere_pid_is_not_trusted(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes]
) -> None:
    before = seen(child)
    monkeypatch.setattr(tree, "PROC", False)
    refuse_pidfd(monkeypatch, "refused")
    assert not tree.send(before, TERM)
    time.sleep(0.02)
    assert child.poll() is None

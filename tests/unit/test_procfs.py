"""What is read from /proc: also where there is none, where a read fails, and where a process exits meanwhile."""

from __future__ import annotations

import contextlib
import errno
import os
import posix
import signal
import subprocess
import sys
import threading
import time
import types
from typing import TYPE_CHECKING, Any, ClassVar

import psutil
import pytest

from entrypoint.init import procfs, tree
from entrypoint.init.procfs import Dispositions, Process
from tests.support.init import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TERM, USR1, USR2, RTMIN = int(signal.SIGTERM), int(signal.SIGUSR1), int(signal.SIGUSR2), int(signal.SIGRTMIN)


def failing(real: Callable[..., Any], *numbers: int) -> Callable[..., Any]:
    """Return `real`, failing at first: once with each of these errors."""
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
    """A process that handles USR1, ignores USR2 and blocks RTMIN, and is ready. `request.param`: code to run before."""
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


def look(child: subprocess.Popen[bytes] | int) -> Process:
    found = procfs.look(child if isinstance(child, int) else child.pid)
    assert found is not None
    return found


@pytest.fixture
def gone() -> int:
    """A pid that was in use until now: the kernel goes through all others before it reuses it."""
    with subprocess.Popen(["true"]) as started:
        pass
    return started.pid


# --- /proc. ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("errors", "mounted"),
    [
        ([], True),
        ([errno.ENOMEM], True),
        ([errno.ENOMEM, errno.EMFILE], True),
        ([errno.EPERM] * 3, True),
        ([errno.ENOENT], False),
    ],
)
def test_proc_is_used_although_one_read_fails(
    monkeypatch: pytest.MonkeyPatch, errors: list[int], mounted: bool
) -> None:
    monkeypatch.setattr(posix, "readlink", failing(os.readlink, *errors))
    assert procfs._is_our_own() is mounted


@pytest.mark.parametrize("content", [b"1 (a) S 0", b"", b"?"])
def test_where_readlink_is_refused_proc_shows_our_pid_in_a_file(
    monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(posix, "readlink", failing(os.readlink, *[errno.EPERM] * 3))
    monkeypatch.setattr(procfs, "read_file", lambda _: content)
    assert not procfs._is_our_own()


def test_without_readlink_and_files_proc_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posix, "readlink", failing(os.readlink, *[errno.EPERM] * 3))
    monkeypatch.setattr(procfs, "read_file", failing(procfs.read_file, errno.EPERM))
    assert not procfs._is_our_own()


def test_proc_of_another_pid_namespace_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posix, "readlink", lambda _: "1")
    assert procfs._is_our_own() is (os.getpid() == 1)


def test_without_proc_no_process_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procfs, "MOUNTED", False)
    assert procfs.look(os.getpid()) is None
    with pytest.raises(OSError, match="no processes visible"):
        procfs.pids()
    assert not Dispositions(os.getpid())


def test_a_process_is_shown_with_its_name_and_pid() -> None:
    assert str(Process(17, "agent", 1, 17, 0)) == "agent (pid 17)"


def stat(*fields: int, state: str = "S") -> bytes:
    """Return /proc/17/stat with these fields from the fourth on (proc(5))."""
    return f"17 (na) S (me) {' '.join([state, *map(str, fields)])}\n".encode()


@pytest.mark.parametrize("length", [2, 18])
def test_a_process_without_a_whole_stat_line_is_not_found(
    monkeypatch: pytest.MonkeyPatch, gone: int, length: int
) -> None:
    assert procfs.look(gone) is None
    monkeypatch.setattr(procfs, "read_file", lambda *_: stat(*range(length)))
    assert procfs.look(17) is None


@pytest.mark.parametrize("call", ["open", "read"])
@pytest.mark.parametrize(
    ("errors", "found"),
    [
        ([errno.EMFILE], True),
        ([errno.ENOMEM, errno.ENFILE], True),
        ([errno.ENOMEM] * 3, False),
        ([errno.ENOENT], False),  # it has exited
        ([errno.ESRCH], False),  # it has exited since the file was opened
        ([errno.EACCES], False),  # hidden (hidepid, proc(5))
        ([errno.EMFILE, errno.ESRCH], False),
    ],
)
def test_a_look_is_tried_three_times_unless_the_process_has_exited_or_is_hidden(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes], call: str, errors: list[int], found: bool
) -> None:
    """Processes that are there must not pass for exited when descriptors or memory run out for a moment."""
    known = look(child)
    with monkeypatch.context() as scarce:
        scarce.setattr(posix, call, failing(getattr(os, call), *errors))
        assert (procfs.look(child.pid) is not None) is found
    monkeypatch.setattr(posix, call, failing(getattr(os, call), *errors))
    assert procfs.is_there(known) is found


def test_each_value_comes_from_its_field_in_stat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procfs, "read_file", lambda *_: stat(*range(4, 23)))
    found = look(17)
    assert (found.pid, found.name, found.parent, found.group) == (17, "na) S (me", 4, 5)
    assert (found.cpu, found.identity, found.alive) == (14 + 15, (17, 22), True)


@pytest.mark.parametrize(
    ("state", "threads", "alive"), [("S", 1, True), ("Z", 1, False), ("X", 1, False), ("Z", 2, True), ("X", 0, False)]
)
def test_a_process_lives_as_long_as_one_of_its_threads(
    monkeypatch: pytest.MonkeyPatch, state: str, threads: int, alive: bool
) -> None:
    others = 1 if alive else 9
    fields = [others] * 16 + [threads] + [others] * 30
    monkeypatch.setattr(procfs, "read_file", lambda *_: stat(*fields, state=state))
    assert look(17).alive is alive


def test_psutil_is_used_where_there_is_no_linux(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes], gone: int
) -> None:
    here = look(child)
    monkeypatch.setattr(procfs, "LINUX", False)
    there = look(child)
    assert (there.pid, there.parent, there.group, there.alive) == (here.pid, os.getpid(), here.group, True)
    assert there.cpu == 0
    assert there.name.startswith("python")
    assert {os.getpid(), child.pid} <= set(procfs.pids())
    assert [found.pid for found in tree.below(os.getpid(), tree.everything())] == [child.pid]
    assert procfs.look(gone) is None
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not look(child).alive


def test_psutil_tells_apart_two_processes_with_one_pid(monkeypatch: pytest.MonkeyPatch) -> None:
    started = 1_700_000_000.0
    monkeypatch.setattr(procfs, "LINUX", False)
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: started)
    before = look(os.getpid())
    assert look(os.getpid()).identity == before.identity
    started += 0.1
    assert look(os.getpid()).identity != before.identity


# --- Signal dispositions. -------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def masks_are_true(monkeypatch: pytest.MonkeyPatch) -> None:
    """Process 1 has looked at itself already; for what it finds see test_unknown_masks.py."""
    monkeypatch.setattr(procfs, "_masks_are_false", False)


def answers(dispositions: Dispositions, number: int) -> tuple[bool | None, bool | None]:
    return dispositions.handles(number), dispositions.handles_or_ignores(number)


def test_handled_ignored_and_blocked_signals_are_distinguished(child: subprocess.Popen[bytes]) -> None:
    dispositions = Dispositions(child.pid)
    found = {number: answers(dispositions, number) for number in (TERM, USR1, USR2, RTMIN)}
    assert found == {TERM: (False, False), USR1: (True, True), USR2: (False, True), RTMIN: (True, True)}
    dispositions.close()
    assert (dispositions.handles(USR1), dispositions.handles_or_ignores(TERM)) == (None, None)
    dispositions.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may set groups")
@pytest.mark.parametrize("child", ["import os; os.setgroups(range(10**9, 10**9 + 600)); "], indirect=True, ids=["600"])
def test_real_time_signals_are_found_behind_many_groups(child: subprocess.Popen[bytes]) -> None:
    """The supplementary groups come first in /proc/pid/status."""
    dispositions = Dispositions(child.pid)
    assert (dispositions.handles(RTMIN), dispositions.handles_or_ignores(RTMIN + 1)) == (True, False)
    dispositions.close()


def test_real_time_signals_are_distinguished(monkeypatch: pytest.MonkeyPatch) -> None:
    """/proc/pid/stat covers signals up to 31 only."""
    dispositions = Dispositions(os.getpid())
    masks = [0, 0, 0]
    real = procfs.read_file

    def read(path: str, max_bytes: int = 4096) -> bytes:
        if path.endswith("/wchan"):
            return b"0"
        if path.endswith(("/stat", "/cmdline")):
            return real(path, max_bytes)
        assert path == f"/proc/{os.getpid()}/status"
        return b"Name:\tx\nShdPnd:\t%016x\nSigBlk:\t%016x\nSigIgn:\t%016x\nSigCgt:\t%016x\nCapInh:\t%016x\n" % (
            (1 << 64) - 1,
            *masks,
            (1 << 64) - 1,
        )

    def found() -> dict[int, tuple[bool | None, bool | None]]:
        return {number: each for number in range(32, 65) if True in (each := answers(dispositions, number))}

    monkeypatch.setattr(procfs, "read_file", read)
    for which, expected in enumerate([(True, True), (False, True), (True, True)]):  # blocked, ignored, handled
        for number in range(32, 65):
            masks[which] = 1 << number - 1
            assert found() == {number: expected}
        masks[which] = 0
    dispositions.close()


ALL = 0x7FFB_FEFF  # the signals up to 31 that can be blocked
NONE = -1  # not even the signal that is asked for
FORKS, READS_DISK, POLLS, RUNS = b"kernel_clone", b"folio_wait_bit_common", b"do_poll.constprop.0", b"0"


class Moments:
    """A process with pid 5, and its parent 4, as they are at one look after the other; the last look holds for ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int, looks: list[tuple[int, bytes]]) -> None:
        self.looks, self.number = list(looks), number
        self.names, self.argv = {4: "python3", 5: "python3"}, {4: ["python3", "a.py"], 5: ["python3", "b.py"]}
        self.of_parent = POLLS
        self.slept, self.now = 0.0, 100.0
        monkeypatch.setattr(procfs, "_waited", 0.0)
        monkeypatch.setattr(procfs, "_waited_since", self.now)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(procfs, "look", self.look)
        monkeypatch.setattr(procfs, "argv_of", lambda pid: self.argv[pid])
        monkeypatch.setattr(procfs, "program_names", lambda process: {process.name})
        monkeypatch.setattr(procfs, "wait_channel", lambda pid: self.looks[0][1] if pid == 5 else self.of_parent)
        monkeypatch.setattr(procfs, "child_pids", lambda _: [])
        monkeypatch.setattr(procfs, "read_file", self.read)
        monkeypatch.setattr(posix, "pread", lambda *_: self.line())
        monkeypatch.setattr(time, "sleep", self.sleep)

    def look(self, pid: int) -> Process | None:
        if pid not in self.names:
            return None
        waits = pid == 4 or self.looks[0][1] == POLLS
        return Process(pid, self.names[pid], 4 if pid == 5 else 1, pid, 1, waits=waits, cpu=9)

    def masks(self) -> tuple[int, int, int]:
        """The next look."""
        if len(self.looks) > 1:
            del self.looks[0]
        blocked = self.looks[0][0]
        return 0 if blocked == NONE else blocked | 1 << self.number - 1, 0, 0

    def line(self) -> bytes:
        masks = self.masks()
        where = self.looks[0][1]
        state = b"R" if where == RUNS else b"D" if where in (FORKS, READS_DISK) else b"S"
        return b"5 (python3) " + state + b" 0" * 28 + b" %d %d %d 17" % masks

    def read(self, path: str, max_bytes: int = 0) -> bytes:
        assert path == "/proc/5/status"
        return b"\nSigBlk:\t%x\nSigIgn:\t%x\nSigCgt:\t%x\n" % self.masks()

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        self.now += seconds

    def handles(self, *, patient: bool) -> bool | None:
        dispositions = Dispositions(os.getpid(), patient=patient)
        dispositions.pid = 5
        try:
            return dispositions.handles(self.number)
        finally:
            dispositions.pid = os.getpid()
            dispositions.close()


EACH_NUMBER = pytest.mark.parametrize("number", [USR1, RTMIN])
EITHER_WAY = pytest.mark.parametrize("patient", [False, True], ids=["impatient", "patient"])


@EACH_NUMBER
@EITHER_WAY
@pytest.mark.parametrize(
    "looks",
    [
        [(0, RUNS), (0, RUNS)],  # only this signal
        [(ALL, POLLS), (ALL, POLLS)],
        [(ALL, READS_DISK), (ALL, READS_DISK)],
        [(ALL, RUNS), (ALL, RUNS)],
        [(ALL, RUNS), (ALL, FORKS), (ALL, RUNS), (ALL, POLLS)],
    ],
)
def test_a_signal_that_is_blocked_for_good_counts_as_handled(
    monkeypatch: pytest.MonkeyPatch, looks: list[tuple[int, bytes]], number: int, patient: bool
) -> None:
    """By a program that waits for signals in its main thread or in another one."""
    moments = Moments(monkeypatch, number, looks)
    assert moments.handles(patient=patient) is True
    assert moments.slept <= 0.0021


@EACH_NUMBER
@EITHER_WAY
def test_a_signal_that_is_blocked_while_a_program_starts_does_not_count_as_handled(
    monkeypatch: pytest.MonkeyPatch, number: int, patient: bool
) -> None:
    for looks in (
        [(ALL, FORKS)],
        [(ALL, RUNS), (ALL, RUNS), (NONE, RUNS)],
        [(ALL, FORKS), (ALL, FORKS), (NONE, POLLS)],
        [(ALL, RUNS), (ALL, RUNS), (ALL, FORKS), (ALL, RUNS)],  # one program after the other
    ):
        moments = Moments(monkeypatch, number, looks)
        assert moments.handles(patient=patient) is False
        assert moments.slept <= 0.0021


@EITHER_WAY
@pytest.mark.parametrize(
    ("argv", "name", "of_parent", "expected"),
    [
        (["python3", "a.py"], "python3", FORKS, False),
        (["python3", "a.py"], "python3", POLLS, True),
        (["python3", "b.py"], "python3", FORKS, True),  # an older child of it
        (["python3", "a.py"], "worker", FORKS, True),
    ],
)
def test_a_child_that_has_not_executed_its_program_yet_handles_nothing(
    monkeypatch: pytest.MonkeyPatch, argv: list[str], name: str, of_parent: bytes, expected: bool, patient: bool
) -> None:
    moments = Moments(monkeypatch, USR1, [(ALL, POLLS)])
    moments.argv[5], moments.names[5], moments.of_parent = argv, name, of_parent
    assert moments.handles(patient=patient) is expected


@EACH_NUMBER
@EITHER_WAY
@pytest.mark.parametrize(("blocked", "expected"), [(ALL, False), (0, True)])
def test_a_shell_that_blocks_all_signals_handles_none(
    monkeypatch: pytest.MonkeyPatch, number: int, patient: bool, blocked: int, expected: bool
) -> None:
    moments = Moments(monkeypatch, number, [(blocked, POLLS)])
    moments.names[5] = "dash"
    assert moments.handles(patient=patient) is expected


@EITHER_WAY
def test_what_cannot_be_looked_at_handles_what_it_blocks_only_if_it_is_the_agent(
    monkeypatch: pytest.MonkeyPatch, patient: bool
) -> None:
    """Others have exited. Of the agent a descriptor is open; there may be none left for more."""
    moments = Moments(monkeypatch, USR1, [(ALL, RUNS)])
    moments.names.clear()
    assert moments.handles(patient=patient) is patient


def test_of_thousands_of_processes_few_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL is not to be late for them; nor a signal for the agent."""
    moments = Moments(monkeypatch, USR1, [(ALL, RUNS)])
    assert moments.handles(patient=False) is True
    assert {moments.handles(patient=False) for _ in range(1000)} == {True, False}
    assert moments.handles(patient=False) is False  # there is no time to find out
    assert 0.1 <= moments.slept < 0.11
    slept = moments.slept
    assert moments.handles(patient=True) is True
    assert moments.slept == pytest.approx(slept + 0.0018)
    moments.now += 1
    assert moments.handles(patient=False) is True
    assert moments.slept == pytest.approx(slept + 2 * 0.0018)


@EITHER_WAY
@pytest.mark.parametrize("where", [b"anon_pipe_read", b"do_wait"])
def test_who_sleeps_where_posix_spawn_of_musl_does_is_looked_at_again(
    monkeypatch: pytest.MonkeyPatch, where: bytes, patient: bool
) -> None:
    assert Moments(monkeypatch, USR1, [(ALL, where), (ALL, where), (NONE, RUNS)]).handles(patient=patient) is False
    moments = Moments(monkeypatch, USR1, [(ALL, where)])
    assert moments.handles(patient=patient) is True
    monkeypatch.setattr(procfs, "_waited", 1.0)
    assert moments.handles(patient=patient) is True


def test_where_sleep_is_refused_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = Moments(monkeypatch, USR1, [(ALL, RUNS)])
    monkeypatch.setattr(time, "sleep", always(errno.EPERM))
    assert (moments.handles(patient=True), moments.handles(patient=False)) == (True, False)
    assert procfs._is_starting(Process(5, "python3", 4, 5, 1)) is False
    monkeypatch.setattr(procfs, "look", lambda _: Process(5, "python3", 4, 5, 1, waits=False))
    assert procfs._is_starting(Process(5, "python3", 4, 5, 1)) is True


class Young:
    """A process that seems to be starting, at one look after the other; None: it has exited."""

    WHERE: ClassVar = {"reads": b"request_wait_answer", "forks": FORKS}

    def __init__(self, monkeypatch: pytest.MonkeyPatch, states: list[str | None], children: list[list[int]]) -> None:
        """`children`: at one look after the other."""
        self.states, self.looks = states, 0
        left = list(children)
        monkeypatch.setattr(procfs, "_waited", 0.0)
        monkeypatch.setattr(procfs, "_waited_since", time.monotonic())
        monkeypatch.setattr(procfs, "look", self.look)
        monkeypatch.setattr(procfs, "child_pids", lambda _: left.pop(0) if len(left) > 1 else left[0])
        monkeypatch.setattr(procfs, "argv_of", lambda pid: ["parent"] if pid == 4 or self.state() == "fork" else ["x"])
        monkeypatch.setattr(procfs, "wait_channel", lambda _: self.WHERE.get(self.state() or "", POLLS))
        monkeypatch.setattr(time, "sleep", lambda _: None)

    def state(self) -> str | None:
        return self.states[min(self.looks - 1, len(self.states) - 1)]

    def look(self, pid: int) -> Process | None:
        assert pid == 5
        self.looks += 1
        state = self.state()
        waits, cpu = state in ("waits", "reads"), 9 if state == "old" else 0
        return None if state is None else Process(5, "x", 4, 5, 1, waits=waits, cpu=cpu)


@pytest.mark.parametrize(
    ("states", "children", "starting", "looks"),
    [
        (["waits"], [[]], False, 1),
        (["old"], [[]], False, 1),
        (["runs", "waits"], [[]], False, 2),
        (["runs"], [[]], True, 11),
        (["reads", "runs"], [[]], True, 11),
        (["reads", "waits"], [[]], False, 2),
        (["runs"], [[6]], True, 11),  # of the shell that has executed it
        (["runs"], [[6], [6, 7]], False, 2),
        (["runs"], [[6], []], True, 11),
        (["runs", "forks"], [[]], False, 2),
        (["runs", None], [[]], True, 2),
        ([None], [[]], True, 1),
    ],
)
def test_a_program_that_only_uses_little_processor_time_is_not_starting(
    monkeypatch: pytest.MonkeyPatch, states: list[str | None], children: list[list[int]], starting: bool, looks: int
) -> None:
    young = Young(monkeypatch, states, children)
    assert procfs._is_starting(Process(5, "x", 4, 5, 1)) is starting
    assert young.looks == looks


def test_where_others_have_been_waited_for_a_program_that_runs_is_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    young = Young(monkeypatch, ["runs", "waits"], [[]])
    monkeypatch.setattr(procfs, "_waited", procfs.MAX_WAITED)
    assert procfs._is_starting(Process(5, "x", 4, 5, 1))
    assert young.looks == 1


@pytest.mark.parametrize(
    ("states", "looks"),
    [
        (["waits"], 1),
        (["runs"], 1),
        (["fork", "fork", "runs"], 3),
        (["fork", "waits"], 2),
        (["fork"], 11),
        (["fork", None], 2),
        ([None], 1),
    ],
)
@pytest.mark.parametrize("handles", [True, False, None])
def test_the_exec_of_a_fork_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, states: list[str | None], looks: int, handles: bool | None
) -> None:
    young = Young(monkeypatch, states, [[]])
    monkeypatch.setattr(procfs, "handles", lambda *_: handles)
    assert procfs.handles_once_started(Process(5, "x", 4, 5, 1), TERM) is (handles is True)
    assert young.looks == looks


@EACH_NUMBER
def test_what_was_blocked_for_good_before_stays_handled_while_a_program_starts(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A supervisor that reads its signals between two programs that it starts."""
    moments = Moments(monkeypatch, number, [(ALL, POLLS)])
    dispositions = Dispositions(os.getpid(), patient=True)
    dispositions.pid = 5
    assert dispositions.handles(number) is True
    moments.looks = [(ALL, FORKS)]
    assert dispositions.handles(number) is True
    assert dispositions.seen() is None  # it is not known for how long
    dispositions.pid = os.getpid()
    dispositions.close()


def test_the_descriptor_is_opened_at_once_and_closed_once(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes]
) -> None:
    """Later there may be no descriptor left."""
    before = len(os.listdir("/proc/self/fd"))
    dispositions = Dispositions(child.pid)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    closed: list[int] = []
    real = os.close

    def close(fd: int) -> None:
        closed.append(fd)
        real(fd)

    monkeypatch.setattr(posix, "open", always(errno.EMFILE))
    monkeypatch.setattr(posix, "close", close)
    assert (dispositions.handles(USR1), dispositions.handles_or_ignores(TERM)) == (True, False)
    dispositions.close()
    assert not dispositions
    dispositions.close()
    assert len(closed) == 1
    monkeypatch.undo()
    assert len(os.listdir("/proc/self/fd")) == before


def test_nothing_is_known_until_a_descriptor_can_be_opened(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes]
) -> None:
    with monkeypatch.context() as full:
        full.setattr(posix, "open", always(errno.EMFILE))
        dispositions = Dispositions(child.pid)
        assert not dispositions
        assert (dispositions.handles(USR1), dispositions.handles_or_ignores(TERM)) == (None, None)
    assert (dispositions.handles(USR1), dispositions.handles_or_ignores(TERM)) == (True, False)
    dispositions.close()


def test_opening_is_tried_three_times(monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes]) -> None:
    monkeypatch.setattr(posix, "open", failing(os.open, errno.EMFILE, errno.EMFILE))
    dispositions = Dispositions(child.pid)
    assert dispositions.handles_or_ignores(TERM) is False
    dispositions.close()


@pytest.mark.parametrize("failures", [2, 3])
def test_a_read_is_tried_three_times(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes], failures: int
) -> None:
    dispositions = Dispositions(child.pid)
    monkeypatch.setattr(posix, "pread", failing(os.pread, *[errno.EIO] * failures))
    assert dispositions.handles_or_ignores(TERM) is (None if failures == 3 else False)
    dispositions.close()


@pytest.mark.parametrize("line", [b"", b"1 (x) S 1 2", b"1 (x) " + b"x " * 60], ids=["empty", "short", "no numbers"])
def test_nothing_is_known_from_a_malformed_line(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes], line: bytes
) -> None:
    dispositions = Dispositions(child.pid)
    monkeypatch.setattr(posix, "pread", lambda *_: line)
    monkeypatch.setattr(procfs, "read_file", lambda *_: line)
    assert (dispositions.handles(USR1), dispositions.handles_or_ignores(TERM)) == (None, None)
    assert (dispositions.handles(RTMIN), dispositions.handles_or_ignores(RTMIN + 1)) == (None, None)
    dispositions.close()


def test_nothing_is_known_of_a_process_that_has_exited(child: subprocess.Popen[bytes]) -> None:
    dispositions = Dispositions(child.pid)
    child.kill()
    child.wait()
    assert (dispositions.handles(USR1), dispositions.handles_or_ignores(TERM)) == (None, None)
    dispositions.close()


@pytest.mark.parametrize(("wchan", "waits"), [(b"do_sigtimedwait.isra.0", True), (b"do_select", False), (None, False)])
def test_a_process_in_sigwait_handles_the_signal(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes], wchan: bytes | None, waits: bool
) -> None:
    """Inside sigwait(3) the kernel shows it unblocked."""

    def read(path: str, max_bytes: int = 0) -> bytes:
        assert path == f"/proc/{child.pid}/wchan"
        if wchan is None:
            raise PermissionError
        return wchan

    dispositions = Dispositions(child.pid)
    monkeypatch.setattr(procfs, "read_file", read)
    assert answers(dispositions, TERM) == (waits, waits)
    dispositions.close()


def test_one_process_is_asked_without_leaving_a_descriptor_open(child: subprocess.Popen[bytes]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    assert [procfs.handles_or_ignores(look(child), number) for number in (TERM, USR1, USR2)] == [False, True, True]
    assert [procfs.handles(look(child), number) for number in (TERM, USR1, USR2)] == [False, True, False]
    assert len(os.listdir("/proc/self/fd")) == before


# --- Children, and what a process is. -------------------------------------------------------------------------------


def test_a_process_that_has_exited_has_no_children(child: subprocess.Popen[bytes], gone: int) -> None:
    assert child.pid in [process.pid for process in procfs.children(os.getpid())]
    assert procfs.children(child.pid) == []
    assert procfs.children(gone) == []


@pytest.mark.parametrize("error", [FileNotFoundError(), ProcessLookupError(), OSError(errno.EMFILE, "")], ids=repr)
def test_a_thread_that_exits_meanwhile_does_not_hide_children_of_other_threads(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes], error: OSError
) -> None:
    """Wherever it is among them."""
    real = procfs.read_file

    def read_file(path: str, *more: int) -> bytes:
        if "/task/gone" in path:
            raise error
        return real(path, *more)

    tasks = os.listdir("/proc/self/task")
    with monkeypatch.context() as fake:
        fake.setattr(procfs, "read_file", read_file)
        fake.setattr(posix, "listdir", lambda _: ["gone", *tasks, "gone too"])
        found = procfs.children(os.getpid())
    assert child.pid in [process.pid for process in found]


def test_children_of_all_threads_are_found() -> None:
    started, done, pids = threading.Event(), threading.Event(), []

    def run() -> None:
        with subprocess.Popen(["sleep", "100"]) as process:
            pids.append(process.pid)
            started.set()
            done.wait()
            process.kill()

    thread = threading.Thread(target=run)
    thread.start()
    started.wait()
    found = [process.pid for process in procfs.children(os.getpid())]
    done.set()
    thread.join()
    assert pids[0] in found


def test_the_same_process_is_there_until_it_exits(child: subprocess.Popen[bytes]) -> None:
    known = look(child)
    assert procfs.is_there(known)
    reused = look(child)
    reused.start -= 1
    assert not procfs.is_there(reused)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not procfs.is_there(known)  # a zombie
    child.wait()
    assert not procfs.is_there(known)
    assert not procfs.is_there(None)


@pytest.mark.parametrize(("name", "handles"), [("agent", True), ("bash", False)])
def test_a_shells_habit_is_not_counted_as_handling(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes], name: str, handles: bool
) -> None:
    process = Process(child.pid, name, os.getpid(), child.pid, 0)
    monkeypatch.setattr(procfs, "SHELL_HABITS", (USR1,))
    monkeypatch.setattr(procfs, "program_names", lambda process: {process.name})
    before = len(os.listdir("/proc/self/fd"))
    assert procfs.handles(process, USR1) is handles
    assert procfs.handles(process, RTMIN)
    assert not procfs.handles(process, TERM)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("file", "argv", "name", "shell"),
    [
        ("/usr/bin/bash", ["/bin/bash", "/entrypoint.sh"], "entrypoint.sh", True),
        ("/usr/bin/dash", ["sh", "-c", "agent"], "sh", True),
        ("/bin/busybox", ["sh", "-c", "agent"], "sh", True),
        ("/bin/busybox", ["busybox", "ash"], "busybox", True),
        ("/bin/busybox", ["sleep", "60"], "sleep", False),
        ("/usr/bin/python3", ["bash"], "bash", True),
        ("/usr/bin/python3", ["python", "bash"], "bash", False),
        (None, ["-bash"], "bash", True),
        (None, None, "zsh", True),
        (None, None, "agent", False),
    ],
)
def test_a_shell_is_known_by_its_file_or_its_argv(
    monkeypatch: pytest.MonkeyPatch, file: str | None, argv: list[str] | None, name: str, shell: bool
) -> None:
    def readlink(path: str) -> str:
        assert path == "/proc/20/exe"
        if file is None:
            raise PermissionError
        return file

    monkeypatch.setattr(posix, "readlink", readlink)
    monkeypatch.setattr(procfs, "argv_of", lambda _: argv or [])
    assert procfs.is_shell(Process(20, name, 1, 20, 0)) is shell


def test_nothing_is_known_about_a_pid_that_is_not_in_use(gone: int) -> None:
    assert procfs.argv_of(gone) == []
    assert procfs.program_names(Process(gone, "gone", os.getpid(), gone, 0)) == {"gone"}
    assert not procfs.is_shell(None)
    assert procfs.wait_channel(gone) == b""
    assert procfs.blocking_descriptor(gone) is None
    assert procfs.descriptor_target(gone, 0) == ""
    assert list(procfs.open_modes(gone, "pipe:[1]")) == []


def test_a_command_line_is_read_as_far_as_4096_bytes(child: subprocess.Popen[bytes]) -> None:
    assert procfs.argv_of(child.pid)[:3] == [sys.executable, "-S", "-c"]
    with subprocess.Popen(["sleep", *["0" * 100] * 100, "100"]) as long:
        until(lambda: procfs.argv_of(long.pid)[:1] == ["sleep"], "the exec")
        assert procfs.argv_of(long.pid) == ["sleep", *["0" * 100] * 40]  # whole arguments in 4096 bytes
        long.kill()


# --- What a process is doing. ---------------------------------------------------------------------------------------


def test_the_descriptor_that_a_process_reads_is_found_with_its_pipe() -> None:
    with subprocess.Popen(["cat", "/dev/fd/0"], stdin=subprocess.PIPE) as reader:
        assert reader.stdin
        until(lambda: b"pipe_read" in procfs.wait_channel(reader.pid), "cat to read")
        fd = procfs.blocking_descriptor(reader.pid)
        assert fd is not None
        target = procfs.descriptor_target(reader.pid, fd)
        assert target == os.readlink(f"/proc/self/fd/{reader.stdin.fileno()}")
        assert [flags & os.O_ACCMODE for flags in procfs.open_modes(reader.pid, target)] == [os.O_RDONLY] * 2
        assert os.O_WRONLY in [flags & os.O_ACCMODE for flags in procfs.open_modes(os.getpid(), target)]


@pytest.mark.parametrize("text", [b"running\n", b"", b"0 odd\n"], ids=["running", "empty", "malformed"])
def test_a_process_that_runs_is_blocked_by_no_descriptor(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    monkeypatch.setattr(procfs, "read_file", lambda _: text)
    assert procfs.blocking_descriptor(17) is None


@pytest.mark.parametrize("text", [b"pos:\t0\n", b"flags:", b"flags:\todd\n"], ids=["no flags", "cut", "malformed"])
def test_a_descriptor_without_flags_is_skipped(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    targets = {"/proc/17/fd/3": "pipe:[1]", "/proc/17/fd/4": "pipe:[2]", "/proc/17/fd/6": "pipe:[1]"}
    infos = {"/proc/17/fdinfo/3": text, "/proc/17/fdinfo/6": b"pos:\t0\nflags:\t02000001\nmnt_id:\t13\n"}

    def readlink(path: str) -> str:
        if path not in targets:
            raise FileNotFoundError  # closed meanwhile
        return targets[path]

    entries = [types.SimpleNamespace(name=name) for name in "3456"]
    monkeypatch.setattr(posix, "scandir", lambda path: {"/proc/17/fd": contextlib.nullcontext(entries)}[path])
    monkeypatch.setattr(posix, "readlink", readlink)
    monkeypatch.setattr(procfs, "read_file", infos.__getitem__)
    assert list(procfs.open_modes(17, "pipe:[1]")) == [0o2000001]


# --- What a look at shells, relays and tracers needs. ---------------------------------------------------------------


def test_masks_are_those_of_the_process(child: subprocess.Popen[bytes]) -> None:
    masks = procfs.masks(child.pid)
    assert masks is not None
    assert masks[2] & 1 << USR1 - 1
    assert not masks[2] & 1 << TERM - 1


def test_masks_of_nobody_are_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    assert procfs.masks(10_000_001) is None
    monkeypatch.setattr(procfs, "masks_are_false", lambda: True)
    assert procfs.masks(os.getpid()) is None


def test_inherited_descriptors_are_recognised() -> None:
    with open("/dev/null") as opened:
        own = procfs.opened(os.getpid(), opened.fileno())
        assert own is not None
        assert own[0] == "/dev/null"
        assert not own[1] & os.O_CLOEXEC
        with subprocess.Popen(["sleep", "60"], stdin=opened) as heir:
            assert procfs.opened(heir.pid, 0) == own
            heir.kill()
        with subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL) as other:
            assert procfs.opened(other.pid, 0) != own
            other.kill()
    assert procfs.opened(os.getpid(), 10_000) is None


def test_descriptor_whose_target_is_hidden_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procfs, "descriptor_target", lambda *_: "")
    assert procfs.opened(os.getpid(), 0) is None


def test_tracer_is_found() -> None:
    assert procfs.tracer_of(os.getpid()) == 0
    assert procfs.tracer_of(10_000_001) == 0
    with subprocess.Popen(["strace", "-o", "/dev/null", "sleep", "60"]) as strace:

        def traced() -> list[int]:  # strace(1) starts other children first, to try what works
            found = [child.pid for child in procfs.children(strace.pid) if child.name == "sleep"]
            return [pid for pid in found if procfs.tracer_of(pid) == strace.pid]

        for pid in until(traced, "a traced child"):
            os.kill(pid, signal.SIGKILL)


def test_image_changes_at_an_exec_even_if_the_name_does_not() -> None:
    script = 'read x; exec sh -c "read y; exit 1"'
    code = f"import os, sys; sys.stdin.readline(); os.execv('/bin/sh', ['sh', '-c', {script!r}])"
    with subprocess.Popen([sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin
        dispositions = Dispositions(process.pid)
        images = [dispositions.image()]
        for _ in range(2):
            process.stdin.write(b"\n")

            def changed() -> bool:
                is_waiting = b"pipe_read" in procfs.wait_channel(process.pid)  # no exec is under way
                dispositions.handles(TERM)
                return dispositions.image() != images[-1] and is_waiting

            until(changed, "another image")
            images.append(dispositions.image())
            dispositions.handles(RTMIN)
            assert dispositions.image() == images[-1], "read anew"
        assert images[1] is not None
        assert images[2] is not None
        assert images[1][0] == images[2][0], "the same name"
        process.stdin.write(b"\n")
        process.wait()
        dispositions.close()
    assert Dispositions(10_000_001).image() is None


@pytest.mark.parametrize(
    ("waits", "cpu", "expected"), [(False, 0, False), (False, 4, False), (True, 0, True), (False, 5, True)]
)
def test_program_that_is_starting_does_not_prefer_int(
    monkeypatch: pytest.MonkeyPatch, waits: bool, cpu: int, expected: bool
) -> None:
    """Python's own start ends with a fatal error if it is interrupted."""
    program = "import time; print(flush=True); time.sleep(90)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline()
            seen = procfs.look(child.pid)
            assert seen is not None
            monkeypatch.setattr(
                procfs, "look", lambda pid: Process(pid, "python", 1, pid, seen.start, waits=waits, cpu=cpu)
            )
            assert procfs.prefers_int(seen) is expected
            monkeypatch.setattr(procfs, "look", lambda _: None)
            assert procfs.prefers_int(seen) is False
        finally:
            child.kill()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("", True),
        ("signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])", True),
        (
            "threading.Thread(target=time.sleep, args=(90,), daemon=True).start()\n"
            "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])",
            True,
        ),
        ("signal.signal(signal.SIGINT, signal.SIG_IGN)", False),
        ("signal.signal(signal.SIGTERM, lambda *_: None)", False),
    ],
    ids=["default", "blocked by itself", "blocked in the main thread only", "ignored", "handles TERM"],
)
def test_program_that_int_does_not_reach_does_not_prefer_it(
    monkeypatch: pytest.MonkeyPatch, code: str, expected: bool
) -> None:
    """One that blocks it for a moment gets it after that: TERM would end it where it must not be interrupted."""
    program = f"import signal, threading, time\n{code}\nprint(flush=True); time.sleep(90)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline()
            seen = look(child.pid)
            monkeypatch.setattr(procfs, "STARTING_TICKS", 0)
            assert procfs.prefers_int(seen) is expected
        finally:
            child.kill()


@pytest.mark.parametrize(
    ("in_parent", "fish", "expected"),
    [("True", False, False), ("False", False, True), ("False", True, False)],
    ids=["blocked in its parent too", "not there", "a job of fish"],
)
def test_program_that_int_was_blocked_for_before_it_began_does_not_prefer_it(
    monkeypatch: pytest.MonkeyPatch, in_parent: str, fish: bool, expected: bool
) -> None:
    """fish has INT blocked in a background job, and a program that it was blocked for keeps it so."""
    program = (
        "import signal, subprocess, sys\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; print(flush=True); time.sleep(90)'])\n"
        f"{in_parent} or signal.pthread_sigmask(signal.SIG_SETMASK, [])\n"
        "print(child.pid, flush=True); child.wait()"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as parent:
        try:
            assert parent.stdout is not None
            [pid] = [int(line) for line in (parent.stdout.readline(), parent.stdout.readline()) if line.strip()]
            monkeypatch.setattr(procfs, "STARTING_TICKS", 0)
            monkeypatch.setattr(
                procfs, "program_names", lambda process: {"fish"} if fish and process.pid != pid else {}
            )
            assert procfs.prefers_int(look(pid)) is expected
        finally:
            os.killpg(parent.pid, signal.SIGKILL)


def test_a_sleeping_process_waits() -> None:
    with subprocess.Popen(["sleep", "90"]) as child:
        try:
            until(lambda: (seen := procfs.look(child.pid)) is not None and seen.waits, "it to sleep")
        finally:
            child.kill()
    ourselves = procfs.look(os.getpid())
    assert ourselves is not None
    assert not ourselves.waits


# --- Whether a signal reaches a handler. ----------------------------------------------------------------------------

REACHED = """
import os, signal, sys, threading, time
TERM = signal.SIGTERM
def handle(): signal.signal(TERM, lambda *_: None)
def block(): signal.pthread_sigmask(signal.SIG_BLOCK, [TERM])
"""
STAYS = "print('up', flush=True); time.sleep(1000)"


# posix_spawn(3) blocks all signals until the child has opened the FIFO, which nobody does, and executed its program.
SPAWNS = """
os.mkfifo("fifo")
print("up", flush=True)
os.posix_spawn("/bin/true", ["true"], {}, file_actions=[(os.POSIX_SPAWN_OPEN, 0, "fifo", os.O_RDONLY, 0)])
"""


@pytest.fixture
def program(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Process]:
    """A process that runs the code of the test's parameter, once it has printed a line."""
    command = [sys.executable, "-S", "-c", REACHED + request.param]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=tmp_path, start_new_session=True) as process:
        try:
            assert process.stdout
            process.stdout.readline()
            yield look(process.pid)
        finally:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("program", "reached"),
    [
        (STAYS, False),
        (f"signal.signal(TERM, signal.SIG_IGN); {STAYS}", False),
        (f"handle(); {STAYS}", True),
        (f"block(); {STAYS}", False),
        (f"block(); handle(); {STAYS}", False),
        (f"signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()); handle(); {STAYS}", False),
        (f"handle(); threading.Thread(target=time.sleep, args=(1000,)).start(); block(); {STAYS}", True),
        ("block(); print('up', flush=True); signal.sigwait([TERM])", True),
        (
            "block(); import ctypes; mask = (ctypes.c_uint64 * 16)(1 << 14)\n"
            f"assert ctypes.CDLL(None).signalfd(-1, mask, 0) >= 0; {STAYS}",
            True,
        ),
    ],
    ids="default ignored handled blocked handled+blocked handled+all-blocked thread sigwait signalfd".split(),
    indirect=["program"],
)
def test_a_signal_reaches_a_process_or_does_not(program: Process, reached: bool) -> None:
    until(lambda: procfs.is_reached(program, TERM) is reached, "the state")


@pytest.mark.parametrize(
    ("program", "reached"),
    [(f"handle(); {SPAWNS}", True), (SPAWNS, False)],
    ids=["handled", "default"],
    indirect=["program"],
)
def test_a_signal_reaches_a_process_that_starts_a_program_if_it_handles_that(program: Process, reached: bool) -> None:
    until(lambda: psutil.Process(program.pid).status() == psutil.STATUS_DISK_SLEEP, "vfork")
    assert procfs.is_reached(program, TERM) is reached


def test_whether_a_signal_reaches_a_process_may_be_unknown(monkeypatch: pytest.MonkeyPatch, gone: int) -> None:
    process = look(os.getpid())
    assert procfs.is_reached(Process(gone, "x", 1, 1, 1), TERM) is None
    monkeypatch.setattr(procfs, "masks_are_false", lambda: True)
    assert procfs.is_reached(process, TERM) is None


def test_the_executable_of_a_process(gone: int) -> None:
    assert procfs.executable(os.getpid()) == os.path.realpath(sys.executable)
    assert procfs.executable(gone) == ""


# --- Descriptors. ---------------------------------------------------------------------------------------------------


def test_descriptors_are_listed_by_what_they_refer_to() -> None:
    reader, writer = os.pipe()
    again = os.dup(writer)
    try:
        target = os.readlink(f"/proc/self/fd/{reader}")
        held = procfs.descriptors(os.getpid())
        assert held is not None
        assert sorted(held[target]) == sorted(map(str, (reader, writer, again)))
        modes = [flags & 0o3 for flags in procfs.open_modes(os.getpid(), target)]
        assert sorted(modes) == [os.O_RDONLY, os.O_WRONLY, os.O_WRONLY]
        assert [*procfs.open_modes(os.getpid(), target, {})] == []
    finally:
        for fd in (reader, writer, again):
            os.close(fd)


def test_more_descriptors_than_wanted_are_not_listed(child: subprocess.Popen[bytes]) -> None:
    number = len(os.listdir(f"/proc/{child.pid}/fd"))
    assert procfs.descriptors(child.pid, number - 1) is None
    held = procfs.descriptors(child.pid, number)
    assert held is not None
    assert sum(map(len, held.values())) == number


def test_no_more_of_them_are_read_than_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """To list 10,000 takes the kernel 40 ms, and a stop waits for it."""
    entries = iter([types.SimpleNamespace(name=str(number)) for number in range(10_000)])
    monkeypatch.setattr(posix, "scandir", lambda _: contextlib.nullcontext(entries))
    assert procfs.descriptors(17, 100) is None
    assert next(entries).name == "101"


def test_descriptors_that_cannot_be_seen_are_none(gone: int) -> None:
    assert procfs.descriptors(gone) == {}
    assert procfs.descriptors(gone, 10) == {}
    assert [*procfs.open_modes(gone, "pipe:[1]")] == []
    assert [*procfs.open_modes(gone, "pipe:[1]", {"pipe:[1]": ["0"]})] == []


def test_a_descriptor_that_is_closed_meanwhile_is_left_out(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes]
) -> None:
    before = procfs.descriptors(child.pid)
    monkeypatch.setattr(posix, "readlink", failing(os.readlink, errno.ENOENT))
    held = procfs.descriptors(child.pid)
    assert before is not None
    assert held is not None
    assert sum(map(len, held.values())) == sum(map(len, before.values())) - 1


def test_one_look_shows_all_that_the_dispositions_depend_on() -> None:
    dispositions = procfs.Dispositions(os.getpid())
    assert dispositions.handles(signal.SIGUSR2) is False
    before = dispositions.seen()
    assert before is not None
    stack, _, _, _, *masks = before.masks.split()
    assert (before.start, stack) == dispositions.image()
    assert [int(mask) for mask in masks] == [*(procfs.masks(os.getpid()) or ())]
    assert not before.shows(signal.SIGUSR2)
    assert dispositions.is_as([before])
    handler = signal.signal(signal.SIGUSR2, lambda *_: None)
    try:
        assert not dispositions.is_as([before])
        after = dispositions.seen()
        assert after is not None
        assert after.shows(signal.SIGUSR2)
        assert dispositions.is_as([before, after])
    finally:
        signal.signal(signal.SIGUSR2, handler)
    assert dispositions.is_as([before, after])
    assert not dispositions.is_as([])
    dispositions._line = b"1 (torn"
    assert dispositions.seen() is None
    dispositions.close()
    assert not dispositions.is_as([before])


STAT = (
    b"%b S 1 2 0 0 -1 4194304 30 0 1 0 0 0 0 0 20 0 1 0 4141128 1036288 134 18446744073709551615 4198400 4698417%b"
    b"1 0 0 17 0 0 0 0 0 0 4867736 4891280 503488512 140733258938927 140733258938993 140733258938993 1407332589403 0\n"
)


@pytest.mark.parametrize(
    ("start", "masks"),
    [
        (b"2 (other)", b" 140733258933056 0 0 0 0 0 512 "),
        (b"2 (agent a)", b" 140733258933056 0 0 0 0 0 512 "),
        (b"2 (agent)", b" 140733258933057 0 0 0 0 0 512 "),
        (b"2 (agent)", b" 140733258933056 0 0 0 512 0 512 "),
        (b"2 (agent)", b" 140733258933056 0 0 0 0 512 0 "),
        (b"2 (agent)", b" 0 0 0 0 140733258933056 0 0 0 0 0 512 "),
        (b"2 (agent) 140733258933056 0 0 0 0 0 512 )", b" 140733258933056 0 0 0 0 0 0 "),
    ],
    ids=["name", "space in the name", "stack", "blocked", "ignored", "another place", "masks in the name"],
)
def test_a_look_that_shows_anything_else_is_another_one(
    monkeypatch: pytest.MonkeyPatch, start: bytes, masks: bytes
) -> None:
    lines = [STAT % (b"2 (agent)", b" 140733258933056 0 0 0 0 0 512 "), STAT % (start, masks)]
    monkeypatch.setattr(posix, "pread", lambda *_: lines[0])
    dispositions = procfs.Dispositions(os.getpid())
    dispositions.is_as([])
    seen = dispositions.seen()
    assert seen is not None
    assert dispositions.is_as([seen])
    lines.pop(0)
    assert not dispositions.is_as([seen])
    now = dispositions.seen()
    assert now is not None
    assert dispositions.is_as([seen, now])
    dispositions.close()


# --- What SIGKILL has done. -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "state", "dying"),
    [(4, "S", True), (0x400004, "D", True), (0, "D", False), (0, "S", False), (0, "R", True), (0, "Z", True)],
)
def test_a_process_is_dying_if_it_exits_or_can_run(
    monkeypatch: pytest.MonkeyPatch, flags: int, state: str, dying: bool
) -> None:
    line = f"7 (a) b) {state} 1 7 7 0 -1 {flags} 0 0".encode()
    monkeypatch.setattr(procfs, "read_file", lambda path: line if path == "/proc/7/stat" else b"")
    assert procfs.is_dying(procfs.Process(7, "a", 1, 7, 1)) is dying


def test_what_has_exited_meanwhile_is_dying(child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    known = procfs.look(child.pid)
    assert known
    until(lambda: not procfs.is_dying(known), "the child to sleep")
    with monkeypatch.context() as patch:
        patch.setattr(procfs, "read_file", lambda *_: b"")
        assert procfs.is_dying(known)
    child.kill()
    assert os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert procfs.is_dying(known)
    child.wait()
    assert procfs.is_dying(known)


# --- Containers. ----------------------------------------------------------------------------------------------------

LINKS = {"/proc/self/ns/mnt": "mnt:[1]", "/proc/8/ns/mnt": "mnt:[1]", "/proc/9/ns/mnt": "mnt:[2]"}


@pytest.fixture
def links(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The links to mount namespaces that can be read."""
    found = dict(LINKS)

    def readlink(path: str) -> str:
        if path not in found:
            raise PermissionError
        return found[path]

    monkeypatch.setattr(posix, "readlink", readlink)
    return found


def test_the_mount_namespace_decides(links: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procfs, "control_group", lambda pid: pytest.fail("it is known already"))
    assert procfs.is_in_our_container(8) is True
    assert procfs.is_in_our_container(9) is False


@pytest.mark.parametrize("hidden", ["/proc/self/ns/mnt", "/proc/8/ns/mnt"])
@pytest.mark.parametrize(
    ("groups", "same"),
    [
        ({os.getpid(): b"0::/a", 8: b"0::/a"}, True),
        ({os.getpid(): b"0::/a", 8: b"0::/b"}, False),
        ({os.getpid(): b"0::/a"}, False),
        ({}, None),
    ],
    ids=["same", "other", "gone", "none"],
)
def test_where_it_is_hidden_the_control_group_does(
    links: dict[str, str], monkeypatch: pytest.MonkeyPatch, hidden: str, groups: dict[int, bytes], same: bool | None
) -> None:
    del links[hidden]
    monkeypatch.setattr(procfs, "control_group", lambda pid: groups.get(pid, b""))
    assert procfs.is_in_our_container(8) is same


def test_the_control_groups_of_a_process() -> None:
    with open("/proc/self/cgroup", "rb") as file:
        assert procfs.control_group(os.getpid()) == file.read()
    assert procfs.control_group(2**22 + 1) == b""

"""How a process handles signals, as /proc shows it: also for a moment only, or where a look fails."""

from __future__ import annotations

import errno
import os
import posix
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, ClassVar

import psutil
import pytest

from entrypoint.init import dispositions, procfs
from entrypoint.init.dispositions import Dispositions
from entrypoint.init.procfs import Process
from tests.support.init import until
from tests.support.os_errors import always, failing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TERM, USR1, USR2, RTMIN = int(signal.SIGTERM), int(signal.SIGUSR1), int(signal.SIGUSR2), int(signal.SIGRTMIN)


def look(child: subprocess.Popen[bytes] | int) -> Process:
    found = procfs.look(child if isinstance(child, int) else child.pid)
    assert found is not None
    return found


# --- What it handles, ignores and blocks. ---------------------------------------------------------------------------


def answers(of_process: Dispositions, number: int) -> tuple[bool | None, bool | None]:
    return of_process.handles(number), of_process.handles_or_ignores(number)


def test_handled_ignored_and_blocked_signals_are_distinguished(child: subprocess.Popen[bytes]) -> None:
    of_process = Dispositions(child.pid)
    found = {number: answers(of_process, number) for number in (TERM, USR1, USR2, RTMIN)}
    assert found == {TERM: (False, False), USR1: (True, True), USR2: (False, True), RTMIN: (True, True)}
    of_process.close()
    assert (of_process.handles(USR1), of_process.handles_or_ignores(TERM)) == (None, None)
    of_process.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may set groups")
@pytest.mark.parametrize("child", ["import os; os.setgroups(range(10**9, 10**9 + 600)); "], indirect=True, ids=["600"])
def test_real_time_signals_are_found_behind_many_groups(child: subprocess.Popen[bytes]) -> None:
    """The supplementary groups come first in /proc/pid/status."""
    of_process = Dispositions(child.pid)
    assert (of_process.handles(RTMIN), of_process.handles_or_ignores(RTMIN + 1)) == (True, False)
    of_process.close()


def test_real_time_signals_are_distinguished(monkeypatch: pytest.MonkeyPatch) -> None:
    """/proc/pid/stat covers signals up to 31 only."""
    of_process = Dispositions(os.getpid())
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
        return {number: each for number in range(32, 65) if True in (each := answers(of_process, number))}

    monkeypatch.setattr(procfs, "read_file", read)
    for which, expected in enumerate([(True, True), (False, True), (True, True)]):  # blocked, ignored, handled
        for number in range(32, 65):
            masks[which] = 1 << number - 1
            assert found() == {number: expected}
        masks[which] = 0
    of_process.close()


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
        monkeypatch.setattr(dispositions, "_waited", 0.0)
        monkeypatch.setattr(dispositions, "_waited_since", self.now)
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
        of_process = Dispositions(os.getpid(), patient=patient)
        of_process.pid = 5
        try:
            return of_process.handles(self.number)
        finally:
            of_process.pid = os.getpid()
            of_process.close()


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
    monkeypatch.setattr(dispositions, "_waited", 1.0)
    assert moments.handles(patient=patient) is True


def test_where_sleep_is_refused_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = Moments(monkeypatch, USR1, [(ALL, RUNS)])
    monkeypatch.setattr(time, "sleep", always(errno.EPERM))
    assert (moments.handles(patient=True), moments.handles(patient=False)) == (True, False)
    assert dispositions._is_starting(Process(5, "python3", 4, 5, 1)) is False
    monkeypatch.setattr(procfs, "look", lambda _: Process(5, "python3", 4, 5, 1, waits=False))
    assert dispositions._is_starting(Process(5, "python3", 4, 5, 1)) is True


class Young:
    """A process that seems to be starting, at one look after the other; None: it has exited."""

    WHERE: ClassVar = {"reads": b"request_wait_answer", "forks": FORKS}

    def __init__(self, monkeypatch: pytest.MonkeyPatch, states: list[str | None], children: list[list[int]]) -> None:
        """`children`: at one look after the other."""
        self.states, self.looks = states, 0
        left = list(children)
        monkeypatch.setattr(dispositions, "_waited", 0.0)
        monkeypatch.setattr(dispositions, "_waited_since", time.monotonic())
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
    assert dispositions._is_starting(Process(5, "x", 4, 5, 1)) is starting
    assert young.looks == looks


def test_where_others_have_been_waited_for_a_program_that_runs_is_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    young = Young(monkeypatch, ["runs", "waits"], [[]])
    monkeypatch.setattr(dispositions, "_waited", dispositions.MAX_WAITED)
    assert dispositions._is_starting(Process(5, "x", 4, 5, 1))
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
    monkeypatch.setattr(dispositions, "handles", lambda *_: handles)
    assert dispositions.handles_once_started(Process(5, "x", 4, 5, 1), TERM) is (handles is True)
    assert young.looks == looks


@EACH_NUMBER
def test_what_was_blocked_for_good_before_stays_handled_while_a_program_starts(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A supervisor that reads its signals between two programs that it starts."""
    moments = Moments(monkeypatch, number, [(ALL, POLLS)])
    of_process = Dispositions(os.getpid(), patient=True)
    of_process.pid = 5
    assert of_process.handles(number) is True
    moments.looks = [(ALL, FORKS)]
    assert of_process.handles(number) is True
    assert of_process.seen() is None  # it is not known for how long
    of_process.pid = os.getpid()
    of_process.close()


def test_the_descriptor_is_opened_at_once_and_closed_once(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes]
) -> None:
    """Later there may be no descriptor left."""
    before = len(os.listdir("/proc/self/fd"))
    of_process = Dispositions(child.pid)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    closed: list[int] = []
    real = os.close

    def close(fd: int) -> None:
        closed.append(fd)
        real(fd)

    monkeypatch.setattr(posix, "open", always(errno.EMFILE))
    monkeypatch.setattr(posix, "close", close)
    assert (of_process.handles(USR1), of_process.handles_or_ignores(TERM)) == (True, False)
    of_process.close()
    assert not of_process
    of_process.close()
    assert len(closed) == 1
    monkeypatch.undo()
    assert len(os.listdir("/proc/self/fd")) == before


def test_nothing_is_known_until_a_descriptor_can_be_opened(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes]
) -> None:
    with monkeypatch.context() as full:
        full.setattr(posix, "open", always(errno.EMFILE))
        of_process = Dispositions(child.pid)
        assert not of_process
        assert (of_process.handles(USR1), of_process.handles_or_ignores(TERM)) == (None, None)
    assert (of_process.handles(USR1), of_process.handles_or_ignores(TERM)) == (True, False)
    of_process.close()


def test_opening_is_tried_three_times(monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes]) -> None:
    monkeypatch.setattr(posix, "open", failing(os.open, errno.EMFILE, errno.EMFILE))
    of_process = Dispositions(child.pid)
    assert of_process.handles_or_ignores(TERM) is False
    of_process.close()


@pytest.mark.parametrize("failures", [2, 3])
def test_a_read_is_tried_three_times(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes], failures: int
) -> None:
    of_process = Dispositions(child.pid)
    monkeypatch.setattr(posix, "pread", failing(os.pread, *[errno.EIO] * failures))
    assert of_process.handles_or_ignores(TERM) is (None if failures == 3 else False)
    of_process.close()


@pytest.mark.parametrize("line", [b"", b"1 (x) S 1 2", b"1 (x) " + b"x " * 60], ids=["empty", "short", "no numbers"])
def test_nothing_is_known_from_a_malformed_line(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes], line: bytes
) -> None:
    of_process = Dispositions(child.pid)
    monkeypatch.setattr(posix, "pread", lambda *_: line)
    monkeypatch.setattr(procfs, "read_file", lambda *_: line)
    assert (of_process.handles(USR1), of_process.handles_or_ignores(TERM)) == (None, None)
    assert (of_process.handles(RTMIN), of_process.handles_or_ignores(RTMIN + 1)) == (None, None)
    of_process.close()


def test_nothing_is_known_of_a_process_that_has_exited(child: subprocess.Popen[bytes]) -> None:
    of_process = Dispositions(child.pid)
    child.kill()
    child.wait()
    assert (of_process.handles(USR1), of_process.handles_or_ignores(TERM)) == (None, None)
    of_process.close()


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

    of_process = Dispositions(child.pid)
    monkeypatch.setattr(procfs, "read_file", read)
    assert answers(of_process, TERM) == (waits, waits)
    of_process.close()


def test_one_process_is_asked_without_leaving_a_descriptor_open(child: subprocess.Popen[bytes]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    process, numbers = look(child), (TERM, USR1, USR2)
    assert [dispositions.handles_or_ignores(process, number) for number in numbers] == [False, True, True]
    assert [dispositions.handles(process, number) for number in numbers] == [False, True, False]
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(("name", "handles"), [("agent", True), ("bash", False)])
def test_a_shells_habit_is_not_counted_as_handling(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes], name: str, handles: bool
) -> None:
    process = Process(child.pid, name, os.getpid(), child.pid, 0)
    monkeypatch.setattr(dispositions, "SHELL_HABITS", (USR1,))
    monkeypatch.setattr(procfs, "program_names", lambda process: {process.name})
    before = len(os.listdir("/proc/self/fd"))
    assert dispositions.handles(process, USR1) is handles
    assert dispositions.handles(process, RTMIN)
    assert not dispositions.handles(process, TERM)
    assert len(os.listdir("/proc/self/fd")) == before


def test_without_proc_no_dispositions_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procfs, "MOUNTED", False)
    assert not Dispositions(os.getpid())


def test_masks_are_those_of_the_process(child: subprocess.Popen[bytes]) -> None:
    masks = dispositions.masks(child.pid)
    assert masks is not None
    assert masks[2] & 1 << USR1 - 1
    assert not masks[2] & 1 << TERM - 1


def test_masks_of_nobody_are_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    assert dispositions.masks(10_000_001) is None
    monkeypatch.setattr(dispositions, "masks_are_false", lambda: True)
    assert dispositions.masks(os.getpid()) is None


# --- What a look shows. ---------------------------------------------------------------------------------------------


def test_image_changes_at_an_exec_even_if_the_name_does_not() -> None:
    script = 'read x; exec sh -c "read y; exit 1"'
    code = f"import os, sys; sys.stdin.readline(); os.execv('/bin/sh', ['sh', '-c', {script!r}])"
    with subprocess.Popen([sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin
        of_process = Dispositions(process.pid)
        images = [of_process.image()]
        for _ in range(2):
            process.stdin.write(b"\n")

            def changed() -> bool:
                is_waiting = b"pipe_read" in procfs.wait_channel(process.pid)  # no exec is under way
                of_process.handles(TERM)
                return of_process.image() != images[-1] and is_waiting

            until(changed, "another image")
            images.append(of_process.image())
            of_process.handles(RTMIN)
            assert of_process.image() == images[-1], "read anew"
        assert images[1] is not None
        assert images[2] is not None
        assert images[1][0] == images[2][0], "the same name"
        process.stdin.write(b"\n")
        process.wait()
        of_process.close()
    assert Dispositions(10_000_001).image() is None


def test_one_look_shows_all_that_the_dispositions_depend_on() -> None:
    of_process = Dispositions(os.getpid())
    assert of_process.handles(signal.SIGUSR2) is False
    before = of_process.seen()
    assert before is not None
    stack, _, _, _, *masks = before.masks.split()
    assert (before.start, stack) == of_process.image()
    assert [int(mask) for mask in masks] == [*(dispositions.masks(os.getpid()) or ())]
    assert not before.shows(signal.SIGUSR2)
    assert of_process.is_as([before])
    handler = signal.signal(signal.SIGUSR2, lambda *_: None)
    try:
        assert not of_process.is_as([before])
        after = of_process.seen()
        assert after is not None
        assert after.shows(signal.SIGUSR2)
        assert of_process.is_as([before, after])
    finally:
        signal.signal(signal.SIGUSR2, handler)
    assert of_process.is_as([before, after])
    assert not of_process.is_as([])
    of_process._line = b"1 (torn"
    assert of_process.seen() is None
    of_process.close()
    assert not of_process.is_as([before])


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
    of_process = Dispositions(os.getpid())
    of_process.is_as([])
    seen = of_process.seen()
    assert seen is not None
    assert of_process.is_as([seen])
    lines.pop(0)
    assert not of_process.is_as([seen])
    now = of_process.seen()
    assert now is not None
    assert of_process.is_as([seen, now])
    of_process.close()


# --- Whether INT is the better signal. ------------------------------------------------------------------------------


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
            assert dispositions.prefers_int(seen) is expected
            monkeypatch.setattr(procfs, "look", lambda _: None)
            assert dispositions.prefers_int(seen) is False
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
            assert dispositions.prefers_int(seen) is expected
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
            assert dispositions.prefers_int(look(pid)) is expected
        finally:
            os.killpg(parent.pid, signal.SIGKILL)


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
    until(lambda: dispositions.is_reached(program, TERM) is reached, "the state")


@pytest.mark.parametrize(
    ("program", "reached"),
    [(f"handle(); {SPAWNS}", True), (SPAWNS, False)],
    ids=["handled", "default"],
    indirect=["program"],
)
def test_a_signal_reaches_a_process_that_starts_a_program_if_it_handles_that(program: Process, reached: bool) -> None:
    until(lambda: psutil.Process(program.pid).status() == psutil.STATUS_DISK_SLEEP, "vfork")
    assert dispositions.is_reached(program, TERM) is reached


def test_whether_a_signal_reaches_a_process_may_be_unknown(monkeypatch: pytest.MonkeyPatch, gone: int) -> None:
    process = look(os.getpid())
    assert dispositions.is_reached(Process(gone, "x", 1, 1, 1), TERM) is None
    monkeypatch.setattr(dispositions, "masks_are_false", lambda: True)
    assert dispositions.is_reached(process, TERM) is None

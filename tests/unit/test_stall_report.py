"""How stall reports are made and read, with the test in the reporter's place. Their content: tests/reports."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import posix
import sys
from typing import TYPE_CHECKING, Any

import pytest

from entrypoint.init import procfs, stall_report
from entrypoint.init.loop import Loop
from entrypoint.init.procfs import Process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MIB = 1 << 20
PID = 12345


class FakeMemory:
    """In the place of the control group's memory."""

    def __init__(self, available_bytes: int | None) -> None:
        self.available_bytes = available_bytes


def reporter(
    loop: Loop, package: str, available: int | None, lines: list[str], on_complete: Callable[[], object]
) -> stall_report.Reporter:
    return stall_report.Reporter(
        loop,
        FakeMemory(available),  # type: ignore[arg-type]
        package,
        set(),
        since=1.0,
        responders="@prefix",
        stacks=False,
        arguments=True,
        on_line=lines.append,
        on_complete=on_complete,
    )


class Stage:
    """A reporter whose lines are kept; `write` writes what the process that it starts would write."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, available: int | None = None) -> None:
        self.lines: list[str] = []
        self.killed: list[tuple[int, int]] = []
        self.spawned: list[list[str]] = []
        self.environments: list[object] = []
        self.writer = -1
        self.loop = Loop(report=lambda error: self.lines.append(repr(error)), recover=lambda: None)
        self.reporter = reporter(self.loop, "/package", available, self.lines, lambda: self.lines.append("complete"))
        monkeypatch.setattr(posix, "posix_spawn", self.spawn)
        monkeypatch.setattr(posix, "kill", self.kill)

    def spawn(self, program: str, argv: list[str], environment: object, *, file_actions: Any, **_: object) -> int:
        actions = list(file_actions)
        [(_, writer, _)] = [action for action in actions if action[0] == os.POSIX_SPAWN_DUP2]
        self.writer = os.dup(writer)
        self.spawned.append(argv)
        self.environments.append(environment)
        return PID

    def kill(self, pid: int, number: int) -> None:
        self.killed.append((pid, number))
        raise ProcessLookupError

    def write(self, *blocks: bytes) -> None:
        """Write each block and have it read."""
        for block in blocks:
            os.write(self.writer, block)
            self.turn()

    def turn(self) -> None:
        """Run the loop once."""
        self.loop.call_at(self.loop.time(), lambda: None)
        self.loop._run_once()
        if self.loop._readers:
            self.loop.call_at(self.loop.time() + 0.03, lambda: None)
            self.loop._run_once()
            self.loop._timers.clear()

    def end(self) -> None:
        os.close(self.writer)
        self.writer = -1
        self.turn()


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    opened = len(os.listdir("/proc/self/fd"))
    made = Stage(monkeypatch)
    yield made
    if made.writer >= 0:
        os.close(made.writer)
    made.reporter.end()
    lines = [*made.lines]
    made.turn()
    assert made.lines == lines  # the pipe is not watched any longer
    assert len(os.listdir("/proc/self/fd")) == opened


def test_a_variable_without_a_name_is_left_out(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel passes it on to a new program, and posix_spawn raises ValueError for it."""
    monkeypatch.setattr(posix, "environ", {b"": b"1", b"A": b"2"})
    stage.reporter.start(5, 10.0)
    assert stage.environments == [{b"A": b"2"}]


def test_the_request_holds_what_is_known(stage: Stage) -> None:
    stage.reporter.take_cpu_snapshot([Process(7, "x", 1, 7, 99, cpu=3)])
    stage.reporter.helper_pids.update({9, 8})
    stage.reporter.start(5, 10.0)
    [[*program, request]] = stage.spawned
    assert program == [sys.executable, "-I", "-S", "/package/entrypoint/report/__main__.py"]
    found = json.loads(request)
    since = found.pop("since")
    assert -0.001 < stage.loop.time() - since < 10  # it is given to a millisecond
    assert found == {
        "root": os.getpid(),
        "responders": "@prefix",
        "stacks": False,
        "arguments": True,
        "agent": 5,
        "cpu": {"7": [99, 3]},
        "helpers": [8, 9],
        "seconds": 9.0,
        "answers": 5.0,
        "room": None,
    }
    assert stage.reporter.pids == {PID}


def test_lines_are_read_as_they_come_until_the_report_is_complete(stage: Stage) -> None:
    stage.reporter.start(5, 10.0)
    stage.write(b"one\ntw", b"o\n\n\nthr\xff", b"ee\n")
    assert stage.lines == ["one", "two", "thr\\xffee"]
    stage.end()
    stage.turn()
    assert stage.lines[3:] == ["complete"]
    stage.reporter.end()
    assert stage.lines[4:] == []


def test_at_the_end_its_lines_are_kept_and_the_reporter_is_killed(stage: Stage) -> None:
    stage.reporter.start(5, 10.0)
    os.write(stage.writer, b"one\nhalf a li")
    stage.reporter.end()
    assert stage.lines == ["one"]
    assert stage.killed == [(PID, 9)]
    with pytest.raises(BrokenPipeError):
        os.write(stage.writer, b"ne\n")


def test_at_the_end_a_full_pipe_is_read(stage: Stage) -> None:
    stage.reporter.start(5, 10.0)
    os.set_blocking(stage.writer, False)
    line = b"x" * 4095 + b"\n"
    written = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            written += os.write(stage.writer, line) // len(line)
    stage.reporter.end()
    assert stage.lines == [line[:-1].decode()] * written


@pytest.mark.parametrize(("seconds", "answers"), [(0.5, 1.0), (1.5, 1.0), (8.0, 4.0)])
def test_with_more_time_answers_are_waited_for_longer(stage: Stage, seconds: float, answers: float) -> None:
    stage.reporter.start(5, seconds)
    assert json.loads(stage.spawned[0][-1])["answers"] == answers


def test_it_is_known_whether_a_report_was_cut_off(stage: Stage) -> None:
    assert not stage.reporter.end()
    stage.reporter.start(5, 10.0)
    os.write(stage.writer, b"one\n")
    assert stage.reporter.end()
    assert not stage.reporter.end()
    os.close(stage.writer)
    stage.reporter.start(5, 10.0)
    os.write(stage.writer, b"two\n")
    os.close(stage.writer)
    stage.writer = -1
    assert not stage.reporter.end()  # complete, but not read yet
    assert stage.lines == ["one", "two"]


CUT = "report: cut off after 0s, the reporter has got too little processor time or memory"


@pytest.mark.parametrize("has_lines", [False, True])
def test_what_replaces_a_report_that_was_cut_off(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, has_lines: bool
) -> None:
    known = [Process(7, "python", 1, 7, 99, cpu=30), Process(8, "node", 7, 8, 98, cpu=5, waits=False)]
    stage.reporter.take_cpu_snapshot(known[:1])
    known[0].cpu = 130
    stage.reporter.start(5, 10.0)
    now = stage.loop.time()
    monkeypatch.setattr(stage.loop, "time", lambda: now)
    stage.reporter._began = now
    if has_lines:
        stage.write(b"python\n")
    assert stage.reporter.end()
    monkeypatch.setattr(procfs, "wait_channel", lambda pid: b"ep_poll" if pid == 7 else b"0")
    monkeypatch.setattr(procfs, "argv_of", lambda pid: ["python", "agent.py", "hunter2"] if pid == 7 else [])
    listed = [
        "report: python agent.py (pid 7), child of 1, sleeping, cpu 1.00s since the stop, waits in ep_poll",
        "report: node (pid 8), child of 7, running or blocked, cpu 0.05s in total",
    ]
    assert list(stage.reporter.replacement(known)) == [CUT, *([] if has_lines else listed)]
    assert list(stage.reporter.replacement(None)) == [CUT]
    many = list(stage.reporter.replacement(known[1:] * 14))
    assert many[1:] == ([] if has_lines else [*listed[1:] * 12, "report: and 2 more"])


def test_the_list_has_plain_names_where_no_more_can_be_loaded(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("entrypoint.titles", raising=False)
    monkeypatch.setitem(sys.modules, "entrypoint.titles", None)
    lines = list(stage.reporter.replacement([Process(7, "python", 1, 7, 99)]))
    assert lines[1].startswith("report: python (pid 7), ")


def test_at_the_end_a_silent_reporter_is_not_waited_for(stage: Stage) -> None:
    stage.reporter.start(5, 10.0)
    stage.reporter.end()
    assert stage.lines == []


def test_a_second_report_ends_the_first(stage: Stage) -> None:
    stage.reporter.start(5, 10.0)
    first = stage.writer
    os.write(first, b"first\nrest")
    stage.reporter.start(5, 10.0)
    assert stage.killed == [(PID, 9)]
    stage.write(b"second\n")
    assert stage.lines == ["first", "second"]
    os.close(first)


def test_lines_of_the_first_report_are_not_read_as_the_seconds(stage: Stage) -> None:
    """The second pipe gets the descriptor of the first, which poll(2) has just reported as readable."""
    reader, writer = os.pipe()
    os.write(writer, b"x")

    def again() -> None:
        stage.loop.remove_reader(reader)
        stage.reporter.start(5, 10.0)

    stage.loop.add_reader(reader, again)
    stage.reporter.start(5, 10.0)
    first = stage.writer
    os.write(first, b"first\n")
    stage.turn()
    stage.write(b"second\n")
    assert stage.lines == ["first", "second"]
    for fd in (first, reader, writer):
        os.close(fd)


PROGRAM = """
import json, os
opened = {number: os.readlink(f"/proc/self/fd/{number}") for number in (0, 1, 2)}
print(json.dumps([opened[0], opened[1][:5], opened[2], os.getpgrp() == os.getpid()]))
os.write(2, b"goes nowhere")
"""


def test_the_reporter_has_no_descriptor_of_ours_but_the_pipe(tmp_path: Path) -> None:
    (tmp_path / "entrypoint" / "report").mkdir(parents=True)
    (tmp_path / "entrypoint" / "report" / "__main__.py").write_text(PROGRAM)
    lines: list[str] = []
    loop = Loop(report=lambda error: lines.append(repr(error)), recover=lambda: None)
    real = reporter(loop, str(tmp_path), None, lines, loop.stop)
    kept = [os.dup(fd) for fd in (0, 1, 2)]
    with open(tmp_path / "ours", "w+b") as ours:
        for fd in (0, 1, 2):
            os.dup2(ours.fileno(), fd)
        try:
            real.start(os.getpid(), 10.0)
        finally:
            for fd, former in enumerate(kept):
                os.dup2(former, fd)
                os.close(former)
        loop.run_forever()
        assert ours.read() == b""
    [pid] = real.pids
    os.waitpid(pid, 0)
    assert [json.loads(line) for line in lines] == [["/dev/null", "pipe:", "/dev/null", True]]


def test_a_line_without_its_end_is_no_line(stage: Stage) -> None:
    stage.reporter.start(5, 10.0)
    stage.write(b"one\nhalf a li")
    stage.end()
    stage.turn()
    assert stage.lines == ["one", "complete"]


@pytest.mark.parametrize("exit_first", [True, False], ids=["exit before the end of the pipe", "end of the pipe before"])
def test_a_reaped_reporter_is_not_killed_and_its_lines_are_read(stage: Stage, exit_first: bool) -> None:
    """The supervisor removes it from `pids` when it has reaped it."""
    stage.reporter.start(5, 10.0)
    os.write(stage.writer, b"one\n")
    if exit_first:
        stage.reporter.pids.discard(PID)
    stage.end()
    stage.turn()
    stage.reporter.pids.discard(PID)
    assert stage.lines == ["one", "complete"]
    stage.reporter.end()
    assert stage.killed == []


def test_the_cpu_snapshot_is_replaced_by_the_next(stage: Stage) -> None:
    stage.reporter.take_cpu_snapshot([Process(7, "x", 1, 7, 99, cpu=3), Process(8, "y", 1, 8, 98, cpu=4)])
    stage.reporter.take_cpu_snapshot([Process(8, "y", 1, 8, 98, cpu=5)])
    stage.reporter.start(5, 10.0)
    assert json.loads(stage.spawned[0][-1])["cpu"] == {"8": [98, 5]}


def test_an_endless_line_is_dropped(stage: Stage) -> None:
    stage.reporter.start(5, 10.0)
    for _ in range(stall_report.MAX_REST_BYTES // 32768 + 1):
        stage.write(b"x" * 32768)
    stage.write(b"end\nnext\n")
    assert [line[-10:] for line in stage.lines] == ["end", "next"]


@pytest.mark.parametrize("call", ["posix_spawn", "pipe", "set_blocking"])
def test_the_reason_why_no_report_can_be_made_is_its_line(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(posix, call, refuse)
    stage.reporter.start(5, 10.0)
    assert stage.lines == ["no process report: Resource temporarily unavailable", "complete"]
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("available", "lines"),
    [
        (24 * MIB, []),
        (24 * MIB - 1, ["no process report: it needs 24 MiB of memory, 24 MiB are left", "complete"]),
        (0, ["no process report: it needs 24 MiB of memory, 0 MiB are left", "complete"]),
    ],
)
def test_without_enough_memory_no_report_is_made(
    monkeypatch: pytest.MonkeyPatch, available: int, lines: list[str]
) -> None:
    stage = Stage(monkeypatch, available)
    stage.reporter.start(5, 10.0)
    assert stage.lines == lines
    assert bool(stage.spawned) is not bool(lines)
    if stage.spawned:
        os.close(stage.writer)
    stage.reporter.end()

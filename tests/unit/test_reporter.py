"""How a stall report is taken in, with the test in the reporter's place. What is in one: tests/reports."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from entrypoint.init import stall_report as report
from entrypoint.init.loop import Loop
from entrypoint.init.tree import Process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MIB = 1 << 20
PID = 12345


class Room:
    """Takes the place of the control group's memory."""

    def __init__(self, room: int | None) -> None:
        self.room = room


def reporter(
    loop: Loop, package: str, room: int | None, lines: list[str], done: Callable[[], object]
) -> report.Reporter:
    return report.Reporter(
        loop,
        Room(room),  # type: ignore[arg-type]
        package,
        since=1.0,
        responders="@prefix",
        stacks=False,
        arguments=True,
        line=lines.append,
        done=done,
    )


class Stage:
    """A reporter whose lines are noted; `tell` is what the process that it starts says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int | None = None) -> None:
        self.lines: list[str] = []
        self.killed: list[tuple[int, int]] = []
        self.spawned: list[list[str]] = []
        self.error: int | None = None  # of a refused start
        self.writer = -1
        self.recovered = 0
        self.loop = Loop(report=lambda error: self.lines.append(repr(error)), recover=self.recover)
        self.reporter = reporter(self.loop, "/package", room, self.lines, lambda: self.lines.append("done"))
        monkeypatch.setattr(os, "posix_spawn", self.spawn)
        monkeypatch.setattr(os, "kill", self.kill)

    def recover(self) -> None:
        """At the loop's first turn."""

    def spawn(self, program: str, words: list[str], environment: object, *, file_actions: Any, **_: object) -> int:
        actions = list(file_actions)
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error))
        [(_, writer, _)] = [action for action in actions if action[0] == os.POSIX_SPAWN_DUP2]
        self.writer = os.dup(writer)
        self.spawned.append(words)
        return PID

    def kill(self, pid: int, number: int) -> None:
        self.killed.append((pid, number))
        raise ProcessLookupError

    def tell(self, *blocks: bytes) -> None:
        """Each block is taken in by itself."""
        for block in blocks:
            os.write(self.writer, block)
            self.turn()

    def turn(self) -> None:
        """The loop's, once."""
        self.loop.call_at(self.loop.time(), lambda: None)
        self.loop._run_once()
        if self.loop._readers:
            self.loop.call_at(self.loop.time() + 0.001, lambda: None)
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
    said = [*made.lines]
    made.turn()
    assert made.lines == said  # it is not looked at any longer
    assert len(os.listdir("/proc/self/fd")) == opened


def test_it_is_asked_for_what_is_known(stage: Stage) -> None:
    stage.reporter.measure([Process(7, "x", 1, 7, 99, cpu=3)])
    stage.reporter.start(5, 10.0)
    [[*program, request]] = stage.spawned
    assert program == [sys.executable, "-I", "-S", "/package/entrypoint/report/__main__.py"]
    asked = json.loads(request)
    since = asked.pop("since")
    assert -0.001 < stage.loop.time() - since < 10  # a millisecond is what it is told to
    assert asked == {
        "root": os.getpid(),
        "responders": "@prefix",
        "stacks": False,
        "arguments": True,
        "agent": 5,
        "cpu": {"7": [99, 3]},
        "seconds": 9.0,
        "room": None,
    }
    assert stage.reporter.pids == {PID}


def test_each_line_is_taken_in_as_it_comes_and_its_end_is_told(stage: Stage) -> None:
    stage.reporter.start(5, 10.0)
    stage.tell(b"one\ntw", b"o\n\n\nthr\xff", b"ee\n")
    assert stage.lines == ["one", "two", "thr\\xffee"]
    stage.end()
    stage.turn()
    assert stage.lines[3:] == ["done"]
    stage.reporter.end()
    assert stage.lines[4:] == []


def test_when_its_time_is_over_what_it_has_told_counts_and_it_is_killed(stage: Stage) -> None:
    stage.reporter.start(5, 10.0)
    os.write(stage.writer, b"one\nhalf a li")
    stage.reporter.end()
    assert stage.lines == ["one"]
    assert stage.killed == [(PID, 9)]
    with pytest.raises(BrokenPipeError):
        os.write(stage.writer, b"ne\n")


def test_all_that_a_pipe_holds_is_taken_in_then(stage: Stage) -> None:
    stage.reporter.start(5, 10.0)
    os.set_blocking(stage.writer, False)
    line = b"x" * 4095 + b"\n"
    told = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            told += os.write(stage.writer, line) // len(line)
    stage.reporter.end()
    assert stage.lines == [line[:-1].decode()] * told


def test_one_that_says_nothing_is_not_waited_for(stage: Stage) -> None:
    stage.reporter.start(5, 10.0)
    stage.reporter.end()
    assert stage.lines == []


def test_a_second_one_ends_the_first(stage: Stage) -> None:
    stage.reporter.start(5, 10.0)
    first = stage.writer
    os.write(first, b"first\nrest")
    stage.reporter.start(5, 10.0)
    assert stage.killed == [(PID, 9)]
    stage.tell(b"second\n")
    assert stage.lines == ["first", "second"]
    os.close(first)


def test_what_was_seen_of_the_first_is_not_taken_for_the_second(stage: Stage) -> None:
    """The second has the descriptor that the first had, for which there is something in this turn of the loop."""
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
    stage.tell(b"second\n")
    assert stage.lines == ["first", "second"]
    for fd in (first, reader, writer):
        os.close(fd)


SEEN = """
import json, os
opened = {number: os.readlink(f"/proc/self/fd/{number}") for number in (0, 1, 2)}
print(json.dumps([opened[0], opened[1][:5], opened[2], os.getpgrp() == os.getpid()]))
os.write(2, b"nobody sees this")
"""


def test_of_what_is_ours_it_has_only_the_pipe(tmp_path: Path) -> None:
    (tmp_path / "entrypoint" / "report").mkdir(parents=True)
    (tmp_path / "entrypoint" / "report" / "__main__.py").write_text(SEEN)
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


def test_a_line_without_an_end_is_not_kept(stage: Stage) -> None:
    stage.reporter.start(5, 10.0)
    for _ in range(report.LONGEST_REST // 32768 + 1):
        stage.tell(b"x" * 32768)
    stage.tell(b"end\nnext\n")
    assert [line[-10:] for line in stage.lines] == ["end", "next"]


@pytest.mark.parametrize("call", ["posix_spawn", "pipe", "set_blocking"])
def test_where_none_can_be_made_that_is_its_line(stage: Stage, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, call, refuse)
    stage.reporter.start(5, 10.0)
    assert stage.lines == ["no report of the processes: Resource temporarily unavailable", "done"]
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("room", "lines"),
    [
        (24 * MIB, []),
        (24 * MIB - 1, ["no report of the processes: 24 MiB of memory left, it takes 24 MiB", "done"]),
        (0, ["no report of the processes: 0 MiB of memory left, it takes 24 MiB", "done"]),
    ],
)
def test_without_the_memory_none_is_made(monkeypatch: pytest.MonkeyPatch, room: int, lines: list[str]) -> None:
    stage = Stage(monkeypatch, room)
    stage.reporter.start(5, 10.0)
    assert stage.lines == lines
    assert bool(stage.spawned) is not bool(lines)
    if stage.spawned:
        os.close(stage.writer)
    stage.reporter.end()

"""The form of log lines, and what becomes of them where stderr is missing, full or somebody else's."""

from __future__ import annotations

import errno
import json
import os
import posix
import select
import socket
import time
from typing import TYPE_CHECKING

import pytest

from entrypoint.init import console as module
from entrypoint.init.console import DEBUG, ERROR, INFO, MAX_LINE_BYTES, TRACE, WARNING, Console, json_text
from tests.support.world import failing

if TYPE_CHECKING:
    from pathlib import Path


def refuse(*_: object) -> int:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def fill(writer: int) -> None:
    """Write to a pipe until it is full."""
    try:
        while True:
            os.write(writer, bytes(4096))
    except BlockingIOError:
        return


def test_a_closed_descriptor_loses_lines_without_an_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    console = Console(writer)
    console.log(INFO, "event", "one")
    console.log(INFO, "event", "two")
    assert console.dropped == 2


def test_a_line_that_was_made_before_takes_no_memory(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    console = Console(2)
    line = console.line(ERROR, "event", "made before")
    monkeypatch.setattr(module, "text_line", failing(module.text_line, MemoryError()))
    console.log(INFO, "event", "lost")
    assert console.dropped == 1
    console.write(line)
    assert capfd.readouterr().err == "agent-init: error: made before\n"
    Console(None).write(line)
    assert capfd.readouterr().err == ""


def test_a_socket_without_a_descriptor_of_our_own_loses_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """A write to the inherited descriptor could block."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with monkeypatch.context() as full:
            full.setattr(posix, "dup", refuse)
            console = Console(ours.fileno())
        console.log(INFO, "event", "one")
        assert console.dropped == 1
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)


def test_a_pipe_of_another_user_is_polled_where_no_pipe_of_ours_can_be_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader, writer = os.pipe()
    with monkeypatch.context() as full:
        full.setattr(posix, "open", refuse)
        full.setattr(posix, "pipe", refuse)
        console = Console(writer)
    console.log(INFO, "event", "one")
    assert os.read(reader, 4096) == b"agent-init: one\n"
    os.set_blocking(writer, False)
    fill(writer)
    os.set_blocking(writer, True)
    console.log(INFO, "event", "two")  # does not block
    assert console.dropped == 1
    os.read(reader, 1 << 20)
    console.log(INFO, "event", "three")
    assert os.read(reader, 4096) == (
        b"agent-init: warning: 1 line before this one could not be written\nagent-init: three\n"
    )
    assert console.dropped == 0
    os.close(reader)
    os.close(writer)


def test_polling_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[int] = []

    class Full:
        def register(self, fd: int, events: int) -> None:
            pass

        def poll(self, timeout: int) -> list[object]:
            waits.append(timeout)
            return []

    reader, writer = os.pipe()
    with monkeypatch.context() as full:
        full.setattr(posix, "open", refuse)
        full.setattr(posix, "pipe", refuse)
        full.setattr(select, "poll", Full)
        console = Console(writer)
    console.log(INFO, "event", "one")
    assert (waits, console.dropped) == ([0], 1)
    os.close(reader)
    os.close(writer)


def test_a_pipe_of_another_user_is_written_through_one_of_ours_without_blocking(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """splice(2) can be asked not to wait."""
    reader, writer = os.pipe()
    with monkeypatch.context() as foreign:
        foreign.setattr(posix, "open", refuse)
        console = Console(writer)
    console.log(INFO, "event", "one")
    assert os.read(reader, 4096) == b"agent-init: one\n"
    os.set_blocking(writer, False)
    fill(writer)
    os.set_blocking(writer, True)
    for _ in range(40):  # more than our own pipe could keep
        console.log(INFO, "event", "x" * 3000)
    assert console.dropped == 40
    os.read(reader, 1 << 20)
    console.log(INFO, "event", "two")
    assert os.read(reader, 4096) == (
        b"agent-init: warning: 40 lines before this one could not be written\nagent-init: two\n"
    )
    os.close(reader)
    console.log(INFO, "event", "three")
    assert console.dropped == 1
    os.close(writer)


def test_a_full_pipe_and_a_full_socket_lose_lines_without_blocking() -> None:
    reader, writer = os.pipe()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for fd in (writer, ours.fileno()):
            console = Console(fd)
            while not console.dropped:
                console.log(INFO, "event", "x" * 3000)
            assert os.get_blocking(fd)  # for the agent, which shares it
    os.close(reader)
    os.close(writer)


def test_without_a_descriptor_nothing_is_written_or_counted() -> None:
    console = Console(None)
    console.log(ERROR, "event", "text")
    assert console.dropped == 0


@pytest.mark.parametrize(
    ("level", "texts"),
    [(ERROR, ["error: e"]), (INFO, ["error: e", "warning: w", "i"]), (DEBUG, ["error: e", "warning: w", "i", "d"])],
)
def test_lines_up_to_the_level_are_written(tmp_path: Path, level: int, texts: list[str]) -> None:
    with (tmp_path / "log").open("wb") as file:
        console = Console(file.fileno(), level=level)
        for each, text in ((ERROR, "e"), (WARNING, "w"), (INFO, "i"), (DEBUG, "d")):
            console.log(each, "event", text)
    assert (tmp_path / "log").read_text().splitlines() == [f"agent-init: {text}" for text in texts]


# --- Form. ----------------------------------------------------------------------------------------------------------


def written(path: Path, text: str, *, dropped: int = 0, json: bool = False) -> bytes:
    """Return what is written for one line, after `dropped` lines could not be."""
    with path.open("wb") as file:
        console = Console(file.fileno(), json=json)
        console.dropped = dropped
        console.log(INFO, "event", text)
    return path.read_bytes()


def test_a_line_that_just_fits_is_not_cut(tmp_path: Path) -> None:
    text = "x" * (MAX_LINE_BYTES - 256 - len("agent-init: "))
    assert written(tmp_path / "log", text) == f"agent-init: {text}\n".encode()
    assert written(tmp_path / "log", text + "x").endswith(b"x...\n")


def test_control_characters_are_escaped(tmp_path: Path) -> None:
    assert written(tmp_path / "err", "a\x1b[31m\nb\u200b") == b"agent-init: a\\x1b[31m\\nb\\u200b\n"


@pytest.mark.parametrize(("dropped", "count"), [(1, b"1 line"), (2, b"2 lines")])
def test_dropped_lines_are_counted(tmp_path: Path, dropped: int, count: bytes) -> None:
    line = written(tmp_path / "err", "x", dropped=dropped)
    assert line == b"agent-init: warning: " + count + b" before this one could not be written\nagent-init: x\n"


@pytest.mark.parametrize("json", [False, True])
@pytest.mark.parametrize("length", [MAX_LINE_BYTES - 200, MAX_LINE_BYTES, 3 * MAX_LINE_BYTES])
def test_a_long_line_and_the_count_of_dropped_ones_fit_in_one_write(tmp_path: Path, json: bool, length: int) -> None:
    both = written(tmp_path / "err", "\u00fc" + "x" * length, dropped=1_000_000, json=json)
    assert len(both) <= 4096  # PIPE_BUF
    assert both.count(b"\n") == 2
    assert both.endswith(b'"cut": true}\n' if json else b"xxx...\n")


def test_time_in_json_has_milliseconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_700_000_001.9375)
    record = json.loads(written(tmp_path / "err", "x", json=True))
    assert record["time"] == "2023-11-14T22:13:21.937Z"
    assert list(record) == ["time", "level", "severity", "event", "message"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(3, "3"), (0.5, "0.500"), (float("inf"), "null"), (True, "true"), (None, "null"), (["a", 1], '["a", 1]')],
)
def test_values_in_json(value: object, text: str) -> None:
    assert json_text(value) == text


@pytest.mark.parametrize(
    ("level", "severity"), [(ERROR, "ERROR"), (WARNING, "WARNING"), (INFO, "INFO"), (DEBUG, "DEBUG"), (TRACE, "DEBUG")]
)
@pytest.mark.parametrize("size", [1, 9000])
def test_json_lines_have_the_severity_of_google_cloud(level: int, severity: str, size: int) -> None:
    reader, writer = os.pipe()
    Console(writer, level=TRACE, json=True).log(level, "event", "x" * size)
    record = json.loads(os.read(reader, 65536))
    os.close(reader)
    os.close(writer)
    assert (record["severity"], record["level"]) == (severity, severity.lower())

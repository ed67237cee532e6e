"""How lines look, and where they go when stderr is not there or there is nothing left to write to it with."""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import time
from typing import TYPE_CHECKING

import pytest

from entrypoint.init.console import INFO, LONGEST_LINE, Console, json_text

if TYPE_CHECKING:
    from pathlib import Path


def refuse(*_: object) -> int:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def fill(writer: int) -> None:
    try:
        while True:
            os.write(writer, bytes(4096))
    except BlockingIOError:
        return


def test_a_descriptor_that_is_not_open_takes_no_line_and_fails_nobody() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    console = Console(writer)
    console.say(INFO, "event", "one")
    console.say(INFO, "event", "two")
    assert console.dropped == 2


def test_a_socket_for_which_there_is_no_descriptor_takes_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Written to without one of our own, it could make us wait."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with monkeypatch.context() as full:
            full.setattr(os, "dup", refuse)
            console = Console(ours.fileno())
        console.say(INFO, "event", "one")
        assert console.dropped == 1
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)


def test_somebody_elses_pipe_is_asked_first_where_there_is_no_pipe_of_ours_to_be_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader, writer = os.pipe()
    with monkeypatch.context() as full:
        full.setattr(os, "open", refuse)
        full.setattr(os, "pipe", refuse)
        console = Console(writer)
    console.say(INFO, "event", "one")
    assert os.read(reader, 4096) == b"agent-init: one\n"
    os.set_blocking(writer, False)
    fill(writer)
    os.set_blocking(writer, True)
    console.say(INFO, "event", "two")  # does not block
    assert console.dropped == 1
    os.read(reader, 1 << 20)
    console.say(INFO, "event", "three")
    assert os.read(reader, 4096) == (
        b"agent-init: warning: 1 line before this one could not be written\nagent-init: three\n"
    )
    assert console.dropped == 0
    os.close(reader)
    os.close(writer)


def test_who_is_asked_first_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[int] = []

    class Full:
        def register(self, fd: int, events: int) -> None:
            pass

        def poll(self, timeout: int) -> list[object]:
            waits.append(timeout)
            return []

    reader, writer = os.pipe()
    with monkeypatch.context() as full:
        full.setattr(os, "open", refuse)
        full.setattr(os, "pipe", refuse)
        full.setattr(select, "poll", Full)
        console = Console(writer)
    console.say(INFO, "event", "one")
    assert (waits, console.dropped) == ([0], 1)
    os.close(reader)
    os.close(writer)


# --- How they look. -------------------------------------------------------------------------------------------------


def written(path: Path, text: str, *, dropped: int = 0, json: bool = False) -> bytes:
    with path.open("wb") as file:
        console = Console(file.fileno(), json=json)
        console.dropped = dropped
        console.say(INFO, "event", text)
    return path.read_bytes()


def test_a_line_that_just_fits_is_not_cut(tmp_path: Path) -> None:
    text = "x" * (LONGEST_LINE - 256 - len("agent-init: "))
    assert written(tmp_path / "log", text) == f"agent-init: {text}\n".encode()
    assert written(tmp_path / "log", text + "x").endswith(b"x...\n")


def test_what_a_terminal_must_not_get_raw_is_written_out(tmp_path: Path) -> None:
    assert written(tmp_path / "err", "a\x1b[31m\nb\u200b") == b"agent-init: a\\x1b[31m\\nb\\u200b\n"


@pytest.mark.parametrize(("dropped", "words"), [(1, b"1 line before"), (2, b"2 lines before")])
def test_lost_lines_are_counted(tmp_path: Path, dropped: int, words: bytes) -> None:
    line = written(tmp_path / "err", "x", dropped=dropped)
    assert line == b"agent-init: warning: " + words + b" this one could not be written\nagent-init: x\n"


@pytest.mark.parametrize("json", [False, True])
@pytest.mark.parametrize("length", [LONGEST_LINE - 200, LONGEST_LINE, 3 * LONGEST_LINE])
def test_a_long_line_and_the_count_of_lost_ones_fit_in_one_write(tmp_path: Path, json: bool, length: int) -> None:
    both = written(tmp_path / "err", "\u00fc" + "x" * length, dropped=1_000_000, json=json)
    assert len(both) <= 4096  # PIPE_BUF
    assert both.count(b"\n") == 2
    assert both.endswith(b'"cut": true}\n' if json else b"xxx...\n")


def test_json_tells_the_time_to_the_millisecond(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_700_000_001.9375)
    record = json.loads(written(tmp_path / "err", "x", json=True))
    assert record == {"time": "2023-11-14T22:13:21.937Z", "level": "info", "event": "event", "message": "x"}


@pytest.mark.parametrize(
    ("value", "text"),
    [(3, "3"), (0.5, "0.500"), (float("inf"), "null"), (True, "true"), (None, "null"), (["a", 1], '["a", 1]')],
)
def test_values_in_json(value: object, text: str) -> None:
    assert json_text(value) == text

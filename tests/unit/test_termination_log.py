"""What is written to the termination log, and into which files."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from entrypoint import settings as reader
from entrypoint.init import termination_log

if TYPE_CHECKING:
    from pathlib import Path


def settings(log: Path, *, named: bool = True) -> reader.Settings:
    """Return settings with this log. `named`: by --termination-log; otherwise it is the default."""
    read = reader.read(["--termination-log", str(log), "agent"], {})
    if not named:
        del read.sources["termination_log"]
    return read


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["first", "second"], b"first\nsecond\n"),
        ([], b""),
        (["x" * 4000, "y" * 94], b"x" * 4000 + b"\n" + b"y" * 94 + b"\n"),
        (["x" * 4000, "y" * 95], b"x" * 4000 + b"\n" + b"y" * 91 + b"...\n"),
        (["x" * 4091 + "\xe9" + "y" * 99], b"x" * 4091 + b"...\n"),
    ],
    ids=["lines", "none", "just fits", "does not fit", "no part of a character"],
)
def test_at_most_4096_bytes_replace_what_the_file_held(tmp_path: Path, lines: list[str], text: bytes) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"of an earlier run" * 1000)
    opened = len(os.listdir("/proc/self/fd"))
    termination_log.write(settings(log), lines)
    assert len(os.listdir("/proc/self/fd")) == opened
    assert log.read_bytes() == text


def test_the_default_file_is_written_only_where_it_exists(tmp_path: Path) -> None:
    log = tmp_path / "log"
    termination_log.write(settings(log, named=False), ["text"])
    assert not log.exists()
    log.touch()
    termination_log.write(settings(log, named=False), ["text"])
    assert log.read_text() == "text\n"


def test_a_new_file_can_be_read_by_all_and_written_by_its_owner(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        termination_log.write(settings(tmp_path / "log"), ["text"])
    finally:
        os.umask(before)
    assert (tmp_path / "log").stat().st_mode & 0o7777 == 0o644


def test_a_file_that_cannot_be_opened_is_no_error(tmp_path: Path) -> None:
    termination_log.write(settings(tmp_path / "missing" / "log"), ["text"])


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    """A user who may write to the directory could have us write elsewhere."""
    (tmp_path / "elsewhere").write_text("kept")
    (tmp_path / "log").symlink_to("elsewhere")
    termination_log.write(settings(tmp_path / "log"), ["text"])
    assert (tmp_path / "elsewhere").read_text() == "kept"


@pytest.mark.timeout(10)
def test_a_fifo_without_a_reader_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    termination_log.write(settings(tmp_path / "log"), ["text"])


def test_a_file_that_cannot_be_written_is_no_error_and_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    opened = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "write", refuse)
    termination_log.write(settings(tmp_path / "log"), ["text"])
    assert len(os.listdir("/proc/self/fd")) == opened


def test_without_a_termination_log_nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    monkeypatch.setattr(os, "open", lambda *arguments: opened.append(arguments))
    termination_log.write(reader.read(["--termination-log", "none", "agent"], {}), ["text"])
    assert opened == []

"""What is written to the termination log, and what of the file is left as it was."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from entrypoint import settings as reader
from entrypoint.init import termination_log as lastwords

if TYPE_CHECKING:
    from pathlib import Path


def settings(log: Path, *, named: bool = True) -> reader.Settings:
    """`named`: by the user. Otherwise it is the one that is looked for anyway."""
    read = reader.read(["--termination-log", str(log), "agent"], {})
    if not named:
        del read.sources["termination_log"]
    return read


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["ended: so", "report: more"], b"ended: so\nreport: more\n"),
        ([], b""),
        (["x" * 4000, "y" * 94], b"x" * 4000 + b"\n" + b"y" * 94 + b"\n"),
        (["x" * 4000, "y" * 95], b"x" * 4000 + b"\n" + b"y" * 91 + b"...\n"),
        (["x" * 4091 + "\xe9" + "y" * 99], b"x" * 4091 + b"...\n"),
    ],
    ids=["lines", "none", "just fits", "does not fit", "no half character"],
)
def test_as_much_as_an_orchestrator_keeps_takes_the_place_of_what_was_there(
    tmp_path: Path, lines: list[str], text: bytes
) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"of an earlier life" * 1000)
    opened = len(os.listdir("/proc/self/fd"))
    lastwords.write(settings(log), lines)
    assert len(os.listdir("/proc/self/fd")) == opened
    assert log.read_bytes() == text


def test_a_log_that_is_there_is_written_without_being_named(tmp_path: Path) -> None:
    log = tmp_path / "log"
    lastwords.write(settings(log, named=False), ["so"])
    assert not log.exists()
    log.touch()
    lastwords.write(settings(log, named=False), ["so"])
    assert log.read_text() == "so\n"


def test_one_that_is_made_can_be_read_by_all_and_written_by_us(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        lastwords.write(settings(tmp_path / "log"), ["so"])
    finally:
        os.umask(before)
    assert (tmp_path / "log").stat().st_mode & 0o7777 == 0o644


def test_one_that_cannot_be_had_is_nobodys_error(tmp_path: Path) -> None:
    lastwords.write(settings(tmp_path / "missing" / "log"), ["so"])

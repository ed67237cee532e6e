"""What process 1 has in the place of `os.path` and of what `os` adds to the system calls."""

from __future__ import annotations

import os
import posix
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint import paths

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PATHS = st.text("ab./", max_size=12).filter(lambda path: "//" not in path)


@given(PATHS)
@pytest.mark.parametrize("name", ["basename", "dirname", "splitext"])
def test_parts_of_a_path_are_those_of_the_standard_library(name: str, path: str) -> None:
    assert getattr(paths, name)(path) == getattr(os.path, name)(path)


@given(st.binary(max_size=12))
def test_bytes_that_are_no_text_survive(raw: bytes) -> None:
    assert paths.fsdecode(raw) == os.fsdecode(raw)
    assert paths.fsencode(os.fsdecode(raw)) == raw


@pytest.mark.parametrize("name", ["exists", "lexists", "isfile", "isdir"])
@pytest.mark.parametrize("kind", ["file", "directory", "link to file", "link to directory", "broken link", "fifo", ""])
def test_what_is_there_is_what_the_standard_library_says(tmp_path: Path, kind: str, name: str) -> None:
    path = tmp_path / "it"
    target = tmp_path / "target"
    if kind.endswith("file"):
        target.touch()
    elif kind.endswith("directory"):
        target.mkdir()
    if kind == "fifo":
        os.mkfifo(path)
    elif "link" in kind:
        path.symlink_to(target)
    elif kind:
        target.rename(path)
    ours: Callable[[str], bool] = getattr(paths, name)
    assert ours(str(path)) is getattr(os.path, name)(path)
    assert not ours(f"{path}\0")
    assert not ours(f"{path}/below") or kind.endswith("directory")


def test_variables_that_are_no_text_survive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posix, "environ", {b"A": b"1", b"B": b"\xff"})
    assert paths.environment() == {"A": "1", "B": "\udcff"}


def test_a_file_of_the_kernel_is_read_as_far_as_4_kib(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 5000)
    assert paths.read_or_empty(str(tmp_path / "file")) == b"x" * 4096
    assert paths.read_or_empty(str(tmp_path / "none")) == b""
    assert paths.read_or_empty(str(tmp_path)) == b""  # it can be opened, and not read

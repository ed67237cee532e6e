"""The file of --ready-file, and file systems that do not answer."""

from __future__ import annotations

import _thread
import os
import posix
import stat
import time
from typing import TYPE_CHECKING

import pytest

from entrypoint.init import ready_file
from tests.support.world import failing

if TYPE_CHECKING:
    from pathlib import Path


def test_it_is_made_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "ready"
    assert ready_file.make(str(path)) == ""
    assert path.read_bytes() == b""
    assert path.stat().st_mode & 0o777 == 0o644
    assert ready_file.remove(str(path)) == ""
    assert not path.exists()
    assert ready_file.remove(str(path)) == ""  # it need not be there


def test_nothing_else_is_opened_in_its_place(tmp_path: Path) -> None:
    path, other = tmp_path / "ready", tmp_path / "other"
    path.symlink_to(other)
    assert ready_file.make(str(path)) == "File exists"
    assert not other.exists()
    assert ready_file.make(str(tmp_path / "none" / "ready")) == "No such file or directory"


@pytest.mark.parametrize("kind", ["directory", "fifo", "device"])
def test_what_is_no_file_is_not_removed(tmp_path: Path, kind: str) -> None:
    """`--ready-file /dev/null` does not remove the device."""
    path = tmp_path / "it"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif os.getuid() == 0:
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    else:
        pytest.skip("a device takes root")
    assert ready_file.remove(str(path)) == "it is no regular file"
    assert path.exists()


def test_a_link_is_removed_and_not_what_it_names(tmp_path: Path) -> None:
    path, other = tmp_path / "ready", tmp_path / "other"
    other.touch()
    path.symlink_to(other)
    assert ready_file.remove(str(path)) == ""
    assert not path.is_symlink()
    assert other.exists()


def test_a_file_system_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gate = _thread.allocate_lock()
    gate.acquire()
    finished = _thread.allocate_lock()
    finished.acquire()

    def hang(path: str) -> None:
        gate.acquire()
        finished.release()
        raise OSError("no number")

    monkeypatch.setattr(posix, "unlink", hang)
    began = time.monotonic()
    assert ready_file.remove(str(tmp_path / "ready")) == "the file system does not answer"
    assert time.monotonic() - began >= ready_file.MAX_SECONDS
    gate.release()
    assert finished.acquire(timeout=5)


def make_late(monkeypatch: pytest.MonkeyPatch, path: Path) -> _thread.LockType:
    """Make the file on a file system that does not answer until the lock is released."""
    gate, real = _thread.allocate_lock(), os.open
    gate.acquire()

    def late(*arguments: object) -> int:
        gate.acquire()
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(posix, "open", late)
    assert ready_file.make(str(path)) == "the file system does not answer"
    return gate


def test_a_file_that_is_made_late_does_not_outlast_its_removal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """READY=1, then a stop request, on a file system that answers after both."""
    path = tmp_path / "ready"
    gate = make_late(monkeypatch, path)
    assert ready_file.remove(str(path)) == "the file system does not answer"
    gate.release()
    monkeypatch.undo()
    assert ready_file.make(str(path)) == ""  # after the two, and only if the file is not there any more


def test_without_a_thread_nobody_waits_for_a_file_system_that_hangs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "ready"
    gate = make_late(monkeypatch, path)
    with monkeypatch.context() as without:
        without.setattr(_thread, "start_new_thread", failing(_thread.start_new_thread, RuntimeError("no thread")))
        without.setattr(posix, "unlink", None)  # it would hang
        assert ready_file.remove(str(path)) == "the file system does not answer"
    gate.release()
    assert ready_file.remove(str(path)) == ""


def test_it_is_done_without_a_thread_where_none_can_be_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_thread, "start_new_thread", failing(_thread.start_new_thread, RuntimeError("no thread")))
    assert ready_file.make(str(tmp_path / "ready")) == ""
    assert (tmp_path / "ready").exists()


def test_an_error_without_a_number_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posix, "unlink", failing(os.unlink, OSError("odd")))
    assert ready_file.remove("/nowhere/ready") == "odd"


def test_no_memory_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_thread, "start_new_thread", failing(_thread.start_new_thread, RuntimeError("no thread")))
    monkeypatch.setattr(posix, "unlink", failing(os.unlink, MemoryError()))
    assert ready_file.remove("/nowhere/ready") == "out of memory"

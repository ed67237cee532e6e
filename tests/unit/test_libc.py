"""Calls of the C library."""

from __future__ import annotations

import _socket
import errno
import os
import posix
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from entrypoint.init import libc

if TYPE_CHECKING:
    from typing import NoReturn


def test_a_call_returns_what_the_function_does() -> None:
    assert libc.call("getpid") == os.getpid()


def test_a_missing_function_is_an_oserror() -> None:
    with pytest.raises(OSError, match=r"^no_such_function cannot be called: "):
        libc.call("no_such_function", 1, b"x")


# --- Descriptors from a child. --------------------------------------------------------------------------------------


def test_a_child_makes_a_descriptor_that_is_ours() -> None:
    before = set(os.listdir("/proc/self/fd"))
    fd = libc.descriptor("eventfd", 5, 0)
    try:
        assert fd >= 0
        assert not os.get_inheritable(fd)
        assert int.from_bytes(os.read(fd, 8), sys.byteorder) == 5
    finally:
        os.close(fd)
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("name", ["no_such_function", "getpid_of_nobody"])
def test_no_descriptor_comes_where_there_is_no_such_function(name: str) -> None:
    assert libc.descriptor(name) == -1


def test_a_child_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libc, "MAX_SECONDS", 0.1)
    monkeypatch.setattr(libc, "call", lambda *_: time.sleep(1000))
    assert libc.descriptor("eventfd", 0, 0) == -1


@pytest.mark.parametrize("failing", ["socketpair", "fork"])
def test_no_descriptor_comes_where_there_can_be_no_child(monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EAGAIN, "refused")

    before = set(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(_socket if failing == "socketpair" else posix, failing, fail)
    assert libc.descriptor("eventfd", 0, 0) == -1
    assert set(os.listdir("/proc/self/fd")) == before


NO_MEMORY_IN_CHILD = """
import os, sys
sys.path.insert(0, sys.argv[1])
from entrypoint.init import libc
own = os.getpid()
def fail(*_):
    raise MemoryError
libc._answer = fail
try:
    assert libc.descriptor("eventfd", 0, 0) == -1
finally:
    os.write(1, b"parent" if os.getpid() == own else b"child")
"""


def test_the_child_never_returns() -> None:
    """Not even if it fails at once: it would become a second process 1, with the same descriptors."""
    package = Path(libc.__file__).parents[2]
    argv = [sys.executable, "-I", "-S", "-c", NO_MEMORY_IN_CHILD, str(package)]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert (ran.stdout, ran.stderr) == ("parent", "")


def test_a_child_that_somebody_else_reaps_has_made_a_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(os.listdir("/proc/self/fd"))
    wait = os.waitpid

    def reaped(pid: int, options: int) -> NoReturn:
        wait(pid, options)
        raise ChildProcessError(errno.ECHILD, "No child processes")

    monkeypatch.setattr(posix, "waitpid", reaped)
    fd = libc.descriptor("eventfd", 5, 0)
    assert fd >= 0
    os.close(fd)
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("name", ["eventfd", "no_such_function"])
def test_the_child_sends_a_descriptor_if_it_has_one(name: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        if name == "eventfd":
            libc._answer(theirs, name, (3, 0))
            _, (fd,), _, _ = socket.recv_fds(ours, 1, 1)
            assert int.from_bytes(os.read(fd, 8), sys.byteorder) == 3
            os.close(fd)
        else:
            with pytest.raises(OSError, match=name):
                libc._answer(theirs, name, (3, 0))


class Ended(BaseException):
    pass


def test_the_child_ends_whether_it_has_a_descriptor_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(code: int) -> NoReturn:
        raise Ended(code)

    monkeypatch.setattr(posix, "fork", lambda: 0)
    monkeypatch.setattr(posix, "_exit", end)
    for name in ("getpid", "no_such_function"):
        with pytest.raises(Ended):
            libc.descriptor(name)

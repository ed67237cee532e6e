"""Calls of the C library."""

from __future__ import annotations

import _socket
import errno
import os
import socket
import sys
import time
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
    monkeypatch.setattr(_socket if failing == "socketpair" else os, failing, fail)
    assert libc.descriptor("eventfd", 0, 0) == -1
    assert set(os.listdir("/proc/self/fd")) == before


class Ended(BaseException):
    pass


@pytest.mark.parametrize("name", ["eventfd", "no_such_function"])
def test_the_child_ends_whether_it_has_a_descriptor_or_not(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def end(code: int) -> NoReturn:
        raise Ended(code)

    monkeypatch.setattr(os, "_exit", end)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with pytest.raises(Ended):
            libc._answer(theirs, name, (3, 0))
        ours.setblocking(False)
        if name == "eventfd":
            _, (fd,), _, _ = socket.recv_fds(ours, 1, 1)
            assert int.from_bytes(os.read(fd, 8), sys.byteorder) == 3
            os.close(fd)

"""Lines to a stderr that is not there, or for which there is nothing left to write to it with."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from entrypoint.init.console import INFO, Console


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

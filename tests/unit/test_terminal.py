"""The controlling terminal: who has it, who gets it, and who could continue us."""

from __future__ import annotations

import errno
import os
import posix
import signal
from typing import TYPE_CHECKING

import pytest

from entrypoint.init import terminal

if TYPE_CHECKING:
    from collections.abc import Callable


def refusing(number: int) -> Callable[..., int]:
    """Return a function that fails with this error."""

    def refuse(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    return refuse


def test_failing_to_give_the_terminal_leaves_the_signal_mask_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    masks: list[object] = []

    def refuse(fd: int, group: int) -> None:
        assert (fd, group) == (0, 17)
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))

    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    monkeypatch.setattr(posix, "tcsetpgrp", refuse)
    terminal.give_to(17)
    assert masks == [before | {signal.SIGTTOU}]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_without_a_controlling_terminal_there_is_no_foreground_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posix, "tcgetpgrp", lambda fd: 12 + fd)
    assert terminal.foreground() == 12
    monkeypatch.setattr(posix, "tcgetpgrp", refusing(errno.ENOTTY))
    assert terminal.foreground() is None


@pytest.mark.parametrize(
    ("pid", "sessions", "groups", "expected"),
    [
        pytest.param(5, {4: 3, 0: 3}, {4: 4}, True, id="job of a shell"),
        pytest.param(5, {4: 3, 0: 3}, {4: 5}, False, id="in the parent's group"),
        pytest.param(5, {4: 3, 0: 5}, {4: 4}, False, id="a session of its own"),
        pytest.param(1, {4: 3, 0: 3}, {4: 4}, False, id="process 1"),
        pytest.param(5, {0: 3}, {4: 4}, False, id="the parent may not be looked at"),
        pytest.param(5, {4: 3, 0: 3}, {}, False, id="the parent has exited"),
    ],
)
def test_a_parent_in_another_group_of_our_session_is_a_shell(
    monkeypatch: pytest.MonkeyPatch, pid: int, sessions: dict[int, int], groups: dict[int, int], expected: bool
) -> None:
    def known(table: dict[int, int]) -> Callable[[int], int]:
        def of(pid: int) -> int:
            if pid not in table:
                raise PermissionError
            return table[pid]

        return of

    for name, value in {
        "getpid": lambda: pid,
        "getppid": lambda: 4,
        "getpgrp": lambda: 5,
        "getsid": known(sessions),
        "getpgid": known(groups),
    }.items():
        monkeypatch.setattr(posix, name, value)
    assert terminal.has_shell_above() is expected

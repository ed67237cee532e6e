"""What process 1 does to itself: descriptors, directory, adoption of orphans."""

from __future__ import annotations

import errno
import os
import posix
import sys
from typing import TYPE_CHECKING

import pytest

from entrypoint.init import libc, own_process, spawn
from tests.support.os_errors import always

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def refusing(number: int) -> Callable[..., int]:
    """Return a function that fails with this error."""

    def refuse(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize(
    "listed", [None, ["0", "1", "2", "3", "5", "9"], ["0", "malformed"]], ids=["no /proc", "listed", "malformed"]
)
def test_inherited_descriptors_are_closed_but_not_ours(
    monkeypatch: pytest.MonkeyPatch, listed: list[str] | None
) -> None:
    closed: list[int] = []

    def close(fd: int) -> None:
        closed.append(fd)
        if fd == 5:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    with monkeypatch.context() as fake:
        fake.setattr(posix, "listdir", (lambda _: listed) if listed else refusing(errno.ENOENT))
        fake.setattr(posix, "sysconf", lambda name: {"SC_OPEN_MAX": 8}[name])
        fake.setattr(posix, "close", close)
        own_process.close_inherited({4, 9})
    assert sorted(closed) == ([3, 5] if listed and len(listed) > 2 else [3, 5, 6, 7])


@pytest.mark.parametrize(("limit", "last"), [(-1, 65535), (1 << 30, 65535), (65535, 65534)])
def test_without_proc_and_without_a_limit_65536_descriptors_are_closed(
    monkeypatch: pytest.MonkeyPatch, limit: int, last: int
) -> None:
    """sysconf(3) returns -1 if there is no limit."""
    closed: list[int] = []
    with monkeypatch.context() as fake:
        fake.setattr(posix, "listdir", refusing(errno.ENOENT))
        fake.setattr(posix, "sysconf", lambda name: {"SC_OPEN_MAX": limit}[name])
        fake.setattr(posix, "close", closed.append)
        own_process.close_inherited({4})
    assert closed == [3, *range(5, last + 1)]


def test_a_directory_that_cannot_be_left_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted: list[str] = []

    def refuse(path: str) -> None:
        wanted.append(path)
        raise PermissionError

    monkeypatch.setattr(posix, "chdir", refuse)
    own_process.leave_directory()
    assert wanted == ["/"]


@pytest.mark.parametrize("trouble", [None, OSError("refused"), AttributeError("macOS")])
def test_the_agent_may_run_first(monkeypatch: pytest.MonkeyPatch, trouble: Exception | None) -> None:
    calls = []

    def sched_yield() -> None:
        calls.append("sched_yield")
        if trouble is not None:
            raise trouble

    monkeypatch.setattr(posix, "sched_yield", sched_yield)
    own_process.let_agent_run()
    assert calls == ["sched_yield"]


@pytest.fixture
def signalfd() -> Iterator[int]:
    """A signalfd that an exec would leave open."""
    fd = libc.call("signalfd", -1, bytes(128), 0)
    posix.set_inheritable(fd, True)
    yield fd
    posix.close(fd)


@pytest.mark.parametrize("has_proc", [True, False])
def test_the_launchers_signalfd_is_taken(monkeypatch: pytest.MonkeyPatch, signalfd: int, has_proc: bool) -> None:
    monkeypatch.setitem(sys._xoptions, "signalfd", str(signalfd))
    if not has_proc:
        monkeypatch.setattr(posix, "readlink", always(errno.ENOENT))
    assert own_process.launchers_signalfd() == signalfd
    assert not posix.get_inheritable(signalfd)


@pytest.mark.parametrize("given", [None, True, "", "x", "1000", "null"])
def test_what_is_no_signalfd_is_not_taken(monkeypatch: pytest.MonkeyPatch, given: str | bool | None) -> None:
    with open(os.devnull) as file:
        posix.set_inheritable(file.fileno(), True)
        if given is not None:
            monkeypatch.setitem(sys._xoptions, "signalfd", str(file.fileno()) if given == "null" else given)
        assert own_process.launchers_signalfd() is None
        assert posix.get_inheritable(file.fileno())  # it is the agent's


SUBREAPER = "cannot become a subreaper: orphans of the agent will not come to agent-init"
DEATH = "cannot ask for a signal at the parent's death"


@pytest.mark.parametrize("refusal", ["returns", "raises"])
def test_what_the_kernel_refuses_is_a_problem_to_be_logged(monkeypatch: pytest.MonkeyPatch, refusal: str) -> None:
    def call(name: str, *arguments: int) -> int:
        assert (name, arguments) in (("prctl", (36, 1, 0, 0, 0)), ("prctl", (1, 15, 0, 0, 0)))
        if refusal == "raises":
            raise OSError
        return -1

    monkeypatch.setattr(libc, "call", call)
    assert own_process.adopt(True, None, os.getppid()) == [SUBREAPER]
    assert own_process.adopt(None, 15, os.getppid()) == [SUBREAPER, DEATH]
    assert own_process.adopt(False, 15, os.getppid()) == [DEATH]
    assert own_process.adopt(False, None, os.getppid()) == []


@pytest.mark.parametrize(
    ("pid", "subreaper", "requests"), [(1, None, []), (1, True, [36]), (7, None, [36]), (7, False, [])]
)
def test_any_process_but_process_1_becomes_a_subreaper_unless_asked(
    monkeypatch: pytest.MonkeyPatch, pid: int, subreaper: bool | None, requests: list[int]
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(posix, "getpid", lambda: pid)

    def call(_: str, what: int, *__: int) -> int:
        calls.append(what)
        return 0

    monkeypatch.setattr(libc, "call", call)
    assert own_process.adopt(subreaper, None, os.getppid()) == []
    assert calls == requests


@pytest.mark.parametrize("died", [False, True])
def test_a_parent_that_died_before_the_request_is_a_signal_too(monkeypatch: pytest.MonkeyPatch, died: bool) -> None:
    """The kernel sends the signal only for a death after prctl(2)."""
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(libc, "call", lambda *_: 0)
    monkeypatch.setattr(posix, "kill", lambda pid, number: sent.append((pid, number)))
    assert own_process.adopt(False, 12, os.getppid() + died) == []
    assert sent == ([(os.getpid(), 12)] if died else [])


@pytest.mark.parametrize("closed", [(), (0,), (1, 2), (0, 1, 2)], ids=str)
def test_closed_standard_descriptors_are_opened_on_the_root_directory(
    monkeypatch: pytest.MonkeyPatch, closed: tuple[int, ...]
) -> None:
    opened: list[str] = []

    def fstat(fd: int) -> os.stat_result:
        if fd in closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return os.stat("/")

    with monkeypatch.context() as fake:
        fake.setattr(posix, "fstat", fstat)
        fake.setattr(posix, "open", lambda path, flags: opened.append(path))
        were_open = own_process.fill_standard_descriptors()
    assert were_open == tuple(fd not in closed for fd in range(3))
    assert opened == ["/"] * len(closed)


@pytest.mark.parametrize(
    ("stdin", "opened", "expected"),
    [
        ("/dev/null", "/dev/null", ["open", "dup2 77 0", "close 77"]),
        ("/dev/null", "/etc/passwd", ["open", "close 77"]),  # what is called so is none
        ("/dev/null", None, ["open"]),
        ("/dev/zero", None, []),
        ("/etc/passwd", None, []),
    ],
)
def test_null_on_stdin_is_opened_for_writing_too(
    monkeypatch: pytest.MonkeyPatch, stdin: str, opened: str | None, expected: list[str]
) -> None:
    calls: list[str] = []

    def open_null(path: str, flags: int) -> int:
        assert (path, flags) == ("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        calls.append("open")
        if opened is None:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return 77

    with monkeypatch.context() as fake:
        fake.setattr(posix, "fstat", lambda fd: os.stat(opened or "" if fd == 77 else stdin))
        fake.setattr(posix, "open", open_null)
        fake.setattr(posix, "dup2", lambda fd, to: calls.append(f"dup2 {fd} {to}"))
        fake.setattr(posix, "close", lambda fd: calls.append(f"close {fd}"))
        assert own_process.fill_standard_descriptors() == (True, True, True)
    assert calls == expected


def test_children_of_before_are_found_and_those_that_have_exited_are_reaped(monkeypatch: pytest.MonkeyPatch) -> None:
    results: list[tuple[int, int]] = [(7, 0), (8, 9), (0, 0)]

    def wait(pid: int, flags: int) -> tuple[int, int]:
        assert (pid, flags) == (-1, os.WNOHANG)
        if not results:
            raise ChildProcessError
        return results.pop(0)

    monkeypatch.setattr(posix, "waitpid", wait)
    assert own_process.has_children()
    assert results == []
    assert not own_process.has_children()
    results = [(9, 0)]
    assert not own_process.has_children()


def test_a_refused_waitpid_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posix, "waitpid", refusing(errno.EPERM))
    with pytest.raises(spawn.Refused, match=r"^waitpid is refused: Operation not permitted"):
        own_process.has_children()


def test_without_a_pid_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """getpid(2) has no way to fail, so the C library returns what the kernel does."""
    own_process.check_pid()
    with monkeypatch.context() as fake:
        fake.setattr(posix, "getpid", lambda: -errno.ENOSYS)
        with pytest.raises(spawn.Refused, match=r"^getpid is refused: Function not implemented"):
            own_process.check_pid()

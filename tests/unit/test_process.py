"""How the agent is started, and how ends are told: what a machine has to be talked into.

What any agent meets is in tests/process1/test_start.py.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import time
from typing import TYPE_CHECKING

import pytest

from entrypoint.init import libc
from entrypoint.init import spawn as process
from entrypoint.init.spawn import NotStarted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SHELL = "/bin/sh"
PLAIN = {b"PATH": b"/usr/bin:/bin"}


def forked() -> dict[bytes, bytes]:
    """An environment for which posix_spawn(3) does not do."""
    return {**PLAIN, b"LISTEN_PID": b"%d" % os.getpid(), b"OTHER_PID": b"%d" % os.getpid()}


def refusing(number: int) -> Callable[..., int]:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    return refuse


def not_started(name: str, environment: dict[bytes, bytes] = PLAIN) -> tuple[int, str]:
    with pytest.raises(NotStarted) as refused:
        process.spawn([name], environment, terminal=False)
    return refused.value.code, str(refused.value)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    made = tmp_path / "script"
    made.write_text("#!/bin/sh\nexit 0\n")
    made.chmod(0o755)
    return made


# --- What cannot be started. ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("environment", [PLAIN, forked()], ids=["spawned", "forked"])
def test_a_path_that_cannot_be_looked_at_is_told_by_its_exec(tmp_path: Path, environment: dict[bytes, bytes]) -> None:
    (tmp_path / "loop").symlink_to("loop")
    path = str(tmp_path / "loop" / "program")
    assert not_started(path, environment) == (126, f"cannot run '{path}': {os.strerror(errno.ELOOP)}")


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (errno.ENOMEM, 125, "cannot start '{}': Cannot allocate memory"),
        (errno.EMFILE, 125, "cannot start '{}': Too many open files"),
        (errno.ENFILE, 125, "cannot start '{}': Too many open files in system"),
        (errno.EAGAIN, 125, "cannot start '{}': fork refused: the container's pids limit or RLIMIT_NPROC is reached"),
        (errno.EACCES, 126, "cannot run '{}': permission denied"),
        (errno.EPERM, 126, "cannot run '{}': Operation not permitted"),
        (errno.E2BIG, 126, "cannot run '{}': Argument list too long"),
        (0, 126, "cannot run '{}': Input/output error"),
    ],
)
def test_what_the_system_refuses_is_told_in_its_words(
    monkeypatch: pytest.MonkeyPatch, script: Path, number: int, code: int, words: str
) -> None:
    monkeypatch.setattr(os, "posix_spawn", refusing(number))
    got, text = not_started(str(script))
    assert got == code
    assert text.startswith(words.format(script))


@pytest.mark.parametrize(
    ("call", "number", "why"), [("fork", errno.EAGAIN, "fork refused"), ("pipe", errno.EMFILE, "Too many open files")]
)
def test_what_is_refused_to_a_fork_is_told_too(
    monkeypatch: pytest.MonkeyPatch, script: Path, call: str, number: int, why: str
) -> None:
    monkeypatch.setattr(os, call, refusing(number))
    code, text = not_started(str(script), forked())
    assert code == 125
    assert text.startswith(f"cannot start '{script}': {why}")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"#!/no/such/sh -e\n", "its interpreter '/no/such/sh' is not there"),
        (b"#!/bin/sh\r\n", "its interpreter '/bin/sh' is not there (the line ends in a carriage return)"),
        (b"#!\n", "its interpreter '' is not there"),
        (b"\x7fELF\2\1\1\0", "its interpreter or dynamic loader is not there (built for another libc?)"),
        (b"", "its interpreter or dynamic loader is not there (built for another libc?)"),
    ],
)
def test_a_program_whose_interpreter_is_missing(
    monkeypatch: pytest.MonkeyPatch, script: Path, content: bytes, why: str
) -> None:
    """execve(2) tells of both by ENOENT."""
    script.write_bytes(content)
    monkeypatch.setattr(os, "posix_spawn", refusing(errno.ENOENT))
    assert not_started(str(script)) == (126, f"cannot run '{script}': {why}")


@pytest.mark.parametrize("environment", [PLAIN, forked()], ids=["spawned", "forked"])
def test_a_link_to_nothing_is_told_as_one(tmp_path: Path, environment: dict[bytes, bytes]) -> None:
    link = tmp_path / "link"
    link.symlink_to("nowhere")
    assert not_started(str(link), environment) == (126, f"cannot run '{link}': a symbolic link to nothing")


def test_what_cannot_be_read_is_not_guessed_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A socket cannot even be opened."""
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path)
    monkeypatch.setattr(os, "posix_spawn", refusing(errno.ENOENT))
    why = "its interpreter or dynamic loader is not there (built for another libc?)"
    assert not_started(path) == (126, f"cannot run '{path}': {why}")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no-such", "not found in PATH (/usr/bin:/bin)"),
        ("./no-such", "no such file"),
        ("/no/such", "no such file"),
        ("", "no such file"),
    ],
)
def test_path_is_told_where_it_was_searched(name: str, why: str) -> None:
    assert not_started(name) == (127, f"cannot run '{name}': {why}")


@pytest.mark.parametrize(
    ("content", "is_script"), [(b"exit 3\n", True), (b"", False), (b"#!exit 3\n", False), (b"\x7fELF\0", False)]
)
def test_what_has_no_interpreter_line_and_looks_like_text_is_a_script(
    monkeypatch: pytest.MonkeyPatch, script: Path, content: bytes, is_script: bool
) -> None:
    def spawn(path: str, words: list[str], _: object, **__: object) -> int:
        if path == str(script):
            raise OSError(errno.ENOEXEC, os.strerror(errno.ENOEXEC))
        assert (path, words) == ("/bin/sh", ["/bin/sh", str(script), "word"])
        return 17

    script.write_bytes(content)
    monkeypatch.setattr(os, "posix_spawn", spawn)
    if is_script:
        assert process.spawn([str(script), "word"], PLAIN, terminal=False) == 17
    else:
        with pytest.raises(NotStarted, match="not a program that this machine can run"):
            process.spawn([str(script), "word"], PLAIN, terminal=False)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOEXEC, errno.EAGAIN])
def test_what_is_broken_hides_what_comes_later_in_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int
) -> None:
    """Only one that may not be run is passed over (execvp(3), EACCES)."""
    for directory in ("first", "second"):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "program").write_bytes(b"\0")
    tried: list[str] = []

    def spawn(path: str, *_: object, **__: object) -> int:
        tried.append(path)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_spawn", spawn)
    not_started("program", {b"PATH": f"{tmp_path}/first:{tmp_path}/second".encode()})
    assert tried == [f"{tmp_path}/first/program"]


# --- The fork. ------------------------------------------------------------------------------------------------------


def finish(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture
def interrupts() -> Iterator[Callable[[object], None]]:
    """Set how this process takes SIGINT; put back afterwards."""
    before = signal.getsignal(signal.SIGINT)
    yield lambda handler: (signal.signal(signal.SIGINT, handler), None)[1]  # type: ignore[arg-type]
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def children_ignored() -> Iterator[None]:
    """SIGCHLD as a parent may have left it to us; put back afterwards."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize(
    ("handler", "ignored"), [(signal.default_int_handler, False), (signal.SIG_DFL, False), (signal.SIG_IGN, True)]
)
def test_a_forked_agent_has_its_own_pid_and_clean_signals(
    tmp_path: Path, interrupts: Callable[[object], None], handler: object, ignored: bool
) -> None:
    """What was ignored when we came stays so."""
    interrupts(handler)
    output = tmp_path / "output"
    line = f"exec cat /proc/self/status /proc/self/environ >{output}"
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR2,))
    try:
        pid = process.spawn([SHELL, "-c", line], forked(), terminal=False)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    group = os.getpgid(pid)
    assert finish(pid) == 0
    status, _, environment = output.read_bytes().partition(b"nonvoluntary_ctxt_switches:")
    masks = {name: int(mask, 16) for name, mask in re.findall(rb"Sig(Blk|Ign|Cgt):\t(\w+)", status)}
    assert (masks[b"Blk"], masks[b"Cgt"]) == (0, 0)
    assert bool(masks[b"Ign"] & 1 << signal.SIGINT - 1) is ignored
    assert not masks[b"Ign"] & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1)
    assert group == pid
    assert b"LISTEN_PID=%d\0" % pid in environment
    assert b"OTHER_PID=%d\0" % os.getpid() in environment


def test_an_ignored_sigchld_stays_so_for_the_agent_alone(
    children_ignored: None, capfd: pytest.CaptureFixture[str]
) -> None:
    """We would never hear of its end (waitpid(2))."""
    assert finish(process.spawn(["grep", "SigIgn:", "/proc/self/status"], PLAIN, terminal=False)) == 0
    assert int(capfd.readouterr().out.split()[1], 16) & 1 << signal.SIGCHLD - 1


def test_an_interrupt_that_waits_in_the_child_ends_it_as_it_would_the_agent(
    monkeypatch: pytest.MonkeyPatch, interrupts: Callable[[object], None]
) -> None:
    """And is no exception in the child, which would be taken for a failed start."""
    interrupts(signal.default_int_handler)
    monkeypatch.setattr(process, "give_terminal", lambda pid: os.kill(pid, signal.SIGINT))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    try:
        pid = process.spawn([SHELL, "-c", "exit 3"], PLAIN, terminal=True)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert finish(pid) == -signal.SIGINT


@pytest.mark.parametrize("number", [signal.SIGTSTP, signal.SIGSTOP])
def test_who_is_stopped_before_the_exec_is_so_behind_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: signal.Signals
) -> None:
    """The terminal is the agent's by then, and somebody types Ctrl-Z: we must not wait for the exec for ever."""
    go = tmp_path / "go"
    os.mkfifo(go)
    monkeypatch.setattr(process, "give_terminal", lambda pid: os.kill(pid, number))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTSTP,))
    try:
        pid = process.spawn([SHELL, "-c", f"read line <{go}; exit 3"], PLAIN, terminal=True)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    _, status = os.waitpid(pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    assert os.WSTOPSIG(status) == number
    os.kill(pid, signal.SIGCONT)
    go.write_text("\n")
    assert finish(pid) == 3


def test_an_exec_that_takes_its_time_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "LOOK_AGAIN", 1)
    monkeypatch.setattr(process, "give_terminal", lambda _: time.sleep(0.02))
    assert finish(process.spawn([SHELL, "-c", "exit 3"], PLAIN, terminal=True)) == 3


def test_a_child_whose_exec_cannot_be_waited_for_is_not_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(reader: int, pid: int) -> bytes:
        raise MemoryError

    monkeypatch.setattr(process, "_report", fail)
    with pytest.raises(MemoryError):
        process.spawn(["sleep", "100"], forked(), terminal=False)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, 0)


def test_a_fork_leaves_no_descriptor_behind() -> None:
    before = len(os.listdir("/proc/self/fd"))
    assert finish(process.spawn([SHELL, "-c", "exit 3"], forked(), terminal=False)) == 3
    not_started("/etc", forked())
    assert len(os.listdir("/proc/self/fd")) == before


def raises(error: BaseException) -> Callable[[], object]:
    def step() -> None:
        raise error

    return step


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (OSError(errno.EPERM, "no"), errno.EPERM),
        (OSError("of no number"), errno.EIO),
        (MemoryError(), errno.ENOMEM),
        (KeyboardInterrupt(), errno.ENOMEM),
    ],
)
def test_whatever_goes_wrong_in_the_child_is_told_and_leaves_no_child(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, number: int
) -> None:
    """It must not run on as a second process 1."""
    monkeypatch.setattr(process, "give_terminal", lambda _: raises(error)())
    with pytest.raises(NotStarted) as refused:
        process.spawn([SHELL, "-c", "exit 3"], PLAIN, terminal=True)
    assert os.strerror(number) in str(refused.value)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


# --- The terminal. --------------------------------------------------------------------------------------------------


def test_a_terminal_that_cannot_be_given_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    masks: list[object] = []

    def refuse(fd: int, group: int) -> None:
        assert (fd, group) == (0, 17)
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))

    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    monkeypatch.setattr(os, "tcsetpgrp", refuse)
    process.give_terminal(17)
    assert masks == [before | {signal.SIGTTOU}]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_without_a_terminal_nobody_is_in_the_foreground(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "tcgetpgrp", lambda fd: 12 + fd)
    assert process.foreground() == 12
    monkeypatch.setattr(os, "tcgetpgrp", refusing(errno.ENOTTY))
    assert process.foreground() is None


@pytest.mark.parametrize(
    ("pid", "sessions", "groups", "expected"),
    [
        pytest.param(5, {4: 3, 0: 3}, {4: 4}, True, id="a shell's job"),
        pytest.param(5, {4: 3, 0: 3}, {4: 5}, False, id="in its group"),
        pytest.param(5, {4: 3, 0: 5}, {4: 4}, False, id="a session of its own"),
        pytest.param(1, {4: 3, 0: 3}, {4: 4}, False, id="process 1"),
        pytest.param(5, {0: 3}, {4: 4}, False, id="of a parent that may not be looked at"),
        pytest.param(5, {4: 3, 0: 3}, {}, False, id="of a parent that is gone"),
    ],
)
def test_job_control_is_that_of_a_parent_in_another_group_of_our_session(
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
        monkeypatch.setattr(os, name, value)
    assert process.has_job_control_above() is expected


# --- The end. -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("exit 3", 3, "exited with code 3"),
        ("kill -9 $$", 137, "was killed by SIGKILL"),
        ("kill -1 $$", 129, "was killed by SIGHUP"),
    ],
)
def test_the_end_of_a_child_is_told_once_and_then_lost(line: str, code: int, words: str) -> None:
    pid = process.spawn([SHELL, "-c", line], PLAIN, terminal=False)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert process.ended(pid) == code
    assert process.ended(pid) == process.OWN_FAULT
    status = code - 128 if code > 128 else code << 8
    assert (process.exit_code(status), process.describe(status)) == (code, words)


def test_a_child_that_lives_has_no_end() -> None:
    pid = process.spawn(["sleep", "1000"], PLAIN, terminal=False)
    assert process.ended(pid) is None
    os.kill(pid, signal.SIGKILL)
    assert finish(pid) == -9


# --- Process 1 itself. ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listed", [None, ["0", "1", "2", "3", "5", "9"], ["0", "odd"]], ids=["no /proc", "", "odd"])
def test_what_was_inherited_is_closed_but_for_ours(monkeypatch: pytest.MonkeyPatch, listed: list[str] | None) -> None:
    closed: list[int] = []

    def close(fd: int) -> None:
        closed.append(fd)
        if fd == 5:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    with monkeypatch.context() as fake:
        fake.setattr(os, "listdir", (lambda _: listed) if listed else refusing(errno.ENOENT))
        fake.setattr(os, "sysconf", lambda name: {"SC_OPEN_MAX": 8}[name])
        fake.setattr(os, "close", close)
        process.close_inherited({4, 9})
    assert sorted(closed) == ([3, 5] if listed and len(listed) > 2 else [3, 5, 6, 7])


def test_a_directory_that_cannot_be_left_is_stayed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted: list[str] = []

    def refuse(path: str) -> None:
        wanted.append(path)
        raise PermissionError

    monkeypatch.setattr(os, "chdir", refuse)
    process.leave_directory()
    assert wanted == ["/"]


SUBREAPER = "cannot become a subreaper: orphans of the agent will not come to agent-init"
DEATH = "cannot ask for a signal at the parent's death"


@pytest.mark.parametrize("refusal", ["returns", "raises"])
def test_what_the_kernel_refuses_is_a_problem_and_no_end(monkeypatch: pytest.MonkeyPatch, refusal: str) -> None:
    def call(name: str, *arguments: int) -> int:
        assert (name, arguments) in (("prctl", (36, 1, 0, 0, 0)), ("prctl", (1, 15, 0, 0, 0)))
        if refusal == "raises":
            raise OSError
        return -1

    monkeypatch.setattr(libc, "call", call)
    assert process.adopt(True, None, os.getppid()) == [SUBREAPER]
    assert process.adopt(None, 15, os.getppid()) == [SUBREAPER, DEATH]
    assert process.adopt(False, 15, os.getppid()) == [DEATH]
    assert process.adopt(False, None, os.getppid()) == []


@pytest.mark.parametrize(
    ("pid", "subreaper", "asked"), [(1, None, []), (1, True, [36]), (7, None, [36]), (7, False, [])]
)
def test_who_becomes_a_subreaper(
    monkeypatch: pytest.MonkeyPatch, pid: int, subreaper: bool | None, asked: list[int]
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(os, "getpid", lambda: pid)

    def call(_: str, what: int, *__: int) -> int:
        calls.append(what)
        return 0

    monkeypatch.setattr(libc, "call", call)
    assert process.adopt(subreaper, None, os.getppid()) == []
    assert calls == asked


@pytest.mark.parametrize("gone", [False, True])
def test_a_parent_that_died_before_we_asked_is_a_signal_too(monkeypatch: pytest.MonkeyPatch, gone: bool) -> None:
    """The kernel tells of a death that comes after prctl(2) only."""
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(libc, "call", lambda *_: 0)
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    assert process.adopt(False, 12, os.getppid() + gone) == []
    assert sent == ([(os.getpid(), 12)] if gone else [])


@pytest.mark.parametrize("closed", [(), (0,), (1, 2), (0, 1, 2)], ids=str)
def test_closed_standard_descriptors_are_filled(monkeypatch: pytest.MonkeyPatch, closed: tuple[int, ...]) -> None:
    opened: list[str] = []

    def fstat(fd: int) -> None:
        if fd in closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    with monkeypatch.context() as fake:
        fake.setattr(os, "fstat", fstat)
        fake.setattr(os, "open", lambda path, flags: opened.append(path))
        were_open = process.fill_standard_descriptors()
    assert were_open == tuple(fd not in closed for fd in range(3))
    assert opened == ["/"] * len(closed)

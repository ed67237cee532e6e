"""The start of the agent, where the system refuses it or takes its time. More: tests/process1/test_start.py."""

from __future__ import annotations

import errno
import os
import posix
import re
import signal
import socket
import time
from typing import TYPE_CHECKING

import pytest

from entrypoint.init import spawn, terminal
from entrypoint.init.spawn import NotStarted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SHELL = "/bin/sh"
PLAIN = {b"PATH": b"/usr/bin:/bin"}


def forked() -> dict[bytes, bytes]:
    """Return an environment that needs a fork: posix_spawn(3) cannot put the child's pid into it."""
    return {**PLAIN, b"LISTEN_PID": b"%d" % os.getpid(), b"OTHER_PID": b"%d" % os.getpid()}


def refusing(number: int) -> Callable[..., int]:
    """Return a function that fails with this error."""

    def refuse(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    return refuse


def not_started(name: str, environment: dict[bytes, bytes] = PLAIN) -> tuple[int, str]:
    """Return the exit code and the line for a program that cannot be started."""
    with pytest.raises(NotStarted) as refused:
        spawn.spawn([name], environment, terminal=False)
    return refused.value.code, str(refused.value)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    made = tmp_path / "script"
    made.write_text("#!/bin/sh\nexit 0\n")
    made.chmod(0o755)
    return made


# --- What cannot be started. ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("environment", [PLAIN, forked()], ids=["spawned", "forked"])
def test_the_reason_for_an_unreadable_path_comes_from_exec(tmp_path: Path, environment: dict[bytes, bytes]) -> None:
    (tmp_path / "loop").symlink_to("loop")
    path = str(tmp_path / "loop" / "program")
    assert not_started(path, environment) == (126, f"cannot run '{path}': {os.strerror(errno.ELOOP)}")


@pytest.mark.parametrize(
    ("number", "code", "beginning"),
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
def test_each_error_has_its_exit_code_and_line(
    monkeypatch: pytest.MonkeyPatch, script: Path, number: int, code: int, beginning: str
) -> None:
    for call in ("posix_spawn", "execve"):  # the latter in a forked child, where it is tried again
        monkeypatch.setattr(posix, call, refusing(number))
    got, text = not_started(str(script))
    assert got == code
    assert text.startswith(beginning.format(script))


@pytest.mark.parametrize(
    ("call", "number", "why"), [("fork", errno.EAGAIN, "fork refused"), ("pipe", errno.EMFILE, "Too many open files")]
)
def test_a_failed_fork_has_its_exit_code_and_line(
    monkeypatch: pytest.MonkeyPatch, script: Path, call: str, number: int, why: str
) -> None:
    monkeypatch.setattr(posix, call, refusing(number))
    code, text = not_started(str(script), forked())
    assert code == 125
    assert text.startswith(f"cannot start '{script}': {why}")


@pytest.mark.parametrize("number", spawn.PERHAPS_CLONE3)
def test_where_posix_spawn_is_refused_a_fork_starts_the_agent(
    monkeypatch: pytest.MonkeyPatch, script: Path, number: int
) -> None:
    """Its clone3(2), by older seccomp profiles: fork(2) makes another call."""
    monkeypatch.setattr(posix, "posix_spawn", refusing(number))
    pid = spawn.spawn([str(script)], dict(PLAIN), terminal=False)
    assert os.waitpid(pid, 0) == (pid, 0)


@pytest.mark.parametrize(
    ("function", "call"),
    [
        ("posix.fork", "fork"),
        ("posix.pipe", "pipe"),
        ("posix.setpgid", "setpgid"),
        ("_signal.signal", "sigaction"),
        ("_signal.pthread_sigmask", "sigprocmask"),
    ],
)
def test_a_refused_call_is_not_the_programs_fault(
    monkeypatch: pytest.MonkeyPatch, script: Path, function: str, call: str
) -> None:
    for name in ("posix.posix_spawn", function):
        monkeypatch.setattr(name, refusing(errno.EPERM))
    expected = f"cannot start '{script}': {call} is refused: Operation not permitted (a seccomp profile?)"
    assert not_started(str(script)) == (125, expected)


def test_a_child_without_memory_is_reported_as_such(monkeypatch: pytest.MonkeyPatch, script: Path) -> None:
    def no_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(posix, "setpgid", no_memory)
    assert not_started(str(script), forked()) == (125, f"cannot start '{script}': Cannot allocate memory")


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
def test_a_missing_interpreter_is_named(
    monkeypatch: pytest.MonkeyPatch, script: Path, content: bytes, why: str
) -> None:
    """execve(2) fails with ENOENT, as for a missing program."""
    script.write_bytes(content)
    monkeypatch.setattr(posix, "posix_spawn", refusing(errno.ENOENT))
    assert not_started(str(script)) == (126, f"cannot run '{script}': {why}")


@pytest.mark.parametrize("environment", [PLAIN, forked()], ids=["spawned", "forked"])
def test_a_symbolic_link_to_nothing_is_reported_as_such(tmp_path: Path, environment: dict[bytes, bytes]) -> None:
    link = tmp_path / "link"
    link.symlink_to("nowhere")
    assert not_started(str(link), environment) == (126, f"cannot run '{link}': a symbolic link to nothing")


def test_a_file_that_cannot_be_read_has_an_unknown_interpreter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A socket cannot be opened."""
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path)
    monkeypatch.setattr(posix, "posix_spawn", refusing(errno.ENOENT))
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
def test_path_is_shown_only_where_it_was_searched(name: str, why: str) -> None:
    assert not_started(name) == (127, f"cannot run '{name}': {why}")


@pytest.mark.parametrize(
    ("content", "is_script"), [(b"exit 3\n", True), (b"", False), (b"#!exit 3\n", False), (b"\x7fELF\0", False)]
)
def test_text_without_an_interpreter_line_is_run_by_the_shell(
    monkeypatch: pytest.MonkeyPatch, script: Path, content: bytes, is_script: bool
) -> None:
    def posix_spawn(path: str, argv: list[str], _: object, **__: object) -> int:
        if path == str(script):
            raise OSError(errno.ENOEXEC, os.strerror(errno.ENOEXEC))
        assert (path, argv) == ("/bin/sh", ["/bin/sh", str(script), "argument"])
        return 17

    script.write_bytes(content)
    monkeypatch.setattr(posix, "posix_spawn", posix_spawn)
    if is_script:
        assert spawn.spawn([str(script), "argument"], PLAIN, terminal=False) == 17
    else:
        with pytest.raises(NotStarted, match="not a program that this machine can run"):
            spawn.spawn([str(script), "argument"], PLAIN, terminal=False)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOEXEC, errno.EAGAIN])
def test_a_broken_program_ends_the_search_in_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int) -> None:
    """Only a program that may not be run is skipped (execvp(3), EACCES)."""
    for directory in ("first", "second"):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "program").write_bytes(b"\0")
    tried: list[str] = []

    def posix_spawn(path: str, *_: object, **__: object) -> int:
        tried.append(path)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(posix, "posix_spawn", posix_spawn)
    not_started("program", {b"PATH": f"{tmp_path}/first:{tmp_path}/second".encode()})
    assert tried == [f"{tmp_path}/first/program"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOENT])
def test_a_program_that_may_not_be_run_does_not_end_the_search_in_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int
) -> None:
    for directory in ("first", "second", "third"):
        (tmp_path / directory).mkdir()
    if number == errno.EACCES:
        (tmp_path / "first" / "program").write_bytes(b"\0")
    (tmp_path / "second" / "program").write_bytes(b"\0")
    (tmp_path / "third" / "program").write_bytes(b"\0")

    def posix_spawn(path: str, *_: object, **__: object) -> int:
        if "first" in path:
            raise OSError(number, os.strerror(number))
        assert path == f"{tmp_path}/second/program"
        return 17

    monkeypatch.setattr(posix, "posix_spawn", posix_spawn)
    path = f"{tmp_path}/first:{tmp_path}/second:{tmp_path}/third".encode()
    assert spawn.spawn(["program"], {b"PATH": path}, terminal=False) == 17


@pytest.mark.parametrize("environment", [PLAIN, forked()], ids=["spawned", "forked"])
def test_a_directory_is_reported_as_such(environment: dict[bytes, bytes]) -> None:
    assert not_started("/etc", environment) == (126, "cannot run '/etc': is a directory")


def test_the_file_that_path_led_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "program").write_text("#!/bin/sh\n")
    code, text = not_started("program", {b"PATH": str(tmp_path).encode()})
    assert code == 126
    assert text.startswith(f"cannot run 'program': {tmp_path}/program: permission denied; is it executable")


def test_a_long_command_is_cut_and_a_long_path_is_not() -> None:
    path = "/" + "no-such-directory/" * 40
    assert not_started(path) == (127, f"cannot run '{path}': no such file")
    code, text = not_started("/" + "x" * 1000)
    assert code == 126
    assert len(text) < 200


@pytest.mark.parametrize(
    ("name", "path", "expected"),
    [
        ("", b"/a", []),
        ("a/b", b"/a", ["a/b"]),
        ("a", b"/a::b", ["/a/a", "./a", "b/a"]),
        ("a", b"", ["./a"]),
        ("a", None, ["/bin/a", "/usr/bin/a"]),
    ],
)
def test_candidates_are_those_of_execvp(name: str, path: bytes | None, expected: list[str]) -> None:
    assert spawn.candidates(name, {} if path is None else {b"PATH": path}) == expected


# --- The fork. ------------------------------------------------------------------------------------------------------


def finish(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture
def interrupts() -> Iterator[Callable[[object], None]]:
    """Set this process's disposition of SIGINT; restored afterwards."""
    before = signal.getsignal(signal.SIGINT)
    yield lambda handler: (signal.signal(signal.SIGINT, handler), None)[1]  # type: ignore[arg-type]
    signal.signal(signal.SIGINT, before)


def test_where_there_is_no_posix_spawn_the_agent_is_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(posix, "posix_spawn")
    assert finish(spawn.spawn([SHELL, "-c", "exit 3"], PLAIN, terminal=False)) == 3


@pytest.fixture
def children_ignored() -> Iterator[None]:
    """SIGCHLD is ignored, as a parent may have left it to us; restored afterwards."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize(
    ("handler", "ignored"), [(signal.default_int_handler, False), (signal.SIG_DFL, False), (signal.SIG_IGN, True)]
)
def test_a_forked_agent_has_its_own_pid_in_its_environment_and_default_signals(
    tmp_path: Path, interrupts: Callable[[object], None], handler: object, ignored: bool
) -> None:
    """A signal that we inherited as ignored stays ignored."""
    interrupts(handler)
    output = tmp_path / "output"
    line = f"exec cat /proc/self/status /proc/self/environ >{output}"
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR2,))
    try:
        pid = spawn.spawn([SHELL, "-c", line], forked(), terminal=False)
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


def test_an_inherited_ignored_sigchld_is_ignored_in_the_agent_only(
    children_ignored: None, capfd: pytest.CaptureFixture[str]
) -> None:
    """In our own process it would lose the agent's exit status (waitpid(2))."""
    assert finish(spawn.spawn(["grep", "SigIgn:", "/proc/self/status"], PLAIN, terminal=False)) == 0
    assert int(capfd.readouterr().out.split()[1], 16) & 1 << signal.SIGCHLD - 1


def test_a_pending_interrupt_ends_the_child_as_it_would_the_agent(
    monkeypatch: pytest.MonkeyPatch, interrupts: Callable[[object], None]
) -> None:
    """It must not raise KeyboardInterrupt in the child: that would count as a failed start."""
    interrupts(signal.default_int_handler)
    monkeypatch.setattr(terminal, "give_to", lambda pid: os.kill(pid, signal.SIGINT))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    try:
        pid = spawn.spawn([SHELL, "-c", "exit 3"], PLAIN, terminal=True)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert finish(pid) == -signal.SIGINT


@pytest.mark.parametrize("number", [signal.SIGTSTP, signal.SIGSTOP])
def test_a_child_stopped_before_the_exec_is_stopped_again_after_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: signal.Signals
) -> None:
    """The child has the terminal by then and gets a Ctrl-Z: we must not wait for its exec for ever."""
    go = tmp_path / "go"
    os.mkfifo(go)
    monkeypatch.setattr(terminal, "give_to", lambda pid: os.kill(pid, number))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTSTP,))
    try:
        pid = spawn.spawn([SHELL, "-c", f"read line <{go}; exit 3"], PLAIN, terminal=True)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    _, status = os.waitpid(pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    assert os.WSTOPSIG(status) == number
    os.kill(pid, signal.SIGCONT)
    go.write_text("\n")
    assert finish(pid) == 3


def test_a_slow_exec_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spawn, "LOOK_AGAIN", 1)
    monkeypatch.setattr(terminal, "give_to", lambda _: time.sleep(0.02))
    assert finish(spawn.spawn([SHELL, "-c", "exit 3"], PLAIN, terminal=True)) == 3


def test_a_child_is_killed_if_waiting_for_its_exec_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    pids: list[int] = []

    def fail(reader: int, pid: int) -> bytes:
        pids.append(pid)
        raise MemoryError

    monkeypatch.setattr(spawn, "_exec_failure", fail)
    with pytest.raises(MemoryError):
        spawn.spawn(["sleep", "100"], forked(), terminal=False)
    with pytest.raises(ChildProcessError):
        os.waitpid(pids[0], 0)


def test_a_fork_leaves_no_descriptor_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    assert finish(spawn.spawn([SHELL, "-c", "exit 3"], forked(), terminal=False)) == 3
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
        (OSError("without a number"), errno.EIO),
        (MemoryError(), errno.ENOMEM),
        (KeyboardInterrupt(), errno.ENOMEM),
    ],
)
def test_any_failure_in_the_child_is_reported_and_leaves_no_child(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, number: int
) -> None:
    """The child must never return into process 1's code."""
    monkeypatch.setattr(terminal, "give_to", lambda _: raises(error)())
    with pytest.raises(NotStarted) as refused:
        spawn.spawn([SHELL, "-c", "exit 3"], PLAIN, terminal=True)
    assert os.strerror(number) in str(refused.value)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)

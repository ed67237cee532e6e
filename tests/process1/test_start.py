"""The start: what the agent inherits, what process 1 keeps, and errors when the agent cannot be started."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

import entrypoint
from tests.support.init import AGENT_INIT, until
from tests.support.proc import (
    AS_NOBODY,
    IDLE,
    descriptors,
    environment,
    group,
    inner_pid,
    signals_in_mask,
    status,
    wait_for_agent,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Start
    from tests.support.init import Init

PACKAGE = Path(entrypoint.__file__).parents[1]
BLOCKING = ["env", "--block-signal"]


def through_shell(setting: str) -> list[str]:
    """The prefix that runs agent-init from a shell, after `setting`."""
    return ["sh", "-c", f'{setting} exec "$@"', "sh"]


def stop(init: Init) -> None:
    """Stop the idle agent."""
    init.signal("TERM")
    assert init.wait() == 143
    assert "was killed by SIGTERM" in init.wait_for_line("ended")


# --- What the agent inherits. ---------------------------------------------------------------------------------------


def test_agent_has_its_own_process_group(start_in_role: Start) -> None:
    init = start_in_role(command=IDLE)
    agent = wait_for_agent(init)
    assert group(agent) == agent != group(init.pid)
    stop(init)


@pytest.mark.parametrize("before", [[], BLOCKING], ids=["", "blocked at the start"])
@pytest.mark.parametrize("env", [{}, {"PYTHONPATH": "/app"}], ids=["", "re-executed"])
def test_agent_starts_with_a_clean_signal_state(start_in_role: Start, before: list[str], env: dict[str, str]) -> None:
    init = start_in_role(command=IDLE, before=before, env={**os.environ, **env})
    agent = wait_for_agent(init)
    assert signals_in_mask(agent, "SigBlk") == set()
    assert signals_in_mask(agent, "SigPnd") == set()
    assert not signals_in_mask(agent, "SigIgn") & {"PIPE", "XFSZ", "INT", "TERM", "CHLD"}
    assert signals_in_mask(agent, "SigCgt") == set()
    stop(init)


@pytest.mark.parametrize("names", ["USR2", "HUP", "INT,QUIT", "CHLD", "TTOU,USR1,ALRM"])
def test_agent_inherits_ignored_signals(start_in_role: Start, names: str) -> None:
    init = start_in_role(command=IDLE, before=["env", f"--ignore-signal={names}"])
    ignored = signals_in_mask(wait_for_agent(init), "SigIgn")
    assert set(names.split(",")) <= ignored
    assert not ignored & {"PIPE", "XFSZ", "TERM"}
    stop(init)


@pytest.mark.parametrize("names", ["CHLD", "PIPE,XFSZ", "HUP,INT,QUIT"])
def test_exit_code_is_the_agents_whatever_signal_is_ignored(start_in_role: Start, names: str) -> None:
    """If SIGCHLD is ignored, the kernel reaps children itself and their exit status is lost (waitpid(2))."""
    init = start_in_role(command=["sh", "-c", "exit 7"], before=["env", f"--ignore-signal={names}"])
    assert init.wait() == 7


def test_agent_keeps_the_working_directory_and_process_1_moves_to_root(start_in_role: Start, tmp_path: Path) -> None:
    here = tmp_path / "w\u00f6rk dir"
    here.mkdir()
    init = start_in_role(command=IDLE, cwd=here)
    assert Path(f"/proc/{wait_for_agent(init)}/cwd").readlink() == here
    until(lambda: Path(f"/proc/{init.pid}/cwd").readlink() == Path("/"), "process 1 in /")
    stop(init)


ENVIRONMENTS = {
    "C locale": {},
    "explicit C locale": {"LC_CTYPE": "C"},
    "POSIX locale": {"LC_CTYPE": "POSIX", "PYTHONPATH": "/app"},
    "LC_ALL": {"LC_ALL": "C", "PYTHONPATH": "/app"},
    "UTF-8": {"LC_CTYPE": "C.UTF-8", "LANG": "C.UTF-8"},
    "PYTHONPATH": {"PYTHONPATH": "/app:/app/lib", "PYTHONHASHSEED": "0", "PYTHONUNBUFFERED": "1"},
    "no UTF-8": {"NAME": os.fsdecode(b"\xff\xfe\x80 caf\xe9"), os.fsdecode(b"N\xe4me"): "x", "EMPTY": ""},
    "no UTF-8, re-executed": {"NAME": os.fsdecode(b"\xff\xfe\x80"), "PYTHONPATH": os.fsdecode(b"/\xff")},
    "lines": {"NAME": "one\ntwo=2\r\n\tthree", "BASH_FUNC_f%%": "() { :; }", "A": "=b="},
    "large": {"NAME": "x" * 100_000},
    "agent-init's own": {"AGENT_INIT_GRACE": "20s", "AGENT_INIT_VERBOSE": "2"},
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_agent_inherits_the_environment_byte_for_byte(start_in_role: Start, name: str) -> None:
    given = {"PATH": os.environ["PATH"], **ENVIRONMENTS[name], "LAST": "1"}
    init = start_in_role(command=IDLE, env=given)
    here = environment(wait_for_agent(init))
    assert here == environment(init.outer.pid)
    assert here.startswith(b"".join(os.fsencode(f"{k}={v}") + b"\0" for k, v in given.items()))
    stop(init)


def test_agent_inherits_an_empty_environment(start_in_role: Start) -> None:
    init = start_in_role(command=["/bin/sleep", "1000"], before=["env", "-i"])
    assert environment(wait_for_agent(init)) == b""
    stop(init)


def test_variable_without_a_name_does_not_prevent_the_start(start_in_role: Start) -> None:
    init = start_in_role(command=IDLE, before=["env", "=odd", "LAST=1"])
    assert b"\0LAST=1\0" in environment(wait_for_agent(init))
    stop(init)


@pytest.mark.parametrize("before", [["env", "LC_ALL=C"], ["env", "PYTHONPATH=/app"]], ids=lambda b: b[1])
def test_agent_receives_its_arguments_byte_for_byte(start_in_role: Start, before: list[str]) -> None:
    arguments = [b"", b"\xff\x80", b"caf\xc3\xa9", b"two\nlines", b"--", b"-g", b"$HOME 'x'", b"x" * 50_000]
    init = start_in_role(
        command=["sh", "-c", "while :; do sleep 1000; done", *map(os.fsdecode, arguments)], before=before
    )
    agent = wait_for_agent(init, "sh")
    assert Path(f"/proc/{agent}/cmdline").read_bytes().split(b"\0")[3:-1] == arguments
    stop(init)


# --- Descriptors. ---------------------------------------------------------------------------------------------------


@pytest.fixture
def inherited(tmp_path: Path) -> Iterator[list[int]]:
    """Descriptors of a file, of both ends of a pipe and of a directory, with low and high numbers."""
    opened = [os.open(tmp_path / "inherited", os.O_RDWR | os.O_CREAT), *os.pipe(), os.open(tmp_path, os.O_RDONLY)]
    opened.append(fcntl.fcntl(opened[0], fcntl.F_DUPFD, 200))
    yield opened
    for fd in opened:
        os.close(fd)


@pytest.mark.parametrize("env", [{}, {"PYTHONPATH": "/app"}], ids=["", "re-executed"])
def test_inherited_descriptors_go_to_the_agent_and_are_closed_in_process_1(
    start_in_role: Start, inherited: list[int], env: dict[str, str]
) -> None:
    init = start_in_role(command=IDLE, pass_fds=inherited, env={**os.environ, **env})
    agent = wait_for_agent(init)
    ours = descriptors(os.getpid())
    given = {fd: ours[fd] for fd in inherited}
    theirs = descriptors(agent)
    assert theirs.keys() == {0, 1, 2, *inherited}
    assert {fd: theirs[fd] for fd in inherited} == given
    until(lambda: not set(descriptors(init.pid).values()) & set(given.values()), "process 1 without them")
    own = descriptors(init.pid)
    assert own[0] == theirs[0]
    assert len(own) <= 8
    stop(init)


def test_pipe_inherited_by_the_agent_is_closed_when_it_exits(start_in_role: Start, tmp_path: Path) -> None:
    """Only the agent keeps inherited descriptors: a reader gets end of file while process 1 still runs."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    lives_on = "orphan('child', \"on('TERM'); on('USR1', leave); ready()\")"
    agent = f"on('USR1', leave); {lives_on}; ready()"
    init = start_in_role("--linger", "20s", agent=agent, before=through_shell(f"exec 9>{fifo};"))
    with fifo.open() as end:
        init.wait_for_event("ready", "child")
        init.wait_for_event("ready")
        init.signal("USR1")
        assert end.read() == ""
    child = init.wait_for_event("TERM", "child")["pid"]
    assert init.outer.poll() is None
    [process] = [p for p in init.remaining_processes() if inner_pid(p.pid) == child]
    process.send_signal(signal.SIGUSR1)
    assert init.wait() == 0


CLOSED = [fds for size in (1, 2, 3) for fds in combinations((0, 1, 2), size)]


@pytest.mark.parametrize("fds", CLOSED, ids=str)
def test_closed_standard_descriptors_stay_closed_for_the_agent(start_in_role: Start, fds: tuple[int, ...]) -> None:
    init = start_in_role(command=IDLE, before=through_shell("exec " + " ".join(f"{fd}>&-" for fd in fds) + ";"))
    agent = wait_for_agent(init)
    assert descriptors(agent).keys() == {0, 1, 2} - set(fds)
    # Process 1 must not open a file of its own on these numbers: a stray write to "stderr" would go there.
    until(lambda: signals_in_mask(init.pid, "SigBlk") >= {"TERM"} and status(init.pid)["State"].startswith("S"), "rest")
    own = descriptors(init.pid)
    assert all(own.get(fd, "/") == "/" for fd in fds), own
    init.signal("TERM")
    assert init.wait() == 143
    if 2 not in fds:
        assert init.wait_for_line("stop requested")


def test_agents_stderr_is_not_made_nonblocking(start_in_role: Start) -> None:
    """O_NONBLOCK belongs to the open file description: if agent-init set it, the agent's writes would fail."""
    reader, writer = os.pipe()
    init = start_in_role(command=IDLE, stderr=writer)
    os.close(writer)
    agent = wait_for_agent(init)
    init.signal("USR2")
    until(lambda: select_line(reader, b"USR2"), "a line about the signal")
    flags = int(Path(f"/proc/{agent}/fdinfo/2").read_text().split("flags:")[1].split()[0], 8)
    assert not flags & os.O_NONBLOCK
    init.signal("TERM")
    assert init.wait() == 143
    os.close(reader)


def select_line(reader: int, word: bytes) -> bool:
    return word in os.read(reader, 4096)


@pytest.mark.parametrize("env", [{}, {"PYTHONPATH": "/app"}], ids=["", "re-executed"])
def test_listen_pid_of_agent_init_becomes_the_agents(start_in_role: Start, env: dict[str, str]) -> None:
    before = through_shell("LISTEN_FDS=1 LISTEN_PID=$$")
    init = start_in_role(command=IDLE, before=before, env={**os.environ, **env})
    agent = wait_for_agent(init)
    variables = environment(agent).split(b"\0")
    assert b"LISTEN_PID=%d" % inner_pid(agent) in variables
    assert b"LISTEN_FDS=1" in variables
    assert signals_in_mask(agent, "SigBlk") == signals_in_mask(agent, "SigCgt") == set()
    assert group(agent) == agent
    assert descriptors(agent).keys() == {0, 1, 2}
    stop(init)


def test_listen_pid_of_another_process_is_unchanged(start_in_role: Start) -> None:
    init = start_in_role(command=IDLE, env={**os.environ, "LISTEN_PID": "99999", "LISTEN_FDS": "1"})
    assert b"LISTEN_PID=99999" in environment(wait_for_agent(init)).split(b"\0")
    stop(init)


# --- Signals before the agent's exec. -------------------------------------------------------------------------------


def wait_for_blocked_signals(init: Init) -> None:
    """Wait for `env --block-signal`. unshare(1) has them blocked for a moment too, while the C library forks."""
    until(
        lambda: psutil.Process(init.pid).name() != "unshare" and "TERM" in signals_in_mask(init.pid, "SigBlk"),
        "blocked signals",
    )


@pytest.mark.parametrize("env", [{}, {"PYTHONPATH": "/app"}], ids=["", "re-executed"])
@pytest.mark.parametrize("delay", [0.0, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05])
def test_stop_request_before_the_agents_exec_is_not_lost(
    start_in_role: Start, delay: float, env: dict[str, str]
) -> None:
    init = start_in_role(command=IDLE, before=BLOCKING, env={**os.environ, **env})
    wait_for_blocked_signals(init)
    time.sleep(delay)
    init.signal("TERM")
    assert init.wait() == 143
    assert "stop requested by TERM" in init.wait_for_line("stop requested")
    assert "was killed by SIGTERM" in init.wait_for_line("ended")


def test_signals_before_the_agents_exec_are_not_lost(start_in_role: Start) -> None:
    """They are sent while blocked, before agent-init's first instruction."""
    init = start_in_role(
        "-v", "--unhandled", "forward", command=["sh", "-c", "trap '' USR1; sleep 1000"], before=BLOCKING
    )
    wait_for_blocked_signals(init)
    init.signal("WINCH")
    init.signal("TERM")
    assert init.wait() == 143
    assert init.lines("stop requested by TERM")
    assert init.lines("WINCH")


# Like `first.py`, but after the spawn the import system has cached the package's directory as unreadable.
UNREADABLE_DIRECTORY = """
import _signal, os, sys
_signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
sys.path.insert(0, {package!r})
from entrypoint import start
from entrypoint.init import spawn as module

def spawn(*arguments, **more):
    sys.path_importer_cache[os.path.dirname(start.__file__)] = None
    return real(*arguments, **more)

real, module.spawn = module.spawn, spawn
os._exit(start.main(sys.argv[1:], {package!r}))
"""


def test_failed_directory_scan_is_retried_on_import(start_in_role: Start, tmp_path: Path) -> None:
    script = tmp_path / "agent-init"
    script.write_text(UNREADABLE_DIRECTORY.format(package=str(PACKAGE)))
    init = start_in_role(command=IDLE, program=[sys.executable, "-I", "-S", str(script)])
    wait_for_agent(init)
    stop(init)


# --- The agent cannot be started. -----------------------------------------------------------------------------------


def executable(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    path.chmod(0o755)
    return path


def assert_fails(init: Init, code: int, *texts: str) -> None:
    """agent-init exits with the code and logs one line that contains the texts."""
    assert init.wait() == code, init.stderr
    line, *more = init.stderr.splitlines()
    assert not more, init.stderr
    assert line.startswith("agent-init: ")
    for text in texts:
        assert text in line
    assert not init.remaining_processes()


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("no-such-program", ["'no-such-program'", "not found in PATH"]),
        ("/no/such/program", ["'/no/such/program'", "no such file"]),
        ("./no-such", ["'./no-such'"]),
        ("/etc/passwd/x", ["'/etc/passwd/x'"]),
        ("two\nlines", [r"'two\nlines'"]),
        ("\u00fcnknown", ["nknown'"]),
        ("", ["''"]),
    ],
)
def test_command_not_found_is_127(start_in_role: Start, name: str, texts: list[str]) -> None:
    assert_fails(start_in_role(command=["--", name, "secret"]), 127, *texts)


@pytest.mark.parametrize("path", ["", "/nowhere", "/etc/passwd:/nowhere"])
def test_command_not_found_logs_the_search_path(start_in_role: Start, path: str) -> None:
    assert_fails(start_in_role(command=["sleep", "1"], before=["env", f"PATH={path}"]), 127, "'sleep'", f"({path})")


BROKEN = {
    "not executable": (None, "permission denied"),
    "garbage": (b"\0\1\2\3 no program", "not a program"),
    "wrong architecture": (b"\x7fELF\2\1\1\0" + bytes(56), "not a program"),
    "no interpreter": (b"#!/no/such/interpreter -x\n", "'/no/such/interpreter'"),
    "carriage return": (b"#!/bin/sh\r\nexit 0\r\n", "carriage return"),
    "interpreter is a directory": (b"#!/tmp\n", ""),
}


@pytest.mark.parametrize("by_path", [False, True], ids=["bare name", "path"])
@pytest.mark.parametrize("kind", BROKEN)
def test_command_that_cannot_be_executed_is_126(start_in_role: Start, tmp_path: Path, kind: str, by_path: bool) -> None:
    content, why = BROKEN[kind]
    program = executable(tmp_path / "broken", content or b"exit 0\n")
    if content is None:
        program.chmod(0o644)
    name = str(program) if by_path else program.name
    env = {**os.environ, "PATH": f"{os.environ['PATH']}:{tmp_path}"}
    assert_fails(start_in_role(command=[name, "secret"], env=env), 126, f"'{name}'", str(program), why)


@pytest.mark.parametrize("name", ["/etc", "./"])
def test_directory_as_command_is_126(start_in_role: Start, name: str) -> None:
    assert_fails(start_in_role(command=[name]), 126, f"'{name}'", "is a directory")


def test_script_without_a_shebang_is_run_by_sh(start_in_role: Start, tmp_path: Path) -> None:
    """As execvp(3) does."""
    script = executable(tmp_path / "script", b'echo "$0 $# $1"\nexit 7\n')
    init = start_in_role(command=[str(script), "an argument", ""])
    assert init.wait() == 7
    assert init.outer.stdout.read().decode() == f"{script} 2 an argument\n"  # type: ignore[union-attr]


def test_non_executable_file_does_not_hide_a_later_one_in_path(start_in_role: Start, tmp_path: Path) -> None:
    """A file that may not be executed does not hide a program of the same name (execvp(3), EACCES)."""
    for name, mode, code in (("first", 0o644, 1), ("second", 0o755, 5), ("third", 0o755, 6)):
        (tmp_path / name).mkdir()
        executable(tmp_path / name / "program", b"#!/bin/sh\nexit %d\n" % code).chmod(mode)
    path = ":".join(["/nowhere", "/etc/passwd", *(str(tmp_path / name) for name in ("first", "second", "third"))])
    init = start_in_role(command=["program"], env={**os.environ, "PATH": f"{path}:{os.environ['PATH']}"})
    assert init.wait() == 5


def test_empty_entry_of_path_is_the_current_directory(start_in_role: Start, tmp_path: Path) -> None:
    executable(tmp_path / "program", b"#!/bin/sh\nexit 5\n")
    init = start_in_role(command=["program"], cwd=tmp_path, env={**os.environ, "PATH": f":{os.environ['PATH']}"})
    assert init.wait() == 5


def test_failed_start_is_logged_as_json(start_in_role: Start) -> None:
    init = start_in_role("--log-format", "json", command=["/no/such"])
    assert init.wait() == 127
    [line] = init.stderr.splitlines()
    record = json.loads(line)
    assert (record["level"], record["event"], record["code"]) == ("error", "not-started", 127)
    assert "'/no/such'" in record["message"]


def test_failed_start_is_the_same_with_fork_as_with_spawn(start_in_role: Start) -> None:
    """With LISTEN_PID the agent is started with fork instead of posix_spawn."""
    assert_fails(start_in_role(command=["/no/such"], before=through_shell("LISTEN_PID=$$")), 127, "'/no/such'")
    assert_fails(
        start_in_role(command=["/etc"], before=through_shell("LISTEN_PID=$$")), 126, "'/etc'", "is a directory"
    )


PIDS = Path("/sys/fs/cgroup/pids")


@pytest.fixture
def group_of_one() -> Iterator[Path]:
    """A control group that is limited to one process."""
    if not (PIDS / "cgroup.procs").exists() or not os.access(PIDS, os.W_OK):
        pytest.skip("no writable pids controller of cgroups v1")
    made = Path(tempfile.mkdtemp(dir=PIDS, prefix="agent-init-test-"))
    (made / "pids.max").write_text("1")
    yield made
    until(lambda: not (made / "cgroup.procs").read_text(), "an empty group")
    made.rmdir()


@pytest.mark.parametrize("setting", ["", "LISTEN_PID=$$"], ids=["spawned", "forked"])
def test_refused_fork_is_125(start_in_role: Start, group_of_one: Path, setting: str) -> None:
    before = through_shell(f"echo 0 > {group_of_one}/cgroup.procs && {setting}")
    assert_fails(start_in_role(command=["sleep", "1"], before=before), 125, "'sleep'", "pids limit")


def test_process_limit_of_the_user_is_125(start_in_role: Start) -> None:
    if os.getuid() != 0:
        pytest.skip("changing the user takes root")
    before = ["prlimit", "--nproc=0"]
    assert_fails(start_in_role(command=["sleep", "1"], before=[*AS_NOBODY, *before]), 125, "'sleep'", "RLIMIT_NPROC")


def test_command_script_is_executable_and_short() -> None:
    """A script is compiled at every start."""
    assert AGENT_INIT.stat().st_mode & stat.S_IXUSR
    lines = AGENT_INIT.read_bytes().splitlines(keepends=True)
    assert len(b"".join(lines[1:])) < 2300  # but for the interpreter's path


@pytest.mark.parametrize("path", ["bin/agent-init", "bin//agent-init", "link/agent-init", "link/../bin/agent-init"])
def test_the_package_is_found_beside_the_directory_of_a_copy(tmp_path: Path, path: str) -> None:
    """As `pip install --target` leaves it. A shell makes `bin//agent-init` of `PATH=bin/`."""
    package = Path(entrypoint.__file__).parent
    (tmp_path / "bin").mkdir()
    (tmp_path / "link").symlink_to("bin")
    shutil.copy(package.parent / "launcher" / "agent-init.py", tmp_path / "bin" / "agent-init")
    shutil.copytree(package, tmp_path / "entrypoint", ignore=shutil.ignore_patterns("__pycache__"))
    argv = [sys.executable, "-I", "-S", f"{tmp_path}/{path}", "--version"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"agent-init {entrypoint.__version__}\n", "")


@pytest.mark.parametrize("how", ["as a script", "as a module", "through a link to the script"])
def test_a_package_that_is_a_link_is_found(tmp_path: Path, how: str) -> None:
    """As environments made of links have it; the directory behind the link has another name."""
    package = Path(entrypoint.__file__).parent
    shutil.copytree(package, tmp_path / "store" / "entrypoint-1", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "entrypoint").symlink_to(tmp_path / "store" / "entrypoint-1")
    (tmp_path / "agent-init").symlink_to(tmp_path / "lib" / "entrypoint" / "__main__.py")
    script = tmp_path / "lib" / "entrypoint" / "__main__.py" if how == "as a script" else tmp_path / "agent-init"
    argv = [sys.executable, *(["-m", "entrypoint"] if how == "as a module" else [str(script)])]
    environment = {"PYTHONPATH": str(tmp_path / "lib")} if how != "as a script" else {}
    done = subprocess.run([*argv, "-q", "--", "echo", "ran"], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ran\n", "")


def test_no_compiled_file_is_written_with_the_interpreters_option(tmp_path: Path) -> None:
    package = Path(entrypoint.__file__).parent
    shutil.copytree(package, tmp_path / "entrypoint", ignore=shutil.ignore_patterns("__pycache__"))
    argv = [sys.executable, "-B", "-I", "-S", str(tmp_path / "entrypoint" / "__main__.py"), "-q", "--", "true"]
    subprocess.run(argv, env={}, timeout=60, check=True)
    assert [*tmp_path.rglob("__pycache__")] == []


def test_python_m_entrypoint_runs_the_command() -> None:
    python = AGENT_INIT.with_name("python")
    arguments = ["-m", "entrypoint", "-q", "--", "sh", "-c", "exit 9"]
    assert subprocess.run([python, *arguments], timeout=30, cwd="/").returncode == 9

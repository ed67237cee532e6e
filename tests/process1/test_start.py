"""What the agent gets, what process 1 keeps, and what happens where there is no agent to be started."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import entrypoint
from tests.support.init import AGENT_INIT, until
from tests.support.proc import AS_NOBODY, IDLE, agent_of, descriptors, environment, group, inner_pid, masked, status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Start
    from tests.support.init import Init

PACKAGE = Path(entrypoint.__file__).parents[1]
BLOCKING = ["env", "--block-signal"]


def through_shell(setting: str) -> list[str]:
    """The words of a shell that does `setting` and gives its place to agent-init."""
    return ["sh", "-c", f'{setting} exec "$@"', "sh"]


def stop(init: Init) -> None:
    """The idle agent is stopped as every agent is."""
    init.signal("TERM")
    assert init.wait() == 143
    assert "was killed by SIGTERM" in init.said("ended")


# --- What the agent gets. -------------------------------------------------------------------------------------------


def test_the_agent_has_a_process_group_of_its_own(started: Start) -> None:
    init = started(command=IDLE)
    agent = agent_of(init)
    assert group(agent) == agent != group(init.pid)
    stop(init)


@pytest.mark.parametrize("before", [[], BLOCKING], ids=["", "blocked at the start"])
@pytest.mark.parametrize("env", [{}, {"PYTHONPATH": "/app"}], ids=["", "started over"])
def test_the_agent_has_clean_signals(started: Start, before: list[str], env: dict[str, str]) -> None:
    init = started(command=IDLE, before=before, env={**os.environ, **env})
    agent = agent_of(init)
    assert masked(agent, "SigBlk") == set()
    assert masked(agent, "SigPnd") == set()
    assert not masked(agent, "SigIgn") & {"PIPE", "XFSZ", "INT", "TERM", "CHLD"}
    assert masked(agent, "SigCgt") == set()
    stop(init)


@pytest.mark.parametrize("names", ["USR2", "HUP", "INT,QUIT", "CHLD", "TTOU,USR1,ALRM"])
def test_the_agent_inherits_what_was_ignored(started: Start, names: str) -> None:
    init = started(command=IDLE, before=["env", f"--ignore-signal={names}"])
    ignored = masked(agent_of(init), "SigIgn")
    assert set(names.split(",")) <= ignored
    assert not ignored & {"PIPE", "XFSZ", "TERM"}
    stop(init)


@pytest.mark.parametrize("names", ["CHLD", "PIPE,XFSZ", "HUP,INT,QUIT"])
def test_the_exit_code_comes_through_whatever_is_ignored(started: Start, names: str) -> None:
    """Where SIGCHLD is ignored the kernel reaps the agent before anybody hears of its end (waitpid(2))."""
    init = started(command=["sh", "-c", "exit 7"], before=["env", f"--ignore-signal={names}"])
    assert init.wait() == 7


def test_the_agent_has_our_directory_and_process_1_has_none(started: Start, tmp_path: Path) -> None:
    here = tmp_path / "w\u00f6rk dir"
    here.mkdir()
    init = started(command=IDLE, cwd=here)
    assert Path(f"/proc/{agent_of(init)}/cwd").readlink() == here
    until(lambda: Path(f"/proc/{init.pid}/cwd").readlink() == Path("/"), "process 1 in /")
    stop(init)


ENVIRONMENTS = {
    "C locale": {},
    "C locale, said so": {"LC_CTYPE": "C"},
    "POSIX locale": {"LC_CTYPE": "POSIX", "PYTHONPATH": "/app"},
    "LC_ALL": {"LC_ALL": "C", "PYTHONPATH": "/app"},
    "UTF-8": {"LC_CTYPE": "C.UTF-8", "LANG": "C.UTF-8"},
    "PYTHONPATH": {"PYTHONPATH": "/app:/app/lib", "PYTHONHASHSEED": "0", "PYTHONUNBUFFERED": "1"},
    "no UTF-8": {"NAME": os.fsdecode(b"\xff\xfe\x80 caf\xe9"), os.fsdecode(b"N\xe4me"): "x", "EMPTY": ""},
    "no UTF-8, started over": {"NAME": os.fsdecode(b"\xff\xfe\x80"), "PYTHONPATH": os.fsdecode(b"/\xff")},
    "lines": {"NAME": "one\ntwo=2\r\n\tthree", "BASH_FUNC_f%%": "() { :; }", "A": "=b="},
    "large": {"NAME": "x" * 100_000},
    "ours": {"AGENT_INIT_GRACE": "20s", "AGENT_INIT_VERBOSE": "2"},
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_agent_has_our_environment_byte_for_byte(started: Start, name: str) -> None:
    given = {"PATH": os.environ["PATH"], **ENVIRONMENTS[name], "LAST": "1"}
    init = started(command=IDLE, env=given)
    here = environment(agent_of(init))
    assert here == environment(init.outer.pid)
    assert here.startswith(b"".join(os.fsencode(f"{k}={v}") + b"\0" for k, v in given.items()))
    stop(init)


def test_the_agent_has_no_environment_where_we_have_none(started: Start) -> None:
    init = started(command=["/bin/sleep", "1000"], before=["env", "-i"])
    assert environment(agent_of(init)) == b""
    stop(init)


def test_a_variable_without_a_name_does_not_stop_the_start(started: Start) -> None:
    init = started(command=IDLE, before=["env", "=odd", "LAST=1"])
    assert b"\0LAST=1\0" in environment(agent_of(init))
    stop(init)


@pytest.mark.parametrize("before", [["env", "LC_ALL=C"], ["env", "PYTHONPATH=/app"]], ids=lambda b: b[1])
def test_the_agent_has_our_arguments_byte_for_byte(started: Start, before: list[str]) -> None:
    words = [b"", b"\xff\x80", b"caf\xc3\xa9", b"two\nlines", b"--", b"-g", b"$HOME 'x'", b"x" * 50_000]
    init = started(command=["sh", "-c", "while :; do sleep 1000; done", *map(os.fsdecode, words)], before=before)
    agent = agent_of(init, "sh")
    assert Path(f"/proc/{agent}/cmdline").read_bytes().split(b"\0")[3:-1] == words
    stop(init)


# --- Descriptors. ---------------------------------------------------------------------------------------------------


@pytest.fixture
def inherited(tmp_path: Path) -> Iterator[list[int]]:
    """A file, both ends of a pipe and a directory, on numbers low and high."""
    opened = [os.open(tmp_path / "inherited", os.O_RDWR | os.O_CREAT), *os.pipe(), os.open(tmp_path, os.O_RDONLY)]
    opened.append(fcntl.fcntl(opened[0], fcntl.F_DUPFD, 200))
    yield opened
    for fd in opened:
        os.close(fd)


@pytest.mark.parametrize("env", [{}, {"PYTHONPATH": "/app"}], ids=["", "started over"])
def test_the_agent_has_our_descriptors_and_process_1_lets_go_of_them(
    started: Start, inherited: list[int], env: dict[str, str]
) -> None:
    init = started(command=IDLE, pass_fds=inherited, env={**os.environ, **env})
    agent = agent_of(init)
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


def test_a_pipe_to_the_agent_ends_with_the_agent(started: Start, tmp_path: Path) -> None:
    """Nobody but the agent holds what agent-init inherited: a reader sees the end of file while process 1 lives on."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    lives_on = "orphan('child', \"on('TERM'); on('USR1', leave); ready()\")"
    agent = f"on('USR1', leave); {lives_on}; ready()"
    init = started("--linger", "20s", agent=agent, before=through_shell(f"exec 9>{fifo};"))
    with fifo.open() as end:
        init.event("ready", "child")
        init.event("ready")
        init.signal("USR1")
        assert end.read() == ""
    child = init.event("TERM", "child")["pid"]
    assert init.outer.poll() is None
    [process] = [p for p in init.left() if inner_pid(p.pid) == child]
    process.send_signal(signal.SIGUSR1)
    assert init.wait() == 0


CLOSED = [fds for size in (1, 2, 3) for fds in combinations((0, 1, 2), size)]


@pytest.mark.parametrize("fds", CLOSED, ids=str)
def test_closed_standard_descriptors_stay_closed_for_the_agent(started: Start, fds: tuple[int, ...]) -> None:
    init = started(command=IDLE, before=through_shell("exec " + " ".join(f"{fd}>&-" for fd in fds) + ";"))
    agent = agent_of(init)
    assert descriptors(agent).keys() == {0, 1, 2} - set(fds)
    # What process 1 opens for itself must not land where a stray write to "stderr" would go.
    until(lambda: masked(init.pid, "SigBlk") >= {"TERM"} and status(init.pid)["State"].startswith("S"), "rest")
    own = descriptors(init.pid)
    assert all(own.get(fd, "/") == "/" for fd in fds), own
    init.signal("TERM")
    assert init.wait() == 143
    if 2 not in fds:
        assert init.said("stop requested")


def test_the_agents_stderr_blocks_as_it_did(started: Start) -> None:
    """O_NONBLOCK belongs to the open file: set by us, it would make the agent's own writes fail."""
    reader, writer = os.pipe()
    init = started(command=IDLE, stderr=writer)
    os.close(writer)
    agent = agent_of(init)
    init.signal("USR2")
    until(lambda: select_line(reader, b"USR2"), "a line about the signal")
    flags = int(Path(f"/proc/{agent}/fdinfo/2").read_text().split("flags:")[1].split()[0], 8)
    assert not flags & os.O_NONBLOCK
    init.signal("TERM")
    assert init.wait() == 143
    os.close(reader)


def select_line(reader: int, word: bytes) -> bool:
    return word in os.read(reader, 4096)


@pytest.mark.parametrize("env", [{}, {"PYTHONPATH": "/app"}], ids=["", "started over"])
def test_listen_pid_names_the_agent_where_it_named_us(started: Start, env: dict[str, str]) -> None:
    before = through_shell("LISTEN_FDS=1 LISTEN_PID=$$")
    init = started(command=IDLE, before=before, env={**os.environ, **env})
    agent = agent_of(init)
    variables = environment(agent).split(b"\0")
    assert b"LISTEN_PID=%d" % inner_pid(agent) in variables
    assert b"LISTEN_FDS=1" in variables
    assert masked(agent, "SigBlk") == masked(agent, "SigCgt") == set()
    assert group(agent) == agent
    assert descriptors(agent).keys() == {0, 1, 2}
    stop(init)


def test_listen_pid_stays_where_it_named_somebody_else(started: Start) -> None:
    init = started(command=IDLE, env={**os.environ, "LISTEN_PID": "99999", "LISTEN_FDS": "1"})
    assert b"LISTEN_PID=99999" in environment(agent_of(init)).split(b"\0")
    stop(init)


# --- Signals that come before the agent is there. -------------------------------------------------------------------


def blocked(init: Init) -> None:
    """Await what `env --block-signal` does; unshare(1) has TERM blocked for a moment as well, but not USR1."""
    until(lambda: {"TERM", "USR1"} <= masked(init.pid, "SigBlk"), "blocked signals")


@pytest.mark.parametrize("env", [{}, {"PYTHONPATH": "/app"}], ids=["", "started over"])
@pytest.mark.parametrize("delay", [0.0, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05])
def test_a_stop_request_before_the_agents_exec_is_not_lost(started: Start, delay: float, env: dict[str, str]) -> None:
    init = started(command=IDLE, before=BLOCKING, env={**os.environ, **env})
    blocked(init)
    time.sleep(delay)
    init.signal("TERM")
    assert init.wait() == 143
    assert "stop requested by TERM" in init.said("stop requested")
    assert "was killed by SIGTERM" in init.said("ended")


def test_signals_before_the_agents_exec_come_in_order(started: Start) -> None:
    """Those sent while they were blocked before agent-init's first instruction; TERM stops the agent all the same."""
    init = started("-v", "--unhandled", "forward", command=["sh", "-c", "trap '' USR1; sleep 1000"], before=BLOCKING)
    blocked(init)
    init.signal("WINCH")
    init.signal("TERM")
    assert init.wait() == 143
    assert init.lines("stop requested by TERM")
    assert init.lines("WINCH")


# As `__main__.py`; what is imported after the spawn is looked for in a directory that is remembered as one to skip.
SKIPPED = """
import _signal, os, sys
_signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
sys.path.insert(0, {package!r})
from entrypoint import start
from entrypoint.init import spawn as process

def spawn(*arguments, **more):
    sys.path_importer_cache[os.path.dirname(start.__file__)] = None
    return real(*arguments, **more)

real, process.spawn = process.spawn, spawn
os._exit(start.main(sys.argv[1:], {package!r}))
"""


def test_a_directory_that_could_not_be_read_once_is_read_later(started: Start, tmp_path: Path) -> None:
    script = tmp_path / "agent-init"
    script.write_text(SKIPPED.format(package=str(PACKAGE)))
    init = started(command=IDLE, program=[sys.executable, "-I", "-S", str(script)])
    agent_of(init)
    stop(init)


# --- Nothing to start. ----------------------------------------------------------------------------------------------


def executable(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    path.chmod(0o755)
    return path


def fails(init: Init, code: int, *words: str) -> None:
    """It ended with the code and one line that holds the words."""
    assert init.wait() == code, init.stderr
    line, *more = init.stderr.splitlines()
    assert not more, init.stderr
    assert line.startswith("agent-init: ")
    for word in words:
        assert word in line
    assert not init.left()


@pytest.mark.parametrize(
    ("name", "words"),
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
def test_not_found_is_127(started: Start, name: str, words: list[str]) -> None:
    fails(started(command=["--", name, "secret"]), 127, *words)


@pytest.mark.parametrize("path", ["", "/nowhere", "/etc/passwd:/nowhere"])
def test_not_found_tells_where_it_looked(started: Start, path: str) -> None:
    fails(started(command=["sleep", "1"], before=["env", f"PATH={path}"]), 127, "'sleep'", f"({path})")


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
def test_found_but_not_to_be_run_is_126(started: Start, tmp_path: Path, kind: str, by_path: bool) -> None:
    content, why = BROKEN[kind]
    program = executable(tmp_path / "broken", content or b"exit 0\n")
    if content is None:
        program.chmod(0o644)
    name = str(program) if by_path else program.name
    env = {**os.environ, "PATH": f"{os.environ['PATH']}:{tmp_path}"}
    fails(started(command=[name, "secret"], env=env), 126, f"'{name}'", str(program), why)


@pytest.mark.parametrize("name", ["/etc", "./"])
def test_a_directory_is_126(started: Start, name: str) -> None:
    fails(started(command=[name]), 126, f"'{name}'", "is a directory")


def test_a_script_without_an_interpreter_line_runs_in_the_shell(started: Start, tmp_path: Path) -> None:
    """As execvp(3) has it."""
    script = executable(tmp_path / "script", b'echo "$0 $# $1"\nexit 7\n')
    init = started(command=[str(script), "an argument", ""])
    assert init.wait() == 7
    assert init.outer.stdout.read().decode() == f"{script} 2 an argument\n"  # type: ignore[union-attr]


def test_a_later_directory_of_path_is_looked_at_too(started: Start, tmp_path: Path) -> None:
    """A file that may not be executed does not hide a program of the same name (execvp(3), EACCES)."""
    for name, mode, code in (("first", 0o644, 1), ("second", 0o755, 5), ("third", 0o755, 6)):
        (tmp_path / name).mkdir()
        executable(tmp_path / name / "program", b"#!/bin/sh\nexit %d\n" % code).chmod(mode)
    path = ":".join(["/nowhere", "/etc/passwd", *(str(tmp_path / name) for name in ("first", "second", "third"))])
    init = started(command=["program"], env={**os.environ, "PATH": f"{path}:{os.environ['PATH']}"})
    assert init.wait() == 5


def test_an_empty_entry_of_path_is_the_current_directory(started: Start, tmp_path: Path) -> None:
    executable(tmp_path / "program", b"#!/bin/sh\nexit 5\n")
    init = started(command=["program"], cwd=tmp_path, env={**os.environ, "PATH": f":{os.environ['PATH']}"})
    assert init.wait() == 5


def test_a_failed_start_is_a_json_line_where_json_was_asked_for(started: Start) -> None:
    init = started("--log-format", "json", command=["/no/such"])
    assert init.wait() == 127
    [line] = init.stderr.splitlines()
    record = json.loads(line)
    assert (record["level"], record["event"], record["code"]) == ("error", "not-started", 127)
    assert "'/no/such'" in record["message"]


def test_a_failed_start_says_the_same_in_every_way_of_starting(started: Start) -> None:
    """With LISTEN_PID the agent is forked and not spawned."""
    fails(started(command=["/no/such"], before=through_shell("LISTEN_PID=$$")), 127, "'/no/such'")
    fails(started(command=["/etc"], before=through_shell("LISTEN_PID=$$")), 126, "'/etc'", "is a directory")


PIDS = Path("/sys/fs/cgroup/pids")


@pytest.fixture
def full() -> Iterator[Path]:
    """A control group that takes one process and no more."""
    if not (PIDS / "cgroup.procs").exists() or not os.access(PIDS, os.W_OK):
        pytest.skip("no pids controller of the first kind to make a group in")
    made = Path(tempfile.mkdtemp(dir=PIDS, prefix="agent-init-test-"))
    (made / "pids.max").write_text("1")
    yield made
    until(lambda: not (made / "cgroup.procs").read_text(), "an empty group")
    made.rmdir()


@pytest.mark.parametrize("setting", ["", "LISTEN_PID=$$"], ids=["spawned", "forked"])
def test_a_refused_fork_is_125(started: Start, full: Path, setting: str) -> None:
    before = through_shell(f"echo 0 > {full}/cgroup.procs && {setting}")
    fails(started(command=["sleep", "1"], before=before), 125, "'sleep'", "pids limit")


def test_too_many_processes_of_one_user_is_125(started: Start) -> None:
    if os.getuid() != 0:
        pytest.skip("to become another user takes root")
    before = ["prlimit", "--nproc=0"]
    fails(started(command=["sleep", "1"], before=[*AS_NOBODY, *before]), 125, "'sleep'", "RLIMIT_NPROC")


def test_the_script_is_executable_and_short() -> None:
    """It is compiled at every start."""
    assert AGENT_INIT.stat().st_mode & stat.S_IXUSR
    assert len(AGENT_INIT.read_bytes()) < 2000


def test_the_module_runs_as_the_command_does() -> None:
    python = AGENT_INIT.with_name("python")
    words = ["-m", "entrypoint", "-q", "--", "sh", "-c", "exit 9"]
    assert subprocess.run([python, *words], timeout=30, cwd="/").returncode == 9

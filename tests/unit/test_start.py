"""When process 1 starts over, the environment that the agent gets, and retries of what has failed."""

from __future__ import annotations

import errno
import io
import math
import os
import posix
import sys
import time
from importlib.machinery import ModuleSpec
from importlib.util import LazyLoader, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from entrypoint import settings as reader
from entrypoint import start
from entrypoint.init import (
    agent_environment,
    console,
    fallback,
    http_program,
    libc,
    older_processes,
    own_process,
    signalfd,
    spawn,
    supervisor,
    terminal,
    unused,
)
from entrypoint.init.fallback import Fallback
from tests.support.world import failing

if TYPE_CHECKING:
    from collections.abc import Sequence

LIBRARY = os.path.dirname(os.__file__)
GIVEN = {b"A": b"1"}
AT_START = {
    "sys": "built-in",
    "os": "frozen",
    "os.path": "frozen",
    "encodings": LIBRARY + "/encodings/__init__.py",
    "encodings.utf_8": LIBRARY + "/encodings/utf_8.py",
}


class StartedOver(Exception):
    """Raised in the place of the exec."""


class Interpreter:
    """The interpreter as `isolate` finds it; `sys` is in the place of that module."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *,
        modules: dict[str, Any] | None = None,
        variables: Sequence[str] = (),
        threads: int = 0,
        flags: tuple[int, int] = (0, 0),
        encoding: str = "utf-8",
    ) -> None:
        found: dict[str, Any] = {**AT_START, **(modules or {})}
        loaded = {name: ModuleType(name) for name in [*start.OWN_MODULES, *found]}
        for name, origin in found.items():
            if origin is not None:
                loaded[name].__spec__ = ModuleSpec(name, None, origin=origin)
        self.sys = SimpleNamespace(
            flags=SimpleNamespace(isolated=flags[0], no_site=flags[1]),
            modules=loaded,
            executable="/bin/python",
            meta_path=[*sys.meta_path],
            path=[],
            getfilesystemencoding=lambda: encoding,
            _xoptions={},
        )
        monkeypatch.setattr(start, "sys", self.sys)
        monkeypatch.setattr(start, "_thread", SimpleNamespace(_count=lambda: threads))
        monkeypatch.setattr(posix, "environ", dict.fromkeys(map(str.encode, variables), b"1"))
        monkeypatch.setattr(posix, "execve", self.execve)
        block = b"python\0agent-init\0-t\x005s\0\xe4\xb8\xad\0"
        monkeypatch.setattr(start, "open", lambda *_, **__: Unbuffered(block), raising=False)

    def execve(self, path: str, argv: list[str | bytes], environment: dict[bytes, bytes]) -> None:
        assert argv[:6] == [path, "-I", "-S", "-X", "utf8", "/package/entrypoint/__main__.py"]
        assert argv[6:] == [b"-t", b"5s", b"\xe4\xb8\xad"]
        assert environment == GIVEN
        raise StartedOver(path)

    def isolate(self) -> None:
        start.isolate(["-t", "5s", "\u6d93"], "/package", GIVEN)


@pytest.mark.parametrize(
    "found",
    [
        {},
        {"variables": ["PATH", "PYTHONUNBUFFERED", "PYTHON_VERSION", "PYTHON_COLORS", "MYPYTHONPATH"]},
        {"modules": {"errno": "built-in", "of_a_later_release": "built-in"}},
        {"modules": {"of_a_later_release": "frozen"}},
        {"modules": {"encodings.koi8_r": LIBRARY + "/encodings/koi8_r.py"}},
        {"modules": {"sitecustomize": LIBRARY + "/sitecustomize.py"}},  # Debian's
        {"flags": (1, 1), "variables": ["PYTHONPATH"], "modules": {"json": None}, "threads": 2},
    ],
    ids=[
        "nothing",
        "harmless variables",
        "built-in modules",
        "a frozen module",
        "the encoding of the locale",
        "the sitecustomize of Debian",
        "already started over",
    ],
)
def test_a_clean_interpreter_goes_on(monkeypatch: pytest.MonkeyPatch, found: dict[str, Any]) -> None:
    Interpreter(monkeypatch, **found).isolate()


@pytest.mark.parametrize(
    "found",
    [
        {"variables": ["PYTHONPATH"]},
        {"variables": ["PYTHONWARNINGS", "PYTHONUNBUFFERED"]},
        {"threads": 1},
        {"modules": {"json": LIBRARY + "/json/__init__.py"}},
        {"modules": {"json": LIBRARY + "/json.py"}},
        {"modules": {"made_up": None}},
        {"modules": {"namespace": ""}},
        {"modules": {"elsewhere": Path("/app/elsewhere.py")}},
        {"modules": {"encodings": "/app/encodings/__init__.py"}},
        {"modules": {"encodings.of_the_agent": "/app/encodings/of_the_agent.py"}},
        {"modules": {"os": "/app/os.py"}},
        {"modules": {"usercustomize": LIBRARY + "/usercustomize.py"}},
        {"modules": {"sitecustomize": "/app/sitecustomize.py"}},
        {"modules": {"sitecustomize": None}},
        {"modules": {"sitecustomize": LIBRARY + "/sitecustomize.py", "json": "/app/json.py"}},
        {"flags": (1, 0), "threads": 1},
        {"flags": (0, 1), "threads": 1},
        {"flags": (1, 1), "encoding": "gb18030"},
    ],
    ids=[
        "a variable",
        "a variable beside a harmless one",
        "a thread",
        "a package",
        "a module of the standard library",
        "a module without an origin",
        "a namespace package",
        "an origin that is no text",
        "encodings of the container",
        "an encoding of the container",
        "a replaced module",
        "a usercustomize",
        "a sitecustomize",
        "a sitecustomize without a file",
        "a module beside the sitecustomize of Debian",
        "only isolated",
        "only without site",
        "an encoding other than UTF-8",
    ],
)
@pytest.mark.parametrize("executable", ["/bin/python", ""])
def test_anything_of_the_container_makes_it_start_over(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, Any], executable: str
) -> None:
    interpreter = Interpreter(monkeypatch, **found)
    interpreter.sys.executable = executable
    with pytest.raises(StartedOver, match=executable or "/proc/self/exe"):
        interpreter.isolate()


def test_imports_are_not_put_off(monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[str] = []
    interpreter = Interpreter(monkeypatch)
    interpreter.sys.set_lazy_imports = modes.append
    interpreter.isolate()
    assert modes == ["normal"]


def test_a_module_that_is_loaded_when_it_is_used_stays_unloaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "lazy_one.py").write_text("raise ValueError('it was loaded')")
    spec = spec_from_file_location("lazy_one", tmp_path / "lazy_one.py")
    assert spec
    assert spec.loader
    LazyLoader(spec.loader).exec_module(lazy := module_from_spec(spec))
    interpreter = Interpreter(monkeypatch)
    interpreter.sys.modules["lazy_one"] = lazy
    with pytest.raises(StartedOver):
        interpreter.isolate()


def test_the_standard_library_comes_first_in_the_search_path(monkeypatch: pytest.MonkeyPatch) -> None:
    interpreter = Interpreter(monkeypatch)
    finders = [finder for finder in sys.meta_path if isinstance(finder, type)]
    interpreter.sys.meta_path[:] = [object(), *finders, object()]
    own = ["/usr/lib/python311.zip", LIBRARY, LIBRARY + "/lib-dynload"]
    interpreter.sys.path[:] = ["/package", own[0], "/app", *own[1:], "/site-packages"]
    interpreter.isolate()
    assert interpreter.sys.meta_path == finders
    assert interpreter.sys.path == [*own, "/package", "/app", "/site-packages"]


def test_without_proc_arguments_are_those_that_were_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "open", failing(open, FileNotFoundError()), raising=False)
    assert start._as_given(["-t", "5s"]) == ["-t", "5s"]


def test_of_two_variables_with_one_name_the_first_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """As getenv(3) finds it. Entries without a name or a `=` cannot be passed on."""
    block = b"A=1\0B==\n\0nothing\0=odd\0A=2\0EMPTY=\0"
    monkeypatch.setattr(start, "open", lambda *_, **__: Unbuffered(block), raising=False)
    assert start.given_environment() == {b"A": b"1", b"B": b"=\n", b"EMPTY": b""}


@pytest.mark.parametrize(
    ("found", "given"),
    [
        ({}, {}),
        ({b"A": b"1", b"LC_CTYPE": b"C.UTF-8"}, {b"A": b"1"}),
        ({b"LC_ALL": b"", b"LC_CTYPE": b"UTF-8"}, {b"LC_ALL": b""}),
        ({b"LANG": b"C", b"LC_CTYPE": b"UTF-8"}, {b"LANG": b"C"}),
        *(
            (kept, kept)
            for kept in (
                {b"LC_CTYPE": b"C.UTF-8", b"A": b"1"},
                {b"LANG": b"de_DE.UTF-8", b"LC_CTYPE": b"C.UTF-8"},
                {b"LC_CTYPE": b"de_DE.UTF-8"},
                {b"LC_ALL": b"C", b"LC_CTYPE": b"C.UTF-8"},
            )
        ),
    ],
)
def test_without_proc_a_variable_that_the_interpreter_set_is_not_passed_on(
    monkeypatch: pytest.MonkeyPatch, found: dict[bytes, bytes], given: dict[bytes, bytes]
) -> None:
    def no_file(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(start, "open", no_file, raising=False)
    monkeypatch.setattr(posix, "environ", found)
    assert start.given_environment() == given


class Unbuffered(io.BytesIO):
    """An unbuffered file."""

    readall = io.BytesIO.read


@pytest.mark.parametrize("flags", [[], ["--no-notify"]])
def test_a_failed_start_leaves_no_notify_socket_behind(capfd: pytest.CaptureFixture[str], flags: list[str]) -> None:
    settings = reader.read([*flags, "--termination-log", "none", "agent"], {})
    started = start.Started()
    started.environment = made = agent_environment.make(settings, {}, "/package", [])
    assert bool(made and os.path.exists(made.file)) is not bool(flags)
    assert start._fail(127, "cannot run it", settings, started) == 127
    assert capfd.readouterr().err == "agent-init: error: cannot run it\n"
    assert not (made and os.path.exists(made.file))
    if made and made.socket:
        made.socket.close()


class Run:
    """A run of `main` without what it does to this process."""

    AGENT = 4242

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        errors: Sequence[Exception] = (),
        were_open: tuple[bool, ...] = (True, True, True),
        foreground: int | None = None,
        older: frozenset[tuple[int, int]] | None = None,
    ) -> None:
        self.errors = [*errors]
        self.slept: list[float] = []
        self.terminal: bool | None = None
        self.arguments: tuple[Any, ...] = ()
        self.supervisor: dict[str, Any] = {}
        for module, name, result in (
            (start, "isolate", None),
            (own_process, "fill_standard_descriptors", were_open),
            (own_process, "adopt", []),
            (own_process, "has_children", older is not None),
            (older_processes, "find", older),
            (own_process, "close_inherited", None),
            (own_process, "leave_directory", None),
            (posix, "isatty", foreground is not None),
            (terminal, "foreground", foreground),
            (signalfd, "open_source", None),
            (unused, "free_all", None),
            (unused, "forget", None),
        ):
            monkeypatch.setattr(module, name, lambda *_, result=result: result)
        monkeypatch.setattr(spawn, "spawn", self.spawn)
        monkeypatch.setattr(supervisor, "Supervisor", self.make)
        monkeypatch.setattr(time, "sleep", self.slept.append)

    def spawn(self, command: list[str], environment: dict[bytes, bytes], *, terminal: bool) -> int:
        self.terminal = terminal
        return self.AGENT

    def make(self, *arguments: Any, **more: Any) -> SimpleNamespace:
        if self.errors:
            raise self.errors.pop()
        self.arguments, self.supervisor = arguments, more
        return SimpleNamespace(run=lambda: 7)

    def run(self, *arguments: str) -> int:
        return start.main(arguments or ["--no-notify", "agent"], "/package")


def test_the_agent_may_run_before_the_supervisor_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch)
    steps: list[str] = []
    monkeypatch.setattr(own_process, "let_agent_run", lambda: steps.append(f"after the spawn: {run.terminal}"))
    monkeypatch.setattr(unused, "free_all", lambda: steps.append("free"))
    assert run.run() == 7
    assert steps == ["after the spawn: False", "free"]


def test_a_ready_file_of_an_earlier_life_is_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = Run(monkeypatch)
    path = tmp_path / "ready"
    path.touch()
    assert run.run("--ready-file", str(path), "agent") == 7
    assert not path.exists()
    assert run.supervisor["problems"] == []
    path.mkdir()
    assert run.run("--ready-file", str(path), "agent") == 7
    assert run.supervisor["problems"][0].startswith(f"cannot remove the ready file {path}: ")


def test_an_http_server_that_cannot_run_is_reported_before_the_agent_starts(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run = Run(monkeypatch)
    monkeypatch.setattr(http_program, "is_installed", lambda package: package != "/package")
    assert run.run("--http", ":8081", "agent") == 125
    assert capfd.readouterr().err.startswith("agent-init: --http needs more packages: ")
    assert run.terminal is None


def test_what_fails_while_the_agent_runs_is_retried_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, [MemoryError(), OSError(), ImportError()])
    assert run.run() == 7
    assert len(run.slept) == 3
    assert 0 < min(run.slept) <= max(run.slept) < 0.2  # a stop request waits for it


def with_clock(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", run.slept.append)
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0 + sum(run.slept))


@pytest.mark.parametrize(("json", "has_stderr"), [(False, True), (True, True), (False, False)])
def test_after_some_time_the_fallback_takes_over(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], json: bool, has_stderr: bool
) -> None:
    """The first failure is logged, and the last."""
    run = Run(monkeypatch, [OSError("odd")] * 1000, were_open=(True, True, has_stderr))
    with_clock(run, monkeypatch)
    monkeypatch.setattr(Fallback, "run", lambda fallback: 3 if fallback.pid == Run.AGENT else 4)
    options = ["--log-format", "json"] if json else []
    assert run.run("--no-notify", *options, "agent") == 3
    assert sum(run.slept) == pytest.approx(start.RETRY_FOR, abs=0.1)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == (3 if has_stderr else 0)
    if has_stderr:
        assert "cannot supervise the agent: OSError: odd" in lines[0]
        assert "trying again" in lines[0]
        assert start.WHAT_IS_LEFT in lines[1]
        assert "exit code 3" in lines[2]
        assert all(line.startswith("{" if json else "agent-init: error: ") for line in lines)


def test_a_stop_request_shortens_the_wait_for_the_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, [MemoryError()] * 1000)
    with_clock(run, monkeypatch)
    monkeypatch.setattr(fallback, "_signal", SimpleNamespace(sigpending=lambda: {15} if sum(run.slept) > 0.3 else {28}))
    requested: list[float] = []

    def end(loop: Fallback) -> int:
        requested.append(loop.requested_at)
        return 3

    monkeypatch.setattr(Fallback, "run", end)
    assert run.run() == 3
    assert requested == [pytest.approx(1000.3, abs=0.05)]
    assert sum(run.slept) == pytest.approx(0.3 + start.STOP_WAITS, abs=0.1)


@pytest.mark.parametrize("failure", ["gives up", "raises"])
def test_a_supervisor_that_cannot_go_on_leaves_the_agent_to_the_fallback(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], failure: str
) -> None:
    run = Run(monkeypatch)
    calls: list[str] = []

    def supervise() -> None:
        calls.append("run")
        if failure == "raises":
            raise ValueError("odd")

    def clean_up() -> None:
        calls.append("clean up")
        raise MemoryError

    made = SimpleNamespace(run=supervise, leave_to=lambda _: calls.append("leave"), clean_up=clean_up)
    monkeypatch.setattr(supervisor, "Supervisor", lambda *_, **__: made)
    monkeypatch.setattr(Fallback, "run", failing(lambda _: 5, KeyboardInterrupt()))
    assert run.run() == 5
    assert calls == (["run", "leave"] if failure == "gives up" else ["run"] * 3) + ["clean up"]
    assert start.WHAT_IS_LEFT in capfd.readouterr().err


def test_a_request_that_was_pending_is_the_supervisors(monkeypatch: pytest.MonkeyPatch) -> None:
    """The grace that the fallback would keep begins with a request that it handles itself."""
    run = Run(monkeypatch)
    with_clock(run, monkeypatch)
    monkeypatch.setattr(fallback, "_signal", SimpleNamespace(sigpending=lambda: {15}))
    noticed: list[float] = []
    notice = Fallback.notice_stop_request

    def note(loop: Fallback) -> None:
        notice(loop)
        noticed.append(loop.requested_at)

    monkeypatch.setattr(Fallback, "notice_stop_request", note)
    made = SimpleNamespace(run=failing(lambda: 7, *[ValueError("odd")] * 3), clean_up=lambda: None)
    monkeypatch.setattr(supervisor, "Supervisor", failing(lambda *_, **__: made, MemoryError()))
    monkeypatch.setattr(Fallback, "run", lambda loop: 5 if loop.requested_at == math.inf else 6)
    assert run.run() == 5
    assert noticed == [1000.0]


def test_a_supervisor_that_fails_once_goes_on(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run = Run(monkeypatch)
    made = SimpleNamespace(run=failing(lambda: 7, MemoryError(), MemoryError()))
    monkeypatch.setattr(supervisor, "Supervisor", lambda *_, **__: made)
    assert run.run() == 7
    assert capfd.readouterr().err == ""


def test_a_failure_to_log_a_failure_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without the text of the error, without the module that logs, and without a way to write at all."""
    run = Run(monkeypatch, [OSError("odd")] * 1000)
    with_clock(run, monkeypatch)
    monkeypatch.setattr(Fallback, "run", lambda _: 3)
    monkeypatch.setattr(Fallback, "notice_stop_request", failing(lambda _: None, MemoryError()))
    monkeypatch.setattr(fallback, "describe_error", failing(lambda _: "odd", MemoryError()))
    monkeypatch.setattr(console, "Console", failing(lambda: None, *[MemoryError()] * 3))
    monkeypatch.setattr(fallback, "write_line", failing(fallback.write_line, OSError()))
    assert run.run() == 3
    assert len(capfd.readouterr().err.splitlines()) == 2


def test_our_notify_socket_is_not_closed_as_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch)
    kept: list[set[int]] = []
    monkeypatch.setattr(own_process, "close_inherited", kept.append)
    assert run.run("agent") == 7
    environment = run.arguments[4]
    assert environment.socket is not None
    assert kept == [{environment.socket.fileno()}]
    environment.socket.close()
    environment.cleanup()
    assert run.run() == 7
    assert kept[1:] == [set()]


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (spawn.NotStarted(127, "cannot run it"), 127, "error: cannot run it"),
        (MemoryError("no memory"), 125, "error: cannot start: no memory"),
        (OSError(errno.EMFILE, "Too many open files"), 125, "error: cannot start: [Errno 24] Too many open files"),
    ],
    ids=["not started", "no memory", "no descriptor"],
)
def test_a_failure_before_the_agent_runs_is_the_end(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], error: Exception, code: int, line: str
) -> None:
    def fail(*_: object, **__: object) -> int:
        raise error

    run = Run(monkeypatch)
    monkeypatch.setattr(spawn, "spawn", fail)
    assert run.run() == code
    assert capfd.readouterr().err == f"agent-init: {line}\n"
    assert run.supervisor == {}


@pytest.mark.parametrize("older", [None, frozenset({(7, 8)})], ids=["none", "some"])
def test_the_supervisor_gets_the_processes_from_before_the_agent(
    monkeypatch: pytest.MonkeyPatch, older: frozenset[tuple[int, int]] | None
) -> None:
    run = Run(monkeypatch, older=older)
    assert run.run() == 7
    assert run.supervisor["older"] == (older or frozenset())


def test_the_supervisor_gets_the_agent_and_the_time_of_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch)
    before = time.monotonic()
    assert run.run() == 7
    assert run.arguments[3] == Run.AGENT
    assert before <= run.supervisor["started"] <= time.monotonic()
    assert run.supervisor["package"] == "/package"


@pytest.mark.parametrize("were_open", [(True, True, True), (True, False, True), (True, True, False)], ids=str)
@pytest.mark.parametrize("whose", ["ours", "another group's", "none"])
def test_the_agent_gets_the_terminal_if_we_have_it(
    monkeypatch: pytest.MonkeyPatch, were_open: tuple[bool, ...], whose: str
) -> None:
    group = {"ours": os.getpgrp(), "another group's": os.getpgrp() + 1, "none": None}[whose]
    run = Run(monkeypatch, were_open=were_open, foreground=group)
    assert run.run() == 7
    assert run.terminal is (whose == "ours")
    assert run.supervisor["previous_foreground"] == (os.getpgrp() if whose == "ours" else None)
    assert run.supervisor["log_fd"] == (2 if were_open[2] else None)


def test_where_proc_cannot_be_written_the_name_is_set_by_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(
        start,
        "open",
        failing(open, OSError(errno.EROFS, "read-only"), OSError(errno.EROFS, "read-only")),
        raising=False,
    )
    monkeypatch.setattr(libc, "call", lambda *arguments: calls.append(arguments))
    start.take_name()
    assert calls == [("prctl", 15, b"agent-init", 0, 0, 0)]
    monkeypatch.setattr(libc, "call", failing(libc.call, OSError(errno.ENOSYS, "no prctl")))
    start.take_name()

"""When process 1 starts over, what it makes of the environment, and how often it tries what has failed."""

from __future__ import annotations

import io
import os
import sys
import time
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from entrypoint import settings as reader
from entrypoint import start
from entrypoint.init import agent_environment as offer
from entrypoint.init import signalfd, supervisor
from entrypoint.init import spawn as process

if TYPE_CHECKING:
    from collections.abc import Sequence

LIBRARY = os.path.dirname(os.__file__)
GIVEN = {b"A": b"1"}


class StartedOver(Exception):
    """In the place of the exec."""


class Interpreter:
    """As `isolate` finds it; `sys` takes the place of that module."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *,
        modules: dict[str, str | None] | None = None,
        variables: Sequence[str] = (),
        threads: int = 0,
        flags: tuple[int, int] = (0, 0),
    ) -> None:
        loaded = {name: ModuleType(name) for name in [*start.OWN_MODULES, *(modules or {})]}
        for name, file in (modules or {}).items():
            if file is not None:
                loaded[name].__file__ = file
        self.sys = SimpleNamespace(
            flags=SimpleNamespace(isolated=flags[0], no_site=flags[1]),
            modules=loaded,
            executable="/bin/python",
            meta_path=[*sys.meta_path],
            path=[],
        )
        monkeypatch.setattr(start, "sys", self.sys)
        monkeypatch.setattr(start, "_thread", SimpleNamespace(_count=lambda: threads))
        monkeypatch.setattr(os, "environ", dict.fromkeys(variables, "1"))
        monkeypatch.setattr(os, "execve", self.execve)

    def execve(self, path: str, words: list[str], environment: dict[bytes, bytes]) -> None:
        assert words == [path, "-I", "-S", "/package/entrypoint/__main__.py", "-t", "5s", "agent"]
        assert environment == GIVEN
        raise StartedOver(path)

    def isolate(self) -> None:
        start.isolate(["-t", "5s", "agent"], "/package", GIVEN)


@pytest.mark.parametrize(
    "found",
    [
        {},
        {"variables": ["PATH", "PYTHONUNBUFFERED", "PYTHON_VERSION", "PYTHON_COLORS", "MYPYTHONPATH"]},
        {"modules": {"sitecustomize": LIBRARY + "/sitecustomize.py"}},  # Debian's
        {"flags": (1, 1), "variables": ["PYTHONPATH"], "modules": {"json": None}, "threads": 2},
    ],
    ids=["nothing", "variables that change nothing", "the distributor's", "started over already"],
)
def test_what_is_as_it_should_be_stays(monkeypatch: pytest.MonkeyPatch, found: dict[str, Any]) -> None:
    Interpreter(monkeypatch, **found).isolate()


@pytest.mark.parametrize(
    "found",
    [
        {"variables": ["PYTHONPATH"]},
        {"variables": ["PYTHONWARNINGS", "PYTHONUNBUFFERED"]},
        {"threads": 1},
        {"modules": {"json": LIBRARY + "/json/__init__.py"}},
        {"modules": {"json": LIBRARY + "/json.py"}},
        {"modules": {"built_in": None}},
        {"modules": {"sitecustomize": "/app/sitecustomize.py"}},
        {"modules": {"sitecustomize": None}},
        {"modules": {"sitecustomize": LIBRARY + "/sitecustomize.py", "json": "/app/json.py"}},
        {"flags": (1, 0), "threads": 1},
        {"flags": (0, 1), "threads": 1},
    ],
    ids=[
        "a variable",
        "a variable beside a harmless one",
        "a thread",
        "a package",
        "a module of the standard library",
        "a module without a file",
        "a sitecustomize",
        "a sitecustomize without a file",
        "a module beside the distributor's",
        "only isolated",
        "only without site",
    ],
)
@pytest.mark.parametrize("executable", ["/bin/python", ""])
def test_anything_of_the_containers_has_it_start_over(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, Any], executable: str
) -> None:
    interpreter = Interpreter(monkeypatch, **found)
    interpreter.sys.executable = executable
    with pytest.raises(StartedOver, match=executable or "/proc/self/exe"):
        interpreter.isolate()


def test_what_is_found_later_comes_from_the_standard_library_first(monkeypatch: pytest.MonkeyPatch) -> None:
    interpreter = Interpreter(monkeypatch)
    finders = [finder for finder in sys.meta_path if isinstance(finder, type)]
    interpreter.sys.meta_path[:] = [object(), *finders, object()]
    own = ["/usr/lib/python311.zip", LIBRARY, LIBRARY + "/lib-dynload"]
    interpreter.sys.path[:] = ["/package", own[0], "/app", *own[1:], "/site-packages"]
    interpreter.isolate()
    assert interpreter.sys.meta_path == finders
    assert interpreter.sys.path == [*own, "/package", "/app", "/site-packages"]


def test_what_cannot_be_passed_on_is_left_out_and_of_two_the_first_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    block = b"A=1\0B==\n\0nothing\0=odd\0A=2\0EMPTY=\0"
    monkeypatch.setattr(start, "open", lambda *_, **__: Whole(block), raising=False)
    assert start.given_environment() == {b"A": b"1", b"B": b"=\n", b"EMPTY": b""}


class Whole(io.BytesIO):
    """A file without a buffer."""

    readall = io.BytesIO.read


@pytest.mark.parametrize("flags", [[], ["--no-notify"]])
def test_an_agent_that_cannot_be_started_is_offered_nothing_any_longer(
    capfd: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    settings = reader.read([*flags, "--termination-log", "none", "agent"], {})
    offered = offer.make(settings, {}, "/package", [])
    assert bool(offered and os.path.exists(offered.directory)) is not bool(flags)
    assert start._fail(127, "cannot run it", settings, offered) == 127
    assert capfd.readouterr().err == "agent-init: error: cannot run it\n"
    assert not (offered and os.path.exists(offered.directory))
    if offered and offered.socket:
        offered.socket.close()


class Life:
    """Of `main`, with all that it does to this process left out."""

    AGENT = 4242

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        errors: Sequence[Exception] = (),
        were_open: tuple[bool, ...] = (True, True, True),
        foreground: int | None = None,
    ) -> None:
        self.errors = [*errors]
        self.slept: list[float] = []
        self.terminal: bool | None = None
        self.supervisor: dict[str, Any] = {}
        for module, name, result in (
            (start, "isolate", None),
            (process, "fill_standard_descriptors", were_open),
            (process, "adopt", []),
            (process, "foreground", foreground),
            (process, "close_inherited", None),
            (process, "leave_directory", None),
            (signalfd, "open_source", None),
        ):
            monkeypatch.setattr(module, name, lambda *_, result=result: result)
        monkeypatch.setattr(process, "spawn", self.spawn)
        monkeypatch.setattr(supervisor, "Supervisor", self.make)
        monkeypatch.setattr(time, "sleep", self.slept.append)

    def spawn(self, command: list[str], environment: dict[bytes, bytes], *, terminal: bool) -> int:
        self.terminal = terminal
        return self.AGENT

    def make(self, *_: object, **more: Any) -> SimpleNamespace:
        if self.errors:
            raise self.errors.pop()
        self.supervisor = more
        return SimpleNamespace(run=lambda: 7)

    def run(self) -> int:
        return start.main(["--no-notify", "agent"], "/package")


def test_what_fails_once_the_agent_runs_is_tried_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    life = Life(monkeypatch, [MemoryError(), OSError(), ImportError()])
    assert life.run() == 7
    assert len(life.slept) == 3
    assert 0 < min(life.slept) <= max(life.slept) < 0.2  # a stop request waits for it


@pytest.mark.parametrize("were_open", [(True, True, True), (True, False, True), (True, True, False)], ids=str)
@pytest.mark.parametrize("whose", ["ours", "another's", "nobody's"])
def test_the_agent_gets_the_terminal_that_is_ours_to_give(
    monkeypatch: pytest.MonkeyPatch, were_open: tuple[bool, ...], whose: str
) -> None:
    group = {"ours": os.getpgrp(), "another's": os.getpgrp() + 1, "nobody's": None}[whose]
    life = Life(monkeypatch, were_open=were_open, foreground=group)
    assert life.run() == 7
    assert life.terminal is (whose == "ours")
    assert life.supervisor["terminal_of"] == (os.getpgrp() if whose == "ours" else None)
    assert life.supervisor["stderr"] == (2 if were_open[2] else None)

"""Programs that are known by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from entrypoint.init import names, procfs
from entrypoint.init.procfs import Process

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Process]:
    """A process with this command line, whose file is `file`."""

    def make(argv: list[str], file: str = "") -> Process:
        monkeypatch.setattr(procfs, "argv_of", lambda _: argv)
        monkeypatch.setattr(procfs, "program_names", lambda _: frozenset({file}))
        return Process(10_000_001, "comm", 1, 1, 0)

    return make


@pytest.mark.parametrize(
    ("argv", "program"),
    [
        (["/app/agent", "serve"], ("/app/agent",)),
        (["python", "-u", "agent.py", "1"], ("python", "agent.py")),
        (["python", "-m", "agent", "1"], ("python", "agent")),
        (["python", "-c", "1", "2"], ()),
        (["sh", "agent.sh"], ()),
        (["-bash"], ()),
        ([], ()),
    ],
)
def test_program(argv: list[str], program: tuple[str, ...]) -> None:
    assert names.program(argv) == program


def test_relay_that_passes_its_stdin_on(program: Callable[..., Process]) -> None:
    assert names.feeds_its_program(program(["node", "/app/node_modules/.bin/nodemon", "agent.js"], "node"))
    assert not names.feeds_its_program(program(["npm start"], "node"))


@pytest.mark.parametrize(
    ("argv", "relay"),
    [
        (["/opt/venv/bin/python", "/opt/venv/bin/poe", "serve"], True),
        (["node", "/app/node_modules/.bin/nodemon", "agent.js"], True),
        (["screen", "-D", "-m", "agent"], True),
        (["uv", "run", "agent.py"], True),
        (["/usr/bin/su", "-c", "x"], True),
        (["cpulimit", "-l", "50", "--", "agent"], True),
        (["expect", "/app/start.exp"], True),
        (["npm start"], True),
        (["npm run /app/start"], True),
        (["node", "/usr/lib/node_modules/npm/bin/npm-cli.js", "start"], True),
        (["node", "--no-warnings", "/opt/pnpm.cjs", "start"], True),
        (["node", "-r", "dotenv", "agent.js"], False),
        (["node", "-e", "npm"], False),
        (["node", "--inspect"], False),
        (["/usr/bin/python3", "/venv/bin/poetry", "run", "x"], True),
        (["/usr/bin/python3", "-m", "poetry", "run", "x"], True),
        (["/usr/bin/python3", "-X", "dev", "-u", "/venv/bin/pdm", "run"], True),
        (["python3", "task.py"], False),
        (["python3", "/app/task"], False),
        (["python3", "script.py"], False),
        (["python3", "watch.py"], False),
        (["bun", "run", "start"], True),
        (["bun", "--hot", "dev"], True),
        (["bun", "x", "agent"], True),
        (["bun", "run", "agent.ts"], False),
        (["bun", "./agent"], False),
        (["bun"], False),
        (["deno", "task", "start"], True),
        (["deno", "run", "agent.ts"], False),
        (["my-agent", "su"], False),
        (["gunicorn: master [npm]"], False),
        (["xargs", "agent"], False),
        ([], False),
    ],
)
def test_relays(program: Callable[..., Process], argv: list[str], relay: bool) -> None:
    process = program(argv)
    assert names.is_relay(process) is relay
    assert names.may_be_looked_through(process) is relay
    assert names.is_wrapper(process) is (relay or argv[:1] == ["xargs"])


def test_program_is_known_by_its_file_as_well(program: Callable[..., Process]) -> None:
    assert names.is_relay(program(["my agent"], "uv"))
    assert names.is_wrapper(program([], "bash"))
    assert names.may_be_looked_through(program([], "bash"))
    assert not names.is_relay(program([], "bash"))


def test_inits_send_signals_themselves(program: Callable[..., Process]) -> None:
    process = program(["/sbin/tini", "--", "x"])
    assert names.is_init(process)
    assert names.may_be_looked_through(process)
    assert not names.is_relay(process)
    assert not names.is_init(program(["python3", "/app/tini"]))


@pytest.mark.parametrize(
    ("argv", "one"),
    [
        (["tini", "-s", "--", "agent", "-r"], True),
        (["catatonit"], True),
        (["dumb-init", "agent", "--rewrite"], True),
        (["dumb-init", "-c", "--rewrite=15:2", "agent"], False),
        (["dumb-init", "-r", "15:2", "agent"], False),
        (["node", "/opt/.bin/concurrently", "x", "y"], False),
    ],
)
def test_inits_that_run_one_program_and_translate_nothing(
    program: Callable[..., Process], argv: list[str], one: bool
) -> None:
    process = program(argv)
    assert names.is_init(process)
    assert names.runs_one_program(process) is one


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["/usr/bin/perl", "/usr/bin/parallel", "x"], "parallel"),
        (["node", "/opt/.bin/pm2-runtime", "start"], "pm2-runtime"),
        (["gdb", "-batch"], "gdb"),
        (["python", "parallel.py"], ""),
        (["bun", "run", "start"], ""),
    ],
)
def test_programs_that_end_their_program(program: Callable[..., Process], argv: list[str], name: str) -> None:
    assert names.ender(program(argv)) == name


@pytest.mark.parametrize(
    ("file", "idle", "passive"), [("sleep", True, True), ("tee", False, True), ("x", False, False)]
)
def test_idle_and_passive_programs(program: Callable[..., Process], file: str, idle: bool, passive: bool) -> None:
    assert names.is_idle(program([], file)) is idle
    assert names.is_passive(program([], file)) is passive

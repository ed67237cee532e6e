"""The inits that are compared: their command lines, and the parts of the bench that each can take."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

OURS = ("agent-init", "agent-init, environment", "agent-init, flags")
EVERYTHING = "agent-init, everything on"
WITH_PYTHONPATH = "agent-init, PYTHONPATH set"
JUDGED = (*OURS, EVERYTHING, WITH_PYTHONPATH)
FLOOR, REFERENCE = "floor", "tini"
POLL_LOOP = "poll loop in Python"
UVLOOP = "agent-init's supervisor on uvloop"

VARIABLES = {
    "AGENT_INIT_GRACE": "25s",
    "AGENT_INIT_LINGER": "2s",
    "AGENT_INIT_STOP_SIGNAL": "INT",
    "AGENT_INIT_REWRITE": "HUP:QUIT",
    "AGENT_INIT_OK_EXIT": "143",
}
FLAGS = "--grace 25s --linger=2s --stop-signal INT -r HUP:QUIT -e143".split()
DEADLINE = 1.0  # seconds; set for every init that has a deadline

PARTS = tuple("start safe exit rest idle signals flood probe wrapped burst orphans stop kill deadline".split())
AGAINST = ("start", "rest", "signals")  # parts of a comparison of two source trees
ALL = frozenset(PARTS) - {"flood", "probe", "wrapped", "deadline"}
FORM = ALL - {"burst", "orphans", "stop", "kill"}  # parts in which the way of configuring agent-init can matter


@dataclass(frozen=True)
class Init:
    """A program to be process 1. `argv` returns its argument vector for an agent's; `parts`: what can be measured."""

    name: str
    program: str
    argv: Callable[[list[str]], list[str]]
    parts: frozenset[str]
    variables: Mapping[str, str] = field(default_factory=dict)
    is_slow: bool = False  # measured in full rounds only
    max_processes: int = sys.maxsize  # with more, a run takes minutes or never ends
    needs: tuple[str, ...] = ()  # a command that succeeds if what else it needs is there
    port: int = 0  # of loopback, where it listens when it has started completely
    probes: Mapping[str, list[str]] = field(default_factory=dict)  # commands to be measured beside each other

    @property
    def is_installed(self) -> bool:
        """Whether its program is on this machine, and what it needs."""
        if shutil.which(self.program) is None:
            return False
        return not self.needs or subprocess.run(self.needs, stderr=subprocess.DEVNULL).returncode == 0


def inits(python: Path, directory: Path) -> list[Init]:
    """Return all inits, installed or not. `python` has agent-init installed; some inits keep files in `directory`."""
    command = python.parent / "agent-init"
    ours = [str(command)] if command.exists() else [str(python), "-m", "entrypoint"]
    on_uvloop = [str(python), str(Path(__file__).with_name("uvloop_init.py"))]
    loop = [str(python), "-I", "-S", str(Path(__file__).with_name("poll_loop.py"))]
    control = [str(python.parent / "agent-initctl")]
    probes = {FLOOR: [str(python), "-I", "-S", "-c", "pass"], "live": [*control, "live"], "ready": [*control, "ready"]}
    port = _free_port()
    everything = ["--http", f"127.0.0.1:{port}", "--loop-watch", "500ms", "--stacks"]
    everything += ["--ready-file", str(directory / "ready")]
    circus = Path(sys.executable).parent / "circusd"

    def exec_at_once(agent: list[str]) -> list[str]:
        return [str(python), "-c", f"import os; os.execv({agent[0]!r}, {agent!r})"]

    bare, by_environment, by_flags = OURS
    start = frozenset(("start",))
    return [
        Init(FLOOR, str(python), exec_at_once, frozenset("start exit signals burst stop kill".split())),
        Init(bare, ours[0], prefix(*ours, "--"), frozenset(PARTS), probes=probes),
        Init(by_environment, ours[0], prefix(*ours, "--"), FORM, VARIABLES),
        Init(by_flags, ours[0], prefix(*ours, *FLAGS, "--"), FORM),
        Init(
            EVERYTHING,
            ours[0],
            prefix(*ours, *everything, "--"),
            FORM,
            needs=(str(python), "-c", "import h11, prometheus_client"),
            port=port,
        ),
        Init(WITH_PYTHONPATH, ours[0], prefix(*ours, "--"), start | {"safe"}, {"PYTHONPATH": "/app"}),
        Init(f"env --block-signal {bare}", "env", prefix("env", "--block-signal", *ours, "--"), start | {"safe"}),
        Init(POLL_LOOP, loop[0], prefix(*loop), frozenset("start exit rest signals".split())),
        Init(UVLOOP, on_uvloop[0], prefix(*on_uvloop, "--"), ALL | {"deadline"}),
        Init(REFERENCE, "tini", prefix("tini", "--"), ALL),
        Init("tini -g", "tini", prefix("tini", "-g", "--"), frozenset(("stop",))),
        Init("dumb-init -c", "dumb-init", prefix("dumb-init", "-c", "--"), ALL - {"stop"}),
        Init("dumb-init", "dumb-init", prefix("dumb-init", "--"), frozenset(("stop",))),
        Init("catatonit", "catatonit", prefix("catatonit", "--"), ALL),
        # It forwards TERM and INT only.
        Init("pid1", "pid1", prefix("pid1", "-t", f"{DEADLINE:.0f}", "--"), ALL - {"signals", "burst"} | {"deadline"}),
        Init("s6-svscan", "s6-svscan", lambda agent: _s6(directory, agent), ALL | {"deadline"}),
        # These two forward no signals, and keep running when the agent has ended.
        Init(
            "supervisord",
            "supervisord",
            lambda agent: _supervisord(directory, agent),
            ALL - {"exit", "signals", "burst"} | {"deadline"},
            is_slow=True,
            max_processes=200,
        ),
        Init(
            "circus",
            str(circus),
            lambda agent: _circus(circus, directory, agent),
            ALL - {"exit", "signals", "burst"} | {"deadline"},
            is_slow=True,
            max_processes=200,
        ),
    ]


def trees(python: Path, paths: Mapping[str, Path]) -> list[Init]:
    """Return agent-init in each of its forms from the source trees `paths`, by label, for `--against`."""
    found = []
    for label, path in paths.items():
        command = [str(python), str(path / "entrypoint" / "__main__.py")]
        for form, flags, variables in zip(OURS, ([], [], FLAGS), ({}, VARIABLES, {}), strict=True):
            argv = prefix(*command, *flags, "--")
            found.append(Init(f"{form} ({label})", command[0], argv, frozenset(AGAINST), variables))
    return found


def prefix(program: str, *arguments: str) -> Callable[[list[str]], list[str]]:
    """Return a function that puts the program and its arguments in front of an agent's argument vector."""
    path = shutil.which(program) or program
    return lambda agent: [path, *arguments, *agent]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _fresh(directory: Path) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    return directory


def _quoted(argv: list[str]) -> str:
    return " ".join(f'"{argument}"' for argument in argv)


def _s6(directory: Path, agent: list[str]) -> list[str]:
    """Write a scan directory with one service, whose end ends s6. A script forwards USR1. Return the argv."""
    scan = _fresh(directory / "s6")
    scripts = {
        scan / "agent" / "run": f"exec {_quoted(agent)}",
        scan / "agent" / "finish": f"exec s6-svscanctl -t {scan}",
        scan / ".s6-svscan" / "SIGUSR1": f"exec s6-svc -1 {scan}/agent",
        scan / ".s6-svscan" / "finish": "exit 0",
    }
    for path, line in scripts.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)
    (scan / "agent" / "timeout-kill").write_text(f"{DEADLINE * 1000:.0f}\n")
    return [shutil.which("s6-svscan") or "", str(scan)]


def _supervisord(directory: Path, agent: list[str]) -> list[str]:
    settings = directory / "supervisord.conf"
    settings.write_text(
        f"[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={directory}/pid\nuser=root\n"
        f"[program:agent]\ncommand={_quoted(agent)}\nautorestart=false\nstartsecs=0\n"
        f"stopwaitsecs={DEADLINE:.0f}\nkillasgroup=true\n"
    )
    return [shutil.which("supervisord") or "", "-c", str(settings)]


def _circus(program: Path, directory: Path, agent: list[str]) -> list[str]:
    sockets = _fresh(directory / "circus")
    settings = sockets / "circus.ini"
    settings.write_text(
        f"[circus]\nendpoint = ipc://{sockets}/endpoint\npubsub_endpoint = ipc://{sockets}/pubsub\n"
        f"[watcher:agent]\ncmd = {_quoted(agent)}\nrespawn = False\ncopy_env = True\n"
        f"graceful_timeout = {DEADLINE:.0f}\n"
    )
    return [str(program), str(settings)]

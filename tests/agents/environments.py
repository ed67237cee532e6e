"""One virtual environment for each set of frameworks, created on first use and cached.

The cache is the folder `AGENT_INIT_TEST_CACHE`, or a folder in the user's cache directory. Every package is pinned in
`locks/`, one file per set; `python -m tests.agents.environments` rewrites those files from the versions below.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
PROJECT = HERE.parents[1]
LOCKS = HERE / "locks"

UV = "uv==0.13.9"

SETS = {
    "plain": (),
    "web": ("uvicorn==0.54.0", "gunicorn==27.0.1", "uvicorn-worker==0.4.0"),
    "celery": ("celery==5.7.0",),
    "dramatiq": ("dramatiq[redis]==2.2.1",),
    "huey": ("huey==3.5.4",),
    "arq": ("arq==0.28.0",),
    "rq": ("rq==3.0.0",),
    "uwsgi": ("uWSGI==2.0.31",),
    "mcp": ("mcp==1.30.0",),
    "notify": ("sdnotify==0.3.2", "cysystemd==2.0.5"),
    "livekit": ("livekit-agents==1.8.9",),
    "livekit-1.0.13": ("livekit-agents==1.0.13",),
    "livekit-1.0.12": ("livekit-agents==1.0.12",),
    # After and before its job process began to await pending tasks; see test_no_running_loop.py.
    "livekit-1.8.6": ("livekit-agents==1.8.6",),
    "livekit-1.8.5": ("livekit-agents==1.8.5",),
    "livekit-0.12.16": ("livekit-agents==0.12.16",),
    # The server side of a LiveKit worker, in a separate environment.
    "livekit-server": ("aiohttp==3.14.5", "aiortc==1.16.0", "livekit-protocol==1.1.29"),
}


@dataclass(frozen=True)
class Environment:
    path: Path

    @property
    def bin(self) -> Path:
        return self.path / "bin"

    @property
    def python(self) -> str:
        return str(self.bin / "python")


def cache() -> Path:
    if named := os.environ.get("AGENT_INIT_TEST_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "agent-init-tests"


@functools.cache
def uv() -> str:
    """The path of uv, in a pinned version from PyPI."""
    tools = cache() / _name("uv", UV)
    with _made_once(tools) as missing:
        if missing:
            _run([sys.executable, "-m", "venv", str(tools)])
            _run([str(tools / "bin" / "pip"), "install", "--quiet", UV])
    return str(tools / "bin" / "uv")


@functools.cache
def environment(name: str) -> Environment:
    """The environment of a set, with the project installed from this checkout."""
    lock = LOCKS / f"{name}.txt"
    made = Environment(cache() / _name(name, lock.read_text()))
    with _made_once(made.path) as missing:
        if missing:
            _uv("venv", "--python", sys.executable, str(made.path))
            _uv("pip", "sync", "--python", made.python, "--allow-empty-requirements", str(lock))
    _install_project(made)
    return made


@functools.cache
def environment_of(requirements: tuple[str, ...], date: str) -> Environment:
    """The environment with these packages, what they need as it was on a date, and the project."""
    made = Environment(cache() / _name("requirements", "\n".join((*requirements, date))))
    with _made_once(made.path) as missing:
        if missing:
            _uv("venv", "--python", sys.executable, str(made.path))
            if requirements:
                _uv("pip", "install", "--python", made.python, "--exclude-newer", date, *requirements)
    _install_project(made)
    return made


def _install_project(made: Environment) -> None:
    wheel = _wheel()
    with _locked(made.path):
        note = made.path / "agent-init.wheel"
        if not note.exists() or note.read_text() != str(wheel):
            _uv("pip", "install", "--python", made.python, "--reinstall-package", "agent-init", str(wheel))
            note.write_text(str(wheel))


def packages(name: str, python: str) -> Path:
    """The packages of a set in a folder, without the project, for a Python of this version on a current glibc."""
    lock = LOCKS / f"{name}.txt"
    folder = cache() / _name(f"{name}-packages-{python}", lock.read_text())
    with _made_once(folder) as missing:
        if missing:
            for_python = ("--python-version", python, "--python-platform", f"{platform.machine()}-manylinux_2_28")
            target = ("--python", sys.executable, "--target", str(folder))
            _uv("pip", "install", *target, *for_python, "--only-binary", ":all:", "--no-deps", "-r", str(lock))
    return folder


@functools.cache
def _wheel() -> Path:
    """This checkout as a wheel, built once for each state of the sources."""
    sources = [PROJECT / "pyproject.toml", *sorted((PROJECT / "entrypoint").rglob("*"))]
    state = hashlib.sha256()
    for source in sources:
        if source.is_file() and source.suffix != ".pyc":
            state.update(str(source).encode() + b"\0" + source.read_bytes())
    folder = cache() / f"wheel-{state.hexdigest()[:16]}"
    with _made_once(folder) as missing:
        if missing:
            _uv("build", "--wheel", "--out-dir", str(folder), str(PROJECT))
    return next(folder.glob("*.whl"))


def _name(name: str, contents: str) -> str:
    digest = hashlib.sha256(f"{sys.version}\0{sys.executable}\0{contents}".encode())
    return f"{name}-{digest.hexdigest()[:16]}"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock on a path: several test processes may want the same environment at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _made_once(path: Path) -> Iterator[bool]:
    """Lock a path and yield whether it still has to be created.

    An incomplete one is removed and created again. It cannot be created elsewhere and moved, because scripts in a
    virtual environment contain its path.
    """
    ready = path.with_name(path.name + ".ready")
    with _locked(path):
        missing = not ready.exists()
        if missing:
            shutil.rmtree(path, ignore_errors=True)
        yield missing
        ready.touch()


def _uv(*arguments: str) -> None:
    _run([uv(), "--quiet", *arguments])


def _run(command: Sequence[str]) -> None:
    variables = {**os.environ, "UV_CACHE_DIR": str(cache() / "uv"), "UV_PYTHON_DOWNLOADS": "never"}
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def _write_locks() -> None:
    LOCKS.mkdir(exist_ok=True)
    for name, wanted in SETS.items():
        source = LOCKS / f"{name}.in"
        source.write_text("".join(f"{requirement}\n" for requirement in wanted))
        try:
            _uv("pip", "compile", "--universal", "--python-version", "3.11", "--no-header", "--no-annotate",
                "--output-file", str(LOCKS / f"{name}.txt"), str(source))  # fmt: skip
        finally:
            source.unlink()


if __name__ == "__main__":
    _write_locks()

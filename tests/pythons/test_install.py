"""`pip install agent-init` without a compiler, on each Python of the machine; also without psutil and uvloop."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
import pytest

from tests.runner.pythons import found
from tests.support.init import Init, clean_environment

PROJECT = Path(__file__).parents[2]
DEPENDENCIES = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
PYTHONS = {
    version: path
    for version, path in found().items()
    if not subprocess.run([path, "-c", "import venv"], capture_output=True).returncode
}
AGENT = """
import asyncio, entrypoint.agent
async def main():
    print('ready, on', type(asyncio.get_running_loop()).__module__.split('.')[0], flush=True)
    await asyncio.sleep(1000)
entrypoint.agent.run(main())
"""


@pytest.fixture(scope="module", params=PYTHONS)
def python(request: pytest.FixtureRequest) -> str:
    return PYTHONS[request.param]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> str:
    """This checkout's, as pip makes it."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(PROJECT)], check=True)
    (made,) = folder.glob("*.whl")
    return str(made)


@pytest.fixture
def install(python: str, tmp_path: Path) -> Callable[..., Path]:
    """Install with pip into an empty environment, without a compiler or pip's cache; return its `bin`."""

    def install(*arguments: str) -> Path:
        environment = tmp_path / "environment"
        subprocess.run([python, "-m", "venv", "--without-pip", str(environment)], check=True)
        bin = environment / "bin"
        without_compiler = clean_environment(PATH=str(bin), CC="/bin/false", CXX="/bin/false")
        options = ("--quiet", "--disable-pip-version-check", "--no-cache-dir", "--python", str(bin / "python"))
        done = subprocess.run(
            [sys.executable, "-m", "pip", *options, "install", *arguments],
            env=without_compiler,
            capture_output=True,
            text=True,
        )
        assert not done.returncode, done.stdout + done.stderr
        return bin

    return install


def modules(bin: Path) -> Mapping[str, bool]:
    """Whether the dependencies can be imported."""
    code = "import importlib, sys\nfor name in sys.argv[1:]:\n"
    code += "    try: importlib.import_module(name); print(name)\n    except ImportError: pass"
    names = [re.split(r"[^\w]", requirement)[0] for requirement in DEPENDENCIES]
    shown = subprocess.run([str(bin / "python"), "-c", code, *names], capture_output=True, text=True, check=True).stdout
    return {name: name in shown.split() for name in names}


def run(bin: Path, tmp_path: Path) -> tuple[str, str]:
    """Run an agent and stop it, gracefully. Return what it prints, and a report on it, as process 1 has one made."""
    init = Init(tmp_path, ["--", str(bin / "python"), "-c", AGENT], program=[str(bin / "agent-init")])
    try:
        assert init.outer.stdout
        line = init.outer.stdout.readline().decode().strip()
        [agent] = psutil.Process(init.pid).children()
        [reporter] = bin.parent.glob("lib/*/site-packages/entrypoint/report/__main__.py")
        request = {
            "root": init.pid,
            "agent": agent.pid,
            "since": time.monotonic(),
            "cpu": {},
            "stacks": False,
            "responders": agent.environ()["AGENT_INIT_RESPONDERS"],
            "seconds": 20,
            "arguments": False,
            "room": None,
        }
        command = [str(bin / "python"), "-I", "-S", str(reporter), json.dumps(request)]
        report = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
        init.signal("TERM")
        assert init.wait() == 0
        assert init.lines("exit code 0")
    finally:
        init.close()
    return line, report.stdout


def test_everything_is_installed_and_used(install: Callable[..., Path], wheel: str, tmp_path: Path) -> None:
    """If this fails on a new Python, uvloop has no wheel for it yet: lower the bound in pyproject.toml."""
    bin = install(wheel)
    assert modules(bin) == {"click": True, "psutil": True, "uvloop": True}
    line, report = run(bin, tmp_path)
    assert line == "ready, on uvloop"
    assert re.search(r"^report: python.*, the agent, .* MiB", report, re.MULTILINE), report
    assert " in main" in report


def test_neither_psutil_nor_uvloop(install: Callable[..., Path], wheel: str, tmp_path: Path) -> None:
    """As on a Python that came out today, or a free-threaded one by `--no-deps`."""
    bin = install("--no-deps", wheel, "click")
    assert modules(bin) == {"click": True, "psutil": False, "uvloop": False}
    shown = subprocess.run([str(bin / "agent-init"), "--help"], capture_output=True, text=True)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "--grace" in shown.stdout
    line, report = run(bin, tmp_path)
    assert line == "ready, on asyncio"
    assert re.search(r"^report: python.*, the agent, ", report, re.MULTILINE), report
    assert "without memory and arguments: No module named 'psutil'" in report
    assert " in main" in report

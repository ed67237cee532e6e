"""The launcher, compiled for this machine, and installations of agent-init around it."""

from __future__ import annotations

import functools
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

PROJECT = Path(__file__).parents[2]
PACKAGE = PROJECT / "entrypoint"
VERSION = f"python3.{sys.version_info.minor}"
COMPILERS = ("gcc", "cc", "musl-gcc")


@functools.cache
def launcher(command: str = "agent-init") -> Path:
    """The compiled launcher of this command; without a compiler the test is skipped."""
    compiler = next(filter(shutil.which, COMPILERS), None)
    if compiler is None:
        pytest.skip(f"the launcher takes a C compiler: {', '.join(COMPILERS)}", allow_module_level=True)
    output = Path(_scratch().name, command)
    runpy.run_path(str(PROJECT / "launcher" / "compile.py"))["natively"](output, (compiler,))
    return output


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    scratch = tempfile.TemporaryDirectory(prefix="agent-init-launcher-")
    Path(scratch.name).chmod(0o755)
    return scratch


def install(commands: Path, packages: Path) -> Path:
    """Put the launchers into `commands` and the package into `packages`, as an installer does; return agent-init."""
    commands.mkdir(parents=True, exist_ok=True)
    shutil.copytree(PACKAGE, packages / "entrypoint", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-m", "compileall", "-q", packages / "entrypoint"], check=True, timeout=120)
    shutil.copy(launcher("agent-initctl"), commands)
    return Path(shutil.copy(launcher(), commands))


def prefix(top: Path, kind: str = "site-packages", library: str = "lib", version: str = VERSION) -> Path:
    """Install into TOP/bin and TOP/lib/python3.N, without an interpreter beside; return the command."""
    return install(top / "bin", top / library / version / kind)


def virtual_environment(top: Path) -> Path:
    """Make a virtual environment and install into it; return the command."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", top], check=True, timeout=60)
    return prefix(top)


@functools.cache
def installed() -> Path:
    """The command of an installation with an interpreter and psutil, as the wheel makes it, for as long as we run."""
    command = prefix(Path(_scratch().name, "installed"))
    interpreter(command.parent)
    shutil.copytree(Path(psutil.__file__).parent, command.parents[1] / "lib" / VERSION / "site-packages" / "psutil")
    return command


def interpreter(folder: Path, name: str = VERSION) -> Path:
    """Put this interpreter into a folder, by that name."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).symlink_to(os.path.realpath(sys.executable))
    return folder / name

"""Which tests notice a mutant: each is tried in the package's place, in a mount and PID namespace of its own."""

from __future__ import annotations

import contextlib
import ctypes
import os
import py_compile
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Loaded once, for all that is forked from here. Not so the package: that is another one each time.
import _hypothesis_pytestplugin  # noqa: F401
import pexpect  # noqa: F401
import psutil  # noqa: F401
import pytest

from tests.coverage.running import ROOT, places

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

CLONE_NEWNS, CLONE_NEWPID = 0x00020000, 0x20000000  # <linux/sched.h>
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
QUIET = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "ignore", "--hypothesis-seed=0", "--timeout=20"]
TOOK_TOO_LONG = "took too long"

_libc = ctypes.CDLL(None, use_errno=True)


class Only:
    """A plug-in of pytest's: of what was collected, these."""

    def __init__(self, tests: Collection[str]) -> None:
        self.tests = frozenset(tests)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid in self.tests]


def _unshare(flags: int) -> None:
    if _libc.unshare(flags):
        raise OSError(ctypes.get_errno(), "unshare(2)")


def _end_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Place:
    """The package as this process and its children see it: a copy, in which one module can be another."""

    def __init__(self, scratch: Path) -> None:
        self.init = scratch / str(os.getpid()) / "entrypoint" / "init"
        shutil.copytree(ROOT / "entrypoint", self.init.parent, ignore=shutil.ignore_patterns("__pycache__"))
        _end_with_parent()
        _unshare(CLONE_NEWNS)
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"], check=True)
        for place in places():
            subprocess.run(["mount", "--bind", self.init.parent, place], check=True)

    def put(self, module: str, text: str) -> None:
        """Two texts of one second and one size have the same stamp: what was compiled of the other must go."""
        path = self.init / module
        path.write_text(text)
        for compiled in (self.init / "__pycache__").glob(f"{path.stem}.*"):
            compiled.unlink()
        with contextlib.suppress(py_compile.PyCompileError):
            py_compile.compile(str(path), doraise=True)


class Told:
    """A plug-in of pytest's that names each test that fails, a line each."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            os.write(self.fd, f"{report.nodeid}\n".encode())


def _tests(chosen: Sequence[str], told: int, options: Sequence[str]) -> int:
    """pytest's exit code, for these tests."""
    with open(os.devnull, "r+b", buffering=0) as null:
        for fd in (0, 1, 2):
            os.dup2(null.fileno(), fd)
    sys.dont_write_bytecode = True
    files = sorted({test.partition("::")[0] for test in chosen})
    return int(pytest.main([*QUIET, *options, *files], plugins=[Only(chosen), Told(told)]))


def _first_process(*arguments: Any) -> int:
    """Process 1 of these tests' namespace: all that they leave behind ends with it."""
    subprocess.run(["mount", "-t", "proc", "proc", "/proc"], check=True)
    child = _fork(_tests, *arguments)
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.waitstatus_to_exitcode(status) & 0xFF


def _apart(*arguments: Any) -> int:
    """The parent of a namespace, which it takes along when it is killed. Mutants read and write where they should not:
    of what is open here they get nothing but `told`.
    """
    told = arguments[1]
    os.closerange(3, told)
    os.closerange(told + 1, os.sysconf("SC_OPEN_MAX"))
    os.setsid()
    _unshare(CLONE_NEWNS | CLONE_NEWPID)
    return os.waitstatus_to_exitcode(os.waitpid(_fork(_first_process, *arguments), 0)[1]) & 0xFF


def _fork(function: Callable[..., int], *arguments: Any) -> int:
    """The pid of a child that calls this function and exits with what it returns; it ends with its parent."""
    child = os.fork()
    if child == 0:
        _end_with_parent()
        code = int(pytest.ExitCode.INTERNAL_ERROR)
        try:
            code = function(*arguments)
        finally:
            os._exit(code)
    return child


def fails(chosen: Sequence[str], patience: float, *options: str) -> list[str]:
    """Which of these tests fail; or in a line what happened instead, where not one did but not all passed.

    Raises ValueError where none of them is there.
    """
    with tempfile.TemporaryFile() as told:
        child, end = _fork(_apart, chosen, told.fileno(), options), time.monotonic() + patience
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() > end:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return [TOOK_TOO_LONG]
            time.sleep(0.02)
        told.seek(0)
        failed = told.read().decode("utf-8", "replace").splitlines()
    code = os.waitstatus_to_exitcode(ended[1])
    if code == pytest.ExitCode.NO_TESTS_COLLECTED:
        raise ValueError(f"these tests are not there: {chosen}")
    return failed or ([f"pytest ended with {code}"] if code else [])

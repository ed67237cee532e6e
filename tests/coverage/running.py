"""Run tests with another copy of the package in its place."""

from __future__ import annotations

import dis
import marshal
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PACKAGE = ROOT / "entrypoint"
UNIT, PROCESS1 = "tests/unit", "tests/process1"
# Their inputs are nested so deeply that the tracer has no stack left, and Python switches it off.
NOT_OF_PROCESS_1 = ("--ignore-glob=*/test_check_*", "--ignore-glob=*/test_rehears*")

# What process 1 imports and every branch of which is tested, as patterns below `entrypoint/`.
MEASURED = ("init/[a-z]*.py", "start.py", "signals.py", "paths.py")


def measured() -> list[str]:
    """The measured modules, as paths below `entrypoint/`."""
    return sorted(str(path.relative_to(PACKAGE)) for pattern in MEASURED for path in PACKAGE.glob(pattern))


def places() -> list[Path]:
    """Where the package lies: in this checkout, and where the installed command finds it."""
    argv = [sys.executable, "-I", "-c", "import entrypoint; print(entrypoint.__file__)"]
    installed = Path(subprocess.run(argv, check=True, capture_output=True, text=True).stdout).parent
    return sorted({PACKAGE, installed})


def prepare(scratch: Path) -> Path:
    """A copy of the package that notes which lines run."""
    copy, notes = scratch / "entrypoint", scratch / "notes"
    notes.mkdir()
    for directory in (scratch, notes):
        directory.chmod(0o777)  # some tests run process 1 as another user
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    tracer = (HERE / "tracer.py").read_text()
    for name, value in {
        "NOTES": str(notes),
        "PLACES": ":".join(f"{place}/" for place in places()),
        "MODULES": ":".join(measured()),
        "RESUME": str(dis.opmap["RESUME"]),
    }.items():
        tracer = tracer.replace(f'"{{{name}}}"', repr(value))
    with (copy / "__init__.py").open("a") as module:
        module.write(tracer)
    return copy


def command(copy: Path, options: Sequence[str], *namespaces: str) -> list[str]:
    """The argv of pytest with the copy in the package's place, in a mount namespace and those that are named."""
    mounts = " && ".join(f'mount --bind "{copy}" "{place}"' for place in places())
    pytest = str(Path(sys.executable).with_name("pytest"))  # as a user calls it: some tests check the interpreter
    return ["unshare", "--mount", *namespaces, "sh", "-c", f'{mounts} && exec "$@"', "sh", pytest, "-q", *options]


def run_tests(copy: Path, processes: int, process1_tests: Sequence[str] = (PROCESS1,)) -> list[tuple[int, int, int]]:
    """Run tests/unit in one process, then the others in several: exit code, number of tests, number of failures."""
    return [_run(copy, ["-n", "0", UNIT, *NOT_OF_PROCESS_1]), _run(copy, ["-n", str(processes), *process1_tests])]


def _run(copy: Path, options: Sequence[str]) -> tuple[int, int, int]:
    result = copy.with_name("result.xml")
    result.unlink(missing_ok=True)
    argv = command(copy, ["-p", "no:cacheprovider", f"--junitxml={result}", *options])
    code = subprocess.run(argv, cwd=ROOT).returncode
    if not result.exists():
        return code or -1, 0, 0
    suites = list(ElementTree.parse(result).getroot().iter("testsuite"))
    failed = sum(int(suite.get(kind, "0")) for suite in suites for kind in ("failures", "errors"))
    return code, sum(int(suite.get("tests", "0")) for suite in suites), failed


def read_notes(copy: Path) -> Iterator[tuple[str, str, list[tuple[int, int]]]]:
    """What the copy noted: a test as PYTEST_CURRENT_TEST names it, a module below `entrypoint/`, and its arcs."""
    for note in (copy.parent / "notes").iterdir():
        try:
            noted = marshal.loads(note.read_bytes())
        except (EOFError, ValueError, TypeError):
            continue  # half written: there was no space, or no descriptor
        for (test, module), arcs in noted.items():
            yield test, module, arcs

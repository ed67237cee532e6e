"""Tests run with another copy of the package in its place."""

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
IN_PYTEST, IN_PROCESS_1 = "tests/unit", "tests/process1"


def places() -> list[Path]:
    """Where the package lies: in this checkout, and where the installed command finds it."""
    words = [sys.executable, "-I", "-c", "import entrypoint; print(entrypoint.__file__)"]
    installed = Path(subprocess.run(words, check=True, capture_output=True, text=True).stdout).parent
    return sorted({ROOT / "entrypoint", installed})


def prepare(scratch: Path) -> Path:
    """The copy of the package that notes what runs."""
    copy, notes = scratch / "entrypoint", scratch / "notes"
    notes.mkdir()
    for directory in (scratch, notes):
        directory.chmod(0o777)  # some of the tests' process 1 are another user's
    shutil.copytree(ROOT / "entrypoint", copy, ignore=shutil.ignore_patterns("__pycache__"))
    text = (HERE / "tracer.py").read_text()
    for name, value in {
        "NOTES": str(notes),
        "MEASURED": ":".join(f"{place}/init/" for place in places()),
        "RESUME": str(dis.opmap["RESUME"]),
    }.items():
        text = text.replace(f'"{{{name}}}"', repr(value))
    with (copy / "init" / "__init__.py").open("a") as module:
        module.write(text)
    return copy


def run_both(copy: Path, at_once: int, in_process_1: Sequence[str] = (IN_PROCESS_1,)) -> list[tuple[int, int, int]]:
    """What runs in pytest itself, then what runs in process 1."""
    return [_run(copy, ["-p", "no:xdist", IN_PYTEST]), _run(copy, ["-n", str(at_once), *in_process_1])]


def _run(copy: Path, arguments: list[str]) -> tuple[int, int, int]:
    """pytest with the copy in the package's place: its exit code, how many tests ran, and how many failed."""
    result = copy.with_name("result.xml")
    result.unlink(missing_ok=True)
    script = " ".join(f'mount --bind "{copy}" "{place}" &&' for place in places()) + ' exec "$@"'
    command = str(Path(sys.executable).with_name("pytest"))  # as anybody calls it: some tests know of its interpreter
    pytest = [command, "-q", "-p", "no:cacheprovider", f"--junitxml={result}", *arguments]
    code = subprocess.run(["unshare", "--mount", "sh", "-c", script, "sh", *pytest], cwd=ROOT).returncode
    if not result.exists():
        return code or -1, 0, 0
    suites = list(ElementTree.parse(result).getroot().iter("testsuite"))
    failed = sum(int(suite.get(kind, "0")) for suite in suites for kind in ("failures", "errors"))
    return code, sum(int(suite.get("tests", "0")) for suite in suites), failed


def notes(copy: Path) -> Iterator[tuple[str, str, list[tuple[int, int]]]]:
    """What the copy has noted: a test's name as PYTEST_CURRENT_TEST has it, a module of `init/`, and arcs."""
    for note in (copy.parent / "notes").iterdir():
        try:
            noted = marshal.loads(note.read_bytes())
        except (EOFError, ValueError, TypeError):
            continue  # half written: no room, no descriptor
        for (test, module), arcs in noted.items():
            yield test, module, arcs

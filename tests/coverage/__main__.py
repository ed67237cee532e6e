"""`python -m tests.coverage [-n PROCESSES] [--keep FILE] [TEST]...`: the branches of `entrypoint/init/` no test runs.

Process 1 itself is measured, up to the exec in what it forks, and whatever else runs its code: the command, the
programs of the tests that call `start.main`, and pytest for tests/pure. For that the tests see, in a mount namespace of
their own, a copy of the package, which notes what runs (`tracer.py`); so it takes root, and what is edited meanwhile
neither disturbs nor counts.

Exits with 0 where every branch was run. A test that fails is told of, and no concern of this one: process 1 is slower
here, and some look into it closely.
"""

from __future__ import annotations

import argparse
import dis
import marshal
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

import coverage

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
IN_PYTEST = ["tests/pure"]
IN_PROCESS_1 = ["tests/process1"]
# Told apart by the type checker only.
NEVER_RUN = ["if TYPE_CHECKING:"]
FAILED_TESTS = 1  # pytest's exit code


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


def run(copy: Path, arguments: list[str]) -> tuple[int, int, int]:
    """pytest with the copy in the package's place: its exit code, how many tests ran, and how many failed."""
    result = copy.with_name("result.xml")
    result.unlink(missing_ok=True)
    # A shell's background job has INT and QUIT ignored, and so would every agent of the tests.
    script = " ".join(f'mount --bind "{copy}" "{place}" &&' for place in places()) + ' exec env --default-signal "$@"'
    command = str(Path(sys.executable).with_name("pytest"))  # as anybody calls it: some tests know of its interpreter
    pytest = [command, "-q", "-p", "no:cacheprovider", f"--junitxml={result}", *arguments]
    code = subprocess.run(["unshare", "--mount", "sh", "-c", script, "sh", *pytest], cwd=ROOT).returncode
    if not result.exists():
        return code or -1, 0, 0
    suites = list(ElementTree.parse(result).getroot().iter("testsuite"))
    failed = sum(int(suite.get(kind, "0")) for suite in suites for kind in ("failures", "errors"))
    return code, sum(int(suite.get("tests", "0")) for suite in suites), failed


def report(copy: Path, keep: str | None) -> float:
    """Print what was not run; returns the share of what was, in per cent."""
    arcs: dict[str, set[tuple[int, int]]] = {}
    for note in (copy.parent / "notes").iterdir():
        try:
            noted = marshal.loads(note.read_bytes())
        except (EOFError, ValueError, TypeError):
            continue  # half written: no room, no descriptor
        for name, pairs in noted.items():
            arcs.setdefault(str(copy / "init" / name), set()).update(pairs)
    os.chdir(copy.parent)
    measured = coverage.Coverage(data_file=keep, branch=True, config_file=False, source=["entrypoint/init"])
    for pattern in NEVER_RUN:
        measured.exclude(pattern)
    measured.get_data().add_arcs(arcs)
    if keep:
        measured.save()
    return measured.report(show_missing=True, skip_covered=True, omit=["*/init/__init__.py"])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.coverage", description=__doc__)
    parser.add_argument("-n", default="4", help="how many tests at once")
    parser.add_argument("--keep", type=os.path.abspath, help="leave coverage.py's data here")
    parser.add_argument("tests", nargs="*", default=IN_PROCESS_1, help="instead of those that are known to be needed")
    asked = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="coverage-") as scratch:
        copy = prepare(Path(scratch))
        runs = [run(copy, ["-p", "no:xdist", *IN_PYTEST]), run(copy, ["-n", asked.n, *asked.tests])]
        share = report(copy, asked.keep)
        os.chdir("/")
    failed, ran = sum(run[2] for run in runs), sum(run[1] for run in runs)
    print(f"{share:.2f} % of the branches, by {ran} tests in {time.monotonic() - began:.0f}s; {failed} of them failed")
    if any(code not in (0, FAILED_TESTS) or not count for code, count, _ in runs):
        print("pytest itself failed")
        return 1
    return int(share < 100)


if __name__ == "__main__":
    sys.exit(main())

"""`python -m tests.coverage [-n PROCESSES] [--keep FILE] [TEST]...`: the branches of `entrypoint/init/` no test runs.

Process 1 itself is measured, up to the exec in what it forks, and whatever else runs its code: the command, the
programs of the tests that call `start.main`, and pytest for tests/unit. For that the tests see, in a mount namespace of
their own, a copy of the package, which notes what runs (`tracer.py`); so it takes root, and what is edited meanwhile
neither disturbs nor counts.

Exits with 0 where every branch was run. A test that fails is told of, and no concern of this one: process 1 is slower
here, and some look into it closely.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import coverage

from .running import IN_PROCESS_1, notes, prepare, run_both

# Told apart by the type checker only.
NEVER_RUN = ["if TYPE_CHECKING:"]
FAILED_TESTS = 1  # pytest's exit code


def report(copy: Path, keep: str | None) -> float:
    """Print what was not run; returns the share of what was, in per cent."""
    arcs: dict[str, set[tuple[int, int]]] = {}
    for _, name, pairs in notes(copy):
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
    parser.add_argument("-n", type=int, default=4, help="how many tests at once")
    parser.add_argument("--keep", type=os.path.abspath, help="leave coverage.py's data here")
    parser.add_argument("tests", nargs="*", default=[IN_PROCESS_1], help="instead of those that are known to be needed")
    asked = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="coverage-") as scratch:
        copy = prepare(Path(scratch))
        runs = run_both(copy, asked.n, asked.tests)
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

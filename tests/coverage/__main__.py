"""`python -m tests.coverage [-n PROCESSES] [--keep FILE] [TEST]...`: the branches of process 1 that no test runs.

It measures process 1 itself, up to the exec in the children that it forks, and all else that runs its code: the
command, test programs that call it, and pytest in tests/unit. The tests run in a mount namespace of their own, where a
copy of the package that notes which lines run (`tracer.py`) takes the package's place. That takes root, and edits to
the checkout neither disturb nor count.

The exit code is 0 if every branch ran. A test that fails is printed but does not count: process 1 is slower here, and
some tests look at it closely.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import coverage

from .running import PROCESS1, measured, prepare, read_notes, run_tests

NOT_MEASURED = ["if TYPE_CHECKING:"]  # never true
TESTS_FAILED = 1  # pytest's exit code


def report(copy: Path, keep: str | None) -> float:
    """Print which branches did not run; returns the percentage that did."""
    arcs: dict[str, set[tuple[int, int]]] = {}
    for _, module, pairs in read_notes(copy):
        arcs.setdefault(str(copy / module), set()).update(pairs)
    os.chdir(copy.parent)
    data = coverage.Coverage(data_file=keep, branch=True, config_file=False, source=["entrypoint"])
    for pattern in NOT_MEASURED:
        data.exclude(pattern)
    data.get_data().add_arcs(arcs)
    if keep:
        data.save()
    return data.report(show_missing=True, skip_covered=True, include=[str(copy / module) for module in measured()])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.coverage", description=__doc__)
    parser.add_argument("-n", type=int, default=4, metavar="PROCESSES", help="how many tests at once")
    parser.add_argument("--keep", type=os.path.abspath, metavar="FILE", help="write coverage.py's data to this file")
    parser.add_argument("tests", nargs="*", default=[PROCESS1], metavar="TEST", help=f"instead of {PROCESS1}")
    asked = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="coverage-") as scratch:
        copy = prepare(Path(scratch))
        runs = run_tests(copy, asked.n, asked.tests)
        percent = report(copy, asked.keep)
        os.chdir("/")
    failed, ran = sum(run[2] for run in runs), sum(run[1] for run in runs)
    print(
        f"{percent:.2f} % of the branches, by {ran} tests in {time.monotonic() - began:.0f}s; {failed} of them failed"
    )
    if any(code not in (0, TESTS_FAILED) or not count for code, count, _ in runs):
        print("pytest itself failed")
        return 1
    return int(percent < 100)


if __name__ == "__main__":
    sys.exit(main())

"""`python -m tests.mutants [-n PROCESSES] [--share N] MODULE`: mistakes in a module of process 1 that no test notices.

Each mutant of the module is run against the tests in tests/unit that run its line, and some of those in tests/process1.
`python -m tests.coverage` finds which they are, which takes two minutes. The tests of a mutant run in a mount and PID
namespace of their own, with the mutant in the module's place; that takes root, and leaves the checkout alone.

A mutant that no test notices is printed as a diff. Many of them behave as the original does; read each one. The exit
code is 0 if there is none. A test that runs out of time counts as one that notices, so keep the machine quiet.
"""

from __future__ import annotations

import argparse
import difflib
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from tests.coverage.running import PACKAGE, UNIT, command, measured, prepare, read_notes, run_tests

from .mutate import mutants

MAX_PROCESS1_TESTS = 20  # for one mutant: each takes about 0.3 s
TEST_SECONDS, MUTANT_SECONDS = 20, 180
TERMINATION_LOG = Path("/dev/termination-log")  # a mutant may make it
AT_IMPORT = ""  # the name of the test while a test process runs none yet


def tests_by_line(module: str, processes: int) -> dict[int, list[str]]:
    """The node ids of the tests that run each line; line 0 has all that run any line of the module."""
    found: defaultdict[int, set[str]] = defaultdict(set)
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        copy = prepare(Path(scratch))
        run_tests(copy, processes)
        for test, name, arcs in read_notes(copy):
            if name == module:
                for line in {0, *(abs(line) for arc in arcs for line in arc)}:
                    found[line].add(test.rpartition(" (")[0])
    return {line: sorted(tests) for line, tests in found.items()}


def choose(by_line: dict[int, list[str]], line: int) -> list[str]:
    """The tests for a mutant: all in tests/unit that run the line, then a sample of those in tests/process1."""
    tests = by_line.get(line, [])
    if not tests or AT_IMPORT in tests:
        tests = [test for test in by_line.get(0, []) if test != AT_IMPORT]
    unit = [test for test in tests if test.startswith(UNIT)]
    process1 = [test for test in tests if not test.startswith(UNIT)]
    return unit + random.Random(line).sample(process1, min(len(process1), MAX_PROCESS1_TESTS))


def run(copy: Path, tests: list[str], *options: str, seconds: float | None = None) -> bool:
    """Whether these tests pass with the copy in the package's place."""
    namespace = ["--pid", "--fork", "--kill-child", "--mount-proc"]
    pytest = ["-n", "0", "--hypothesis-seed=0", f"--timeout={TEST_SECONDS}", *options, *tests]
    try:
        argv = ["setpriv", "--pdeathsig", "KILL", *command(copy, pytest, *namespace)]  # it ends with this process
        done = subprocess.run(argv, timeout=seconds, capture_output=True)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def failing(copy: Path, tests: list[str]) -> set[str]:
    """Which of these tests fail on the module as it is: they show nothing about a mutant."""
    cache = copy.parent / "cache"
    run(copy, tests, "-o", f"cache_dir={cache}")
    found = cache / "v" / "cache" / "lastfailed"
    return set(json.loads(found.read_text())) if found.exists() else set()


def survives(copies: SimpleQueue[Path], module: str, text: str, tests: list[str]) -> bool:
    """Whether the tests, if any, pass with this text in the module's place."""
    if not tests:
        return True
    copy = copies.get()
    try:
        (copy / module).write_text(text)
        # Two texts of the same second and size look the same to the cache of compiled modules.
        for compiled in (copy / module).parent.glob(f"__pycache__/{Path(module).stem}.*"):
            compiled.unlink()
        # A thread ends pytest at a timeout: a mutant may catch what a signal handler raises, and loop on.
        return run(copy, tests, "-x", "-p", "no:cacheprovider", "--timeout-method=thread", seconds=MUTANT_SECONDS)
    finally:
        copies.put(copy)


def arguments() -> argparse.Namespace:
    by_name = {Path(path).stem: path for path in measured()}

    def module(given: str) -> str:
        path = by_name.get(Path(given).stem)
        if path is None:
            raise argparse.ArgumentTypeError(f"no module {given!r}: choose one of {', '.join(sorted(by_name))}")
        return path

    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("-n", type=int, default=2, metavar="PROCESSES", help="how many mutants at once")
    parser.add_argument("--share", type=int, default=1, metavar="N", help="try one mutant of N, always the same ones")
    parser.add_argument("module", type=module, metavar="MODULE", help="entrypoint/init/loop.py or loop")
    return parser.parse_args()


def main() -> int:
    asked = arguments()
    source = (PACKAGE / asked.module).read_text()
    found = list(mutants(source))
    found = random.Random(asked.module).sample(found, -(-len(found) // asked.share))
    by_line = tests_by_line(asked.module, 4)
    had_log = TERMINATION_LOG.exists()
    survivors = 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch, ThreadPoolExecutor(asked.n) as pool:
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(asked.n):
            copies.put(copy := Path(scratch, str(number), "entrypoint"))
            shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        tests = [choose(by_line, line) for line, _ in found]
        broken = failing(copy, sorted(set().union(*tests)))
        print(f"{asked.module}: {len(found)} mutants; these tests fail without them: {sorted(broken)}", flush=True)
        jobs = [
            pool.submit(survives, copies, asked.module, text, [test for test in chosen if test not in broken])
            for (_, text), chosen in zip(found, tests, strict=True)
        ]
        for (_, text), job in zip(found, jobs, strict=True):
            if job.result():
                survivors += 1
                diff = difflib.unified_diff(
                    source.splitlines(), text.splitlines(), asked.module, "mutant", n=1, lineterm=""
                )
                print("\n".join(diff), flush=True)
    if not had_log:
        TERMINATION_LOG.unlink(missing_ok=True)
    print(f"{asked.module}: {survivors} of {len(found)} mutants noticed by no test")
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main())

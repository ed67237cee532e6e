"""`python -m tests.mutants [--share N] [--runners FILE] [MODULE]...`: mistakes in `entrypoint/init/` no test notices.

Each mutant of the modules (all, if none is named) is first shown to those of tests/unit that run its line, then to some
of tests/process1 that do. Which tests those are is found as `python -m tests.coverage` finds it, which takes two
minutes, and can be kept in a file. It takes root, and hours for all: `--share 20` takes one of twenty, always the same.

What nobody notices is printed, unless a file in `judged/` has it, with the reason why nobody can.
Exits with 0 where there is nothing to print.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import pickle
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.coverage.running import IN_PROCESS_1, IN_PYTEST, ROOT, notes, prepare, run_both

from . import trying
from .making import Mutant, mutants

if TYPE_CHECKING:
    from collections.abc import Collection

JUDGED = Path(__file__).with_name("judged")
PURE, PROCESS_1 = f"{IN_PYTEST}/", f"{IN_PROCESS_1}/"
LEFT = Path("/dev/termination-log")  # by mutants that make what is not there
MANY = 20  # of tests/process1, for one mutant: a test takes about 0.3 s
IN_THE_BEGINNING = ""  # what a test process runs before its first test


@dataclass
class Runners:
    """Which tests run which lines of the modules."""

    of_line: dict[tuple[str, int], set[str]] = field(default_factory=dict)
    of_module: dict[str, set[str]] = field(default_factory=dict)
    passing: set[str] = field(default_factory=set)  # as it is; one test of each function in tests/process1

    def add(self, test: str, module: str, arcs: list[tuple[int, int]]) -> None:
        for line in {abs(line) for arc in arcs for line in arc}:
            self.of_line.setdefault((module, line), set()).add(test)
        if test != IN_THE_BEGINNING:
            self.of_module.setdefault(module, set()).add(test)

    def all(self) -> list[str]:
        """Those of tests/unit, and one of each function in tests/process1."""
        functions: dict[str, list[str]] = {}
        for test in sorted(set().union(*self.of_module.values())):
            functions.setdefault(test if test.startswith(PURE) else test.partition("[")[0], []).append(test)
        return [random.Random(function).choice(tests) for function, tests in functions.items()]

    def of(self, mutant: Mutant, many: int | None) -> tuple[list[str], list[str]]:
        """Of tests/unit all; of tests/process1 so many that know most of the function what others do not."""
        runners = self.of_line.get((mutant.module, mutant.line), set())
        if IN_THE_BEGINNING in runners or not runners:
            runners = runners | self.of_module.get(mutant.module, set())
        runners = runners & self.passing
        knows: defaultdict[str, float] = defaultdict(float)
        for line in range(mutant.around[0], mutant.around[1] + 1):
            others = self.of_line.get((mutant.module, line), set())
            for test in runners & others:
                knows[test] += 1 / len(others)
        whole = sorted((test for test in runners if test.startswith(PROCESS_1)), key=lambda test: (-knows[test], test))
        return sorted(test for test in runners if test.startswith(PURE)), whole[:many]


def read(*paths: Path) -> set[str]:
    """The mutants in these files, as they are printed."""
    found: list[list[str]] = []
    inside = False
    for line in (line for path in paths for line in path.read_text().splitlines()):
        if line.startswith("@ "):
            found.append([])
        inside = line.startswith("@ ") or (inside and line.startswith(("-", "+")))
        if inside:
            found[-1].append(line)
    return {"\n".join(lines) for lines in found}


def find_runners() -> Runners:
    runners = Runners()
    with tempfile.TemporaryDirectory(prefix="runners-") as scratch:
        copy = prepare(Path(scratch))
        run_both(copy, 4)
        for test, module, arcs in notes(copy):
            runners.add(test.rpartition(" (")[0], module, arcs)
    return runners


# --- In a worker. ---

_place: trying.Place


def begin(scratch: Path) -> None:
    global _place
    _place = trying.Place(scratch)


def try_it(mutant: Mutant, source: str, pure: list[str], whole: list[str]) -> str:
    """The first test that notices it; empty where none does."""
    _place.put(mutant.module, mutant.text)
    try:
        for tests, patience in ((pure, 20), (whole, 150)):
            if tests and (failed := trying.fails(tests, patience, "-x")):
                return failed[0]
        return ""
    finally:
        _place.put(mutant.module, source)


# --- Together. ---


def only_passing(runners: Runners, pool: ProcessPoolExecutor, at_once: int) -> None:
    """What fails as it is tells nothing of a mutant."""
    everything = runners.all()
    parts = [pool.submit(trying.fails, everything[n::at_once], 900) for n in range(at_once)]
    failing = {test for part in parts for test in part.result()}
    print(f"{len(everything)} tests, {len(failing)} fail as it is: {sorted(failing)}", flush=True)
    runners.passing.update(everything)
    runners.passing.difference_update(failing)


def positive(typed: str) -> int:
    number = int(typed)
    if number < 1:
        raise ValueError
    return number


def existing(typed: str) -> Path:
    if not os.path.isfile(typed):
        raise argparse.ArgumentTypeError(f"there is no file {typed!r}")
    return Path(typed)


def arguments(modules: Collection[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    add = parser.add_argument
    add("-n", type=positive, default=2, help="how many at once")
    add("--share", type=positive, default=1, metavar="N", help="try one mutant of N")
    add("--again", type=existing, metavar="FILE", help="try those in this earlier output, with all of tests/process1")
    add("--runners", type=Path, metavar="FILE", help="which tests run what: kept here, or taken from here")
    add("modules", nargs="*", choices=[[], *modules], metavar="MODULE", help="loop.py, say; all if none")
    return parser.parse_args()


def main() -> int:
    began, had = time.monotonic(), LEFT.exists()
    sources = {path.name: path.read_text() for path in sorted((ROOT / "entrypoint" / "init").glob("[a-z]*.py"))}
    asked = arguments(sources)
    again, known = read(asked.again) if asked.again else set(), read(*JUDGED.iterdir())
    kept = asked.runners and asked.runners.exists()
    runners = pickle.loads(asked.runners.read_bytes()) if kept else find_runners()
    made = {module: list(mutants(module, sources[module])) for module in asked.modules or sources}
    tried, noticed, same, new = Counter[str](), Counter[str](), Counter[str](), 0
    with (
        tempfile.TemporaryDirectory(prefix="mutants-") as scratch,
        ProcessPoolExecutor(asked.n, multiprocessing.get_context("fork"), begin, (Path(scratch),)) as pool,
    ):
        if not kept:
            only_passing(runners, pool, asked.n)
            if asked.runners:
                asked.runners.write_bytes(pickle.dumps(runners))
        jobs = {}
        for module, all_of_it in made.items():
            if asked.again:
                taken = [mutant for mutant in all_of_it if str(mutant) in again - known]
            else:
                taken = random.Random(module).sample(all_of_it, len(all_of_it) // asked.share)
            for mutant in taken:
                tests = runners.of(mutant, None if asked.again else MANY)
                jobs[pool.submit(try_it, mutant, sources[module], *tests)] = mutant
        for job in as_completed(jobs):
            mutant = jobs[job]
            tried[mutant.module] += 1
            if job.result():
                noticed[mutant.module] += 1
            elif str(mutant) in known:
                same[mutant.module] += 1
            else:
                new += 1
                print(f"{mutant}\n({mutant.module}:{mutant.line})\n", flush=True)
    if not had:
        LEFT.unlink(missing_ok=True)
    print("module, mutants, tried, noticed, judged to be the same")
    for module, all_of_it in made.items():
        print(f"{module}, {len(all_of_it)}, {tried[module]}, {noticed[module]}, {same[module]}")
    here = {f"@ {module}" for module in made}
    gone = {text for text in known if text.splitlines()[0].rpartition(".py")[0] + ".py" in here}
    gone -= {str(mutant) for all_of_it in made.values() for mutant in all_of_it}
    for text in sorted(gone):
        print(f"judged, but made no more:\n{text}\n")
    print(f"{new} to be judged, after {time.monotonic() - began:.0f}s")
    return int(new > 0 or bool(gone))


if __name__ == "__main__":
    sys.exit(main())

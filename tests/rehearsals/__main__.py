"""Rehearse the stop of each framework's agent: `python -m tests.rehearsals [--all | --quick | --table | NAME...]`.

NAME... or --all keeps the results in `results/` and writes the table in docs/agents.md; --table only writes it.
--quick rehearses a few in a few ways and keeps nothing. The exit code is 1 if something is lost that was not before.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

from entrypoint.rehearse.model import Rehearsal

from . import play, result, table
from .rows import QUICK, QUICK_SCENARIOS, REHEARSED, Row


def main(arguments: list[str]) -> int:
    """Do what the arguments ask for."""
    if arguments == ["--table"]:
        table.write()
        return 0
    if arguments in ([], ["--quick"]):
        return max(_attempt(_quick, REHEARSED[name]) for name in QUICK)
    names = list(REHEARSED) if arguments == ["--all"] else arguments
    if unknown := [name for name in names if name not in REHEARSED]:
        print(f"{unknown[0]!r} is not a rehearsal; accepted: {', '.join(REHEARSED)}, --all, --quick, --table")
        return 125
    worst = max(_attempt(_rehearse, REHEARSED[name]) for name in names)
    table.write()
    return worst


def _attempt(what: Callable[[Row], int], row: Row) -> int:
    """Rehearse a row if what it needs is here. Return the exit code: on CI a skip is a failure, as in pytest."""
    if missing := row.missing():
        print(f"{row.name}: skipped, {missing} is not here", flush=True)
        return 1 if os.environ.get("CI") == "true" else 0
    try:
        return what(row)
    except RuntimeError as failure:  # of this row, or in making its environment: the next ones are tried
        print(failure, flush=True)
        return 1


def _quick(row: Row) -> int:
    done = play.play(row, "--scenarios", QUICK_SCENARIOS)
    print(f"{row.name}: {'held' if done.held else result.summarise(done, ()).lost}", flush=True)
    return 0 if done.held else 1


def _rehearse(row: Row) -> int:
    """Rehearse a row, and again with the options that it advises; keep the result. Return 1 if more is lost."""
    only = ("--scenarios", row.scenarios) if row.scenarios else ()
    done = play.play(row, *only)
    found = result.summarise(done, _versions(row, done))
    if variables := result.variables_of(done):
        found = result.with_line(found, result.summarise(play.play(row, *only, **variables), ()))
    before = result.read(row.name)
    found.write(row.name)
    print(f"{row.name}: {len(found.held)} held; lost: {found.lost or 'nothing'}; with {found.line or 'no'} option: ")
    print(f"    {found.lost_with_line}", flush=True)
    return 1 if before is not None and found.loses_more_than(before) else 0


def _versions(row: Row, done: Rehearsal) -> tuple[str, ...]:
    """Return the versions of what was rehearsed: packages, or the interpreter."""
    if row.needs == "node":
        return (f"Node {subprocess.check_output(['node', '--version'], text=True).strip().removeprefix('v')}",)
    return row.requirements or (f"Python {done.versions['python']}",)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

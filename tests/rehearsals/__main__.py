"""Rehearse the stop of each framework's agent: `python -m tests.rehearsals [--all | --quick | --table | NAME...]`.

NAME... or --all keeps the results in `results/` and writes the table in docs/agents.md; --table only writes it.
--quick rehearses a few in a few ways and keeps nothing. The exit code is 1 if something is lost that was not before.
"""

from __future__ import annotations

import subprocess
import sys

from entrypoint.rehearse.model import Rehearsal

from . import play, result, table
from .rows import QUICK, QUICK_SCENARIOS, REHEARSED, Row


def main(arguments: list[str]) -> int:
    """Do what the arguments ask for."""
    if arguments == ["--table"]:
        table.write()
        return 0
    if arguments in ([], ["--quick"]):
        return max(_quick(REHEARSED[name]) for name in QUICK)
    names = list(REHEARSED) if arguments == ["--all"] else arguments
    if unknown := [name for name in names if name not in REHEARSED]:
        print(f"{unknown[0]!r} is not a rehearsal; accepted: {', '.join(REHEARSED)}, --all, --quick, --table")
        return 125
    worst = max(_rehearse(REHEARSED[name]) for name in names)
    table.write()
    return worst


def _quick(row: Row) -> int:
    if missing := row.missing():
        print(f"{row.name}: skipped, {missing} is not here")
        return 0
    done = play.play(row, "--scenarios", QUICK_SCENARIOS)
    print(f"{row.name}: {'held' if done.held else result.summarise(done, ()).lost}", flush=True)
    return 0 if done.held else 1


def _rehearse(row: Row) -> int:
    """Rehearse a row, and again with the options that it advises; keep the result. Return 1 if more is lost."""
    if missing := row.missing():
        print(f"{row.name}: skipped, {missing} is not here")
        return 0
    try:
        only = ("--scenarios", row.scenarios) if row.scenarios else ()
        done = play.play(row, *only)
        found = result.summarise(done, _versions(row, done))
        if variables := result.variables_of(done):
            with_line = result.summarise(play.play(row, *only, **variables), ())
            found = result.with_line(found, with_line)
    except play.Failed as failure:
        print(failure)
        return 1
    before = result.read(row.name)
    found.write(row.name)
    print(f"{row.name}: {len(found.held)} held; lost: {found.lost or 'nothing'}; with {found.line or 'no'} option: ")
    print(f"    {found.lost_with_line}", flush=True)
    return 1 if before is not None and found.lost.keys() - before.lost.keys() else 0


def _versions(row: Row, done: Rehearsal) -> tuple[str, ...]:
    """Return the versions of what was rehearsed: packages, or the interpreter."""
    if row.needs == "node":
        return (f"Node {subprocess.check_output(['node', '--version'], text=True).strip().removeprefix('v')}",)
    return row.requirements or (f"Python {done.versions['python']}",)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

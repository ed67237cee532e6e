"""Rehearse the stop of each framework's agent: `python -m tests.rehearsals [--all | --quick | --table | NAME...]`.

NAME... or --all keeps the results in `results/` and writes the table in docs/agents.md; --table only writes it.
--quick rehearses a few in a few ways and keeps nothing. The exit code is 1 if a result is not the kept one.
"""

from __future__ import annotations

import sys

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
    """Rehearse a row, and again with the options that it advises; keep the result. Return 1 if it has changed."""
    if missing := row.missing():
        print(f"{row.name}: skipped, {missing} is not here")
        return 0
    try:
        done = play.play(row)
        found = result.summarise(done, row.requirements)
        if variables := result.variables_of(done):
            with_line = result.summarise(play.play(row, **variables), row.requirements)
            found = result.with_line(found, with_line)
    except play.Failed as failure:
        print(failure)
        return 1
    before = result.read(row.name)
    found.write(row.name)
    print(f"{row.name}: {len(found.held)} held; lost: {found.lost or 'nothing'}; with {found.line or 'no'} option: ")
    print(f"    {found.lost_with_line}", flush=True)
    return 0 if before is None or before.lost.keys() == found.lost.keys() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Run the trials, and write what was seen into docs/containers.md: `python -m tests.kubernetes.table`.

It takes about five minutes. `nox -s kubernetes` fails where a run and the page differ.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from . import cluster, image, trials
from .pods import Watch
from .running import run_restarts, run_together
from .trial import INITS, Key

PAGE = Path(__file__).parents[2] / "docs" / "containers.md"
SECTION = re.compile(r"(<!-- kubernetes: [^\n]*-->\n).*?(<!-- end of kubernetes -->)", re.DOTALL)


def rendered(outcomes: Mapping[Key, str]) -> str:
    """The tables, one for each group of trials."""
    parts = []
    for heading, group in trials.HEADINGS.items():
        rows = [_row(f"**{heading}**", *INITS), "|---" * (1 + len(INITS)) + "|\n"]
        rows += [
            _row(trial.text, *(outcomes.get((name, init), "-") for init in INITS)) for name, trial in group.items()
        ]
        parts.append("".join(rows))
    return "\n".join(parts)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |\n"


def written() -> str:
    """The tables as they are in the page."""
    found = SECTION.search(PAGE.read_text())
    assert found
    return found[0].removeprefix(found[1]).removesuffix(found[2])


def main() -> int:
    with cluster.running_cluster() as made:
        made.import_image(image.make(made.root))
        watch = Watch(made)
        outcomes = run_together(watch).outcomes | run_restarts(watch).outcomes
    table = rendered(outcomes)
    PAGE.write_text(SECTION.sub(lambda found: f"{found[1]}{table}{found[2]}", PAGE.read_text()))
    wrong = [
        f"{name} under {init}: {seen}, not {expected}"
        for (name, init), seen in outcomes.items()
        if seen != (expected := trials.ALL[name].expected(init))
    ]
    print("\n".join(wrong) or "every outcome is the expected one")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

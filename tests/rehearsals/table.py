"""The table in docs/agents.md, made of the results that are kept."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from . import result
from .result import Result
from .rows import EXAMPLES, REHEARSED, ROOT, ROWS, Row

PAGE = ROOT / "docs" / "agents.md"
SECTION = re.compile(r"(<!-- rehearsals: [^\n]*-->\n).*?(<!-- end of rehearsals -->)", re.DOTALL)
HEADINGS = ("agent", "version", "date", "held", "lost", "TERM to all", "longest drain", "line to write")
TO_ALL = "term-to-all"
NOTHING = "-"


def rendered() -> str:
    """Return the table."""
    lines = [_line(HEADINGS), "|---" * len(HEADINGS) + "|"]
    return "\n".join([*lines, *(_line(_cells(row)) for row in ROWS)]) + "\n"


def written() -> str:
    """Return the table as it is in the page."""
    found = SECTION.search(PAGE.read_text())
    assert found
    return found[0].removeprefix(found[1]).removesuffix(found[2])


def write() -> None:
    """Write it into the page."""
    PAGE.write_text(SECTION.sub(lambda found: f"{found[1]}{rendered()}{found[2]}", PAGE.read_text()))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _cells(row: Row) -> list[str]:
    kept = result.read(row.name) if row.script else None
    if kept is not None:
        return cells(_title(row), kept, result.options(row.variables))
    reason = row.reason or "no result is kept"
    return [_title(row), f"not rehearsed: {reason}", *[NOTHING] * (len(HEADINGS) - 2)]


def cells(title: str, kept: Result, given: str = "") -> list[str]:
    """Return the cells of a row that was rehearsed. `given`: the options that its script has."""
    return [
        title,
        ", ".join(_short(version) for version in kept.versions[:1]) or NOTHING,
        kept.date,
        f"{len(kept.held)} of {len(kept.held) + len(kept.lost)}",
        _names(kept.lost),
        "lost" if kept.informational.get(TO_ALL) else "held" if TO_ALL in kept.informational else NOTHING,
        NOTHING if kept.drain is None else f"{round(kept.drain, 1):g} s",
        _written_line(kept, given),
    ]


def _title(row: Row) -> str:
    if not row.script:
        return row.title
    return f"[{row.title}](../{row.path.relative_to(ROOT)})"


def _short(requirement: str) -> str:
    """`celery[redis]==5.7.0` -> `celery 5.7.0`."""
    return re.sub(r"\[.*\]", "", requirement).replace("==", " ")


def _names(scenarios: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in scenarios) or NOTHING


def _written_line(kept: Result, given: str) -> str:
    """Return the agent's line, with the options that its script has, and those that the rehearsal has found."""
    options = " ".join(option for option in (given, kept.line, "-e 143" * kept.ends_by_signal) if option)
    line = f"`agent-init {options} -- {kept.command}`" if options else f"`agent-init -- {kept.command}`"
    if kept.chosen:
        line += f" (agent-init sends {kept.chosen})"
    if kept.lost_with_line:
        line += f"; then lost: {_names(kept.lost_with_line)}"
    return line


def stale_results() -> list[Path]:
    """Return results of rows that there are no more."""
    return [path for path in sorted(result.RESULTS.glob("*.json")) if path.stem not in REHEARSED]


def scripts_without_a_row() -> list[Path]:
    """Return scripts of rehearsals that no row names."""
    used = {row.path for row in REHEARSED.values()}
    scripts = [path for path in sorted(EXAMPLES.glob("*/*.sh")) if "agent-initctl rehearse" in path.read_text()]
    return [path for path in scripts if path not in used]

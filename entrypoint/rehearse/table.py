"""A rehearsal as text for a terminal."""

from __future__ import annotations

from . import summary
from .model import Rehearsal, Verdict
from .text import columns, pad, printable, printable_lines, wrap

TITLE = "scenario"
LEAST_TITLE = 18  # columns for a title; with less, the fields stand below it
GAP = "  "
COLOURS = {Verdict.HELD: "32", Verdict.LOST: "1;31", Verdict.INFORMATIONAL: "36", Verdict.SKIPPED: "33"}  # ECMA-48, SGR


def render(rehearsal: Rehearsal, width: int, color: bool = False) -> str:
    """Return the table, the summary and the lines to write, for a terminal of `width` columns.

    Only a line to write may be longer: it is for pasting, and never broken.
    """
    rows = summary.rows(rehearsal)
    lines = _table(rows, width, color) if rows else []
    legend = []
    if any("/" in row.drain for row in rows):
        legend += wrap("drain: the median and the longest of several runs", width)
    if any(row.verdict is Verdict.INFORMATIONAL for row in rows):
        legend += wrap("info: for information, not judged", width)
    lines += ["", *legend] if legend else []
    lines += ["", *wrap(summary.sentence(rehearsal), width)]
    for note in rehearsal.notes:
        lines += wrap(printable(note), width)
    lines += _advice(rehearsal, width)
    return "\n".join(line.rstrip() for line in lines).strip("\n") + "\n"


def _table(rows: list[summary.Row], width: int, color: bool) -> list[str]:
    widths = [
        max(columns(heading), *(columns(row.fields[place]) for row in rows))
        for place, heading in enumerate(summary.HEADINGS)
    ]
    title = width - sum(widths) - len(GAP) * len(widths)
    stacked = title < LEAST_TITLE
    title = min(title, max(len(TITLE), *(columns(row.title) for row in rows)))
    lines = [] if stacked else [GAP.join([pad(TITLE, title), *map(pad, summary.HEADINGS, widths)])]
    for row in rows:
        lines += _stacked(row, width, color) if stacked else _line(row, title, widths, color)
        lines += _below(row, width)
    return lines


def _painted(text: str, verdict: Verdict, color: bool) -> str:
    return f"\x1b[{COLOURS[verdict]}m{text}\x1b[0m" if color else text


def _line(row: summary.Row, title: int, widths: list[int], color: bool) -> list[str]:
    """Return the line of a scenario, and what of its title does not fit below it."""
    first, *rest = wrap(row.title, title)
    *fields, _ = map(pad, row.fields, widths)
    return [GAP.join([pad(first, title), *fields, _painted(row.outcome, row.verdict, color)]), *rest]


def _stacked(row: summary.Row, width: int, color: bool) -> list[str]:
    """Return a scenario for a narrow terminal: the title, and below it the verdict and the fields."""
    fields = [
        f"{heading} {field}"
        for heading, field in zip(summary.HEADINGS[:-1], row.fields[:-1], strict=True)
        if field != summary.NOTHING
    ]
    title = wrap(row.title, width)
    if columns(title[-1]) + len(GAP) + columns(row.outcome) <= width:
        title[-1] += GAP + _painted(row.outcome, row.verdict, color)
    else:
        title.append(_painted(row.outcome, row.verdict, color))
    return [*title, *(GAP + line for line in wrap(", ".join(fields), width - len(GAP)) if fields)]


def _below(row: summary.Row, width: int) -> list[str]:
    """Return why the scenario did not hold."""
    lines = []
    for text in [*summary.reasons(row), *summary.evidence(row)]:
        first, *rest = wrap(text, width - 2 * len(GAP))
        lines += [f"{GAP}- {first}", *(GAP * 2 + line for line in rest)]
    return lines


def _advice(rehearsal: Rehearsal, width: int) -> list[str]:
    """Return what to write. The reasons are comments, so that a whole group can be pasted."""
    lines = ["", "What to write"] if rehearsal.advice else []
    for where, group in summary.advice(rehearsal).items():
        lines += ["", *wrap(f"{printable(where)}:", width)]
        for advice in group:
            lines += [f"{GAP}# {line}" for line in wrap(printable(advice.reason), width - 4)]
            lines += [GAP + line for line in printable_lines(advice.line)]
    return lines

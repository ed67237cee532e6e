"""What the samples come to: medians, ratios, verdicts; as tables in Markdown."""

from __future__ import annotations

import math
import os
import platform
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .contenders import FLOOR, OURS, REFERENCE
from .figures import FIGURES, Figure

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MET, MISSED, BROKEN = "met", "MISSED", "BROKEN"

HEAD = """# agent-init beside its peers

Written by `python -m bench`, whose [README](../bench/README.md) says what each figure is. Medians over the rounds of
one run in which all inits take turns; `x tini` and `x floor` are ratios to the medians of these two.
"""


@dataclass(frozen=True)
class Line:
    """One init's samples of one figure; `verdict` is empty where no target holds for it."""

    median: float
    low: float
    p99: float
    high: float
    count: int
    to_reference: float | None
    to_floor: float | None
    verdict: str


def judge(samples: Mapping[str, Mapping[str, list[float]]]) -> dict[str, dict[str, Line]]:
    """The lines of the tables, by figure and init."""
    table: dict[str, dict[str, Line]] = {}
    for key, figure in FIGURES.items():
        average = statistics.mean if figure.share else statistics.median
        medians = {name: average(values) for name, values in samples.get(key, {}).items()}
        table[key] = {}
        for name, median in medians.items():
            values = sorted(samples[key][name])
            table[key][name] = Line(
                median,
                values[0],
                values[math.ceil(len(values) * 0.99) - 1],
                values[-1],
                len(values),
                _ratio(median, medians.get(REFERENCE)),
                _ratio(median, medians.get(FLOOR)),
                _verdict(figure, median, values[0], medians) if name in OURS else "",
            )
    return table


def _ratio(value: float, to: float | None) -> float | None:
    return value / to if to else None


def _verdict(figure: Figure, median: float, least: float, medians: Mapping[str, float]) -> str:
    """Broken is what not even the best run gets near its target: the others may have met a busy machine."""
    if figure.limit == math.inf:
        return ""
    unit = medians.get(figure.of) if figure.of else 1.0
    if unit is None:
        return ""  # the one to compare with is missing
    return BROKEN if least > figure.broken * unit else MISSED if median > figure.limit * unit else MET


def verdicts(table: Mapping[str, Mapping[str, Line]], wanted: Iterable[str]) -> list[str]:
    """Each figure and init with one of these verdicts, in words."""
    return [
        f"{FIGURES[key].title}{f', {FIGURES[key].at}' if FIGURES[key].at else ''}: {name}, {number(line.median)}"
        f"{f' {FIGURES[key].unit}' if FIGURES[key].unit else ''} ({FIGURES[key].target})"
        for key, lines in table.items()
        for name, line in lines.items()
        if line.verdict in wanted
    ]


# --- As text. -------------------------------------------------------------------------------------------------------


def tables(table: Mapping[str, Mapping[str, Line]], order: Sequence[str]) -> str:
    """A section for each title, and in it a table for each figure, with the inits in this order."""
    said: list[str] = []
    shown = ""
    for key, lines in table.items():
        figure = FIGURES[key]
        if not lines:
            continue
        if figure.title != shown:
            shown = figure.title
            remarks = (
                figure.unit,
                "more is better" * figure.more_is_better,
                f"target: {figure.target}" * bool(figure.target),
            )
            remark = "; ".join(filter(None, remarks))
            said.append(f"## {shown}\n" + f"\n({remark})\n" * bool(remark))
        columns = _columns(figure, lines)
        rows = [[name, *(column.get(name, "") for column in columns.values())] for name in order if name in lines]
        said.append(_grid([[figure.at, *columns], *rows]))
    return "\n".join(said)


def summary(table: Mapping[str, Mapping[str, Line]]) -> str:
    """A line for each figure: agent-init as it comes, beside the two that it is compared with."""
    ours = OURS[0]
    rows = [["", "unit", ours, REFERENCE, f"x {REFERENCE}", FLOOR, f"x {FLOOR}", "target"]]
    for key, lines in table.items():
        figure = FIGURES[key]
        if ours in lines:
            line = lines[ours]
            row = [f"{figure.title}{f', {figure.at}' if figure.at else ''}", figure.unit, number(line.median)]
            for name, ratio in ((REFERENCE, line.to_reference), (FLOOR, line.to_floor)):
                row += [number(lines[name].median) if name in lines else "", _times(ratio)]
            rows.append([*row, f"{figure.target}: {line.verdict}" if line.verdict else ""])
    return _grid(rows) if len(rows) > 1 else ""


def _columns(figure: Figure, lines: Mapping[str, Line]) -> dict[str, dict[str, str]]:
    """Column heads, each with the cells by init; ratios only where there is one to compare with."""
    columns = {
        "mean" if figure.share else "median": {name: number(line.median) for name, line in lines.items()},
        "p99": {name: number(line.p99) for name, line in lines.items()} if figure.tail else {},
        "min to max": {name: f"{number(line.low)} to {number(line.high)}" for name, line in lines.items()},
        f"x {REFERENCE}": {name: _times(line.to_reference) for name, line in lines.items()},
        f"x {FLOOR}": {name: _times(line.to_floor) for name, line in lines.items()},
        "n": {name: str(line.count) for name, line in lines.items()},
        "target": {name: line.verdict for name, line in lines.items()},
    }
    return {head: cells for head, cells in columns.items() if any(cells.values())}


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}" if ratio < 100 else f"{ratio:,.0f}"


def number(value: float) -> str:
    """Three digits, or all of those before the point."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _grid(rows: list[list[str]]) -> str:
    """A table in Markdown that can be read as text too."""
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [
        "| "
        + " | ".join(
            f"{cell:<{w}}" if not at else f"{cell:>{w}}" for at, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in (rows[0], rule, *rows[1:])
    ]
    return "\n".join(lines) + "\n"


# --- Where it was measured. -----------------------------------------------------------------------------------------


def machine(python: Path) -> dict[str, str]:
    """What the figures depend on."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "unknown")
    return {
        "date": time.strftime("%Y-%m-%d"),
        "agent-init": _first_line(str(python.parent / "agent-init"), "--version"),
        "Python": _first_line(str(python), "-VV"),
        "processors": f"{os.cpu_count()} x {models[0].partition(':')[2].strip() if models else platform.machine()}",
        "memory": f"{memory:.0f} GiB",
        "kernel": platform.release(),
        "system": system,
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


def _first_line(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")[0]
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def page(
    table: Mapping[str, Mapping[str, Line]],
    order: Sequence[str],
    about: Mapping[str, str],
    missed: Sequence[str],
    failed: Sequence[str],
) -> str:
    """All of it."""
    facts = "\n".join(f"- {key}: {value}" for key, value in about.items())
    results = [
        _listed("Targets missed", missed, "All targets are met."),
        _listed("Failed", failed, "No run failed."),
    ]
    return "\n".join([HEAD, f"{facts}\n", *results, summary(table), tables(table, order)])


def _listed(title: str, lines: Sequence[str], otherwise: str) -> str:
    return f"{title}:\n\n" + "".join(f"- {line}\n" for line in lines) if lines else f"{otherwise}\n"

"""Judge the samples and render them as Markdown: the page docs/bench.md, all tables, a comparison of two trees."""

from __future__ import annotations

import math
import os
import platform
import random
import re
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .contenders import EVERYTHING, FLOOR, JUDGED, OURS, POLL_LOOP, REFERENCE, WITH_PYTHONPATH
from .figures import FIGURES, Figure, figure_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    Table = Mapping[str, Mapping[str, "Line"]]  # by figure and init
    Samples = Mapping[str, Mapping[str, list[float]]]  # by figure and init

MET, MISSED, BROKEN = "met", "MISSED", "BROKEN"
BARE, BY_ENVIRONMENT, BY_FLAGS = OURS

# The rows of docs/bench.md: what, the figure, agent-init's form.
ROWS = (
    ("Start of the agent", "start", BARE),
    ("the same, 5 settings as variables", "start", BY_ENVIRONMENT),
    ("the same, 5 settings as flags", "start", BY_FLAGS),
    ("the same, everything switched on", "start", EVERYTHING),
    ("the same, PYTHONPATH set", "start", WITH_PYTHONPATH),
    ("Start until a TERM is no longer lost", "safe", BARE),
    ("the same, PYTHONPATH set", "safe", WITH_PYTHONPATH),
    ("Forwarded signal, 1 process", "signal/1", BARE),
    ("the same, everything switched on", "signal/1", EVERYTHING),
    ("Forwarded signal, 100 processes", "signal/100", BARE),
    ("Forwarded signal, 5,000 processes", "signal/5000", BARE),
    ("Forwarded signal, control socket flooded", "flood", BARE),
    ("Private memory at rest", "private/rest", BARE),
    ("the same, everything switched on", "private/rest", EVERYTHING),
    ("From the agent's exit to the init's", "exit", BARE),
    ("Delay of a 1 s deadline", "deadline", BARE),
    ("Wake-ups in 30 idle seconds (3 with `--quick`)", "wakeups", BARE),
    ("the same, everything switched on", "wakeups", EVERYTHING),
    ("Probe: `agent-initctl live`", "probe/live", BARE),
    ("Probe: `agent-initctl ready`", "probe/ready", BARE),
)
# Its columns: the inits beside agent-init.
PEERS = {
    FLOOR: FLOOR,
    POLL_LOOP: "poll loop",
    REFERENCE: REFERENCE,
    "dumb-init -c": "dumb-init",
    "catatonit": "catatonit",
    "pid1": "pid1",
    "s6-svscan": "s6",
    "supervisord": "supervisord",
    "circus": "circus",
}
PAGE = """# agent-init beside its peers

Written by `python -m bench`; do not edit. Measured on {date}, {measured}:
{agent-init}, {Python short}, {processors}, {memory}, Linux {kernel}, {system}.
Load before: {load before}. Inits not installed: {missing}.

In each round, all inits take turns in random order, each as process 1 of a new PID namespace. The table has the medians
over all rounds.

{results}
{table}
- *floor*: a Python interpreter that executes the agent at once. No init in Python can start an agent sooner. The agent
  is then process 1 itself, so the other figures of this column are the kernel's own.
- *poll loop*: the smallest process 1 in Python that forwards signals (`bench/poll_loop.py`). It looks at nothing and
  logs nothing; no init in Python can forward a signal or exit sooner, or take less memory.
- *Start*: from the exec of process 1 to the first statement of the agent. *No longer lost*: from then on process 1 has
  blocked or handles TERM.
- *Forwarded signal*: from the sender's `kill` to the agent's handler, back to back, by the number of processes in the
  tree. s6 forwards it with a script.
- *Everything switched on*: `--http`, `--loop-watch`, `--stacks` and `--ready-file`; the control socket is open in any
  case. The HTTP server is a process of its own, and in none of these figures.
- *Control socket flooded*: each signal after 2 ms of rest, while ten clients send garbage, send nothing, do not read,
  pass descriptors, or ask without a pause. *Another flooded*: they do that to another process 1 meanwhile, and take the
  same processor time.
- *Probe*: from before the start of the command to its exit, below agent-init, in turns with the floor, which is the
  same interpreter with the same flags: `python -I -S -c pass`.
- *Private memory*: of the init's own processes, not shared with any other program.
- *Delay of a deadline*: an agent ignores TERM; from 1 s after TERM until the init has killed it and has exited.
- An empty cell: the init does not do this. supervisord and circus forward no signals and do not exit with the agent,
  pid1 forwards TERM and INT only, and tini, dumb-init and catatonit have no deadline.
{pythons}
## All tables and plots

Bursts of signals, orphans, stops of large trees, agents behind a shell and more, each with its spread, are measured in
the same run. `python -m bench --full DIR` writes the tables (`tables.md`), the figures as JSON (`figures.json`) and the
plots (`*.svg`) into DIR. [bench/README.md](../bench/README.md) explains every figure.
"""
PYTHONS = """
## On other Pythons

Each Python in a run of its own, beside its own floor and tini. All but the one above are those of Debian sid, in a root
of their own on the same machine.

{table}"""


@dataclass(frozen=True)
class Line:
    """One init's samples of one figure, in the figure's unit. `verdict` is empty if no target applies."""

    median: float
    low: float
    p99: float
    high: float
    count: int
    to_reference: float | None
    to_floor: float | None
    to_target: float | None  # to the median of what the target is a multiple of
    verdict: str


def judge(samples: Samples) -> dict[str, dict[str, Line]]:
    """Return the lines of the tables, by figure and init."""
    table: dict[str, dict[str, Line]] = {}
    for key, figure in FIGURES.items():
        average = statistics.mean if figure.is_share else statistics.median
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
                _ratio(median, medians.get(figure.of)),
                _verdict(figure_of(key, name), median, values[0], medians) if name in JUDGED else "",
            )
    return table


def _ratio(value: float, to: float | None) -> float | None:
    return value / to if to else None


def _verdict(figure: Figure, median: float, least: float, medians: Mapping[str, float]) -> str:
    """BROKEN means that even the best run is above `broken`; a busy machine may have slowed the others."""
    if figure.limit == math.inf:
        return ""
    unit = medians.get(figure.of) if figure.of else 1.0
    if unit is None:
        return ""  # the init to compare with was not measured
    return BROKEN if least > figure.broken * unit else MISSED if median > figure.limit * unit else MET


def verdicts(table: Table, wanted: Iterable[str]) -> list[str]:
    """Return a line of text for each figure and init with one of these verdicts."""
    return [
        f"{figure.title}{f', {figure.at}' if figure.at else ''}: {name}, {number(line.median)}"
        f"{f' {figure.unit}' if figure.unit else ''} ({figure.target})"
        for key, lines in table.items()
        for name, line in lines.items()
        if line.verdict in wanted
        for figure in [figure_of(key, name)]
    ]


# --- The page docs/bench.md. ----------------------------------------------------------------------------------------


def page(
    table: Table,
    about: Mapping[str, str],
    missed: Sequence[str],
    failed: Sequence[str],
    runs: Sequence[Mapping[str, Any]],
) -> str:
    """Return the short page. `about`: see `machine`. `runs`: the figures of each Python, as `--figures` writes them."""
    results, pythons = _results(missed, failed), _by_python(runs) if len(runs) > 1 else ""
    short = {"Python short": _short(about["Python"])}
    return PAGE.format(table=_page_table(table), results=results, pythons=pythons, **about, **short)


def _by_python(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return a section with the targets on each Python. Each run has its own floor and its own tini."""
    runs = sorted(runs, key=lambda run: [int(part) for part in re.findall(r"\d+", _short(run["machine"]["Python"]))])
    rows = [["median", "at most", *(_short(run["machine"]["Python"]) for run in runs)]]
    for title, key, form in ROWS:
        figure = figure_of(key, form)
        inits = {form: title, POLL_LOOP: "the same, poll loop"} if form == BARE else {form: title}
        for init, name in inits.items():
            lines = [run["figures"].get(key, {}).get(init) for run in runs]
            if any(lines):
                target = figure.target.removeprefix("at most ") if init == form else ""
                rows.append([name, target, *(_on_python(figure, Line(**line)) if line else "" for line in lines)])
    return PYTHONS.format(table=_grid(rows))


def _on_python(figure: Figure, line: Line) -> str:
    unit = f" {figure.unit}" if figure.unit else ""
    shown = f"{number(line.median)}{unit}"
    if figure.of and line.to_target:
        shown += f" ({_times(line.to_target)} x)"
    return f"{shown}: {line.verdict}" if line.verdict else shown


def _short(version: str) -> str:
    return version.partition(" (")[0]


def _page_table(table: Table) -> str:
    measured = {name for _, key, _ in ROWS for name in table.get(key, {})}
    peers = {name: head for name, head in PEERS.items() if name in measured}
    rows = [["median", "unit", BARE, "target", *peers.values()]]
    for title, key, form in ROWS:
        lines, figure = table.get(key, {}), figure_of(key, form)
        if form in lines:
            others = [number(lines[name].median) if name in lines and form == BARE else "" for name in peers]
            rows.append([title, figure.unit, number(lines[form].median), _target(figure, lines[form]), *others])
    return _grid(rows)


def _target(figure: Figure, line: Line) -> str:
    """Return `1.17 x floor (at most 1.2): met`, or `at most 1.5 ms: met`."""
    if figure.of:
        ratio = _times(line.to_target)
        return f"{ratio} x {figure.of} (at most {figure.limit:g}): {line.verdict}" if ratio else ""
    return f"{figure.target}: {line.verdict}" if line.verdict else ""


def _results(missed: Sequence[str], failed: Sequence[str]) -> str:
    return "\n".join(
        f"{title}:\n\n" + "".join(f"- {line}\n" for line in lines) if lines else f"{otherwise}\n"
        for title, lines, otherwise in (
            ("Targets missed", missed, "All targets are met."),
            ("Failed", failed, "No run failed."),
        )
    )


# --- All tables. ----------------------------------------------------------------------------------------------------


def full(
    table: Table, order: Sequence[str], about: Mapping[str, str], missed: Sequence[str], failed: Sequence[str]
) -> str:
    """Return all tables, with the inits in this order."""
    facts = "".join(f"- {key}: {value}\n" for key, value in about.items())
    head = "# agent-init beside its peers: all tables\n\nMedians; `x` is the ratio to the median of that init.\n"
    return "\n".join([head, facts, _results(missed, failed), _tables(table, order)])


def _tables(table: Table, order: Sequence[str]) -> str:
    """Return a section for each title with a table for each figure."""
    parts: list[str] = []
    current = ""
    for key, lines in table.items():
        figure = FIGURES[key]
        if not lines:
            continue
        if figure.title != current:
            current = figure.title
            remarks = (
                figure.unit,
                "more is better" * figure.more_is_better,
                f"target: {figure.target}" * bool(figure.target),
            )
            remark = "; ".join(filter(None, remarks))
            parts.append(f"## {current}\n" + f"\n({remark})\n" * bool(remark))
        columns = _columns(figure, lines)
        rows = [[name, *(column.get(name, "") for column in columns.values())] for name in order if name in lines]
        parts.append(_grid([[figure.at, *columns], *rows]))
    return "\n".join(parts)


def _columns(figure: Figure, lines: Mapping[str, Line]) -> dict[str, dict[str, str]]:
    """Return the cells by column head and init, without empty columns."""
    columns = {
        "mean" if figure.is_share else "median": {name: number(line.median) for name, line in lines.items()},
        "p99": {name: number(line.p99) for name, line in lines.items()} if figure.has_tail else {},
        "min to max": {name: f"{number(line.low)} to {number(line.high)}" for name, line in lines.items()},
        f"x {REFERENCE}": {name: _times(line.to_reference) for name, line in lines.items()},
        f"x {FLOOR}": {name: _times(line.to_floor) for name, line in lines.items()},
        "n": {name: str(line.count) for name, line in lines.items()},
        "target": {name: line.verdict for name, line in lines.items()},
    }
    return {head: cells for head, cells in columns.items() if any(cells.values())}


# --- Two source trees. ----------------------------------------------------------------------------------------------


def comparison(samples: Samples, this: str, other: str) -> str:
    """Return a table of two trees, by their labels: medians, and their ratio with its 95 % interval (bootstrap)."""
    rows = [["median", "unit", this, other, f"{this} / {other}", "95 % of resamples", "n"]]
    for key in ("start", "private/rest", "pss/rest", "signal/1", "signal-rested"):
        figure, lines = FIGURES[key], samples.get(key, {})
        for form in OURS:
            ours, theirs = (lines.get(f"{form} ({label})", []) for label in (this, other))
            if ours and theirs:
                low, high = _ratio_interval(ours, theirs)
                medians = statistics.median(ours), statistics.median(theirs)
                cells = [f"{value:.2f}" for value in medians] + [f"{medians[0] / medians[1]:.3f}"]
                title = f"{figure.title}{f', {figure.at}' if figure.at else ''}: {form}"
                rows.append([title, figure.unit, *cells, f"{low:.3f} to {high:.3f}", str(len(ours))])
    return _grid(rows)


def _ratio_interval(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float]:
    """Return the range of the ratio of the medians in 95 % of 1,000 resamples."""
    chance = random.Random(0)
    ratios = sorted(
        statistics.median(chance.choices(ours, k=len(ours))) / statistics.median(chance.choices(theirs, k=len(theirs)))
        for _ in range(1000)
    )
    return ratios[25], ratios[-26]


# --- Text. ----------------------------------------------------------------------------------------------------------


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}" if ratio < 100 else f"{ratio:,.0f}"


def number(value: float) -> str:
    """Return a number with three digits, or with all digits before the point."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _grid(rows: list[list[str]]) -> str:
    """Return a Markdown table with aligned columns."""
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


# --- The machine. ---------------------------------------------------------------------------------------------------


def machine(python: Path) -> dict[str, str]:
    """Return what the figures depend on, by name."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "date": time.strftime("%Y-%m-%d"),
        "agent-init": _first_line(str(python.parent / "agent-init"), "--version"),
        "Python": _first_line(str(python), "-VV"),
        "processors": f"{os.cpu_count()} x {models[0].partition(':')[2].strip() if models else platform.machine()}",
        "memory": f"{memory:.0f} GiB",
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "unknown"),
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


def _first_line(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")[0]
    except (OSError, subprocess.CalledProcessError):
        return "unknown"

"""Plots of cost against size, as SVG files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .contenders import FLOOR, OURS, REFERENCE, UVLOOP
from .figures import FIGURES, ORPHANS, STOPPED, TREES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from matplotlib.axes import Axes  # type: ignore[import-not-found, unused-ignore]

    from .report import Line

    Table = Mapping[str, Mapping[str, Line]]

AGENT_INIT = OURS[0]
COLOURS = {
    AGENT_INIT: "#c0392b",
    UVLOOP: "#e59866",
    REFERENCE: "#1f618d",
    "tini -g": "#5dade2",
    "dumb-init -c": "#117a65",
    "dumb-init": "#117a65",
    "catatonit": "#7d3c98",
    "pid1": "#b7950b",
    "s6-svscan": "#616a6b",
    "supervisord": "#a04000",
    "circus": "#d98880",
    FLOOR: "#000000",
}
NO_INIT = "no init"  # the floor, where the agent itself is process 1


def draw(table: Table, directory: Path, caption: str) -> None:
    """Draw a file for each plot that has figures. Raises ImportError without matplotlib."""
    import matplotlib  # type: ignore[import-not-found, unused-ignore]

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "bench", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot

    directory.mkdir(parents=True, exist_ok=True)
    plots = {
        "signals": (("signal", TREES), ("wrapped", TREES)),
        "stop": (("stop", STOPPED), ("kill", STOPPED)),
        "orphans": (("orphans", ORPHANS), ("zombie", ORPHANS)),
        "memory": (("private", ()),),
    }
    for name, panels in plots.items():
        shown = [(family, sizes) for family, sizes in panels if any(table[f"{family}/{at}"] for at in _keys(family))]
        if not shown:
            continue
        figure, axes = pyplot.subplots(
            1, len(shown), figsize=(4.6 * len(shown) + 1.8, 4), squeeze=False, layout="constrained"
        )
        for (family, sizes), axis in zip(shown, axes[0], strict=True):
            if sizes:
                _lines(axis, table, family, sizes)
            else:
                _bars(axis, table, family)
        labels = {
            label: line for axis in axes[0] for line, label in zip(*axis.get_legend_handles_labels(), strict=True)
        }
        figure.legend(labels.values(), labels.keys(), loc="outside right center", frameon=False)
        figure.supxlabel(caption, fontsize=7, color="#777777")
        figure.savefig(directory / f"{name}.svg", metadata={"Date": None})
        pyplot.close(figure)


def _keys(family: str) -> list[str]:
    return [key.partition("/")[2] for key in FIGURES if key.startswith(f"{family}/")]


def _lines(axis: Axes, table: Table, family: str, sizes: tuple[int, ...]) -> None:
    """Draw medians with a bar from the minimum to the maximum; both axes are logarithmic."""
    from matplotlib.ticker import NullLocator  # type: ignore[import-not-found, unused-ignore]

    for init, colour in COLOURS.items():
        points = [(size, line) for size in sizes if (line := table[f"{family}/{size}"].get(init))]
        if not points:
            continue
        medians = [line.median for _, line in points]
        spread = [[line.median - line.low for _, line in points], [line.high - line.median for _, line in points]]
        if FIGURES[
            f"{family}/{sizes[0]}"
        ].has_tail:  # up to the 99th percentile: the maximum is one signal of a thousand
            spread[1] = [line.p99 - line.median for _, line in points]
        axis.errorbar(
            [size for size, _ in points],
            medians,
            yerr=spread,
            marker="o",
            markersize=4,
            capsize=2,
            linewidth=2 if init == AGENT_INIT else 1,
            elinewidth=0.7,
            color=colour,
            label=NO_INIT if init == FLOOR else init,
        )
    figure = FIGURES[f"{family}/{sizes[0]}"]
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlabel("orphans that exit at once" if family in ("orphans", "zombie") else "processes in the tree")
    axis.set_ylabel(f"{figure.unit}, median; bars: min to {'p99' if figure.has_tail else 'max'}".lstrip(", "))
    axis.set_title(_folded(figure.title), fontsize=9)
    axis.grid(alpha=0.3)


def _bars(axis: Axes, table: Table, family: str) -> None:
    keys = [key for key in _keys(family) if table[f"{family}/{key}"]]
    inits = [init for init in COLOURS if any(init in table[f"{family}/{key}"] for key in keys)]
    for nth, key in enumerate(keys):
        lines = table[f"{family}/{key}"]
        places = [place + (nth - 1) * 0.27 for place, init in enumerate(inits) if init in lines]
        values = [lines[init].median for init in inits if init in lines]
        bars = axis.barh(
            places, values, 0.25, color=("#1f618d", "#c0392b", "#b7950b")[nth], label=FIGURES[f"{family}/{key}"].at
        )
        axis.bar_label(bars, fmt="%.2g", fontsize=7, padding=2)
    axis.set_yticks(range(len(inits)), inits)
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.set_xlabel("MiB, median")
    axis.margins(x=0.15)
    axis.set_title(FIGURES[f"{family}/{keys[0]}"].title, fontsize=9)
    axis.grid(axis="x", alpha=0.3)


def _folded(title: str) -> str:
    """Return a long title on two lines."""
    if len(title) < 50:
        return title
    middle = title.rfind(" ", 0, len(title) // 2 + 8)
    return f"{title[:middle]}\n{title[middle + 1 :]}"

"""A run as an SVG timeline: what happened, and the life of each process. Positions are percentages of its width.

So the text has its size on every screen. The page's style has the colours, by class; nothing here needs a script.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape

from . import summary
from .model import Life, Run
from .text import printable, shorten

BROKEN = "broken"  # the kind of a log line among the events
MARKED = ("request", "signal", "deadline", "kill", "end", "up", "work-end", "break", "note", BROKEN)
GRAVE = ("deadline", "kill", BROKEN)
MAX_LIVES = 60  # bars in a timeline; the list of processes has more
MAX_MARKS = 200  # lines of events
CLUSTER = 16.0  # per cent of the width: numbers that are nearer to each other share a label, also on a phone
TICKS = 4  # at least, where there is room; at most twice as many
LABEL = 48  # columns of a process's name
ROW, TOP, FOOT = 22, 34, 30  # pixels: a process, the events' numbers, the axis


@dataclass(frozen=True)
class Mark:
    """An event or a broken line, with its number in the list below the timeline."""

    number: int
    at: float  # seconds since the request, or since the start
    kind: str
    text: str


@dataclass(frozen=True)
class Span:
    """The part of a run's time that is shown: seconds since the request, or since the start if there was none."""

    first: float
    last: float

    def place(self, at: float) -> float:
        """Return where a time is, in per cent of the width. What is outside is at the edge."""
        if not self.first < self.last:
            return 0.0
        return min(100.0, max(0.0, (at - self.first) / (self.last - self.first) * 100))

    def shows(self, at: float) -> bool:
        """Whether it is inside."""
        return self.first <= at <= self.last


def zero(run: Run) -> float:
    """Return the time of the axis' zero, in seconds since the agent's start."""
    return run.request_at or 0.0


def marks(run: Run) -> list[Mark]:
    """Return what happened in a run, in its order, with the broken lines among it."""
    found = [
        (event.seconds, event.kind if event.kind in MARKED else "note", f"{event.kind}: {event.text}")
        for event in run.events
    ] + [(line.seconds, BROKEN, f"log: {line.line}") for line in run.broken_lines]
    found.sort(key=lambda mark: mark[0])
    return [
        Mark(number, seconds - zero(run), kind, printable(text))
        for number, (seconds, kind, text) in enumerate(found, 1)
    ]


def span(run: Run) -> Span:
    """Return what to show: the drain, and as much before it as leaves it at least two thirds of the width.

    The deadline is shown if that leaves it, too: an agent that ends in a second need not show a minute of nothing.
    """
    start = -zero(run)
    times = [run.end_at, *(life.ended for life in run.lives), *(line.seconds for line in run.broken_lines)]
    times += [event.seconds for event in run.events if event.kind != "deadline"]
    last = max([time - zero(run) for time in times if time is not None], default=0.0)
    deadlines = [event.seconds - zero(run) for event in run.events if event.kind == "deadline"]
    last = max([last, *(time for time in deadlines if time <= 2 * last)])
    if run.request_at is None or last <= 0:
        return Span(start, max(last, start + 0.001))
    return Span(max(start, -last / 2), last)


def ticks(of: Span) -> list[float]:
    """Return the times of the axis' ticks: round numbers, and zero among them."""
    length = of.last - of.first
    power = 10.0 ** math.floor(math.log10(length / TICKS))
    step = max(factor * power for factor in (1, 2, 5) if factor * power * TICKS <= length)
    return [number * step for number in range(math.ceil(of.first / step), math.floor(of.last / step) + 1)]


def render(run: Run, name: str) -> str:
    """Return the SVG element. `name`: unique in the page, for its text alternative."""
    of, found = span(run), marks(run)
    inside = [life for life in run.lives if life == run.lives[0] or _is_inside(life, of, zero(run))]
    lives = inside[:MAX_LIVES]
    more = len(inside) - len(lives)
    bottom = TOP + ROW * (len(lives) + (more > 0))
    height = bottom + FOOT
    parts = [
        f'<svg class="timeline" width="100%" height="{height}" role="img" aria-labelledby="{name}-title {name}-desc">',
        f'<title id="{name}-title">{_text(f"Timeline of {run.scenario.title}, run {run.number}")}</title>',
        f'<desc id="{name}-desc">{_text(description(run))}</desc>',
        *_axis(of, bottom, run.request_at is not None),
        *_lines(of, found, bottom),
    ]
    for row, life in enumerate(lives):
        parts += _bar(run, life, of, TOP + ROW * row, first=row == 0)
    if more:
        parts.append(f'<text class="name" x="0" y="{bottom - 6}">and {more} more</text>')
    parts += _numbers(of, found)
    return "\n".join([*parts, "</svg>"])


def _is_inside(life: Life, of: Span, zero_at: float) -> bool:
    """Whether any of a life is in the span: what has ended before is in the list of processes alone."""
    return life.ended is None or life.ended - zero_at >= of.first


def description(run: Run) -> str:
    """Return the timeline in a sentence or two, for who does not see it."""
    left = sum(life.ended is None for life in run.lives)
    known = f"{len(run.lives)} {'process was' if len(run.lives) == 1 else 'processes were'} seen"
    known += f", {left} left over. " if left else ". "
    if run.drain is None:
        return known + "The list of events has the times."
    return known + f"The agent ended {summary.seconds(run.drain)} after the request. The list of events has the times."


def _text(text: str) -> str:
    return escape(printable(text))


def seconds_text(seconds: float, signed: bool = False) -> str:
    """Return seconds for an axis: `0 s`, `0.25 s`, `-5 s` with a real minus sign."""
    rounded = f"{abs(seconds):.6g}"
    sign = "" if rounded == "0" else "\N{MINUS SIGN}" if seconds < 0 else "+" if signed else ""
    return f"{sign}{rounded} s"


def _axis(of: Span, bottom: int, requested: bool) -> list[str]:
    """Return the axis with its ticks, and the words for what it counts from."""
    parts = []
    for at in ticks(of):
        x = of.place(at)
        anchor = "start" if x < 4 else "end" if x > 96 else "middle"
        parts.append(f'<line class="grid" x1="{x:.2f}%" x2="{x:.2f}%" y1="{TOP - 4}" y2="{bottom + 4}"/>')
        parts.append(
            f'<text class="tick" x="{x:.2f}%" y="{bottom + 18}" text-anchor="{anchor}">{seconds_text(at)}</text>'
        )
    since = "the request" if requested else "the start"
    return [f'<g aria-hidden="true"><title>Seconds since {since}</title>', *parts, "</g>"]


def _lines(of: Span, found: list[Mark], bottom: int) -> list[str]:
    """Return a vertical line for each event that is in the span."""
    return [
        f'<line class="mark {mark.kind}" x1="{of.place(mark.at):.2f}%" x2="{of.place(mark.at):.2f}%" '
        f'y1="{TOP - 10}" y2="{bottom + 4}"><title>{_label(mark)}</title></line>'
        for mark in found[:MAX_MARKS]
        if of.shows(mark.at)
    ]


def _label(mark: Mark) -> str:
    return escape(f"{seconds_text(round(mark.at, 3), signed=True)} {mark.text}")


def _bar(run: Run, life: Life, of: Span, y: int, first: bool) -> list[str]:
    """Return the bar of a process and its name, which begins or ends with the bar: where there is more room."""
    began = of.place(life.began - zero(run))
    until = of.last if life.ended is None else life.ended - zero(run)
    ended = max(of.place(until), began)
    kind = "left" if life.ended is None else "agent" if first else "other"
    name = f"{shorten(printable(life.name), LABEL)} ({life.pid})" + (", left over" if life.ended is None else "")
    at_end = 100 - began < 45
    x, anchor, dx = (ended, "end", -4) if at_end else (began, "start", 4)
    times = f"from {seconds_text(round(life.began - zero(run), 3), signed=True)}"
    times += "" if life.ended is None else f" to {seconds_text(round(life.ended - zero(run), 3), signed=True)}"
    return [
        f"<g><title>{_text(f'{life.name}, pid {life.pid}, child of {life.parent}: {times}')}</title>",
        f'<rect class="bar {kind}" x="{began:.2f}%" width="{max(ended - began, 0.3):.2f}%" y="{y}" height="{ROW - 4}" '
        'rx="3"/>',
        f'<text class="name" x="{x:.2f}%" dx="{dx}" y="{y + 13}" text-anchor="{anchor}">{escape(name)}</text></g>',
    ]


def _numbers(of: Span, found: list[Mark]) -> list[str]:
    """Return the numbers of the events above the bars. Those near each other share one label."""
    groups: list[list[Mark]] = []
    for mark in found:
        if groups and of.place(mark.at) - of.place(groups[-1][0].at) < CLUSTER:
            groups[-1].append(mark)
        else:
            groups.append([mark])
    parts = []
    for group in groups:
        text = str(group[0].number) if len(group) == 1 else f"{group[0].number}\N{EN DASH}{group[-1].number}"
        width = 12 + 7 * len(text)
        grave = " grave" if any(mark.kind in GRAVE for mark in group) else ""
        x = of.place(group[0].at)
        beyond = "" if of.shows(group[0].at) else " beyond"
        title = "\n".join(_label(mark) for mark in group[:20])
        inside = width * x / 100  # how far the label reaches to the left, so that none sticks out
        parts.append(
            f'<g class="number{grave}{beyond}"><title>{title}</title>'
            f'<rect x="{x:.2f}%" y="2" width="{width}" height="18" rx="9" transform="translate({-inside:.1f})"/>'
            f'<text x="{x:.2f}%" y="15" text-anchor="middle" transform="translate({width / 2 - inside:.1f})">'
            f"{text}</text></g>"
        )
    return parts

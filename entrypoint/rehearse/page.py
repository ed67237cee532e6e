"""A rehearsal as one HTML page that needs nothing but itself: no script, no request, and a policy that forbids both."""

from __future__ import annotations

import base64
import hashlib
import shlex
from html import escape
from importlib import resources
from string import Template

from . import summary, timeline
from .model import Advice, Life, Rehearsal, Run, Verdict
from .text import plural, printable, printable_lines

MANY_RUNS = 3  # of one scenario: when there are more, only lost ones are shown at once, and no more than these
MANY_EVENTS = 15  # of one run: a longer list is closed
HEADINGS = {"work": "work", "left": "left over"}


def render(rehearsal: Rehearsal) -> str:
    """Return the page. Everything in it that the rehearsal brings is escaped."""
    style = _data("page.css")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    rows = summary.rows(rehearsal)
    result, longest = _result(rows), summary.longest_drain(rehearsal.runs) or 0.0
    command = shlex.join(rehearsal.command)
    return Template(_data("page.html")).substitute(
        style=style,
        style_hash=f"sha256-{digest}",
        title=_text(f"Rehearsal of {command}"),
        command=_text(command),
        result=result,
        sentence=_text(summary.sentence(rehearsal)),
        facts=_facts(rehearsal),
        notes=_list([printable(note) for note in rehearsal.notes], "notes"),
        headings="".join(f'<th role="columnheader" scope="col">{name}</th>' for name in ("scenario", *_headings())),
        rows="\n".join(_row(row, place, longest) for place, row in enumerate(rows)),
        legend=_legend(rows, longest),
        advice=_advice(rehearsal),
        runs="\n".join(_scenario(row, place, not place and result != "lost") for place, row in enumerate(rows)),
        footer=_footer(rehearsal),
    )


def _data(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _text(text: str) -> str:
    """Return foreign text for HTML, as content or within quotes."""
    return escape(printable(text))


def _list(items: list[str], kind: str) -> str:
    """Return a list of printable texts, or nothing."""
    if not items:
        return ""
    return f'<ul class="{kind}">' + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def _result(rows: list[summary.Row]) -> str:
    verdicts = {row.verdict for row in rows if row.scenario.counts}
    return "lost" if Verdict.LOST in verdicts else "held" if Verdict.HELD in verdicts else "none"


def _headings() -> list[str]:
    return [HEADINGS.get(heading, heading) for heading in summary.HEADINGS]


def _facts(rehearsal: Rehearsal) -> str:
    modes = ", ".join(dict.fromkeys(str(run.mode) for run in rehearsal.runs))
    facts = {
        "up": rehearsal.up,
        "work": rehearsal.work or "none: the ending alone was judged",
        "agent-init as": modes,
        "runs": str(len(rehearsal.runs)),
        "seed": str(rehearsal.seed),
        "began": rehearsal.began,
    }
    return "".join(f"<dt>{name}</dt><dd>{_text(value)}</dd>" for name, value in facts.items() if value)


def _footer(rehearsal: Rehearsal) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in rehearsal.versions.items())
    return f"Made by <code>agent-initctl rehearse</code>{_text(f': {versions}') if versions else ''}."


def _verdict(verdict: Verdict, text: str) -> str:
    return f'<span class="verdict {verdict.value}">{escape(text)}</span>'


def _row(row: summary.Row, place: int, longest: float) -> str:
    """Return the row of a scenario; its title leads to its runs."""
    cells = [f'<th role="rowheader" scope="row"><a href="#s{place}">{escape(row.title)}</a></th>']
    for heading, field in zip(_headings(), row.fields, strict=True):
        inner = escape(field)
        if heading == "drain":
            inner += _dots(row, longest)
        elif heading == "verdict":
            inner = _verdict(row.verdict, field)
        cells.append(
            f'<td role="cell" class="of-{heading.split()[0]}" data-label="{heading}"><span>{inner}</span></td>'
        )
    return '<tr role="row">' + "".join(cells) + "</tr>"


def _dots(row: summary.Row, longest: float) -> str:
    """Return a dot for the drain of each run, on a scale that all scenarios share."""
    drains = [(run.drain, run.verdict) for run in row.runs if run.drain is not None]
    if not drains or not longest:
        return ""
    dots = "".join(
        f'<circle cx="{2 + 96 * drain / longest:.1f}%" cy="5" r="4"{_lost_class(verdict)}/>'
        for drain, verdict in drains
    )
    line = '<line x1="2%" x2="98%" y1="5" y2="5"/>'
    return f'<svg class="dots" width="100%" height="10" aria-hidden="true">{line}{dots}</svg>'


def _lost_class(verdict: Verdict) -> str:
    return ' class="lost"' if verdict is Verdict.LOST else ""


def _legend(rows: list[summary.Row], longest: float) -> str:
    words = []
    if longest:
        words.append(f"A dot is the drain of a run, from 0 to {summary.seconds(longest)}.")
    if any("/" in row.drain for row in rows):
        words.append("Of several runs: the median and the longest drain.")
    if any(row.verdict is Verdict.INFORMATIONAL for row in rows):
        words.append("info: for information, not judged.")
    return f'<p class="legend">{" ".join(words)}</p>' if words else ""


def _advice(rehearsal: Rehearsal) -> str:
    if not rehearsal.advice:
        return ""
    cards = "".join(
        f'<div class="card"><h3>{_text(where)}</h3>{"".join(map(_paste, group))}</div>'
        for where, group in summary.advice(rehearsal).items()
    )
    return (
        '<section aria-labelledby="advice"><h2 id="advice">What to write</h2>\n'
        f'<p class="legend">A click on a line selects it.</p><div class="advice">{cards}</div></section>'
    )


def _paste(advice: Advice) -> str:
    line = escape("\n".join(printable_lines(advice.line)))
    return f'<p class="reason">{_text(advice.reason)}</p><pre class="paste" tabindex="0"><code>{line}</code></pre>'


def _scenario(row: summary.Row, place: int, is_example: bool) -> str:
    """Return the runs of a scenario. Its first lost run is open; as an example, its first run."""
    why = [*summary.reasons(row), *summary.evidence(row)]
    numbered = list(enumerate(row.runs))
    lost = [number for number, run in numbered if run.verdict is Verdict.LOST]
    shown = lost[:MANY_RUNS] if len(numbered) > MANY_RUNS else [number for number, _ in numbered]
    first = [0] if is_example else lost[:1] if row.verdict is Verdict.LOST else []
    runs = "\n".join(_run(row.runs[run], f"s{place}-r{run}", opened=run in first) for run in shown)
    closed = [_run(run, f"s{place}-r{number}", opened=False) for number, run in numbered if number not in shown]
    if closed:
        title = plural(len(closed), "other run" if shown else "run")
        runs += f"\n<details><summary>{title}</summary>\n" + "\n".join(closed) + "</details>"
    return (
        f'<article class="scenario card" id="s{place}"><header><h3>{escape(row.title)}</h3>'
        f"{_verdict(row.verdict, row.outcome)}</header>"
        f'<p class="like">{_text(row.scenario.like)}</p>{_list(why, "why")}\n{runs}</article>'
    )


def _run(run: Run, name: str, opened: bool) -> str:
    """Return a run: its timeline, and the same as lists."""
    row = summary.row(run.scenario, (run,))
    words = [] if row.ended == summary.NOTHING else ["killed" if run.killed else "ended by itself"]
    words = [f"{word} after {row.drain}" if run.drain is not None else word for word in words]
    words += [f"exit code {run.exit_code}"] if run.exit_code is not None else []
    words += [f"work {row.work}"] if run.work_kept is not None else []
    folder = f'<p class="legend">Output: <code>{_text(str(run.folder))}</code></p>' if run.folder else ""
    timed = bool(run.events or run.lives or run.broken_lines)
    figure = f'<div class="figure">{timeline.render(run, name)}</div>' if timed else ""
    return (
        f"<details{' open' if opened else ''}><summary>Run {run.number}: {escape(', '.join(words) or 'not done')}"
        f"{_verdict(run.verdict, run.verdict.value)}</summary>\n"
        f"{figure}{_events(run)}{_processes(run)}{folder}</details>"
    )


def _events(run: Run) -> str:
    marks = timeline.marks(run)
    items = "".join(
        f'<li{_grave(mark)}><span class="n">{mark.number}</span>'
        f'<span class="t">{timeline.seconds_text(round(mark.at, 3), signed=True)}</span>'
        f'<span class="what">{escape(mark.text)}</span></li>'
        for mark in marks
    )
    events = f'<ol class="events" aria-label="Events">{items}</ol>' if items else ""
    if len(marks) <= MANY_EVENTS:
        return events
    return f"<details><summary>Events: {len(marks)}</summary>{events}</details>"


def _grave(mark: timeline.Mark) -> str:
    return ' class="grave"' if mark.kind in timeline.GRAVE else ""


def _processes(run: Run) -> str:
    """Return the lives of the processes as a table, for who does not see the timeline."""
    if not run.lives:
        return ""
    heads = "".join(f'<th role="columnheader" scope="col">{name}</th>' for name in PROCESS_HEADINGS)
    rows = "".join(_process(run, life) for life in run.lives)
    return (
        f"<details><summary>Processes: {len(run.lives)}</summary>"
        f'<table role="table"><thead role="rowgroup"><tr role="row">{heads}</tr></thead>'
        f'<tbody role="rowgroup">{rows}</tbody></table></details>'
    )


PROCESS_HEADINGS = ("name", "pid", "parent", "began", "ended")


def _process(run: Run, life: Life) -> str:
    zero = timeline.zero(run)
    ended = "left over" if life.ended is None else timeline.seconds_text(round(life.ended - zero, 3), signed=True)
    fields = (str(life.pid), str(life.parent), timeline.seconds_text(round(life.began - zero, 3), signed=True), ended)
    cells = "".join(
        f'<td role="cell" data-label="{heading}"><span>{field}</span></td>'
        for heading, field in zip(PROCESS_HEADINGS[1:], fields, strict=True)
    )
    return f'<tr role="row"><th role="rowheader" scope="row">{_text(life.name)}</th>{cells}</tr>'

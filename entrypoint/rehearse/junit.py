"""A rehearsal as JUnit XML, as GitLab, Jenkins and GitHub's reporters read it: a suite for each scenario."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from . import summary
from .model import Rehearsal, Run, Verdict
from .text import printable, printable_lines

if TYPE_CHECKING:
    from pathlib import Path

OUTPUT = "output.log"  # in a run's folder
TAIL_BYTES = 16_384
TAIL_LINES = 60


def render(rehearsal: Rehearsal) -> str:
    """Return the XML document. It has the last lines of each run's output, where its folder can be read."""
    suites = ElementTree.Element("testsuites", name="agent-initctl rehearse")
    for row in summary.rows(rehearsal):
        suite = _counted(ElementTree.SubElement(suites, "testsuite", name=row.title), row.runs)
        suite.set("skipped", str(sum(run.verdict is Verdict.SKIPPED for run in row.runs)))
        if rehearsal.began:
            suite.set("timestamp", printable(rehearsal.began))
        for run in row.runs:
            suite.append(_case(run, row))
    _counted(suites, rehearsal.runs)
    ElementTree.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suites, encoding="unicode") + "\n"


def _counted(element: ElementTree.Element, runs: tuple[Run, ...]) -> ElementTree.Element:
    """Return the element with its counts and its time."""
    element.set("tests", str(len(runs)))
    element.set("failures", str(sum(_failed(run) for run in runs)))
    element.set("errors", "0")
    element.set("time", _seconds(sum(run.end_at or 0.0 for run in runs)))
    return element


def _failed(run: Run) -> bool:
    return run.verdict is Verdict.LOST and run.scenario.counts


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f}"


def _case(run: Run, row: summary.Row) -> ElementTree.Element:
    """Return the element of a run."""
    case = ElementTree.Element(
        "testcase",
        name=f"{row.title}, run {run.number}" if len(row.runs) > 1 else row.title,
        classname=f"rehearse.{printable(run.scenario.name)}",
        time=_seconds(run.end_at or 0.0),
    )
    reasons = [printable(reason) for reason in run.reasons]
    if run.verdict is Verdict.SKIPPED:
        ElementTree.SubElement(case, "skipped", message="; ".join(reasons))
    elif _failed(run):
        failure = ElementTree.SubElement(case, "failure", type="lost", message="; ".join(reasons) or "lost")
        alone = summary.row(run.scenario, (run,))
        failure.text = "\n".join([*reasons, *summary.evidence(alone)])
    out = [_outcome(run)] + ([] if run.folder is None else [f"folder: {printable(str(run.folder))}", *tail(run.folder)])
    ElementTree.SubElement(case, "system-out").text = "\n".join(out)
    return case


def _outcome(run: Run) -> str:
    """Return what happened in one line; it also marks a run that is not judged."""
    row = summary.row(run.scenario, (run,))
    fields = zip(summary.HEADINGS, row.fields, strict=True)
    return ", ".join(f"{heading}: {field}" for heading, field in fields if field != summary.NOTHING)


def tail(folder: Path) -> list[str]:
    """Return the last lines of a run's output, safe to print; nothing if it cannot be read."""
    try:
        with open(folder / OUTPUT, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            text = file.read(TAIL_BYTES).decode(errors="backslashreplace")
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return []
    lines = printable_lines(text.replace("\r\n", "\n").rstrip("\n"))
    return lines[1:][-TAIL_LINES:] if size > TAIL_BYTES else lines[-TAIL_LINES:]

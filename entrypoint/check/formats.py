"""Findings as text for people, as JSON, as GitHub's workflow commands, and as SARIF 2.1.0."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .. import __version__
from ..ctl.connection import printable
from .rules import BY_NAME, RULES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .case import Finding

FORMAT = 1  # of the JSON object: raised when a field changes its meaning or goes
PAGE = "https://github.com/agent-init/agent-init/blob/main/docs/check.md"
SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
GITHUB = {"error": "error", "warning": "warning", "note": "notice"}


def as_text(findings: Sequence[Finding]) -> str:
    """Return a line for each finding, and below it the line to write."""
    lines = []
    for made in findings:
        lines.append(f"{made.place}: {made.severity}: [{made.rule}] {made.reason}")
        lines += [f"    {made.remedy}"] if made.remedy else []
    return "\n".join(map(printable, lines))


def as_json(findings: Sequence[Finding]) -> str:
    """Return one JSON object."""
    found = [
        {
            "file": made.place.file,
            "line": made.place.line,
            "severity": made.severity,
            "rule": made.rule,
            "reason": made.reason,
            "remedy": made.remedy or None,
        }
        for made in findings
    ]
    return json.dumps({"format": FORMAT, "version": __version__, "findings": found})


def as_github(findings: Sequence[Finding]) -> str:
    """Return a workflow command for each finding: GitHub shows it at its line.

    Source: https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands
    """
    lines = []
    for made in findings:
        text = made.reason + (f"\n{made.remedy}" if made.remedy else "")
        place = (
            f"file={_property(made.place.file)},line={made.place.line},title={_property('agent-init: ' + made.rule)}"
        )
        lines.append(f"::{GITHUB[made.severity]} {place}::{_data(text)}")
    return "\n".join(lines)


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def as_sarif(findings: Sequence[Finding]) -> str:
    """Return a SARIF log (https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html)."""
    rules = [
        {
            "id": rule.name,
            "shortDescription": {"text": rule.wrong},
            "help": {"text": f"Write {rule.remedy}. Example of what is wrong: {rule.example}."},
            "helpUri": f"{PAGE}#the-rules",
            "defaultConfiguration": {"level": rule.severity},
        }
        for rule in RULES
    ]
    driver = {"name": "agent-initctl check", "version": __version__, "informationUri": PAGE, "rules": rules}
    run = {
        "tool": {"driver": driver},
        "results": [_result(made) for made in findings],
        "columnKind": "unicodeCodePoints",
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]})


def _result(made: Finding) -> dict[str, Any]:
    text = made.reason + (f"\n\nWrite: {made.remedy}" if made.remedy else "")
    file = made.place.file.removeprefix("./")
    uri = ("file://" if file.startswith("/") else "") + quote(file, errors="surrogateescape")
    return {
        "ruleId": made.rule,
        "ruleIndex": RULES.index(BY_NAME[made.rule]),
        "level": made.severity,
        "message": {"text": text},
        "locations": [
            {"physicalLocation": {"artifactLocation": {"uri": uri}, "region": {"startLine": max(1, made.place.line)}}}
        ],
    }


FORMATS: dict[str, Callable[[Sequence[Finding]], str]] = {
    "text": as_text,
    "json": as_json,
    "github": as_github,
    "sarif": as_sarif,
}

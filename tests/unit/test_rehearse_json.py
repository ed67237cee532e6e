"""A rehearsal survives the way to JSON and back, and what is no rehearsal is refused with the field's name."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings

from entrypoint.rehearse import json_report
from entrypoint.rehearse.model import Advice, BrokenLine, Event, Life, Rehearsal, Run, Scenario
from tests.support.rehearsals import EXAMPLE, rehearsals

PAGE = Path(__file__).parents[2] / "docs" / "rehearse.md"


@settings(max_examples=30)
@given(rehearsals())
def test_what_is_written_is_read_again(rehearsal: Rehearsal) -> None:
    text = json_report.render(rehearsal)
    assert text.isascii()
    assert json_report.parse(text) == rehearsal


def test_there_is_what_a_script_asks_for() -> None:
    document = json.loads(json_report.render(EXAMPLE))
    assert (document["version"], document["held"]) == (1, False)
    assert document["summary"].startswith("Lost: 1 of 3 scenarios")
    assert [(scenario["name"], scenario["verdict"]) for scenario in document["scenarios"]] == [
        ("term", "held"),
        ("term-twice", "lost"),
        ("early", "held"),
        ("short-grace", "informational"),
        ("oom", "skipped"),
    ]
    assert [run["scenario"] for run in document["runs"]][:2] == ["term", "term-twice"]
    assert document["runs"][0]["drain"] == 1.25
    assert document["advice"][0]["line"] == "terminationGracePeriodSeconds: 75"


def test_a_field_of_a_later_version_is_ignored() -> None:
    document = json.loads(json_report.render(EXAMPLE))
    document["later"] = document["runs"][0]["later"] = [1]
    assert json_report.parse(json.dumps(document)) == EXAMPLE


def test_a_whole_number_is_as_good_as_a_fraction() -> None:
    document = json.loads(json_report.render(EXAMPLE))
    document["runs"][0]["request_at"] = 2
    parsed = json_report.parse(json.dumps(document))
    assert parsed == EXAMPLE
    assert type(parsed.runs[0].request_at) is float


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["version"], 2, "version: 2 is not known; accepted: 1"),
        (["seed"], "7", "seed: str is not accepted here"),
        (["seed"], True, "seed: bool is not accepted here"),
        (["command"], "agent", "command: str is not accepted here"),
        (["command", 1], 5, r"command\[1\]: int is not accepted here"),
        (["versions", "python"], None, "versions.python: NoneType is not accepted here"),
        (["scenarios"], [1], r"scenarios\[0\]: int in the place of an object"),
        (["runs"], 1, "runs: int is not accepted here"),
        (["runs", 0], 1, r"runs\[0\]: int is not accepted here"),
        (["runs", 0, "scenario"], "x", "runs: 'x' is not in scenarios"),
        (["runs", 0, "scenario"], ["x"], r"runs: \['x'\] is not in scenarios"),
        (["runs", 0, "mode"], "x", r"runs\[0\].mode: 'x' is not a valid Mode"),
        (["runs", 0, "request_at"], float("nan"), "NaN is no number of JSON"),
        (["runs", 1, "lives", 2], {"pid": 4}, r"runs\[1\].lives\[2\].parent: is missing"),
    ],
)
def test_what_is_no_rehearsal_is_refused(path: list[str | int], value: object, message: str) -> None:
    document = json.loads(json_report.render(EXAMPLE))
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(ValueError, match=f"^{message}$"):
        json_report.parse(json.dumps(document))


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", "{", '"version"'])
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        json_report.parse(text)


def test_the_page_documents_every_field() -> None:
    """Its tables of fields, in docs/rehearse.md."""
    section = PAGE.read_text().partition("\n## The JSON\n")[2].partition("\n## ")[0]
    documented = set(re.findall(r"`([a-z_]+)`", "\n".join(re.findall(r"^\| (.*?) \|", section, re.MULTILINE))))
    document = json.loads(json_report.render(EXAMPLE))
    written = set(document) | set(document["scenarios"][0]) | set(document["runs"][0])
    model = (Rehearsal, Scenario, Run, Event, Life, BrokenLine, Advice)
    written |= {field.name for kind in model for field in dataclasses.fields(kind)}
    assert documented == written

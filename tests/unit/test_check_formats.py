"""The formats of `agent-initctl check`."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from entrypoint.check import formats, rules
from entrypoint.check.case import Finding
from entrypoint.check.source import Place

FINDING = Finding("shell-stays", "warning", Place("a b/Dockerfile", 3), "100% wrong, a: b", "CMD x")


def test_text() -> None:
    assert formats.as_text([FINDING]) == "a b/Dockerfile:3: warning: [shell-stays] 100% wrong, a: b\n    CMD x"
    assert formats.as_text([]) == ""


def test_text_has_no_escapes_for_the_terminal() -> None:
    made = Finding("relay", "note", Place("a\nb", 1), "\x1b[31mred", "CMD \x9b")
    assert formats.as_text([made]) == "a\\nb:1: note: [relay] \\x1b[31mred\n    CMD \\x9b"


def test_json() -> None:
    found = json.loads(formats.as_json([FINDING]))
    assert found["findings"] == [
        {
            "file": "a b/Dockerfile",
            "line": 3,
            "severity": "warning",
            "rule": "shell-stays",
            "reason": "100% wrong, a: b",
            "remedy": "CMD x",
        }
    ]


def test_github() -> None:
    expected = "::warning file=a b/Dockerfile,line=3,title=agent-init%3A shell-stays::100%25 wrong, a: b%0ACMD x"
    assert formats.as_github([FINDING]) == expected


def test_sarif_has_what_its_schema_requires() -> None:
    """Source: sections 3.13 to 3.52 of the specification, and what GitHub's upload requires."""
    log = json.loads(formats.as_sarif([FINDING]))
    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-2.1.0.json")
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert {"name", "version", "informationUri", "rules"} <= driver.keys()
    assert [rule["id"] for rule in driver["rules"]] == [rule.name for rule in rules.RULES]
    for rule in driver["rules"]:
        assert rule["defaultConfiguration"]["level"] in ("error", "warning", "note")
        assert rule["shortDescription"]["text"]
        assert rule["helpUri"].startswith("https://")
    (result,) = run["results"]
    assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"] == "shell-stays"
    assert result["level"] == "warning"
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "a%20b/Dockerfile"
    assert place["region"]["startLine"] == 3


def test_sarif_has_the_uri_of_a_file() -> None:
    for file, uri in (("./a/b", "a/b"), ("/a b/c", "file:///a%20b/c"), ("a:b", "a%3Ab"), ("../a", "../a")):
        log = json.loads(formats.as_sarif([Finding("relay", "note", Place(file, 1), "x")]))
        assert log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == uri


@given(st.text(), st.text(), st.integers(0, 9))
def test_a_command_for_github_is_one_line(reason: str, file: str, line: int) -> None:
    text = formats.as_github([Finding("relay", "note", Place(file, line), reason, "a\nb")])
    assert "\n" not in text
    assert "\r" not in text
    assert text.startswith("::notice file=")
    json.loads(formats.as_sarif([Finding("relay", "note", Place(file, line), reason)]))

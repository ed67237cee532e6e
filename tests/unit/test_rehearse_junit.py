"""JUnit XML: the counts and outcomes that its readers take from it, and no character that XML forbids."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import junitparser
from hypothesis import given, settings

from entrypoint.rehearse import junit
from entrypoint.rehearse.model import Rehearsal, Verdict
from tests.support.rehearsals import EXAMPLE, KILLED, SHORT, rehearsals, run

if TYPE_CHECKING:
    from pathlib import Path

# XML 1.0, production 2; the second half is what ElementTree may leave in, as it knows no surrogates.
FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
SUITE = {"name": str, "tests": int, "failures": int, "errors": int, "skipped": int, "time": float, "timestamp": str}
CASE = {"name": str, "classname": str, "time": float}
OF_CASE = {"skipped", "failure", "system-out"}


def parsed(rehearsal: Rehearsal) -> ElementTree.Element:
    return ElementTree.fromstring(junit.render(rehearsal).encode())


def test_each_scenario_is_a_suite_and_each_run_a_case() -> None:
    root = parsed(EXAMPLE)
    assert (root.tag, root.get("tests"), root.get("failures"), root.get("errors")) == ("testsuites", "5", "1", "0")
    found = [
        (
            suite.get("name"),
            suite.get("failures"),
            suite.get("skipped"),
            [child.tag for case in suite for child in case],
        )
        for suite in root
    ]
    assert found == [
        ("TERM", "0", "0", ["system-out"]),
        ("TERM twice, 1 s apart", "1", "0", ["failure", "system-out"]),
        ("TERM before it is up, at 20 % of the start", "0", "0", ["system-out"]),
        ("a grace that is too short", "0", "0", ["system-out"]),
        ("out of memory during the stop", "0", "1", ["skipped", "system-out"]),
    ]


def test_a_failure_has_its_reasons_and_what_was_seen() -> None:
    (failure,) = parsed(EXAMPLE).iter("failure")
    assert (failure.get("message") or "").startswith(
        "killed at the deadline, 1m after the stop request; still running: "
    )
    assert (failure.text or "").splitlines()[1:] == [
        "the work failed, with exit code 3",
        'printed "RuntimeError: no running event loop" after the stop request, and 1 more line',
        "held up by python agent.py (pid 2), the agent, 1m2s old, sleeping, waits in futex_wait_queue",
        "log, 600ms after the request: Task was destroyed but it is pending!",
    ]
    (skipped,) = parsed(EXAMPLE).iter("skipped")
    assert skipped.get("message") == "no control group can be made here"


def test_an_informational_scenario_never_fails() -> None:
    root = parsed(dataclasses.replace(EXAMPLE, runs=(run(SHORT, verdict=Verdict.LOST, reasons=("killed",)),)))
    assert root.get("failures") == "0"
    assert not list(root.iter("failure"))
    assert "verdict: info" in (root.findtext(".//system-out") or "")


def test_runs_of_a_scenario_have_names_of_their_own() -> None:
    root = parsed(dataclasses.replace(EXAMPLE, runs=tuple(run(number=number) for number in (1, 2, 3))))
    assert [case.get("name") for case in root.iter("testcase")] == ["TERM, run 1", "TERM, run 2", "TERM, run 3"]
    assert {case.get("classname") for case in root.iter("testcase")} == {"rehearse.term"}
    assert [suite.get("time") for suite in root] == ["9.750"]


def test_the_last_lines_of_the_output_are_there(tmp_path: Path) -> None:
    lines = [f"line {number}" for number in range(2000)]
    (tmp_path / junit.OUTPUT).write_bytes("\n".join(lines).encode() + b"\n\x1b[31mred\x1b[0m\r\nnot UTF-8: \xff\x00\n")
    root = parsed(dataclasses.replace(EXAMPLE, runs=(dataclasses.replace(KILLED, folder=tmp_path),)))
    out = (root.findtext(".//system-out") or "").splitlines()
    assert out[0] == "ended: killed, drain: 1m, exit: 137, work: lost, left: 0, verdict: LOST"
    assert out[1] == f"folder: {tmp_path}"
    assert out[2:] == [*lines[-58:], "red", r"not UTF-8: \xff\x00"]


def test_short_output_is_whole_and_missing_output_is_left_out(tmp_path: Path) -> None:
    assert junit.tail(tmp_path) == []
    assert junit.tail(tmp_path / "a\0b") == []
    (tmp_path / junit.OUTPUT).write_text("first\nlast")
    assert junit.tail(tmp_path) == ["first", "last"]
    (tmp_path / junit.OUTPUT).write_text("x" * (junit.TAIL_BYTES + 1))
    assert junit.tail(tmp_path) == []  # no whole line


def test_a_reader_of_junit_finds_the_outcomes() -> None:
    read = junitparser.JUnitXml.fromstring(junit.render(EXAMPLE).encode())
    assert (read.tests, read.failures, read.errors) == (5, 1, 0)
    outcomes = [[type(result).__name__ for result in case.result] for suite in read for case in suite]
    assert outcomes == [[], ["Failure"], [], [], ["Skipped"]]


@settings(max_examples=30)
@given(rehearsals())
def test_any_rehearsal_is_xml_that_readers_accept(rehearsal: Rehearsal) -> None:
    text = junit.render(rehearsal)
    assert not FORBIDDEN.search(text)
    root = ElementTree.fromstring(text.encode())
    assert set(root.attrib) == {"name", "tests", "failures", "errors", "time"}
    for suite in root:
        assert suite.tag == "testsuite"
        assert set(suite.attrib) <= set(SUITE)
        values = {name: kind(suite.get(name, "0")) for name, kind in SUITE.items()}
        assert values["tests"] == len(suite)
        assert values["failures"] == len(list(suite.iter("failure")))
        assert values["skipped"] == len(list(suite.iter("skipped")))
        for case in suite:
            assert case.tag == "testcase"
            assert all(kind(case.get(name)) is not None for name, kind in CASE.items())
            assert {child.tag for child in case} <= OF_CASE
    assert root.get("failures") == str(len(list(root.iter("failure"))))
    assert (root.get("failures") == "0") == rehearsal.held

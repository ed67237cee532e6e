"""What pyproject.toml, CI and the tests say about Pythons agrees."""

from __future__ import annotations

import re
import tomllib
from itertools import pairwise
from pathlib import Path

from tests.pythons.root import PYTHONS

PROJECT = Path(__file__).parents[2]
METADATA = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
VERSION = re.compile(r"Programming Language :: Python :: (3\.\d+)")
CLASSIFIED = [match[1] for text in METADATA["classifiers"] if (match := VERSION.fullmatch(text))]


def after(version: str) -> str:
    return f"3.{int(version.partition('.')[2]) + 1}"


def test_classifiers_name_what_the_suites_run_on() -> None:
    assert f">={CLASSIFIED[0]}" == METADATA["requires-python"]
    assert all(after(one) == next for one, next in pairwise(CLASSIFIED))
    assert CLASSIFIED[-len(PYTHONS) :] == list(PYTHONS)


def test_uvloop_is_installed_on_every_python_that_is_classified_and_on_no_later_one() -> None:
    """When a Python is added, a wheel of uvloop for it is there: `tests/pythons/test_install.py` uses it."""
    (uvloop,) = (text for text in METADATA["dependencies"] if text.startswith("uvloop"))
    assert re.findall(r"python_version < '([\d.]+)'", uvloop) == [after(CLASSIFIED[-1])]


def test_hosted_ci_runs_on_each_classified_python() -> None:
    workflow = (PROJECT / ".github" / "workflows" / "ci.yml").read_text()
    (versions,) = re.findall(r"^ +python: \[(.*)\]$", workflow, re.MULTILINE)
    assert re.findall(r"[\d.]+", versions) == CLASSIFIED

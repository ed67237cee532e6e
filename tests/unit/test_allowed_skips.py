"""The list of tests that may be skipped on CI names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).parents[2]


def test_each_one_exists() -> None:
    names = [
        line.split()[0] for line in (PROJECT / "tests/allowed-skips.txt").read_text().splitlines() if line[0] != "#"
    ]
    assert names
    for file, name in (node.split("::") for node in names):
        assert re.search(rf"^(async )?def {name}\(", (PROJECT / file).read_text(), re.MULTILINE), f"{file}::{name}"

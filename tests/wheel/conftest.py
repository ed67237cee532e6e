"""The published files, built once for all tests of this folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.launcher import PROJECT

EPOCH = "1700000000"
NEEDED = ("build", "hatchling", "ziglang")  # of the dependency group `release`


def build(source: Path, output: Path, **variables: str) -> Path:
    """Run `launcher/build.py` of that source tree."""
    subprocess.run(
        [sys.executable, source / "launcher" / "build.py", output],
        env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH, **variables},
        cwd=output.parent,
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=600,
    )
    return output


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the published files."""
    for module in NEEDED:
        pytest.importorskip(module)
    return build(PROJECT, tmp_path_factory.mktemp("first") / "dist")


def wheel(dist: Path, machine: str) -> Path:
    """The wheel for a machine; the pure one for `any`."""
    (found,) = dist.glob(f"agent_init-*{machine}.whl")
    return found

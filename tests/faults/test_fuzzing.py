"""Coverage-guided fuzzing of the code that reads text from outside (atheris, libFuzzer)."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.faults.stop_scenarios import PACKAGE, PROGRAMS

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = int(os.environ.get("AGENT_INIT_FUZZ_SECONDS", "20"))


@pytest.mark.skipif(not importlib.util.find_spec("atheris"), reason="atheris is the fuzzer: pip install atheris")
@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize(
    "target", ["read_options", "receive_messages", "write_lines", "answer_requests", "read_answers"]
)
def test_fuzzer_finds_no_broken_promise(tmp_path: Path, target: str) -> None:
    options = [f"-max_total_time={SECONDS}", "-max_len=400", f"-artifact_prefix={tmp_path}/"]
    ran = subprocess.run(
        [sys.executable, str(PROGRAMS / "fuzz.py"), PACKAGE, target, *options, str(tmp_path)],
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    done = [line for line in ran.stderr.splitlines() if line.startswith("Done ")]
    assert int(done[0].split()[1]) > 1000, ran.stderr[-1000:]

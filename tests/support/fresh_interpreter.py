"""Code that runs in an interpreter of its own: with one thread and with no modules but its own, as process 1 has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]


def output_of(code: str) -> str:
    """Run `code`, which can import the package, and return what it prints. It must not write to stderr."""
    code = f"import sys\nsys.path.insert(0, {str(PROJECT)!r})\n{code}"
    ran = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=60)
    assert not ran.stderr
    return ran.stdout

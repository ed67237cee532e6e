"""Locales that are not in UTF-8. Images have C.UTF-8 at most, so they are made here."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

ENCODINGS = {"EUC-JP": "ja_JP", "GB18030": "zh_CN", "ISO-8859-1": "de_DE"}  # with a language
# UTF-8, as a platform passes it on. In the first two the C library and Python do not agree on what the bytes are.
WORDS = ("こんにちは", "中0", "ä", "\udcff")


def locale(folder: Path, encoding: str) -> dict[str, str]:
    """Make the locale in a folder; return the variables that select it. Where it cannot be made the test is skipped."""
    localedef = shutil.which("localedef")
    if localedef is None:
        pytest.skip("localedef is not installed")
    name = f"{ENCODINGS[encoding]}.{encoding}"
    command = [localedef, "-c", "-i", ENCODINGS[encoding], "-f", encoding, str(folder / name)]
    if subprocess.run(command, capture_output=True, timeout=120).returncode:
        pytest.skip(f"localedef has no {encoding}")
    return {"LOCPATH": str(folder), "LC_ALL": name}

"""The interpreters that the runner is tested on: ours and each other minor version on the machine, with uvloop."""

from __future__ import annotations

import glob
import os
import re
import sys
from pathlib import Path

from tests.agents.environments import PROJECT, _made_once, _name, _run, cache
from tests.support.init import clean_environment

UVLOOP = "uvloop==0.23.0"
PLACES = ("/usr/bin/python3.1?", "/usr/local/bin/python3.1?", os.path.expanduser("~/.pyenv/versions/3.1?.*/bin/python"))


def found() -> dict[str, str]:
    """Their paths by their minor versions, from 3.11 on."""
    ours = f"3.{sys.version_info.minor}"
    others = {}
    for path in sorted(path for place in PLACES for path in glob.glob(place)):
        if (version := re.search(r"3\.1[1-9]", path)) and version[0] != ours:
            others[version[0]] = path
    return dict(sorted({**others, ours: sys.executable}.items()))


def with_uvloop(python: str) -> str:
    """An environment of that interpreter with uvloop, made when first needed and kept; ours has it already."""
    if python == sys.executable:
        return python
    made = cache() / _name(f"runner-{Path(python).parent.parent.name}", python + UVLOOP)
    with _made_once(made) as missing:
        if missing:
            _run([python, "-m", "venv", str(made)])
            _run([str(made / "bin" / "pip"), "install", "--quiet", UVLOOP])
    return str(made / "bin" / "python")


def environment(**variables: str) -> dict[str, str]:
    """For a program that imports this checkout."""
    return clean_environment(PYTHONPATH=str(PROJECT), PYTHONUNBUFFERED="1", **variables)

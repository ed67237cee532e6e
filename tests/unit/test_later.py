"""Modules that are made when something of them is first used, from code that was kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from entrypoint.init import later

PACKAGE = Path(__file__).parents[2] / "entrypoint"

LATER = """
import builtins, sys
sys.path.insert(0, sys.argv[1])
from entrypoint.init import delivery, later
NAME = "entrypoint.init.names"
assert NAME not in sys.modules and NAME in later._codes
sys.path.clear()  # no file is found any more
sys.path_importer_cache.clear()
sys.modules["entrypoint.init"].__path__.clear()
later.unused.free_of, free_of = sys.exit, later.unused.free_of
try:
    delivery.names
    delivery.names.TRACERS
except SystemExit:
    assert NAME not in sys.modules and NAME in later._codes
later.unused.free_of = free_of
assert delivery.names.TRACERS is sys.modules[NAME].TRACERS and NAME not in later._codes
assert delivery.recipients.names is sys.modules[NAME]
assert delivery.names.is_wrapper.__annotations__ == {}
later.Module("init.names")
assert NAME not in later._codes
print("complete")
"""


def test_a_module_is_made_at_its_first_use_and_takes_no_file() -> None:
    """A failure, for want of memory for example, does not last."""
    argv = [sys.executable, "-I", "-S", "-c", LATER, str(PACKAGE.parent)]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert (ran.stdout, ran.stderr) == ("complete\n", "")


def test_a_module_that_is_not_there_is_a_failure_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(later, "_codes", {})
    with pytest.raises(ModuleNotFoundError, match="no module named"):
        later.Module("init.no_such")

"""What process 1 does not use is freed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from entrypoint.init import unused

PACKAGE = Path(__file__).parents[2] / "entrypoint"

FREED = """
import sys
sys.path.insert(0, sys.argv[1])
from entrypoint import units
from entrypoint.init import unused
assert units.parse_duration.__annotations__ == {"text": str, "return": float}
unused.free_all()
execute = type(unused.__loader__).exec_module
unused.free_all()
assert type(unused.__loader__).exec_module is execute
assert units.parse_duration.__annotations__ == {}
from entrypoint.init import supervisor, tree
assert supervisor.Supervisor._read.__annotations__ == {}
assert supervisor.exit_status.Ending.code.fget.__annotations__ == {}
assert "Process" in str(tree.__dict__) or tree.everything.__annotations__ == {}
import stat, string
assert string.Formatter is not None
print("complete")
"""


def test_annotations_are_freed() -> None:
    argv = [sys.executable, "-I", "-S", "-c", FREED, str(PACKAGE.parent)]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert (ran.stdout, ran.stderr) == ("complete\n", "")


@pytest.mark.parametrize("error", [MemoryError(), AttributeError("of a later Python")])
def test_a_failure_to_free_them_is_no_failure(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    for part in ("free_of", "_free"):
        monkeypatch.setattr(unused, part, mock.Mock(side_effect=error))
        unused.free_all() if part == "free_of" else unused.free_of(sys.modules[__name__])
        assert getattr(unused, part).called
        monkeypatch.undo()

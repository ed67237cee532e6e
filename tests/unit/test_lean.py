"""What process 1 does not use is freed, and what is loaded later is loaded when it is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "entrypoint"

WITHOUT = """
import sys
sys.path.insert(0, sys.argv[1])
from entrypoint import units
from entrypoint.init import lean
assert units.parse_duration.__annotations__ == {"text": str, "return": float}
lean.import_without_annotations()
execute = type(lean.__loader__).exec_module
lean.import_without_annotations()
assert type(lean.__loader__).exec_module is execute
assert units.parse_duration.__annotations__ == {}
from entrypoint.init import supervisor, tree
assert supervisor.Supervisor._read.__annotations__ == {}
assert supervisor.exit_status.Ending.code.fget.__annotations__ == {}
assert "Process" in str(tree.__dict__) or tree.everything.__annotations__ == {}
import stat, string
assert string.Formatter is not None
from entrypoint.init import delivery
loaded = "entrypoint.init.names" in sys.modules
assert delivery.names.TRACERS and not loaded and "entrypoint.init.names" in sys.modules
print("complete")
"""


def test_annotations_are_freed_and_some_modules_are_loaded_when_they_are_used() -> None:
    argv = [sys.executable, "-I", "-S", "-c", WITHOUT, str(PACKAGE.parent)]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert (ran.stdout, ran.stderr) == ("complete\n", "")

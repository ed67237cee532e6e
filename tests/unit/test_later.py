"""Modules that are made when something of them is first used, from code that was kept."""

from __future__ import annotations

import pytest

from entrypoint.init import later
from tests.support.fresh_interpreter import output_of

LATER = """
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
else:
    raise AssertionError
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
    assert output_of(LATER) == "complete\n"


def test_a_module_that_is_not_there_is_a_failure_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(later, "_codes", {})
    with pytest.raises(ModuleNotFoundError, match="no module named"):
        later.Module("init.no_such")

"""What process 1 does not use is freed."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any
from unittest import mock

import pytest

from entrypoint import signals
from entrypoint.init import unused
from tests.support.fresh_interpreter import output_of

FREED = """
from entrypoint import units
from entrypoint.init import unused
assert units.format_duration.__annotations__  # not the one below: what has been asked for is kept
unused.free_all()
execute = type(unused.__loader__).exec_module
unused.free_all()
assert type(unused.__loader__).exec_module is execute
assert units.parse_duration.__annotations__ == {}
from entrypoint.init import supervisor, tree
assert supervisor.Supervisor._read.__annotations__ == {}
assert supervisor.exit_status.Ending.code.fget.__annotations__ == {}
assert tree.everything.__annotations__ == {}
import stat, string
assert string.Formatter is not None
print("complete")
"""


def test_annotations_are_freed() -> None:
    assert output_of(FREED) == "complete\n"


def test_the_annotations_of_other_packages_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    loader: Any = type(unused.__loader__)
    monkeypatch.setattr(loader, "exec_module", loader.exec_module)  # restored in the end
    unused._free_after_import()
    kept = {}
    for name, path in (("other", signals.__file__), ("entrypoint.again", signals.__file__)):
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(spec.loader, module)
        kept[name] = bool(module.quote.__annotations__)
    assert kept == {"other": True, "entrypoint.again": False}


@pytest.mark.parametrize("error", [MemoryError(), AttributeError("of a later Python")])
def test_a_failure_to_free_them_is_no_failure(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    for part in ("free_of", "_free"):
        monkeypatch.setattr(unused, part, mock.Mock(side_effect=error))
        unused.free_all() if part == "free_of" else unused.free_of(sys.modules[__name__])
        assert getattr(unused, part).called
        monkeypatch.undo()

"""What process 1 does not use is freed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING
from unittest import mock

import pytest

from entrypoint.init import unused
from tests.support.fresh_interpreter import output_of

if TYPE_CHECKING:
    pass

FREED = """
import string
from entrypoint import first, options, settings, start, units
from entrypoint.init import spawn, unused
sys.meta_path.insert(0, first.Finder)
spawn_it, isolate, stderr = spawn.spawn, start.isolate, sys.stderr
unused.free_all()
unused.free_all()
assert {*sys.modules}.isdisjoint(("entrypoint.settings", "entrypoint.options", "entrypoint.init.spawn"))
assert not hasattr(sys.modules["entrypoint"], "settings") and not hasattr(start, "isolate")
assert spawn_it.__globals__ == {}
assert sys.stdout is sys.__stdout__ is sys.stderr is None
sys.stderr = stderr
from entrypoint.init import supervisor, tree
for function in (
    units.parse_duration, supervisor.Supervisor._read, supervisor.cgroup.Memory.limit.fget, tree.everything
):
    code = function.__code__
    assert function.__annotations__ == {} and function.__doc__ is None and function.__qualname__ == code.co_name
    assert (code.co_linetable == b"" or sys.gettrace() is not None) and code.co_consts[0] is None
importlib = sys.modules["_frozen_importlib"]
assert bool(importlib.spec_from_loader.__doc__) == (sys.version_info < (3, 13))
assert "zipimport" not in sys.modules and not hasattr(sys, "stdlib_module_names")
assert not any("zip" in str(hook) for hook in sys.path_hooks)
import colorsys  # what imports the standard library still works
assert units.__doc__ is supervisor.Supervisor.__doc__ is None
assert string.capwords.__doc__
import posix
posix.write(1, b"complete\\n")
"""


def test_what_is_not_used_is_freed() -> None:
    assert output_of(FREED) == "complete\n"


def test_line_numbers_stay_where_the_process_is_traced() -> None:
    """By a debugger, or to measure which lines tests run."""
    program = (
        "from entrypoint import units; from entrypoint.init import unused; out = sys.stdout\n"
        "sys.settrace(lambda *_: None); unused.free_all(); sys.settrace(None)\n"
        "print([*units.parse_duration.__code__.co_lines()] != [], file=out)"
    )
    assert output_of(program) == "True\n"


def double(values: list[int]) -> list[int]:
    """Double them."""

    def of(value: int) -> int:
        """Double one."""
        return 2 * value

    return [of(value) for value in values]


def test_what_is_not_there_is_not_forgotten() -> None:
    before = {*sys.modules}
    unused.forget("no_such_package.module", "no_such_module")
    assert {*sys.modules} == before


def test_functions_work_without() -> None:
    unused._free(double, False)
    assert double([1, 2]) == [2, 4]
    assert double.__doc__ is None


def test_no_function_returns_its_own_docstring() -> None:
    """Its constant is freed with the docstring."""
    program = """
import dis, posix
from types import FunctionType
from entrypoint.init import supervisor
found = []
for name, module in [*sys.modules.items()]:
    if name.partition(".")[0] == "entrypoint":
        spaces = [vars(module), *(vars(value) for value in vars(module).values() if isinstance(value, type))]
        found += [value for space in spaces for value in space.values() if isinstance(value, FunctionType)]
for function in found:
    loaded = [each.argval for each in dis.get_instructions(function) if each.opname.startswith("LOAD_CONST")]
    assert function.__doc__ is None or not any(value is function.__doc__ for value in loaded), function
print(len(found) > 300)
"""
    assert output_of(program) == "True\n"


@pytest.mark.parametrize("error", [MemoryError(), AttributeError("of a later Python")])
def test_a_failure_to_free_them_is_no_failure(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr(unused, "forget", mock.Mock())
    for part in ("free_of", "_free"):
        monkeypatch.setattr(unused, part, mock.Mock(side_effect=error))
        unused.free_all() if part == "free_of" else unused.free_of(sys.modules[__name__])
        assert getattr(unused, part).called
        monkeypatch.undo()

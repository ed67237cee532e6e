"""Modules that are made when something of them is first used, from code that was kept."""

from __future__ import annotations

import importlib.machinery
import marshal
import os
import py_compile
import sys
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from entrypoint import first
from entrypoint.init import later, spare_memory
from tests.support.fresh_interpreter import output_of

if TYPE_CHECKING:
    from pathlib import Path

LATER = """
from entrypoint.init import delivery, later
NAME = "entrypoint.init.names"
assert NAME not in later._codes
later.read_all()
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
sys.modules["entrypoint.init"].__path__.append("/none")
later.read_all()
assert NAME not in later._codes
print("complete")
"""


def test_a_module_is_made_at_its_first_use_and_takes_no_file() -> None:
    """A failure, for want of memory for example, does not last."""
    assert output_of(LATER) == "complete\n"


def test_a_module_that_is_not_there_is_a_failure_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(later, "_codes", {})
    monkeypatch.setattr(later, "_names", set())
    later.Module("init.no_such")
    with pytest.raises(ModuleNotFoundError, match="no module named"):
        later.read_all()


@pytest.mark.parametrize(
    ("state", "is_taken"),
    [
        ("as compiled", True),
        ("source of another time", False),
        ("source of another size", False),
        ("by its hash", False),
        ("of another Python", False),
        ("not there", False),
    ],
)
def test_compiled_code_is_taken_from_its_file_if_it_is_that_of_the_source(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: str, is_taken: bool
) -> None:
    """Whatever is there, the code is that of the source."""
    source = tmp_path / "some.py"
    source.write_text("A = 1\n")
    mode = py_compile.PycInvalidationMode
    compiled = py_compile.compile(
        str(source), invalidation_mode=mode.CHECKED_HASH if state == "by its hash" else mode.TIMESTAMP
    )
    assert compiled is not None
    if state == "source of another time":
        source.write_text("A = 2\n")
        os.utime(source, (1, 1))
    elif state == "source of another size":
        at = source.stat()
        source.write_text("A = 22\n")
        os.utime(source, ns=(at.st_atime_ns, at.st_mtime_ns))
    elif state == "of another Python":
        monkeypatch.setattr(first, "MAGIC_NUMBER", b"1234")
    elif state == "not there":
        os.unlink(compiled)
    loader = importlib.machinery.SourceFileLoader("tests.some", str(source))
    spec = importlib.machinery.ModuleSpec("tests.some", loader, origin=str(source))
    spec.has_location = True
    assert (first.compiled(str(tmp_path), "some") is not None) is is_taken

    package = ModuleType("tests")
    package.__path__ = [str(tmp_path)]
    monkeypatch.setitem(sys.modules, "tests", package)
    monkeypatch.setattr(sys, "meta_path", [first.Finder, Found(spec)])
    space: dict[str, object] = {}
    exec(marshal.loads(later._read("tests.some")), space)
    assert space["A"] == int(source.read_text().split()[2])


class Found:
    """A finder of one module."""

    def __init__(self, spec: importlib.machinery.ModuleSpec) -> None:
        self._spec = spec

    def find_spec(self, name: str, path: object) -> importlib.machinery.ModuleSpec:
        return self._spec


def test_no_module_is_made_where_there_is_not_enough_memory_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter crashes where memory runs out half-way."""
    wanted: list[int] = []

    def full(size: int) -> None:
        wanted.append(size)
        raise MemoryError

    monkeypatch.setattr(later, "_codes", {"entrypoint.init.no_such": b"12345678"})
    monkeypatch.setattr(spare_memory, "take", full)
    assert later.Finder.find_spec("entrypoint.init.another") is None
    with pytest.raises(MemoryError):
        later.Finder.find_spec("entrypoint.init.no_such")
    assert wanted == [8 * later.MEMORY_PER_CODE]


def test_the_reserve_is_enough_for_the_largest_of_them() -> None:
    program = """
from entrypoint.init import later, spare_memory, supervisor
later.read_all()
print(max(map(len, later._codes.values())) * later.MEMORY_PER_CODE + 16384 <= spare_memory.SUPERVISOR_BYTES)
"""
    assert output_of(program) == "True\n"

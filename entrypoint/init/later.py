"""Modules that most agents never need, or only at their end: made when something of them is first used.

Until then process 1 holds their compiled code, which takes a fraction of their memory. So no file is read at that time,
which may be that of a stop: the package may have been removed or replaced by another version, there may be no free
descriptor, and the file system may hang. Only memory can still be short. The interpreter does not survive that
everywhere while it makes a module (it crashes, or an error is lost), so it is asked to only where there is enough.
"""

import marshal
import sys

from .. import first
from . import spare_memory, unused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

PACKAGE = __name__.partition(".")[0]

MEMORY_PER_CODE = 6  # bytes for each byte of compiled code: 3 were measured, and the allocator adds its own

_names: set[str] = set()  # of all these modules
_codes: dict[str, bytes] = {}  # of those that are not loaded yet, by name


class Module:
    """The module `name` of our package, loaded at the first use of an attribute. Raises what its import would raise."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = f"{PACKAGE}.{name}"
        _names.add(self._name)

    def __getattr__(self, attribute: str) -> "Any":
        return getattr(__import__(self._name, fromlist=("*",)), attribute)


class Finder:
    """Finds and loads these modules for the import system (a meta path finder and a loader, as importlib has them)."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> "ModuleSpec | None":
        """Return how to load a module whose code is here. Raises MemoryError where there is not enough for it."""
        if name not in _codes:
            return None
        spare_memory.take(len(_codes[name]) * MEMORY_PER_CODE)
        return first.make_spec(name, Finder, __file__)

    @staticmethod
    def create_module(spec: "ModuleSpec") -> None:
        """Have the import system make an empty module."""

    @staticmethod
    def exec_module(module: "ModuleType") -> None:
        """Fill it. The code stays here until that has succeeded."""
        exec(marshal.loads(_codes[module.__name__]), vars(module))
        unused.free_of(module)
        del _codes[module.__name__]


def read_all() -> None:
    """Read the code of these modules. Raises ImportError, OSError.

    To be called once all other modules are loaded: the code then lies in memory that reading their files has freed.
    """
    for name in _names:
        if name not in sys.modules and name not in _codes:
            _codes[name] = _read(name)


def _read(name: str) -> bytes:
    """Return the compiled code of a module. Raises ImportError, OSError."""
    package, _, stem = name.rpartition(".")
    path = sys.modules[package].__path__
    code = first.compiled(path[0], stem)
    if code is not None:
        return code
    for finder in sys.meta_path[:]:
        spec = None if finder is first.Finder else finder.find_spec(name, path)
        if spec is not None:
            loader: Any = spec.loader
            return marshal.dumps(loader.get_code(name))
    raise ModuleNotFoundError(f"no module named {name}", name=name)


sys.meta_path.insert(0, Finder)

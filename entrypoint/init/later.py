"""Modules that most agents never need, or only at their end: made when something of them is first used.

Until then process 1 holds their compiled code, which takes a fraction of their memory. So no file is read at that time,
which may be that of a stop: the package may have been removed or replaced by another version, there may be no free
descriptor, and the file system may hang. Only memory can still be short. The interpreter does not survive that
everywhere while it makes a module (it crashes, or an error is lost), so it is asked to only where there is enough.
"""

import marshal
import sys
from _frozen_importlib_external import MAGIC_NUMBER

from . import spare_memory, unused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

PACKAGE = __name__.partition(".")[0]

MEMORY_PER_CODE = 6  # bytes for each byte of compiled code: 3 were measured, and the allocator adds its own

_codes: dict[str, bytes] = {}  # of the modules that are not loaded yet, by name


class Module:
    """The module `name` of our package, loaded at the first use of an attribute. Raises what its import would raise."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = f"{PACKAGE}.{name}"
        if self._name not in sys.modules and self._name not in _codes:
            _codes[self._name] = _read(self._name)

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
        make: Callable[..., ModuleSpec] = type(__spec__)
        return make(name, Finder, origin=__file__)

    @staticmethod
    def create_module(spec: "ModuleSpec") -> None:
        """Have the import system make an empty module."""

    @staticmethod
    def exec_module(module: "ModuleType") -> None:
        """Fill it. The code stays here until that has succeeded."""
        exec(marshal.loads(_codes[module.__name__]), vars(module))
        unused.free_of(module)
        del _codes[module.__name__]


def _read(name: str) -> bytes:
    """Return the compiled code of a module. Raises ImportError, OSError."""
    parent = sys.modules[name.rpartition(".")[0]]
    for finder in sys.meta_path:
        spec = finder.find_spec(name, parent.__path__)
        if spec is not None:
            loader: Any = spec.loader
            return _cached(spec, loader) or marshal.dumps(loader.get_code(name))
    raise ModuleNotFoundError(f"no module named {name}", name=name)


def _cached(spec: "ModuleSpec", loader: "Any") -> bytes:
    """Return the compiled code of a module as it is in its .pyc file; empty if that is not known to be the source's.

    The loader knows more kinds of files, but makes the code, which is dropped here: that takes time, and memory that
    the interpreter keeps. For the header see PEP 552. It does not show a file that was cut off, which Python does not
    write; nor that the directory was moved, so a traceback may name the old place.
    """
    try:
        data: bytes = loader.get_data(spec.cached)
        source = loader.path_stats(spec.origin)
        numbers = 0, int(source["mtime"]), source["size"]
        header = MAGIC_NUMBER + b"".join((number & 0xFFFFFFFF).to_bytes(4, "little") for number in numbers)
    except Exception:  # there is no such file, for example
        return b""
    return data[len(header) :] if data.startswith(header) else b""


sys.meta_path.insert(0, Finder)

"""Frees what modules keep that process 1 never uses: above all annotations, which are for type checkers.

They take 0.1 MiB, and 0.4 MiB since Python 3.14, which makes a function of each function's annotations (PEP 649).
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

PACKAGE = __name__.partition(".")[0]
FUNCTION = type(lambda: None)
ATTRIBUTE = "__annotate__" if sys.version_info >= (3, 14) else "__annotations__"


def free_all() -> None:
    """Free the annotations of our own modules: of those that are loaded, and of others as soon as they are loaded.

    The next module uses the memory again. So this is called early, but not before the agent's start. Does not raise.
    """
    try:
        for name, module in tuple(sys.modules.items()):
            if name.partition(".")[0] == PACKAGE:
                free_of(module)
        _free_after_import()
        sys.modules["encodings.aliases"].aliases.clear()  # process 1 uses only UTF-8 and ASCII, by their own names
    except Exception:  # in a later Python, or for want of memory: this only saves some
        return


def _free_after_import() -> None:
    """Have the loader of our modules free their annotations."""
    loader: Any = type(sys.modules[__name__].__loader__)
    execute = loader.exec_module
    if execute.__module__ == __name__:  # called before
        return

    def exec_module(self: "Any", module: "ModuleType") -> None:
        execute(self, module)
        if module.__name__.partition(".")[0] == PACKAGE:
            free_of(module)

    loader.exec_module = exec_module


def free_of(module: "ModuleType") -> None:
    """Free the annotations of the functions and methods of a module. Does not raise."""
    try:
        for value in tuple(vars(module).values()):
            if getattr(value, "__module__", None) != module.__name__:
                continue
            if isinstance(value, type):
                for member in tuple(vars(value).values()):
                    _free(getattr(member, "fget", None) or getattr(member, "__func__", member))
            else:
                _free(value)
    except Exception:  # no memory at the moment, for example: the module is complete without this
        return


def _free(function: object) -> None:
    if isinstance(function, FUNCTION):
        setattr(function, ATTRIBUTE, None)

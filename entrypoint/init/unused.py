"""Frees what modules keep that process 1 never uses.

Annotations are for type checkers. They take 0.1 MiB, and 0.4 since Python 3.14, which makes a function of each
function's annotations (PEP 649). Docstrings take 0.1 MiB, and the tables of line numbers as much: without them an error
is logged with the name of its function. What reads the settings and starts the agent is used once. The modules of the
interpreter itself have some of all this, too.
"""

import sys

from ..first import Finder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType

PACKAGE = __name__.partition(".")[0]
# Modules and functions.
ONLY_AT_START = (
    *"settings options init.own_process init.spawn init.agent_environment.make init.agent_environment._bind".split(),
    *"start.isolate start.given_environment start.read_settings start.check_http start.try_to_start".split(),
    *"start.start_agent start.take_name start._comes_with_interpreter start._as_given start._library".split(),
)
# Modules that every interpreter has loaded. Before Python 3.13 their code is not in memory of ours, but in its file.
INTERPRETERS = ("_frozen_importlib", "_frozen_importlib_external", "codecs", "encodings")
FUNCTION = type(lambda: None)
CODE = type((lambda: None).__code__)
ATTRIBUTE = "__annotate__" if sys.version_info >= (3, 14) else "__annotations__"


def free_all() -> None:
    """Free all this in our own modules: in those that are loaded, and in others as soon as they are loaded.

    The next module uses the memory again. So this is called early, but not before the agent's start. Does not raise.
    """
    try:
        forget(*ONLY_AT_START)
        _forget_archives()
        for name, module in tuple(sys.modules.items()):
            if name.partition(".")[0] == PACKAGE or (name in INTERPRETERS and sys.version_info >= (3, 13)):
                free_of(module)
        Finder.then = free_of
        # With buffers of 8 KiB each, or 128. What process 1 writes, it writes to the descriptor.
        for name in "stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__":
            setattr(sys, name, None)
        sys.path_importer_cache.clear()  # lists of the directories of the standard library and of site-packages
        vars(sys).pop("stdlib_module_names", None)
        sys.modules["encodings.aliases"].aliases.clear()  # process 1 uses only UTF-8 and ASCII, by their own names
    except Exception:  # in a later Python, or for want of memory: this only saves some
        return


def forget(*names: str) -> None:
    """Free modules and functions that are used only once. Does not raise."""
    for name in names:
        package, _, attribute = f"{PACKAGE}.{name}".rpartition(".")
        if package in sys.modules:
            vars(sys.modules[package]).pop(attribute, None)
        module = sys.modules.pop(f"{package}.{attribute}", None)
        if module is not None:
            # Its functions and this refer to each other: they would live until the next garbage collection.
            vars(module).clear()


def _forget_archives() -> None:
    """Free what imports from a zip archive. Process 1 imports no more than its own modules, and shared libraries."""
    module = sys.modules.pop("zipimport", None)
    if module is not None:
        sys.path_hooks[:] = [hook for hook in sys.path_hooks if getattr(hook, "__module__", None) != module.__name__]
        vars(module).clear()


def free_of(module: "ModuleType") -> None:
    """Free annotations, docstrings and line numbers of a module, its functions and its classes. Does not raise."""
    try:
        module.__doc__, traced = None, _is_traced()
        for value in tuple(vars(module).values()):
            if getattr(value, "__module__", None) != module.__name__:
                continue
            if isinstance(value, type):
                value.__doc__ = None
                for member in tuple(vars(value).values()):
                    _free(getattr(member, "fget", None) or getattr(member, "__func__", member), traced)
            else:
                _free(value, traced)
    except Exception:  # no memory at the moment, for example: the module is complete without this
        return


def _is_traced() -> bool:
    """Whether a debugger, or what measures which lines are run, needs line numbers."""
    monitoring = getattr(sys, "monitoring", None)  # since Python 3.12
    return sys.gettrace() is not None or (monitoring is not None and any(map(monitoring.get_tool, range(6))))


def _free(function: object, traced: bool) -> None:
    if not isinstance(function, FUNCTION):
        return
    setattr(function, ATTRIBUTE, None)
    code, text = function.__code__, function.__doc__
    function.__doc__, function.__qualname__ = None, code.co_name
    function.__code__ = _smaller(code, traced, text)


def _smaller(code: "CodeType", traced: bool, text: str | None = None) -> "CodeType":
    """Return the code of a function without what is not needed to run it. `text`: its docstring, if it has one."""
    constants = [_smaller(constant, traced) if isinstance(constant, CODE) else constant for constant in code.co_consts]
    if text is not None and constants[0] is text:
        constants[0] = None
    lines = code.co_linetable if traced else b""
    return code.replace(co_consts=tuple(constants), co_linetable=lines, co_qualname=code.co_name)

"""The first statements of process 1, and how it finds its modules.

Python 3.6 and later can run this: after `pip install --target` the launcher takes any python3.
"""

import _signal
import marshal
import posix  # not `os`: see paths.py
import sys
from _frozen_importlib_external import MAGIC_NUMBER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

PACKAGE = __name__.partition(".")[0]
HEADER_BYTES = 16


def main(script: str) -> None:
    """Run agent-init, and exit. `script` was executed, and has put an entry first in `sys.path`."""
    try:
        if sys.version_info < (3, 11):  # noqa: UP036
            from .older_python import leave

            leave(script)
        # Before anything else: until process 1 blocks or handles a signal, the kernel discards it.
        try:
            _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
        except OSError as error:
            raise RuntimeError(f"sigprocmask is refused: {error.strerror} (a seccomp profile?)") from None
        _set_directory()
        sys.meta_path.insert(0, Finder)
        from .init import spare_memory  # noqa: F401 - takes the reserves, from pages that were never written to
        from .start import main

        posix._exit(main(sys.argv[1:], sys.path[0], posix._exit))
    except Exception as error:
        what = "" if type(error) is RuntimeError else f" ({type(error).__name__}; {script})"
        try:
            posix.write(2, f"agent-init: error: cannot start: {error}{what}\n".encode(errors="surrogateescape"))
        finally:
            posix._exit(125)


def _set_directory() -> None:
    """Make the first entry of `sys.path` the directory that our package was found in, wherever we go.

    The path may be relative, and may have a `..` that only the kernel can resolve: behind a link it is not the
    directory before it. Without /proc it stays as it is.
    """
    path = sys.modules[PACKAGE].__path__
    home = path[0].rpartition("/")[0] or "/"
    try:
        fd = posix.open(home, posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            home = posix.readlink(f"/proc/self/fd/{fd}")
        finally:
            posix.close(fd)
    except OSError:
        pass
    sys.path[0], path[:] = home, [f"{home}/{PACKAGE}"]


class Finder:
    """Finds and loads our own modules (a meta path finder and a loader, as importlib has them).

    It knows nothing but a .pyc file that fits its source; all else is left to the import system. That one lists
    directories, reads through a buffer (of 128 KiB since Python 3.15), and looks for other kinds of files. So it takes
    twice the time, and memory that process 1 keeps.
    """

    # Called with each module once it is loaded.
    then: "Callable[[ModuleType], object] | None" = None

    @staticmethod
    def find_spec(name: str, path: "Sequence[str] | None" = None, target: object = None) -> "ModuleSpec | None":
        """Return how to load a module; None if the import system has to look for it."""
        package, _, stem = name.rpartition(".")
        if not path or package.partition(".")[0] != PACKAGE:
            return None
        code = compiled(path[0], stem)
        if code is None:
            return None
        spec = make_spec(name, Finder, f"{path[0]}/{stem}.py")
        spec.loader_state = code
        return spec

    @staticmethod
    def create_module(spec: "ModuleSpec") -> None:
        """Have the import system make an empty module."""

    @staticmethod
    def exec_module(module: "ModuleType") -> None:
        """Fill it."""
        spec: Any = module.__spec__
        code = marshal.loads(spec.loader_state)
        spec.loader_state = None  # its memory is used again
        module.__file__ = spec.origin
        exec(code, vars(module))
        if Finder.then is not None:
            Finder.then(module)


def make_spec(name: str, loader: "Any", origin: str) -> "ModuleSpec":
    """Return a spec of a module. `importlib.machinery` has the class, too, and takes 2 ms to import."""
    make: Callable[..., ModuleSpec] = type(__spec__)
    return make(name, loader, origin=origin)


def compiled(directory: str, stem: str) -> "bytes | None":
    """Return the compiled code of a module as it is in its .pyc file; None if that is not known to be the source's.

    For the header see PEP 552. It does not show a file that was cut off, which Python does not write; nor that the
    directory was moved, so a traceback may name the old place.
    """
    try:
        file = f"{directory}/__pycache__/{stem}.{sys.implementation.cache_tag}.pyc"
        fd = posix.open(file, posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            header, size = posix.read(fd, HEADER_BYTES), posix.fstat(fd).st_size - HEADER_BYTES
            code = posix.read(fd, size)
        finally:
            posix.close(fd)
        source = posix.stat(f"{directory}/{stem}.py")
    except OSError:  # there is no such file, for example
        return None
    numbers = 0, int(source.st_mtime), source.st_size
    expected = MAGIC_NUMBER + b"".join([(number & 0xFFFFFFFF).to_bytes(4, "little") for number in numbers])
    return code if header == expected and len(code) == size else None

"""How the program of the HTTP server is run, and whether it can be: before the agent starts only this is needed."""

import posix
import sys

from .. import http_state, paths

PROGRAM = "/entrypoint/serve/__main__.py"


def is_installed(package: str) -> bool:
    """Whether the server finds the packages that it needs. `package`: the directory of `entrypoint`.

    They lie beside it, mostly. Where they do not (an editable installation), the server itself is asked.
    """
    if all(paths.isfile(f"{package}/{name}/__init__.py") for name in http_state.PACKAGES):
        return True
    argv = command(package, "--check")
    try:
        pid = posix.posix_spawn(argv[0], argv, environment(), setsigmask=())
        return posix.waitpid(pid, 0)[1] == 0
    except OSError:  # no process to be had: the agent's start reports that
        return True


def command(package: str, *arguments: str) -> list[str]:
    """Return the command line of the server."""
    return [sys.executable or "/proc/self/exe", "-I", "-S", package + PROGRAM, *arguments]


def environment() -> dict[bytes, bytes]:
    """Return what the interpreter may need to be loaded; the rest of the environment may hold secrets."""
    return {name: value for name, value in posix.environ.items() if name.startswith(b"LD_")}

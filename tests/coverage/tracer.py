"""Notes which line follows which in the modules of process 1, in whatever process imports them.

`running.py` appends this to a copy of `entrypoint/__init__.py`. In process 1 it imports only what is loaded there
anyway, opens nothing and starts nothing. It writes its notes when the process exits or execs, and loses them if the
process is killed. coverage.py itself would import much and open files, and takes ten times as long to load as
agent-init takes to start.

It notes what coverage.py calls arcs: pairs of line numbers, where the negative first line of a function stands for its
entry and its exit, as in coverage.py's own `pytracer.py`. Each arc goes with the test that pytest names in the
environment.
"""

import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

HERE = __file__.rpartition("/")[0] + "/"
NOTES, PLACES, MODULES = "{NOTES}", "{PLACES}".split(":"), frozenset("{MODULES}".split(":"))
RESUME = int("{RESUME}")
AFTER_YIELD = 0 if sys.version_info[:2] == (3, 13) else 2  # bytes from a generator's yield to the RESUME behind it


def _environment() -> "Mapping[str, str]":
    """Return the variables: as they are now where `os` is loaded, which it is not in process 1."""
    loaded: Any = sys.modules.get("os")
    if loaded is not None:
        return loaded.environ  # type: ignore[no-any-return]
    return {name.decode(errors="replace"): value.decode(errors="replace") for name, value in posix.environ.items()}


def _measure() -> None:
    """Trace this process, the threads that it starts, and the children that it forks."""
    import _thread
    import marshal

    execve, exit_now, start_new_thread = posix.execve, posix._exit, _thread.start_new_thread
    # Tests replace functions of `posix` by fakes; these stay genuine.
    open_, write, close, urandom, dumps = posix.open, posix.write, posix.close, posix.urandom, marshal.dumps
    arcs: dict[tuple[str, str], set[tuple[int, int]]] = {}
    environment = _environment()

    def trace(frame, event, argument):  # type: ignore[no-untyped-def]
        code = frame.f_code
        module = code.co_filename.removeprefix(HERE)
        if module not in MODULES:
            return None
        key = environment.get("PYTEST_CURRENT_TEST", ""), module
        seen = arcs.get(key)
        if seen is None:
            seen = arcs[key] = set()
        instructions, outside = code.co_code, -code.co_firstlineno
        # Resuming a generator is a call event too: the argument of its RESUME is not 0.
        last = frame.f_lineno if instructions[frame.f_lasti + 1] else outside

        def local(frame, event, argument):  # type: ignore[no-untyped-def]
            nonlocal last
            if event == "line":
                line = frame.f_lineno
                seen.add((last, line))
                last = line
            elif event == "return":
                at = frame.f_lasti + AFTER_YIELD
                if at >= len(instructions) or instructions[at] != RESUME:  # it returns, and does not yield
                    seen.add((last, outside))
            return local

        return local

    def save() -> None:
        """Write the notes. Lost where they cannot be written: the test must not notice."""
        try:
            fd = open_(f"{NOTES}/{urandom(12).hex()}", posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL, 0o644)
            write(fd, dumps({key: list(pairs) for key, pairs in arcs.items()}))
            close(fd)
        except Exception:
            return

    def execve_saved(*arguments):  # type: ignore[no-untyped-def]
        save()
        execve(*arguments)

    def exit_saved(code: int) -> None:
        save()
        exit_now(code)

    def start_traced(function, *arguments):  # type: ignore[no-untyped-def]
        def run(*given):  # type: ignore[no-untyped-def]
            sys.settrace(trace)
            function(*given)

        return start_new_thread(run, *arguments)

    for name in ("posix", "os"):
        loaded: Any = sys.modules.get(name)
        if loaded is not None:
            loaded.execve, loaded._exit = execve_saved, exit_saved
    _thread.start_new_thread = start_traced
    if "pytest" in sys.modules:
        import atexit

        atexit.register(save)
    sys.settrace(trace)


# Not a copy that a test makes and may change; and not the workers of xdist, which call nothing in here.
if HERE in PLACES and not ("pytest" in sys.modules and "PYTEST_XDIST_WORKER" in _environment()):
    _measure()

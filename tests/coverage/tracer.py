"""Notes which line follows which in `entrypoint/init/`, in whatever process imports it.

`__main__.py` puts this at the end of a copy of `entrypoint/init/__init__.py`. In process 1 it imports nothing that is
not loaded there anyway, opens nothing and starts nothing; what it has noted is written where the process ends or execs,
and lost where it is killed. coverage.py itself would do all of that, and take ten times as long to be loaded as
agent-init takes to start.

It notes what coverage.py calls arcs: pairs of line numbers, with the negative first line of a function for its entry
and its exit, as coverage.py's own `pytracer.py` does; and for which test, as pytest tells it in the environment.
"""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__)) + "/"
NOTES, MEASURED, RESUME = "{NOTES}", "{MEASURED}".split(":"), int("{RESUME}")
BACK = 0 if sys.version_info[:2] == (3, 13) else 2  # from where a generator has yielded to its RESUME


def _measure() -> None:
    """In this process, in the threads that it starts, and in what it forks."""
    import _thread
    import marshal

    execve, leave, start_new_thread = os.execve, os._exit, _thread.start_new_thread
    opened, written, closed, random, dumps = os.open, os.write, os.close, os.urandom, marshal.dumps
    arcs: dict[tuple[str, str], set[tuple[int, int]]] = {}
    environment = os.environ

    def trace(frame, event, argument):  # type: ignore[no-untyped-def]
        code = frame.f_code
        name = code.co_filename
        if not name.startswith(HERE):
            return None
        key = environment.get("PYTEST_CURRENT_TEST", ""), name[len(HERE) :]
        seen = arcs.get(key)
        if seen is None:
            seen = arcs[key] = set()
        instructions, outside = code.co_code, -code.co_firstlineno
        # A generator that goes on is called as well: there RESUME has another argument than 0.
        last = frame.f_lineno if instructions[frame.f_lasti + 1] else outside

        def local(frame, event, argument):  # type: ignore[no-untyped-def]
            nonlocal last
            if event == "line":
                line = frame.f_lineno
                seen.add((last, line))
                last = line
            elif event == "return":
                at = frame.f_lasti + BACK
                if at >= len(instructions) or instructions[at] != RESUME:  # else it yields
                    seen.add((last, outside))
            return local

        return local

    def save() -> None:
        """Where it cannot be written nothing is noted; that is no concern of the test's."""
        try:
            fd = opened(f"{NOTES}/{random(12).hex()}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            written(fd, dumps({key: list(pairs) for key, pairs in arcs.items()}))
            closed(fd)
        except Exception:
            return

    def execve_noted(*words):  # type: ignore[no-untyped-def]
        save()
        execve(*words)

    def leave_noted(code: int) -> None:
        save()
        leave(code)

    def start_noted(function, *arguments):  # type: ignore[no-untyped-def]
        def run(*words):  # type: ignore[no-untyped-def]
            sys.settrace(trace)
            function(*words)

        return start_new_thread(run, *arguments)

    os.execve, os._exit, _thread.start_new_thread = execve_noted, leave_noted, start_noted  # type: ignore[assignment]
    if "pytest" in sys.modules:
        import atexit

        atexit.register(save)
    sys.settrace(trace)


# A copy that a test makes, and may change, is not measured; nor are the workers of xdist, which call nothing in here.
if HERE in MEASURED and not ("pytest" in sys.modules and "PYTEST_XDIST_WORKER" in os.environ):
    _measure()

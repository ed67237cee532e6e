"""From the first instruction to the running agent: isolate, read the options, spawn; then the supervisor.

What is imported before the spawn is what the spawn needs. Until the agent runs, whatever fails ends agent-init with
one line and an exit code of 125 to 127; from then on nothing does but the agent's end.
"""

import _thread
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .init.agent_environment import Offer
    from .init.stop_plan import StopPlan
    from .settings import Settings

# What the interpreter itself loads, two that virtual environments come with, and ours. Anything else is the
# container's (a sitecustomize, a .pth file, auto-instrumentation): made for the agent, it stays out of process 1.
OWN_MODULES = frozenset(
    "__main__ _abc _codecs _collections_abc _distutils_hack _frozen_importlib _frozen_importlib_external _imp _io "
    "_signal _sitebuiltins _stat _thread _virtualenv _warnings _weakref abc builtins codecs encodings "
    "encodings.aliases encodings.ascii encodings.latin_1 encodings.utf_8 encodings.utf_8_sig genericpath io marshal "
    "os os.path posix posixpath pwd site stat sys time zipimport "
    "entrypoint entrypoint.start".split()
)
# Variables of the interpreter that change nothing here.
HARMLESS = frozenset(
    "PYTHONUNBUFFERED PYTHONDONTWRITEBYTECODE PYTHONHASHSEED PYTHONIOENCODING PYTHONUTF8 PYTHONFAULTHANDLER "
    "PYTHONNOUSERSITE PYTHONSAFEPATH PYTHONSTARTUP PYTHONBREAKPOINT".split()
)
BEFORE_RETRY = 0.05
LAST_RETRY = 100  # so often we try to do it properly where the agent has ended meanwhile


def main(arguments: "Sequence[str]", package: str) -> int:
    """Run agent-init; returns the exit code. `package` is the directory of `entrypoint`, first in `sys.path`."""
    parent = os.getppid()
    environment = given_environment()
    isolate(arguments, package, environment)

    from . import settings as reader
    from .init import agent_environment, spawn

    try:
        settings = reader.read(arguments, os.environ)
        if settings.stop_delay:  # it may leave no time, which has to be told before the agent starts
            make_plan(settings)
    except (reader.UsageError, reader.InfoRequested) as wanted:
        from . import cli  # no agent will be started

        return cli.answer(arguments, wanted)

    offered = None
    try:
        were_open = spawn.fill_standard_descriptors()
        problems = spawn.adopt(settings.subreaper, settings.parent_death_signal, parent)
        ours = os.getpgrp()
        has_terminal = spawn.foreground() == ours
        offered = agent_environment.make(settings, environment, package, problems)
        started = time.monotonic()
        agent = spawn.spawn(list(settings.command), environment, terminal=has_terminal)
    except spawn.NotStarted as error:
        return _fail(error.code, str(error), settings, offered)
    except Exception as error:  # no memory, no descriptor left
        return _fail(spawn.OWN_FAULT, f"cannot start: {error}", settings, offered)

    retries = 0
    while True:
        try:
            # Keep nothing busy that is not ours: an inherited pipe, a mounted directory.
            spawn.close_inherited({offered.socket.fileno()} if offered and offered.socket else set())
            spawn.leave_directory()
            if retries > LAST_RETRY and (code := spawn.ended(agent)) is not None:
                return code
            from .init import signalfd, supervisor

            ready = supervisor.Supervisor(
                settings,
                make_plan(settings),
                signalfd.open_source(),
                agent,
                offered,
                package=package,
                started=started,
                stderr=2 if were_open[2] else None,
                terminal_of=ours if has_terminal else None,
                problems=problems,
            )
            break
        except Exception:  # no memory just now, say; signals wait in the kernel meanwhile
            retries += 1
            time.sleep(BEFORE_RETRY)
            sys.path_importer_cache.clear()  # it remembers a directory that could not be read once as one to skip
    return ready.run()


def _fail(code: int, text: str, settings: "Settings", offered: "Offer | None") -> int:
    from .init import termination_log
    from .init.console import ERROR, Console

    if offered is not None:
        offered.withdraw()
    Console(2, json=settings.log_format == "json").say(ERROR, "not-started", text, code=code)
    termination_log.write(settings, [text])
    return code


def make_plan(settings: "Settings") -> "StopPlan":
    """How a stop will go. Imported late: the agent need not wait for it. Raises UsageError."""
    from .init import stop_plan

    return stop_plan.make(settings, os.environ)


def isolate(arguments: "Sequence[str]", package: str, environment: dict[bytes, bytes]) -> None:
    """See that nothing of the container's Python settings is in this process; start over without them if it is."""
    if not (sys.flags.isolated and sys.flags.no_site):
        variables = [v for v in os.environ if v.startswith("PYTHON") and v[6:7] != "_" and v not in HARMLESS]
        foreign = {module for module in sys.modules.keys() - OWN_MODULES if not _is_distributors(module)}
        if variables or _thread._count() or foreign:
            python = sys.executable or "/proc/self/exe"
            # The pid and the blocked signals stay.
            os.execve(python, [python, "-I", "-S", package + "/entrypoint/__main__.py", *arguments], environment)
    # Clean: stay so. No import hooks, and the standard library before everything else.
    sys.meta_path[:] = [finder for finder in sys.meta_path if isinstance(finder, type)]
    library = os.path.dirname(os.__file__)
    own = [entry for entry in sys.path if entry == library or entry.endswith(("/lib-dynload", ".zip"))]
    sys.path[:] = [*own, *(entry for entry in sys.path if entry not in own)]


def _is_distributors(module: str) -> bool:
    """Debian's own Python comes with a sitecustomize in the standard library's directory, which does nothing."""
    place = getattr(sys.modules[module], "__file__", None) or ""
    return module == "sitecustomize" and os.path.dirname(place) == os.path.dirname(os.__file__)


def given_environment() -> dict[bytes, bytes]:
    """The environment as we were started with it; the agent is to get just this.

    `os.environ` may tell more or less: in the C locale the interpreter sets LC_CTYPE (PEP 538), and what the container
    has in site-packages may set anything.
    """
    try:
        with open("/proc/self/environ", "rb", buffering=0) as file:
            entries = file.readall()
    except OSError:
        return {name: value for name, value in os.environb.items() if name}
    environment: dict[bytes, bytes] = {}
    for entry in entries.split(b"\0"):
        name, equals, value = entry.partition(b"=")
        if name and equals:  # others cannot be passed on; of two with one name the first counts, as for getenv(3)
            environment.setdefault(name, value)
    return environment

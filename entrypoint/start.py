"""From the first instruction to the running agent: isolate, read the options, spawn; then the supervisor.

Before the spawn only what it needs is imported: the agent waits for each module. Until the agent runs, any failure ends
agent-init with one line and an exit code of 125 to 127; from then on nothing ends it but the agent's exit.
"""

import _thread
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .init.agent_environment import AgentEnvironment
    from .init.stop_plan import StopPlan
    from .init.supervisor import Supervisor
    from .settings import Settings

# What the interpreter itself loads, two modules that virtual environments come with, and ours. Anything else is the
# container's (a sitecustomize, a .pth file, auto-instrumentation): made for the agent, it stays out of process 1.
OWN_MODULES = frozenset(
    "__main__ _abc _codecs _collections_abc _distutils_hack _frozen_importlib _frozen_importlib_external _imp _io "
    "_signal _sitebuiltins _stat _thread _virtualenv _warnings _weakref abc builtins codecs encodings "
    "encodings.aliases encodings.ascii encodings.latin_1 encodings.utf_8 encodings.utf_8_sig genericpath io marshal "
    "os os.path posix posixpath pwd site stat sys time zipimport "
    "entrypoint entrypoint.start".split()
)
# Variables of the interpreter that make no difference to process 1.
HARMLESS = frozenset(
    "PYTHONUNBUFFERED PYTHONDONTWRITEBYTECODE PYTHONHASHSEED PYTHONIOENCODING PYTHONUTF8 PYTHONFAULTHANDLER "
    "PYTHONNOUSERSITE PYTHONSAFEPATH PYTHONSTARTUP PYTHONBREAKPOINT".split()
)
BEFORE_RETRY = 0.05  # seconds
MAX_RETRIES = 100  # after which the agent's exit is looked for without a supervisor


class Started:
    """The agent that was started, and what the supervisor must know about its start."""

    __slots__ = ("at", "environment", "has_log", "pid", "previous_foreground", "problems")

    def __init__(self) -> None:
        self.environment: AgentEnvironment | None = None
        self.problems: list[str] = []
        self.has_log = True  # the descriptor to log to was open
        self.previous_foreground: int | None = None  # the process group that had the terminal before the agent
        self.at = 0.0  # monotonic clock
        self.pid = 0


def main(arguments: "Sequence[str]", package: str) -> int:
    """Run agent-init; return the exit code. `package` is the directory of `entrypoint`, first in `sys.path`."""
    parent = os.getppid()
    environment = given_environment()
    isolate(arguments, package, environment)

    from .settings import InfoRequested, UsageError, read

    try:
        settings = read(arguments, os.environ)
        if settings.stop_delay:  # it may leave no time: report that before the agent starts
            make_plan(settings)
    except (UsageError, InfoRequested) as wanted:
        from . import cli  # no agent will be started

        return cli.answer(arguments, wanted)

    from .init import spawn

    started = Started()
    try:
        start_agent(settings, environment, package, parent, started)
    except spawn.NotStarted as error:
        return _fail(error.code, str(error), settings, started)
    except Exception as error:  # no memory, no descriptor left
        return _fail(spawn.OWN_FAULT, f"cannot start: {error}", settings, started)
    return supervise(settings, package, started)


def start_agent(
    settings: "Settings", environment: dict[bytes, bytes], package: str, parent: int, started: Started
) -> None:
    """Prepare our own process and start the agent; fill in `started`. Raises spawn.NotStarted, OSError."""
    from .init import agent_environment, own_process, spawn

    started.has_log = own_process.fill_standard_descriptors()[settings.log_fd]
    started.problems = own_process.adopt(settings.subreaper, settings.parent_death_signal, parent)
    if os.isatty(0):
        from .init import terminal

        ours = os.getpgrp()
        started.previous_foreground = ours if terminal.foreground() == ours else None
    started.environment = agent_environment.make(settings, environment, package, started.problems)
    if settings.secret:
        from .init import secret_files

        secret_files.put_into(environment, settings)
    started.at = time.monotonic()
    has_terminal = started.previous_foreground is not None
    started.pid = spawn.spawn(list(settings.command), environment, terminal=has_terminal)
    environment.clear()  # it may hold secrets, and is not needed any more


def supervise(settings: "Settings", package: str, started: Started) -> int:
    """Run the supervisor until the agent has exited; return the exit code. Retries where it cannot be set up."""
    socket = started.environment.socket if started.environment is not None else None
    retries = 0
    while True:
        try:
            from .init import own_process

            # Keep nothing in use that is not ours: an inherited pipe, a mounted directory.
            own_process.close_inherited({socket.fileno()} if socket is not None else set())
            own_process.leave_directory()
            if retries > MAX_RETRIES:
                from .init import exit_status

                if (code := exit_status.reap(started.pid)) is not None:
                    return code
            ready = make_supervisor(settings, package, started)
            break
        except Exception:  # no memory at the moment, for example; signals wait in the kernel meanwhile
            retries += 1
            time.sleep(BEFORE_RETRY)
            sys.path_importer_cache.clear()  # it remembers a directory that could not be read once as one to skip
    return ready.run()


def make_supervisor(settings: "Settings", package: str, started: Started) -> "Supervisor":
    """Return the supervisor of the agent. Imported late: the agent need not wait for it."""
    from .init import signalfd, supervisor

    return supervisor.Supervisor(
        settings,
        make_plan(settings),
        signalfd.open_source(),
        started.pid,
        started.environment,
        package=package,
        started=started.at,
        log_fd=settings.log_fd if started.has_log else None,
        previous_foreground=started.previous_foreground,
        problems=started.problems,
    )


def _fail(code: int, text: str, settings: "Settings", started: Started) -> int:
    from .init import termination_log
    from .init.console import ERROR, Console

    if started.environment is not None:
        started.environment.cleanup()
    Console(settings.log_fd, json=settings.log_format == "json").log(ERROR, "not-started", text, code=code)
    termination_log.write(settings, [text])
    return code


def make_plan(settings: "Settings") -> "StopPlan":
    """Return the plan of a stop. Imported late: the agent need not wait for it. Raises UsageError."""
    from .init import stop_plan

    return stop_plan.make(settings, os.environ)


def isolate(arguments: "Sequence[str]", package: str, environment: dict[bytes, bytes]) -> None:
    """Make sure that none of the container's Python settings is in this process; start over without them if one is."""
    if not (sys.flags.isolated and sys.flags.no_site):
        variables = [v for v in os.environ if v.startswith("PYTHON") and v[6:7] != "_" and v not in HARMLESS]
        foreign = {module for module in sys.modules.keys() - OWN_MODULES if not _is_distributors(module)}
        if variables or _thread._count() or foreign:
            python = sys.executable or "/proc/self/exe"
            # The pid and the blocked signals stay.
            os.execve(python, [python, "-I", "-S", package + "/entrypoint/__main__.py", *arguments], environment)
    # Clean; stay so. No import hooks, and the standard library before everything else.
    sys.meta_path[:] = [finder for finder in sys.meta_path if isinstance(finder, type)]
    library = os.path.dirname(os.__file__)
    own = [entry for entry in sys.path if entry == library or entry.endswith(("/lib-dynload", ".zip"))]
    sys.path[:] = [*own, *(entry for entry in sys.path if entry not in own)]


def _is_distributors(module: str) -> bool:
    """Whether it is the sitecustomize of Debian's Python, in the standard library's directory; it does nothing."""
    place = getattr(sys.modules[module], "__file__", None) or ""
    return module == "sitecustomize" and os.path.dirname(place) == os.path.dirname(os.__file__)


def given_environment() -> dict[bytes, bytes]:
    """Return the environment as we were started with it; the agent gets just this.

    `os.environ` may differ: in the C locale the interpreter sets LC_CTYPE (PEP 538), and code in the container's
    site-packages may set anything.
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

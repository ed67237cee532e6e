"""From the first instruction to the running agent: isolate, read the options, spawn; then the supervisor.

Before the spawn only what it needs is imported: the agent waits for each module. Until the agent runs, any failure ends
agent-init with one line and an exit code of 125 to 127; from then on nothing ends it but the agent's exit.
"""

import _thread
import codecs
import posix
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .init.agent_environment import AgentEnvironment
    from .init.fallback import Fallback
    from .init.stop_plan import StopPlan
    from .init.supervisor import Supervisor
    from .parsed import Settings

# Ours, and two modules that virtual environments come with.
OWN_MODULES = frozenset(
    "__main__ entrypoint entrypoint.first entrypoint.init entrypoint.init.spare_memory entrypoint.start "
    "_distutils_hack _virtualenv".split()
)
# Variables of the interpreter that make no difference to process 1.
HARMLESS = frozenset(
    b"PYTHONUNBUFFERED PYTHONDONTWRITEBYTECODE PYTHONHASHSEED PYTHONIOENCODING PYTHONUTF8 PYTHONFAULTHANDLER "
    b"PYTHONNOUSERSITE PYTHONSAFEPATH PYTHONSTARTUP PYTHONBREAKPOINT".split()
)
OF_PEP_538 = (b"C.UTF-8", b"C.utf8", b"UTF-8")  # the values of LC_CTYPE that the interpreter sets in the C locale
BEFORE_RETRY = 0.02  # seconds
RETRY_FOR = 2.0  # seconds from the first failure to set up the supervisor, until the fallback does without
ATTEMPTS_TO_RUN = 3  # a supervisor that was set up
NAME = b"agent-init"
PR_SET_NAME = 15  # prctl(2)
STOP_WAITS = 0.5  # seconds, at most, of that time
WHAT_IS_LEFT = "from now on agent-init only forwards signals, keeps the deadline, reaps and exits with the agent's code"
CANNOT_GO_ON = f"cannot do what is due; {WHAT_IS_LEFT}"
OUT_OF_MEMORY = "cannot supervise the agent: out of memory"


class Started:
    """The agent that was started, and what the supervisor must know about its start."""

    __slots__ = (
        "at",
        "environment",
        "fallback",
        "has_let_go",
        "has_log",
        "older",
        "pid",
        "plan",
        "previous_foreground",
        "problems",
        "signalfd",
    )

    if TYPE_CHECKING:
        fallback: Fallback  # from before the spawn on

    def __init__(self) -> None:
        self.environment: AgentEnvironment | None = None
        self.problems: list[str] = []
        self.has_log = True  # the descriptor to log to was open
        self.previous_foreground: int | None = None  # the process group that had the terminal before the agent
        self.older: frozenset[tuple[int, int]] = frozenset()  # the processes that were below us before
        self.at = 0.0  # monotonic clock
        self.has_let_go = False  # of what is not ours: descriptors, the working directory
        self.plan: StopPlan | None = None
        self.pid = 0
        self.signalfd: int | None = None  # the launcher's, if it has made one

    def clean_up(self) -> None:
        """Remove what was made for the agent."""
        if self.environment is not None:
            self.environment.cleanup()


def main(arguments: "Sequence[str]", package: str, leave: "Callable[[int], int]" = int) -> int:
    """Run agent-init; return the exit code. `package` is the directory of `entrypoint`, first in `sys.path`.

    `leave` gets the exit code when all is done. If that is `posix._exit`, the frames are left to the kernel to free.
    """
    parent = posix.getppid()
    environment = given_environment()
    isolate(arguments, package, environment)

    from .parsed import InfoRequested, UsageError

    try:
        settings = read_settings(arguments)
        if settings.stop_delay:  # it may leave no time: report that before the agent starts
            make_plan(settings)
        if settings.http is not None:
            check_http(settings, package)
    except (UsageError, InfoRequested) as wanted:
        from . import cli  # no agent will be started

        return cli.answer(arguments, wanted)

    from .init.spare_memory import with_stack

    return with_stack(run, settings, environment, package, parent, leave)


def read_settings(arguments: "Sequence[str]") -> "Settings":
    """Return the settings. Raises UsageError, InfoRequested.

    What reads them is used here alone, so that it can be freed once the agent runs.
    """
    from . import paths
    from .settings import read

    return read(arguments, paths.environment())


def run(
    settings: "Settings",
    environment: dict[bytes, bytes],
    package: str,
    parent: int,
    leave: "Callable[[int], int]",
) -> int:
    """Start the agent and supervise it; return what `leave` makes of the exit code."""
    started = Started()
    code = try_to_start(settings, environment, package, parent, started)
    return leave(supervise(settings, package, started) if code is None else code)


def try_to_start(
    settings: "Settings", environment: dict[bytes, bytes], package: str, parent: int, started: Started
) -> int | None:
    """Start the agent; fill in `started`. Where that fails, log why and return the exit code."""
    from .init import spawn

    try:
        start_agent(settings, environment, package, parent, started)
    except spawn.NotStarted as error:
        return _fail(error.code, str(error), settings, started)
    except Exception as error:  # no memory, no descriptor left
        return _fail(spawn.OWN_FAULT, f"cannot start: {error}", settings, started)
    return None


def check_http(settings: "Settings", package: str) -> None:
    """Raise UsageError if the HTTP server cannot run here."""
    from . import http_state
    from .init import http_program
    from .parsed import UsageError

    if sys.platform != "linux":
        raise UsageError(f"{settings.sources['http']} works on Linux only")
    if not http_program.is_installed(package):
        raise UsageError(f"{settings.sources['http']} needs more packages: {http_state.INSTALL}")


def start_agent(
    settings: "Settings", environment: dict[bytes, bytes], package: str, parent: int, started: Started
) -> None:
    """Prepare our own process and start the agent; fill in `started`. Raises spawn.NotStarted, OSError."""
    from .init import agent_environment, fallback, own_process, spawn

    own_process.check_pid()
    take_name()
    started.fallback = fallback.Fallback(settings)
    started.signalfd = own_process.launchers_signalfd()
    started.has_log = own_process.fill_standard_descriptors()[settings.log_fd]
    started.problems = own_process.adopt(settings.subreaper, settings.parent_death_signal, parent)
    if posix.isatty(0):
        from .init import terminal

        ours = posix.getpgrp()
        started.previous_foreground = ours if terminal.foreground() == ours else None
    if settings.ready_file is not None:
        from .init import ready_file

        if error := ready_file.remove(settings.ready_file):
            started.problems.append(f"cannot remove the ready file {settings.ready_file}: {error}")
    started.environment = agent_environment.make(settings, environment, package, started.problems)
    if own_process.has_children():
        from .init import older_processes

        started.older = older_processes.find()
    if settings.secret:
        from .init import secret_files

        secret_files.put_into(environment, settings)
    started.at = time.monotonic()
    has_terminal = started.previous_foreground is not None
    started.pid = spawn.spawn(list(settings.command), environment, terminal=has_terminal)
    started.fallback.pid = started.pid
    environment.clear()  # it may hold secrets, and is not needed any more
    own_process.let_agent_run()


def take_name() -> None:
    """Be `agent-init` for ps(1) and pkill(1): an interpreter that was executed by its path has the name of its file."""
    try:
        with open("/proc/self/comm", "wb", buffering=0) as file:
            file.write(NAME)
    except OSError:
        from .init import libc

        try:
            libc.call("prctl", PR_SET_NAME, NAME, 0, 0, 0)
        except OSError:
            pass


def supervise(settings: "Settings", package: str, started: Started) -> int:
    """Run the supervisor until the agent has exited; return the exit code.

    Where it cannot be set up or cannot go on, the fallback does the least: it was loaded before the agent started.
    """
    fallback = started.fallback
    supervisor = set_up(settings, package, started)
    if supervisor is not None:
        fallback.forget_stop_request()  # it is the supervisor's
    attempts_left = ATTEMPTS_TO_RUN
    while supervisor is not None and attempts_left:  # unlike a for loop, this takes no memory
        attempts_left -= 1
        try:
            if (code := supervisor.run()) is not None:
                return code
            supervisor.leave_to(fallback)
            _log(settings, started, "fallback", CANNOT_GO_ON)
            break
        except BaseException as error:  # no memory at the moment: it goes on where it was
            if not attempts_left:
                _log_failure(settings, started, "fallback", error, WHAT_IS_LEFT)
    while True:
        try:
            code = fallback.run()
            break
        except BaseException:  # a signal's handler that gets no memory raises that anywhere
            continue
    _log(settings, started, "ended", f"ended without a supervisor; exit code {code}")
    try:
        (started if supervisor is None else supervisor).clean_up()
    except Exception:  # what is left is a file, or the terminal
        pass
    return code


def set_up(settings: "Settings", package: str, started: Started) -> "Supervisor | None":
    """Return the supervisor. Where that fails, for want of memory for example, try again; None after RETRY_FOR."""
    failed_at = 0.0
    while True:
        try:
            return make_supervisor(settings, prepare(settings, started), package, started)
        except BaseException as error:  # signals wait in the kernel meanwhile
            started.fallback.reserve.release()
            if not failed_at:
                failed_at = time.monotonic()
                _log_failure(settings, started, "not-supervised", error, "trying again")
            elif time.monotonic() >= min(failed_at + RETRY_FOR, started.fallback.requested_at + STOP_WAITS):
                _log_failure(settings, started, "fallback", error, WHAT_IS_LEFT)
                return None
        try:
            started.fallback.notice_stop_request()
            sys.path_importer_cache.clear()  # it remembers a directory that could not be read once as one to skip
        except Exception:
            pass
        time.sleep(BEFORE_RETRY)


def prepare(settings: "Settings", started: Started) -> "StopPlan":
    """Return the plan, after what needs modules that are used only once. Another attempt needs none of them."""
    if not started.has_let_go:
        from .init import own_process

        socket = started.environment.socket if started.environment is not None else None
        ours = started.signalfd, socket.fileno() if socket is not None else None
        # Keep nothing in use that is not ours: an inherited pipe, a mounted directory.
        own_process.close_inherited({fd for fd in ours if fd is not None})
        own_process.leave_directory()
        started.has_let_go = True
    if started.plan is None:
        from .init import unused

        unused.free_all()
        plan = make_plan(settings)
        started.fallback.stop_signal, started.fallback.grace = plan.steps[0][0], plan.grace
        started.plan = plan
        unused.forget("init.planning", "platforms")
    return started.plan


def make_supervisor(settings: "Settings", plan: "StopPlan", package: str, started: Started) -> "Supervisor":
    """Return the supervisor of the agent. Imported late: the agent need not wait for it."""
    from .init import later, signalfd, supervisor

    later.read_all()
    return supervisor.Supervisor(
        settings,
        plan,
        signalfd.open_source(started.signalfd),
        started.pid,
        started.environment,
        package=package,
        started=started.at,
        log_fd=settings.log_fd if started.has_log else None,
        previous_foreground=started.previous_foreground,
        problems=started.problems,
        older=started.older,
    )


def _log_failure(settings: "Settings", started: Started, event: str, error: BaseException, what_follows: str) -> None:
    try:
        from .init.fallback import describe_error

        text = f"cannot supervise the agent: {describe_error(error)}; {what_follows}"
    except Exception:  # no memory even for that
        text = OUT_OF_MEMORY
    _log(settings, started, event, text)


def _log(settings: "Settings", started: Started, event: str, text: str) -> None:
    """Log an error, if there is a way to. Does not raise."""
    if not started.has_log:
        return
    try:
        from .init.console import ERROR, Console

        Console(settings.log_fd, json=settings.log_format == "json").log(ERROR, event, text)
    except Exception:  # that module may be what cannot be loaded
        try:
            from .init.fallback import write_line

            write_line(settings.log_fd, text)
        except Exception:
            return


def _fail(code: int, text: str, settings: "Settings", started: Started) -> int:
    from .init import termination_log
    from .init.console import ERROR, Console

    started.clean_up()
    Console(settings.log_fd, json=settings.log_format == "json").log(ERROR, "not-started", text, code=code)
    termination_log.TerminationLog(settings).write([text])
    return code


def make_plan(settings: "Settings") -> "StopPlan":
    """Return the plan of a stop. Imported late: the agent need not wait for it. Raises UsageError."""
    from . import paths
    from .init import planning, request_origin

    return planning.make(settings, paths.environment(), by_hand=request_origin.started_by_hand())


def isolate(arguments: "Sequence[str]", package: str, environment: dict[bytes, bytes]) -> None:
    """Make sure that none of the container's Python settings is in this process; start over without them if one is.

    Also where text is not UTF-8: Python and the C library do not agree on every encoding, and arguments were decoded by
    one and would be encoded by the other. Raises OSError if the interpreter cannot be executed again.
    """
    starts_over = sys.getfilesystemencoding() != "utf-8" and "utf8" not in sys._xoptions
    if not (starts_over or (sys.flags.isolated and sys.flags.no_site)):
        variables = [v for v in posix.environ if v.startswith(b"PYTHON") and v[6:7] != b"_" and v not in HARMLESS]
        modules = sys.modules.keys() - OWN_MODULES
        starts_over = bool(variables or _thread._count() or not all(map(_comes_with_interpreter, modules)))
    if starts_over:
        python = sys.executable or "/proc/self/exe"
        options = ["-I", "-S", "-X", "utf8", package + "/entrypoint/__main__.py"]
        # The pid and the blocked signals stay.
        posix.execve(python, [python, *options, *_as_given(arguments)], environment)
    # Clean; stay so. No import hooks, and the standard library before everything else. No imports that wait until a
    # module is used (PYTHON_LAZY_IMPORTS): there may be no memory then, and no file.
    if hasattr(sys, "set_lazy_imports"):  # since 3.15
        sys.set_lazy_imports("normal")
    sys.meta_path[:] = [finder for finder in sys.meta_path if isinstance(finder, type)]
    library = _library()
    own = [entry for entry in sys.path if entry == library or entry.endswith(("/lib-dynload", ".zip"))]
    sys.path[:] = [*own, *(entry for entry in sys.path if entry not in own)]


def _as_given(arguments: "Sequence[str]") -> "Sequence[str] | list[bytes]":
    """Return the last arguments of this process as they were given; as they were decoded where there is no /proc."""
    try:
        with open("/proc/self/cmdline", "rb", buffering=0) as file:
            words = file.readall().split(b"\0")[:-1]
    except OSError:
        return arguments
    return words[len(words) - len(arguments) :]


def _comes_with_interpreter(name: str) -> bool:
    """Whether the interpreter itself has loaded this module. Anything else is the container's.

    What the container loads (a sitecustomize, a .pth file, auto-instrumentation) is made for the agent and stays out of
    process 1, the modules of the standard library that it imports too: they cost memory.

    The interpreter loads other modules in each release, but from the same places: CPython builds in or freezes what it
    needs at start (Tools/build/freeze_modules.py), except the encodings. Debian's Python has a sitecustomize in the
    standard library's directory, which does nothing.
    """
    try:
        # Not by the module's own lookup, which may run code of the container (importlib.util.LazyLoader).
        origin = object.__getattribute__(sys.modules[name], "__spec__").origin
    except AttributeError:
        return False
    if not isinstance(origin, str):
        return False
    if origin in ("built-in", "frozen"):
        return True
    place, library = origin.rpartition("/")[0], _library()
    return place == library + "/encodings" or (name == "sitecustomize" and place == library)


def _library() -> str:
    """Return the directory of the standard library."""
    return codecs.__file__.rpartition("/")[0]


def given_environment() -> dict[bytes, bytes]:
    """Return the environment as we were started with it; the agent gets just this.

    `posix.environ` may differ: in the C locale the interpreter sets LC_CTYPE (PEP 538), and code in the container's
    site-packages may set anything.
    """
    try:
        with open("/proc/self/environ", "rb", buffering=0) as file:
            entries = file.readall()
    except OSError:
        environment = {name: value for name, value in posix.environ.items() if name}
        # What the interpreter sets is last (setenv(3)), and it sets nothing if LC_ALL is given, or LANG is.
        *_, last = None, *environment
        is_set = environment.get(b"LC_ALL") or environment.get(b"LANG", b"C") not in (b"", b"C", b"POSIX")
        if last == b"LC_CTYPE" and environment[last] in OF_PEP_538 and not is_set:
            del environment[last]
        return environment
    environment = {}
    for entry in entries.split(b"\0"):
        name, equals, value = entry.partition(b"=")
        if name and equals:  # others cannot be passed on; of two with one name the first counts, as for getenv(3)
            environment.setdefault(name, value)
    return environment

"""Names of processes that say more than `python`, without the arguments: these can hold secrets."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_CHARACTERS = 40  # of a title that a process has given itself
# What comes before what may be arguments in such a title: `celery worker -A app`, `(...)`, `key=value`, an address.
BEFORE_ARGUMENTS = (" -", " (", "=", "://", "@")
INTERPRETERS = ("python", "pypy", "node", "ruby", "perl")
NODES = frozenset(("MainThread", "node-MainThread"))  # what Node calls its main thread, so itself
SHELLS = frozenset("sh bash rbash dash ash ksh ksh93 mksh lksh oksh posh zsh yash fish csh tcsh".split())
WITH_VALUE = frozenset(("-W", "-X", "-r", "--require", "--import", "--check-hash-based-pycs", "-o", "-O"))
# How multiprocessing starts its own processes: the beginning of the code for -c, and what it is.
MULTIPROCESSING = (
    ("from multiprocessing.resource_tracker import main", "resource tracker"),
    ("from multiprocessing.semaphore_tracker import main", "resource tracker"),
    ("from multiprocessing.forkserver import main", "forkserver"),
    ("from multiprocessing.spawn import spawn_main", "spawn worker"),
)
HELPERS = frozenset(("resource tracker", "forkserver"))  # of multiprocessing: they end by themselves, after the agent


def of(name: str, argv: "Sequence[str]") -> str:
    """Return the name of a process: with its script or module, what multiprocessing calls it, or its own title.

    `name`: as in `stat` (proc(5)). `argv`: its command line, empty if that is not known.
    """
    if not argv or not argv[0]:
        return name
    program = _base(argv[0]).lstrip("-")
    if " " in argv[0] and not any(argv[1:]):  # written over its arguments (setproctitle)
        return _title(argv[0]) or name
    if program.startswith(INTERPRETERS) or program in SHELLS:
        script = _script(argv, program)
        if script in HELPERS:
            return script
        if name == program[:15] or name.startswith(INTERPRETERS) or name in NODES:  # no name of its own
            return script if script == "spawn worker" else f"{program} {script}" if script else name
    return name


def of_child(own: str, parent: str) -> str:
    """Return the name of a process whose parent has this name: a fork has its parent's command line."""
    return "forkserver worker" if own == parent == "forkserver" else own


def _script(argv: "Sequence[str]", program: str) -> str:
    """Return what an interpreter runs: `agent.py`, `-m uvicorn`, `-c`, a part of multiprocessing; empty if unknown."""
    rest = list(argv[1:])
    is_python = program.startswith(("python", "pypy"))
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            return _base(word)
        flags = "" if word.startswith("--") else word
        if is_python and flags.endswith("m"):
            return f"-m {rest[0]}" if rest and rest[0].replace(".", "_").isidentifier() else ""
        if flags.endswith("c") or (flags.endswith("e") and not is_python and program not in SHELLS):
            code = rest[0] if rest and is_python else ""
            code = code.removeprefix("import sys; ")  # the forkserver, in current patch releases
            return next((what for begin, what in MULTIPROCESSING if code.startswith(begin)), flags)
        if word in WITH_VALUE and rest:
            rest.pop(0)
    return ""


def _title(text: str) -> str:
    """Return a title without what may be arguments."""
    end = min((at for mark in BEFORE_ARGUMENTS if (at := text.find(mark)) >= 0), default=len(text))
    return text[:end].strip()[:MAX_CHARACTERS].rstrip(" :")


def _base(path: str) -> str:
    return path.rsplit("/", 1)[-1]

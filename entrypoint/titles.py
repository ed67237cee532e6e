"""Names of processes that say more than `python`, without the arguments: these can hold secrets."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_CHARACTERS = 40  # of a title that a process has given itself
# What comes before what may be arguments in such a title: `celery worker -A app`, `(...)`, `key=value`, an address.
BEFORE_ARGUMENTS = (" -", " (", "=", "://", "@")
INTERPRETERS = ("python", "pypy", "node", "ruby", "perl")
# Letters of an interpreter's short options: code follows; a value follows, in this word or as the next; a value follows
# in this word only. All others take no value, and may stand before these in one word.
LETTERS = {
    "python": ("c", "WX", ""),
    "node": ("ep", "rC", ""),
    "ruby": ("e", "rICEX", "FiKTWx0"),
    "perl": ("eE", "I", "dDFimMx"),
    "fish": ("cC", "dfoDp", ""),
    "sh": ("c", "oO", ""),
}
# Long options: code follows; a value follows as the next word; no value. Of others it is not known.
WITH_CODE = frozenset(("--eval", "--print", "--command", "--init-command"))
WITH_VALUE = frozenset(
    "--require --import --check-hash-based-pycs --env-file --env-file-if-exists --input-type --loader "
    "--experimental-loader --conditions --title --watch-path --run --rcfile --init-file --emulate".split()
)
WITHOUT_VALUE = frozenset("--login --posix --norc --noprofile --noediting --verbose --restricted --interactive".split())
ENDINGS = tuple(".py .pyc .pyz .js .cjs .mjs .ts .cts .mts .jsx .tsx .rb .pl .sh .bash .zsh .fish".split())
NODES = frozenset(("MainThread", "node-MainThread"))  # what Node calls its main thread, so itself
SHELLS = frozenset("sh bash rbash dash ash ksh ksh93 mksh lksh oksh posh zsh yash fish csh tcsh".split())
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
    kind = _kind(program)
    code, with_value, with_attached_value = LETTERS[kind]
    rest, is_sure = list(argv[1:]), True
    while rest:
        word = rest.pop(0)
        if word == "-":  # the code comes from stdin, and arguments follow
            return ""
        if word == "--":
            return _file(rest[0], is_sure) if rest else ""
        if word.startswith("--"):
            option, equals, _ = word.partition("=")
            if option in WITH_CODE:
                return option
            if option in WITH_VALUE and not equals:
                del rest[:1]
            is_sure = is_sure and bool(equals or option in WITH_VALUE or option in WITHOUT_VALUE)
            continue
        if word[:1] != "-" and not (word[:1] == "+" and kind in ("sh", "fish")):
            return _file(word, is_sure)
        for at, letter in enumerate(word[1:], 2):
            following = word[at:] or (rest[0] if rest else "")
            if letter in code:
                return _part_of_multiprocessing(following) if kind == "python" else f"-{letter}"
            if kind == "python" and letter == "m":
                return f"-m {following}" if following.replace(".", "_").isidentifier() else ""
            if kind == "sh" and letter == "s":  # as above
                return ""
            if letter in with_value and not word[at:]:
                del rest[:1]
            if letter in with_value or letter in with_attached_value:
                break
    return ""


def _kind(program: str) -> str:
    """Return whose options an interpreter has, as a key of LETTERS."""
    if program in SHELLS:
        return "fish" if program == "fish" else "sh"
    name = next(name for name in INTERPRETERS if program.startswith(name))
    return "python" if name == "pypy" else name


def _part_of_multiprocessing(code: str) -> str:
    code = code.removeprefix("import sys; ")  # the forkserver, in current patch releases
    return next((what for begin, what in MULTIPROCESSING if code.startswith(begin)), "-c")


def _file(path: str, is_sure: bool) -> str:
    """Return the name of a script; nothing if it may be something else, as code or the value of an unknown option."""
    name = _base(path)
    is_name = name.translate(dict.fromkeys(map(ord, "._-+@"), "x")).isalnum()
    return name if is_name and (is_sure or name.endswith(ENDINGS)) else ""


def _title(text: str) -> str:
    """Return a title without what may be arguments."""
    end = min((at for mark in BEFORE_ARGUMENTS if (at := text.find(mark)) >= 0), default=len(text))
    return text[:end].strip()[:MAX_CHARACTERS].rstrip(" :")


def _base(path: str) -> str:
    return path.rsplit("/", 1)[-1]

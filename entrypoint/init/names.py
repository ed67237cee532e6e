"""Programs that are known by name, because what they do with a signal cannot be seen from outside.

    wrapper    runs one program and ends with it
    relay      a wrapper that catches signals for the sake of that program: it passes them on (`uv run`, npm), keeps
               them to itself (go-task), or ends the program after a time of its own (su). That it catches a signal
               does not show whether the program behind it can act on it: only a look at the program does.
    init       a relay that has several programs, or may be set up to translate signals: it sends on the stop signal
               itself, unless its only program prefers INT, or is a wrapper that would not pass the signal on
    ender      ends the program that it runs by signals of its own, soon after it gets one
    tracer     a wrapper that ignores signals, and sees those of the program that it traces
    idle       waits for the time or for input; it ends by the default action of a signal, and loses no work by that
    passive    does no work of its own: it is idle, or a filter behind a pipe
    server     a display or a bus that a wrapper starts for the program (xvfb-run, dbus-run-session): the program needs
               it until it has ended, and it is stopped with what is left then

The name is that of the file, that in argv[0] (often a title that the program has given itself, such as `npm start`), or
that of the script that an interpreter runs.
"""

from .. import paths
from . import procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .procfs import Process

RELAY_SCRIPTS = frozenset(
    "npm npx pnpm pnpx yarn yarnpkg corepack cross-env cross-env-shell dotenv dotenvx env-cmd tsx "
    "poetry pdm hatch pipenv conda mamba watchfiles nodemon poe poethepoet".split()
)
FEEDERS = frozenset(("nodemon",))
TRACERS = frozenset("strace ltrace proot".split())
RELAYS = (
    RELAY_SCRIPTS
    | TRACERS
    | frozenset(
        "su runuser sudo doas unshare nsenter timeout script screen dtach watch expect cpulimit make gmake "
        "task go-task just mise uv uvx rye pixi micromamba bunx doppler infisical aws-vault chamber direnv "
        "op teller".split()
    )
)
WRAPPER_SCRIPTS = RELAY_SCRIPTS | frozenset("chronic unbuffer inv invoke concurrently".split())
WRAPPERS = (
    RELAYS
    | WRAPPER_SCRIPTS
    | frozenset(
        "bwrap catatonit py-spy setpriv gosu su-exec setuidgid chpst nice ionice nohup stdbuf setsid flock time "
        "xargs find entr firejail dbus-run-session xvfb-run faketime runsvdir".split()
    )
)
INIT_SCRIPTS = frozenset(("concurrently",))
INITS = INIT_SCRIPTS | frozenset("tini tini-static docker-init dumb-init catatonit".split())
ENDER_SCRIPTS = frozenset("parallel watchmedo pm2 pm2-runtime".split())
ENDERS = ENDER_SCRIPTS | {"gdb"}
IDLE = frozenset("sleep tail cat".split())
SERVERS = frozenset("Xvfb Xorg Xvnc Xtigervnc Xtightvnc Xephyr dbus-daemon dbus-broker".split())
STORES = frozenset(
    "redis-server valkey-server keydb-server memcached postgres mysqld mariadbd mongod etcd nats-server qdrant "
    "ollama".split()
)
# The program beside them, or above them, may need them for its drain: data stores, and browsers.
BACKENDS = STORES | frozenset(
    "chromium chrome chrome-headless headless_shell chromedriver firefox firefox-esr firefox-bin geckodriver".split()
)
PASSIVE = IDLE | frozenset("tee sed grep awk gawk mawk ts logger cronolog rotatelogs svlogd multilog jq".split())

INTERPRETERS = ("python", "pypy", "node", "bun", "deno", "ruby", "perl", "tclsh", "expect")  # python3.11 as well
WITHOUT_SCRIPT = frozenset("-c -e -p --eval --print".split())  # the code is the next argument
WITH_VALUE = frozenset("-r --require --import --loader --experimental-loader -C --conditions -X -W -I".split())
ENDINGS = (".js", ".cjs", ".mjs")  # of the scripts that Node's package managers are made of


def is_wrapper(process: "Process") -> bool:
    """Whether it runs a shell, or another program that is known to do nothing but run one."""
    return procfs.is_shell(process) or _find(process, WRAPPERS, WRAPPER_SCRIPTS) != ""


def is_relay(process: "Process") -> bool:
    """Whether the signals that it catches are meant for the program that it runs."""
    return _find(process, RELAYS, RELAY_SCRIPTS) != ""


def feeds_its_program(relay: "Process") -> bool:
    """Whether it passes its own stdin on through a pipe."""
    return _find(relay, FEEDERS, FEEDERS) != ""


def is_init(process: "Process") -> bool:
    """Whether it is a small init or the like, which sends on what it gets."""
    return _find(process, INITS, INIT_SCRIPTS) != ""


def runs_one_program(init: "Process") -> bool:
    """Whether such an init runs a single program, and does not translate signals (`dumb-init --rewrite`)."""
    for argument in procfs.argv_of(init.pid)[1:]:
        if argument.startswith(("-r", "--rewrite")):
            return False
        if not argument.startswith("-") or argument == "--":
            break
    return _find(init, INIT_SCRIPTS, INIT_SCRIPTS) == ""


def ender(process: "Process") -> str:
    """Return its name if it ends the program that it runs in a way that nobody else decides; else an empty text."""
    return _find(process, ENDERS, ENDER_SCRIPTS)


def is_idle(process: "Process") -> bool:
    """Whether it only waits, for the time or for input."""
    return not IDLE.isdisjoint(procfs.program_names(process))


def is_passive(process: "Process") -> bool:
    """Whether it ends with the process that it waits for, or whose output it reads."""
    return not PASSIVE.isdisjoint(procfs.program_names(process))


def is_server(process: "Process") -> bool:
    """Whether it is a display or a bus, by the name in `stat` alone: an agent may have thousands of children."""
    return process.name in SERVERS


def is_backend(process: "Process") -> bool:
    """Whether it is a data store or a browser, by the name in `stat` alone, as above."""
    return process.name in BACKENDS


def is_store(process: "Process") -> bool:
    """Whether it is a data store, by that name."""
    return process.name in STORES


def program(argv: list[str]) -> tuple[str, ...]:
    """Return the program, and the script that it runs, if any; nothing for a shell, or for code on the command line."""
    name = paths.basename(argv[0]) if argv else ""
    if not name or name.lstrip("-") in procfs.SHELLS:
        return ()
    if not name.startswith(INTERPRETERS):
        return (argv[0],)
    script = _script(argv)
    return (argv[0], script) if script else ()


def may_be_looked_through(process: "Process") -> bool:
    """Whether a signal may be meant for a process behind it, although it handles or ignores that signal itself."""
    return procfs.is_shell(process) or is_relay(process) or is_init(process)


def _find(process: "Process", programs: frozenset[str], scripts: frozenset[str]) -> str:
    """Return the name by which it is one of these programs or scripts; an empty text if it is none."""
    argv = procfs.argv_of(process.pid)
    title = paths.basename(argv[0].partition(" ")[0]) if argv else ""
    if found := programs & {title, *procfs.program_names(process)}:
        return min(found)
    if not title.startswith(INTERPRETERS):
        return ""
    if title in ("bun", "deno"):
        return title if programs >= RELAYS and _runs_a_package_script(title, argv) else ""
    script = paths.basename(_script(argv))
    name, ending = paths.splitext(script)
    script = name.removesuffix("-cli") if ending in ENDINGS else script
    return script if script in scripts else ""


def _script(argv: list[str]) -> str:
    """Return the script, or the module (`-m`), that an interpreter runs; empty if it runs none."""
    arguments = iter(argv[1:])
    for argument in arguments:
        if not argument.startswith("-"):
            return argument
        if argument in WITHOUT_SCRIPT:
            break
        if argument in WITH_VALUE:
            next(arguments, None)
    return ""


def _runs_a_package_script(title: str, argv: list[str]) -> bool:
    """Whether it runs a command that package.json or deno.json names, rather than a file in the same process."""
    words = [argument for argument in argv[1:] if not argument.startswith("-")]
    if title == "deno":
        return words[:1] == ["task"]
    if words[:1] in (["run"], ["x"]):
        del words[0]
    return bool(words) and "." not in words[0] and "/" not in words[0]

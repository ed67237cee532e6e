"""The program behind a container's command line, and what is between it and process 1."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import options
from ..init import names
from . import shell

if TYPE_CHECKING:
    from collections.abc import Sequence

AGENT_INIT = "agent-init"
INITS = names.INITS - names.INIT_SCRIPTS
INIT_VALUES = frozenset("-p -e -r --rewrite".split())  # options of these that take a value
# Programs that become the one that follows their options: {name: options that take a value}, and how many words of
# their own come first.
BECOMES: dict[str, tuple[frozenset[str], int]] = {
    "env": (frozenset(("-u", "--unset", "-C", "--chdir")), 0),
    "nice": (frozenset(("-n",)), 0),
    "ionice": (frozenset(("-c", "-n")), 0),
    "nohup": (frozenset(), 0),
    "stdbuf": (frozenset(("-o", "-i", "-e")), 0),
    "setsid": (frozenset(), 0),
    "gosu": (frozenset(), 1),
    "su-exec": (frozenset(), 1),
    "setuidgid": (frozenset(), 1),
    "setpriv": (frozenset(("--reuid", "--regid", "--groups", "--inh-caps", "--bounding-set")), 0),
    "opentelemetry-instrument": (frozenset(), 0),
    "ddtrace-run": (frozenset(), 0),
    "newrelic-admin": (frozenset(), 1),
    "sentry-run": (frozenset(), 0),
    "docker-entrypoint.sh": (frozenset(), 0),  # of Docker's own images: it ends with exec "$@"
    "docker-php-entrypoint": (frozenset(), 0),
}
DROPS_PRIVILEGES = frozenset("gosu su-exec setuidgid setpriv su runuser sudo".split())
RUN_VALUES = frozenset(
    "--project --directory --with --with-requirements --with-editable --extra --group --only-group --no-group --python "
    "-p --env-file --package --index --index-url --cache-dir --config-file -n --name -e --environment -f --file "
    "--only --no-extra -C -P --env --config -c --token --path --projectId -s --stack --command".split()
)
RUNNERS = frozenset("uv poetry pdm pipenv hatch rye pixi conda mamba micromamba dotenv doppler infisical".split())
PYTHONS = ("python", "pypy")
ALL_ARGUMENTS = re.compile(r'"\${1,2}[@*]"|\${1,2}[@*]')
PYTHON_VALUES = frozenset("-W -X --check-hash-based-pycs".split())


@dataclass(frozen=True)
class Shell:
    """A shell in front of the program. `line` is None if it is not understood."""

    name: str
    flags: str
    line: shell.Line | None


@dataclass(frozen=True)
class Launch:
    """The program behind a command line.

    `agent_init`: the words after its name, else None. `above`: the shells over agent-init (without agent-init: over the
    program). `below`: those between agent-init and the program. `inits`: other inits. `relays`: package runners.
    `drops`: what changes the user below agent-init. `program`: its words, whose first one is its name without a
    directory, or the name of the module for `python -m`; empty if it is not known.
    """

    agent_init: tuple[str, ...] | None = None
    above: tuple[Shell, ...] = ()
    below: tuple[Shell, ...] = ()
    inits: tuple[str, ...] = ()
    relays: tuple[str, ...] = ()
    drops: tuple[str, ...] = ()
    program: tuple[str, ...] = ()
    is_python: bool = False
    is_unbuffered: bool = False

    @property
    def shells(self) -> tuple[Shell, ...]:
        """Return all shells."""
        return (*self.above, *self.below)


def find(argv: Sequence[str]) -> Launch:
    """Return the program behind a command line."""
    found: dict[str, tuple[str, ...]] = {"inits": (), "relays": (), "drops": ()}
    above: tuple[Shell, ...] = ()
    below: tuple[Shell, ...] = ()
    agent_init: tuple[str, ...] | None = None
    words = list(argv)
    for _ in range(20):
        name = _name(words)
        rest: list[str] | None
        if name == AGENT_INIT or _is_module(words, "entrypoint"):
            words = words[1:] if name == AGENT_INIT else words[words.index("entrypoint") + 1 :]
            above = below if agent_init is None else above  # a second one is below the first, as its shells are
            agent_init, below = (*(agent_init or ()), *words), ()
            found["drops"] = ()  # what is above it has changed its own user
            rest = command_of(words)
        elif name in INITS:
            found["inits"] += (name,)
            rest = _after_options(words[1:], INIT_VALUES)
        elif name in shell.SHELLS and (behind := _behind_shell(words)) is not None:
            below = (*below, behind)
            rest = behind.line.program.argv if behind.line else []
        elif name == "setsid" and {"-w", "--wait"} & set(words[1:2]):
            found["relays"] += (name,)
            rest = words[2:]
        elif name in BECOMES:
            found["drops"] += (name,) if name in DROPS_PRIVILEGES else ()
            values, own = BECOMES[name]
            rest = _without_assignments(_after_options(words[1:], values)[own:])
        elif name in DROPS_PRIVILEGES:
            found["drops"] += (name,)
            found["relays"] += (name,)
            rest = []
        elif name in RUNNERS and (ran := _behind_runner(name, words)) is not None:
            found["relays"] += (name,)
            rest = ran
        elif name == "bun" or name in names.ENDERS | names.WRAPPERS:  # bun: what it runs is in package.json
            found["relays"] += (name,)
            rest = []
        else:
            rest = None
        if rest is None:
            break
        words = rest
    if agent_init is None:
        above, below = below, ()
    program, is_python, unbuffered = _program(words)
    return Launch(agent_init, above, below, **found, program=program, is_python=is_python, is_unbuffered=unbuffered)


def behind_init(words: Sequence[str]) -> list[str] | None:
    """Return the words behind a small init (tini and the like); None if they do not begin with one."""
    return _after_options(words[1:], INIT_VALUES) if _name(words) in INITS else None


def command_of(arguments: Sequence[str]) -> list[str]:
    """Return the command after agent-init's options, whatever the values of these."""
    return _after_options(arguments, frozenset(flag for option in options.OPTIONS for flag in option.flags))


def _name(words: Sequence[str]) -> str:
    return words[0].rpartition("/")[2] if words else ""


def _is_module(words: Sequence[str], module: str) -> bool:
    return _name(words).startswith(PYTHONS) and "-m" in words[:-1] and words[words.index("-m") + 1] == module


def _after_options(words: Sequence[str], values: frozenset[str]) -> list[str]:
    rest = list(words)
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word == "--":
            break
        if word in values and rest:
            del rest[0]
    return rest


def _without_assignments(words: list[str]) -> list[str]:
    while words and "=" in words[0] and words[0].partition("=")[0].isidentifier():
        words = words[1:]
    return words


def _behind_shell(words: Sequence[str]) -> Shell | None:
    """Return a shell with a line to run (`-c`); None for one with a script."""
    name, rest = _name(words), list(words[1:])
    if name == "busybox":
        if _name(rest) not in ("sh", "ash"):
            return None
        rest = rest[1:]
    flags = ""
    while rest and rest[0][:1] in "-+" and rest[0]:
        flag = rest.pop(0)
        flags += f" {flag}"
        if not flag.startswith("--") and "o" in flag[1:] and rest:
            flags += f" {rest.pop(0)}"
        if not flag.startswith("--") and "c" in flag[1:]:
            while rest and rest[0].startswith("-") and rest[0] != "-":  # sh -c -e LINE
                flags += f" {rest.pop(0)}"
            return Shell(name, flags, shell.understand(_line(rest)) if rest else None)
    return None


def _line(rest: Sequence[str]) -> str:
    """Return the line, with its arguments in place of `"$@"`, which is `"$$@"` in a Compose file."""
    return ALL_ARGUMENTS.sub(lambda _: shlex.join(rest[2:]), rest[0])


def _behind_runner(name: str, words: Sequence[str]) -> list[str] | None:
    """Return what `uv run`, `poetry run` and the like run; None if they do something else."""
    if name == "hatch" and "run" in words:
        return []  # what it runs may be a script of its own configuration
    rest = _after_options(words[1:], RUN_VALUES)
    if not rest or rest.pop(0) != "run":
        return None
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word in ("-m", "--module") and name == "uv":
            return ["python", "-m", *rest]
        if word == "--":
            break
        if word in RUN_VALUES and rest:
            del rest[0]
    if rest and rest[0].endswith(".py"):
        return ["python", *rest]
    return rest


def _program(words: Sequence[str]) -> tuple[tuple[str, ...], bool, bool]:
    """Return the program's words, whether it is a Python script or module, and whether Python writes at once."""
    name = _name(words)
    if not name.startswith(PYTHONS):
        return ((name, *words[1:]), False, False) if name else ((), False, False)
    rest, unbuffered = list(words[1:]), False
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        unbuffered = unbuffered or (not word.startswith("--") and "u" in re.split("[cmWX]", word)[0])
        if word == "-m" or (not word.startswith("--") and word.endswith("m")):
            return ((rest[0].partition(".__main__")[0], *rest[1:]) if rest else (), True, unbuffered)
        if word == "-c":
            return ((name, "-c", *rest), True, unbuffered)
        if word in PYTHON_VALUES and rest:
            del rest[0]
    return (name, *rest), bool(rest), unbuffered

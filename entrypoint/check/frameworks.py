"""What the programs that agents run under do at a stop: which signal they finish their work for, and how long it takes.

Sources: docs/agents.md, whose rows are shown by tests; for the others each program's documentation.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .launch import PYTHONS
from .source import number

if TYPE_CHECKING:
    from .model import Container

CALLS, TASKS, REQUESTS = "calls", "tasks", "requests"


@dataclass(frozen=True)
class Framework:
    """A program. `work`: what is in hand at a stop.

    `quick`: signals that end it at once or lose its work. `stop`: the signal that it finishes its work for. `option`:
    sets how long it may finish its work, in units of `unit` seconds. `variable`: an environment variable with more
    options. `limit`: an environment variable that has the value of the option.
    """

    name: str
    programs: frozenset[str]
    work: str
    quick: frozenset[str] = frozenset()
    stop: str = "TERM"
    options: tuple[str, ...] = ()
    unit: float = 1.0
    variable: str = ""
    limit: str = ""
    subcommand: str = ""


def _of(name: str, programs: str, work: str, **rest: object) -> Framework:
    quick = frozenset(str(rest.pop("quick", "")).split())
    return Framework(name, frozenset(programs.split()), work, quick, **rest)  # type: ignore[arg-type]


FRAMEWORKS = (
    _of("gunicorn", "gunicorn", REQUESTS, quick="INT QUIT", options=("--graceful-timeout",),
        variable="GUNICORN_CMD_ARGS"),
    _of("uvicorn", "uvicorn", REQUESTS, quick="QUIT", options=("--timeout-graceful-shutdown",),
        limit="UVICORN_TIMEOUT_GRACEFUL_SHUTDOWN"),
    _of("FastAPI's uvicorn", "fastapi", REQUESTS, quick="QUIT", subcommand="run"),
    _of("hypercorn", "hypercorn", REQUESTS, quick="QUIT", options=("--graceful-timeout",)),
    _of("granian", "granian", REQUESTS, quick="QUIT", options=("--workers-kill-timeout",),
        limit="GRANIAN_WORKERS_KILL_TIMEOUT"),
    _of("Celery", "celery", TASKS, quick="QUIT", subcommand="worker"),
    _of("Dramatiq", "dramatiq dramatiq-gevent", TASKS, options=("--worker-shutdown-timeout",), unit=0.001),
    _of("Huey", "huey_consumer huey_consumer.py", TASKS, quick="TERM QUIT", stop="INT"),
    _of("rq", "rq", TASKS, quick="QUIT", subcommand="worker"),
    _of("waitress", "waitress-serve waitress", REQUESTS, quick="QUIT", stop="INT"),
)  # fmt: skip
OF_DJANGO = {"rqworker": "rq", "run_huey": "Huey", "rundramatiq": "Dramatiq"}
# Options of celery and rq before the subcommand that take a value.
GLOBAL_VALUES = frozenset("-A --app -b --broker --result-backend --loader --config --workdir -u --url -c".split())
LIVEKIT = _of("LiveKit Agents", "", CALLS, quick="QUIT", options=("--drain-timeout",))
LIVEKIT_COMMANDS = ("start", "dev", "connect", "console")
LIVEKIT_EVIDENCE = re.compile(r"livekit[-_.]agents|livekit-plugins|(?:\.py|-m\s+\S+)\s+download-files")


@dataclass(frozen=True)
class Use:
    """A framework as a container runs it. `words`: the program's words. `seconds`: how long it may finish its work, as
    its option says. `written`: that option and its value.
    """

    framework: Framework
    words: tuple[str, ...]
    seconds: float | None = None
    written: str = ""

    @property
    def command(self) -> str:
        """Return the command of a LiveKit worker: the word after its script or module."""
        return "".join(self.words[_script_end(self.words) :][:1])

    @property
    def is_livekit(self) -> bool:
        """Whether it is a LiveKit worker."""
        return self.framework is LIVEKIT


def recognise(container: Container) -> Use | None:
    """Return the framework that a container runs; None if it is none of those known."""
    words = container.launch.program
    if not words:
        return None
    managed = _managed(words)
    framework = next((known for known in FRAMEWORKS if words[0] in known.programs or managed == known.name), None)
    if framework is None:
        if not _is_livekit(container, words):
            return None
        framework = LIVEKIT
    if framework.subcommand and not managed and framework.subcommand != _subcommand(words):
        return None
    more: list[str] = []
    if framework.variable and (given := container.variables.get(framework.variable)):
        try:
            more = shlex.split(given.value)
        except ValueError:
            more = []
    seconds, written = _option((*more, *words), framework)
    given = container.variables.get(framework.limit)
    if not written and given is not None:
        seconds, written = number(given.value), f"{framework.limit}={given.value}"
    return Use(framework, words, seconds, written)


def _managed(words: tuple[str, ...]) -> str:
    """Return the name of the framework whose worker a command of Django's manage.py runs."""
    after = [index + 1 for index, word in enumerate(words[:2]) if word.rpartition("/")[2] == "manage.py"]
    return OF_DJANGO.get("".join(words[after[0] : after[0] + 1]), "") if after else ""


def _subcommand(words: tuple[str, ...]) -> str:
    """Return the first word after the options before it: `worker` in `celery -A beat worker`."""
    rest = iter(words[1:])
    for word in rest:
        if not word.startswith("-"):
            return word
        if word in GLOBAL_VALUES:
            next(rest, None)
    return ""


def _option(words: tuple[str, ...], framework: Framework) -> tuple[float | None, str]:
    seconds, written = None, ""
    for index, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag not in framework.options:
            continue
        value = value if equals else "".join(words[index + 1 : index + 2])
        units = number(value)  # None: a variable
        seconds, written = None if units is None else units * framework.unit, f"{flag} {value}"
    return seconds, written


def _script_end(words: tuple[str, ...]) -> int:
    """Return the number of the words that name the program: a module (`python -m`), or Python and a script."""
    return 2 if words[0].startswith(PYTHONS) else 1


def _is_livekit(container: Container, words: tuple[str, ...]) -> bool:
    if not container.launch.is_python or not set(LIVEKIT_COMMANDS) & set(words[_script_end(words) :][:1]):
        return False
    image = container.image_of
    text = " ".join((container.image, image.mentions if image else "", *words))
    return bool(LIVEKIT_EVIDENCE.search(text)) or any(name.startswith("LIVEKIT_") for name in container.variables)

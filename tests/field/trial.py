"""A trial: what people run, how it is stopped, and what the right outcome is. It can be run under any init.

The trials are data, in `trials/`, one file for each kind. `test_trials.py` runs them under agent-init; `table.py` runs
them under its peers too and writes docs/field.md.
"""

from __future__ import annotations

import re
import shlex
import shutil
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from tests.field import running
from tests.field.place import Place
from tests.field.running import Build, Event, Run
from tests.support.init import PATIENCE

DRAIN = 1.5  # seconds that an agent drains, unless its trial says otherwise
SLACK = 3.0  # how much later than that a container may be over, on a busy machine
# A time to linger that is shorter than the drain: else an agent that was only given that time would seem to be right.
OPTIONS = ("-t", "20s", "--linger", "700ms")

DRAINED = ("up", "TERM", "drained")


@dataclass(frozen=True)
class Right:
    """What must be seen. `text` is for the table. Times are seconds after the first signal."""

    text: str
    events: Mapping[str, Sequence[str]] = field(default_factory=dict)  # all that each of these programs logs, in order
    codes: Collection[int] = ()  # one of these exit codes; empty: any
    within: float = DRAIN + SLACK  # the end
    at_most: Mapping[tuple[str, str], float] = field(default_factory=dict)  # the time of a program's event
    at_least: Mapping[tuple[str, str], float] = field(default_factory=dict)
    printed: Mapping[str, str] = field(default_factory=dict)  # what a line is called, and its regular expression
    never_printed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What was seen. `seconds` is None if it was not over after `patience` seconds."""

    started: bool
    log: Sequence[Event]
    began: float  # on the clock of the events
    seconds: float | None
    patience: float
    code: int | None
    output: str

    def events(self, name: str) -> list[str]:
        return [event.event for event in self.log if event.name == name]

    def at(self, name: str, event: str) -> float | None:
        """When the program logged it first."""
        times = [e.at - self.began for e in self.log if (e.name, e.event) == (name, event)]
        return times[0] if times else None

    def shown(self) -> str:
        """All of it, for a person."""
        events = "".join(f"  {e.at - self.began:6.2f} s  {e.name}: {e.event}\n" for e in self.log)
        end = "not over" if self.seconds is None else f"over after {self.seconds:.2f} s, exit code {self.code}"
        return f"{end}\n{events}{self.output}"


Stop = Callable[[Run], None]


def send(*names: str, after: float = 0.0) -> Stop:
    """Send process 1 these signals, with `after` seconds between them."""

    def stop(run: Run) -> None:
        for number, name in enumerate(names):
            if number:
                time.sleep(after)
            run.send(name)

    return stop


def nothing(run: Run) -> None:
    """The program ends, or asks for its end, by itself."""


TERMINATE = send("TERM")


@dataclass(frozen=True)
class Trial:
    """`source` is the public report that it was made from: its project and number, or where it is found.

    `variation`: not the report's own case, but another of its kind. `up`: the programs that must be up before the stop.
    `options` are agent-init's, and `before` is put in front of it.
    """

    name: str
    source: str
    command: Build
    right: Right | tuple[Right, ...]  # one of them
    stop: Stop = TERMINATE
    drain: float = DRAIN
    variation: bool = False
    up: tuple[str, ...] = ("agent",)
    options: tuple[str, ...] = OPTIONS
    environment: Mapping[str, str] | Callable[[Place], Mapping[str, str]] = field(default_factory=dict)
    before: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()

    @property
    def rights(self) -> tuple[Right, ...]:
        return self.right if isinstance(self.right, tuple) else (self.right,)

    @property
    def text(self) -> str:
        """The right outcome, in words."""
        return " or ".join(dict.fromkeys(right.text for right in self.rights))

    def missing(self) -> str | None:
        """The program that is not installed, if any."""
        return next((program for program in self.programs if shutil.which(program) is None), None)


def run(trial: Trial, init: str = "agent-init") -> Outcome:
    """Run it under this init."""
    patience = max(right.within for right in trial.rights) + 1.0
    with running.running(
        trial.command,
        running.init(init, *trial.options),
        drain=trial.drain,
        environment=trial.environment,
        before=trial.before if init == "agent-init" else (),
    ) as seen:
        started = seen.wait_until_up(trial.up) if trial.up else True
        began = time.monotonic()
        ended = None
        if started:
            trial.stop(seen)
            ended = seen.wait(patience if trial.up else PATIENCE)
        elif seen.over:
            ended = began
        return Outcome(
            started=started,
            log=seen.log(),
            began=began,
            seconds=None if ended is None else ended - began,
            patience=patience,
            code=seen.exit_code,
            output=seen.output.read_text(errors="replace"),
        )


def problems(trial: Trial, outcome: Outcome) -> list[str]:
    """What is wrong, in few words each; of several right outcomes, compared with the nearest one."""
    found = min((_problems(right, outcome) for right in trial.rights), key=len)
    return ["does not start"] if found and not outcome.started else found


def _problems(right: Right, outcome: Outcome) -> list[str]:
    found = [
        problem
        for name, wanted in right.events.items()
        for problem in _wrong_events(_who(name), list(wanted), outcome.events(name))
    ]
    for (name, event), most in right.at_most.items():
        if (at := outcome.at(name, event)) is not None and at > most:
            found.append(f"{_who(name)}: {event} late")
    for (name, event), least in right.at_least.items():
        if (at := outcome.at(name, event)) is not None and at < least:
            found.append(f"{_who(name)}: {event} too early")
    if outcome.seconds is None:
        found.append(f"not over after {outcome.patience:g} s")
    elif outcome.seconds > right.within:
        found.append("over late")
    elif right.codes and outcome.code not in right.codes:
        found.append(f"exit code {outcome.code}")
    found += [f"no {what}" for what, text in right.printed.items() if not re.search(text, outcome.output)]
    found += [what for what, text in right.never_printed.items() if re.search(text, outcome.output)]
    return found


def _who(name: str) -> str:
    return "agent" if name == "agent" else name


def _wrong_events(who: str, wanted: list[str], got: list[str]) -> list[str]:
    if got == wanted:
        return []
    expected, seen = Counter(wanted), Counter(got)
    found = []
    for name in ("TERM", "INT", "HUP", "QUIT", "USR1", "USR2"):
        if seen[name] > expected[name]:
            found.append(f"{who}: {name}{_times(seen[name])}")
        elif seen[name] < expected[name]:
            found.append(f"{who}: no {name}")
    if seen["up"] > expected["up"]:
        found.append(f"{who} started again")
    elif not seen["up"] and expected["up"]:
        found.append(f"{who} not started")
    elif wanted[-1] not in got:
        found.append(f"{who} killed" if seen["up"] else f"{who} not started")
    return found or [f"{who}: {', '.join(got)}"]


def _times(count: int) -> str:
    return {1: "", 2: " twice"}.get(count, f" {count} times")


# --- For the tables of trials. ---


def shell(shell: str, script: str, option: str = "-c", **commands: Callable[[Place], list[str]]) -> Build:
    """A shell with a script. `AGENT` in it is the agent's command line; other names are those of `commands`."""
    return lambda place: [shell, option, with_commands(place, script, commands)]


def script(shell: str, text: str, **commands: Callable[[Place], list[str]]) -> Build:
    """A start script in a file of its own."""
    return lambda place: [
        place.file(
            "entrypoint.sh", f"#!{shutil.which(shell) or shell}\n{with_commands(place, text, commands)}\n", 0o755
        )
    ]


def with_commands(place: Place, text: str, commands: Mapping[str, Callable[[Place], list[str]]]) -> str:
    for name, command in commands.items():
        text = text.replace(name, shlex.join(command(place)))
    return text.replace("AGENT", place.line)


def drain(seconds: float, name: str) -> Callable[[Place], list[str]]:
    """Another agent that drains."""
    return lambda place: place.drain(seconds, name)


def actor(code: str, name: str = "agent") -> Callable[[Place], list[str]]:
    """A program that runs this code, see `tests/support/actor.py`."""
    return lambda place: place.actor(name, code)


def drained(
    drain: float = DRAIN,
    *,
    codes: Collection[int] = (0,),
    also: str = "",
    events: Mapping[str, Sequence[str]] | None = None,
    **more: Mapping[str, str],
) -> Right:
    """The agent gets exactly one TERM, drains, and the container is over soon afterwards."""
    programs = {"agent": DRAINED, **(events or {})}
    text = f"drained{f', {also}' if also else ''}"
    return Right(text, events=programs, codes=codes, within=drain + SLACK, **more)  # type: ignore[arg-type]

"""How people and platforms stop a container."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from signal import SIGHUP, SIGINT, SIGQUIT, SIGTERM, Signals

from . import environments
from .process1 import Agent

Command = Sequence[str]


def as_it_is(command: Command) -> Command:
    return command


def behind_shell(command: Command) -> Command:
    """A shell that does not exec the command, because another command follows."""
    return ("sh", "-c", f"{shlex.join(command)}; exit $?")


def behind_uv(command: Command) -> Command:
    return (environments.uv(), "run", "--quiet", "--offline", "--no-project", "--", *command)


@dataclass(frozen=True)
class StopScenario:
    name: str
    signals: tuple[Signals, ...]
    apart: float = 0.0  # seconds between the signals
    wrap: Callable[[Command], Command] = as_it_is

    def __str__(self) -> str:
        return self.name

    def stop(self, agent: Agent) -> None:
        first, *more = self.signals
        agent.signal(first)
        for number in more:
            time.sleep(self.apart)
            agent.signal(number)


TERM = StopScenario("TERM", (SIGTERM,))
HUP = StopScenario("HUP", (SIGHUP,))
QUIT = StopScenario("QUIT", (SIGQUIT,))
SHELL = StopScenario("behind sh -c", (SIGTERM,), wrap=behind_shell)
UV = StopScenario("behind uv run", (SIGTERM,), wrap=behind_uv)

STOPS = (
    TERM,
    StopScenario("INT", (SIGINT,)),
    StopScenario("INT, TERM 1 s later", (SIGINT, SIGTERM), 1.0),
    StopScenario("TERM twice, 30 ms apart", (SIGTERM, SIGTERM), 0.03),
    StopScenario("TERM twice, 500 ms apart", (SIGTERM, SIGTERM), 0.5),
    SHELL,
    UV,
)
"""Stop requests for every framework."""

ALL = (*STOPS, HUP, QUIT)
"""For agents that do not handle HUP and QUIT: agent-init turns these into stop requests."""

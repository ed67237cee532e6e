"""What a rehearsal can be asked for."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .scenarios import WAYS, Way

if TYPE_CHECKING:
    from pathlib import Path

    from .up import Condition

DEFAULT_GRACE = 30.0
UP_TIMEOUT, WORK_TIMEOUT = 60.0, 10.0
MAX_COUNT = 1000  # of --runs and --parallel


@dataclass(frozen=True)
class Options:
    """The options of `rehearse`. All times in seconds.

    `up`: None finds out by itself. `work_up`: the text of a line that the work prints once the agent has it in hand.
    `grace`: None leaves it to AGENT_INIT_STOP_SCHEDULE. `work_timeout`: what the work
    may take after the agent has ended. `mend`: undoes what `break_dependency` does. `keep`: the folder for the runs'
    output; None makes one.
    """

    up: Condition | None = None
    work: str | None = None
    work_up: str | None = None
    break_dependency: str | None = None
    mend: str | None = None
    ways: tuple[Way, ...] = WAYS
    runs: int = 1
    parallel: int = 1
    seed: int = field(default_factory=lambda: random.SystemRandom().randrange(1_000_000))
    grace: float | None = DEFAULT_GRACE
    up_timeout: float = UP_TIMEOUT
    work_timeout: float = WORK_TIMEOUT
    keep: Path | None = None
    keep_stdin: bool = False
    subreaper: bool = False

"""The settings once they are read, and the exceptions that end a start without an agent.

Process 1 keeps this module; `settings` and `options` are freed once the agent runs.
"""

from . import paths
from .units import INFINITY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PREFIX = "AGENT_INIT_"  # of all our variables
# Variables that agent-init sets for the agent, whose process reads them. They are not options.
STOP_SECONDS = PREFIX + "STOP_SECONDS"
RESPONDERS = PREFIX + "RESPONDERS"
# This one is an option, too. Process 1 reads a duration such as 500ms, and gives the agent the same in seconds.
LOOP_WATCH = PREFIX + "LOOP_WATCH"

KILL_BEFORE_PLATFORM = 2.0  # seconds; a quarter of --platform-grace if that is less


class UsageError(Exception):
    """Bad usage. The message is one line that names the bad input and what is accepted."""


class InfoRequested(Exception):
    """The user asked for information, not for a run. `args[0]` is `help`, `version` or `complete`."""


class Settings:
    """The parsed settings. Immutable.

    Durations are seconds, signals are numbers. `grace` and `stop_signal` are None for `auto`; `stop_schedule` is None
    if the grace and the stop signal define it. `log_level` is -1 for errors only, 0 for warnings too, and higher for
    more. `sources` maps an option's name to the flag or variable that set it. `unknown`: the variables with our
    prefix that are neither options nor made by Kubernetes, each with the one that may be meant, or None.
    """

    if TYPE_CHECKING:
        grace: float | None
        max_grace: float
        platform_grace: float | None
        linger: float
        orphans: float | None
        stop_signal: int | None
        stop_schedule: tuple[tuple[int, float], ...] | None
        stop_on: frozenset[int]
        stop_delay: float
        repeat: str
        rewrite: dict[int, int]
        target: str
        unhandled: str
        subreaper: bool | None
        parent_death_signal: int | None
        ok_exit: frozenset[int]
        notify: bool
        notify_access: str
        watchdog: float | None
        ready_timeout: float | None
        ready_file: str | None
        report_on: frozenset[int]
        report_after: float | None
        control: bool
        http: tuple[str, int] | None
        stacks: bool
        loop_watch: float | None
        secret: tuple[str, ...]
        termination_log: str | None
        warn_reaped: bool
        log_level: int
        log_format: str
        log_to: str
        command: tuple[str, ...]
        sources: dict[str, str]
        unknown: dict[str, str | None]

    def __init__(self, **values: "Any") -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"settings are immutable: {name}")

    @property
    def latest_kill(self) -> float:
        """Return the seconds to the latest KILL of ours, so that the platform's comes after it; infinity if not known.

        They count from the stop request.
        """
        known = self.platform_grace
        return INFINITY if known is None else known - min(KILL_BEFORE_PLATFORM, known / 4)

    @property
    def log_fd(self) -> int:
        """Return the descriptor to log to."""
        return 1 if self.log_to == "stdout" else 2

    @property
    def has_termination_log(self) -> bool:
        """Whether the termination log is there, or is to be made: one that --termination-log names is."""
        path = self.termination_log
        return path is not None and ("termination_log" in self.sources or paths.lexists(path))

"""What a rehearsal is made of: scenarios, runs, and what was seen of each run. Data only."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class Mode(StrEnum):
    """Where the agent-init of a run was."""

    PROCESS_1 = "process 1"  # of a fresh PID namespace, as in a container
    SUBREAPER = "subreaper"  # no namespace could be had


class Verdict(StrEnum):
    """The outcome of a run, or of all runs of a scenario."""

    HELD = "held"  # the agent ended by itself in time, and nothing was lost
    LOST = "lost"  # killed, work lost, processes left over, or a log line that betrays a broken end
    INFORMATIONAL = "informational"  # a scenario that no agent can win: what happened, without a judgement
    SKIPPED = "skipped"  # could not be run here; the reason is in the text


@dataclass(frozen=True)
class Scenario:
    """One way in which a platform stops an agent."""

    name: str  # as `--scenarios` takes it: "term", "term-twice"
    title: str  # "TERM twice, 1 s apart"
    like: str  # who does that: "containerd restarted in a drain"
    counts: bool  # False: informational
    measures: bool = True  # False: the scenario itself holds up the drain, or cuts it; it says nothing about its length


@dataclass(frozen=True)
class Event:
    """Something that happened in a run."""

    seconds: float  # since the agent's start
    kind: str  # "up", "request", "signal", "deadline", "kill", "end", "work-end", "break", "note"
    text: str  # one line, for people
    pid: int | None = None  # of the process that it happened to, as the run's own namespace numbers it


@dataclass(frozen=True)
class Life:
    """The life of one process, as far as it was seen. The lives of a run begin with the agent's."""

    pid: int
    parent: int
    name: str  # safe to show: a program's or script's name, never its arguments
    began: float  # seconds since the agent's start
    ended: float | None  # None: left over when the agent had ended, and killed with the namespace


@dataclass(frozen=True)
class BrokenLine:
    """A line of the agent's output that betrays a broken end."""

    seconds: float  # since the agent's start
    line: str
    rule: str  # the text that was recognised: "no running event loop"


@dataclass(frozen=True)
class Run:
    """One run of the agent, and how it ended."""

    scenario: Scenario
    number: int  # from 1, within the scenario
    mode: Mode
    verdict: Verdict
    reasons: tuple[str, ...]  # why it was lost or skipped, one line each; empty where it held
    up_after: float | None  # seconds from the start until the agent was up; None: it never was
    request_at: float | None  # seconds from the start to the stop request
    end_at: float | None  # seconds from the start until the agent had ended
    exit_code: int | None  # of agent-init, as a platform sees it
    killed: bool  # by agent-init's deadline, or after the rehearsal's own patience
    work_kept: bool | None  # None: no --work
    left_over: tuple[str, ...]  # names of processes that the agent left behind
    held_up_by: str | None  # the top line of the stall report, if there was one
    broken_lines: tuple[BrokenLine, ...] = ()
    events: tuple[Event, ...] = ()
    lives: tuple[Life, ...] = ()
    interrupted: bool = False  # the exit code is that of the INT which agent-init has sent in place of TERM
    folder: Path | None = None  # has the run's whole output: output.log, events.jsonl, work.log

    @property
    def drain(self) -> float | None:
        """Seconds from the stop request to the end of the agent."""
        if self.request_at is None or self.end_at is None:
            return None
        return max(0.0, self.end_at - self.request_at)


@dataclass(frozen=True)
class Advice:
    """A line to write, where, and why."""

    where: str  # "Kubernetes", "Compose", "environment", "command line"
    line: str  # ready to paste: "terminationGracePeriodSeconds: 75"
    reason: str  # one sentence


@dataclass(frozen=True)
class Rehearsal:
    """The result of a whole rehearsal."""

    command: tuple[str, ...]
    work: str | None
    up: str  # how "up" was found: "READY=1", "tcp:8080", "3 s of quiet"
    seed: int
    runs: tuple[Run, ...]
    advice: tuple[Advice, ...]
    notes: tuple[str, ...] = ()  # what the verdict does not cover, one sentence each
    versions: dict[str, str] = field(default_factory=dict)  # "agent-init": "1.0", "python": "3.11.7"
    began: str = ""  # ISO 8601, UTC

    def of(self, scenario: Scenario) -> tuple[Run, ...]:
        """Return the runs of a scenario, in order."""
        return tuple(run for run in self.runs if run.scenario == scenario)

    @property
    def scenarios(self) -> tuple[Scenario, ...]:
        """The scenarios that were tried, in the order of their first run."""
        return tuple(dict.fromkeys(run.scenario for run in self.runs))

    @property
    def held(self) -> bool:
        """Whether every run of a scenario that counts held."""
        return not any(run.verdict is Verdict.LOST and run.scenario.counts for run in self.runs)

"""From the runs to the lines that an operator should write. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .. import signals, units
from ..settings import KILL_BEFORE_PLATFORM
from .model import Advice, Verdict
from .scenarios import INT, RETRIES, TERM, TERM_ONCE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .model import Run

MARGIN = 1.25
LEAST_SECONDS = 30  # no advice to give an agent less than Kubernetes does by default
VARIABLES = {"--stop-signal": "AGENT_INIT_STOP_SIGNAL", "--stop-delay": "AGENT_INIT_STOP_DELAY"}


def advise(runs: Sequence[Run], *, work: bool, grace: float | None) -> tuple[Advice, ...]:
    """Return what to write, the most important first. `work`: the agent had some. `grace`: of the runs, in seconds."""
    return (*_retries(runs), *_times(runs, work=work, grace=grace), *_exit_codes(runs))


def lost(run: Run) -> bool:
    """Whether other options might help: the agent was killed, or lost its work."""
    return run.verdict is Verdict.LOST and (run.killed or run.work_kept is False or bool(run.left_over))


def _retries(runs: Sequence[Run]) -> list[Advice]:
    """Return the option that was tried where a plain TERM had lost something, and that has kept it each time."""
    if not any(lost(run) for run in runs if run.scenario == TERM_ONCE.scenario):
        return []
    for way in RETRIES:
        tried = [run for run in runs if run.scenario == way.scenario]
        if tried and not any(run.reasons for run in tried):
            flag, value = way.options
            kept = "kept its work and ended in time" if tried[0].work_kept else "ended in time"
            reason = f"with {flag} {value} the agent {kept}, without it not"
            return [Advice("environment", f"{VARIABLES[flag]}={value}", reason)]
    return []


def _times(runs: Sequence[Run], *, work: bool, grace: float | None) -> list[Advice]:
    counted = [run for run in runs if _measures(run)]
    killed = [run for run in counted if run.killed]
    drains = [run.drain for run in counted if run.drain is not None and run.up_after is not None and not run.killed]
    advice = []
    if killed and grace is not None:
        longer = units.format_duration(grace * 2)
        names = ", ".join(dict.fromkeys(run.scenario.name for run in killed))
        reason = f"the agent had not ended after {units.format_duration(grace)} ({names}): does it with more time?"
        advice.append(Advice("command line", f"agent-initctl rehearse --grace {longer}", reason))
    if not drains:
        return advice
    own = math.ceil(max(drains) * MARGIN)
    platform = max(LEAST_SECONDS, own + math.ceil(KILL_BEFORE_PLATFORM))
    with_what = "with this work; a real one may take longer" if work else "without any work (--work)"
    longest = units.format_duration(round(max(drains), 1))
    reason = f"at least so long: the longest drain seen took {longest}, {with_what}"
    before = units.format_duration(KILL_BEFORE_PLATFORM)
    return [
        *advice,
        Advice("Kubernetes", f"terminationGracePeriodSeconds: {platform}", reason),
        Advice("Compose", f"stop_grace_period: {platform}s", f"the same; its default is {units.format_duration(10)}"),
        Advice(
            "environment",
            f"AGENT_INIT_GRACE={platform - math.ceil(KILL_BEFORE_PLATFORM)}s",
            f"{before} before the platform's SIGKILL, so that the log says what was still running",
        ),
    ]


def _measures(run: Run) -> bool:
    """Whether a run shows how a stop goes that nothing but the agent itself holds up."""
    return run.scenario.counts and run.scenario.measures and run.verdict is not Verdict.SKIPPED


def _exit_codes(runs: Iterable[Run]) -> list[Advice]:
    """Return the advice for an agent that ends by the stop signal: 143 is a failure for a Job or a restart policy."""
    by_signal = {128 + TERM, 128 + INT}
    held = (run for run in runs if _measures(run) and run.verdict is Verdict.HELD)
    codes = sorted({run.exit_code for run in held if run.exit_code in by_signal})
    if not codes:
        return []
    names = " or ".join(f"{code} ({signals.name_of(code - 128)})" for code in codes if code is not None)
    reason = f"its exit code after a stop is {names}, which a Job or `restart: on-failure` takes for a failure"
    return [Advice("command line", "agent-init -e 143", reason)]

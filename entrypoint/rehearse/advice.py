"""From the runs to the lines that an operator should write. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .. import signals, units
from ..parsed import KILL_BEFORE_PLATFORM
from .model import Advice, Verdict
from .scenarios import GRACE, INT, STOP_DELAY, STOP_SIGNAL, TERM, TERM_ONCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .model import Run

MARGIN = 1.25
LEAST_SECONDS = 30  # no advice to give an agent less than Kubernetes does by default
VARIABLES = {STOP_SIGNAL: "AGENT_INIT_STOP_SIGNAL", STOP_DELAY: "AGENT_INIT_STOP_DELAY"}
RETRY = f"{TERM_ONCE.name} "


def advise(runs: Sequence[Run], *, work: bool, grace: float | None) -> tuple[Advice, ...]:
    """Return what to write, the most important first. `work`: the agent had some. `grace`: of the runs, in seconds."""
    return (*_retries(runs), *_times(runs, work=work, grace=grace), *_exit_codes(runs))


def lost(run: Run) -> bool:
    """Whether other options might help: the agent was killed, or lost its work."""
    return run.verdict is Verdict.LOST and _loses(run)


def _loses(run: Run) -> bool:
    """Whether the agent was killed, or lost its work. No option prevents an exit code or a log line."""
    return run.killed or run.work_kept is False or bool(run.left_over)


def _what_helped(runs: Sequence[Run]) -> tuple[str, str] | None:
    """Return the option, and its value, with which a plain TERM has lost nothing any more; None if there is none."""
    for scenario in dict.fromkeys(run.scenario for run in runs if run.scenario.name.startswith(RETRY + "--")):
        if not any(_loses(run) or run.request_at is None for run in runs if run.scenario == scenario):
            flag, _, value = scenario.name.removeprefix(RETRY).partition(" ")
            return flag, value
    return None


def _retries(runs: Sequence[Run]) -> list[Advice]:
    helped = _what_helped(runs)
    if helped is None or helped[0] == GRACE:  # that is among the times
        return []
    flag, value = helped
    return [
        Advice("environment", f"{VARIABLES[flag]}={value}", f"with {flag} {value} nothing was lost, without it it was")
    ]


def _times(runs: Sequence[Run], *, work: bool, grace: float | None) -> list[Advice]:
    helped = _what_helped(runs)
    own = _own_grace(runs, helped, grace)
    advice = []
    killed = [run for run in runs if _measures(run) and run.killed]
    if killed and grace is not None and (helped is None or helped[0] != GRACE):
        names = ", ".join(dict.fromkeys(run.scenario.name for run in killed))
        reason = f"the agent had not ended after {units.format_duration(grace)} ({names}): does it with more time?"
        advice.append(
            Advice("command line", f"agent-initctl rehearse --grace {units.format_duration(4 * grace)}", reason)
        )
    if own is None:
        return advice
    seconds, reason = own
    reserve = math.ceil(KILL_BEFORE_PLATFORM)
    platform = max(LEAST_SECONDS, seconds + reserve)
    reason += ", with this work; a real one may take longer" if work else ", without any work (--work)"
    before = units.format_duration(KILL_BEFORE_PLATFORM)
    return [
        *advice,
        Advice("Kubernetes", f"terminationGracePeriodSeconds: {platform}", reason),
        Advice("Compose", f"stop_grace_period: {platform}s", f"the same; its default is {units.format_duration(10)}"),
        Advice(
            "environment",
            f"AGENT_INIT_GRACE={platform - reserve}s",
            f"{before} before the platform's SIGKILL, so that the log says what was still running",
        ),
    ]


def _own_grace(runs: Sequence[Run], helped: tuple[str, str] | None, grace: float | None) -> tuple[int, str] | None:
    """Return the grace for agent-init, in whole seconds, and why; None where no run shows what the agent needs."""
    with_option = "" if helped is None else RETRY + " ".join(helped)
    right = [
        run for run in runs if (_measures(run) and run.verdict is Verdict.HELD) or run.scenario.name == with_option
    ]
    drains = [run.drain for run in right if run.drain is not None and run.up_after is not None]
    if not drains:
        return None
    seconds = math.ceil(max(drains) * MARGIN)
    reason = f"at least so long: the longest drain seen took {units.format_duration(round(max(drains), 2))}"
    if helped is not None and grace is not None and helped[0] == GRACE:
        tried = math.ceil(units.parse_duration(helped[1]))
        if tried > seconds:
            return tried, f"with {units.format_duration(grace)} something was lost, with {helped[1]} nothing"
    return seconds, reason


def _measures(run: Run) -> bool:
    """Whether a run shows how a stop goes that nothing but the agent itself holds up."""
    return run.scenario.counts and run.scenario.measures and run.verdict is not Verdict.SKIPPED


def _exit_codes(runs: Sequence[Run]) -> list[Advice]:
    """Return the advice for an agent that ends by the stop signal: 143 is a failure for a Job or a restart policy.

    With an option that has helped it is the code of the run with that option; with another stop signal, of that only.
    """
    helped = _what_helped(runs)
    right = []
    if helped is None or helped[0] != STOP_SIGNAL:
        right = [run for run in runs if _measures(run) and run.verdict is Verdict.HELD]
    if helped is not None:
        right += [run for run in runs if run.scenario.name == RETRY + " ".join(helped)]
    by_signal = [run for run in right if run.exit_code in (128 + TERM, 128 + INT)]
    if not by_signal:
        return []
    codes = sorted({run.exit_code for run in by_signal if run.exit_code is not None})
    names = " or ".join(f"{code} ({signals.name_of(code - 128)})" for code in codes)
    reason = f"its exit code after a stop is {names}, which a Job or `restart: on-failure` takes for a failure"
    options = " ".join(f"-e {code}" for code in sorted({_counts_as(run) for run in by_signal}))
    return [Advice("command line", f"agent-init {options}", reason)]


def _counts_as(run: Run) -> int:
    """Return the exit code that --ok-exit takes that of an agent for which has ended by a signal."""
    return 128 + INT if run.exit_code == 128 + INT and not run.interrupted else 128 + TERM

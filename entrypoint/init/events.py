"""The text of each event, its level, and which list of processes follows it.

Most agents never cause one of these, so process 1 makes this when the first of these lines is due: see `later`. What
every stop and every end logs is in `narrator`.
"""

import posix

from ..signals import TERM, name_of
from ..units import INFINITY, format_duration
from . import dispositions, procfs
from .console import DEBUG, ERROR, INFO, WARNING
from .narrator import COUNT, NAMES, describe, since, steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from .. import titles
    from .exit_status import Ending
    from .procfs import Process

    Upcoming = dict[str, Any]
else:
    from .later import Module

    titles = Module("titles")

MAX_NAMED = 12  # processes in one line
# They ask systemd to halt, power off, reboot or kexec: RTMIN+3 to 7 and 13 to 17 (systemd(1), "Signals"). An image made
# for systemd has one as its STOPSIGNAL. Container engines count from glibc's RTMIN, which is 34.
STOPS_SYSTEMD = frozenset((*range(34 + 3, 34 + 8), *range(34 + 13, 34 + 18)))

# --- Text. ----------------------------------------------------------------------------------------------------------


def _dropped(signal: int, sender: object) -> str:
    return f"{name_of(signal)} from {sender} dropped (--rewrite)"


def _not_forwarded(signal: int, sender: object) -> str:
    return f"{name_of(signal)} from {sender} comes too late for the agent"


def _shielded(signal: int, sender: object) -> str:
    nobody = "no process is known to handle it" if dispositions.masks_are_false() else "no process handles it"
    return f"{name_of(signal)} from {sender} dropped: {nobody}"


def remedy(signal: int, stop_on: "frozenset[int]") -> str:
    """Return which option fits a signal that was dropped."""
    if signal in STOPS_SYSTEMD:
        names = ",".join(map(name_of, (signal, *sorted(stop_on, reverse=True))))
        return f"--stop-on {names} turns it into a stop request"
    return "--unhandled forward sends it anyway"


def _forwarded(signal: int, sender: object, to: "Sequence[Process]") -> str:
    return f"{name_of(signal)} from {sender} forwarded to {listed(to) if to else 'the agent'}"


def _status(status: str) -> str:
    return f'agent status: "{status}"'


def _errno(errno: int) -> str:
    return f"agent reported errno {errno} ({posix.strerror(errno)})"


def _watchdog_waits(sender: object) -> str:
    return f"{sender} is ready, but WATCHDOG_PID names the agent: the watchdog waits for its first WATCHDOG=1"


def _ready(seconds: float) -> str:
    return f"the agent is ready, after {format_duration(seconds)}"


def _extended(max_grace: float, limited_by: str) -> str:
    bound = "" if max_grace == INFINITY else f", {format_duration(max_grace)} in total at most ({limited_by})"
    return f"the agent asked for more time{bound}"


def _extended_by_command(sender: object, left: float) -> str:
    return f"{sender} gives the stop more time: {format_duration(left)} are left"


def _long_stop(elapsed: float, hung: bool) -> str:
    return f"still stopping after {format_duration(elapsed)}: stall report (--report-after)"


def _report_requested(signal: int, sender: object) -> str:
    return f"stall report requested by {name_of(signal)} from {sender} (--report-on)"


def _ready_file(path: str, error: str) -> str:
    return f"cannot keep the ready file {path}: {error}"


def _watchdog(allowed: float | None, sender: object, upcoming: "Upcoming", status: str) -> str:
    if allowed is None:
        text = f"the agent triggered its watchdog ({sender})"
    else:
        text = f"the agent gave no sign of life for {format_duration(allowed)}"
    return f"{text}: stall report, then {steps(upcoming)}"


def _ready_timeout(allowed: float, sender: object, upcoming: "Upcoming", status: str) -> str:
    return f"the agent is not ready after {format_duration(allowed)}: stall report, then {steps(upcoming)}"


def _time_left(left: float | None, elapsed: float | None, extended: bool) -> str:
    if left is not None:
        return f"{format_duration(left)} left{' (extended by the agent)' if extended else ''}"
    return f"{format_duration(elapsed)} so far, no deadline" if elapsed is not None else "no deadline"


def _in_progress(
    signal: int, sender: object, left: float | None, elapsed: float | None, extended: bool, lingers: bool = False
) -> str:
    what = "the agent has already exited" if lingers else "stop already in progress"
    return f"{name_of(signal)} from {sender}: {what} ({_time_left(left, elapsed, extended)})"


def _stop_repeated(passed_on: int | None, lifted_by: str = "", **facts: "Any") -> str:
    text = f"{_in_progress(**facts)}; {'not passed on' if passed_on is None else f'{name_of(passed_on)} passed on'}"
    return f"{text}; no deadline any more but that of {lifted_by}" if lifted_by else text


def _repeat_escalates(**facts: "Any") -> str:
    return f"{_in_progress(**facts)}; on to the next step"


def _repeat_kills(**facts: "Any") -> str:
    return f"{_in_progress(**facts)}; SIGKILL at once"


def _stopping(status: str, left: float | None, elapsed: float | None, extended: bool) -> str:
    return f"stopping: {_time_left(left, elapsed, extended)}"


def _step(signal: int, elapsed: float, hung: bool) -> str:
    return f"{since(elapsed, hung)}, {'SIGKILL' if name_of(signal) == 'KILL' else name_of(signal)}"


def _limit_near(elapsed: float, hung: bool, platform: str) -> str:
    return (
        f"{since(elapsed, hung)} the agent is still running; {platform} ends its wait with a SIGKILL from outside; "
        "agent-init goes on waiting (AGENT_INIT_GRACE sets a deadline of its own)"
    )


def _looked_through(signal: int, to: "Sequence[Process]", reason: str, interrupted: "Sequence[Process]" = ()) -> str:
    others = [process for process in to if process not in interrupted]
    sent = f"{name_of(signal)} sent to {listed(others)}" if others else ""
    sent += "; " if others and interrupted else ""
    return f"{reason}; {sent}{_interrupted(interrupted) if interrupted else ''}"


def _ends_program(wrappers: "Sequence[str]") -> str:
    return f"{', '.join(wrappers)}: known to end its program by itself, with other signals or in less time"


def _left_to_others(signal: int, caught: "Sequence[Process]", to: "Sequence[Process]") -> str:
    handle, them = ("handles", "it") if len(caught) == 1 else ("handle", "them")
    return (
        f"{name_of(signal)} went to {listed(caught)}, which {handle} it; "
        f"whether it reached {listed(to)} was left to {them}"
    )


def _interrupted(interrupted: "Sequence[Process]") -> str:
    verb = "does" if len(interrupted) == 1 else "do"
    return f"INT sent to {listed(interrupted)}, which {verb} not handle TERM"


def _last_term(signal: int, to: "Sequence[Process]") -> str:
    has = "it has" if len(to) == 1 else "they have"
    return f"{name_of(signal)} sent to {listed(to)} before the KILL, as {has} not exited"


def _handles_by_now(signal: int, to: "Sequence[Process]") -> str:
    handle = "handles" if len(to) == 1 else "handle"
    return f"{name_of(signal)} sent to {listed(to)}, which {handle} it by now"


def _late(signal: int) -> str:
    """Return which signal somebody gets late: whether INT takes the place of TERM is decided then."""
    return "TERM or INT" if signal == TERM else name_of(signal)


def _wrapper_stays(signal: int, what: str) -> str:
    why = {
        "exiting": "it has not exited",
        "waiting": "it waits for another process",
        "restarting": "it has started the same program again",
        "cleaning": "it waits for another process, perhaps in its trap for EXIT",
        "serving": "it has started another program, which handles the signal",
    }[what]
    return f"all processes behind the agent have exited, but {why}: {_late(signal)} to it as well"


def _held_back(signal: int, seconds: float) -> str:
    return f"the agent itself gets {_late(signal)} after they have exited, or in {format_duration(seconds)}"


def _held_back_signalled(signal: int) -> str:
    return f"the agent has not exited: {_late(signal)} to it as well"


def _orphan_stopped(orphan: str, seconds: float, signal: int, to: "Sequence[Process]") -> str:
    return f"orphan {orphan}, adopted {format_duration(seconds)} ago: {name_of(signal)} to {listed(to)}"


def _orphan_killed(orphan: str, seconds: float, signal: int, linger: float, to: "Sequence[Process]") -> str:
    after = f"{format_duration(linger)} after {name_of(signal)}"
    return f"orphan {orphan}, adopted {format_duration(seconds)} ago: {after}, SIGKILL to {listed(to)}"


def _wrapper_left(
    code: int, ending: "Ending", cause: str, signal: int, left: float | None, has_had_it: bool | None
) -> str:
    rest = "no deadline" if left is None else f"{format_duration(left)} left"
    name = name_of(signal)
    sent = {True: f", which has had {name}", False: f"; {name} to its program", None: ""}[has_had_it]
    return f"the agent {describe(ending, cause)} before the program that it runs{sent} ({rest})"


def _not_signalled(to: "Sequence[Process]") -> str:
    return f"the wrapper is likely to have passed the signal on to {listed(to)}: no second one"


def _lingering(code: int, ending: "Ending", cause: str, signal: int, linger: float) -> str:
    how = describe(ending, cause)
    return f"the agent {how}; it left processes behind: {name_of(signal)} to them, up to {format_duration(linger)}"


def _replaced(successor: str) -> str:
    return (
        f"the agent exited without a stop request, while {successor} runs the same program: an agent that starts its "
        "successor in the background ends its container; replace the process with exec, stay in the foreground, or "
        "send MAINPID= before the exit"
    )


def _older_left(signal: int) -> str:
    return f"SIGKILL to what is older than the agent and does not handle {name_of(signal)}"


def _linger_over() -> str:
    return "linger time is over, SIGKILL to what the agent left behind"


def _left_behind(seconds: float) -> str:
    return f"gave up: not everything has exited {format_duration(seconds)} after SIGKILL"


def listed(processes: "Sequence[Process]") -> str:
    """Return `python agent.py (12), node server.js (13)`, and how many more there are beyond MAX_NAMED."""
    return joined(labels(processes), len(processes))


def joined(shown: list[str], count: int) -> str:
    names, more = ", ".join(shown), count - MAX_NAMED
    return f"{names} and {more} more" if more > 0 else names


def labels(processes: "Sequence[Process]") -> list[str]:
    """Return the first MAX_NAMED processes as text: `python agent.py (12)`; one like its parent has that named too."""
    shown = processes[:MAX_NAMED]
    try:
        title_of = titles.of
    except Exception:  # no memory to load it
        return [f"{process.name} ({process.pid})" for process in shown]
    # Only of processes that are still the same: there may be another with the pid.
    argvs = {process.pid: procfs.argv_of(process.pid) if procfs.is_there(process) else [] for process in shown}
    names = {process.pid: title_of(process.name, argvs[process.pid]) for process in shown}
    texts = []
    for process in shown:
        own, parent = names[process.pid], names.get(process.parent, "")
        is_alike = own == parent and argvs[process.pid] != []
        alike = f", child of {process.parent}" if is_alike else ""
        texts.append(f"{titles.of_child(own, parent)} ({process.pid}{alike})")
    return texts


# --- Events. --------------------------------------------------------------------------------------------------------


# For each event: its name in JSON, its level, its text, and which process list follows.
EVENTS: "dict[str, tuple[str, int, Callable[..., str], str]]" = {
    "dropped": ("dropped", DEBUG, _dropped, ""),
    "not-forwarded": ("not-forwarded", DEBUG, _not_forwarded, ""),
    "shielded": ("shielded", WARNING, _shielded, ""),
    "forwarded": ("forwarded", DEBUG, _forwarded, ""),
    "status": ("status", DEBUG, _status, ""),
    "errno": ("errno", WARNING, _errno, ""),
    "reloading": ("reloading", INFO, lambda: "the agent is reloading", ""),
    "agent-stopping": ("agent-stopping", INFO, lambda: "the agent is stopping by itself", ""),
    "watchdog-waits": ("watchdog-waits", WARNING, _watchdog_waits, ""),
    "ready": ("ready", INFO, _ready, ""),
    "extended": ("extended", INFO, _extended, ""),
    "extended-by-command": ("extended", INFO, _extended_by_command, ""),
    "long-stop": ("long-stop", WARNING, _long_stop, COUNT),
    "report-requested": ("report-requested", INFO, _report_requested, ""),
    "ready-file": ("ready-file", WARNING, _ready_file, ""),
    "watchdog": ("watchdog", ERROR, _watchdog, ""),
    "ready-timeout": ("ready-timeout", ERROR, _ready_timeout, ""),
    "stop-repeated": ("stop-repeated", INFO, _stop_repeated, ""),
    "repeat-escalates": ("escalated", INFO, _repeat_escalates, ""),
    "repeat-kills": ("escalated", WARNING, _repeat_kills, NAMES),
    "stopping": ("stopping", INFO, _stopping, COUNT),
    "step": ("escalated", WARNING, _step, NAMES),
    "deadline": ("deadline", WARNING, _step, NAMES),
    "limit-near": ("limit-near", WARNING, _limit_near, NAMES),
    "looked-through": ("looked-through", INFO, _looked_through, ""),
    "ends-program": ("ends-program", INFO, _ends_program, ""),
    "left-to-others": ("left-to-others", WARNING, _left_to_others, ""),
    "interrupted": ("interrupted", INFO, _interrupted, ""),
    "last-term": ("last-term", INFO, _last_term, ""),
    "handles-by-now": ("handles-by-now", INFO, _handles_by_now, ""),
    "wrapper-stays": ("wrapper-stays", INFO, _wrapper_stays, ""),
    "held-back": ("held-back", INFO, _held_back, ""),
    "held-back-signalled": ("held-back", INFO, _held_back_signalled, ""),
    "orphan-stopped": ("orphan-stopped", INFO, _orphan_stopped, ""),
    "orphan-killed": ("orphan-killed", WARNING, _orphan_killed, ""),
    "wrapper-left": ("wrapper-left", INFO, _wrapper_left, NAMES),
    "not-signalled": ("not-signalled", INFO, _not_signalled, ""),
    "lingering": ("lingering", INFO, _lingering, NAMES),
    "replaced": ("replaced", WARNING, _replaced, ""),
    "older-left": ("older-left", INFO, _older_left, NAMES),
    "linger-over": ("linger-over", WARNING, _linger_over, NAMES),
    "left-behind": ("left-behind", ERROR, _left_behind, NAMES),
}

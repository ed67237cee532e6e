"""What agent-init reports about itself: turns the facts of an event into a log line, and into the final message.

`EVENTS` has for each event its level and its text. An orchestrator may keep the final message: the lines that say why a
stop went wrong, with the last line, go to the termination log as well.
"""

import posix

from ..notify import LOOP_EVENTS
from ..options import OPTIONS
from ..settings import OTHER_INITS, nearest
from ..signals import EOF, name_of
from ..units import INFINITY, format_bytes, format_duration
from . import exit_status, later, procfs
from .console import DEBUG, ERROR, INFO, TRACE, WARNING
from .final_message import FinalMessage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from .. import titles
    from ..settings import Settings
    from .actions import Log
    from .console import Console
    from .exit_status import Ending
    from .main_process import MainProcess
    from .procfs import Process
    from .signalfd import Received
    from .stop_plan import StopPlan
    from .tree import Descendants

    Upcoming = dict[str, Any]
else:
    titles = later.Module("titles")

MAX_NAMED = 12  # processes in one line
AT_ONCE = 1.0  # seconds from the start to an end that may need a hint
PARENT_IS_1 = "; if it exits because its parent has pid 1, start it as a shell's child: sh -c 'COMMAND; exit $?'"
AT = {
    "stop-signal": "as the stop signal",
    "deadline": "at the deadline",
    "escalated": "at a repeated stop request (--repeat escalate)",
}
MASKS_UNKNOWN = (
    "signal handlers cannot be seen here (a sandbox, or emulation): a signal may kill the agent; what helps: "
    "--rewrite, --unhandled, --target, or X_AGENT_INIT_HANDLES from the agent (entrypoint.agent.run sends it)"
)

# They ask systemd to halt, power off, reboot or kexec: RTMIN+3 to 7 and 13 to 17 (systemd(1), "Signals"). An image made
# for systemd has one as its STOPSIGNAL. Container engines count from glibc's RTMIN, which is 34.
STOPS_SYSTEMD = frozenset((*range(34 + 3, 34 + 8), *range(34 + 13, 34 + 18)))

# --- Text. ----------------------------------------------------------------------------------------------------------


def _dropped(signal: int, sender: object) -> str:
    return f"{name_of(signal)} from {sender} dropped (--rewrite)"


def _not_forwarded(signal: int, sender: object) -> str:
    return f"{name_of(signal)} from {sender} comes too late for the agent"


def _shielded(signal: int, sender: object) -> str:
    nobody = "no process is known to handle it" if procfs.masks_are_false() else "no process handles it"
    return f"{name_of(signal)} from {sender} dropped: {nobody}"


def _remedy(signal: int, stop_on: "frozenset[int]") -> str:
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
    return f"{text}: stall report, then {_steps(upcoming)}"


def _ready_timeout(allowed: float, sender: object, upcoming: "Upcoming", status: str) -> str:
    return f"the agent is not ready after {format_duration(allowed)}: stall report, then {_steps(upcoming)}"


def _stop_requested(signal: int, sender: object, upcoming: "Upcoming") -> str:
    return f"stop requested by {_requester(signal, sender)}: {_steps(upcoming)}"


def _requester(signal: int, sender: object) -> str:
    return "the end of stdin, whose other end is gone" if signal == EOF else f"{name_of(signal)} from {sender}"


def _steps(upcoming: "Upcoming") -> str:
    """`TERM to the agent, KILL after 25s`, and who ends the stop where agent-init does not."""
    texts: list[str] = []
    sent_by = upcoming.get("sent_by")
    for number, seconds in upcoming["steps"]:
        after = f" after {format_duration(seconds)}" if seconds > 0 or texts else ""
        texts.append(f"{name_of(number)}{'' if texts else ' to the agent'}{after}")
        if sent_by and len(texts) == 1:
            texts = [f"{name_of(number)} to every process from {sent_by} itself, none to the agent from agent-init"]
    if (platform := upcoming["platform"]) is not None:
        texts.append(f"no deadline but that of {platform}" if platform else "no deadline")
    text = ", ".join(texts)
    if unknown_to := upcoming.get("unknown_to"):
        text += f", the limit of {unknown_to}, which does not end a stop that it has not requested"
    if upcoming.get("unknown_unless_hook"):
        text += ", which ends this stop only if the request is part of it (a preStop hook)"
    return text


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


def _since(elapsed: float, hung: bool) -> str:
    return f"{format_duration(elapsed)} after {'the hang was detected' if hung else 'the stop request'}"


def _step(signal: int, elapsed: float, hung: bool) -> str:
    return f"{_since(elapsed, hung)}, {'SIGKILL' if name_of(signal) == 'KILL' else name_of(signal)}"


def _limit_near(elapsed: float, hung: bool, platform: str) -> str:
    return (
        f"{_since(elapsed, hung)} the agent is still running; {platform} ends its wait with a SIGKILL from outside; "
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


def _last_term(signal: int, elapsed: float) -> str:
    return f"{format_duration(elapsed)} after the stop request, {name_of(signal)} to what has not exited"


def _wrapper_stays(signal: int, what: str) -> str:
    why = {
        "exiting": "it has not exited",
        "waiting": "it waits for another process",
        "restarting": "it has started the same program again",
    }[what]
    return f"all processes behind the agent have exited, but {why}: {name_of(signal)} to it as well"


def _held_back(signal: int, seconds: float) -> str:
    return f"the agent itself gets {name_of(signal)} after they have exited, or in {format_duration(seconds)}"


def _held_back_signalled(signal: int) -> str:
    return f"the agent has not exited: {name_of(signal)} to it as well"


def _orphan_stopped(orphan: str, seconds: float, signal: int, to: "Sequence[Process]") -> str:
    return f"orphan {orphan}, adopted {format_duration(seconds)} ago: {name_of(signal)} to {listed(to)}"


def _orphan_killed(orphan: str, seconds: float, signal: int, linger: float, to: "Sequence[Process]") -> str:
    after = f"{format_duration(linger)} after {name_of(signal)}"
    return f"orphan {orphan}, adopted {format_duration(seconds)} ago: {after}, SIGKILL to {listed(to)}"


def _wrapper_left(code: int, ending: "Ending", cause: str, signal: int, left: float | None, has_had_it: bool) -> str:
    rest = "no deadline" if left is None else f"{format_duration(left)} left"
    name = name_of(signal)
    sent = f", which has had {name}" if has_had_it else f"; {name} to its program"
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


def _ended(
    code: int,
    why: str,
    agent_code: int,
    ending: "Ending | None",
    cause: str,
    hung: str,
    seconds: float,
    stop_seconds: float | None,
    status: str,
    by_int: bool = False,
    counts_as: int | None = None,
    cut: str = "",
) -> str:
    since = "" if stop_seconds is None else f", {_since(stop_seconds, bool(hung))}"
    ok_code = agent_code if counts_as is None else counts_as
    because = {"": "", "ok-exit": f" (--ok-exit {ok_code})", "hung": " (it hung)"}[why]
    how = describe(ending, cause)
    if cut:
        how += f", the program that it ran was killed by SIGKILL {AT[cut]}"
    if by_int:
        how += ", the normal end of a program that INT interrupts"
    return f"ended: the agent {how}{since}, after {format_duration(seconds)} in all; exit code {code}{because}"


def describe(ending: "Ending | None", cause: str) -> str:
    """Return how the agent ended, and why as far as that is known; `cause` as `lifecycle` has it."""
    if ending is None:
        return "was sent SIGKILL and has not exited yet"
    if ending.status is None:
        return "has exited, its exit status was lost"
    how = exit_status.describe(ending.status)
    if not ending.killed:
        return f"{how}; meanwhile {_oom(ending)}" if ending.oom_kills else how
    if cause in AT:
        return f"{how} {AT[cause]}"
    if cause == "signal":
        return f"{how}, which agent-init forwarded"
    if cause == "oom":
        return f"{how}, most likely for want of memory: {_oom(ending)}"
    if ending.oom_kills is None:
        return f"{how} (not sent by agent-init)"
    return f"{how} (sent neither by agent-init nor by the OOM killer)"


def _oom(ending: "Ending") -> str:
    times = "once" if ending.oom_kills == 1 else f"{ending.oom_kills} times"
    figures = [
        f"{what} {format_bytes(size)}"
        for what, size in (("limit", ending.memory_limit), ("peak", ending.memory_peak))
        if size is not None
    ]
    memory = f" (memory: {', '.join(figures)})" if figures else ""
    return f"the kernel's OOM killer killed {times} in this container{memory}"


def listed(processes: "Sequence[Process]") -> str:
    """Return `python agent.py (12), node server.js (13)`, and how many more there are beyond MAX_NAMED."""
    return _joined(labels(processes), len(processes))


def _joined(shown: list[str], count: int) -> str:
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

TEXT_ONLY = frozenset(  # facts that do not go into JSON
    ("why", "hung", "extended", "counts_as", "lifted_by", "limited_by", "cut", "has_had_it", "lingers")
)
MAX_LIST_SECONDS = 0.2  # for the list of processes in a line: the SIGKILL comes after it
NAMES, COUNT = "names", "count"  # the processes that are still running, at the end of a line

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
    "stop-requested": ("stop-requested", INFO, _stop_requested, ""),
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
    "ended": ("ended", INFO, _ended, ""),
}
FINAL = frozenset(
    "left-to-others watchdog ready-timeout step deadline repeat-kills linger-over left-behind errno".split()
)  # ... that go into the final message

ESCALATIONS = frozenset("step deadline limit-near".split())


BEGINNINGS = frozenset("stop-requested lingering older-left watchdog ready-timeout".split())  # ... of a stop
# ... after which the termination log is written anew, whether they are logged or not
PROGRESS = BEGINNINGS | frozenset("stopping wrapper-left limit-near".split())


class Sender:
    """Who sent a signal, as far as the kernel reports it. Looked up when it is printed: most never are."""

    __slots__ = ("_received",)

    def __init__(self, received: "Received") -> None:
        self._received = received

    def __str__(self) -> str:
        pid = self._received.pid
        if pid is None:
            return "an unknown sender"
        if self._received.by_kernel:
            return "the kernel"
        if pid == 0:
            return "outside the container"
        return str(procfs.look(pid) or f"pid {pid}")


class Narrator:
    """Logs events and problems, and keeps the final message.

    `agent`: the name of the agent's program and its pid, as long as it has not exited; used where there are too many
    processes to list.
    """

    def __init__(self, console: "Console", settings: "Settings", descendants: "Descendants") -> None:
        self.console, self.agent = console, ""
        self._settings, self._descendants = settings, descendants
        self._stopping = False
        self._replaced = False  # by a successor, most likely: a reason for an early end
        self._message = FinalMessage(settings)
        self._failure_logged = False  # to write it
        self._still_running = ""  # the processes in the last line that named them
        self._report_level = WARNING
        self._platform_is_certain = False  # how long it waits, see `StopPlan`

    def log_start(self, agent: "MainProcess", plan: "StopPlan", problems: "Sequence[str]") -> None:
        """Log the start of the agent, unknown variables, and what went wrong before."""
        settings = self._settings
        self._message.platform_waits, self._platform_is_certain = plan.waits, plan.limit_is_certain
        what = " ".join(settings.command) if self.console.level >= TRACE else agent.name
        adopts = settings.subreaper is not False
        role = "process 1" if posix.getpid() == 1 else "subreaper" if adopts else "plain parent"
        self.console.log(
            INFO,
            "started",
            f"started {what} (pid {agent.pid}), as {role}; {plan.why}",
            pid=agent.pid,
            program=agent.name,
            role=role,
            grace=None if plan.grace == INFINITY else plan.grace,
            grace_from=plan.why,
        )
        if procfs.masks_are_false():
            self.console.log(INFO, "masks-unknown", MASKS_UNKNOWN)
        known = [option.variable for option in OPTIONS]
        for variable in settings.unknown:
            near = nearest(variable, known)
            text = f"unknown variable {variable}{f'; did you mean {near}?' if near else ''}"
            self.console.log(WARNING, "unknown-variable", text, variable=variable)
        self._log_other_inits()
        for problem in problems:
            self.console.log(WARNING, "problem", problem)

    def _log_other_inits(self) -> None:
        """Log which variables of tini and dumb-init are honoured, even if one of them makes the log quiet."""
        settings = self._settings
        variables = {row[0] for row in OTHER_INITS}
        inherited = {name: source for name, source in settings.sources.items() if source in variables}
        if not inherited:
            return
        level = {-1: "-qq", 0: "-q", 1: "the default level", 2: "-v"}
        meanings = {"target": f"--target {settings.target}", "subreaper": "--subreaper"}
        honoured = [
            f"{source} as {meanings[name] if name in meanings else level[settings.log_level]}"
            for name, source in inherited.items()
        ]
        text = (
            f"variables of another init are honoured: {', '.join(honoured)}; the options of agent-init go before them"
        )
        allowed = self.console.level
        if "quiet" in inherited:
            self.console.level = INFO
        self.console.log(INFO, "other-init", text, variables=list(inherited.values()))
        self.console.level = allowed

    def log(self, entry: "Log") -> None:
        """Log an event of the state machine."""
        event, level, render, listing = EVENTS[entry.event]
        self._replaced = self._replaced or entry.event == "replaced"
        self._stopping = self._stopping or entry.event in BEGINNINGS
        final = self._stopping and entry.event in FINAL
        kept = final or entry.event in PROGRESS or entry.event == "ended"
        if not kept and not self.console.takes(level):
            return
        text = render(**entry.facts)
        if entry.event in PROGRESS:
            self._note_progress(entry)
        if entry.event == "limit-near":
            # The figure is a guess, and the drain may be a good one: where the report has another place, one line.
            guessed = not self._platform_is_certain and self._message.is_written
            level, self._report_level = (INFO, DEBUG) if guessed else (WARNING, WARNING)
        fields = {name: _field(name, value) for name, value in entry.facts.items() if _is_field(name, value)}
        if to := entry.facts.get("to"):
            fields["pids"] = [process.pid for process in to]
        if listing and (level <= self.console.level or (final and self._message.is_written)):
            added, processes = self._process_list(listing)
            text += added
            fields.update(processes)
        if entry.event == "shielded":
            text += f" ({_remedy(entry.facts['signal'], self._settings.stop_on)})"
        if entry.event == "stopping" and (status := entry.facts["status"]):
            text += f', "{status}"'
        if entry.event == "ended":
            text = self._end(text, entry.facts, fields)
        elif final:
            self._message.add(entry.event, text)
        self.console.log(level, event, text, **fields)

    def _note_progress(self, entry: "Log") -> None:
        """Note for the final message what a stop has come to."""
        facts = entry.facts
        if entry.event in BEGINNINGS:
            by = _requester(facts["signal"], facts["sender"]) if entry.event == "stop-requested" else ""
            self._message.stop_begins(by)
        if entry.event in ("lingering", "wrapper-left"):
            self._message.agent_left(describe(facts["ending"], facts["cause"]))
        self._message.progress(facts.get("status"))

    def log_named(self, process: "Process") -> None:
        """Log that the agent has named its main process."""
        self.console.log(INFO, "main", f"the agent's main process is {process}", pid=process.pid)

    def log_handed_over(self, process: "Process") -> None:
        """Log that the agent has exited and its main process is the agent now."""
        text = f"the agent has exited; its main process {process} is the agent now"
        self.console.log(INFO, "handed-over", text, pid=process.pid)

    def log_loop(self, message: str, sender: "Process") -> None:
        """Log what a process reports of its event loop, see `notify.LOOP`. A malformed message is ignored."""
        event, _, rest = message.partition(" ")
        number, _, text = rest.partition(" ")
        try:
            seconds = float(number)
        except ValueError:
            return
        if event in LOOP_EVENTS and text and 0 <= seconds < INFINITY:
            fields = {"pid": sender.pid, "seconds": seconds}
            self.console.log(WARNING, f"loop-{event}", f"{labels([sender])[0]}: {text}", **fields)

    def log_reaped(self, pid: int, name: str, status: int) -> None:
        """Log an orphan that was reaped; `name`: of its program, if known."""
        level = WARNING if self._settings.warn_reaped else DEBUG
        if level <= self.console.level:
            orphan = f"{name} (pid {pid})" if name else f"pid {pid}"
            text = f"reaped orphan {orphan}, which {exit_status.describe(status)}"
            self.console.log(level, "reaped", text, pid=pid, code=exit_status.exit_code(status))

    def report_begins(self) -> None:
        """The lines of a stall report follow."""
        self._message.report_begins()

    def report_line(self, line: str) -> None:
        """Log one line of a stall report. Of a stop, the final message has it too."""
        if self._stopping:
            self._message.report_line(line)
        self.console.log(self._report_level, "report", line)

    def report_is_complete(self) -> None:
        """No line of the stall report will follow."""
        self._message.changed, self._report_level = True, WARNING

    @property
    def has_news(self) -> bool:
        """Whether the final message is to be written again."""
        return self._message.changed

    def write_final_message(self) -> None:
        """Write the final message as far as there is one: the platform may kill us before the end."""
        self._log_failure(self._message.write(self._running))

    def _log_failure(self, error: str) -> None:
        """Log, once, that the final message could not be written."""
        if error and not self._failure_logged:
            self._failure_logged = True
            text = f"cannot write the termination log {self._settings.termination_log}: {error}"
            self.console.log(WARNING, "termination-log", text)

    def _end(self, text: str, facts: "dict[str, Any]", fields: "dict[str, object]") -> str:
        """Return the last line, and write the final message for the last time."""
        if "deadline" in (facts["cause"], facts.get("cut")) and self._still_running:
            text += f"; running when it was sent: {self._still_running}"
        if not self._replaced and _may_mind_its_parent(facts):
            text += PARENT_IS_1
        if facts["code"] and facts["status"]:
            text += f'; its last status: "{facts["status"]}"'
        fields["how"] = describe(facts["ending"], facts["cause"])
        fields["cause"] = facts["hung"] or facts.get("cut") or facts["cause"]
        self._log_failure(self._message.end(text, facts))
        return text

    def _running(self) -> str:
        """Return the processes that are still running, as text."""
        added, _ = self._process_list(NAMES)
        return added.removeprefix("; ") or "nothing is running any more"

    def _process_list(self, listing: str) -> "tuple[str, dict[str, object]]":
        """Return the processes that are still running, as the end of a line and as fields."""
        running = self._descendants.listable(within=MAX_LIST_SECONDS)
        if running is None and self.agent:
            return f"; still running: {self.agent}, and perhaps others: too many to list, or none visible", {}
        if running is None:
            return "; too many processes to list, or none visible", {}
        if listing == COUNT:
            return f", {len(running)} process{'' if len(running) == 1 else 'es'}", {"processes": len(running)}
        shown = labels(running)
        self._still_running = _joined(shown, len(running))
        return f"; still running: {self._still_running}" if running else "", {"processes": shown}


def _may_mind_its_parent(facts: "dict[str, Any]") -> bool:
    """Whether the agent may have exited because its parent is process 1."""
    at_once = facts["stop_seconds"] is None and facts["seconds"] < AT_ONCE and not facts["hung"]
    return at_once and facts["agent_code"] == 0 and facts["cause"] == "exited" and posix.getpid() == 1


def _is_field(name: str, value: object) -> bool:
    """Whether a fact goes into JSON as it is; others only make up the text."""
    return name == "sender" or (isinstance(value, str | int | float | None) and name not in TEXT_ONLY)


def _field(name: str, value: object) -> object:
    """Return a fact as JSON has it: signals by name, senders as text."""
    if name in ("signal", "passed_on") and isinstance(value, int):
        return name_of(value)
    return str(value) if name == "sender" and value is not None else value

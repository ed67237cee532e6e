"""What agent-init reports about itself: turns the facts of an event into a log line, and into the final message.

`events` has for each event its level and its text. An orchestrator may keep the final message: the lines that say why a
stop went wrong, with the last line, go to the termination log as well.
"""

import posix

from ..notify import LOOP_EVENTS
from ..signals import EOF, name_of
from ..units import INFINITY, format_bytes, format_duration
from . import dispositions, exit_status, later, procfs
from .console import DEBUG, INFO, TRACE, WARNING
from .spare_memory import NO_MEMORY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ..parsed import Settings
    from . import events, final_message
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
    events, final_message = map(later.Module, ("init.events", "init.final_message"))
    later.Module("init.termination_log")  # which `final_message` imports

OF_OTHER_INITS = "TINI_", "DUMB_INIT_"  # how their variables begin, see `OTHER_INITS` in settings.py
AT_ONCE = 1.0  # seconds from the start to an end that may need a hint
PARENT_IS_1 = "; if it exits because its parent has pid 1, start it as a shell's child: sh -c 'COMMAND; exit $?'"
MASKS_UNKNOWN = (
    "signal handlers cannot be seen here (a sandbox, or emulation): a signal may kill the agent; what helps: "
    "--rewrite, --unhandled, --target, or X_AGENT_INIT_HANDLES from the agent (entrypoint.agent.run sends it)"
)

AT = {
    "stop-signal": "as the stop signal",
    "deadline": "at the deadline",
    "escalated": "at a repeated stop request (--repeat escalate)",
}
TEXT_ONLY = frozenset(  # facts that do not go into JSON
    ("why", "hung", "extended", "counts_as", "lifted_by", "limited_by", "cut", "has_had_it", "lingers")
)
PLAIN = str, int, float, type(None)  # types that JSON has as they are
MAX_LIST_SECONDS = 0.2  # for the list of processes in a line: the SIGKILL comes after it
NAMES, COUNT = "names", "count"  # the processes that are still running, at the end of a line
# Events that only --verbose logs. Without it their text is not needed, so `events` is not made for them.
VERBOSE = frozenset("dropped not-forwarded forwarded status".split())
# Events that go into the final message.
FINAL = frozenset(
    "left-to-others watchdog ready-timeout step deadline repeat-kills linger-over left-behind errno".split()
)
ESCALATIONS = frozenset("step deadline limit-near".split())
BEGINNINGS = frozenset("stop-requested lingering older-left watchdog ready-timeout".split())  # events that begin a stop
# Events after which the termination log is written anew, whether they are logged or not.
PROGRESS = BEGINNINGS | frozenset("stopping wrapper-left limit-near".split())


def since(elapsed: float, hung: bool) -> str:
    """Return `3s after the stop request`."""
    return f"{format_duration(elapsed)} after {'the hang was detected' if hung else 'the stop request'}"


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
    stopped = "" if stop_seconds is None else f", {since(stop_seconds, bool(hung))}"
    ok_code = agent_code if counts_as is None else counts_as
    because = {"": "", "ok-exit": f" (--ok-exit {ok_code})", "hung": " (it hung)"}[why]
    how = describe(ending, cause)
    if cut:
        how += f", the program that it ran was killed by SIGKILL {AT[cut]}"
    if by_int:
        how += ", the normal end of a program that INT interrupts"
    return f"ended: the agent {how}{stopped}, after {format_duration(seconds)} in all; exit code {code}{because}"


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


def _stop_requested(signal: int, sender: object, upcoming: "Upcoming") -> str:
    return f"stop requested by {requester(signal, sender)}: {steps(upcoming)}"


def requester(signal: int, sender: object) -> str:
    """Return what has requested a stop: a signal and its sender, or the end of stdin."""
    return "the end of stdin, whose other end is gone" if signal == EOF else f"{name_of(signal)} from {sender}"


def steps(upcoming: "Upcoming") -> str:
    """Return `TERM to the agent, KILL after 25s`, and who ends the stop where agent-init does not."""
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


# Rows like those of `events.EVENTS`, for what every stop and every end logs.
EVENTS: "dict[str, tuple[str, int, Callable[..., str], str]]" = {
    "stop-requested": ("stop-requested", INFO, _stop_requested, ""),
    "ended": ("ended", INFO, _ended, ""),
}


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
        # Whether there is a final message at all: Kubernetes makes its file before the container starts.
        self._has_message = settings.has_termination_log
        self._made: final_message.FinalMessage | None = None
        self._platform_waits = ""  # how long the platform waits, as text
        self._failure_logged = False  # to write it
        self._end_failed = False  # to write it for the last time
        self._still_running = ""  # the processes in the last line that named them
        self._report_level = WARNING
        self._platform_is_certain = False  # how long it waits, see `StopPlan`

    def log_start(self, agent: "MainProcess", plan: "StopPlan", problems: "Sequence[str]") -> None:
        """Log the start of the agent, unknown variables, and what went wrong before."""
        settings = self._settings
        self._platform_waits, self._platform_is_certain = plan.waits, plan.limit_is_certain
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
        if dispositions.masks_are_false():
            self.console.log(INFO, "masks-unknown", MASKS_UNKNOWN)
        self._log_variables()
        for problem in problems:
            self.console.log(WARNING, "problem", problem)

    def _log_variables(self) -> None:
        """Log unknown variables, and those of tini and dumb-init that are honoured, even if one makes the log quiet."""
        settings = self._settings
        for variable, near in settings.unknown.items():
            text = f"unknown variable {variable}{f'; did you mean {near}?' if near else ''}"
            self.console.log(WARNING, "unknown-variable", text, variable=variable)
        inherited = {name: source for name, source in settings.sources.items() if source.startswith(OF_OTHER_INITS)}
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
        if entry.event in VERBOSE and not self.console.takes(DEBUG):
            return
        # First, since to load the text may fail for want of memory.
        self._replaced = self._replaced or entry.event == "replaced"
        self._stopping = self._stopping or entry.event in BEGINNINGS
        event, level, render, listing = EVENTS.get(entry.event) or events.EVENTS[entry.event]
        final = self._has_message and self._stopping and entry.event in FINAL
        text = render(**entry.facts)
        if self._has_message and entry.event in PROGRESS:
            self._note_progress(entry)
        if entry.event == "limit-near":
            # The figure is a guess, and the drain may be a good one: where the report has another place, one line.
            guessed = not self._platform_is_certain and self._is_written
            level, self._report_level = (INFO, DEBUG) if guessed else (WARNING, WARNING)
        if entry.event == "ended":
            self.console.end_history()
        fields = _fields(entry.facts) if self.console.wants_fields else {}
        if listing and (level <= self.console.level or (final and self._is_written)):
            added, processes = self._process_list(listing)
            text += added
            fields.update(processes)
        if entry.event == "shielded":
            text += f" ({events.remedy(entry.facts['signal'], self._settings.stop_on)})"
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
            by = requester(facts["signal"], facts["sender"]) if entry.event == "stop-requested" else ""
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
            self.console.log(WARNING, f"loop-{event}", f"{events.labels([sender])[0]}: {text}", **fields)

    def log_reaped(self, pid: int, name: str, status: int) -> None:
        """Log an orphan that was reaped; `name`: of its program, if known."""
        level = WARNING if self._settings.warn_reaped else DEBUG
        if level <= self.console.level:
            orphan = f"{name} (pid {pid})" if name else f"pid {pid}"
            text = f"reaped orphan {orphan}, which {exit_status.describe(status)}"
            self.console.log(level, "reaped", text, pid=pid, code=exit_status.exit_code(status))

    def report_begins(self) -> None:
        """The lines of a stall report follow."""
        if self._made is not None:
            self._made.report_begins()

    def report_line(self, line: str) -> None:
        """Log one line of a stall report. Of a stop, the final message has it too."""
        self.console.log(self._report_level, "report", line)
        if self._has_message and self._stopping:
            self._message.report_line(line)

    def report_is_complete(self) -> None:
        """No line of the stall report will follow."""
        self._report_level = WARNING
        if self._made is not None:
            self._made.changed = True

    @property
    def has_news(self) -> bool:
        """Whether the final message is to be written again."""
        return self._made is not None and self._made.changed

    @property
    def _is_written(self) -> bool:
        """Whether the file holds the final message, as far as we know."""
        return self._made is not None and self._made.is_written

    @property
    def _message(self) -> "final_message.FinalMessage":
        """Return the final message, made when there is something to say."""
        if self._made is None:
            self._made = final_message.FinalMessage(self._settings, self._platform_waits)
        return self._made

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
        if self.console.wants_fields:
            fields["how"] = describe(facts["ending"], facts["cause"])
            fields["cause"] = facts["hung"] or facts.get("cut") or facts["cause"]
        if not self._has_message:
            return text
        try:
            self._log_failure(self._message.end(text, facts))
        except NO_MEMORY:  # once more, with the reserve released; this line must not be lost for the file
            if not self._end_failed:
                self._end_failed = True
                raise
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
        shown = events.labels(running)
        self._still_running = events.joined(shown, len(running))
        return f"; still running: {self._still_running}" if running else "", {"processes": shown}


def _may_mind_its_parent(facts: "dict[str, Any]") -> bool:
    """Whether the agent may have exited because its parent is process 1."""
    at_once = facts["stop_seconds"] is None and facts["seconds"] < AT_ONCE and not facts["hung"]
    return at_once and facts["agent_code"] == 0 and facts["cause"] == "exited" and posix.getpid() == 1


def _fields(facts: "dict[str, Any]") -> dict[str, object]:
    """Return what JSON has of the facts."""
    fields = {name: _field(name, value) for name, value in facts.items() if _is_field(name, value)}
    if to := facts.get("to"):
        fields["pids"] = [process.pid for process in to]
    return fields


def _is_field(name: str, value: object) -> bool:
    """Whether a fact goes into JSON as it is; others only make up the text."""
    return name == "sender" or (isinstance(value, PLAIN) and name not in TEXT_ONLY)


def _field(name: str, value: object) -> object:
    """Return a fact as JSON has it: signals by name, senders as text."""
    if name in ("signal", "passed_on") and isinstance(value, int):
        return name_of(value)
    return str(value) if name == "sender" and value is not None else value

"""What process 1 answers to `agent-initctl`: what only it knows. The rest, from /proc and cgroups, the client reads.

Times are in seconds from now: process 1 and its client may have different clocks (time_namespaces(7)).
"""

import posix

from .. import __version__, control, notify, signals, units
from . import console, request_origin
from .lifecycle import RUNNING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .control_socket import Client
    from .history import History, Record
    from .supervisor import Supervisor

EVENTS_LEVEL = console.INFO  # what a client that waits for a stop sees of the log
MAX_EVENT_BYTES = 65536
READ_ONLY = frozenset(("status", "report", "events"))
NOT_EXTENDED = {
    "not-stopping": "there is no stop to extend: none was requested",
    "over": "it is too late: all has ended, or was sent SIGKILL",
    "--max-grace": "the stop lasts as long as --max-grace allows",
}


class Refused(Exception):
    """The request is refused. The message gives the reason."""


def answer(supervisor: "Supervisor", client: "Client", fields: dict[str, str]) -> list[bytes]:
    """Carry out a request, and return the packets of the answer. Where the client is to follow, set its `render`."""
    command = fields.get("COMMAND", "")
    try:
        if command not in COMMANDS:
            raise Refused(f"{signals.quote(command)} is no command of agent-init {__version__}")
        if not (client.may_command or command in READ_ONLY):
            raise Refused("permission denied: the agent's user may read, and not command")
        return COMMANDS[command](supervisor, client, fields)
    except (Refused, ValueError) as refusal:
        return [control.PROBLEM + str(refusal).encode("utf-8", "backslashreplace")]


# --- Commands. ------------------------------------------------------------------------------------------------------


def _status(supervisor: "Supervisor", client: "Client", fields: dict[str, str]) -> list[bytes]:
    return [control.FIELDS + notify.encode_values(state_of(supervisor))]


def _report(supervisor: "Supervisor", client: "Client", fields: dict[str, str]) -> list[bytes]:
    """The client makes the report itself, from what a reporter of ours would get."""
    request = supervisor.reporter.request(supervisor.agent.pid, supervisor.plan.report_seconds)
    return control.packets(control.FIELDS, [b"REQUEST=" + request.encode()])


def _stop(supervisor: "Supervisor", client: "Client", fields: dict[str, str]) -> list[bytes]:
    grace = _seconds(fields, "GRACE") if "GRACE" in fields else None
    was_running = supervisor.lifecycle.state == RUNNING
    if fields.get("WAIT") == "1":
        client.render = _as_text
    origin = request_origin.of_process(client.pid)
    supervisor.execution.event(supervisor.lifecycle.stop, client, origin, grace)
    note, bound = "", supervisor.plan.max_grace
    if grace is not None and not was_running:
        note = "the stop has begun already: --grace has no effect\n"
    elif grace is not None and grace > bound:
        option = supervisor.lifecycle.bounding_option
        note = f"the grace is {units.format_duration(bound)}, no more: {option} comes first\n"
    return [control.LINES + note.encode()]


def _extend(supervisor: "Supervisor", client: "Client", fields: dict[str, str]) -> list[bytes]:
    lifecycle = supervisor.lifecycle
    seconds = _seconds(fields, "SECONDS")
    if why := lifecycle.why_no_more_time:
        raise Refused(NOT_EXTENDED.get(why) or _platform_comes_first(supervisor))
    before = lifecycle.kill_due
    supervisor.execution.event(lifecycle.more_time, seconds, client)
    left = units.format_duration(round(lifecycle.kill_due - supervisor.loop.time(), 1))
    gained = lifecycle.kill_due - before
    bound = f", no more: {lifecycle.bounding_option} comes first" if gained < seconds - 0.001 else ""
    return [control.LINES + f"{units.format_duration(round(gained, 3))} more: {left} left{bound}\n".encode()]


def _platform_comes_first(supervisor: "Supervisor") -> str:
    plan, grace = supervisor.plan, supervisor.settings.platform_grace
    if grace is not None:
        return f"the platform ends the container after {units.format_duration(grace)} (--platform-grace)"
    if plan.platform:
        return f"the end of this stop is not agent-init's: it is that of {plan.platform}"
    return "this stop has no deadline"


def _signal(supervisor: "Supervisor", client: "Client", fields: dict[str, str]) -> list[bytes]:
    number = signals.parse_catchable(fields.get("SIGNAL", ""))
    origin = request_origin.of_process(client.pid)
    supervisor.execution.event(supervisor.lifecycle.signal, number, client, origin)
    return [control.LINES + b""]


def _events(supervisor: "Supervisor", client: "Client", fields: dict[str, str]) -> list[bytes]:
    if fields.get("FOLLOW") == "1":
        client.render = _as_json
    return control.packets(control.LINES, _last_lines(supervisor.history))


COMMANDS: "dict[str, Callable[[Supervisor, Client, dict[str, str]], list[bytes]]]" = {
    "status": _status,
    "report": _report,
    "stop": _stop,
    "extend": _extend,
    "signal": _signal,
    "events": _events,
}


# --- The state. -----------------------------------------------------------------------------------------------------


def state_of(supervisor: "Supervisor") -> dict[str, object]:
    """Return the fields of `status`: None or an empty text where one is not known, or does not apply."""
    lifecycle, agent, counters = supervisor.lifecycle, supervisor.agent, supervisor.execution.counters
    now = supervisor.loop.time()
    facts = lifecycle.facts(now)
    return {
        "PROTOCOL": control.VERSION,
        "VERSION": __version__,
        "PID": posix.getpid(),
        "STATE": lifecycle.shown_state,
        "SINCE": now - lifecycle.since,
        "UPTIME": facts["uptime"],
        "READY": int(lifecycle.ready and lifecycle.state == RUNNING),
        "HUNG": lifecycle.hung,
        "AGENT": 0 if agent.has_exited else agent.pid,
        "NAME": agent.name,
        "STATUS": lifecycle.status,
        "STOPPING_FOR": facts["elapsed"],
        "NEXT": ",".join(f"{signals.name_of(number)}:{seconds:.3f}" for number, seconds in facts["next"]),
        "PLATFORM": facts["platform"],
        "LEFT": facts["left"],
        "WATCHDOG": facts["watchdog"],
        "LAST_PING": facts["last_ping"],
        "OOM_KILLS": supervisor.memory.new_kills,
        "FORWARDED": signals.counts(counters.forwarded),
        "DROPPED": signals.counts(counters.dropped),
        "HELPERS": ",".join(map(str, sorted(supervisor.helper_pids))),
        "REAPED": counters.reaped,
        "REFUSED": supervisor.control.refused if supervisor.control is not None else 0,
    }


# --- The log. -------------------------------------------------------------------------------------------------------


def _last_lines(history: "History") -> list[bytes]:
    """Return the last lines of the log as JSON, the oldest first, as far as there is space for them."""
    lines: list[bytes] = []
    size = 0
    for record in reversed(history.records):
        line = console.json_line(*record)
        size += len(line)
        if size > MAX_EVENT_BYTES:
            break
        lines.insert(0, line)
    return lines


def _as_json(record: "Record") -> list[bytes]:
    return [control.LINES + console.json_line(*record)]


def _as_text(record: "Record") -> list[bytes]:
    _, level, event, text, _ = record
    if level > EVENTS_LEVEL:
        return []
    line = control.LINES + console.text_line(level, text)
    return [line, control.DONE] if event == "ended" else [line]


def _seconds(fields: dict[str, str], name: str) -> float:
    """Return a duration of the request, in seconds. Raises ValueError."""
    return units.parse_duration(fields.get(name, ""), infinite=False)

"""The answer of `status`: what process 1 knows, with what anybody can read of its processes and its control group."""

from __future__ import annotations

import json
import shlex
from typing import Any

from .. import notify, units
from ..init import cgroup, procfs, tree
from .connection import printable
from .probes import HANGS

FORMAT = 1  # of the JSON object: raised when a field changes its meaning or goes


def complete(fields: dict[str, str], pid: int) -> dict[str, Any]:
    """Return the JSON object of `status`, in the format of docs/operate.md.

    `fields`: process 1's answer. `pid`: that of agent-init, as it is seen here.
    """
    agent = int(fields["AGENT"]) or None
    memory = cgroup.Memory(own=f"/proc/{pid}/cgroup")
    below = _below(pid, {int(helper) for helper in fields.get("HELPERS", "").split(",") if helper})
    stopping = "STOPPING_FOR" in fields
    return {
        "format": FORMAT,
        "version": fields["VERSION"],
        "pid": pid,
        "state": fields["STATE"],
        "state_seconds": float(fields["SINCE"]),
        "uptime_seconds": float(fields["UPTIME"]),
        "ready": fields["READY"] == "1",
        "hung": fields.get("HUNG"),
        "agent": {
            "pid": agent,
            "name": fields["NAME"],
            "command": procfs.argv_of(agent) if agent else None,
            "status": fields.get("STATUS"),
        },
        "stop": {
            "seconds": float(fields["STOPPING_FOR"]) if stopping else None,
            "seconds_left": notify.number(fields, "LEFT"),
            "next": [{"signal": name, "seconds": float(seconds)} for name, seconds in notify.pairs(fields, "NEXT")],
            "ended_by": fields.get("PLATFORM"),
        },
        "watchdog": {
            "seconds": notify.number(fields, "WATCHDOG"),
            "last_ping_seconds": notify.number(fields, "LAST_PING"),
        },
        "processes": None if below is None else len(below),
        "memory": {
            "bytes": memory.used,
            "peak_bytes": memory.peak,
            "limit_bytes": memory.limit,
            "oom_kills": int(fields["OOM_KILLS"]) if "OOM_KILLS" in fields else None,
        },
        "signals": {
            fate: {name: int(count) for name, count in notify.pairs(fields, fate.upper())}
            for fate in ("forwarded", "dropped")
        },
        "orphans_reaped": int(fields["REAPED"]),
        "clients_refused": int(fields["REFUSED"]),
    }


def text(fields: dict[str, str], pid: int, *, as_json: bool) -> str:
    """Return what `status` prints. Raises KeyError, ValueError for what is no answer to it."""
    found = complete(fields, pid)
    return json.dumps(found) if as_json else as_text(found)


def as_text(found: dict[str, Any]) -> str:
    """Return it as text: a line for each thing that is known."""
    agent, memory = found["agent"], found["memory"]
    lines = [f"agent-init {found['version']} (pid {found['pid']}), up {_ago(found['uptime_seconds'])}"]
    state = f"state: {found['state']} since {_ago(found['state_seconds'])}"
    if found["state"] == "starting":
        state += " (READY=1 has not come)"
    if found["hung"]:
        state += f"; the agent hangs: {HANGS.get(found['hung'], found['hung'])}"
    lines.append(state)
    if agent["pid"]:
        lines.append(f"agent: {shlex.join(agent['command'] or [agent['name']])} (pid {agent['pid']})")
    else:
        lines.append(f"agent: {agent['name']}, has exited")
    if agent["status"]:
        lines.append(f'status: "{agent["status"]}"')
    lines += _stop_lines(found["stop"])
    watchdog = found["watchdog"]
    if watchdog["seconds"] is not None:
        last = watchdog["last_ping_seconds"]
        ping = "no ping yet" if last is None else f"last ping {_ago(last)} ago"
        lines.append(f"watchdog: {units.format_duration(watchdog['seconds'])}, {ping}")
    if found["processes"] is not None:
        lines.append(f"processes: {found['processes']}")
    lines += _memory_lines(memory)
    for fate, counts in found["signals"].items():
        if counts:
            lines.append(f"signals {fate}: {', '.join(f'{name} {count}' for name, count in counts.items())}")
    if found["orphans_reaped"]:
        lines.append(f"orphans reaped: {found['orphans_reaped']}")
    return "\n".join(map(printable, lines))


def _stop_lines(stop: dict[str, Any]) -> list[str]:
    if stop["seconds"] is None and not stop["next"]:
        return []
    steps = [f"{step['signal']} in {_ago(step['seconds'])}" for step in stop["next"]]
    if stop["ended_by"]:
        steps.append(f"the end is that of {stop['ended_by']}")
    requested = "not requested" if stop["seconds"] is None else f"requested {_ago(stop['seconds'])} ago"
    return [f"stop: {requested}; {', '.join(steps) or 'nothing more is sent'}"]


def _memory_lines(memory: dict[str, Any]) -> list[str]:
    if memory["bytes"] is None:
        return []
    text = f"memory: {units.format_bytes(memory['bytes'])}"
    if memory["limit_bytes"]:
        text += f" of {units.format_bytes(memory['limit_bytes'])}"
    if memory["peak_bytes"]:
        text += f", {units.format_bytes(memory['peak_bytes'])} at most"
    if memory["oom_kills"]:
        text += f"; OOM kills: {memory['oom_kills']}"
    return [text]


def _ago(seconds: float) -> str:
    return units.format_duration(round(seconds, 1))


def _below(pid: int, helpers: set[int]) -> list[procfs.Process] | None:
    """Return the processes below agent-init, except its own helpers; None where they cannot be seen."""
    if procfs.look(pid) is None:
        return None
    try:
        return [process for process in tree.below(pid, tree.everything()) if process.pid not in helpers]
    except OSError:
        return None

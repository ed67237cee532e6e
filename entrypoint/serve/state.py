"""The state of the agent and of a stop, as process 1 has written it; ages are those of now."""

from __future__ import annotations

import os
import time
from typing import Any

from .. import http_state, notify

READ_AT_ONCE = 65536
STATES = ("starting", "ready", "stopping", "lingering", "killing", "ended")


class State:
    """One record of process 1. Times are of the monotonic clock; None for what has not happened."""

    def __init__(self, fields: dict[str, str]) -> None:
        self.version, self.name, self.hung = fields["VERSION"], fields["STATE"], fields.get("HUNG")
        self.since, self.started = float(fields["SINCE"]), float(fields["STARTED"])
        self.was_ready = fields["WAS_READY"] == "1"
        self.agent = int(fields["AGENT"])  # its pid; 0 once it has exited
        self.requested, self.kill = notify.number(fields, "REQUESTED"), notify.number(fields, "KILL")
        self.next = [(name, float(at)) for name, at in notify.pairs(fields, "NEXT")]
        self.platform = fields.get("PLATFORM")
        self.watchdog, self.last_ping = notify.number(fields, "WATCHDOG"), notify.number(fields, "LAST_PING")
        self.oom_before = int(fields["OOM_BEFORE"])
        self.signals = {
            fate: {name: int(count) for name, count in notify.pairs(fields, fate.upper())}
            for fate in ("forwarded", "dropped")
        }
        self.responders = fields.get("RESPONDERS", "")  # prefix of the sockets of processes (`agent/responder.py`)
        self.reaped, self.refused = int(fields["REAPED"]), int(fields["REFUSED"])

    @property
    def is_ready(self) -> bool:
        """Whether READY=1 has come, and no stop was requested or hang detected."""
        return self.name == "ready"


class Source:
    """Reads the records. `state`: the newest. `version`: how many records there were."""

    state: State

    def __init__(self, fd: int) -> None:
        self._fd, self._rest = fd, b""
        self.version = 0

    def wait(self) -> bool:
        """Wait for the first record, with a descriptor that blocks. Return False if none comes."""
        while not self.version:
            if not self.read():
                return False
        return True

    def read(self) -> bool:
        """Read what has come; return False at the end."""
        block = os.read(self._fd, READ_AT_ONCE)
        *records, self._rest = (self._rest + block).split(http_state.END)
        if records:
            self.state = State(notify.parse(records[-1]))
            self.version += 1
        return bool(block)


def as_json(state: State, tree: Any, memory: Any) -> dict[str, Any]:
    """Return the object of /status, in the format of docs/http.md."""
    now = time.monotonic()
    return {
        "format": 1,
        "version": state.version,
        "state": state.name,
        "state_seconds": _ago(now, state.since),
        "uptime_seconds": _ago(now, state.started),
        "ready": state.is_ready,
        "was_ready": state.was_ready,
        "hung": state.hung,
        "stop": {
            "seconds": _ago(now, state.requested),
            "seconds_left": _left(now, state.kill),
            "next": [{"signal": name, "seconds": _left(now, at)} for name, at in state.next],
            "ended_by": state.platform,
        },
        "watchdog": {"seconds": state.watchdog, "last_ping_seconds": _ago(now, state.last_ping)},
        "processes": tree.processes,
        "cpu_seconds": tree.cpu_seconds,
        "memory": {
            "bytes": memory.used,
            "peak_bytes": memory.peak,
            "limit_bytes": memory.limit,
            "oom_kills": memory.oom_kills(state),
        },
        "signals": state.signals,
        "orphans_reaped": state.reaped,
        "clients_refused": state.refused,
    }


def _ago(now: float, at: float | None) -> float | None:
    return None if at is None else round(max(0.0, now - at), 3)


def _left(now: float, at: float | None) -> float | None:
    return None if at is None else round(max(0.0, at - now), 3)

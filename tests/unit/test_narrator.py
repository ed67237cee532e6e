"""What agent-init logs of each event, as text and as JSON; process lists, the last line and the final message."""

from __future__ import annotations

import json
import math
import os
import posix
import re
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings as hypothesis_settings

from entrypoint import settings as reader
from entrypoint.init import dispositions, events, final_message, narrator, planning, stop_plan
from entrypoint.init.actions import Action, Log
from entrypoint.init.console import DEBUG, ERROR, INFO, TRACE, WARNING, Console
from entrypoint.init.exit_status import Ending
from entrypoint.init.lifecycle import Lifecycle
from entrypoint.init.main_process import MainProcess
from entrypoint.init.procfs import Process
from entrypoint.signals import HUP, INT, KILL, TERM
from tests.support.lifecycle import OomKills, exited, killed, logs, make, run_until

from .test_lifecycle import AnyOrder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from entrypoint.init.tree import Descendants

USR1 = 10
EVENTS = {**events.EVENTS, **narrator.EVENTS}
MIB = 1 << 20
SENDER = "sh (pid 7)"


class Listed:
    """Stands for the descendants: those to list, None where they cannot be listed."""

    def __init__(self, processes: list[Process] | None = None) -> None:
        self.processes = processes

    def listable(self, within: float) -> list[Process] | None:
        assert within == narrator.MAX_LIST_SECONDS
        return self.processes


def processes(count: int) -> list[Process]:
    return [Process(20 + n, "worker", 1, 20 + n, 100) for n in range(count)]


class Narration:
    """A narrator that logs to a file, and what is in its files."""

    def __init__(self, directory: Path, *flags: str, level: int = TRACE, environment: dict[str, str] | None = None):
        self.path, self.final = directory / "log", directory / "final"
        arguments = ["--termination-log", str(self.final), *flags, "agent", "--port", "80"]
        self.settings = reader.read(arguments, environment or {})
        self.plan = planning.make(self.settings, environment or {}, lambda _path: False)
        self.fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.listed = Listed([])
        descendants: Descendants = self.listed  # type: ignore[assignment]
        console = Console(self.fd, level=level, json=self.settings.log_format == "json")
        self.narrator = narrator.Narrator(console, self.settings, descendants)

    def log(self, event: str, **facts: Any) -> None:
        self.narrator.log(Log(event, **facts))

    def lines(self) -> list[str]:
        return [line.removeprefix("agent-init: ") for line in self.path.read_text().splitlines()]

    def records(self) -> list[dict[str, Any]]:
        records = [json.loads(line) for line in self.path.read_text().splitlines()]
        for record in records:
            assert record.pop("time")
            assert record.pop("severity") == record["level"].upper()
        return records

    def final_message(self) -> str | None:
        return self.final.read_text() if self.final.exists() else None


@pytest.fixture
def narrate(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Narration]:
    monkeypatch.setattr(dispositions, "masks_are_false", lambda: False)

    def start(*flags: str, **arguments: Any) -> Narration:
        made = Narration(tmp_path, *flags, **arguments)
        request.addfinalizer(lambda: os.close(made.fd))
        return made

    return start


# --- Every event of the state machine: what leads to it, its level, its text, its fields. ----------------------------


def running(*flags: str, **environment: str) -> Callable[..., list[Action]]:
    """Return a function that calls an event of a fresh state machine at 2.0."""
    life = make(*flags, environment=environment)
    return lambda event, *arguments, **facts: getattr(life, event)(2.0, *arguments, **facts)


def notified(*flags: str, by_agent: bool = True, **fields: str) -> list[Action]:
    return running(*flags)("notified", fields, SENDER, by_agent=by_agent)


def requested(*flags: str, **environment: str) -> list[Action]:
    return running(*flags, **environment)("signal", TERM, SENDER)


def after_request(*flags: str, at: float = 5.5, **environment: str) -> list[Action]:
    """Return the actions after a request at 2.0, up to `at`."""
    life = make(*flags, environment=environment)
    life.signal(2.0, TERM, SENDER)
    return [action for _, action in run_until(life, at)]


def repeated(*flags: str, extended: bool = False) -> list[Action]:
    life = make(*flags)
    life.signal(2.0, TERM, SENDER)
    if extended:
        life.notified(2.5, {"EXTEND_TIMEOUT_USEC": "9600000"}, SENDER)
    return life.signal(3.0, INT, SENDER)


def repeated_while_lingering(*flags: str, requests: int = 1) -> list[Action]:
    life = make("--linger", "infinity", *flags)
    life.agent_ended(1.0, exited(0), alone=False)
    return [life.signal(2.0 + n, TERM, SENDER) for n in range(requests)][-1]


def held_back(*flags: str) -> list[Action]:
    life = make(*flags)
    life.signal(2.0, TERM, SENDER)
    return life.held_back(2.0)


def held_back_signalled() -> list[Action]:
    life = make("-t", "20s")
    life.signal(2.0, TERM, SENDER)
    life.held_back(2.0)
    return life.tick(12.0)


def killing() -> Lifecycle:
    life = make("-t", "1s")
    life.signal(2.0, TERM, SENDER)
    life.tick(3.0)
    return life


def extended(*flags: str) -> list[Action]:
    life = make(*flags)
    life.signal(2.0, TERM, SENDER)
    return life.notified(3.0, {"EXTEND_TIMEOUT_USEC": "9000000"}, SENDER)


def extended_by_command() -> list[Action]:
    life = make("-t", "5s")
    life.signal(2.0, TERM, SENDER)
    return life.more_time(3.0, 9.0, SENDER)


def not_ready_file() -> list[Action]:
    return [Log("ready-file", path="/run/ready", error="Permission denied")]


def hung(*flags: str, at: float = 6.0, **fields: str) -> list[Action]:
    life = make(*flags)
    life.notified(1.0, fields, SENDER)
    return [action for _, action in run_until(life, at)]


def ended(ending: Ending, *flags: str, alone: bool = True) -> list[Action]:
    return running(*flags)("agent_ended", ending, alone=alone)


def lingering(at: float) -> list[Action]:
    life = make("--linger", "5s")
    life.agent_ended(2.0, exited(3), alone=False)
    return [action for _, action in run_until(life, at)]


def left_by_wrapper(*flags: str) -> list[Action]:
    return left_by(make(*flags))


def left_by(life: Lifecycle, *, has_had_it: bool | None = False) -> list[Action]:
    life.signal(0.0, TERM, "a test")
    return life.agent_ended(2.0, exited(3), alone=False, works_on=True, has_had_it=has_had_it)


def left_at_deadline() -> list[tuple[float, Action]]:
    life = make("-t", "20s")
    life.signal(0.0, TERM, "a test")
    life.agent_ended(2.0, exited(3), alone=False, works_on=True)
    return run_until(life, 30.0)


KUBERNETES = {"KUBERNETES_SERVICE_HOST": "x"}

CASES: list[tuple[str, Callable[[], list[Action]], int, str, dict[str, object]]] = [
    (
        "extended-by-command",
        extended_by_command,
        INFO,
        "sh (pid 7) gives the stop more time: 13s are left",
        {"sender": SENDER, "left": 13.0},
    ),
    (
        "long-stop",
        lambda: after_request("-t", "20s", "--report-after", "3s"),
        WARNING,
        "still stopping after 3s: stall report (--report-after)",
        {"elapsed": 3.0},
    ),
    (
        "report-requested",
        lambda: running("--report-on", "USR1")("signal", USR1, SENDER),
        INFO,
        "stall report requested by USR1 from sh (pid 7) (--report-on)",
        {"signal": "USR1", "sender": SENDER},
    ),
    (
        "ready-file",
        not_ready_file,
        WARNING,
        "cannot keep the ready file /run/ready: Permission denied",
        {"path": "/run/ready", "error": "Permission denied"},
    ),
    (
        "dropped",
        lambda: running("-r", "USR1:0")("signal", USR1, SENDER),
        DEBUG,
        "USR1 from sh (pid 7) dropped (--rewrite)",
        {"signal": "USR1", "sender": SENDER},
    ),
    (
        "not-forwarded",
        lambda: killing().signal(3.1, USR1, SENDER),
        DEBUG,
        "USR1 from sh (pid 7) comes too late for the agent",
        {"signal": "USR1", "sender": SENDER},
    ),
    (
        "shielded",
        lambda: running()("unhandled", USR1, SENDER),
        WARNING,
        "USR1 from sh (pid 7) dropped: no process handles it (--unhandled forward sends it anyway)",
        {"signal": "USR1", "sender": SENDER},
    ),
    (
        "status",
        lambda: notified(STATUS="3 calls"),
        DEBUG,
        'agent status: "3 calls"',
        {"status": "3 calls"},
    ),
    (
        "errno",
        lambda: notified(ERRNO="2"),
        WARNING,
        "agent reported errno 2 (No such file or directory)",
        {"errno": 2},
    ),
    ("reloading", lambda: notified(RELOADING="1"), INFO, "the agent is reloading", {}),
    ("agent-stopping", lambda: notified(STOPPING="1"), INFO, "the agent is stopping by itself", {}),
    (
        "watchdog-waits",
        lambda: notified("--watchdog", "5s", READY="1", by_agent=False)[1:],
        WARNING,
        "sh (pid 7) is ready, but WATCHDOG_PID names the agent: the watchdog waits for its first WATCHDOG=1",
        {"sender": SENDER},
    ),
    ("ready", lambda: notified(READY="1"), INFO, "the agent is ready, after 2s", {"seconds": 2.0}),
    (
        "extended",
        lambda: extended("-t", "5s"),
        INFO,
        "the agent asked for more time",
        {"max_grace": None},
    ),
    (
        "extended",
        lambda: extended("-t", "5s", "--max-grace", "7s"),
        INFO,
        "the agent asked for more time, 7s in total at most (--max-grace)",
        {"max_grace": 7.0},
    ),
    (
        "extended",
        lambda: extended("-t", "5s", "--max-grace", "1h", "--platform-grace", "9s"),
        INFO,
        "the agent asked for more time, 7s in total at most (--platform-grace)",
        {"max_grace": 7.0},
    ),
    (
        "watchdog",
        lambda: hung("-t", "8s", "--watchdog", "5s", WATCHDOG="1", STATUS="busy"),
        ERROR,
        "the agent gave no sign of life for 5s: stall report, then ABRT to the agent after 1.5s, KILL after 9.5s",
        {"allowed": 5.0, "sender": None, "status": "busy"},
    ),
    (
        "watchdog",
        lambda: notified("-t", "8s", WATCHDOG="trigger"),
        ERROR,
        "the agent triggered its watchdog (sh (pid 7)): stall report, then ABRT to the agent after 1.5s, "
        "KILL after 9.5s",
        {"allowed": None, "sender": SENDER, "status": ""},
    ),
    (
        "ready-timeout",
        lambda: hung("-t", "8s", "--ready-timeout", "5s"),
        ERROR,
        "the agent is not ready after 5s: stall report, then ABRT to the agent after 1.5s, KILL after 9.5s",
        {"allowed": 5.0, "sender": None, "status": ""},
    ),
    (
        "stop-requested",
        lambda: requested("-t", "25s"),
        INFO,
        "stop requested by TERM from sh (pid 7): TERM to the agent, KILL after 25s",
        {"signal": "TERM", "sender": SENDER},
    ),
    (
        "stop-requested",
        lambda: requested("-t", "25s", "--stop-delay", "5s", "--stop-signal", "INT"),
        INFO,
        "stop requested by TERM from sh (pid 7): INT to the agent after 5s, KILL after 25s",
        {"signal": "TERM", "sender": SENDER},
    ),
    (
        "stop-requested",
        lambda: requested("-t", "25s", "--stop-delay", "500ms"),
        INFO,
        "stop requested by TERM from sh (pid 7): TERM to the agent after 500ms, KILL after 25s",
        {"signal": "TERM", "sender": SENDER},
    ),
    (
        "stop-requested",
        lambda: requested("--stop-schedule", "TERM/1m30s/INT/QUIT"),
        INFO,
        "stop requested by TERM from sh (pid 7): TERM to the agent, INT after 1m30s, QUIT after 1m30s, no deadline",
        {"signal": "TERM", "sender": SENDER},
    ),
    (
        "stop-requested",
        lambda: requested("-t", "0"),
        INFO,
        "stop requested by TERM from sh (pid 7): TERM to the agent, KILL after 0s",
        {"signal": "TERM", "sender": SENDER},
    ),
    (
        "stop-requested",
        lambda: requested(**KUBERNETES),
        INFO,
        "stop requested by TERM from sh (pid 7): TERM to the agent, no deadline but that of Kubernetes "
        "(30s unless raised)",
        {"signal": "TERM", "sender": SENDER},
    ),
    (
        "stop-repeated",
        lambda: repeated("-t", "10s"),
        INFO,
        "INT from sh (pid 7): stop already in progress (9s left); not passed on",
        {"signal": "INT", "sender": SENDER, "passed_on": None, "left": 9.0, "elapsed": 1.0},
    ),
    (
        "stop-repeated",
        lambda: repeated("-t", "10s", "--repeat", "forward", extended=True),
        INFO,
        "INT from sh (pid 7): stop already in progress (9.1s left (extended by the agent)); TERM passed on",
        {"signal": "INT", "sender": SENDER, "passed_on": "TERM", "left": 9.1, "elapsed": 1.0},
    ),
    (
        "stop-repeated",
        lambda: repeated("-t", "infinity"),
        INFO,
        "INT from sh (pid 7): stop already in progress (1s so far, no deadline); not passed on",
        {"signal": "INT", "sender": SENDER, "passed_on": None, "left": None, "elapsed": 1.0},
    ),
    (
        "stop-repeated",
        lambda: repeated_while_lingering("-t", "infinity"),
        INFO,
        "TERM from sh (pid 7): the agent has already exited (no deadline); not passed on",
        {"signal": "TERM", "sender": SENDER, "passed_on": None, "left": None, "elapsed": None},
    ),
    (
        "repeat-escalates",
        lambda: repeated("--stop-schedule", "TERM/4s/INT/6s/KILL", "--repeat", "escalate"),
        INFO,
        "INT from sh (pid 7): stop already in progress (9s left); on to the next step",
        {"signal": "INT", "sender": SENDER, "left": 9.0, "elapsed": 1.0},
    ),
    (
        "repeat-kills",
        lambda: repeated_while_lingering("-t", "10s", "--repeat", "escalate", requests=2),
        WARNING,
        "TERM from sh (pid 7): stop already in progress (8s left); SIGKILL at once",
        {"signal": "TERM", "sender": SENDER, "left": 8.0, "elapsed": 1.0},
    ),
    (
        "stopping",
        lambda: after_request("-t", "1m15s", at=12.0),
        INFO,
        "stopping: 1m5s left",
        {"status": "", "left": 65.0, "elapsed": 10.0},
    ),
    (
        "stopping",
        lambda: after_request("-t", "infinity", at=12.0),
        INFO,
        "stopping: 10s so far, no deadline",
        {"status": "", "left": None, "elapsed": 10.0},
    ),
    (
        "step",
        lambda: after_request("--stop-schedule", "TERM/3s/INT/9s/KILL"),
        WARNING,
        "3s after the stop request, INT",
        {"signal": "INT", "elapsed": 3.0},
    ),
    (
        "step",
        lambda: repeated("-t", "10s", "--repeat", "escalate"),
        WARNING,
        "1s after the stop request, SIGKILL",
        {"signal": "KILL", "elapsed": 1.0},
    ),
    (
        "step",
        lambda: hung("--stop-schedule", "TERM/3s/INT/9s/KILL", WATCHDOG="trigger"),
        WARNING,
        "4.5s after the hang was detected, INT",
        {"signal": "INT", "elapsed": 4.5},
    ),
    (
        "deadline",
        lambda: after_request("-t", "3s"),
        WARNING,
        "3s after the stop request, SIGKILL",
        {"signal": "KILL", "elapsed": 3.0},
    ),
    (
        "deadline",
        lambda: hung("-t", "3s", WATCHDOG="trigger"),
        WARNING,
        "4.5s after the hang was detected, SIGKILL",
        {"signal": "KILL", "elapsed": 4.5},
    ),
    (
        "limit-near",
        lambda: after_request(at=30.0, **KUBERNETES),
        WARNING,
        "28s after the stop request the agent is still running; Kubernetes (30s unless raised) ends its wait with a "
        "SIGKILL from outside; agent-init goes on waiting (AGENT_INIT_GRACE sets a deadline of its own)",
        {"elapsed": 28.0, "platform": "Kubernetes (30s unless raised)"},
    ),
    (
        "held-back",
        lambda: held_back("-t", "20s"),
        INFO,
        "the agent itself gets TERM or INT after they have exited, or in 10s",
        {"signal": "TERM", "seconds": 10.0},
    ),
    (
        "held-back-signalled",
        held_back_signalled,
        INFO,
        "the agent has not exited: TERM or INT to it as well",
        {"signal": "TERM"},
    ),
    (
        "lingering",
        lambda: ended(exited(3), "--linger", "5s", "--stop-signal", "INT", alone=False),
        INFO,
        "the agent exited with code 3; it left processes behind: INT to them, up to 5s",
        {"code": 3, "cause": "exited", "signal": "INT", "linger": 5.0},
    ),
    ("linger-over", lambda: lingering(7.0), WARNING, "linger time is over, SIGKILL to what the agent left behind", {}),
    (
        "left-behind",
        lambda: lingering(12.0),
        ERROR,
        "gave up: not everything has exited 5s after SIGKILL",
        {"seconds": 5.0},
    ),
    (
        "ended",
        lambda: ended(exited(3)),
        INFO,
        "ended: the agent exited with code 3, after 2s in all; exit code 3",
        {
            "code": 3,
            "agent_code": 3,
            "cause": "exited",
            "how": "exited with code 3",
            "seconds": 2.0,
            "stop_seconds": None,
            "status": "",
        },
    ),
    (
        "forwarded",
        lambda: [Log("forwarded", signal=USR1, sender=SENDER, to=[])],
        DEBUG,
        "USR1 from sh (pid 7) forwarded to the agent",
        {"signal": "USR1", "sender": SENDER},
    ),
    (
        "forwarded",
        lambda: [Log("forwarded", signal=USR1, sender=SENDER, to=processes(2))],
        DEBUG,
        "USR1 from sh (pid 7) forwarded to worker (20), worker (21)",
        {"signal": "USR1", "sender": SENDER, "pids": [20, 21]},
    ),
    (
        "looked-through",
        lambda: [Log("looked-through", signal=TERM, to=processes(2), reason="sh does not handle TERM")],
        INFO,
        "sh does not handle TERM; TERM sent to worker (20), worker (21)",
        {"signal": "TERM", "reason": "sh does not handle TERM", "pids": [20, 21]},
    ),
    (
        "looked-through",
        lambda: [
            Log("looked-through", signal=TERM, to=(both := processes(2)), reason="as before", interrupted=both[1:])
        ],
        INFO,
        "as before; TERM sent to worker (20); INT sent to worker (21), which does not handle TERM",
        {"signal": "TERM", "reason": "as before", "pids": [20, 21]},
    ),
    (
        "ends-program",
        lambda: [Log("ends-program", wrappers=["parallel (7)", "gdb (8)"])],
        INFO,
        "parallel (7), gdb (8): known to end its program by itself, with other signals or in less time",
        {},
    ),
    (
        "left-to-others",
        lambda: [Log("left-to-others", signal=TERM, caught=processes(1), to=processes(2))],
        WARNING,
        "TERM went to worker (20), which handles it; whether it reached worker (20), worker (21) was left to it",
        {"signal": "TERM", "pids": [20, 21]},
    ),
    (
        "left-to-others",
        lambda: [Log("left-to-others", signal=TERM, caught=processes(2), to=processes(1))],
        WARNING,
        "TERM went to worker (20), worker (21), which handle it; whether it reached worker (20) was left to them",
        {"signal": "TERM", "pids": [20]},
    ),
    (
        "interrupted",
        lambda: [Log("interrupted", interrupted=processes(2))],
        INFO,
        "INT sent to worker (20), worker (21), which do not handle TERM",
        {},
    ),
    (
        "last-term",
        lambda: [Log("last-term", signal=TERM, to=processes(2))],
        INFO,
        "TERM sent to worker (20), worker (21) before the KILL, as they have not exited",
        {"signal": "TERM", "pids": [20, 21]},
    ),
    (
        "handles-by-now",
        lambda: [Log("handles-by-now", signal=TERM, to=processes(2))],
        INFO,
        "TERM sent to worker (20), worker (21), which handle it by now",
        {"signal": "TERM", "pids": [20, 21]},
    ),
    (
        "orphan-stopped",
        lambda: [Log("orphan-stopped", orphan="sh (pid 9)", seconds=61.0, signal=TERM, to=processes(2))],
        INFO,
        "orphan sh (pid 9), adopted 1m1s ago: TERM to worker (20), worker (21)",
        {"orphan": "sh (pid 9)", "seconds": 61.0, "signal": "TERM", "pids": [20, 21]},
    ),
    (
        "orphan-killed",
        lambda: [Log("orphan-killed", orphan="sh (pid 9)", seconds=66.0, signal=TERM, linger=5.0, to=processes(1))],
        WARNING,
        "orphan sh (pid 9), adopted 1m6s ago: 5s after TERM, SIGKILL to worker (20)",
        {"orphan": "sh (pid 9)", "seconds": 66.0, "signal": "TERM", "linger": 5.0, "pids": [20]},
    ),
    (
        "replaced",
        lambda: running()("agent_ended", exited(0), alone=False, successor="node (pid 9)"),
        WARNING,
        "the agent exited without a stop request, while node (pid 9) runs the same program: an agent that starts its "
        "successor in the background ends its container; replace the process with exec, stay in the foreground, or "
        "send MAINPID= before the exit",
        {"successor": "node (pid 9)"},
    ),
    (
        "older-left",
        lambda: running()("agent_ended", exited(0), alone=False, only_older=True),
        INFO,
        "SIGKILL to what is older than the agent and does not handle TERM",
        {"signal": "TERM"},
    ),
    (
        "wrapper-stays",
        lambda: [Log("wrapper-stays", signal=TERM, what="restarting")],
        INFO,
        "all processes behind the agent have exited, but it has started the same program again: "
        "TERM or INT to it as well",
        {"signal": "TERM", "what": "restarting"},
    ),
    (
        "wrapper-left",
        lambda: left_by_wrapper("-t", "20s"),
        INFO,
        "the agent exited with code 3 before the program that it runs; TERM to its program (18s left)",
        {"code": 3, "cause": "exited", "signal": "TERM", "left": 18.0},
    ),
    (
        "wrapper-left",
        lambda: left_by_wrapper("-t", "infinity"),
        INFO,
        "the agent exited with code 3 before the program that it runs; TERM to its program (no deadline)",
        {"code": 3, "cause": "exited", "signal": "TERM", "left": None},
    ),
    (
        "wrapper-left",
        lambda: left_by(make("-t", "20s", environment={"DYNO": "web.1"})),
        INFO,
        "the agent exited with code 3 before the program that it runs, which has had TERM (18s left)",
        {"code": 3, "cause": "exited", "signal": "TERM", "left": 18.0},
    ),
    (
        "wrapper-left",
        lambda: left_by(make("-t", "20s"), has_had_it=True),
        INFO,
        "the agent exited with code 3 before the program that it runs, which has had TERM (18s left)",
        {"code": 3, "cause": "exited", "signal": "TERM", "left": 18.0},
    ),
    (
        "wrapper-left",
        lambda: left_by(make("-t", "20s"), has_had_it=None),
        INFO,
        "the agent exited with code 3 before the program that it runs (18s left)",
        {"code": 3, "cause": "exited", "signal": "TERM", "left": 18.0},
    ),
    (
        "not-signalled",
        lambda: [Log("not-signalled", to=[Process(20, "worker", 2, 2, 1)])],
        INFO,
        "the wrapper is likely to have passed the signal on to worker (20): no second one",
        {"pids": [20]},
    ),
    (
        "ended",
        lambda: [action for _, action in left_at_deadline()],
        INFO,
        "ended: the agent exited with code 3, the program that it ran was killed by SIGKILL at the deadline, 25s "
        "after the stop request, after 25s in all; exit code 137",
        {
            "code": 137,
            "agent_code": 137,
            "cause": "deadline",
            "seconds": 25.0,
            "stop_seconds": 25.0,
            "status": "",
            "how": "exited with code 3",
        },
    ),
]
RENAMED = {  # in JSON; users know these names
    "extended-by-command": "extended",
    "repeat-escalates": "escalated",
    "repeat-kills": "escalated",
    "step": "escalated",
    "held-back-signalled": "held-back",
}
LISTS = {
    "repeat-kills": narrator.NAMES,
    "stopping": narrator.COUNT,
    "long-stop": narrator.COUNT,
    "step": narrator.NAMES,
    "deadline": narrator.NAMES,
    "limit-near": narrator.NAMES,
    "wrapper-left": narrator.NAMES,
    "lingering": narrator.NAMES,
    "linger-over": narrator.NAMES,
    "left-behind": narrator.NAMES,
    "older-left": narrator.NAMES,
}
LEVELS = {ERROR: "error", WARNING: "warning", INFO: "info", DEBUG: "debug"}


CASE_IDS = [event for event, *_ in CASES]


@pytest.mark.parametrize(("event", "actions", "level", "text", "fields"), CASES, ids=CASE_IDS)
def test_an_event_has_its_level_its_text_and_its_fields(
    narrate: Callable[..., Narration],
    event: str,
    actions: Callable[[], list[Action]],
    level: int,
    text: str,
    fields: dict[str, object],
) -> None:
    log = next(log for log in logs(actions()) if log.event == event)
    narration = narrate("--log-format", "json")
    narration.narrator.log(log)
    if event in LISTS:
        fields = {**fields, "processes": 0 if LISTS[event] == narrator.COUNT else []}
        text += ", 0 processes" if LISTS[event] == narrator.COUNT else ""
    assert narration.records() == [
        {"level": LEVELS[level], "event": RENAMED.get(event, event), "message": text, **fields},
    ]


@pytest.mark.parametrize(("event", "actions", "level", "text", "fields"), CASES, ids=CASE_IDS)
def test_an_event_is_logged_only_up_to_the_level_asked_for(
    narrate: Callable[..., Narration],
    event: str,
    actions: Callable[[], list[Action]],
    level: int,
    text: str,
    fields: dict[str, object],
) -> None:
    log = next(log for log in logs(actions()) if log.event == event)
    narration = narrate(level=level - 1)
    narration.listed.processes = processes(1)
    narration.narrator.log(log)
    assert narration.lines() == []
    narration.narrator.console.level = level
    narration.narrator.log(log)
    listed = {narrator.NAMES: "; still running: worker (20)", narrator.COUNT: ", 1 process"}.get(
        LISTS.get(event, ""), ""
    )
    assert narration.lines() == [{ERROR: "error: ", WARNING: "warning: "}.get(level, "") + text + listed]


def test_these_cases_are_all_events() -> None:
    assert {event for event, *_ in CASES} == EVENTS.keys()
    assert {event for event, (_, _, _, listing) in EVENTS.items() if listing} == LISTS.keys()
    assert EVENTS.keys() > narrator.FINAL


def test_the_text_of_what_is_logged_with_verbose_only_is_not_loaded_without() -> None:
    assert {event for event, (_, level, _, _) in EVENTS.items() if level == DEBUG} == narrator.VERBOSE


class EveryLogHasAText(AnyOrder):
    """Whatever the state machine logs, in any order of events: the narrator knows it, and its text is one line."""

    def take(self, actions: list[Action]) -> None:
        super().take(actions)
        for log in logs(actions):
            _, level, render, _ = EVENTS[log.event]
            text = render(**log.facts)
            assert text
            assert text.isprintable()
            assert ERROR <= level <= DEBUG
            assert "inf" not in text.replace("infinity", "")
            assert "nan" not in text
            assert "None" not in text


EveryLogHasAText.TestCase.settings = hypothesis_settings(max_examples=100, stateful_step_count=30, deadline=None)
TestEveryLogHasAText = EveryLogHasAText.TestCase


# --- How the agent ended. -------------------------------------------------------------------------------------------

OOM = "the kernel's OOM killer killed"


@pytest.mark.parametrize(
    ("ending", "cause", "text"),
    [
        (None, "", "was sent SIGKILL and has not exited yet"),
        (Ending(None), "lost", "has exited, its exit status was lost"),
        (exited(0), "exited", "exited with code 0"),
        (killed(TERM), "signal", "was killed by SIGTERM"),
        (killed(TERM, OomKills(0)), "signal", "was killed by SIGTERM"),
        (killed(), "killed", "was killed by SIGKILL (not sent by agent-init)"),
        (
            killed(memory=OomKills(0)),
            "killed",
            "was killed by SIGKILL (sent neither by agent-init nor by the OOM killer)",
        ),
        (killed(memory=OomKills(1)), "deadline", "was killed by SIGKILL at the deadline"),
        (killed(memory=OomKills(1)), "stop-signal", "was killed by SIGKILL as the stop signal"),
        (
            killed(memory=OomKills(1)),
            "escalated",
            "was killed by SIGKILL at a repeated stop request (--repeat escalate)",
        ),
        (killed(memory=OomKills(1)), "signal", "was killed by SIGKILL, which agent-init forwarded"),
        (
            killed(memory=OomKills(1)),
            "oom",
            f"was killed by SIGKILL, most likely for want of memory: {OOM} once in this container",
        ),
        (
            killed(memory=OomKills(3, 64 * MIB, 63 * MIB)),
            "oom",
            f"was killed by SIGKILL, most likely for want of memory: {OOM} 3 times in this container "
            "(memory: limit 64 MiB, peak 63 MiB)",
        ),
        (
            killed(memory=OomKills(1, 64 * MIB)),
            "oom",
            f"was killed by SIGKILL, most likely for want of memory: {OOM} once in this container "
            "(memory: limit 64 MiB)",
        ),
        (
            exited(1, OomKills(1, None, 2048 * MIB)),
            "exited",
            f"exited with code 1; meanwhile {OOM} once in this container (memory: peak 2 GiB)",
        ),
        (killed(TERM, OomKills(2)), "signal", f"was killed by SIGTERM; meanwhile {OOM} 2 times in this container"),
    ],
)
def test_an_end_is_described_with_its_evidence_and_no_more(ending: Ending | None, cause: str, text: str) -> None:
    assert narrator.describe(ending, cause) == text


# --- Process lists. -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "names"),
    [
        (0, ""),
        (1, "; still running: worker (20)"),
        (2, "; still running: worker (20), worker (21)"),
        (12, ", worker (31)"),
        (13, ", worker (31) and 1 more"),
        (21, ", worker (31) and 9 more"),
    ],
)
def test_of_many_processes_the_first_are_named(narrate: Callable[..., Narration], count: int, names: str) -> None:
    narration = narrate("--log-format", "json")
    narration.listed.processes = processes(count)
    narration.log("linger-over")
    [record] = narration.records()
    assert record["message"].endswith(f"left behind{names}" if count <= 2 else names)
    assert record["processes"] == [f"worker ({pid})" for pid in range(20, 20 + min(count, 12))]


@pytest.mark.parametrize(("count", "text"), [(0, "0 processes"), (1, "1 process"), (21, "21 processes")])
def test_in_the_progress_processes_are_counted(narrate: Callable[..., Narration], count: int, text: str) -> None:
    narration = narrate("--log-format", "json")
    narration.listed.processes = processes(count)
    narration.log("stopping", status="", left=5.0, elapsed=10.0, extended=True)
    [record] = narration.records()
    assert record["message"] == f"stopping: 5s left (extended by the agent), {text}"
    assert record["processes"] == count
    assert "extended" not in record


def test_the_status_comes_last_in_the_progress(narrate: Callable[..., Narration]) -> None:
    narration = narrate()
    narration.listed.processes = processes(1)
    narration.log("stopping", status="3 calls", left=5.0, elapsed=10.0, extended=False)
    assert narration.lines() == ['stopping: 5s left, 1 process, "3 calls"']


@pytest.mark.parametrize("event", ["linger-over", "stopping"])
@pytest.mark.parametrize(
    ("agent", "text"),
    [
        ("python (7)", "; still running: python (7), and perhaps others: too many to list, or none visible"),
        ("", "; too many processes to list, or none visible"),
    ],
)
def test_where_processes_cannot_be_listed_only_the_agent_is_named(
    narrate: Callable[..., Narration], event: str, agent: str, text: str
) -> None:
    narration = narrate("--log-format", "json")
    narration.listed.processes, narration.narrator.agent = None, agent
    facts = {"status": "", "left": 5.0, "elapsed": 10.0, "extended": False} if event == "stopping" else {}
    narration.log(event, **facts)
    [record] = narration.records()
    assert record["message"].endswith(text)
    assert "processes" not in record


def test_processes_are_not_looked_for_if_the_line_is_not_logged(narrate: Callable[..., Narration]) -> None:
    narration = narrate(level=ERROR)
    narration.narrator._descendants = None  # type: ignore[assignment]  # a look would fail
    narration.log("stop-requested", signal=TERM, sender=SENDER, upcoming={"steps": [(TERM, 0.0)], "platform": ""})
    narration.log("stopping", status="", left=5.0, elapsed=10.0, extended=False)
    narration.log("linger-over")
    assert narration.lines() == []


def test_where_the_line_is_only_in_the_final_message_processes_are_named_too(narrate: Callable[..., Narration]) -> None:
    narration = narrate(level=ERROR)
    narration.listed.processes = processes(1)
    narration.log("stop-requested", signal=TERM, sender=SENDER, upcoming={"steps": [(TERM, 0.0)], "platform": ""})
    narration.narrator.write_final_message()
    narration.log("linger-over")
    narration.narrator.write_final_message()
    assert narration.lines() == []
    [_, line] = (narration.final_message() or "").splitlines()
    assert line == "linger time is over, SIGKILL to what the agent left behind; still running: worker (20)"


def test_without_a_termination_log_no_final_message_is_made(narrate: Callable[..., Narration]) -> None:
    """The agent waits for the line before its stop signal, and to make the message takes longer than the line."""
    narration = narrate("--termination-log", "none")
    narration.log("stop-requested", signal=TERM, sender=SENDER, upcoming={"steps": [(TERM, 0.0)], "platform": ""})
    narration.log("linger-over")
    narration.narrator.report_line("a stall report's")
    narration.narrator.report_is_complete()
    assert not narration.narrator.has_news
    assert narration.narrator._made is None
    end(narration, Ending(9))
    assert len(narration.lines()) == 4
    assert narration.narrator._made is None
    assert narration.final_message() is None


# --- The last line and the final message. ---------------------------------------------------------------------------


def end(narration: Narration, ending: Ending | None = None, **facts: Any) -> str:
    """Log the end; return its line."""
    ending = exited(3) if ending is None else ending
    usual = {"code": ending.code, "why": "", "agent_code": ending.code, "ending": ending, "cause": "exited", "hung": ""}
    narration.log("ended", **{**usual, "seconds": 9.0, "stop_seconds": 4.0, "status": "", **facts})
    return narration.lines()[-1] if narration.lines() else ""


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({"stop_seconds": None}, "ended: the agent exited with code 3, after 9s in all; exit code 3"),
        ({}, "ended: the agent exited with code 3, 4s after the stop request, after 9s in all; exit code 3"),
        (
            {"hung": "watchdog"},
            "ended: the agent exited with code 3, 4s after the hang was detected, after 9s in all; exit code 3",
        ),
        (
            {"code": 0, "why": "ok-exit"},
            "ended: the agent exited with code 3, 4s after the stop request, after 9s in all; exit code 0 "
            "(--ok-exit 3)",
        ),
        (
            {"ending": exited(0), "code": 134, "agent_code": 0, "why": "hung", "hung": "watchdog"},
            "ended: the agent exited with code 0, 4s after the hang was detected, after 9s in all; exit code 134 "
            "(it hung)",
        ),
        (
            {"status": "3 calls"},
            "ended: the agent exited with code 3, 4s after the stop request, after 9s in all; exit code 3; its last "
            'status: "3 calls"',
        ),
        (
            {"status": "3 calls", "code": 0, "agent_code": 0, "ending": exited(0)},
            "ended: the agent exited with code 0, 4s after the stop request, after 9s in all; exit code 0",
        ),
    ],
)
def test_the_last_line(narrate: Callable[..., Narration], facts: dict[str, Any], text: str) -> None:
    assert end(narrate(), **facts) == text


HINT = narrator.PARENT_IS_1
AT_ONCE: dict[str, Any] = {"code": 0, "agent_code": 0, "seconds": 0.9, "stop_seconds": None}


@pytest.mark.parametrize(
    ("facts", "pid", "hinted"),
    [
        ({}, 1, True),
        ({}, 7, False),
        ({"seconds": 1.0}, 1, False),
        ({"stop_seconds": 0.5}, 1, False),
        ({"hung": "watchdog"}, 1, False),
        ({"agent_code": 3}, 1, False),
        ({"cause": "lost"}, 1, False),
    ],
)
def test_an_end_at_once_below_process_1_gets_a_hint(
    narrate: Callable[..., Narration],
    monkeypatch: pytest.MonkeyPatch,
    facts: dict[str, Any],
    pid: int,
    hinted: bool,
) -> None:
    monkeypatch.setattr(posix, "getpid", lambda: pid)
    assert end(narrate(), exited(0), **{**AT_ONCE, **facts}).endswith(HINT) is hinted


def test_an_agent_with_a_successor_gets_no_second_hint(
    narrate: Callable[..., Narration], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posix, "getpid", lambda: 1)
    narration = narrate()
    narration.log("replaced", successor="node (pid 9)")
    assert HINT not in end(narration, exited(0), **AT_ONCE)


@pytest.mark.parametrize(("hung", "cause"), [("", "deadline"), ("watchdog", "watchdog")])
def test_the_fields_of_the_last_line(narrate: Callable[..., Narration], hung: str, cause: str) -> None:
    narration = narrate("--log-format", "json")
    end(narration, killed(), cause="deadline", hung=hung)
    [record] = narration.records()
    since = "the hang was detected" if hung else "the stop request"
    assert record == {
        "level": "info",
        "event": "ended",
        "message": f"ended: the agent was killed by SIGKILL at the deadline, 4s after {since}, after 9s in all; "
        "exit code 137",
        "code": 137,
        "agent_code": 137,
        "cause": cause,
        "how": "was killed by SIGKILL at the deadline",
        "seconds": 9.0,
        "stop_seconds": 4.0,
        "status": "",
    }


def test_the_last_line_says_that_the_exit_code_is_that_of_an_int_in_place_of_term(
    narrate: Callable[..., Narration],
) -> None:
    narration = narrate("--log-format", "json")
    end(narration, exited(130), cause="exited", by_int=True, counts_as=143)
    [record] = narration.records()
    assert record["by_int"] is True
    assert "counts_as" not in record


@pytest.mark.parametrize("cause", ["deadline", "escalated"])
def test_the_last_line_names_the_processes_that_ran_at_the_deadline(
    narrate: Callable[..., Narration], cause: str
) -> None:
    narration = narrate()
    narration.listed.processes = processes(2)
    narration.log("deadline", signal=KILL, elapsed=4.0, hung=False)
    narration.listed.processes = []
    line = end(narration, killed(), cause=cause, status="3 calls")
    named = "; running when it was sent: worker (20), worker (21)" if cause == "deadline" else ""
    assert line.endswith(f'; exit code 137{named}; its last status: "3 calls"')


def test_if_no_process_ran_at_the_deadline_none_is_named(narrate: Callable[..., Narration]) -> None:
    narration = narrate()
    narration.listed.processes = processes(2)
    narration.log("step", signal=INT, elapsed=2.0, hung=False)
    narration.listed.processes = []
    narration.log("deadline", signal=KILL, elapsed=4.0, hung=False)
    assert end(narration, killed(), cause="deadline").endswith("; exit code 137")


TIME_OF_DAY = re.compile(r"\b\d\d:\d\d:\d\d UTC")
REQUEST = {"signal": TERM, "sender": SENDER, "upcoming": {"steps": [(TERM, 0.0)], "platform": ""}}
LIMIT = {"elapsed": 28.0, "hung": False, "platform": "Kubernetes (30s unless raised)"}
LIMIT_TEXT = (
    "28s after the stop request the agent is still running; Kubernetes (30s unless raised) ends its wait with a "
    "SIGKILL from outside; agent-init goes on waiting (AGENT_INIT_GRACE sets a deadline of its own)"
)
HANG: dict[str, Any] = {"allowed": 5.0, "sender": None, "upcoming": {"steps": [], "platform": None}, "status": ""}


def kubernetes() -> stop_plan.StopPlan:
    """The plan in a pod without a grace."""
    return planning.make(reader.read(["agent"], {}), KUBERNETES, lambda _path: False)


def now_of(narration: Narration) -> list[str]:
    """Write the final message as process 1 does after an event; return its lines, with no time of day."""
    if narration.narrator.has_news:
        narration.narrator.write_final_message()
    return [TIME_OF_DAY.sub("NOW", line) for line in (narration.final_message() or "").splitlines()]


def test_on_failure_the_final_message_is_the_last_line_and_what_went_wrong(narrate: Callable[..., Narration]) -> None:
    narration = narrate()
    narration.listed.processes = processes(1)
    narration.log("errno", errno=2)  # while it runs; not about the stop
    narration.log("stop-requested", **REQUEST)
    narration.log("shielded", signal=HUP, sender=SENDER)
    narration.log("errno", errno=5)
    narration.log("stopping", status="", left=5.0, elapsed=10.0, extended=False)
    narration.narrator.report_begins()
    narration.narrator.report_line("worker (20): in recv")
    narration.narrator.report_is_complete()
    narration.log("step", signal=INT, elapsed=3.0, hung=False)
    narration.log("deadline", signal=KILL, elapsed=4.0, hung=False)
    assert narration.final_message() is None  # written after the signals were sent
    last = end(narration, killed(), cause="deadline")
    assert now_of(narration) == [
        last,
        "stop requested at NOW by TERM from sh (pid 7)",
        "agent reported errno 5 (Input/output error)",
        "3s after the stop request, INT; still running: worker (20)",
        "4s after the stop request, SIGKILL; still running: worker (20)",
        "worker (20): in recv",
    ]
    assert "warning: worker (20): in recv" in narration.lines()


@pytest.mark.parametrize(
    ("event", "facts", "begins"),
    [
        (
            "stop-requested",
            REQUEST,
            "stopping since NOW, requested by TERM from sh (pid 7); still running: worker (20)",
        ),
        (
            "lingering",
            {"code": 3, "ending": exited(3), "cause": "exited", "signal": TERM, "linger": 5.0},
            "stopping since NOW; the agent exited with code 3; still running: worker (20)",
        ),
        ("older-left", {"signal": TERM}, "stopping since NOW; still running: worker (20)"),
        ("watchdog", HANG, "stopping since NOW; still running: worker (20)"),
        ("ready-timeout", HANG, "stopping since NOW; still running: worker (20)"),
    ],
)
@pytest.mark.parametrize("level", [ERROR, DEBUG])
def test_the_final_message_begins_with_the_stop(
    narrate: Callable[..., Narration], event: str, facts: dict[str, Any], begins: str, level: int
) -> None:
    """Whatever level is logged."""
    narration = narrate(level=level)
    narration.listed.processes = processes(1)
    narration.log("linger-over")
    narration.log(event, **facts)
    narration.log("left-behind", seconds=0.4)
    lines = now_of(narration)
    assert lines[0] == begins
    assert not any("linger time is over" in line for line in lines)
    assert lines[-1].startswith("gave up: not everything has exited 400ms after SIGKILL")
    assert len(lines) == (3 if event in ("watchdog", "ready-timeout") else 2)


@pytest.mark.parametrize("event", sorted(EVENTS.keys() - {"ended"}))
def test_what_of_a_stop_goes_into_the_final_message(narrate: Callable[..., Narration], event: str) -> None:
    log = next(log for name, actions, *_ in CASES if name == event for log in logs(actions()) if log.event == event)
    narration = narrate()
    narration.log("stop-requested", **REQUEST)
    narration.narrator.log(log)
    final = event in (
        "watchdog",
        "ready-timeout",
        "step",
        "deadline",
        "repeat-kills",
        "linger-over",
        "left-behind",
        "left-to-others",
        "errno",
    )
    text = narration.lines()[-1].removeprefix("warning: ").removeprefix("error: ")
    assert now_of(narration)[1:] == ([text] if final else [])


def test_the_final_message_has_the_progress_of_the_stop(
    narrate: Callable[..., Narration], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written again with each line about it, logged or not; a platform that waits is named once."""
    narration = narrate(level=ERROR)
    narration.narrator.log_start(MainProcess(os.getpid(), "agent"), kubernetes(), [])
    narration.listed.processes = processes(1)
    narration.log("stop-requested", **REQUEST)
    request = "stopping since NOW, requested by TERM from sh (pid 7); "
    assert now_of(narration) == [f"{request}still running: worker (20); Kubernetes usually waits 30s"]
    later = time.monotonic() + 20
    monkeypatch.setattr(time, "monotonic", lambda: later)
    narration.listed.processes = processes(2)
    narration.log("stopping", status="3 calls", left=None, elapsed=20.0, extended=False)
    running = "after 20s still running: worker (20), worker (21)"
    kubernetes_waits = 'Kubernetes usually waits 30s; last status: "3 calls"'
    assert now_of(narration) == [f"{request}{running}; {kubernetes_waits}"]
    narration.listed.processes = []
    left = {"code": 0, "ending": exited(0), "cause": "exited", "signal": TERM, "linger": 5.0}
    narration.log("lingering", **left)
    gone = "the agent exited with code 0; after 20s nothing is running any more"
    assert now_of(narration) == [f"{request}{gone}; {kubernetes_waits}"]
    assert narration.lines() == []
    end(narration, exited(0))
    assert now_of(narration) == []


def test_where_processes_cannot_be_listed_the_final_message_names_the_agent(narrate: Callable[..., Narration]) -> None:
    narration = narrate()
    narration.listed.processes, narration.narrator.agent = None, "python (7)"
    narration.log("stop-requested", **REQUEST)
    [line] = now_of(narration)
    assert line.endswith("; still running: python (7), and perhaps others: too many to list, or none visible")


@pytest.mark.parametrize("is_certain", [False, True])
@pytest.mark.parametrize("has_file", [False, True])
def test_near_a_guessed_limit_the_report_goes_into_the_file(
    narrate: Callable[..., Narration], is_certain: bool, has_file: bool
) -> None:
    narration = narrate(*(() if has_file else ("--termination-log", "none")), level=INFO)
    plan = kubernetes()
    plan.limit_is_certain = is_certain
    narration.narrator.log_start(MainProcess(os.getpid(), "agent"), plan, [])
    narration.log("stop-requested", **REQUEST)
    now_of(narration)
    narration.log("limit-near", **LIMIT)
    narration.narrator.report_begins()
    narration.narrator.report_line("in recv")
    narration.narrator.report_is_complete()
    in_log = is_certain or not has_file
    assert narration.lines()[2:] == ([f"warning: {LIMIT_TEXT}", "warning: in recv"] if in_log else [LIMIT_TEXT])
    assert now_of(narration)[1:] == (["in recv"] if has_file else [])
    narration.narrator.report_begins()
    narration.narrator.report_line("in send")
    assert narration.lines()[-1] == "warning: in send"


def test_a_report_replaces_the_one_before(narrate: Callable[..., Narration]) -> None:
    narration = narrate()
    narration.log("stop-requested", **REQUEST)
    for line in ("in recv", "in send"):
        narration.narrator.report_begins()
        narration.narrator.report_line(line)
        narration.narrator.report_is_complete()
        assert now_of(narration)[1:] == [line]


EXPLAINED: list[tuple[dict[str, Any], bool]] = [
    ({}, False),
    ({"stop_seconds": None}, False),
    ({"ending": killed(TERM), "cause": "signal"}, False),
    ({"ending": killed(11), "cause": "signal"}, False),
    ({"ending": exited(0), "code": 0, "agent_code": 0}, False),
    ({"ending": killed(), "cause": "killed"}, True),
    ({"ending": killed(), "cause": "oom"}, True),
    ({"ending": killed(), "cause": "deadline"}, True),
    ({"ending": killed(), "cause": "escalated"}, True),
    ({"ending": killed(), "cause": "stop-signal"}, True),
    ({"ending": killed(), "cause": "deadline", "code": 0, "why": "ok-exit"}, False),
    ({"ending": killed(kill_forwarded=True), "cause": "signal"}, True),
    ({"ending": Ending(None), "cause": "lost"}, True),
    ({"ending": None, "cause": "", "code": 137}, True),
    ({"hung": "watchdog"}, True),
    ({"cut": "deadline", "code": 137}, True),
    ({"ending": exited(0, OomKills(1)), "code": 0, "agent_code": 0}, True),
    ({"ending": exited(1, OomKills(1))}, True),
    ({"ending": exited(1, OomKills(0))}, False),
]


@pytest.mark.parametrize(("facts", "is_explained"), EXPLAINED)
def test_the_final_message_is_left_only_where_it_explains_the_end(
    narrate: Callable[..., Narration], facts: dict[str, Any], is_explained: bool
) -> None:
    narration = narrate(level=ERROR)
    narration.log("stop-requested", **REQUEST)
    narration.log("errno", errno=5)
    assert now_of(narration)
    usual = {"code": 3, "why": "", "agent_code": 3, "ending": exited(3), "cause": "exited", "hung": ""}
    if (ending := facts.get("ending")) is not None:
        usual.update(code=ending.code, agent_code=ending.code)
    narration.log("ended", **{**usual, "seconds": 9.0, "stop_seconds": 4.0, "status": "", **facts})
    assert narration.lines() == []
    assert [line[:6] for line in now_of(narration)] == (["ended:", "stop r", "agent "] if is_explained else [])


@pytest.mark.parametrize(("event", "is_explained"), [("step", True), ("deadline", True), ("linger-over", False)])
def test_an_end_by_itself_is_explained_if_the_stop_was_escalated(
    narrate: Callable[..., Narration], event: str, is_explained: bool
) -> None:
    narration = narrate()
    narration.log("stop-requested", **REQUEST)
    narration.log(event, **({} if event == "linger-over" else {"signal": INT, "elapsed": 3.0, "hung": False}))
    end(narration, exited(3))
    assert bool(now_of(narration)) is is_explained


def test_a_failure_to_write_the_final_message_is_logged_once(narrate: Callable[..., Narration]) -> None:
    narration = narrate("--termination-log", "/proc/self/no/such", level=WARNING)
    narration.log("stop-requested", **REQUEST)
    narration.narrator.write_final_message()
    narration.log("stopping", status="", left=5.0, elapsed=10.0, extended=False)
    narration.narrator.write_final_message()
    end(narration, killed(), cause="deadline")
    text = "cannot write the termination log /proc/self/no/such: No such file or directory"
    assert narration.lines() == [f"warning: {text}"]


@pytest.mark.parametrize(("length", "kept"), [(4095, "01"), (4096, "0"), (4097, "0")])
def test_a_line_is_kept_for_the_final_message_if_any_of_it_can_be_written(
    narrate: Callable[..., Narration], length: int, kept: str
) -> None:
    narration = narrate()
    narration.log("stop-requested", **REQUEST)
    for line in ("0" * length, "1" * 10, "2" * 10):
        narration.narrator.report_line(line)
    assert "".join(line[0] for line in narration.narrator._message._report) == kept
    assert len(narration.lines()) == 4


def test_a_report_before_the_stop_is_not_for_the_final_message(narrate: Callable[..., Narration]) -> None:
    narration = narrate()
    narration.narrator.report_line("report: x")
    assert narration.narrator._message._report == []


# --- The first lines. -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "level", "pid", "what", "role"),
    [
        ([], INFO, 1, "agent", "process 1"),
        ([], INFO, 40, "agent", "subreaper"),
        (["--subreaper"], DEBUG, 40, "agent", "subreaper"),
        (["--no-subreaper"], INFO, 40, "agent", "plain parent"),
        (["--no-subreaper"], INFO, 1, "agent", "process 1"),
        ([], TRACE, 1, "agent --port 80", "process 1"),
    ],
)
def test_the_first_line(
    narrate: Callable[..., Narration],
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    level: int,
    pid: int,
    what: str,
    role: str,
) -> None:
    narration = narrate("--log-format", "json", "-t", "25s", *flags, level=level)
    agent = MainProcess(7, "/usr/bin/agent")
    monkeypatch.setattr(posix, "getpid", lambda: pid)
    narration.narrator.log_start(agent, narration.plan, [])
    assert narration.records() == [
        {
            "level": "info",
            "event": "started",
            "message": f"started {what} (pid 7), as {role}; grace 25s (-t)",
            "pid": 7,
            "program": "agent",
            "role": role,
            "grace": 25.0,
            "grace_from": "grace 25s (-t)",
        }
    ]


@pytest.mark.parametrize("event", ["blocked", "turned", "repeated"])
def test_what_a_process_reports_of_its_event_loop(narrate: Callable[..., Narration], event: str) -> None:
    narration = narrate("--log-format", "json")
    narration.narrator.log_loop(f"{event} 0.512 event loop: agent.py:3 in f", Process(1 << 30, "python", 1, 20, 100))
    assert narration.records() == [
        {
            "level": "warning",
            "event": f"loop-{event}",
            "message": f"python ({1 << 30}): event loop: agent.py:3 in f",
            "pid": 1 << 30,
            "seconds": 0.512,
        }
    ]


@pytest.mark.parametrize(
    "message",
    ["", "blocked", "blocked 1", "blocked 1 ", "blocked x text", "odd 1 text", "blocked nan x", "blocked inf x"],
)
def test_a_malformed_report_of_an_event_loop_is_ignored(narrate: Callable[..., Narration], message: str) -> None:
    narration = narrate("--log-format", "json")
    narration.narrator.log_loop(message, Process(1 << 30, "python", 1, 20, 100))
    assert narration.records() == []


def test_the_first_line_without_a_deadline(narrate: Callable[..., Narration]) -> None:
    narration = narrate("--log-format", "json", environment=KUBERNETES)
    narration.narrator.log_start(MainProcess(7, "agent"), narration.plan, [])
    [record] = narration.records()
    assert record["grace"] is None
    assert math.isinf(narration.plan.grace)
    assert record["message"].endswith("; grace: Kubernetes's own, 30s unless raised; AGENT_INIT_GRACE not set")


def test_unknown_variables_and_problems_follow_the_first_line(narrate: Callable[..., Narration]) -> None:
    narration = narrate("--log-format", "json", environment={"AGENT_INIT_GRACES": "5", "AGENT_INIT_ZZZZZZ": "1"})
    narration.narrator.log_start(MainProcess(7, "agent"), narration.plan, ["no terminal", "no /proc"])
    _, *records = narration.records()
    assert sorted(records[:2], key=lambda record: str(record["variable"])) == [
        {
            "level": "warning",
            "event": "unknown-variable",
            "message": "unknown variable AGENT_INIT_GRACES; did you mean AGENT_INIT_GRACE?",
            "variable": "AGENT_INIT_GRACES",
        },
        {
            "level": "warning",
            "event": "unknown-variable",
            "message": "unknown variable AGENT_INIT_ZZZZZZ",
            "variable": "AGENT_INIT_ZZZZZZ",
        },
    ]
    assert records[2:] == [
        {"level": "warning", "event": "problem", "message": "no terminal"},
        {"level": "warning", "event": "problem", "message": "no /proc"},
    ]


# --- Want of memory while the text or the final message is made. ------------------------------------------------------


END: dict[str, Any] = {
    "code": 137,
    "why": "",
    "agent_code": 137,
    "ending": None,
    "cause": "deadline",
    "hung": "",
    "seconds": 9.0,
    "stop_seconds": 4.0,
    "status": "",
}


class Failing:
    """In place of a module that is made later: there is no memory for it, so many times."""

    def __init__(self, module: Any, times: int) -> None:
        self.module, self.times = module, times

    def __getattr__(self, name: str) -> Any:
        if self.times:
            self.times -= 1
            raise MemoryError
        return getattr(self.module, name)


def test_what_begins_a_stop_is_known_though_its_text_could_not_be_made(
    narrate: Callable[..., Narration], monkeypatch: pytest.MonkeyPatch
) -> None:
    narration = narrate()
    monkeypatch.setattr(narrator, "events", Failing(events, 1))
    with pytest.raises(MemoryError):
        narration.log("older-left", signal=TERM)
    narration.log("left-behind", seconds=1.0)
    narration.narrator.write_final_message()
    assert "gave up" in narration.lines()[-1]
    narration.log("ended", **END)
    assert "gave up" in (narration.final_message() or "")


def test_the_last_line_is_logged_though_the_final_message_cannot_be_made(
    narrate: Callable[..., Narration], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt has a reserve of memory released."""
    narration = narrate()
    monkeypatch.setattr(narrator, "final_message", Failing(final_message, 2))
    with pytest.raises(MemoryError):
        narration.log("ended", **END)
    assert narration.lines() == []
    narration.log("ended", **END)
    assert len(narration.lines()) == 1


def test_a_report_does_not_need_the_final_message(
    narrate: Callable[..., Narration], monkeypatch: pytest.MonkeyPatch
) -> None:
    narration = narrate()
    monkeypatch.setattr(narrator, "final_message", Failing(final_message, 9))
    narration.narrator.report_begins()
    narration.narrator.report_line("one")
    narration.narrator.report_is_complete()
    assert [line.rpartition(": ")[2] for line in narration.lines()] == ["one"]
    narration.narrator._stopping = True
    with pytest.raises(MemoryError):
        narration.narrator.report_line("two")
    assert narration.lines()[-1].endswith("two")


def test_the_text_of_what_only_verbose_logs_is_not_loaded_without(
    narrate: Callable[..., Narration], monkeypatch: pytest.MonkeyPatch
) -> None:
    narration = narrate(level=WARNING)
    with monkeypatch.context() as patch:
        patch.setattr(narrator, "events", Failing(events, 9))
        narration.log("dropped", signal=TERM, sender=SENDER)
    narration.log("reloading")
    assert narration.lines() == []
    narration.narrator.console.level = DEBUG
    narration.log("reloading")
    narration.log("dropped", signal=TERM, sender=SENDER)
    assert len(narration.lines()) == 2

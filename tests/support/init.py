"""agent-init run for real, and what can be seen of it from outside."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ACTOR = Path(__file__).with_name("actor.py")
AGENT_INIT = Path(sys.executable).parent / "agent-init"
PATIENCE = 30.0  # how long something that must happen may take before the test gives up
RUN_VARIABLE = "TEST_RUN"

# A PID namespace of its own makes the child process 1. Without root a user namespace allows it.
NAMESPACE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
if os.getuid() != 0:
    NAMESPACE[1:1] = ["--user", "--map-root-user"]


def until(condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """Wait for `condition` to become true, and return what it returned."""
    end = time.monotonic() + patience
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {patience:g}s in vain for {what}")
        time.sleep(0.005)
    return value


def clean_environment(**variables: str) -> dict[str, str]:
    """Ours, without what would change agent-init: its own variables, the interpreter's, and the platforms'."""
    dropped = (
        "AGENT_INIT_",
        "NOTIFY_SOCKET",
        "WATCHDOG_",
        "PYTHON",
        "KUBERNETES_",
        "ECS_",
        "K_SERVICE",
        "FLY_",
        "NOMAD_",
        "RAILWAY_",
        "LISTEN_",
    )
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(dropped) and k not in ("DYNO", "RENDER", "container")
    }
    return {**kept, **variables}


class Init:
    """One run of agent-init. `pid` is its pid as seen from here."""

    def __init__(
        self,
        directory: Path,
        words: list[str],
        *,
        process1: bool = True,
        env: Mapping[str, str] | None = None,
        before: list[str] | None = None,
        program: list[str] | None = None,
        **popen: Any,
    ) -> None:
        """`words` follow the program; `before` is put in front of it, inside of the namespace."""
        self.run_id = uuid.uuid4().hex
        self.log = directory / "events.jsonl"
        self.log.touch(mode=0o666)
        self.stderr_path = directory / f"{self.run_id}.stderr"
        command = [*(before or []), *(program or [str(AGENT_INIT)]), *words]
        self.process1 = process1
        with self.stderr_path.open("wb") as stderr:
            self.outer = subprocess.Popen(
                [*NAMESPACE, *command] if process1 else command,
                env={
                    **(clean_environment() if env is None else env),
                    RUN_VARIABLE: self.run_id,
                    "EVENTS": str(self.log),
                },
                **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": stderr, **popen},
            )
        self.pid = self.outer.pid
        if process1:
            self.pid = until(self._inner_pid, "process 1 of the new namespace")

    def _inner_pid(self) -> int | None:
        """The child of unshare; that of unshare itself once both have ended."""
        children = psutil.Process(self.outer.pid).children() if self.outer.poll() is None else []
        return children[0].pid if children else self.outer.pid if self.outer.poll() is not None else None

    # --- To it. ---

    def signal(self, name: str) -> None:
        base, _, offset = name.partition("+")
        os.kill(self.pid, int(getattr(signal, f"SIG{base}")) + int(offset or 0))

    def wait(self, patience: float = PATIENCE) -> int:
        """Its exit code (a signal's as a shell tells it)."""
        try:
            code = self.outer.wait(patience)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {patience:g}s; it said:\n{self.stderr}") from None
        return code if code >= 0 else 128 - code

    def wait_for(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait for a condition; what has been said is told where it does not come."""
        return until(condition, f"{what}; it said:\n{self.stderr}")

    def close(self) -> None:
        if self.outer.poll() is None:
            for process in self.left():
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    continue
            self.outer.kill()
            self.outer.wait()
        if self.outer.stdout:
            self.outer.stdout.close()

    # --- Of it. ---

    @property
    def stderr(self) -> str:
        return self.stderr_path.read_text(errors="replace")

    def lines(self, word: str = "") -> list[str]:
        """What agent-init said, without its prefix: the lines with `word` in them."""
        lines = (
            line.removeprefix("agent-init: ") for line in self.stderr.splitlines() if line.startswith("agent-init: ")
        )
        return [line for line in lines if word in line]

    def said(self, word: str) -> str:
        """The first line with `word` in it, awaited."""
        return str(until(lambda: self.lines(word), f"a line with {word!r}; there is:\n{self.stderr}")[0])

    def records(self, name: str | None = None, event: str | None = None) -> list[dict[str, Any]]:
        """What the actors logged."""
        lines = self.log.read_text().splitlines(keepends=True)
        records = [json.loads(line) for line in lines if line.endswith("\n")]  # the last may be half written
        return [r for r in records if name in (None, r["name"]) and event in (None, r["event"])]

    def events(self, name: str = "agent") -> list[str]:
        return [str(record["event"]) for record in self.records(name)]

    def event(self, event: str, name: str = "agent") -> dict[str, Any]:
        """The first such record, awaited."""
        found: list[dict[str, Any]] = until(
            lambda: self.records(name, event), f"{event!r} of {name!r}; there is {self.records()}\n{self.stderr}"
        )
        return found[0]

    def left(self) -> list[psutil.Process]:
        """The processes of this run that are still there, agent-init and unshare included."""
        found = []
        for pid in psutil.pids():
            try:
                process = psutil.Process(pid)
                if process.environ().get(RUN_VARIABLE) == self.run_id and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found


def actor(log: Path, name: str, code: str, *arguments: str) -> list[str]:
    """The words that start an actor."""
    return [sys.executable, "-S", str(ACTOR), str(log), name, code, *arguments]


def actor_line(name: str, code: str) -> str:
    """The same as a shell would have it, in a run whose log is `$EVENTS`."""
    return f'{shlex.join([sys.executable, "-S", str(ACTOR)])} "$EVENTS" {shlex.join([name, code])}'

"""Run the real agent-init and observe it from outside."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ACTOR = Path(__file__).with_name("actor.py")
AGENT_INIT = Path(sys.executable).parent / "agent-init"
PATIENCE = 30.0  # seconds to wait for a thing that must happen
RUN_VARIABLE = "TEST_RUN"

# In a new PID namespace the child is process 1. Without root this takes a user namespace.
NAMESPACE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
if os.getuid() != 0:
    NAMESPACE[1:1] = ["--user", "--map-root-user"]


def until(condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """Wait until `condition()` is true and return its value. Raises AssertionError after `patience` seconds."""
    end = time.monotonic() + patience
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"timed out after {patience:g}s waiting for {what}")
        time.sleep(0.005)
    return value


def clean_environment(**variables: str) -> dict[str, str]:
    """The environment without the variables that change agent-init: its own, Python's and the platforms'."""
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
        "CONTAINER_APP_",
        "CLOUD_RUN_",
        "MODAL_",
        "TINI_",
        "DUMB_INIT_",
    )
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(dropped) and k not in ("DYNO", "RENDER", "container")
    }
    return {**kept, **variables}


class Init:
    """One run of agent-init. `pid` is its pid in our namespace."""

    def __init__(
        self,
        directory: Path,
        argv: list[str],
        *,
        process1: bool = True,
        env: Mapping[str, str] | None = None,
        before: list[str] | None = None,
        program: list[str] | None = None,
        **popen: Any,
    ) -> None:
        """Run `before + program + argv`, in a new PID namespace if `process1`. `program` is agent-init by default."""
        self.run_id = uuid.uuid4().hex
        self.log = directory / "events.jsonl"
        self.log.touch(mode=0o666)
        self.stderr_path = directory / f"{self.run_id}.stderr"
        command = [*(before or []), *(program or [str(AGENT_INIT)]), *argv]
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
        """The pid of unshare's child, or of unshare itself once both have exited."""
        pid = self.outer.pid
        if self.outer.poll() is not None:
            return pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0]) if children else None

    # --- Act on it. ---

    def signal(self, name: str) -> None:
        base, _, offset = name.partition("+")
        os.kill(self.pid, int(getattr(signal, f"SIG{base}")) + int(offset or 0))

    def wait(self, patience: float = PATIENCE) -> int:
        """Wait for its exit and return the exit code (128 + n after death by signal n)."""
        try:
            code = self.outer.wait(patience)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {patience:g}s; {self.state()}; stderr:\n{self.stderr}") from None
        return code if code >= 0 else 128 - code

    def wait_for(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait for a condition; a failure shows stderr."""
        return until(condition, f"{what}; stderr:\n{self.stderr}")

    def close(self) -> None:
        if self.outer.poll() is None:
            for process in self.remaining_processes():
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    continue
            self.outer.kill()
            self.outer.wait()
        if self.outer.stdout:
            self.outer.stdout.close()

    # --- Observe it. ---

    @property
    def stderr(self) -> str:
        return self.stderr_path.read_text(errors="replace")

    def state(self) -> str:
        """What agent-init waits for and its signals, for the message of a failed test."""
        found = []
        with suppress(OSError):
            lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
            found = [line for line in lines if line.startswith(("Name", "State", "PPid", "NSpid", "Sig", "Shd"))]
            found += [Path(f"/proc/{self.pid}/{name}").read_text() for name in ("wchan", "syscall", "stack")]
        return f"process {self.pid}: {found}"

    def lines(self, text: str = "") -> list[str]:
        """The lines that agent-init has logged so far and that contain `text`, without the prefix."""
        lines = (
            line.removeprefix("agent-init: ") for line in self.stderr.splitlines() if line.startswith("agent-init: ")
        )
        return [line for line in lines if text in line]

    def wait_for_line(self, text: str) -> str:
        """Wait for a line of agent-init's that contains `text`; return the first."""
        return str(until(lambda: self.lines(text), f"a line with {text!r}; stderr:\n{self.stderr}")[0])

    def records(self, name: str | None = None, event: str | None = None) -> list[dict[str, Any]]:
        """The events that the actors have logged, of one actor or of one kind if asked."""
        lines = self.log.read_text().splitlines(keepends=True)
        records = [json.loads(line) for line in lines if line.endswith("\n")]  # the last may be incomplete
        return [r for r in records if name in (None, r["name"]) and event in (None, r["event"])]

    def events(self, name: str = "agent") -> list[str]:
        return [str(record["event"]) for record in self.records(name)]

    def wait_for_event(self, event: str, name: str = "agent") -> dict[str, Any]:
        """Wait for an event of an actor and return its first record."""
        try:
            found: list[dict[str, Any]] = until(lambda: self.records(name, event), f"{event!r} of {name!r}")
        except AssertionError as error:
            message = f"{error}; events: {self.records()}; {self.state()}; stderr:\n{self.stderr}"
            raise AssertionError(message) from None
        return found[0]

    def remaining_processes(self) -> list[psutil.Process]:
        """The processes of this run that still exist, including agent-init and unshare, without zombies."""
        found = []
        for pid in remaining_pids(self):
            with suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(pid))
        return found


def remaining_pids(*runs: Init) -> list[int]:
    """The pids of the processes of some runs that still exist, without zombies.

    Every test calls this, and psutil takes ten times as long.
    """
    marks = [f"{RUN_VARIABLE}={init.run_id}".encode() for init in runs]
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb", buffering=0) as file:
                environment = file.read()
        except OSError:
            continue  # it has exited, or it belongs to another user
        if any(mark in environment for mark in marks):
            found.append(int(name))
    return found


def actor(log: Path, name: str, code: str, *arguments: str) -> list[str]:
    """The command that starts an actor."""
    return [sys.executable, "-S", str(ACTOR), str(log), name, code, *arguments]


def actor_line(name: str, code: str) -> str:
    """The same as a line for a shell, in a run whose log is `$EVENTS`."""
    return f'{shlex.join([sys.executable, "-S", str(ACTOR)])} "$EVENTS" {shlex.join([name, code])}'

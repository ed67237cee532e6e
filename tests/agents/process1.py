"""An agent under `agent-init` as a real process 1, observed from outside its namespace.

    unshare --pid --fork --kill-child --mount-proc agent-init [options] -- command

The agent logs events to a file (`programs/record.py`), one per line: the time, the pid, the text. Everything else is
observed from outside: process 1's exit code, its stderr, and `/proc`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import TypeVar, cast

from .environments import Environment

T = TypeVar("T")

HELPER = re.compile(rb"from multiprocessing\.(resource_tracker|forkserver) import main")
"""The code with which `multiprocessing` starts its resource tracker and its fork server."""

TIMEOUT = 60.0
"""Seconds to wait for a thing that must happen."""

UNSHARE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")

NOISE = re.compile(
    r"Traceback|Exception ignored|RuntimeError|CancelledError|KeyboardInterrupt|never awaited|never retrieved"
    r"|was destroyed but it is pending|leaked|Fatal|exiting forcefully|BrokenPipe|\bKilled\b",
)
"""Messages that must not appear in the log of a graceful stop."""


@dataclass(frozen=True)
class Event:
    at: float  # time.monotonic() in seconds, the same clock for all processes
    pid: int  # in the agent's namespace
    what: str


class Agent:
    """A running agent; the fixture `start` in conftest.py creates agents and kills them after the test."""

    def __init__(
        self,
        environment: Environment,
        command: Sequence[str],
        options: Sequence[str],
        folder: Path,
        extra: Mapping[str, str],
    ) -> None:
        self.folder = folder
        self._helpers: set[int] = set()
        self._events = folder / "events"
        self._events.touch()
        self._stderr = folder / "stderr"
        self._stdout = folder / "stdout"
        variables = {
            "PATH": f"{environment.bin}:{os.environ['PATH']}",
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "AGENT_EVENTS": str(self._events),
            **extra,
        }
        line = [*UNSHARE, str(environment.bin / "agent-init"), "--log-format", "json", *options, "--", *command]
        with self._stdout.open("wb") as out, self._stderr.open("wb") as err:
            self._unshare = subprocess.Popen(
                line,
                env=variables,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    # --- Processes and signals. ---

    @property
    def pid(self) -> int:
        """The pid of process 1 in our namespace."""
        return self._only_child(self._unshare.pid)

    def _only_child(self, parent: int) -> int:
        def child() -> int | None:
            with contextlib.suppress(FileNotFoundError):
                children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
                return int(children[0]) if children else None
            return None

        return self.until(child, f"a child of {parent}")

    def wait_for_start(self) -> int:
        """Wait until process 1 has started the agent; return the agent's pid in our namespace."""
        return self._only_child(self.pid)

    def signal(self, number: Signals) -> None:
        """Send a signal to process 1, as a container engine does."""
        self._helpers |= self._find_helpers()
        os.kill(self.pid, number)

    def _find_helpers(self) -> set[int]:
        """The helper processes of `multiprocessing`, which exit when the last pipe to them is closed.

        A process that a fork server has forked has the same command line, so children of helpers do not count.
        """
        namespace = os.readlink(f"/proc/{self.pid}/ns/pid")
        found: dict[int, tuple[int, int]] = {}  # pid outside to the parent's pid outside and the pid inside
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.readlink(folder / "ns/pid") == namespace and HELPER.search((folder / "cmdline").read_bytes()):
                    status = dict(line.split(":\t", 1) for line in (folder / "status").read_text().splitlines())
                    found[int(folder.name)] = int(status["PPid"]), int(status["NSpid"].split()[-1])
        return {inside for parent, inside in found.values() if parent not in found}

    def until(self, look: Callable[[], T | None], what: str) -> T:
        """Call `look` until it returns a value other than None, and return that.

        Raises AssertionError, with the agent's log, after TIMEOUT or when agent-init has exited.
        """
        deadline = time.monotonic() + TIMEOUT
        while True:
            over = self._unshare.poll() is not None
            if (answer := look()) is not None:
                return answer
            if over or time.monotonic() > deadline:
                raise AssertionError(f"{'exited' if over else 'timed out'} before: {what}\n{self.transcript()}")
            time.sleep(0.01)

    def wait_for_event(self, what: str, times: int = 1) -> Event:
        """Wait for an event, or for its n-th occurrence, and return it."""

        def look() -> Event | None:
            found = [event for event in self.events() if event.what == what]
            return found[times - 1] if len(found) >= times else None

        return self.until(look, f"event {what!r}")

    def wait_for_handler(self, number: Signals) -> None:
        """Wait until the agent has a handler for that signal."""
        status = Path(f"/proc/{self.wait_for_start()}/status")

        def handles() -> bool | None:
            caught = int(re.search(r"SigCgt:\s*(\w+)", status.read_text())[1], 16)  # type: ignore[index]
            return bool(caught >> (number - 1) & 1) or None

        self.until(handles, f"a handler for {number.name}")

    def wait_for_output(self, text: str) -> None:
        """Wait for a text on stdout or stderr."""
        self.until(lambda: text in self.output() or None, f"output {text!r}")

    def wait_for_exit(self) -> int:
        """Wait until process 1 exits and return its exit code as a container engine reports it."""
        try:
            code = self._unshare.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {TIMEOUT:.0f} s\n{self.transcript()}") from None
        return code if code >= 0 else 128 - code

    def kill(self) -> None:
        """Kill all processes of the run. With `--kill-child` and the namespace one signal is enough."""
        if self._unshare.poll() is None:
            self._unshare.kill()
        self._unshare.wait()

    # --- Events and output. ---

    def events(self) -> list[Event]:
        return [
            Event(float(at), int(pid), what)
            for at, pid, what in (line.split(" ", 2) for line in self._events.read_text().splitlines())
        ]

    def count(self, what: str) -> int:
        """The number of events of that name."""
        return sum(event.what == what for event in self.events())

    def output(self) -> str:
        return self._stdout.read_text(errors="replace") + self._stderr.read_text(errors="replace")

    def log(self) -> Iterator[dict[str, object]]:
        """The JSON lines that agent-init has logged."""
        for line in self._stderr.read_text(errors="replace").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                record = json.loads(line)
                if isinstance(record, dict) and "event" in record:
                    yield record

    def leftover_pids(self) -> set[int]:
        """The pids of the leftover processes that agent-init has logged."""
        return {
            int(str(process).split("(")[1].rstrip(")"))
            for record in self.log()
            if record["event"] in ("lingering", "linger-over", "escalated", "deadline", "left-behind")
            for process in cast("list[object]", record.get("processes", []))
        }

    def transcript(self) -> str:
        events = "".join(f"  {event.at:.3f} {event.pid} {event.what}\n" for event in self.events())
        return f"--- events\n{events}--- output\n{self.output()}"

    # --- Assertions. ---

    def must_exit(self, *codes: int, known: str = "") -> None:
        """Assert that it exits with one of the codes and that the log has no NOISE.

        Lines that contain `known`, a harmless message of the framework, are not checked.
        """
        code = self.wait_for_exit()
        assert code in codes, f"exit code {code}, not {codes}\n{self.transcript()}"
        lines = [line for line in self.output().splitlines() if not known or known not in line]
        assert not (found := NOISE.search("\n".join(lines))), f"{found[0]!r} in the log\n{self.transcript()}"

    def must_end_at_once(self) -> None:
        """Assert that the stop signal ended it before it had a handler.

        143: TERM, while the interpreter was starting. 130: INT, while it was importing; click makes that a 1.
        """
        code = self.wait_for_exit()
        assert code in (143, 130, 1), f"exit code {code}\n{self.transcript()}"
        assert "init_import_site" not in self.output(), self.transcript()

    def must_log_once(self, *what: str) -> None:
        """Assert that each of these events occurred exactly once."""
        for event in what:
            assert self.count(event) == 1, f"{event!r}: {self.count(event)} times\n{self.transcript()}"

    def must_leave_nothing(self) -> None:
        """Assert that agent-init had no leftover process to stop, except `multiprocessing`'s helpers."""
        assert self.leftover_pids() <= self._helpers, (
            f"leftover: {self.leftover_pids()}, helpers: {self._helpers}\n{self.transcript()}"
        )

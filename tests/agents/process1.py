"""An agent under `agent-init` as a real process 1, seen from outside its namespace.

    unshare --pid --fork --kill-child --mount-proc agent-init [options] -- command

The agent tells what happens to it in a file of events (`programs/record.py`), one line each: the moment, the process,
the words. Everything else is read from outside: process 1's exit code, its stderr, and `/proc`.
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
"""How `multiprocessing` starts its resource tracker and its fork server, after `python -c`."""

PATIENCE = 60.0
"""Seconds to wait for a thing that must happen; generous, because machines that run tests are shared and slow."""

UNSHARE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")

NOISE = re.compile(
    r"Traceback|Exception ignored|RuntimeError|CancelledError|KeyboardInterrupt|never awaited|never retrieved"
    r"|was destroyed but it is pending|leaked|Fatal|exiting forcefully|BrokenPipe|\bKilled\b",
)
"""What a person who reads the log of a graceful stop must not find in it."""


@dataclass(frozen=True)
class Event:
    at: float  # time.monotonic(), which all processes of a machine share
    pid: int  # as the agent's namespace numbers it
    what: str


class Agent:
    """One running agent; `start` in conftest.py makes them and clears them away."""

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

    # What it does.

    @property
    def pid(self) -> int:
        """Process 1, numbered as we see it from outside."""
        return self._only_child(self._unshare.pid)

    def _only_child(self, parent: int) -> int:
        def child() -> int | None:
            with contextlib.suppress(FileNotFoundError):
                children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
                return int(children[0]) if children else None
            return None

        return self.until(child, f"a child of {parent}")

    def wait_started(self) -> int:
        """Wait until process 1 has started the agent; return the agent's pid as seen from outside."""
        return self._only_child(self.pid)

    def signal(self, number: Signals) -> None:
        """Send a signal to process 1, as a container engine does."""
        self._helpers |= self._find_helpers()
        os.kill(self.pid, number)

    def _find_helpers(self) -> set[int]:
        """The processes that `multiprocessing` runs for its own purposes; they end when the last pipe to them closes.

        What a fork server has forked shows the same command line, so those whose parent is one do not count.
        """
        namespace = os.readlink(f"/proc/{self.pid}/ns/pid")
        found: dict[int, tuple[int, int]] = {}  # numbered from outside: the parent, and the number inside
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.readlink(folder / "ns/pid") == namespace and HELPER.search((folder / "cmdline").read_bytes()):
                    status = dict(line.split(":\t", 1) for line in (folder / "status").read_text().splitlines())
                    found[int(folder.name)] = int(status["PPid"]), int(status["NSpid"].split()[-1])
        return {inside for parent, inside in found.values() if parent not in found}

    def until(self, look: Callable[[], T | None], what: str) -> T:
        """Look again and again until there is an answer. Fails, with the agent's log, when none can come."""
        deadline = time.monotonic() + PATIENCE
        while True:
            over = self._unshare.poll() is not None
            if (answer := look()) is not None:
                return answer
            if over or time.monotonic() > deadline:
                raise AssertionError(f"{'ended' if over else 'waited too long'} before: {what}\n{self.story()}")
            time.sleep(0.01)

    def wait(self, what: str, times: int = 1) -> Event:
        """Wait for an event, for the n-th of that name if asked."""

        def look() -> Event | None:
            found = [event for event in self.events() if event.what == what]
            return found[times - 1] if len(found) >= times else None

        return self.until(look, f"event {what!r}")

    def wait_handles(self, number: Signals) -> None:
        """Wait until the agent has a handler for that signal."""
        status = Path(f"/proc/{self.wait_started()}/status")

        def handles() -> bool | None:
            caught = int(re.search(r"SigCgt:\s*(\w+)", status.read_text())[1], 16)  # type: ignore[index]
            return bool(caught >> (number - 1) & 1) or None

        self.until(handles, f"a handler for {number.name}")

    def wait_logged(self, words: str) -> None:
        """Wait for words in the agent's own output."""
        self.until(lambda: words in self.output() or None, f"output {words!r}")

    def wait_ended(self) -> int:
        """Wait for the end of process 1 and return its exit code as a container engine tells it."""
        try:
            code = self._unshare.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not ended after {PATIENCE:.0f} s\n{self.story()}") from None
        return code if code >= 0 else 128 - code

    def clear(self) -> None:
        """End whatever is left. `--kill-child` and the namespace make that one signal."""
        if self._unshare.poll() is None:
            self._unshare.kill()
        self._unshare.wait()

    # What it says.

    def events(self) -> list[Event]:
        return [
            Event(float(at), int(pid), what)
            for at, pid, what in (line.split(" ", 2) for line in self._events.read_text().splitlines())
        ]

    def said(self, what: str) -> int:
        """How many events of that name there are."""
        return sum(event.what == what for event in self.events())

    def output(self) -> str:
        return self._stdout.read_text(errors="replace") + self._stderr.read_text(errors="replace")

    def log(self) -> Iterator[dict[str, object]]:
        """What agent-init itself wrote."""
        for line in self._stderr.read_text(errors="replace").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                record = json.loads(line)
                if isinstance(record, dict) and "event" in record:
                    yield record

    def left(self) -> set[int]:
        """The processes that outlived the agent, as agent-init tells when it turns to them."""
        return {
            int(str(process).split("(")[1].rstrip(")"))
            for record in self.log()
            if record["event"] in ("lingering", "linger-over", "escalated", "deadline", "left-behind")
            for process in cast("list[object]", record.get("processes", []))
        }

    def story(self) -> str:
        events = "".join(f"  {event.at:.3f} {event.pid} {event.what}\n" for event in self.events())
        return f"--- events\n{events}--- output\n{self.output()}"

    # What must be true in the end.

    def must_end(self, *codes: int, known: str = "") -> None:
        """The end that a user hopes for: the right code, and no noise in the log. `known`: what a noise that this
        framework makes in its daily life says; lines with it do not count."""
        code = self.wait_ended()
        assert code in codes, f"exit code {code}, not {codes}\n{self.story()}"
        lines = [line for line in self.output().splitlines() if not known or known not in line]
        assert not (found := NOISE.search("\n".join(lines))), f"{found[0]!r} in the log\n{self.story()}"

    def must_say(self, *what: str) -> None:
        """Each of these events once: not lost, and not done twice either."""
        for words in what:
            assert self.said(words) == 1, f"{words!r}: {self.said(words)} times\n{self.story()}"

    def must_kill_nothing(self) -> None:
        """Everything ended by itself: nobody was there for agent-init to stop, `multiprocessing`'s helpers aside."""
        assert self.left() <= self._helpers, f"left: {self.left()}, helpers: {self._helpers}\n{self.story()}"

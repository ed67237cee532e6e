"""A supervisor in a simulated world: processes, signals, waitpid(2) and the terminal are fakes, the rest is real."""

from __future__ import annotations

import os
import posix
import signal
import time
from typing import TYPE_CHECKING, Any

from entrypoint import settings as reader
from entrypoint.init import delivery, dispositions, leftovers, planning, procfs, recipients, terminal
from entrypoint.init.procfs import Process
from entrypoint.init.signalfd import Received
from entrypoint.init.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from entrypoint.init.actions import Action

AGENT = 10_000_001  # above the largest pid that Linux allows: a signal that slips through reaches no process
OWN_PID, OWN_GROUP = os.getpid(), os.getpgrp()
ABRT, CHLD, CONT, INT, KILL, STOP, TERM, TSTP, TTIN, USR1, WINCH = (
    int(getattr(signal, f"SIG{name}")) for name in "ABRT CHLD CONT INT KILL STOP TERM TSTP TTIN USR1 WINCH".split()
)


def exited(code: int) -> int:
    """Return the wait status of a process that has exited."""
    return code << 8


def stopped(number: int) -> int:
    """Return the wait status of a process that a signal has stopped."""
    return number << 8 | 0x7F


def failing(real: Callable[..., Any], *errors: BaseException) -> Callable[..., Any]:
    """Return `real`, but its first calls raise one of the errors each."""
    left = list(errors)

    def call(*arguments: Any, **more: Any) -> Any:
        if left:
            raise left.pop(0)
        return real(*arguments, **more)

    return call


class World:
    """All processes, the signals that they handle, and the signals that were sent."""

    def __init__(self) -> None:
        self.processes: dict[int, Process] = {}
        self.handled: dict[int, set[int]] = {}
        self.wait_results: list[tuple[int, int]] = []  # what waitpid(2) will return, until it returns 0
        self.no_children = False  # ... or fails with ECHILD
        self.sent: list[tuple[int, int]] = []
        self.send_errors: dict[int, OSError] = {}  # by the pid that the signal is for
        self.no_proc = False
        self.foreground: int | None = None  # the terminal's foreground process group
        self.foreground_while_stopped: int | None = None
        self.has_shell_above = False
        self.not_wrappers: set[int] = set()  # do not wait for their children
        self.helpers: set[int] = set()  # talk to their parents through a pipe
        self.pidfds: dict[int, int] = {}  # the descriptor for each pid that can be watched
        self.add(AGENT, OWN_PID, "agent")

    def add(self, pid: int, parent: int, name: str = "child", *handled: int, group: int = AGENT) -> Process:
        self.processes[pid] = Process(pid, name, parent, group, pid % 1000)
        self.handled[pid] = set(handled)
        return self.processes[pid]

    def look(self, pid: int) -> Process | None:
        return None if self.no_proc else self.processes.get(pid)

    def pids(self) -> list[int]:
        if self.no_proc:
            raise FileNotFoundError
        return list(self.processes)

    def children(self, pid: int) -> list[Process]:
        return [] if self.no_proc else [process for process in self.processes.values() if process.parent == pid]

    def child_pids(self, pid: int) -> list[int]:
        return [process.pid for process in self.children(pid)]

    def kill(self, pid: int, number: int) -> None:
        if pid in self.send_errors:
            raise self.send_errors[pid]
        if (pid, number) == (OWN_PID, STOP):
            self.foreground_while_stopped = self.foreground
        self.sent.append((pid, number))

    def send(self, process: Process, *numbers: int) -> bool:
        for number in numbers:
            self.kill(process.pid, number)
        return True

    def waitpid(self, pid: int, flags: int) -> tuple[int, int]:
        assert (pid, flags) == (-1, os.WNOHANG | os.WUNTRACED)
        if self.wait_results:
            return self.wait_results.pop(0)
        if self.no_children:
            raise ChildProcessError
        return 0, 0

    def pidfd_open(self, pid: int) -> int:
        if pid not in self.pidfds:
            raise ProcessLookupError
        return os.dup(self.pidfds[pid])

    def give_terminal_to(self, group: int) -> None:
        self.foreground = group

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have the modules of process 1 see this world."""
        FakeDispositions.world = self
        for name in ("look", "pids", "children", "child_pids"):
            monkeypatch.setattr(procfs, name, getattr(self, name))
        monkeypatch.setattr(procfs, "program_names", lambda process: {process.name})
        monkeypatch.setattr(procfs, "argv_of", lambda pid: [self.processes[pid].name] if pid in self.processes else [])
        monkeypatch.setattr(dispositions, "Dispositions", FakeDispositions)
        monkeypatch.setattr(procfs, "descriptors", lambda *_: {})
        monkeypatch.setattr(leftovers, "_status", lambda _: {})  # small pids are those of real processes
        monkeypatch.setattr(recipients, "is_wrapper", lambda process, _: process.pid not in self.not_wrappers)
        monkeypatch.setattr(recipients, "is_helper", lambda child, *_: child.pid in self.helpers)
        monkeypatch.setattr(delivery, "send", self.send)
        monkeypatch.setattr(posix, "kill", self.kill)
        monkeypatch.setattr(posix, "waitpid", self.waitpid)
        monkeypatch.setattr(posix, "pidfd_open", self.pidfd_open)
        monkeypatch.setattr(terminal, "foreground", lambda: self.foreground)
        monkeypatch.setattr(terminal, "give_to", self.give_terminal_to)
        monkeypatch.setattr(terminal, "has_shell_above", lambda: self.has_shell_above)


class FakeDispositions:
    """Stands in for `dispositions.Dispositions`."""

    world: World

    def __init__(self, pid: int, *, patient: bool = False) -> None:
        self.pid = pid

    def __bool__(self) -> bool:
        return not self.world.no_proc and self.pid in self.world.handled

    def handles(self, number: int) -> bool | None:
        return number in self.world.handled[self.pid] if self else None

    def handles_or_ignores(self, number: int) -> bool | None:
        return self.handles(number)

    def image(self) -> tuple[bytes, bytes] | None:
        return None

    def seen(self) -> None:
        pass

    def close(self) -> None:
        self.pid = 0


class FakeSignals:
    """Stands in for the signalfd."""

    may_have_more = True

    def __init__(self, fd: int) -> None:
        self.fd, self.pending = fd, list[int]()

    def begin(self) -> None:
        pass

    def peek(self) -> int:
        return 0

    def read(self, inbox: list[Received]) -> None:
        inbox += [Received(number, bytes(16)) for number in self.pending]  # from outside the container
        self.pending.clear()


class Harness:
    """A supervisor of the agent AGENT, what it logs, and what makes it work."""

    def __init__(self, world: World, directory: Path, *flags: str, **more: Any) -> None:
        """`flags`: options of agent-init. `more`: arguments of the supervisor, and `variables`: agent-init's own."""
        self.world, self.output = world, directory / "stderr"
        self.fd = os.open(self.output, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        read_end, write_end = os.pipe()
        self.source = FakeSignals(read_end)
        self.fds = [self.fd, read_end, write_end]
        given = {"package": "/none", "log_fd": self.fd, "previous_foreground": None, "problems": (), **more}
        settings = reader.read(
            [*flags, "--", "/app/agent", "secret"], {"AGENT_INIT_CONTROL": "off", **given.pop("variables", {})}
        )
        self.supervisor = Supervisor(
            settings,
            planning.make(settings, {}, lambda _: False),
            self.source,  # type: ignore[arg-type]
            AGENT,
            given.pop("environment", None),
            started=time.monotonic(),
            **given,
        )

    def receive(self, *numbers: int) -> None:
        """Have the supervisor receive signals; none: have it look whether anything has happened."""
        self.source.pending += numbers
        self.supervisor._catch_up()

    def notify(self, sender: Process, **fields: str) -> None:
        """Have the supervisor receive a message through the notify socket."""
        self.supervisor._handle_message(fields, sender)

    def run_loop_once(self) -> None:
        """Run what the loop has to do now, if anything."""
        loop = self.supervisor.loop
        later = loop.call_at(loop.time() + 0.01, lambda: None)
        loop._run_once()
        loop.cancel(later)

    def do(self, *actions: Action) -> None:
        """Have the supervisor carry out actions."""
        self.supervisor.execution.to_do += actions
        self.supervisor.execution.carry_out()

    def lines(self, text: str = "") -> list[str]:
        """Return the logged lines that contain `text`."""
        lines = self.output.read_text().splitlines()
        return [line.removeprefix("agent-init: ") for line in lines if text in line]

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)

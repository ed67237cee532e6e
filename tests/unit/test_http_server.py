"""Process 1's part of the HTTP server: when it is started and fed, and that no failure of it does any harm.

The server itself: tests/http.
"""

from __future__ import annotations

import os
import posix
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from entrypoint import http_state, notify, start
from entrypoint.init import helpers, http_program, http_server
from entrypoint.init.fallback import Fallback
from entrypoint.init.lifecycle import KILLING
from entrypoint.init.loop import Loop
from entrypoint.parsed import UsageError
from entrypoint.settings import read
from tests.support.world import AGENT, CHLD, KILL, OWN_PID, TERM, USR1, World, exited, failing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.world import Harness

PID = 10_000_050
HTTP = ("--http", "127.0.0.1:8081")
LISTENS = "HTTP server (pid 10000050) for 127.0.0.1:8081"


class Stage:
    """A supervisor whose HTTP server is this test: `records` are what it was sent."""

    def __init__(self, supervise: Callable[..., Harness], world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world, self._supervise = world, supervise
        self.readers: list[int] = []
        self.spawned: list[tuple[list[str], dict[bytes, bytes], dict[str, Any]]] = []
        self.failures: list[BaseException] = []
        self.began = self.now = float(int(time.monotonic()))
        monkeypatch.setattr(posix, "posix_spawn", self._spawn)
        monkeypatch.setattr(Loop, "time", staticmethod(lambda: self.now))

    def _spawn(self, path: str, argv: list[str], environment: dict[bytes, bytes], **more: Any) -> int:
        if self.failures:
            raise self.failures.pop(0)
        [(_, reader, _)] = [action for action in more["file_actions"] if action[0] == os.POSIX_SPAWN_DUP2]
        self.readers.append(os.dup(reader))
        self.spawned.append((argv, environment, more))
        self.world.add(PID, OWN_PID, "python3", group=PID)
        return PID

    def begin(self, *flags: str, **more: Any) -> None:
        self.harness = self._supervise(*HTTP, *flags, **more)

    @property
    def server(self) -> http_server.HttpServer:
        assert self.harness.supervisor.http is not None
        return self.harness.supervisor.http

    def server_is_closed(self) -> None:
        """Close the end of the pipe that is process 1's."""
        if self.harness.supervisor.http is not None:
            self.harness.supervisor.http._close()

    def records(self) -> list[dict[str, str]]:
        """What has come since the last look."""
        os.set_blocking(self.readers[-1], False)
        try:
            data = os.read(self.readers[-1], 1 << 20)
        except BlockingIOError:
            return []
        assert not data or data.endswith(http_state.END)
        return [notify.parse(record) for record in data.split(http_state.END)[:-1]]

    def go_on(self, seconds: float) -> None:
        """Let time pass, and timers go off."""
        self.now += seconds
        loop = self.harness.supervisor.loop
        for timer in [timer for timer in loop._timers if timer.when <= self.now]:
            loop.cancel(timer)
            timer.callback()

    def exits(self, status: int) -> None:
        self.world.wait_results.append((PID, status))
        self.world.processes.pop(PID, None)
        self.harness.receive(CHLD)


def fill(fd: int) -> None:
    """Write into a pipe until it is full."""
    try:
        while True:
            os.write(fd, b"x" * 4096)
    except BlockingIOError:
        return


@pytest.fixture
def stage(supervise: Callable[..., Harness], world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    made = Stage(supervise, world, monkeypatch)
    yield made
    made.server_is_closed()
    for fd in made.readers:
        os.close(fd)


# --- What it is told. -----------------------------------------------------------------------------------------------


def test_the_server_is_started_with_its_address_and_the_state(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posix, "environ", {b"SECRET": b"x", b"LD_LIBRARY_PATH": b"/lib"})
    stage.begin()
    [(argv, environment, more)] = stage.spawned
    assert argv[-2:] == ["127.0.0.1", "8081"]
    assert environment == {b"LD_LIBRARY_PATH": b"/lib"}
    assert more["setpgroup"] == 0
    assert stage.harness.supervisor.helper_pids == {PID}
    [record] = stage.records()
    assert record["STATE"] == "starting"
    assert record["AGENT"] == str(AGENT)
    assert not {"NAME", "STATUS", "COMMAND"} & record.keys()
    assert stage.harness.lines(LISTENS)


@pytest.mark.parametrize(("level", "opened"), [((), [1, 2]), (("-v",), [1])])
def test_a_traceback_of_the_server_is_shown_only_with_verbose(
    stage: Stage, level: tuple[str, ...], opened: list[int]
) -> None:
    stage.begin(*level)
    actions = stage.spawned[0][2]["file_actions"]
    assert [action[1] for action in actions if action[0] == os.POSIX_SPAWN_OPEN] == opened


def test_the_stop_request_is_written_before_the_stop_signal_is_sent(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.begin("-t", "20s")
    seen: list[list[str]] = []
    kill = stage.world.kill

    def noted(pid: int, number: int) -> None:
        seen.append([record["STATE"] for record in stage.records()])
        kill(pid, number)

    stage.records()
    monkeypatch.setattr(posix, "kill", noted)
    stage.harness.receive(TERM)
    assert seen[0] == ["stopping"]
    assert (AGENT, TERM) in stage.world.sent


def test_a_stop_has_its_times_and_steps(stage: Stage) -> None:
    stage.begin("-t", "20s", "--watchdog", "5s", "--stop-delay", "2s")
    stage.harness.notify(stage.world.processes[AGENT], READY="1", STATUS="secret")
    stage.harness.receive(TERM)
    record = stage.records()[-1]
    assert record["STATE"] == "stopping"
    assert record["WAS_READY"] == "1"
    assert float(record["REQUESTED"]) == stage.began
    assert float(record["KILL"]) == stage.began + 20
    assert record["NEXT"] == f"TERM:{stage.began + 2:.3f},KILL:{stage.began + 20:.3f}"
    assert float(record["WATCHDOG"]) == 5.0
    assert float(record["LAST_PING"]) == stage.began
    assert "secret" not in str(record)


def test_what_only_counts_is_written_once_a_second_at_most(stage: Stage) -> None:
    stage.world.handled[AGENT] = {USR1}
    stage.begin()
    stage.records()
    stage.go_on(5.0)
    for _ in range(3):
        stage.harness.source.pending.append(USR1)
        stage.harness.supervisor._signals_waiting()
        stage.go_on(0.01)
    assert [record["FORWARDED"] for record in stage.records()] == ["USR1:1"]
    stage.go_on(1.0)
    assert [record["FORWARDED"] for record in stage.records()] == ["USR1:3"]
    stage.go_on(10.0)
    assert stage.records() == []
    assert stage.harness.supervisor.loop._timers == []


def test_an_event_that_changes_nothing_is_not_written(stage: Stage) -> None:
    stage.begin()
    stage.records()
    stage.go_on(5.0)
    stage.harness.notify(stage.world.processes[AGENT], STATUS="working")
    stage.go_on(5.0)
    assert stage.records() == []


def test_a_reaped_orphan_is_counted(stage: Stage) -> None:
    stage.begin()
    stage.records()
    stage.go_on(5.0)
    stage.world.wait_results.append((30, exited(0)))
    stage.harness.receive(CHLD)
    stage.go_on(1.0)
    assert [record["REAPED"] for record in stage.records()] == ["1"]


def test_where_the_pipe_is_full_the_newest_state_is_written_once_there_is_space(stage: Stage) -> None:
    stage.begin()
    fd = stage.server._fd
    fill(fd)
    stage.harness.notify(stage.world.processes[AGENT], READY="1")
    stage.harness.receive(TERM)
    assert fd in stage.harness.supervisor.loop._readers
    filling = os.read(stage.readers[-1], 1 << 20)
    assert b"stopping" not in filling
    stage.harness.run_loop_once()
    assert [record["STATE"] for record in stage.records()] == ["stopping"]
    assert fd not in stage.harness.supervisor.loop._readers


def test_a_closed_pipe_is_the_end_of_the_server(stage: Stage) -> None:
    stage.begin()
    os.close(stage.readers.pop())
    stage.harness.receive(TERM)
    assert stage.server._fd < 0
    stage.harness.receive(TERM)
    assert (AGENT, TERM) in stage.world.sent
    assert not stage.harness.lines("unexpected")


# --- Its failures. --------------------------------------------------------------------------------------------------


def test_a_server_that_dies_is_started_again_later_and_later(stage: Stage) -> None:
    stage.begin()
    for after in (1, 2, 4, 8, 16, 32, 60, 60):
        count = len(stage.spawned)
        stage.exits(KILL)
        stage.go_on(after - 0.1)
        assert len(stage.spawned) == count
        stage.go_on(0.2)
        assert len(stage.spawned) == count + 1
    assert len(stage.harness.lines("HTTP server was killed by SIGKILL")) == 1
    assert stage.harness.lines("trying again in 1s")
    assert [record["STATE"] for record in stage.records()] == ["starting"]
    stage.go_on(100)
    stage.exits(KILL)
    assert len(stage.harness.lines("HTTP server was killed by SIGKILL")) == 2
    stage.go_on(1.1)
    assert len(stage.spawned) == 10


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (exited(http_state.CANNOT_LISTEN + 98), "cannot listen on 127.0.0.1:8081: Address already in use"),
        (exited(http_state.NOT_INSTALLED), "does not find its packages (pip install 'agent-init[http]')"),
        (exited(1), "exited with code 1"),
    ],
)
def test_why_the_server_has_ended_is_logged(stage: Stage, status: int, text: str) -> None:
    stage.begin()
    stage.exits(status)
    assert stage.harness.lines(f"the HTTP server {text}")
    assert not stage.harness.lines("reaped")


def test_a_server_whose_user_has_changed_is_started_again_a_second_after_its_start(stage: Stage) -> None:
    stage.begin()
    stage.go_on(2.0)
    stage.exits(exited(http_state.OTHER_USER))
    stage.go_on(0.0)
    assert len(stage.spawned) == 2
    stage.exits(exited(http_state.OTHER_USER))
    stage.go_on(0.9)
    assert len(stage.spawned) == 2
    stage.go_on(0.2)
    assert len(stage.spawned) == 3
    assert not stage.harness.lines("trying again")


def test_a_server_that_works_after_failures_is_logged_once(stage: Stage) -> None:
    stage.begin()
    stage.go_on(10.0)
    assert not stage.harness.lines("works now")
    in_use = exited(http_state.CANNOT_LISTEN + 98)
    for after in (1.0, 2.0):
        stage.exits(in_use)
        stage.go_on(after)
        stage.go_on(4.9)
    assert not stage.harness.lines("works now")
    stage.go_on(0.2)
    assert stage.harness.lines(f"{LISTENS} works now")
    assert stage.harness.supervisor.loop._timers == []
    stage.go_on(100.0)
    stage.exits(in_use)  # it was said to work: this failure is a new one
    assert len(stage.harness.lines("cannot listen on")) == 2
    stage.go_on(1.0)
    stage.go_on(5.0)
    assert len(stage.harness.lines("works now")) == 2


def test_a_server_that_is_ended_is_not_said_to_work(stage: Stage) -> None:
    stage.begin()
    stage.exits(KILL)
    stage.go_on(1.0)
    stage.harness.supervisor.clean_up()
    stage.go_on(10.0)
    assert not stage.harness.lines("works now")


@pytest.mark.parametrize("error", [BlockingIOError(11, "Resource temporarily unavailable"), MemoryError()])
def test_a_server_that_cannot_be_started_is_logged_and_tried_again(stage: Stage, error: BaseException) -> None:
    stage.failures.append(error)
    stage.begin()
    text = "out of memory" if isinstance(error, MemoryError) else "Resource temporarily unavailable"
    assert stage.harness.lines(f"warning: the HTTP server cannot be started: {text}; trying again in 1s")
    stage.harness.receive(TERM)
    stage.harness.supervisor.http.note_counts()  # type: ignore[union-attr]
    assert (AGENT, TERM) in stage.world.sent
    stage.go_on(1000.0)
    assert len(stage.spawned) == 1


def test_a_server_whose_module_is_missing_does_not_keep_the_agent_from_running(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("entrypoint.init.http_server.HttpServer")
    stage.begin()
    assert stage.harness.supervisor.http is None
    assert stage.harness.lines("unexpected")
    stage.harness.receive(TERM)
    assert (AGENT, TERM) in stage.world.sent


def test_no_server_is_started_while_everything_is_killed(stage: Stage) -> None:
    stage.begin()
    stage.exits(KILL)
    stage.harness.supervisor.lifecycle.state = KILLING
    stage.go_on(2.0)
    assert len(stage.spawned) == 1


def test_a_server_that_is_killed_with_everything_is_not_logged(stage: Stage) -> None:
    stage.begin()
    stage.harness.supervisor.lifecycle.state = KILLING
    stage.exits(KILL)
    assert not stage.harness.lines("trying again")


def test_another_helpers_exit_is_not_the_servers(stage: Stage) -> None:
    stage.begin()
    stage.harness.supervisor.helper_pids.add(40)
    stage.world.wait_results.append((40, exited(0)))
    stage.harness.receive(CHLD)
    assert stage.server.pid == PID
    assert not stage.harness.lines("trying again")


def test_the_server_is_killed_last(stage: Stage) -> None:
    stage.begin()
    stage.harness.supervisor.clean_up()
    assert stage.world.sent == [(PID, KILL)]
    stage.exits(KILL)
    stage.harness.supervisor.clean_up()
    assert stage.world.sent == [(PID, KILL)]


def test_the_server_does_not_outlive_the_supervisor(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its state would be an old one, and the fallback ends when no child is left."""
    monkeypatch.setattr(Fallback, "block", lambda _: None)  # it would block all signals of this process
    stage.begin()
    stage.harness.supervisor.leave_to(Fallback(stage.harness.supervisor.settings))
    assert (PID, KILL) in stage.world.sent


# --- Alone with it. -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lists_children", [True, False])
def test_agent_init_ends_when_nothing_is_left_but_its_server(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, lists_children: bool
) -> None:
    if not lists_children:
        monkeypatch.setattr("entrypoint.init.procfs.child_pids", lambda _: [])
    stage.begin()
    stage.world.add(20, OWN_PID, "leftover")
    del stage.world.processes[AGENT]
    stage.world.wait_results.append((AGENT, exited(4)))
    stage.harness.receive(CHLD)
    execution = stage.harness.supervisor.execution
    assert execution.exit_code is None
    assert stage.harness.lines("left processes behind")
    assert (PID, TERM) not in stage.world.sent
    del stage.world.processes[20]
    stage.world.wait_results.append((20, exited(0)))
    stage.harness.receive(CHLD)
    assert execution.exit_code == 4


@pytest.mark.parametrize(
    ("error", "lost"), [(ChildProcessError(), True), (PermissionError(1, "seccomp"), False), (None, False)]
)
def test_a_lost_agent_is_noticed_beside_the_server(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, error: OSError | None, lost: bool
) -> None:
    """Its exit status was taken by somebody else; without a server, waitpid(2) reports that nobody is left."""
    stage.begin()
    monkeypatch.setattr(posix, "waitid", failing(lambda *_: None, *([error] if error else [])))
    del stage.world.processes[AGENT]
    stage.harness.receive(CHLD)
    assert (stage.harness.supervisor.execution.exit_code is not None) is lost


def test_the_only_child_that_is_asked_for_is_the_agent() -> None:
    assert helpers._is_lost(1 << 22)
    child = os.fork()
    if child == 0:
        signal.pause()
    try:
        assert not helpers._is_lost(child)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


# --- Before the agent starts. ---------------------------------------------------------------------------------------


def test_packages_beside_ours_are_found_without_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(posix, "posix_spawn")
    for name in http_state.PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    assert http_program.is_installed(str(tmp_path))


@pytest.mark.parametrize(("code", "installed"), [("0", True), ("69", False)])
def test_where_packages_are_not_beside_ours_the_server_is_asked(tmp_path: Path, code: str, installed: bool) -> None:
    program = tmp_path / "entrypoint" / "serve"
    program.mkdir(parents=True)
    (program / "__main__.py").write_text(f"import sys; assert sys.argv[1:] == ['--check']; sys.exit({code})")
    assert http_program.is_installed(str(tmp_path)) is installed


def test_a_question_that_cannot_be_asked_does_not_keep_the_agent_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posix, "posix_spawn", failing(os.posix_spawn, OSError(11, "no process")))
    assert http_program.is_installed(str(tmp_path))


def test_missing_packages_are_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_program, "is_installed", lambda _: False)
    settings = read([*HTTP, "agent"], {})
    with pytest.raises(UsageError, match=r"^--http needs more packages: pip install 'agent-init\[http\]'$"):
        start.check_http(settings, "/none")
    monkeypatch.setattr(http_program, "is_installed", lambda _: True)
    start.check_http(settings, "/none")
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(UsageError, match=r"^--http works on Linux only$"):
        start.check_http(settings, "/none")


@pytest.mark.parametrize(("address", "text"), [(("", 1), ":1"), (("0.0.0.0", 1), "0.0.0.0:1"), (("::", 1), "[::]:1")])
def test_an_address_is_logged_as_it_is_typed(address: tuple[str, int], text: str) -> None:
    assert http_state.address_of(*address) == text


def test_the_largest_record_goes_into_the_pipe_whole(stage: Stage) -> None:
    stage.begin("-t", "20s", "--watchdog", "5s")
    counters = stage.harness.supervisor.execution.counters
    for number in range(1, 65):
        counters.forwarded[number] = counters.dropped[number] = 10**9
    assert len(http_state.encode(stage.server._fields())) <= http_state.MAX_RECORD_BYTES

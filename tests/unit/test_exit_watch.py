"""The exits of processes that are not our children, seen by pidfds or by looking again and again."""

from __future__ import annotations

import errno
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from entrypoint.init import procfs
from entrypoint.init.exit_watch import LOOK_AGAIN, ExitWatch
from entrypoint.init.loop import Loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from entrypoint.init.procfs import Process

Started = subprocess.Popen[bytes]


class Watched:
    """An ExitWatch on a loop; `exits` counts the calls of `on_exit`."""

    def __init__(self) -> None:
        self.exits = 0
        self.errors: list[BaseException] = []
        self.loop = Loop(report=self.errors.append, recover=lambda: None)
        self.watch = ExitWatch(self.loop, self.on_exit)
        self.opened = len(os.listdir("/proc/self/fd"))

    def on_exit(self) -> None:
        self.exits += 1

    def run(self, seconds: float = 0.0) -> None:
        """Run the loop for so long."""
        self.loop._running = True
        end = self.loop.call_at(self.loop.time() + seconds, self.loop.stop)
        self.loop.run_forever()
        self.loop.cancel(end)
        assert self.errors == []

    @property
    def descriptors(self) -> int:
        """How many descriptors it holds."""
        return len(os.listdir("/proc/self/fd")) - self.opened


@pytest.fixture
def start() -> Iterator[Callable[[], Started]]:
    """Start a process."""
    started: list[Started] = []

    def begin() -> Started:
        started.append(subprocess.Popen(["sleep", "1000"]))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Watched]:
    """`request.param`: how many pidfds can be opened; None for all of them."""
    real, left = os.pidfd_open, getattr(request, "param", None)

    def pidfd_open(pid: int) -> int:
        nonlocal left
        if left == 0:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        left = left and left - 1
        return real(pid)

    monkeypatch.setattr(os, "pidfd_open", pidfd_open)
    made = Watched()
    yield made
    made.watch.stop()
    assert made.descriptors == 0
    assert made.loop._readers == {}


BY_PIDFD_OR_BY_LOOKING = pytest.mark.parametrize(
    "watched", [None, 1, 0], indirect=True, ids=["pidfds", "one pidfd", "no pidfds"]
)


def look(process: Started) -> Process:
    found = procfs.look(process.pid)
    assert found is not None
    return found


def kill(process: Started, *, reap: bool = False) -> None:
    """Kill it; without `reap` it stays a zombie."""
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    if reap:
        process.wait()


@pytest.mark.parametrize("reap", [False, True], ids=["zombie", "reaped"])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@BY_PIDFD_OR_BY_LOOKING
def test_the_last_exit_of_a_group_is_reported_once(
    watched: Watched, start: Callable[[], Started], order: tuple[int, int], reap: bool
) -> None:
    """Whichever process exits first."""
    processes = [start(), start()]
    watched.watch.start([look(process) for process in processes])
    watched.run(2 * LOOK_AGAIN)
    assert watched.exits == 0
    kill(processes[order[0]], reap=reap)
    watched.run(2 * LOOK_AGAIN)
    assert watched.exits == 0
    kill(processes[order[1]], reap=reap)
    watched.run(2 * LOOK_AGAIN)
    assert watched.exits == 1
    assert watched.descriptors == 0
    watched.run(2 * LOOK_AGAIN)
    assert watched.exits == 1
    assert watched.loop._timers == []


@BY_PIDFD_OR_BY_LOOKING
def test_two_exits_at_once_are_reported_once(watched: Watched, start: Callable[[], Started]) -> None:
    processes = [start(), start()]
    watched.watch.start([look(process) for process in processes])
    for process in processes:
        kill(process)
    watched.run(2 * LOOK_AGAIN)
    assert watched.exits == 1


@pytest.mark.parametrize("reap", [False, True], ids=["zombie", "reaped"])
@BY_PIDFD_OR_BY_LOOKING
def test_processes_that_exited_before_the_start_are_reported_at_once(
    watched: Watched, start: Callable[[], Started], reap: bool
) -> None:
    processes = [start(), start()]
    known = [look(process) for process in processes]
    for process in processes:
        kill(process, reap=reap)
    watched.watch.start(known)
    assert watched.exits == 1
    assert watched.descriptors == 0


@BY_PIDFD_OR_BY_LOOKING
def test_another_process_with_the_pid_does_not_count(watched: Watched, start: Callable[[], Started]) -> None:
    """Its exit is not waited for, and the one that was meant has exited."""
    reused = look(start())
    reused.start -= 1
    watched.watch.start([reused])
    assert watched.exits == 1
    assert watched.descriptors == 0


@BY_PIDFD_OR_BY_LOOKING
def test_after_a_stop_no_exit_is_reported(watched: Watched, start: Callable[[], Started]) -> None:
    process = start()
    watched.watch.start([look(process)])
    watched.watch.stop()
    assert watched.descriptors == 0
    kill(process)
    watched.run(2 * LOOK_AGAIN)
    assert watched.exits == 0
    assert watched.loop._timers == []  # it does not look any longer


@BY_PIDFD_OR_BY_LOOKING
def test_a_new_group_replaces_the_one_before(watched: Watched, start: Callable[[], Started]) -> None:
    former, new = start(), start()
    watched.watch.start([look(former)])
    watched.watch.start([look(new)])
    kill(former)
    watched.run(2 * LOOK_AGAIN)
    assert watched.exits == 0
    kill(new)
    watched.run(2 * LOOK_AGAIN)
    assert watched.exits == 1


def test_a_pidfd_shows_an_exit_without_polling(watched: Watched, start: Callable[[], Started]) -> None:
    process = start()
    watched.watch.start([look(process)])
    assert watched.loop._timers == []
    assert watched.descriptors == 1
    kill(process)
    watched.run(LOOK_AGAIN / 2)
    assert watched.exits == 1


def test_without_the_system_call_it_looks_again_and_again(
    watched: Watched, start: Callable[[], Started], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    process = start()
    watched.watch.start([look(process)])
    assert [timer.when - watched.loop.time() <= LOOK_AGAIN for timer in watched.loop._timers] == [True]
    kill(process)
    watched.run(2 * LOOK_AGAIN)
    assert watched.exits == 1


def test_a_stop_before_any_start_is_no_error(watched: Watched) -> None:
    watched.watch.stop()
    watched.run()
    assert watched.exits == 0


def test_a_new_group_can_be_watched_from_the_report(start: Callable[[], Started]) -> None:
    first, second = start(), start()
    exits: list[int] = []
    loop = Loop(report=lambda error: exits.append(-1), recover=lambda: None)

    def on_exit() -> None:
        exits.append(len(exits))
        if len(exits) == 1:
            watch.start([look(second)])
            kill(second)
        else:
            loop.stop()

    watch = ExitWatch(loop, on_exit)
    watch.start([look(first)])
    kill(first)
    loop.run_forever()
    assert exits == [0, 1]

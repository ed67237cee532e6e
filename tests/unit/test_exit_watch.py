"""The exits of processes that are not our children, seen by pidfds or by looking again and again."""

from __future__ import annotations

import errno
import os
import posix
import subprocess
from typing import TYPE_CHECKING

import pytest

from entrypoint.init import procfs
from entrypoint.init.exit_watch import LOOK_AGAIN, ExitWatch
from entrypoint.init.loop import Loop
from tests.support.world import AGENT, World, failing

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

    monkeypatch.setattr(posix, "pidfd_open", pidfd_open)
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
    monkeypatch.delattr(posix, "pidfd_open")
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


# --- Among processes that are made up: some have no pidfd, or there is no memory. ------------------------------------


class Simulated:
    """An ExitWatch of processes that are made up, on a loop whose clock stands still; `exits` as in `Watched`."""

    def __init__(self, world: World) -> None:
        self.world, self.now, self.exits = world, 1000.0, 0
        self.loop = Loop(report=self.fail, recover=lambda: None)
        self.loop.time = lambda: self.now
        self.watch = ExitWatch(self.loop, self.on_exit)
        self.write_ends: dict[int, int] = {}

    def fail(self, error: BaseException) -> None:
        raise error

    def on_exit(self) -> None:
        self.exits += 1

    def add(self, pid: int, *, pidfd: bool = True) -> Process:
        if pidfd:
            self.world.pidfds[pid], self.write_ends[pid] = os.pipe()
        return self.world.add(pid, AGENT)

    def exit(self, pid: int) -> None:
        """Have a process exit: its pidfd can be read."""
        del self.world.processes[pid]
        if pid in self.write_ends:
            os.close(self.write_ends.pop(pid))

    def run_loop(self) -> None:
        """Run what the loop has to do now, if anything."""
        later = self.loop.call_at(self.now + 0.001, lambda: None)
        try:
            self.loop._run_once()
        finally:
            self.loop.cancel(later)

    def close(self) -> None:
        for fd in (*self.world.pidfds.values(), *self.write_ends.values()):
            os.close(fd)


@pytest.fixture
def simulated(world: World) -> Iterator[Simulated]:
    """Checks that no descriptor is left open."""
    before = len(os.listdir("/proc/self/fd"))
    made = Simulated(world)
    yield made
    made.watch.stop()
    assert (made.loop._readers, made.loop._timers) == ({}, [])
    made.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_if_no_descriptor_is_left_it_looks_again_and_again(
    simulated: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posix, "pidfd_open", failing(os.pidfd_open, OSError(errno.EMFILE, os.strerror(errno.EMFILE))))
    simulated.watch.start([simulated.add(20)])
    for _ in range(3):
        assert [timer.when for timer in simulated.loop._timers] == [simulated.now + LOOK_AGAIN]
        simulated.now += LOOK_AGAIN
        simulated.run_loop()
    assert simulated.exits == 0
    simulated.exit(20)
    simulated.now += LOOK_AGAIN
    simulated.run_loop()
    assert simulated.exits == 1
    assert simulated.loop._timers == []


@pytest.mark.parametrize("first", [20, 21])
def test_a_process_without_a_pidfd_is_noticed_beside_one_with_a_pidfd(simulated: Simulated, first: int) -> None:
    simulated.watch.start([simulated.add(20), simulated.add(21, pidfd=False)])
    assert simulated.loop._timers == []
    simulated.exit(first)
    simulated.run_loop()
    simulated.now += LOOK_AGAIN
    simulated.run_loop()
    assert simulated.exits == 0
    simulated.exit(41 - first)
    simulated.run_loop()
    simulated.now += LOOK_AGAIN
    simulated.run_loop()
    assert simulated.exits == 1


@pytest.mark.parametrize("pidfd", [True, False])
def test_a_stop_cancels_the_timer(simulated: Simulated, pidfd: bool) -> None:
    """Otherwise it would look at the group after the next one, once more for each stop."""
    simulated.watch.start([simulated.add(20, pidfd=pidfd)])
    assert len(simulated.loop._timers) == (not pidfd)
    simulated.watch.stop()
    assert (simulated.loop._timers, simulated.loop._readers) == ([], {})
    simulated.exit(20)
    simulated.now += LOOK_AGAIN
    simulated.run_loop()
    assert simulated.exits == 0


def test_a_new_group_has_one_timer(simulated: Simulated) -> None:
    for pid in (20, 21, 22):
        simulated.watch.start([simulated.add(pid, pidfd=False)])
        assert len(simulated.loop._timers) == 1
    for pid in (20, 21):
        simulated.exit(pid)
    simulated.now += LOOK_AGAIN
    simulated.run_loop()
    assert simulated.exits == 0
    simulated.exit(22)
    simulated.now += LOOK_AGAIN
    simulated.run_loop()
    assert (simulated.exits, simulated.loop._timers) == (1, [])


def test_a_stop_after_the_timer_has_gone_off_cancels_no_other_timer(simulated: Simulated) -> None:
    simulated.watch.start([simulated.add(20, pidfd=False)])
    simulated.exit(20)
    simulated.now += LOOK_AGAIN
    other = simulated.loop.call_at(simulated.now + 100, lambda: None)
    simulated.run_loop()
    assert simulated.exits == 1
    simulated.watch.stop()
    assert simulated.loop._timers == [other]
    simulated.loop.cancel(other)


@pytest.mark.parametrize("pidfd", [True, False])
def test_an_exit_that_cannot_be_handled_for_want_of_memory_is_reported_again(simulated: Simulated, pidfd: bool) -> None:
    simulated.watch._on_exit = failing(simulated.on_exit, MemoryError())
    simulated.watch.start([simulated.add(20, pidfd=pidfd)])
    simulated.exit(20)
    simulated.now += LOOK_AGAIN
    with pytest.raises(MemoryError):
        simulated.run_loop()
    simulated.now += LOOK_AGAIN
    simulated.run_loop()
    assert simulated.exits == 1


@pytest.mark.parametrize("pidfd", [True, False])
@pytest.mark.parametrize("failures", [1, 3])
def test_a_look_that_fails_for_want_of_memory_comes_again(
    simulated: Simulated, monkeypatch: pytest.MonkeyPatch, pidfd: bool, failures: int
) -> None:
    """A timer has gone off by then, and starts no look any more."""
    simulated.watch.start([simulated.add(20, pidfd=pidfd)])
    simulated.exit(20)
    monkeypatch.setattr(procfs, "is_there", failing(procfs.is_there, *[MemoryError()] * failures))
    for _ in range(failures):
        simulated.now += LOOK_AGAIN
        with pytest.raises(MemoryError):
            simulated.run_loop()
        assert simulated.exits == 0
    simulated.now += LOOK_AGAIN
    simulated.run_loop()
    assert simulated.exits == 1
    simulated.now += 10 * LOOK_AGAIN
    simulated.run_loop()
    assert simulated.exits == 1


def test_the_first_look_that_fails_for_want_of_memory_comes_again(
    simulated: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(procfs, "is_there", failing(procfs.is_there, MemoryError()))
    with pytest.raises(MemoryError):
        simulated.watch.start([simulated.add(20, pidfd=False)])
    simulated.exit(20)
    simulated.now += LOOK_AGAIN
    simulated.run_loop()
    assert simulated.exits == 1


def test_looks_that_fail_one_after_the_other_leave_no_timer_behind(
    simulated: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a stop it would find that nothing is left of a group that is not there any more."""
    simulated.watch.start([simulated.add(20)])
    simulated.exit(20)
    monkeypatch.setattr(procfs, "is_there", failing(procfs.is_there, *[MemoryError()] * 3))
    for _ in range(3):
        with pytest.raises(MemoryError):
            simulated.run_loop()
    simulated.watch.stop()
    simulated.now += LOOK_AGAIN
    for _ in range(4):
        simulated.run_loop()
    assert simulated.exits == 0

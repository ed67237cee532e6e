"""Exits of processes that are not our children, where some have no pidfd, or there is no memory."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from entrypoint.init.exit_watch import LOOK_AGAIN, ExitWatch
from entrypoint.init.loop import Loop
from tests.support.world import AGENT, World, failing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from entrypoint.init.procfs import Process


class Watch:
    """An exit watch on a loop whose clock stands still; `exits` is how often it has called back."""

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
def watch(world: World) -> Iterator[Watch]:
    """It must not leave a descriptor open."""
    before = len(os.listdir("/proc/self/fd"))
    made = Watch(world)
    yield made
    made.watch.stop()
    assert made.loop._readers == {}
    made.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_if_no_descriptor_is_left_it_looks_again_and_again(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pidfd_open", _fails)
    watch.watch.start([watch.add(20)])
    for _ in range(3):
        assert [timer.when for timer in watch.loop._timers] == [watch.now + LOOK_AGAIN]
        watch.now += LOOK_AGAIN
        watch.run_loop()
    assert watch.exits == 0
    watch.exit(20)
    watch.now += LOOK_AGAIN
    watch.run_loop()
    assert watch.exits == 1
    assert watch.loop._timers == []


def _fails(_: int) -> int:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.mark.parametrize("first", [20, 21])
def test_a_process_without_a_pidfd_is_noticed_beside_one_with_a_pidfd(watch: Watch, first: int) -> None:
    watch.watch.start([watch.add(20), watch.add(21, pidfd=False)])
    assert watch.loop._timers == []
    watch.exit(first)
    watch.run_loop()
    watch.now += LOOK_AGAIN
    watch.run_loop()
    assert watch.exits == 0
    watch.exit(41 - first)
    watch.run_loop()
    watch.now += LOOK_AGAIN
    watch.run_loop()
    assert watch.exits == 1


def test_after_a_stop_nothing_is_reported(watch: Watch) -> None:
    """Also not by a timer that still runs."""
    for pid, pidfd in ((20, True), (21, False)):
        watch.watch.start([watch.add(pid, pidfd=pidfd)])
        watch.watch.stop()
        watch.exit(pid)
        watch.now += LOOK_AGAIN
        watch.run_loop()
    assert watch.exits == 0


@pytest.mark.parametrize("pidfd", [True, False])
def test_an_exit_that_cannot_be_handled_for_want_of_memory_is_reported_again(watch: Watch, pidfd: bool) -> None:
    watch.watch._on_exit = failing(watch.on_exit, MemoryError())
    watch.watch.start([watch.add(20, pidfd=pidfd)])
    watch.exit(20)
    watch.now += LOOK_AGAIN
    with pytest.raises(MemoryError):
        watch.run_loop()
    watch.now += LOOK_AGAIN
    watch.run_loop()
    assert watch.exits == 1

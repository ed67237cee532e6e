"""Orphans: every one is reaped, as process 1 and as a subreaper, and told if wanted."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from tests.conftest import Start
    from tests.support.init import Init

MAKE_ORPHANS = """
for _ in range({count}):
    if (pid := os.fork()) == 0:
        if os.fork() == 0:
            time.sleep({life})
            os._exit({code})
        os._exit(0)
    os.waitpid(pid, 0)
on('TERM', lambda: leave(0))
ready()
"""


def zombies(init: Init) -> list[psutil.Process]:
    children = psutil.Process(init.pid).children()
    return [child for child in children if child.is_running() and child.status() == psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("count", [1, 300])
def test_every_orphan_is_reaped(started: Start, count: int) -> None:
    init = started("-t", "20s", agent=MAKE_ORPHANS.format(count=count, life=0, code=3))
    init.event("ready")
    init.wait_for(lambda: len(psutil.Process(init.pid).children()) == 1, "the orphans to be gone")
    assert not zombies(init)
    init.signal("TERM")
    assert init.wait() == 0


def test_orphans_that_all_end_at_once_are_reaped(started: Start) -> None:
    """SIGCHLDs coalesce; more end than are taken in at one go."""
    init = started("-t", "20s", agent=MAKE_ORPHANS.format(count=700, life=100, code=0))
    init.event("ready")
    one = psutil.Process(init.pid)
    assert len(one.children()) == 701
    (agent,) = (child for child in one.children() if os.getpgid(child.pid) == child.pid)  # pids wrap, groups tell
    for orphan in one.children():
        if orphan != agent:
            orphan.kill()
    init.wait_for(lambda: one.children() == [agent], "the orphans to be gone")
    init.signal("TERM")
    assert init.wait() == 0


def test_reaped_orphans_can_be_told(started: Start) -> None:
    init = started("-w", "-t", "20s", agent=MAKE_ORPHANS.format(count=2, life=0.2, code=9))
    init.event("ready")
    init.wait_for(lambda: len(init.lines("reaped orphan python")) == 2, "two lines")
    assert all("exited with code 9" in line for line in init.lines("reaped orphan"))
    init.signal("TERM")
    assert init.wait() == 0


def test_without_a_subreaper_orphans_go_elsewhere(start: Start) -> None:
    agent = "orphan('daemon', 'ready()'); on('TERM', lambda: leave(0)); ready()"
    init = start("--no-subreaper", agent=agent, process1=False, may_leave=True)
    daemon = psutil.Process(init.event("ready", "daemon")["pid"])
    try:
        init.event("ready")
        assert daemon.ppid() != init.pid
        init.signal("TERM")
        assert init.wait() == 0
        assert daemon.is_running()
    finally:
        daemon.kill()


def test_an_orphan_that_was_stopped_and_ignores_everything_is_reaped_at_the_end(started: Start) -> None:
    daemon = "ignore('TERM'); log('ready'); os.kill(os.getpid(), 19)"
    agent = f"orphan('daemon', {daemon!r}); on('USR1', lambda: leave(6)); ready()"
    init = started("--linger", "300ms", agent=agent)
    init.event("ready", "daemon")
    init.event("ready")
    init.signal("USR1")
    assert init.wait() == 6

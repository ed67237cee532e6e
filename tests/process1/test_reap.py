"""Every orphan is reaped, as process 1 and as a subreaper, and is logged with --warn-reaped."""

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
def test_every_orphan_is_reaped(start_in_role: Start, count: int) -> None:
    init = start_in_role("-t", "20s", agent=MAKE_ORPHANS.format(count=count, life=0, code=3))
    init.wait_for_event("ready")
    init.wait_for(lambda: len(psutil.Process(init.pid).children()) == 1, "the orphans to be gone")
    assert not zombies(init)
    init.signal("TERM")
    assert init.wait() == 0


def test_orphans_that_exit_together_are_all_reaped(start_in_role: Start) -> None:
    """SIGCHLDs coalesce, and more orphans exit than are reaped in one turn of the loop."""
    init = start_in_role("-t", "20s", agent=MAKE_ORPHANS.format(count=700, life=100, code=0))
    init.wait_for_event("ready")
    one = psutil.Process(init.pid)
    assert len(one.children()) == 701
    (agent,) = (child for child in one.children() if os.getpgid(child.pid) == child.pid)  # it leads its own group
    for orphan in one.children():
        if orphan != agent:
            orphan.kill()
    init.wait_for(lambda: one.children() == [agent], "the orphans to be gone")
    init.signal("TERM")
    assert init.wait() == 0


def test_reaped_orphans_are_logged_with_warn_reaped(start_in_role: Start) -> None:
    """Each by its name, also of many that exit at once."""
    init = start_in_role("-w", "-t", "20s", agent=MAKE_ORPHANS.format(count=200, life=0.2, code=9))
    init.wait_for_event("ready")
    init.wait_for(lambda: len(init.lines("reaped orphan")) == 200, "all lines")
    assert len(init.lines("reaped orphan python")) == 200
    assert all("exited with code 9" in line for line in init.lines("reaped orphan"))
    init.signal("TERM")
    assert init.wait() == 0


def test_orphans_are_not_adopted_with_no_subreaper(start: Start) -> None:
    agent = "orphan('daemon', 'ready()'); on('TERM', lambda: leave(0)); ready()"
    init = start("--no-subreaper", agent=agent, process1=False, allow_leftovers=True)
    daemon = psutil.Process(init.wait_for_event("ready", "daemon")["pid"])
    try:
        init.wait_for_event("ready")
        assert daemon.ppid() != init.pid
        init.signal("TERM")
        assert init.wait() == 0
        assert daemon.is_running()
    finally:
        daemon.kill()


def test_stopped_orphan_is_killed_and_reaped_at_the_end(start_in_role: Start) -> None:
    daemon = "ignore('TERM'); log('ready'); os.kill(os.getpid(), 19)"
    agent = f"orphan('daemon', {daemon!r}); on('USR1', lambda: leave(6)); ready()"
    init = start_in_role("--linger", "300ms", agent=agent)
    init.wait_for_event("ready", "daemon")
    init.wait_for_event("ready")
    init.signal("USR1")
    assert init.wait() == 6

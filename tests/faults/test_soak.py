"""A long life among random children, orphans, signals and stops: at its end process 1 is as it was at its beginning."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.faults.stop_scenarios import SCENARIOS, Run
from tests.support.init import AGENT_INIT, until
from tests.support.proc import descriptors

if TYPE_CHECKING:
    from tests.conftest import Start

SECONDS = float(os.environ.get("AGENT_INIT_SOAK_SECONDS", "120"))
GROWTH = 300  # KiB, from the first fifth of the time to its end

# Until USR1 comes: children and orphans of all kinds, and signals from inside.
CHAOS = """
import random
randomly = random.Random()
ended = []
on('USR1', lambda: ended.append(1))
on('TERM', lambda: leave(7, after=0.3))
signal.signal(signal.SIGHUP, lambda *_: None)
signal.signal(signal.SIGWINCH, lambda *_: None)
signal.alarm(0)
SECONDS = {seconds}
log('ready')

def child():
    signal.alarm(5)
    what = randomly.randrange(6)
    if what == 0:
        os.setsid()
    if what == 1:
        try:
            os.kill(os.getppid(), signal.SIGHUP)
        except ProcessLookupError:
            pass
    if what == 2:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if what == 3:
        for _ in range(5):
            if os.fork() == 0:
                break
    if what == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(randomly.random() / 20)
    os._exit(randomly.randrange(256))

end = time.monotonic() + SECONDS + 60
while not ended and time.monotonic() < end:
    if os.fork() == 0:
        if randomly.random() < 0.7 and os.fork():
            os._exit(0)
        child()
    time.sleep(0.005)
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
time.sleep(6)
log('quiet')
forever()
"""
SENT = ["HUP", "WINCH", "CHLD", "RTMIN+3", "USR2", "CONT", "ALRM"]


class Held:
    """What process 1 holds."""

    def __init__(self, pid: int) -> None:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        self.memory = sum(int(line.split()[1]) for line in lines if line.startswith("Private"))  # KiB
        looks = [descriptors(pid) for _ in range(10)]  # what it reads from /proc is open for a moment
        self.descriptors = Counter(path for _, path in set.intersection(*(set(look.items()) for look in looks)))

    def __str__(self) -> str:
        return f"{self.memory} KiB, {self.descriptors.total()} descriptors"


def zombies(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children() if child.status() == psutil.STATUS_ZOMBIE]


@pytest.mark.timeout(SECONDS + 180)
def test_a_long_life(started: Start, tmp_path: Path) -> None:
    randomly = random.Random()
    init = started("-qq", "-t", "30s", agent=CHAOS.format(seconds=SECONDS))
    init.event("ready")
    began = time.monotonic()
    early: Held | None = None
    signals = lives = 0
    while (passed := time.monotonic() - began) < SECONDS:
        for _ in range(randomly.randrange(200)):
            init.signal(randomly.choice(SENT))
            signals += 1
        time.sleep(randomly.random() / 10)
        if early is None and passed > SECONDS / 5:
            early = Held(init.pid)
        if randomly.random() < 0.2:  # meanwhile others live and die
            lives += 1
            scenario = SCENARIOS[randomly.choice(sorted(SCENARIOS))]
            run = Run(tmp_path / str(lives), scenario, process1=randomly.random() < 0.5, program=[str(AGENT_INIT)])
            try:
                run.begin()
                run.pass_on()
                run.arrived()
                run.check(*run.stop())
            finally:
                run.init.close()
    init.signal("USR1")
    init.event("quiet")
    until(lambda: not zombies(init.pid), "the zombies to be gone")
    until(lambda: len(psutil.Process(init.pid).children()) == 1, "the orphans to be gone")
    late = Held(init.pid)
    assert early is not None
    print(f"{signals} signals and {lives} other lives in {SECONDS:g}s; process 1 held {early}, and in the end {late}")
    assert late.descriptors <= early.descriptors
    assert late.memory <= early.memory + GROWTH
    init.signal("TERM")
    assert init.wait() == 7
    assert init.events()[-1] == "end"

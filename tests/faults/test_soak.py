"""A long run with random children, orphans, signals and stops. Process 1 holds as much at its end as at its start."""

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
GROWTH = 300  # KiB, from the first fifth of the time to the end

# Until USR1 arrives: children and orphans of all kinds, and signals from the process tree.
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


class Resources:
    """The memory and the descriptors of process 1."""

    def __init__(self, pid: int) -> None:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        self.memory = sum(int(line.split()[1]) for line in lines if line.startswith("Private"))  # KiB
        samples = [descriptors(pid) for _ in range(10)]  # files of /proc are open only for a moment
        self.descriptors = Counter(path for _, path in set.intersection(*(set(sample.items()) for sample in samples)))

    def __str__(self) -> str:
        return f"{self.memory} KiB, {self.descriptors.total()} descriptors"


def zombies(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children() if child.status() == psutil.STATUS_ZOMBIE]


@pytest.mark.timeout(SECONDS + 180)
def test_process_1_does_not_grow_over_a_long_run(start_in_role: Start, tmp_path: Path) -> None:
    randomly = random.Random()
    init = start_in_role("-qq", "-t", "30s", agent=CHAOS.format(seconds=SECONDS))
    init.wait_for_event("ready")
    began = time.monotonic()
    early: Resources | None = None
    signals = runs = 0
    while (passed := time.monotonic() - began) < SECONDS:
        for _ in range(randomly.randrange(200)):
            init.signal(randomly.choice(SENT))
            signals += 1
        time.sleep(randomly.random() / 10)
        if early is None and passed > SECONDS / 5:
            early = Resources(init.pid)
        if randomly.random() < 0.2:  # now and then another agent-init runs beside it
            runs += 1
            scenario = SCENARIOS[randomly.choice(sorted(SCENARIOS))]
            run = Run(tmp_path / str(runs), scenario, process1=randomly.random() < 0.5, program=[str(AGENT_INIT)])
            try:
                run.wait_until_ready()
                run.send_signals()
                run.wait_for_usr1()
                run.check(*run.stop())
            finally:
                run.init.close()
    init.signal("USR1")
    init.wait_for_event("quiet")
    until(lambda: not zombies(init.pid), "the zombies to be gone")
    until(lambda: len(psutil.Process(init.pid).children()) == 1, "the orphans to be gone")
    late = Resources(init.pid)
    assert early is not None
    print(f"{signals} signals and {runs} other runs in {SECONDS:g}s; process 1 held {early}, and in the end {late}")
    assert late.descriptors <= early.descriptors
    assert late.memory <= early.memory + GROWTH
    init.signal("TERM")
    assert init.wait() == 7
    assert init.events()[-1] == "end"

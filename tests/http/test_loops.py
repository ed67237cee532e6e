"""How late the event loops of a real agent turn, in the metrics."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse

from entrypoint.agent.loop_watch import BUCKETS
from entrypoint.report.answers import Answer, Lags, Loop, NoAnswer
from entrypoint.serve.loops import ASK_SECONDS, Loops
from tests.http.serving import PATIENCE, Served
from tests.support.init import until

if TYPE_CHECKING:
    from prometheus_client import Metric

    from tests.conftest import Start

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
LAG = "agent_init_event_loop_lag_seconds"
NAMES = f"{LAG}_count", "agent_init_event_loop_blocks_total"
LIMIT = 0.1
# An agent on asyncio: USR1 blocks its loop for a second, USR2 has a worker blocked and waits for its end, HUP hangs
# without a way out: a native call keeps the GIL.
IMPORTS = "import asyncio, ctypes, os, signal, time\n"
AGENT = """
async def worker():
    time.sleep(0.5)
    await asyncio.sleep(0.5)

def fork():
    pid = os.fork()
    if pid == 0:
        asyncio.set_event_loop(None)
        asyncio._set_running_loop(None)
        asyncio.run(worker())
        os._exit(0)

def hang():
    print("hangs", flush=True)
    ctypes.PyDLL(None).sleep(1000)

async def main():
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, time.sleep, 1)
    loop.add_signal_handler(signal.SIGUSR2, fork)
    loop.add_signal_handler(signal.SIGHUP, hang)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    await stop.wait()

asyncio.run(main())
"""


class Watched(Served):
    """A run with --http and --loop-watch."""

    def __init__(self, start: Start, directory: Path, *options: str, agent: str = AGENT) -> None:
        script = directory / "agent.py"
        script.write_text(IMPORTS + agent)
        super().__init__(start, "--loop-watch", f"{LIMIT}s", *options, command=["--", sys.executable, str(script)])

    def families(self) -> dict[str, Metric]:
        status, text = self.ask("/metrics", Accept=OPENMETRICS)
        assert status == 200
        return {family.name: family for family in parse(text)}  # type: ignore[no-untyped-call]

    def value(self, sample: str, **labels: str) -> float | None:
        """The value of a sample; None if there is none."""
        for family in self.families().values():
            for one in family.samples:
                if one.name == sample and one.labels == labels:
                    return float(one.value)
        return None

    def wait_for(self, sample: str, least: float, **labels: str) -> float:
        found: float = until(
            lambda: (value := self.value(sample, **labels)) is not None and value >= least and (value or True),
            f"{sample} of {least} in\n{self.ask('/metrics')[1]}\n{self.init.stderr}",
        )
        return found

    def agent(self) -> int:
        (pid,) = (
            child.pid for child in psutil.Process(self.init.pid).children() if "agent.py" in str(child.cmdline()[1:2])
        )
        return pid

    def end(self) -> None:
        self.init.signal("TERM")
        assert self.init.wait() == 0


def test_a_histogram_shows_how_late_loops_turn(start_in_role: Start, tmp_path: Path) -> None:
    served = Watched(start_in_role, tmp_path)
    served.wait_until("/livez", 200)
    served.wait_for(f"{LAG}_count", 1)
    family = served.families()[LAG]
    assert family.type == "histogram"
    bounds = [sample.labels["le"] for sample in family.samples if sample.name == f"{LAG}_bucket"]
    assert bounds == [*map(repr, BUCKETS), "+Inf"]
    assert served.value("agent_init_silent_processes") == 0
    blocked = served.value("agent_init_event_loop_blocks_total")
    assert blocked is not None
    served.init.signal("USR1")
    served.wait_for("agent_init_event_loop_blocked_seconds", 0.001)
    served.wait_for("agent_init_event_loop_blocks_total", blocked + 1)
    # Both of one scrape: the machine may make the loop late at any time.
    samples = {(s.name, s.labels.get("le")): s.value for s in served.families()[LAG].samples}
    assert samples[f"{LAG}_sum", None] >= 0.5
    assert samples[f"{LAG}_bucket", "+Inf"] > samples[f"{LAG}_bucket", "0.5"]
    assert samples[f"{LAG}_bucket", "+Inf"] == samples[f"{LAG}_count", None]
    until(lambda: served.value("agent_init_event_loop_blocked_seconds") == 0, "the loop to turn")
    served.end()


def test_process_1_sleeps_while_loops_are_asked(start: Start, tmp_path: Path) -> None:
    served = Watched(start, tmp_path)
    served.wait_until("/livez", 200)
    served.wait_for(f"{LAG}_count", 1)

    def is_left_alone() -> bool:
        """A loop that is late on a busy machine is logged, and so wakes process 1."""
        before, counted, blocks = served.wakings_of_process_1(), *(served.value(name) for name in NAMES)
        until(lambda: served.value(NAMES[0]) != counted, "newer counts")
        return served.value(NAMES[1]) == blocks and served.wakings_of_process_1() == before

    until(is_left_alone, "process 1 to be left alone")
    served.end()


def test_no_count_falls_when_a_worker_exits(start: Start, tmp_path: Path) -> None:
    served = Watched(start, tmp_path)
    served.wait_until("/livez", 200)
    before = served.wait_for(f"{LAG}_count", 1)
    served.init.signal("USR2")
    blocked = 0.0
    end = time.monotonic() + 4  # the worker lives for one
    while time.monotonic() < end:
        count, now = served.value(f"{LAG}_count"), served.value("agent_init_event_loop_blocks_total")
        assert count is not None
        assert now is not None
        assert count >= before
        assert now >= blocked
        before, blocked = count, now
    served.end()


@pytest.mark.parametrize("how", ["stopped", "hung"])
def test_a_hung_agent_is_silent_and_holds_up_no_probe(start: Start, tmp_path: Path, how: str) -> None:
    """It is asked for a second at most, and meanwhile the server answers others at once."""
    served = Watched(start, tmp_path, "-t", "60s")
    served.wait_until("/livez", 200)
    counted = served.wait_for(f"{LAG}_count", 1)
    if how == "stopped":
        os.kill(served.agent(), signal.SIGSTOP)
    else:
        served.init.signal("HUP")
    began = time.monotonic()
    served.wait_for("agent_init_silent_processes", 1)
    assert time.monotonic() - began < PATIENCE
    assert (served.value(f"{LAG}_count") or 0) >= counted
    for _ in range(10):
        assert served.ask("/livez")[0] == 200
    os.kill(served.agent(), signal.SIGKILL)
    assert served.init.wait() == 137


def test_an_agent_of_another_user_answers_too(start: Start, tmp_path: Path) -> None:
    """The server becomes that user, and needs no capability."""
    if os.getuid() != 0:
        pytest.skip("changing the user takes root")
    served = Watched(start, tmp_path, agent="os.setgroups([]); os.setgid(65534); os.setuid(65534)" + AGENT)
    until(lambda: (server := served.server()) and server.uids().effective == 65534, "the server of that user")
    served.wait_until("/livez", 200)
    served.wait_for(f"{LAG}_count", 1)
    served.end()


def test_without_loops_that_are_watched_there_is_no_histogram(start: Start) -> None:
    served = Served(start, agent="on('TERM', lambda: leave(0)); ready()")
    served.wait_until("/livez", 200)
    assert "event_loop" not in served.ask("/metrics")[1]
    served.init.signal("TERM")
    assert served.init.wait() == 0


# --- What processes may send. -----------------------------------------------------------------------------------------


def answer(*counts: int, bounds: tuple[float, ...] = (0.1, 1.0), total: float = 1.0, blocked: float = 0.0) -> Answer:
    return Answer(lags=Lags(0.1, bounds, counts, total, 1), loops=[Loop("MainThread", blocked, "")])


def noted(*rounds: dict[int, tuple[int, Answer | NoAnswer]]) -> Loops:
    """Loops that got these answers one after the other: by pid, start time and answer."""
    loops = Loops(None, None, None)  # type: ignore[arg-type]
    for found in rounds:
        loops.note({pid: one for pid, (_, one) in found.items()}, {pid: start for pid, (start, _) in found.items()})
    return loops


def counts(loops: Loops) -> tuple[int, ...] | None:
    return None if loops.lags is None else loops.lags.counts


def test_sums_of_processes_that_come_and_go() -> None:
    one, two = answer(1, 0, 0), answer(2, 1, 0)
    assert counts(noted({1: (7, one)}, {1: (7, two)})) == (2, 1, 0)
    assert counts(noted({1: (7, one), 2: (7, two)})) == (3, 1, 0)
    assert counts(noted({1: (7, two)}, {})) == (2, 1, 0)
    assert counts(noted({1: (7, two)}, {1: (8, one)})) == (3, 1, 0)  # another process with this pid
    assert counts(noted({1: (7, two)}, {1: (7, one)})) == (3, 1, 0)  # it has executed another program
    assert counts(noted({1: (7, two)}, {1: (7, NoAnswer(1.0, 0.0))})) == (2, 1, 0)
    assert noted({1: (7, two)}, {1: (7, NoAnswer(1.0, 0.0))}).silent == 1


def test_the_loop_that_is_blocked_the_longest() -> None:
    assert noted({1: (7, answer(1, 0, 0, blocked=3.0)), 2: (7, answer(1, 0, 0, blocked=2.0))}).blocked_seconds == 3.0


@pytest.mark.parametrize(
    "wrong",
    [
        answer(1, 0),
        answer(1, bounds=()),
        answer(1, -1, 0),
        answer(1, 10**400, 0),
        answer(1, 0, 0, total=float("nan")),
        answer(1, 0, 0, total=float("inf")),
        answer(1, 0, 0, bounds=(1.0, 1.0)),
        answer(1, 0, 0, bounds=(float("nan"), 1.0)),
        answer(1, 0, 0, bounds=(0.1, float("inf"))),
        answer(*[0] * 1001, bounds=tuple(map(float, range(1, 1001)))),
    ],
)
def test_what_is_no_histogram_is_left_out(wrong: Answer) -> None:
    assert counts(noted({1: (7, wrong)})) is None
    assert counts(noted({1: (7, answer(1, 0, 0))}, {1: (7, answer(2, 0, 0)), 2: (7, wrong)})) == (2, 0, 0)


def test_other_classes_than_the_first_are_left_out() -> None:
    assert counts(noted({1: (7, answer(1, 0, 0)), 2: (7, answer(1, 0, bounds=(0.5,)))})) == (1, 0, 0)


def test_a_scrape_is_asked_to_wait_for_less_than_its_connection_may_last() -> None:
    from entrypoint.serve.connection import MAX_SECONDS

    assert ASK_SECONDS < MAX_SECONDS / 2


class Asked:
    """Loops in a loop of their own; `times`: how often processes were asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times = 0
        self.tree: Any = SimpleNamespace(processes=1, started={1: 7})
        self.found: dict[int, Answer | NoAnswer] = {1: answer(1, 0, 0)}
        monkeypatch.setattr(Loops, "_ask", lambda *_: self.answers())
        source: Any = SimpleNamespace(state=SimpleNamespace(responders="x"))
        tree: Any = SimpleNamespace(look=lambda: self.tree)
        self.loops = Loops(source, tree, asyncio.get_running_loop())

    def answers(self) -> dict[int, Answer | NoAnswer]:
        self.times += 1
        return self.found

    async def scrape(self) -> None:
        """Wait for figures, which are never fresh enough."""
        self.loops._next = 0.0
        done = asyncio.Event()
        self.loops.ask(done.set)
        await asyncio.wait_for(done.wait(), 10)


def test_a_scrape_that_fails_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        asked = Asked(monkeypatch)
        asked.loops.ask(fail)
        await asked.scrape()
        assert asked.times == 1

    asyncio.run(main())


def test_a_process_is_not_counted_twice_after_a_look_at_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """/proc cannot be read for a moment, as where the server has no descriptor left."""

    async def main() -> None:
        asked = Asked(monkeypatch)
        await asked.scrape()
        there, asked.tree = asked.tree, SimpleNamespace(processes=None, started={})
        await asked.scrape()
        asked.tree = there
        await asked.scrape()
        assert counts(asked.loops) == (1, 0, 0)

    asyncio.run(main())


def test_what_no_thread_could_ask_is_not_asked_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the scrapes of an hour at the pids limit would all be made up for after it."""

    async def main() -> None:
        asked = Asked(monkeypatch)
        with monkeypatch.context() as limited:

            def refuse(_: threading.Thread) -> None:
                raise RuntimeError("can't start new thread")

            limited.setattr(threading.Thread, "start", refuse)
            for _ in range(5):
                await asked.scrape()
        await asked.scrape()
        assert asked.times == 1

    asyncio.run(main())

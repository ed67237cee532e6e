"""From some moment on agent-init gets no memory any more, for ever. Stops end by their deadline all the same."""

from __future__ import annotations

import resource
import shlex
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults.stop_scenarios import python
from tests.support.init import Init, actor, until
from tests.support.proc import signals_in_mask

if TYPE_CHECKING:
    from tests.conftest import Start

GRACE = 1.0  # seconds
TOLERANCE = 3.0  # seconds, on a busy machine
STUBBORN = "ignore('HUP'); on('USR1'); on('TERM'); ready()"
GRACEFUL = "ignore('HUP'); on('USR1'); on('TERM', lambda: leave(7)); ready()"
FAMILY = f"child('leftover', {STUBBORN!r}); on('TERM', lambda: leave(7)); ready()"
MOMENTS = ["spawn", "ready", "stop"]


def start_without_memory(start_in_role: Start, moment: str, agent: str) -> Init:
    init = start_in_role("-t", f"{GRACE}s", agent=agent, program=python("no_memory.py", moment, "0"))
    init.wait_for_event("ready")
    return init


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_stubborn_agent_is_killed_at_the_deadline(start_in_role: Start, moment: str) -> None:
    init = start_without_memory(start_in_role, moment, STUBBORN)
    for name in ("HUP", "USR1", "HUP"):
        init.signal(name)
    requested_at = time.monotonic()
    init.signal("TERM")
    assert init.wait() == 137
    assert GRACE <= time.monotonic() - requested_at < GRACE + TOLERANCE
    assert init.events()[0] == "ready"
    assert init.events().count("TERM") == 1
    assert 0 < len(init.stderr.splitlines()) < 12  # not a line for each attempt


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_graceful_agent_ends_with_its_own_exit_code(start_in_role: Start, moment: str) -> None:
    init = start_without_memory(start_in_role, moment, GRACEFUL)
    init.signal("TERM")
    assert init.wait(10) == 7
    assert init.events() == ["ready", "TERM", "end"]


@pytest.mark.parametrize("moment", ["spawn", "ready"])
def test_an_agent_that_exits_by_itself_ends_with_its_own_exit_code(start_in_role: Start, moment: str) -> None:
    init = start_without_memory(start_in_role, moment, "log('ready'); time.sleep(0.3); leave(9)")
    assert init.wait(10) == 9


@pytest.mark.parametrize("moment", ["spawn", "ready"])
def test_leftover_processes_do_not_hold_up_the_end(start_in_role: Start, moment: str) -> None:
    program = python("no_memory.py", moment, "0")
    init = start_in_role("-t", f"{GRACE}s", "--linger", "1s", agent=FAMILY, program=program)
    init.wait_for_event("ready")
    init.wait_for_event("ready", "leftover")
    init.signal("TERM")
    assert init.wait(10) == 7


def stop_with_a_rest(directory: Path, kib: int, *, process1: bool) -> str:
    """Stop an agent that leaves a process behind, with so much memory; return what went wrong."""
    made = directory / str(kib)
    made.mkdir(mode=0o777)
    argv = ["-t", "20s", "--linger", "100ms", "--", *actor(made / "events.jsonl", "agent", FAMILY)]
    init = Init(made, argv, process1=process1, program=python("no_memory.py", "ready", str(kib)))
    try:
        init.wait_for_event("ready")
        init.wait_for_event("ready", "leftover")
        init.signal("TERM")
        code, agent, leftover = init.wait(20), init.events(), init.events("leftover")
        right = code == 7 and agent == ["ready", "TERM", "end"] and leftover in (["ready", "TERM"], ["ready"])
        return "" if right else f"{kib} KiB: {code}, {agent}, {leftover}\n{init.stderr}"
    finally:
        init.close()


@pytest.mark.parametrize("process1", [True, False], ids=["process 1", "subreaper"])
def test_a_stop_succeeds_with_any_rest_of_memory(tmp_path: Path, process1: bool) -> None:
    """The end of an agent with leftovers needs modules that are loaded then, and some of them fit in."""
    tmp_path.chmod(0o777)
    with ThreadPoolExecutor(8) as threads:
        wrong = list(threads.map(partial(stop_with_a_rest, tmp_path, process1=process1), range(0, 301, 5)))
    assert not "\n".join(filter(None, wrong))


# --- At rest: what a stop needs more is made from a reserve. ---------------------------------------------------------


def at_rest(init: Init) -> None:
    """Let nothing be mapped any more, once process 1 has nothing to do."""
    init.wait_for_event("ready")
    init.wait_for_line("started")
    until(lambda: "poll" in Path(f"/proc/{init.pid}/wchan").read_text(), "process 1 to come to rest")
    resource.prlimit(init.pid, resource.RLIMIT_AS, (1, resource.RLIM_INFINITY))


@pytest.mark.parametrize("shell", ["{}; exit $?", "trap : TERM; {}; exit $?"], ids=["shell", "shell with a trap"])
def test_the_agent_behind_a_shell_gets_the_stop_signal(start_in_role: Start, tmp_path: Path, shell: str) -> None:
    agent = shlex.join(actor(tmp_path / "events.jsonl", "agent", GRACEFUL))
    init = start_in_role("-t", "20s", command=["bash", "-c", shell.format(agent)])
    at_rest(init)
    init.signal("TERM")
    assert init.wait() == 7
    assert init.events() == ["ready", "TERM", "end"]
    assert init.lines("stop requested by TERM")
    assert init.lines("ended: ")


def test_a_stop_is_logged_and_explained_to_the_platform(start_in_role: Start, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch(0o666)
    log.chmod(0o666)
    init = start_in_role("-t", f"{GRACE}s", "--termination-log", str(log), agent=STUBBORN)
    at_rest(init)
    init.signal("TERM")
    assert init.wait() == 137
    wanted = ["stop requested by TERM", "after the stop request, SIGKILL; still running", "ended: "]
    assert [len(init.lines(text)) for text in wanted] == [1, 1, 1]
    explained = log.read_text()
    assert explained.startswith("ended: ")
    assert "stop requested at" in explained
    assert "SIGKILL; still running" in explained


def test_an_end_without_a_stop_is_logged_and_explained_to_the_platform(start_in_role: Start, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch(0o666)
    log.chmod(0o666)
    agent = "on('USR1', lambda: os.kill(os.getpid(), 9)); ready()"
    init = start_in_role("--termination-log", str(log), agent=agent)
    at_rest(init)
    init.signal("USR1")
    assert init.wait() == 137
    assert len(init.lines("ended: the agent was killed by SIGKILL")) == 1
    assert log.read_text().startswith("ended: the agent was killed by SIGKILL")


# --- Many stops, with the limit set at different moments. -----------------------------------------------------------

RUNS = 48
DELAYS = (0.0, 0.005, 0.02, 0.05, 0.15, 0.3)  # seconds from the agent's start until no memory can be mapped


def stop_late(directory: Path, number: int, *, process1: bool) -> tuple[int, float]:
    """Run a stubborn agent and limit agent-init's memory; return the exit code, and how late it came (seconds)."""
    made = directory / str(number)
    made.mkdir(mode=0o777)
    init = Init(made, ["-t", f"{GRACE}s", "--", *actor(made / "events.jsonl", "agent", STUBBORN)], process1=process1)
    try:
        agent = init.wait_for_event("ready")
        assert agent
        until(lambda: "TERM" in signals_in_mask(init.pid, "SigBlk"), "blocked signals")
        time.sleep(DELAYS[number % len(DELAYS)])
        signal_first = number // len(DELAYS) % 2
        for _ in range(4 if signal_first else 0):
            init.signal("HUP")
            init.signal("USR1")
        resource.prlimit(init.pid, resource.RLIMIT_AS, (1, resource.RLIM_INFINITY))
        for _ in range(0 if signal_first else 4):
            init.signal("HUP")
            init.signal("USR1")
        requested_at = time.monotonic()
        init.signal("TERM")
        return init.wait(GRACE + 10), time.monotonic() - requested_at - GRACE
    finally:
        init.close()


@pytest.mark.crowd
@pytest.mark.parametrize("process1", [True, False], ids=["process 1", "subreaper"])
def test_every_one_of_many_stops_ends_by_the_deadline(tmp_path: Path, process1: bool) -> None:
    tmp_path.chmod(0o777)
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(partial(stop_late, tmp_path, process1=process1), range(RUNS)))
    assert [code for code, _ in results] == [137] * RUNS
    assert max(late for _, late in results) < TOLERANCE
    assert min(late for _, late in results) >= 0

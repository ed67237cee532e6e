"""`run(loop_watch=...)` logs what blocks a loop, as --loop-watch does without the agent's help."""

from __future__ import annotations

import asyncio
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from entrypoint.agent import run
from tests.support.init import until

from .pythons import environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Start

PROGRAM = str(Path(__file__).parent / "programs" / "blocked.py")
LOOPS = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
PLACE = r"\S+blocked.py:\d+ in wait_for_disk\n"
BLOCKED = r"event loop blocked for \S+ so far: " + PLACE
AGAIN = r"event loop turns again after \S+: " + PLACE


class Agent:
    """A run of `programs/blocked.py` without agent-init."""

    def __init__(self, directory: Path, python: str, *arguments: str, **variables: str) -> None:
        self._err = directory / "err"
        with self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [python, PROGRAM, *arguments], env=environment(**variables), stderr=err, stdout=subprocess.DEVNULL
            )

    @property
    def log(self) -> str:
        return self._err.read_text()

    def logged(self, pattern: str) -> None:
        until(lambda: re.search(pattern, self.log), f"{pattern} in {self.log}")


class Begin(Protocol):
    """Start an agent."""

    def __call__(self, *arguments: str, **variables: str) -> Agent: ...


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Begin]:
    agents: list[Agent] = []

    def begin(*arguments: str, **variables: str) -> Agent:
        python, *rest = arguments
        agents.append(Agent(tmp_path, python, *rest, **variables))
        return agents[-1]

    yield begin
    for one in agents:
        one.process.kill()
        one.process.wait()


@LOOPS
def test_a_blocked_loop_is_logged_without_agent_init(agent: Begin, python: str, loop: str) -> None:
    program = agent(python, loop, "0.2")
    program.logged(f"^agent-init: warning: pid {program.process.pid}: {BLOCKED}")
    program.logged(AGAIN)


def test_the_loops_of_other_threads_are_watched_too(agent: Begin) -> None:
    program = agent(sys.executable, "uvloop", "0.2", "in a thread")
    program.logged(r"event loop of thread Thread-1 \(start\) blocked for \S+ so far: " + PLACE)


@LOOPS
def test_process_1_logs_it(start: Start, loop: str) -> None:
    init = start(command=[sys.executable, PROGRAM, loop, "0.2"], env=environment())
    line = r"agent-init: warning: python3? blocked.py \(\d+\): " + BLOCKED
    init.wait_for(lambda: re.search(line, init.stderr), f"{line} in {init.stderr}")
    init.signal("TERM")
    init.wait()


@pytest.mark.parametrize("option", ["--stacks", "--loop-watch=200ms"])
@pytest.mark.parametrize("limit", ["0.2", "-"])
def test_an_option_of_agent_init_goes_before_it(start: Start, option: str, limit: str) -> None:
    """Each line is logged once, although the responder of --stacks is another copy of the runner's."""
    command = [sys.executable, PROGRAM, "uvloop", limit]
    init = start(option, command=command, env=environment())
    if option == "--stacks" and limit == "-":
        init.wait_for(lambda: "started" in init.stderr, "its start")
    else:
        init.wait_for(lambda: re.search(AGAIN, init.stderr), f"{AGAIN} in {init.stderr}")
        assert len(re.findall(BLOCKED, init.stderr)) == 1
    init.signal("TERM")
    init.wait()
    assert ("event loop" in init.stderr) == (option != "--stacks" or limit != "-")


@pytest.mark.parametrize("limit", [0, 0.001, -1, float("inf"), float("nan")])
def test_a_limit_that_is_not_accepted(limit: float) -> None:
    main = asyncio.sleep(0)
    with pytest.raises(ValueError, match=r"loop_watch is .*; accepted: 0.01 seconds or more, or None"):
        run(main, loop_watch=limit)
    assert inspect.getcoroutinestate(main) == inspect.CORO_CLOSED


def test_the_watch_goes_on_after_run_and_the_process_ends(python: str) -> None:
    """A thread that wakes up now and then has crashed interpreters that were shutting down."""
    code = (
        "import asyncio, time; from entrypoint.agent import run\n"
        "async def main(): pass\n"
        "for _ in range(3): run(main(), loop_watch=0.01)\n"
        "async def blocks(): await asyncio.sleep(0.1); time.sleep(0.5); await asyncio.sleep(0.1)\n"
        "asyncio.run(blocks())\n"
    )
    for _ in range(5):
        done = subprocess.run([python, "-c", code], env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0
        assert "event loop blocked for" in done.stderr

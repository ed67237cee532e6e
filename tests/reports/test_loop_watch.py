"""A blocked event loop is logged once, with its line and for how long; what only looks like one is not."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import psutil
import pytest

from entrypoint.report import answers, processes
from tests.support.init import PATIENCE, clean_environment, until

from .running import PROGRAMS, SITE, ask, report

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Start

BLOCKED = str(PROGRAMS / "blocked.py")
LIMIT = 0.2
LOOPS = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
ENDED = r"agent-init: warning: pid \d+: event loop{of} was blocked for ([\d.]+)(ms|s), and has ended: {place}"
SO_FAR = r"agent-init: warning: pid {pid}: event loop{of} blocked for (\d+ms|[\d.]+s) so far: {place}"
AGAIN = r"agent-init: warning: pid {pid}: event loop{of} turns again after (\d+ms|[\d.]+s): {place}"
WAS = r"agent-init: warning: pid {pid}: event loop{of} was blocked for (\d+ms|[\d.]+s): {place}"


class Watched:
    """A program of `blocked.py` whose loops are watched. Its lines are in files."""

    def __init__(self, directory: Path, python: str, *arguments: str, limit: float = LIMIT) -> None:
        self.responders = f"@test-{uuid.uuid4().hex}"
        self._out, self._err = directory / "out", directory / "err"
        environment = clean_environment(
            AGENT_INIT_RESPONDERS=self.responders, AGENT_INIT_LOOP_WATCH=repr(limit), PYTHONPATH=str(SITE)
        )
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [python, BLOCKED, *arguments], env=environment, stdin=subprocess.PIPE, stdout=out, stderr=err
            )
        self.pid = self.process.pid

    @property
    def out(self) -> list[str]:
        return self._out.read_text().splitlines()

    @property
    def log(self) -> list[str]:
        return self._err.read_text().splitlines()

    def printed(self, line: str = "ready") -> None:
        until(lambda: line in self.out, f"{line!r} in {self.out}, {self.log}")

    def logged(self, pattern: str, place: str, pid: int | None = None, of: str = "") -> float:
        """Wait for a line; return the seconds in it."""
        line = re.compile(pattern.format(pid=pid or self.pid, of=of, place=place))

        def found() -> re.Match[str] | None:
            assert self.process.poll() is None, self.log
            return next((match for text in self.log if (match := line.fullmatch(text))), None)

        try:
            match: re.Match[str] = until(found, line.pattern)
        except AssertionError as error:
            raise AssertionError(f"{error} in {self.log}") from None
        number, unit = re.fullmatch(r"([\d.]+)(ms|s)", next(filter(None, match.groups()))).groups()  # type: ignore[union-attr]
        return float(number) / (1000 if unit == "ms" else 1)

    def answer(self, what: str = "", pid: int | None = None) -> answers.Answer:
        def ask() -> answers.Answer | answers.NoAnswer | None:
            found = processes.descendants(os.getpid(), self.pid, {}, arguments=False)
            return answers.ask(self.responders, found, PATIENCE, what).get(pid or self.pid)

        answer = until(ask, "an answer")
        assert isinstance(answer, answers.Answer)
        assert answer.is_complete
        return answer

    def close(self) -> None:
        if self.process.poll() is None:
            for child in psutil.Process(self.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
                    child.kill()
            self.process.kill()
        self.process.communicate()


class Watch(Protocol):
    """Start a program of `blocked.py`."""

    def __call__(self, *arguments: str, python: str = ..., limit: float = ...) -> Watched: ...


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    programs: list[Watched] = []

    def start(*arguments: str, python: str = sys.executable, limit: float = LIMIT) -> Watched:
        programs.append(Watched(tmp_path, python, *arguments, limit=limit))
        return programs[-1]

    yield start
    for program in programs:
        program.close()


def at(function: str, *, inside: str = "") -> str:
    """A pattern for a place in blocked.py."""
    return rf"{re.escape(BLOCKED)}:\d+ in {function}" + (rf" \(in (?:{inside})\)" if inside else "")


# --- What is logged. --------------------------------------------------------------------------------------------------


def test_a_blocked_loop_is_logged_with_its_line_on_each_python(watch: Watch, python: str) -> None:
    program = watch("sleep", "asyncio", python=python)
    assert program.logged(SO_FAR, at("wait_for_disk")) >= LIMIT
    assert program.logged(AGAIN, at("wait_for_disk")) >= LIMIT


@LOOPS
@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("sleep", at("wait_for_disk")),
        ("loop", at("compute")),
        ("library", at("run_tool", inside=r"subprocess.py:\d+ in Popen\.\w+|selectors.py:\d+ in \S+")),
        ("many", at("a_little")),
    ],
)
def test_the_line_of_the_agents_own_code_is_named(watch: Watch, loop: str, kind: str, place: str) -> None:
    assert watch(kind, loop).logged(SO_FAR, place) >= LIMIT


@LOOPS
def test_native_code_that_keeps_the_gil_is_seen_afterwards(watch: Watch, loop: str) -> None:
    """Nothing can be logged while it runs. Its last call is longer than the limit."""
    assert watch("native", loop).logged(f"(?:{WAS}|{AGAIN})", at("keep_the_gil")) >= LIMIT


@LOOPS
def test_the_first_thing_that_a_loop_does_is_seen(watch: Watch, loop: str) -> None:
    """Native code keeps the GIL when the first look is due."""
    assert watch("native_first", loop, limit=0.5).logged(WAS, ".*") >= 0.5


@pytest.mark.parametrize(
    ("loop", "place"),
    [
        ("asyncio", r"asyncio/events.py:\d+ in Handle._run"),
        ("uvloop", "no Python code seen: native code, or another thread kept the GIL"),
    ],
)
def test_a_callback_without_python_code_blocks_too(watch: Watch, loop: str, place: str) -> None:
    assert watch("no_frames", loop).logged(SO_FAR, place) >= LIMIT


def test_a_loop_of_uvloop_without_a_runner_is_found(watch: Watch) -> None:
    """Nothing in any stack shows it: the collector finds it, a second after the start at the earliest."""
    assert watch("sleep", "bare").logged(SO_FAR, at("wait_for_disk")) >= LIMIT


@LOOPS
def test_each_place_is_logged_once_and_the_rest_is_counted(watch: Watch, loop: str) -> None:
    program = watch("sleep", loop)
    program.logged(AGAIN, at("wait_for_disk"))
    until(lambda: (lags := program.answer("loops").lags) and lags.blocked >= 3, "three blocked turns to be counted")
    assert len(program.log) == 2, program.log


@LOOPS
def test_loops_of_several_threads(watch: Watch, loop: str) -> None:
    program = watch("threads", loop)
    program.logged(SO_FAR, at("wait_for_disk"), of=" of thread stuck")
    assert not [line for line in program.log if "stuck" not in line]
    assert {one.thread for one in program.answer("loops").loops} == {"MainThread", "healthy", "stuck"}


@LOOPS
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_loops_of_worker_processes(watch: Watch, loop: str, method: str) -> None:
    program = watch(method, loop)
    until(lambda: program.out, "the child's pid")
    program.logged(SO_FAR, at("wait_for_disk"), pid=int(program.out[0]))
    # Without its parent's histogram.
    assert program.answer("loops", int(program.out[0])).lags != program.answer("loops").lags


def test_two_loops_one_after_the_other(watch: Watch) -> None:
    program = watch("ends", "asyncio")
    program.logged(AGAIN, at("wait_for_disk"))
    assert program.process.wait(PATIENCE) == 0


@LOOPS
@pytest.mark.parametrize(
    ("kind", "of", "seconds"),
    [
        ("last", "", 0.8),
        ("exits", "", 0.8),
        ("idle_after", " of thread stuck", 0.8),
        ("last_of_thread", " of thread stuck", 0.8),
        ("last_of_daemon", " of thread stuck", 0.4),
        ("last_of_fork", "", 0.8),
        ("last_of_spawn", "", 0.8),
    ],
)
def test_how_long_the_last_block_of_a_loop_has_lasted(
    watch: Watch, loop: str, kind: str, of: str, seconds: float
) -> None:
    """Such as what an agent saves when it is stopped."""
    program = watch(kind, loop)
    program.process.wait(PATIENCE)
    line = re.compile(ENDED.format(of=of, place=at("wait_for_disk")))
    lines = [match for text in program.log if (match := line.fullmatch(text))]
    assert len(lines) == 1, program.log
    assert len(program.log) == 2, program.log
    lasted = float(lines[0][1]) / (1000 if lines[0][2] == "ms" else 1)
    assert seconds - LIMIT <= lasted <= seconds + LIMIT


def test_a_process_that_has_closed_its_descriptors_ends_at_once(watch: Watch) -> None:
    """As daemons do. The thread has to open its socket again before it can look."""
    program = watch("closed_and_ended", "asyncio", limit=2.0)
    assert program.process.wait(PATIENCE) == 0
    (line,) = program.out
    assert float(line) < 1.5  # for five of them; waiting for each look would take 2.5


# --- What is not. -----------------------------------------------------------------------------------------------------


@LOOPS
@pytest.mark.parametrize("kind", ["idle", "busy"])
def test_a_stopped_process_has_no_blocked_loop(watch: Watch, loop: str, kind: str) -> None:
    program = watch(kind, loop)
    program.printed()
    for seconds in (0.1, 0.3, 1.0, 2.0):
        program.process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        program.process.send_signal(signal.SIGCONT)
        time.sleep(0.3)
    # On a busy machine the watching thread may wait for the GIL that long after it: that is not told apart.
    assert [line for line in program.log if "kept the GIL" not in line] == []


@LOOPS
def test_a_child_that_runs_no_loop_has_none(watch: Watch, loop: str) -> None:
    """A process forked by a coroutine has its parent's loop on its stack."""
    program = watch("fork_without_loop", loop)
    program.printed("done")
    assert [line for line in program.log if "event loop" in line] == []


def test_a_debugger_is_no_blocked_loop(watch: Watch) -> None:
    program = watch("debugged", "asyncio")
    until(lambda: any("(Pdb)" in line for line in program.out), "the debugger's prompt")
    time.sleep(4 * LIMIT)
    assert program.log == []


@LOOPS
def test_an_idle_loop_is_not_woken_up(watch: Watch, loop: str) -> None:
    program = watch("idle", loop)
    program.printed()
    until(lambda: program.answer("loops").loops, "the loop to be found")
    time.sleep(0.5)

    def switches() -> int:
        status = Path(f"/proc/{program.pid}/task/{program.pid}/status").read_text()
        return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])

    before = switches()
    time.sleep(1)
    assert switches() - before <= 2


def test_without_the_option_nothing_is_watched(watch: Watch) -> None:
    program = watch("idle", "asyncio", limit=0)
    program.printed()
    answer = program.answer()
    assert (answer.lags, answer.loops) == (None, [])


# --- The answers. -----------------------------------------------------------------------------------------------------


@LOOPS
def test_an_answer_has_the_loops_and_how_late_they_turned(watch: Watch, loop: str) -> None:
    program = watch("sleep", loop)

    def is_blocked() -> answers.Answer | None:
        answer = program.answer("loops")
        return answer if answer.loops and answer.loops[0].blocked else None

    answer: answers.Answer = until(is_blocked, "a blocked loop in an answer")
    [found] = answer.loops
    assert (found.thread, found.blocked >= LIMIT) == ("MainThread", True)
    assert re.fullmatch(at("wait_for_disk"), found.where)
    assert answer.lags is not None
    assert (answer.lags.limit, len(answer.lags.counts)) == (LIMIT, len(answer.lags.bounds) + 1)
    assert (answer.threads, answer.tasks) == ([], [])
    until(lambda: (lags := program.answer("loops").lags) and sum(lags.counts[-8:]), "a lag of a second class")
    assert program.answer().threads, "the whole answer has the stacks too"


@LOOPS
def test_a_report_has_every_task_at_any_time(watch: Watch, loop: str) -> None:
    program = watch("idle", loop)
    program.printed()
    [task] = program.answer("tasks").tasks
    assert (task.names, task.count) == ("Task-1", 1)
    assert [frame.function for frame in task.frames if isinstance(frame, answers.Frame)] == ["idle"]


@LOOPS
def test_a_report_of_now_lists_every_task(watch: Watch, loop: str) -> None:
    """Each on its own, in whatever state, also those that a stall report shows as one stack."""
    program = watch("tasks", loop)
    program.printed()
    lines = report(agent=program.pid, responders=program.responders, tasks=True)
    head = f"pid {program.pid}, task"
    for number in range(30):
        assert any(line.startswith(f"{head} call-{number}: {BLOCKED}:") for line in lines), lines
    assert any(line.startswith(f"{head} group, awaits 2 of 2: task call-0, task call-1: ") for line in lines), lines
    assert any(line.startswith(f"{head} stubborn, cancelled but not finished: ") for line in lines), lines


def test_anybody_who_does_not_say_what_gets_everything(watch: Watch) -> None:
    program = watch("idle", "asyncio")
    program.printed()
    answer = ask(program.responders, program.pid)
    assert "\nlags\t0.2\t" in answer
    assert "\ntask\t1\tTask-1\t" in answer


# --- Under agent-init. ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("process1", [True, False])
@pytest.mark.parametrize("access", ["auto", "main"])
def test_process_1_logs_it(start: Start, process1: bool, access: str) -> None:
    options = ["--loop-watch", "200ms", "--notify-access", access, "--grace", "1s"]
    init = start(*options, command=[sys.executable, BLOCKED, "fork", "uvloop"], process1=process1)
    line = r"agent-init: warning: .*\(\d+\): event loop blocked for \d+ms so far: \S+blocked.py:\d+ in wait_for_disk"
    init.wait_for(lambda: re.search(line, init.stderr), f"{line} in {init.stderr}")
    assert "to the notify socket" not in init.stderr
    init.signal("TERM")
    init.wait()


def test_without_a_notify_socket_the_process_logs_it_itself(start: Start) -> None:
    init = start(
        "--loop-watch", "200ms", "--no-notify", "--grace", "1s", command=[sys.executable, BLOCKED, "sleep", "uvloop"]
    )
    line = r"agent-init: warning: pid \d+: event loop blocked for \d+ms so far: \S+blocked.py:\d+ in wait_for_disk"
    init.wait_for(lambda: re.search(line, init.stderr), f"{line} in {init.stderr}")
    init.signal("TERM")
    init.wait()

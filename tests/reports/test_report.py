"""The report of the tree, and of those that do not answer."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support.init import NAMESPACE, until

from .running import PROGRAMS, report, reporter, used

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import Run

SLEEP = ("-c", "import signal, time; signal.alarm(100); print('ready', flush=True); time.sleep(100)")
LINE = re.compile(
    r"(?P<name>\S+) \(pid (?P<pid>\d+)\), (the agent|child of (agent-init|\S+ \(\d+\))), \S+ old, (?P<state>[^,]+), "
    r"\d+ threads?, cpu (?P<cpu>\d+\.\d\d)s (since the stop|in all), [\d.]+ MiB(, waits in \S+)?(: (?P<words>.*))?"
)


@pytest.fixture
def sleepers() -> Iterator[list[int]]:
    """More processes than a report has lines for."""
    processes = [subprocess.Popen(["sleep", "100"]) for _ in range(50)]
    yield [process.pid for process in processes]
    for process in processes:
        process.kill()
        process.wait()


def test_a_line_for_each_process(run: Run) -> None:
    program = run("-c", "import subprocess; p = subprocess.Popen(['sleep', '100']); print(p.pid, flush=True); p.wait()")
    child = program.line()
    lines = program.report()
    found = {match["pid"]: match for line in lines if (match := LINE.fullmatch(line))}
    assert {str(program.pid), child} <= set(found)
    assert ", the agent, " in found[str(program.pid)][0]
    assert f"child of {found[str(program.pid)]['name']} ({program.pid}), " in found[child][0]
    order = [match["pid"] for match in found.values()]
    assert order.index(str(program.pid)) < order.index(child)


def test_the_reporter_tells_of_neither_itself_nor_process_1(run: Run) -> None:
    program = run(*SLEEP)
    program.line()
    with reporter(agent=program.pid, responders=program.responders) as made:
        out = made.communicate()[0]
    assert f"(pid {program.pid})" in out
    assert f"(pid {made.pid})" not in out
    assert f"(pid {os.getpid()})" not in out


def test_cpu_since_the_stop(run: Run) -> None:
    burn = "import time\ndef burn(s):\n    end = time.process_time() + s\n    while time.process_time() < end: pass\n"
    program = run("-c", burn + "burn(0.5); print('ready', flush=True); time.sleep(100)")
    program.line()
    since = used(program.pid)
    before, after, reused = (
        next(match for line in program.report(cpu=cpu) if (match := LINE.fullmatch(line)) and "the agent" in line)
        for cpu in ({}, since, {pid: [start - 1, ticks] for pid, (start, ticks) in since.items()})
    )
    assert float(before["cpu"]) >= 0.5
    assert " in all, " in before[0]
    assert float(after["cpu"]) < 0.3
    assert " since the stop, " in after[0]
    assert float(reused["cpu"]) >= 0.5, "a pid of another process that ended is another process"


def test_arguments_only_where_asked_for(run: Run) -> None:
    program = run(*SLEEP, "--password", "hunter 2")
    program.line()
    assert "hunter" not in "".join(program.report())
    assert "--password 'hunter 2'" in "".join(program.report(arguments=True))


def test_very_many_processes(run: Run, sleepers: list[int]) -> None:
    program = run(*SLEEP)
    program.line()
    lines = program.report()
    told = [line for line in lines if LINE.fullmatch(line)]
    assert len(told) == 40
    assert sum(f"(pid {pid})" in line for pid in sleepers for line in told) <= 39
    assert any(", the agent, " in line for line in told)
    assert any(re.fullmatch(r"and \d+ processes more", line) for line in lines)


def test_little_memory_left(run: Run) -> None:
    program = run(*SLEEP)
    program.line()
    assert program.report(room=5 << 20) == ["too little memory for more: 5 MiB are left"]
    assert len(program.report(room=64 << 20)) > 1


def test_it_needs_no_more_memory_than_it_says() -> None:
    """12 MiB of its own, whatever it has to tell; process 1 sees to it that there is more."""
    program = subprocess.Popen([sys.executable, *SLEEP], stdout=subprocess.PIPE)
    highest = 0
    with reporter(agent=program.pid, responders="@none", arguments=True) as made:
        while made.poll() is None:
            try:
                highest = max(highest, psutil.Process(made.pid).memory_full_info().uss)
            except psutil.Error:
                break
        made.communicate()
    program.kill()
    program.communicate()
    assert 1 << 20 < highest < 12 << 20


def test_who_has_stopped_is_told_as_such(run: Run) -> None:
    program = run(*SLEEP)
    program.line()
    os.kill(program.pid, signal.SIGSTOP)
    until(lambda: psutil.Process(program.pid).status() == psutil.STATUS_STOPPED, "it to stop")
    lines = program.report()
    os.kill(program.pid, signal.SIGCONT)
    assert any("did not answer within 1s: it is stopped by a signal" in line for line in lines), lines


def test_how_to_get_stacks_is_told(run: Run) -> None:
    program = run(*SLEEP, stacks=False)
    program.line()
    lines = program.report()
    assert any(line.startswith("no stacks from ") and f"(pid {program.pid})" in line for line in lines), lines
    assert any("agent-init --stacks" in line for line in lines)


def test_why_there_are_no_stacks_is_told(run: Run) -> None:
    """They were asked for, so that to ask for them is no help."""
    program = run("-I", *SLEEP)
    program.line()
    (line,) = [line for line in program.report(stacks=True) if line.startswith("no stacks from ")]
    assert f"(pid {program.pid}): started with -I, -E or -S, behind another sitecustomize, or in another" in line


def test_who_has_ended_meanwhile_is_no_mute(run: Run) -> None:
    """While another one is waited for."""
    program = run(
        "-c",
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-I', '-c', 'import time; time.sleep(0.6)'])\n"
        "print(child.pid, flush=True); time.sleep(100)",
    )
    child = program.line()
    os.kill(program.pid, signal.SIGSTOP)
    until(lambda: psutil.Process(program.pid).status() == psutil.STATUS_STOPPED, "it to stop")
    lines = program.report()
    os.kill(program.pid, signal.SIGCONT)
    assert any(f"(pid {child})" in line for line in lines), lines
    assert not any("no stacks from " in line and f"(pid {child})" in line for line in lines), lines


def test_it_is_over_in_time(run: Run) -> None:
    program = run(str(PROGRAMS / "hang.py"), "gil")
    program.line()
    os.kill(program.pid, signal.SIGTERM)
    program.reported("holds the GIL")
    lines = program.report(seconds=0.9)
    waited = re.search(r"did not answer within ([\d.]+)(m?s):", "\n".join(lines))
    assert waited
    assert float(waited[1]) * (0.001 if waited[2] == "ms" else 1) < 0.9


def test_an_answer_of_somebody_else_is_none(run: Run) -> None:
    """The kernel tells who listens; a name can be taken by anybody."""
    program = run(*SLEEP, stacks=False)
    program.line()
    with socket.socket(socket.AF_UNIX) as impostor:
        impostor.bind(f"\0{program.responders[1:]}/{program.pid}")
        impostor.listen()
        lines = program.report()
    assert any(line.startswith("no stacks from ") and f"(pid {program.pid})" in line for line in lines), lines


def test_a_pid_namespace_below_ours(run: Run) -> None:
    """There the process has another pid, and its socket goes by that."""
    words = [*NAMESPACE[1:], sys.executable, *SLEEP]
    program = run("-c", f"import os; os.execvp('unshare', {['unshare', *words]!r})")
    assert program.line() == "ready"
    inner = until(lambda: psutil.Process(program.pid).children(), "the process inside")[0].pid
    lines = program.reported(f"pid {inner}, main thread:")
    assert not any("no stacks" in line and f"(pid {inner})" in line for line in lines)


def test_memory_that_runs_out_takes_the_reporter_first(run: Run) -> None:
    program = run(*SLEEP)
    program.line()
    os.kill(program.pid, signal.SIGSTOP)  # so that it has to wait
    with reporter(agent=program.pid, responders=program.responders) as made:
        path = Path(f"/proc/{made.pid}/oom_score_adj")
        until(lambda: path.read_text() == "1000\n", "its score")
        made.kill()
    os.kill(program.pid, signal.SIGCONT)


def test_nobody_reads_it(run: Run) -> None:
    program = run(*SLEEP)
    program.line()
    with reporter(agent=program.pid, responders=program.responders) as made:
        assert made.stdout
        made.stdout.close()
        assert made.wait(30) == 1


def test_lines_are_lines(run: Run, tmp_path: Path) -> None:
    """Names hold anything. A program's name is cut at 15 characters by the kernel."""
    program = tmp_path / "a\nreport: b\x1b[1m"
    program.symlink_to("/bin/sleep")
    process = subprocess.Popen([str(program), "100"])
    until(lambda: "a" in Path(f"/proc/{process.pid}/comm").read_text(), "its name")
    lines = report(agent=process.pid, responders="", arguments=True)
    process.kill()
    process.wait()
    (line,) = [line for line in lines if ", the agent, " in line]
    assert line.startswith("a\\nreport: b\\x1b")

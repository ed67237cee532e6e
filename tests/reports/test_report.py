"""The report: a line for each process, and why a process has no stacks."""

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

from entrypoint.report import render
from entrypoint.report.answers import Answer, Frame, StackGroup
from entrypoint.report.processes import Process
from tests.support.init import NAMESPACE, until

from .running import PROGRAMS, REPORT, cpu_baseline, report, reporter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import Run

SLEEP = ("-c", "import signal, time; signal.alarm(100); print('ready', flush=True); time.sleep(100)")
LINE = re.compile(
    r"(?P<name>.+) \(pid (?P<pid>\d+)\), (the agent|child of (agent-init|.+ \(\d+\))), \S+ old, (?P<state>[^,]+), "
    r"\d+ threads?, cpu (?P<cpu>\d+\.\d\d)s (since the stop|in total), [\d.]+ MiB(, waits in \S+)?(: .*)?"
)


@pytest.fixture
def sleepers() -> Iterator[list[int]]:
    """Return the pids of more processes than a report has lines for."""
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


@pytest.mark.parametrize("argument", ["{}", "no JSON"])
def test_a_failure_that_cannot_be_written_is_one_line(argument: str) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-I", "-S", str(REPORT), argument]
        ran = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (125, "agent-initctl: cannot go on: [Errno 28] No space left on device\n")


@pytest.mark.parametrize("argument", ["{}", "no JSON"])
def test_a_failure_is_a_line_of_the_report(argument: str) -> None:
    command = [sys.executable, "-I", "-S", str(REPORT), argument]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 1
    assert re.fullmatch(r"report: failed: (KeyError|JSONDecodeError): .+\n", ran.stdout)
    assert not ran.stderr


def test_neither_the_reporter_nor_process_1_is_in_the_report(run: Run) -> None:
    program = run(*SLEEP)
    program.line()
    with reporter(agent=program.pid, responders=program.responders) as process:
        out = process.communicate()[0]
    assert f"(pid {program.pid})" in out
    assert f"(pid {process.pid})" not in out
    assert f"(pid {os.getpid()})" not in out


def test_cpu_since_the_stop(run: Run) -> None:
    burn = "import time\ndef burn(s):\n    end = time.process_time() + s\n    while time.process_time() < end: pass\n"
    # A little more than asserted: the kernel counts user's and system's time in whole ticks.
    program = run("-c", burn + "burn(0.55); print('ready', flush=True); time.sleep(100)")
    program.line()
    since = cpu_baseline(program.pid)
    before, after, reused = (
        next(match for line in program.report(cpu=cpu) if (match := LINE.fullmatch(line)) and "the agent" in line)
        for cpu in ({}, since, {pid: [start - 1, ticks] for pid, (start, ticks) in since.items()})
    )
    assert float(before["cpu"]) >= 0.5
    assert " in total, " in before[0]
    assert float(after["cpu"]) < 0.3
    assert " since the stop, " in after[0]
    assert float(reused["cpu"]) >= 0.5, "a reused pid is a different process"


def test_arguments_are_shown_only_on_request(run: Run) -> None:
    program = run(*SLEEP, "--password", "hunter 2")
    program.line()
    assert "hunter" not in "".join(program.report())
    assert "--password 'hunter 2'" in "".join(program.report(arguments=True))


def test_a_large_tree_is_cut_to_40_lines(run: Run, sleepers: list[int]) -> None:
    program = run(*SLEEP)
    program.line()
    lines = program.report()
    shown = [line for line in lines if LINE.fullmatch(line)]
    assert len(shown) == 40
    assert sum(f"(pid {pid})" in line for pid in sleepers for line in shown) <= 39
    assert any(", the agent, " in line for line in shown)
    assert any(re.fullmatch(r"and \d+ more processes", line) for line in lines)


def test_no_report_without_memory_for_it(run: Run) -> None:
    program = run(*SLEEP)
    program.line()
    assert program.report(room=5 << 20) == ["not enough memory for a report: 5 MiB left"]
    assert len(program.report(room=64 << 20)) > 1


def test_the_reporter_uses_less_than_12_mib() -> None:
    """REQUIRED_BYTES in its `__main__.py`. Process 1 starts it only if there is more."""
    program = subprocess.Popen([sys.executable, *SLEEP], stdout=subprocess.PIPE)
    highest = 0
    with reporter(agent=program.pid, responders="@none", arguments=True) as process:
        while process.poll() is None:
            try:
                highest = max(highest, psutil.Process(process.pid).memory_full_info().uss)
            except psutil.Error:
                break
        process.communicate()
    program.kill()
    program.communicate()
    assert 1 << 20 < highest < 12 << 20


def test_a_stopped_process_is_reported_as_stopped(run: Run) -> None:
    program = run(*SLEEP)
    program.line()
    os.kill(program.pid, signal.SIGSTOP)
    until(lambda: psutil.Process(program.pid).status() == psutil.STATUS_STOPPED, "it to stop")
    lines = program.report()
    os.kill(program.pid, signal.SIGCONT)
    answer = re.compile(r"did not answer within 1(\.\d)?s: it is stopped by a signal")  # later on a busy machine
    assert any(map(answer.search, lines)), lines


def test_the_report_names_the_option_for_stacks(run: Run) -> None:
    program = run(*SLEEP, stacks=False)
    program.line()
    lines = program.report()
    assert any(line.startswith("no stacks from ") and f"(pid {program.pid})" in line for line in lines), lines
    assert any("run agent-init with --stacks" in line for line in lines)


def test_the_report_gives_the_reason_for_missing_stacks(run: Run) -> None:
    """With --stacks already given."""
    program = run("-I", *SLEEP)
    program.line()
    (line,) = [line for line in program.report(stacks=True) if line.startswith("no stacks from ")]
    assert f"(pid {program.pid}): started with -I, -E or -S, behind another sitecustomize, or in another" in line


def test_a_process_that_ended_meanwhile_is_not_listed_as_unanswerable(run: Run) -> None:
    """It ends while the reporter waits for another process."""
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


def test_the_reporter_keeps_to_its_time_limit(run: Run) -> None:
    program = run(str(PROGRAMS / "hang.py"), "gil")
    program.line()
    os.kill(program.pid, signal.SIGTERM)
    program.report_with("holds the GIL")
    lines = program.report(seconds=0.9)
    waited = re.search(r"did not answer within ([\d.]+)(m?s):", "\n".join(lines))
    assert waited
    assert float(waited[1]) * (0.001 if waited[2] == "ms" else 1) < 0.9


def test_an_answer_from_another_process_is_ignored(run: Run) -> None:
    """Any process can bind the socket's name; SO_PEERCRED shows which one listens."""
    program = run(*SLEEP, stacks=False)
    program.line()
    with socket.socket(socket.AF_UNIX) as impostor:
        impostor.bind(f"\0{program.responders[1:]}/{program.pid}")
        impostor.listen()
        lines = program.report()
    assert any(line.startswith("no stacks from ") and f"(pid {program.pid})" in line for line in lines), lines


def test_a_process_in_its_own_pid_namespace(run: Run) -> None:
    """Its socket is named after the pid that it has there."""
    argv = ["unshare", *NAMESPACE[1:], sys.executable, *SLEEP]
    program = run("-c", f"import os; os.execvp('unshare', {argv!r})")
    assert program.line() == "ready"
    inner = until(lambda: psutil.Process(program.pid).children(), "the process inside")[0].pid
    lines = program.report_with(f"pid {inner}, main thread:")
    assert not any("no stacks" in line and f"(pid {inner})" in line for line in lines)


def test_the_oom_killer_takes_the_reporter_first(run: Run) -> None:
    program = run(*SLEEP)
    program.line()
    os.kill(program.pid, signal.SIGSTOP)  # so that the reporter has to wait
    with reporter(agent=program.pid, responders=program.responders) as process:
        path = Path(f"/proc/{process.pid}/oom_score_adj")
        until(lambda: path.read_text() == "1000\n", "its score")
        process.kill()
    os.kill(program.pid, signal.SIGCONT)


def test_a_closed_pipe_ends_the_reporter(run: Run) -> None:
    program = run(*SLEEP)
    program.line()
    with reporter(agent=program.pid, responders=program.responders) as process:
        assert process.stdout
        process.stdout.close()
        assert process.wait(30) == 1


def test_control_characters_are_escaped(run: Run, tmp_path: Path) -> None:
    """A name can hold any character. The kernel cuts the name of a program at 15 characters."""
    program = tmp_path / "a\nreport: b\x1b[1m"
    program.symlink_to("/bin/sleep")
    process = subprocess.Popen([str(program), "100"])
    until(lambda: "a" in Path(f"/proc/{process.pid}/comm").read_text(), "its name")
    lines = report(agent=process.pid, responders="", arguments=True)
    process.kill()
    process.wait()
    (line,) = [line for line in lines if ", the agent, " in line]
    assert line.startswith("a\\nreport: b\\x1b")


def process(pid: int, *, is_agent: bool) -> Process:
    """A sleeping Python process."""
    facts = {"inner_pid": pid, "parent": 1, "parent_name": "agent-init", "is_agent": is_agent, "name": "python"}
    more = {"title": "python", "age": 1.0, "state": "sleeping", "threads": 1, "cpu": 0.0, "is_cpu_since_baseline": True}
    rest = {"memory": 1, "wait_channel": "", "is_python": True, "arguments": ()}
    return Process(pid=pid, **facts, **more, **rest)  # type: ignore[arg-type]


def stack(name: str, *flags: str, file: str, is_task: bool = True) -> StackGroup:
    return StackGroup(is_task, 1, name, frozenset(flags), frames=[Frame(file, 7, "wait")])


def test_the_agents_own_code_comes_before_a_frameworks_idle_connection() -> None:
    """Also where that was cancelled, or is in the agent and the own code in a worker."""
    library = "/venv/lib/python3.12/site-packages/websockets/client.py"
    idle = Answer(tasks=[stack("keepalive", "cancelling", file=library)], is_complete=True)
    both = Answer(
        tasks=[stack("reader", "cancelling", file=library), stack("save", file="/app/agent.py")], is_complete=True
    )
    found = [process(2, is_agent=True), process(9, is_agent=False)]
    lines = list(render.answer_lines(found, {2: idle, 9: both}, stacks=True))
    heads = [line.split(", ")[:2] for line in lines if line.startswith("pid ")]
    assert [head[0] for head in heads] == ["pid 9", "pid 9", "pid 2"]
    assert [head[1].split(":")[0] for head in heads][:1] == ["task save"]

"""The report of an interpreter that has no psutil: shorter, and it says why."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.init import until

from .running import PROGRAMS, cpu_baseline

if TYPE_CHECKING:
    from .conftest import Run

MISSING = "without memory and arguments: No module named 'psutil' (install psutil)"
LINE = re.compile(
    r"(?P<name>.+) \(pid (?P<pid>\d+)\), (the agent|child of (agent-init|[^,]+ \(\d+\))), \S+ old, "
    r"(?P<state>[^,]+|zombie, [^,]+)(, \d+ threads?, cpu \d+\.\d\ds (?P<since>since the stop|in total))?"
    r"(, waits in \S+)?"
)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter without packages."""
    made = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(made)], check=True)
    return str(made / "bin" / "python")


def matches(lines: list[str]) -> dict[int, re.Match[str]]:
    return {int(match["pid"]): match for line in lines if (match := LINE.fullmatch(line))}


def test_processes_and_stacks_are_reported(run: Run, bare: str) -> None:
    program = run(str(PROGRAMS / "hang.py"), "executor", "asyncio")
    assert program.line() == "ready"
    os.kill(program.pid, signal.SIGTERM)
    until(lambda: any("in upload: time.sleep(100)" in line for line in program.report(by=bare)), "the stack of upload")
    lines = program.report(by=bare, cpu=cpu_baseline(program.pid), arguments=True)
    agent = matches(lines)[program.pid]
    assert "the agent" in agent[0]
    assert (agent["state"], agent["since"]) == ("sleeping", "since the stop")
    assert lines.count(MISSING) == 1
    assert any("in flush_recordings" in line for line in lines)


def test_as_many_processes_in_the_same_order_as_with_psutil(run: Run, bare: str) -> None:
    shell = "sleep 100 & (sleep 100 & exec sleep 100) & echo ready; exec -a 'a ) b' sleep 100"
    program = run("-c", f"import os; os.execvp('bash', ['bash', '-c', {shell!r}])")
    assert program.line() == "ready"

    def seen(lines: list[str]) -> list[tuple[str, str]]:
        """Name and pid, in order."""
        return re.findall(r"^(\S+) \(pid (\d+)\), (?:the agent|child)", "\n".join(lines), re.MULTILINE)

    until(partial(_is_complete, program.pid), "all processes")
    assert seen(program.report(by=bare)) == seen(program.report())


def _is_complete(pid: int) -> bool:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return len(children) == 2 and all(Path(f"/proc/{child}/comm").read_text() == "sleep\n" for child in children)


def test_states(run: Run, bare: str) -> None:
    """A stopped process, and a zombie whose name has a parenthesis and spaces."""
    program = run(
        "-c",
        "import subprocess, sys, time; open('/proc/self/comm', 'w').write('a ) R b')\n"
        "child = subprocess.Popen(['true']); print(child.pid, flush=True); time.sleep(100)",
    )
    child = int(program.line())
    until(lambda: Path(f"/proc/{child}/stat").read_text().rpartition(") ")[2].startswith("Z"), "a zombie")
    os.kill(program.pid, signal.SIGSTOP)
    until(lambda: Path(f"/proc/{program.pid}/stat").read_text().rpartition(") ")[2].startswith("T"), "it to stop")
    found = matches(program.report(by=bare))
    os.kill(program.pid, signal.SIGCONT)
    assert (found[program.pid]["name"], found[program.pid]["state"]) == ("a ) R b", "stopped by a signal")
    assert found[child]["state"] == "zombie, not reaped by its parent"
    assert f"child of a ) R b ({program.pid})" in found[child][0]

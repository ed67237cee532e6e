"""Which process runs the same program as an agent that has exited."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from entrypoint.init import procfs, successor
from entrypoint.init.procfs import Process
from tests.support.world import AGENT, CHLD, OWN_PID, Harness, World, exited

if TYPE_CHECKING:
    from collections.abc import Callable

PYTHON, NODE, GO = "/usr/bin/python3.13", "/usr/bin/node", "/app/server"
FIRST, SECOND = 10, 20


class Programs:
    """What the processes FIRST and SECOND run: the executable file and argv."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.files: dict[int, str] = {}
        self.argvs: dict[int, list[str]] = {}
        monkeypatch.setattr(procfs, "executable", lambda pid: self.files.get(pid, ""))
        monkeypatch.setattr(procfs, "argv_of", lambda pid: self.argvs.get(pid, []))

    def find(
        self,
        agent: tuple[str, list[str]],
        left: tuple[str, list[str]],
        command: list[str] | None = None,
        group: int = SECOND,
        parent: int = OWN_PID,
    ) -> Process | None:
        self.files = {FIRST: agent[0], SECOND: left[0]}
        self.argvs = {FIRST: agent[1], SECOND: left[1]}
        of_agent: Any = SimpleNamespace(program=successor.Program(FIRST), group=FIRST)
        process = Process(SECOND, "x", parent, group, 1)
        return successor.find(of_agent, command or agent[1], [process])


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Programs:
    return Programs(monkeypatch)


@pytest.mark.parametrize(
    ("agent", "left"),
    [
        ((PYTHON, ["python", "agent.py"]), (PYTHON, ["/usr/bin/python3", "agent.py"])),
        ((PYTHON, ["python", "-u", "agent.py", "run"]), (PYTHON, ["python3", "/app/agent.py", "--restarted"])),
        ((PYTHON, ["python", "-m", "app.agent"]), (PYTHON, ["python3", "/app/app/agent.py"])),
        ((PYTHON, ["python", "-m", "agent"]), (PYTHON, ["python3", "/app/agent/__main__.py"])),
        ((PYTHON, ["python", "-c", "import agent.x"]), (PYTHON, ["python3", "-c", "import agent.x"])),
        ((NODE, ["node", "server.js"]), (NODE, ["/usr/bin/node", "/app/server.js"])),
        ((PYTHON, ["python", "/venv/bin/uvicorn", "app:app"]), (PYTHON, ["python", "/venv/bin/uvicorn", "app:app"])),
        ((GO, ["server", "serve"]), (GO, ["/app/server"])),
        ((GO, ["server"]), (GO, ["server: master process"])),
        ((PYTHON, []), (PYTHON, [])),
    ],
)
def test_the_same_program_is_recognised(
    programs: Programs, agent: tuple[str, list[str]], left: tuple[str, list[str]]
) -> None:
    assert programs.find(agent, left)
    assert programs.find(agent, left, group=FIRST)
    assert not programs.find(agent, left, parent=FIRST), "it has a parent that waits for it"


TRACKER = (PYTHON, ["python3", "-c", "from multiprocessing.resource_tracker import main;main(5)"])


@pytest.mark.parametrize(
    ("agent", "left"),
    [
        ((PYTHON, ["python", "agent.py"]), TRACKER),
        ((PYTHON, ["python", "agent.py"]), (PYTHON, ["python", "-m", "mcp_server"])),
        ((PYTHON, ["python", "agent.py"]), (NODE, ["node", "agent.js"])),
        ((GO, ["server"]), ("/usr/bin/redis-server", ["redis-server *:6379"])),
        (("", ["python", "agent.py"]), ("", ["python", "agent.py"])),
        ((PYTHON, ["python", "agent.py"]), ("", [])),
    ],
)
def test_another_program_is_not(programs: Programs, agent: tuple[str, list[str]], left: tuple[str, list[str]]) -> None:
    assert not programs.find(agent, left, group=FIRST)


@pytest.mark.parametrize(
    ("command", "left", "group", "found"),
    [
        (["sh", "-c", "python agent.py; exit $?"], (PYTHON, ["python", "agent.py", "again"]), SECOND, True),
        (["sh", "-c", "python agent.py; exit $?"], (PYTHON, ["python", "agent.py", "again"]), FIRST, False),
        (["bash", "-c", "(exec '/app/server')"], (GO, ["/app/server"]), SECOND, True),
        (["sh", "-c", "python agent.py; exit $?"], TRACKER, SECOND, False),
        (["./start.sh"], (PYTHON, ["python", "agent.py"]), SECOND, False),
    ],
)
def test_behind_a_wrapper_a_detached_program_that_the_command_names_counts(
    programs: Programs, command: list[str], left: tuple[str, list[str]], group: int, found: bool
) -> None:
    assert bool(programs.find(("/usr/bin/dash", command), left, command, group)) is found


@pytest.mark.parametrize("code", [0, 3])
def test_the_supervisor_logs_a_successor(
    world: World,
    supervise: Callable[..., Harness],
    monkeypatch: pytest.MonkeyPatch,
    programs: Programs,
    code: int,
) -> None:
    programs.files = {AGENT: PYTHON, 20: PYTHON}
    programs.argvs = {AGENT: ["python", "agent.py"], 20: ["python", "agent.py"]}
    harness = supervise()
    world.add(20, OWN_PID, "python")
    world.wait_results.append((AGENT, exited(code)))
    del world.processes[AGENT]
    harness.receive(CHLD)
    assert bool(harness.lines("while python (pid 20) runs the same program")) is (code == 0)
    assert harness.lines("left processes behind")


def test_a_failure_to_look_for_a_successor_delays_nothing(
    world: World, supervise: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(successor, "find", fail)
    harness = supervise()
    world.add(20, OWN_PID, "python")
    world.wait_results.append((AGENT, exited(0)))
    harness.receive(CHLD)
    assert harness.supervisor.lifecycle.state == "lingering"


def test_the_main_process_that_takes_over_is_the_program(world: World, programs: Programs) -> None:
    from entrypoint.init.main_process import MainProcess

    programs.files = {AGENT: PYTHON, 20: NODE}
    agent = MainProcess(AGENT, "agent")
    assert agent.program.file == PYTHON
    agent.named = world.add(20, OWN_PID, "node")
    assert agent.hand_over()
    assert agent.program.file == NODE

"""What a wrapper does once its recipients have exited, among processes that are made up."""

from __future__ import annotations

import pytest

from entrypoint.init import dispositions, foreground, procfs, tree
from entrypoint.init.lifecycle import CLEANING, EXITING, RESTARTING, SERVING, WAITING, WORKING
from entrypoint.init.procfs import Process
from entrypoint.init.wrapper import Wrapper

SHELL, INNER, AGENT, TAIL, NEW = 10, 11, 12, 13, 14
TERM = 15


class World:
    """A shell with another wrapper below it, an agent behind both, and an older process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.processes = {
            SHELL: Process(SHELL, "sh", 1, 1, 1),
            INNER: Process(INNER, "sh", SHELL, 1, 2),
            AGENT: Process(AGENT, "python", INNER, 1, 3),
        }
        self.argvs = {AGENT: ["python", "agent.py"]}
        self.channel = b"do_wait"
        monkeypatch.setattr(tree, "everything", lambda: dict(self.processes))
        monkeypatch.setattr(procfs, "argv_of", lambda pid: self.argvs.get(pid, []))
        monkeypatch.setattr(procfs, "program_names", lambda process: {process.name})
        monkeypatch.setattr(procfs, "wait_channel", lambda pid: self.channel)
        self.handling: set[int] = set()
        monkeypatch.setattr(dispositions, "handles", lambda process, _: process.pid in self.handling)

    def wrapper(self) -> Wrapper:
        """Return it as it is when the stop signal is sent; then the agent exits."""
        made = Wrapper(self.processes[SHELL], [self.processes[AGENT]], TERM, tree.everything())
        del self.processes[AGENT]
        return made

    def look(self, made: Wrapper) -> tuple[str, list[int]]:
        what, to_signal = made.look()
        return what, [process.pid for process in to_signal]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_without_children_it_is_exiting(world: World) -> None:
    made = world.wrapper()
    assert world.look(made) == (EXITING, [SHELL])  # the other wrapper is no reason to stay
    del world.processes[INNER]
    assert world.look(made) == (EXITING, [SHELL])


@pytest.mark.parametrize("channel", [b"0", b""])  # where it runs, and where the kernel does not show it
@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("pid", [SHELL, INNER])
def test_a_wrapper_that_runs_itself_is_working(world: World, pid: int, beside: bool, channel: bytes) -> None:
    if beside:
        world.processes[TAIL] = Process(TAIL, "tail", SHELL, 1, 4)
    made = world.wrapper()
    world.processes[pid].waits = False
    world.channel = channel
    assert world.look(made) == (WORKING, [])


def test_it_waits_for_an_older_child(world: World) -> None:
    world.processes[TAIL] = Process(TAIL, "tail", SHELL, 1, 4)
    made = world.wrapper()
    assert world.look(made) == (WAITING, [SHELL])


@pytest.mark.parametrize(("channel", "expected"), [(b"do_wait", WAITING), (b"", WAITING), (b"do_poll", EXITING)])
def test_with_an_older_child_it_waits_unless_it_does_something_else(
    world: World, channel: bytes, expected: str
) -> None:
    world.processes[TAIL] = Process(TAIL, "tail", SHELL, 1, 4)
    made = world.wrapper()
    world.channel = channel
    assert world.look(made)[0] == expected


@pytest.mark.parametrize("pid", [SHELL, INNER])
@pytest.mark.parametrize(
    ("older", "sleeps", "expected"),
    [
        ("python", [], CLEANING),
        ("tail", [], WAITING),
        ("python", ["1"], CLEANING),
        ("tail", ["0.2"], CLEANING),
        ("python", ["5"], WAITING),
        ("python", ["0.2", "5"], WAITING),
        ("python", ["1m"], WAITING),
    ],
)
def test_shell_with_a_trap_for_exit_may_wait_in_it(
    world: World, monkeypatch: pytest.MonkeyPatch, pid: int, older: str, sleeps: list[str], expected: str
) -> None:
    monkeypatch.setattr(foreground, "has_exit_trap", lambda process: process.pid == pid)
    world.processes[TAIL] = Process(TAIL, older, SHELL, 1, 4)
    made = world.wrapper()
    for number, sleep in enumerate(sleeps, NEW):
        world.processes[number] = Process(number, "sleep", SHELL, 1, 5)
        world.argvs[number] = ["sleep", sleep]
    assert world.look(made) == (expected, [SHELL])


@pytest.mark.parametrize("handling", [False, True])
def test_program_that_it_starts_after_the_stop_may_be_a_server(world: World, handling: bool) -> None:
    made = world.wrapper()
    world.processes[NEW] = Process(NEW, "python", SHELL, 1, 5)
    world.argvs[NEW] = ["python", "server.py"]
    world.handling = {NEW} if handling else set()
    assert world.look(made) == ((SERVING, [NEW, SHELL]) if handling else (WORKING, []))


def test_program_in_a_language_whose_runtime_handles_the_signal_may_be_clean_up(world: World) -> None:
    made = world.wrapper()
    world.processes[NEW] = Process(NEW, "node", SHELL, 1, 5)
    world.handling = {NEW}
    assert world.look(made) == (WORKING, [NEW])
    world.processes[NEW + 1] = Process(NEW + 1, "python", SHELL, 1, 5)
    world.handling = {NEW, NEW + 1}
    assert world.look(made) == (SERVING, [NEW, NEW + 1, SHELL])


@pytest.mark.parametrize("handling", [False, True])
def test_program_that_it_executes_after_the_stop_may_be_a_server(world: World, handling: bool) -> None:
    made = world.wrapper()
    world.argvs[SHELL] = ["python", "server.py"]
    world.processes[SHELL].waits = False
    world.handling = {SHELL} if handling else set()
    assert world.look(made) == ((SERVING, [SHELL]) if handling else (WORKING, []))


def test_data_store_that_it_waits_for_is_stopped_with_it(world: World) -> None:
    world.processes[TAIL] = Process(TAIL, "redis-server", SHELL, 1, 4)
    made = world.wrapper()
    assert world.look(made) == (WAITING, [TAIL, SHELL])


def test_it_waits_for_sleep(world: World) -> None:
    made = world.wrapper()
    world.processes[NEW] = Process(NEW, "sleep", SHELL, 1, 5)
    assert world.look(made) == (WAITING, [SHELL])


def test_something_new_is_clean_up(world: World) -> None:
    world.processes[TAIL] = Process(TAIL, "tail", SHELL, 1, 4)
    made = world.wrapper()
    world.processes[NEW] = Process(NEW, "upload", SHELL, 1, 5)
    world.argvs[NEW] = ["upload"]
    assert world.look(made) == (WORKING, [])


def test_the_same_program_again_is_no_clean_up(world: World) -> None:
    made = world.wrapper()
    world.processes[NEW] = Process(NEW, "python", INNER, 1, 5)
    world.argvs[NEW] = ["python", "agent.py"]
    assert world.look(made) == (RESTARTING, [NEW, SHELL])


@pytest.mark.parametrize("handles", [True, False])
def test_the_same_program_with_other_arguments_is_clean_up_unless_it_handles_the_signal(
    world: World, handles: bool
) -> None:
    made = world.wrapper()
    world.processes[NEW] = Process(NEW, "python", INNER, 1, 5)
    world.argvs[NEW] = ["python", "agent.py", "--once"]
    world.handling = {NEW} if handles else set()
    for _ in range(2):
        assert world.look(made) == ((RESTARTING, [NEW, SHELL]) if handles else (WORKING, []))


def test_the_same_program_with_other_arguments_is_no_clean_up_the_second_time(world: World) -> None:
    made = world.wrapper()
    for number in (1, 2):
        world.processes[NEW] = Process(NEW, "python", INNER, 1, 5 + number)
        world.argvs[NEW] = ["python", "agent.py", str(number)]
        assert world.look(made)[0] == (WORKING if number == 1 else RESTARTING)


def test_a_program_whose_argv_could_not_be_read_is_not_taken_for_another_one(world: World) -> None:
    world.argvs.clear()
    made = world.wrapper()
    world.processes[NEW] = Process(NEW, "python", SHELL, 1, 5)
    assert world.look(made) == (WORKING, [])

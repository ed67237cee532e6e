"""Which children a shell waits for in its foreground. With real shells: tests/process1/test_relays.py."""

from __future__ import annotations

import os
import signal

import pytest

from entrypoint.init import dispositions, foreground, procfs
from entrypoint.init.procfs import Process

INT, QUIT, TERM, XCPU = (int(getattr(signal, f"SIG{name}")) for name in "INT QUIT TERM XCPU".split())
NULL = ("/dev/null", os.O_RDWR, 24)
JOBS = ("/dev/null", os.O_RDONLY, 24)  # what a shell opens for a background job
PIPE = ("pipe:[1]", os.O_RDONLY, 9)
SHELL = 10


def bits(*numbers: int) -> int:
    return sum(1 << number - 1 for number in numbers)


class Shell:
    """A shell, 10, and its children, each with its program, masks and stdin."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.programs = {SHELL: "bash"}
        self.masks: dict[int, tuple[int, int, int] | None] = {SHELL: (0, bits(QUIT), bits(INT, TERM))}
        self.stdin: dict[int, tuple[str, int, int] | None] = {SHELL: NULL}
        self.where = b"do_wait"
        self.children: list[Process] = []
        monkeypatch.setattr(procfs, "program_names", lambda process: frozenset({self.programs[process.pid]}))
        monkeypatch.setattr(dispositions, "masks", lambda pid: self.masks[pid])
        monkeypatch.setattr(procfs, "opened", lambda pid, _: self.stdin[pid])
        monkeypatch.setattr(procfs, "wait_channel", lambda _: self.where)

    def add(
        self,
        program: str = "agent",
        *,
        blocked: int = 0,
        ignored: int = 0,
        caught: int = bits(INT, TERM),
        stdin: tuple[str, int, int] | None = NULL,
        group: int = SHELL,
    ) -> int:
        pid = 11 + len(self.children)
        self.children.append(Process(pid, program, SHELL, group, pid))
        self.programs[pid], self.masks[pid], self.stdin[pid] = program, (blocked, ignored, caught), stdin
        return pid

    def foreground(self) -> list[int]:
        shell = Process(SHELL, "shell", 1, SHELL, 1)
        return [child.pid for child in foreground.children(shell, self.children)]


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(monkeypatch)


BOTH = bits(INT, QUIT)
ALL = bits(*range(1, 32)) - bits(signal.SIGKILL, signal.SIGSTOP)


@pytest.mark.parametrize(
    ("program", "blocked", "ignored", "caught", "expected"),
    [
        ("agent", 0, 0, bits(INT), True),
        ("agent", 0, BOTH, 0, False),
        ("agent", 0, bits(QUIT), bits(INT), False),  # uvicorn as a background job
        ("agent", BOTH, 0, 0, False),  # started with both blocked
        ("agent", ALL, 0, bits(INT, TERM), True),  # starts a thread
        ("agent", ALL, BOTH, bits(TERM), False),
        ("node", ALL, 0, bits(INT, TERM), True),
        ("bash", 0, bits(QUIT), bits(INT), True),
        ("bash", 0, BOTH, 0, False),
        ("zsh", bits(INT), bits(QUIT), 0, True),
        ("agent", 0, 0, BOTH, True),  # by its stdin
        ("node", 0, 0, bits(INT), True),
        ("fish", 0, bits(QUIT), bits(INT), True),
    ],
)
def test_masks_of_a_child_show_whether_it_is_in_the_foreground(
    shell: Shell, program: str, blocked: int, ignored: int, caught: int, expected: bool
) -> None:
    pid = shell.add(program, blocked=blocked, ignored=ignored, caught=caught)
    assert shell.foreground() == [pid] * expected


def test_what_the_shell_itself_ignores_is_no_evidence(shell: Shell) -> None:
    shell.masks[SHELL] = (0, BOTH, 0)
    assert shell.foreground() == []
    shell.add(ignored=bits(INT), caught=0)
    assert shell.foreground() == [11]
    shell.add(ignored=BOTH, stdin=JOBS)  # then its stdin tells
    assert shell.foreground() == [11]
    shell.add(ignored=BOTH)
    assert shell.foreground() == [11, 13]


@pytest.mark.parametrize(
    ("of_shell", "of_child", "expected"),
    [
        (NULL, NULL, True),
        (PIPE, PIPE, True),
        (NULL, JOBS, False),
        (PIPE, JOBS, False),
        (JOBS, JOBS, False),  # not known
        (PIPE, NULL, False),
        (None, PIPE, False),
        (PIPE, None, False),
    ],
)
@pytest.mark.parametrize("program", ["node", "fish"])
def test_stdin_of_a_child_decides_where_masks_do_not(
    shell: Shell,
    program: str,
    of_shell: tuple[str, int, int] | None,
    of_child: tuple[str, int, int] | None,
    expected: bool,
) -> None:
    shell.stdin[SHELL] = of_shell
    pid = shell.add(program, stdin=of_child)
    assert shell.foreground() == [pid] * expected


@pytest.mark.parametrize(
    ("program", "where", "blocked", "expected"),
    [
        ("dash", b"do_wait", 0, [12]),  # the newer one
        ("dash", b"sigsuspend", 0, []),
        ("sh", b"do_wait", 0, [12]),
        ("bash", b"do_wait", 0, []),
        ("zsh", b"sigsuspend", bits(INT), [12]),
        ("zsh", b"sigsuspend", 0, []),
        ("zsh", b"do_wait", bits(INT), []),
    ],
)
def test_the_way_in_which_a_shell_waits_decides_where_nothing_else_does(
    shell: Shell, program: str, where: bytes, blocked: int, expected: list[int]
) -> None:
    shell.programs[SHELL], shell.where = program, where
    shell.masks[SHELL] = (blocked, 0, bits(INT, TERM))
    shell.stdin[SHELL] = JOBS
    for _ in range(2):
        shell.add("node", stdin=JOBS)
    assert shell.foreground() == expected
    known = shell.add()
    assert shell.foreground() == [known], "what is certain goes before what is not"


@pytest.mark.parametrize(
    ("program", "of_shell", "of_child", "expected"),
    [
        ("bash", PIPE, JOBS, True),
        ("mksh", PIPE, JOBS, False),
        ("mksh", NULL, JOBS, False),
        ("mksh", PIPE, PIPE, True),
        ("mksh", JOBS, JOBS, True),  # not known
        ("lksh", PIPE, JOBS, False),
    ],
)
def test_with_traps_of_its_own_mksh_leaves_a_job_int_and_quit(
    shell: Shell,
    program: str,
    of_shell: tuple[str, int, int],
    of_child: tuple[str, int, int],
    expected: bool,
) -> None:
    shell.programs[SHELL], shell.stdin[SHELL] = program, of_shell
    pid = shell.add(stdin=of_child)
    assert shell.foreground() == [pid] * expected


def test_fish_runs_no_handler_while_it_waits_for_a_job(shell: Shell) -> None:
    shell.programs[SHELL] = "fish"
    job = shell.add(blocked=BOTH)
    shell.add(blocked=BOTH, group=99)
    assert shell.foreground() == [job]
    sleep = shell.add("sleep", caught=0)
    assert shell.foreground() == [sleep], "it is in a loop"


@pytest.mark.parametrize(
    ("shell_program", "program", "call", "expected"),
    [
        ("bash", "agent", b"61 0xffffffff 0x7ffe 0x0 0x0 0x0 0x0 0x7ffe 0x7f0d", True),  # setpgid(2) of its own
        ("bash", "bash", b"61 0xffffffff 0x7ffe 0x0 0x0 0x0 0x0 0x7ffe 0x7f0d", True),
        ("bash", "timeout", b"61 0xffffffff 0x7ffe 0xa 0x0 0x0 0x0 0x7ffe 0x7f0d", None),  # WUNTRACED: job control
        ("bash", "bash", b"61 0xffffffff 0x7ffe 0xa 0x0 0x0 0x0 0x7ffe 0x7f0d", None),
        ("bash", "agent", b"", None),  # not allowed
        ("bash", "agent", b"running", None),
        ("bash", "timeout", b"running", True),
        ("ksh", "timeout", b"61 0xffffffff 0x7ffe 0xa 0x0 0x0 0x0 0x7ffe 0x7f0d", True),
        ("ksh", "agent", b"", None),
        ("dash", "agent", b"", True),  # by how it waits
    ],
)
def test_child_in_a_group_of_its_own_may_be_a_job(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, shell_program: str, program: str, call: bytes, expected: bool | None
) -> None:
    def read(path: str) -> bytes:
        assert path == f"/proc/{SHELL}/syscall"
        if not call:
            raise PermissionError
        return call

    shell.programs[SHELL] = shell_program
    monkeypatch.setattr(procfs, "read_file", read)
    monkeypatch.setattr(procfs, "is_shell", lambda _: True)
    monkeypatch.setattr(dispositions, "handles", lambda _, number: number == TERM)
    pid = shell.add(program, group=11)
    ignoring = shell.add(program, group=12, ignored=bits(INT), caught=0)  # a job, whatever its group
    assert shell.foreground() == ([pid] if expected else [])
    root = Process(SHELL, "shell", 1, SHELL, 1)
    unsure = [child.pid for child in foreground.unsure(root, shell.children, TERM)]
    assert unsure == ([] if expected else [pid])
    assert ignoring not in unsure
    assert foreground.unsure(root, shell.children, QUIT) == []
    shell.masks[SHELL] = None
    assert foreground.unsure(root, shell.children, TERM) == []


def test_nothing_is_known_without_masks(shell: Shell) -> None:
    pid = shell.add()
    shell.masks[pid] = None
    assert shell.foreground() == []
    shell.masks[SHELL] = None
    assert shell.foreground() == []


@pytest.mark.parametrize(
    ("handled", "expected"), [({TERM}, True), ({TERM, XCPU}, False), (set(), False), ({XCPU}, False)]
)
def test_trap_for_exit_makes_other_traps_uncertain(
    monkeypatch: pytest.MonkeyPatch, handled: set[int], expected: bool
) -> None:
    monkeypatch.setattr(dispositions, "handles", lambda _, number: number in handled)
    assert foreground.has_trap(Process(SHELL, "bash", 1, SHELL, 1), TERM) is expected


@pytest.mark.parametrize(
    ("program", "handles", "expected"),
    [("bash", True, [11]), ("bash", False, []), ("bash", None, []), ("python3", True, [])],
)
def test_only_what_a_shell_that_handles_the_signal_waits_for_is_before_its_trap(
    monkeypatch: pytest.MonkeyPatch, shell: Shell, program: str, handles: bool | None, expected: list[int]
) -> None:
    of_shell = Process(SHELL, program, 1, SHELL, 1)
    monkeypatch.setattr(procfs, "is_shell", lambda process: process.name == "bash")
    monkeypatch.setattr(dispositions, "handles", lambda *_: handles)
    assert foreground.behind_trap(of_shell, [], TERM) == []
    shell.add()
    shell.add(ignored=bits(INT, QUIT))
    assert [child.pid for child in foreground.behind_trap(of_shell, shell.children, TERM)] == expected

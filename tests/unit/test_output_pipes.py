"""Whether a program only waits for its child's output. With real launchers in Node and PHP: tests/field."""

from __future__ import annotations

import errno
import os
import posix
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from entrypoint.init import output_pipes, procfs
from entrypoint.init.output_pipes import copies_output
from entrypoint.init.procfs import Process
from tests.support.init import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

POLL, EPOLL = b"poll_schedule", b"ep"
GONE = Process(10_000_001, "gone", 1, 20, 0)
BOTH = "stdout=subprocess.PIPE, stderr=subprocess.PIPE"
ON_A_LOOP = """
async def main():
    p = await asyncio.create_subprocess_exec({command}, {pipes})
    {more}
    await asyncio.gather(*(stream.read() for stream in (p.stdout, p.stderr) if stream))
asyncio.run(main())
"""


def on_a_loop(*, command: str = "'sleep', '60'", pipes: str = BOTH, more: str = "pass") -> str:
    return ON_A_LOOP.format(command=command, pipes=pipes, more=more)


@pytest.fixture
def start() -> Iterator[Callable[..., tuple[Process, Process]]]:
    """Start Python code; return it, once it waits in the kernel function `where`, and its child."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(code: str, where: bytes, **more: Any) -> tuple[Process, Process]:
        imports = "import asyncio, os, select, socket, subprocess\n"
        options = {"stdin": subprocess.DEVNULL, **more}
        process = subprocess.Popen([sys.executable, "-c", imports + code], start_new_session=True, **options)
        started.append(process)
        [child] = until(lambda: procfs.children(process.pid), "a child")
        # The child of a launcher on an event loop may run Python code before its exec.
        until(lambda: "python" not in os.path.basename(procfs.executable(child.pid)), "its exec")
        until(lambda: where in procfs.wait_channel(process.pid), f"a process in {where!r}")
        until(lambda: (seen := procfs.look(child.pid)) is not None and seen.waits, "its child to sleep")
        parent = procfs.look(process.pid)
        assert parent is not None
        return parent, child

    yield begin
    for process in started:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


POPEN = f"p = subprocess.Popen(['sleep', '60'], {BOTH})\n"
EPOLL_OF = POPEN + "epoll = select.epoll(); epoll.register(p.stdout, 1); epoll.register(p.stderr, 1)\n"


@pytest.mark.parametrize(
    ("code", "where", "expected"),
    [
        ("subprocess.run(['sleep', '60'], capture_output=True)", POLL, True),
        ("subprocess.run(['sleep', '60'], capture_output=True, timeout=60)", POLL, False),
        (POPEN + "select.select([p.stdout, p.stderr], [], [])", POLL, True),
        (POPEN + "select.select([p.stdout, p.stderr], [], [], 60)", POLL, False),
        ("reader, writer = os.pipe()\nsubprocess.run(['sleep', '60'], capture_output=True)", POLL, True),
        ("near, far = socket.socketpair()\nsubprocess.run(['sleep', '60'], capture_output=True)", POLL, False),
        (POPEN + "poll = select.poll(); poll.register(os.eventfd(0), 1); poll.poll()", POLL, True),
        (POPEN + "poll = select.poll(); poll.register(os.open('/dev/ptmx', os.O_RDWR), 1); poll.poll()", POLL, False),
        (EPOLL_OF + "epoll.poll()", EPOLL, True),
        (EPOLL_OF + "near, far = socket.socketpair(); epoll.register(near, 1); epoll.poll()", EPOLL, True),
        (EPOLL_OF + "pair = socket.socketpair(); [epoll.register(end, 1) for end in pair]; epoll.poll()", EPOLL, False),
        (EPOLL_OF + "reader, writer = os.pipe(); epoll.register(reader, 1); epoll.poll()", EPOLL, True),
        (on_a_loop(), EPOLL, True),
        (on_a_loop(pipes="stdout=subprocess.PIPE, stderr=subprocess.STDOUT"), EPOLL, True),
        (on_a_loop(pipes="stdout=subprocess.PIPE"), EPOLL, False),
        (on_a_loop(more="timer = asyncio.ensure_future(asyncio.sleep(60))"), EPOLL, False),
        (on_a_loop(more="server = await asyncio.start_server(print, '127.0.0.1', 0)"), EPOLL, False),
        (on_a_loop(more="pair = socket.socketpair(); asyncio.get_running_loop().add_reader(pair[0], print)"), EPOLL,
         False),
        (on_a_loop(pipes=BOTH + ", stdin=subprocess.PIPE"), EPOLL, True),
        (on_a_loop(pipes=BOTH + ", stdin=subprocess.PIPE", command="'cat'"), EPOLL, False),
        (on_a_loop(pipes=BOTH + ", stdin=subprocess.PIPE", command="'sh', '-c', 'cat; true'"), EPOLL, False),
        (on_a_loop(pipes=BOTH + ", stdin=subprocess.PIPE", command="'sh', '-c', 'sleep 60; true'"), EPOLL, True),
        (on_a_loop(pipes=BOTH + ", stdin=subprocess.PIPE", command="'bash', '-c', 'sleep 60 </dev/null; true'"), EPOLL,
         True),
    ],
)  # fmt: skip
def test_launcher_only_waits_for_its_childs_output(
    start: Callable[..., tuple[Process, Process]], code: str, where: bytes, expected: bool
) -> None:
    parent, child = start(code, where)
    until(lambda: copies_output(parent, child) is expected, "the answer")


def test_what_waits_for_its_own_stdin_too_is_no_launcher(start: Callable[..., tuple[Process, Process]]) -> None:
    code = POPEN + "select.select([0, p.stdout, p.stderr], [], [])"
    assert not copies_output(*start(code, POLL, stdin=subprocess.PIPE))


def test_nothing_is_known_of_a_process_that_has_exited() -> None:
    assert not copies_output(GONE, GONE)
    assert output_pipes._is_read(GONE, "pipe:[1]")
    assert output_pipes._system_call(GONE.pid) == [-1]


def test_what_an_event_loop_watches_is_not_known_where_no_descriptor_is_left(
    monkeypatch: pytest.MonkeyPatch, start: Callable[..., tuple[Process, Process]]
) -> None:
    parent, child = start(EPOLL_OF + "epoll.poll()", EPOLL)
    until(lambda: copies_output(parent, child), "a launcher")

    def read_file(path: str, *_: int) -> bytes:
        if "/fdinfo/" in path:
            raise OSError(errno.EMFILE, "Too many open files", path)
        return original(path)

    original = procfs.read_file
    monkeypatch.setattr(procfs, "read_file", read_file)
    assert not copies_output(parent, child)


@pytest.mark.parametrize(
    ("work", "where", "expected"),
    [
        ("lock.acquire()", b"futex", True),
        ("p.wait()", b"do_wait", True),
        ("lock.acquire(timeout=60)", b"futex", False),
        ("time.sleep(60)", b"nanosleep", False),
        ("while True: pass", b"0", False),
    ],
)
def test_one_whose_other_threads_may_work_is_no_launcher(
    start: Callable[..., tuple[Process, Process]], work: str, where: bytes, expected: bool
) -> None:
    """Such as an agent with its work in the executor of its event loop, or in a worker thread of Node."""
    thread = f"import threading, time\nlock = threading.Lock(); lock.acquire()\ndef work():\n    {work}\n"
    begin = "threading.Thread(target=work, daemon=True).start()\n"
    parent, child = start(thread + POPEN + begin + "p.communicate()", POLL)

    def waits() -> bool:
        tasks = [int(task) for task in os.listdir(f"/proc/{parent.pid}/task")]
        return len(tasks) == 2 and all(where in procfs.wait_channel(tid) for tid in tasks if tid != parent.pid)

    until(waits, "its thread")
    until(lambda: copies_output(parent, child) is expected, "the answer")


def test_one_whose_threads_are_not_known_is_no_launcher(
    monkeypatch: pytest.MonkeyPatch, start: Callable[..., tuple[Process, Process]]
) -> None:
    parent, child = start("subprocess.run(['sleep', '60'], capture_output=True)", POLL)
    assert copies_output(parent, child)
    monkeypatch.setattr(output_pipes, "MAX_TASKS", 0)
    assert not copies_output(parent, child)


def test_an_agent_that_has_closed_the_stdin_of_its_helper_is_no_launcher(
    start: Callable[..., tuple[Process, Process]],
) -> None:
    """It has put its question, and reads the answer: an agent that runs another agent's command, for example."""
    pipes = "stdin=reader, stdout=subprocess.PIPE, stderr=subprocess.PIPE"
    more = "os.close(reader); {}"
    code = on_a_loop(pipes=pipes).replace("    p =", "    reader, writer = os.pipe()\n    p =")
    closed = code.replace("    pass\n", f"    {more.format('os.close(writer)')}\n")
    kept = code.replace("    pass\n", f"    {more.format('writer')}\n")
    parent, child = start(kept, EPOLL)
    until(lambda: copies_output(parent, child), "a launcher")
    parent, child = start(closed, EPOLL)
    until(lambda: _has_closed_stdin(parent, child), "its end of the pipe to be closed")
    assert not copies_output(parent, child)


@pytest.mark.parametrize(("reads", "expected"), [("cat <&{}; true", False), ("sleep 60; true", True)])
def test_a_child_that_reads_another_pipe_of_both_is_a_helper(
    start: Callable[..., tuple[Process, Process]], reads: str, expected: bool
) -> None:
    code = on_a_loop(pipes=BOTH + ", pass_fds=(reader,)", command="'sh', '-c', command.format(reader)")
    code = code.replace("    p =", f"    reader, writer = os.pipe(); command = {reads!r}\n    p =")
    parent, child = start(code, EPOLL)
    until(lambda: procfs.children(child.pid), "the child's program")
    until(lambda: copies_output(parent, child) is expected, "the answer")


def test_one_that_shares_many_pipes_with_its_child_is_no_launcher(
    monkeypatch: pytest.MonkeyPatch, start: Callable[..., tuple[Process, Process]]
) -> None:
    code = "reader, writer = os.pipe()\np = subprocess.Popen(['sleep', '60'], pass_fds=(reader,), " + BOTH + ")\n"
    parent, child = start(code + "p.communicate()", POLL)
    assert copies_output(parent, child)
    monkeypatch.setattr(output_pipes, "MAX_SHARED", 0)
    assert not copies_output(parent, child)


def _has_closed_stdin(parent: Process, child: Process) -> bool:
    return procfs.descriptor_target(child.pid, 0) not in (procfs.descriptors(parent.pid) or {})


@pytest.mark.parametrize(
    ("wait", "expected"),
    [
        ("select.select([p.stdout, p.stderr], [], [])", False),
        ("p.communicate()", True),
        ("poll = select.poll(); [poll.register(fd) for fd in (p.stdout, p.stderr, named)]; poll.poll()", False),
    ],
    ids=["select", "poll", "poll of three"],
)
def test_what_may_wait_for_a_named_pipe_is_no_launcher(
    tmp_path: Path, start: Callable[..., tuple[Process, Process]], wait: str, expected: bool
) -> None:
    os.mkfifo(tmp_path / "fifo")
    code = f"named = os.open('{tmp_path}/fifo', os.O_RDWR)\n{POPEN}{wait}"
    code = code.replace("register(fd)", "register(fd, select.POLLIN)")
    parent, child = start(code, POLL)
    assert copies_output(parent, child) is expected


def test_a_file_that_is_written_or_was_read_is_not_waited_for(
    tmp_path: Path, start: Callable[..., tuple[Process, Process]]
) -> None:
    (tmp_path / "text").write_text("text")
    code = f"log = open('{tmp_path}/log', 'a'); text = open('{tmp_path}/text'); text.read()\n{POPEN}"
    assert copies_output(*start(code + "select.select([p.stdout, p.stderr], [], [])", POLL))


def test_what_selects_and_has_a_terminal_may_wait_for_that(start: Callable[..., tuple[Process, Process]]) -> None:
    near, far = os.openpty()
    try:
        terminal = {"stdin": far, "stdout": far, "stderr": far}
        assert not copies_output(*start(POPEN + "select.select([0, p.stdout, p.stderr], [], [])", POLL, **terminal))
        assert copies_output(*start(POPEN + "p.communicate()", POLL, **terminal))
    finally:
        os.close(near)
        os.close(far)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"3 0x0 0xffb0 0x1 0x0 0x0 0x0 0xffa7c8e0 0xf7f46cae", -1),
        (b"0 0x0 0x7f9b 0x1 0x0 0x0 0x0 0x7ffca7c8d480 0x7f9b91246cae", 0),
        (b"-1 0x7ffca7c8d480 0x7f9b91246cae", -1),
        (b"running", -1),
        (b"", -1),
    ],
    ids=["32 bits", "64 bits", "in no call", "running", "nothing"],
)
def test_system_calls_of_a_program_for_32_bits_are_not_known(
    monkeypatch: pytest.MonkeyPatch, line: bytes, expected: int
) -> None:
    monkeypatch.setattr(procfs, "read_file", lambda _: line)
    assert output_pipes._system_call(7)[0] == expected


def test_one_with_many_descriptors_is_no_launcher(
    monkeypatch: pytest.MonkeyPatch, start: Callable[..., tuple[Process, Process]]
) -> None:
    parent, child = start("subprocess.run(['sleep', '60'], capture_output=True)", POLL)
    assert copies_output(parent, child)
    monkeypatch.setattr(output_pipes, "MAX_DESCRIPTORS", 2)
    assert not copies_output(parent, child)


@pytest.mark.parametrize("name", ["MAX_TASKS", "MAX_PROCESSES", "MAX_DESCRIPTORS"])
def test_a_child_with_too_much_to_look_at_may_read_its_stdin(
    monkeypatch: pytest.MonkeyPatch, start: Callable[..., tuple[Process, Process]], name: str
) -> None:
    code = on_a_loop(pipes=BOTH + ", stdin=subprocess.PIPE", command="'sh', '-c', 'sleep 60; true'")
    parent, child = start(code, EPOLL)
    until(lambda: copies_output(parent, child), "a launcher")
    stdin = procfs.descriptor_target(child.pid, 0)
    assert not output_pipes._is_read(child, stdin)
    monkeypatch.setattr(output_pipes, name, 0)
    assert output_pipes._is_read(child, stdin)


def test_a_child_whose_own_children_are_not_known_may_have_one_that_reads(
    monkeypatch: pytest.MonkeyPatch, start: Callable[..., tuple[Process, Process]]
) -> None:
    code = on_a_loop(pipes=BOTH + ", stdin=subprocess.PIPE", command="'sh', '-c', 'sleep 60; true'")
    parent, child = start(code, EPOLL)
    until(lambda: copies_output(parent, child), "a launcher")
    monkeypatch.setattr(procfs, "children", lambda _: [])
    assert not copies_output(parent, child)


@pytest.mark.parametrize(
    ("code", "where", "expected"),
    [
        ("time.sleep(60)", b"nanosleep", False),
        ("os.read(0, 1)", b"pipe_read", True),
        ("os.read(os.dup(0), 1)", b"pipe_read", True),
        ("fd = os.dup(0); os.close(0); os.read(fd, 1)", b"pipe_read", True),
        ("os.close(0); time.sleep(60)", b"nanosleep", False),
        ("os.read(reader, 1)", b"pipe_read", False),
        ("select.select([reader], [], [])", POLL, True),  # of what it waits for, nothing is known
        ("epoll = select.epoll(); epoll.register(0); epoll.poll()", EPOLL, True),
        ("epoll = select.epoll(); epoll.register(reader); epoll.poll()", EPOLL, False),
        ("epoll = select.epoll(); epoll.register(os.dup(0)); epoll.poll()", EPOLL, True),
        ("threading.Thread(target=os.read, args=(0, 1)).start(); time.sleep(60)", b"nanosleep", True),
        ("while True: pass", b"0", True),  # not known
    ],
)
def test_whether_a_process_may_read_its_stdin(code: str, where: bytes, expected: bool) -> None:
    imports = "import os, select, threading, time; reader, writer = os.pipe()\n"
    program = [sys.executable, "-S", "-c", f"{imports}print(flush=True)\n{code}"]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdin is not None
            stdin = os.readlink(f"/proc/self/fd/{process.stdin.fileno()}")
            process.stdout.readline()
            until(lambda: where in procfs.wait_channel(process.pid), "it to wait")
            known = Process(process.pid, "python", os.getpid(), 1, 0)
            until(lambda: output_pipes._is_read(known, stdin) is expected, "the answer")
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ([22, 3, 0, 8, 0xFFFFFFFF, 0], True),
        ([22, 3, 0, 8, 0xFFFFFFFFFFFFFFFF, 0], True),
        ([22, 3, 0, 8, 100, 0], False),
        ([73, 0, 2, 0, 0, 0], True),
        ([73, 0, 2, 0x7F00, 0, 0], False),
        ([72, 4, 0, 0, 0, 0, 0], True),
        ([63, 0, 0, 0], False),
        ([-1], False),
    ],
)
def test_waits_without_a_timeout_on_arm64(monkeypatch: pytest.MonkeyPatch, call: list[int], expected: bool) -> None:
    monkeypatch.setattr(output_pipes, "WAITS", output_pipes.GENERIC)
    assert output_pipes._is_endless(call) is expected


def test_on_an_architecture_that_is_not_known_nothing_is_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise PermissionError

    monkeypatch.setattr(posix, "uname", refuse)  # by seccomp
    assert output_pipes.waits_of(output_pipes.machine()) == {}
    assert output_pipes.waits_of("aarch64") == output_pipes.GENERIC

"""Messages through the notify socket, with this process as the agent. With real ones: tests/process1/test_notify.py."""

from __future__ import annotations

import _socket
import _thread
import array
import contextlib
import errno
import os
import posix
import resource
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from entrypoint import notify
from entrypoint.init import notify_socket, procfs
from entrypoint.init.main_process import MainProcess
from entrypoint.init.notify_socket import MAX_MESSAGES, MIN_MESSAGES, RETRY_AFTER, NotifySocket
from tests.support.fake_loop import FakeLoop
from tests.support.init import until
from tests.support.world import failing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class FakeConsole:
    """In the console's place."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, level: int, event: str, text: str, **_: object) -> None:
        self.lines.append(f"{level} {event}: {text}")


class Stage:
    """A notify socket and the agent's end of it."""

    def __init__(self, parent: str = "", access: str = "main") -> None:
        # As in `agent_environment`: the `socket` module is not imported in process 1.
        self.inner = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK)
        self.inner.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
        self.inner.bind("")  # a name that the kernel chooses
        self.outer = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.outer.connect(self.inner.getsockname())
        self.loop, self.console = FakeLoop(), FakeConsole()
        self.agent = MainProcess(os.getpid(), "agent")
        self.socket = NotifySocket(
            self.inner,
            parent,
            access,
            self.console,  # type: ignore[arg-type]
            self.loop,  # type: ignore[arg-type]
            lambda: None,
        )

    def send(self, text: str | bytes, *descriptors: int) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        self.outer.sendmsg([text if isinstance(text, bytes) else text.encode()], rights)

    def receive(self, handle: Callable[[dict[str, str]], object]) -> None:
        self.socket.receive(self.agent, lambda fields, _: handle(fields))

    def received(self) -> list[dict[str, str]]:
        """Return the messages that are handled now."""
        found: list[dict[str, str]] = []
        self.receive(found.append)
        return found

    @property
    def is_watched(self) -> bool:
        return self.inner.fileno() in self.loop.readers

    def until_it_is_watched(self) -> None:
        """Wait until the thread is done."""

        def again() -> bool:
            self.socket.resume()
            return self.is_watched

        until(again, "the thread to be done")

    def close(self) -> None:
        self.agent.dispositions.close()
        self.inner.close()
        self.outer.close()


@pytest.fixture
def stages() -> Iterator[Callable[..., Stage]]:
    made: list[Stage] = []

    def make(**more: Any) -> Stage:
        made.append(Stage(**more))
        return made[-1]

    yield make
    for stage in made:
        stage.close()


@pytest.fixture
def stage(stages: Callable[..., Stage]) -> Stage:
    return stages()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    """A descriptor."""
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[socket.socket]:
    """The notify socket of a supervisor above us."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as made:
        made.bind(str(tmp_path / "parent"))
        yield made


def passed_on(parent: socket.socket) -> list[str]:
    """Return the lines that the supervisor above has got."""
    found = []
    try:
        while True:
            found += parent.recv(4096).decode().split("\n")
    except BlockingIOError:
        return found


def test_messages_are_received_in_order_and_once(stage: Stage) -> None:
    for text in ("READY=1", "STATUS=a\nX=b"):
        stage.send(text)
    assert stage.received() == [{"READY": "1"}, {"STATUS": "a", "X": "b"}]
    assert stage.received() == []
    assert stage.is_watched


def test_so_many_messages_are_received_at_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    few = MAX_MESSAGES // 8
    for number in range(few + 1):
        stage.send(f"N={number}")
    with monkeypatch.context() as limited:  # the queue of a socket may hold no more than ten (unix(7))
        limited.setattr(notify_socket, "MAX_MESSAGES", few)
        assert len(stage.received()) == few
    assert stage.received() == [{"N": str(few)}]


def test_after_20_ms_the_messages_behind_a_full_queue_have_to_wait(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify_socket, "MIN_MESSAGES", 2)
    for number in range(4):
        stage.send(f"N={number}")
    first: list[dict[str, str]] = []

    def handle(fields: dict[str, str]) -> None:
        first.append(fields)
        stage.loop.now += 0.007

    stage.receive(handle)
    assert first == [{"N": "0"}, {"N": "1"}, {"N": "2"}]
    assert stage.received() == [{"N": "3"}]


def test_a_full_queue_is_received_however_long_that_takes(stage: Stage) -> None:
    """It may hold the last messages of an agent that has exited."""
    sent: list[dict[str, str]] = []
    while len(sent) < MIN_MESSAGES:
        stage.send(f"N={len(sent)}")
        sent.append({"N": str(len(sent))})
    received: list[dict[str, str]] = []

    def handle(fields: dict[str, str]) -> None:
        received.append(fields)
        stage.loop.now += 60

    stage.receive(handle)
    assert received == sent


@pytest.mark.parametrize(
    "message",
    ["STATUS=" + "x" * notify.MAX_DATAGRAM_BYTES, "READY=1\0STATUS=x\0", "READY=1\0\0", "READY\n=1"],
    ids=["long", "torn", "NULs", "no fields"],
)
def test_malformed_messages_are_ignored(stage: Stage, message: str) -> None:
    stage.send(message)
    stage.send("READY=1")
    assert stage.received() == [{"READY": "1"}]


@pytest.mark.parametrize("with_descriptor", [False, True])
def test_a_message_is_kept_if_there_is_no_memory_to_handle_it(
    stages: Callable[..., Stage], parent: socket.socket, with_descriptor: bool
) -> None:
    """It is handled, passed on and answered by the next attempt that succeeds."""
    stage = stages(parent=parent.getsockname())
    reader, writer = nonblocking_pipe()
    stage.send("READY=1", *[writer] * with_descriptor)
    stage.send("STATUS=last")
    os.close(writer)
    found: list[dict[str, str]] = []
    handle = failing(found.append, *[MemoryError()] * 2)
    for _ in range(2):
        with pytest.raises(MemoryError):
            stage.receive(handle)
        assert (found, passed_on(parent), stage.is_watched) == ([], [], True)
        assert is_open(reader) is with_descriptor
    for _ in range(2):
        stage.receive(handle)
        stage.until_it_is_watched()
    assert found == [{"READY": "1"}, {"STATUS": "last"}]
    assert [line for line in passed_on(parent) if "MAINPID" not in line] == ["READY=1", "STATUS=last"]
    assert not is_open(reader)
    os.close(reader)


def test_a_message_that_cannot_be_handled_for_another_reason_is_dropped(
    stages: Callable[..., Stage], parent: socket.socket
) -> None:
    stage = stages(parent=parent.getsockname())
    reader, writer = nonblocking_pipe()
    for descriptors in ((), (writer,)):
        stage.send("READY=1", *descriptors)
    stage.send("STATUS=last")
    os.close(writer)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^odd$"):
            stage.receive(failing(print, ValueError("odd")))
        stage.until_it_is_watched()
    assert not is_open(reader)
    assert passed_on(parent) == []
    assert stage.received() == [{"STATUS": "last"}]
    os.close(reader)


# --- The socket cannot be read. --------------------------------------------------------------------------------------


class RefusedSocket:
    """In the socket's place: recvmsg(2) fails while there are `errors`."""

    def __init__(self, real: _socket.socket, count: int) -> None:
        self.real, self.left = real, count

    def recvmsg(self, *arguments: int) -> object:
        if self.left:
            self.left -= 1
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        return self.real.recvmsg(*arguments)

    def fileno(self) -> int:
        return self.real.fileno()


def pass_time(stage: Stage) -> float:
    """Go to the next timer; return the seconds until it."""
    when, callback = stage.loop.timers.pop(0)
    waited, stage.loop.now = when - stage.loop.now, when
    callback()
    return waited


def refuse(stage: Stage, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(stage.socket, "_socket", RefusedSocket(stage.inner, count))


def test_a_socket_that_cannot_be_read_is_logged_once_and_read_ever_less_often(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.send("READY=1")
    refuse(stage, monkeypatch, 12)
    waits = []
    for _ in range(12):
        assert stage.received() == []
        assert not stage.is_watched
        waits.append(pass_time(stage))
        assert stage.is_watched
    assert waits == pytest.approx([*(RETRY_AFTER * 2**n for n in range(10)), 60, 60])
    assert [line for line in stage.console.lines if "not-received" in line] == stage.console.lines
    assert len(stage.console.lines) == 1
    assert "Operation not permitted" in stage.console.lines[0]
    assert stage.received() == [{"READY": "1"}]


def test_after_a_success_the_next_failure_is_logged_again_and_is_short(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        stage.send("READY=1")
        refuse(stage, monkeypatch, 1)
        assert stage.received() == []
        assert pass_time(stage) == pytest.approx(RETRY_AFTER)
        assert stage.received() == [{"READY": "1"}]
    assert len(stage.console.lines) == 2


def test_a_socket_that_is_empty_is_not_read(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(stage, monkeypatch, 1)
    assert stage.received() == []
    assert stage.is_watched
    assert stage.console.lines == []


def test_a_deadline_has_the_socket_read_in_a_pause_too(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.send("READY=1")
    refuse(stage, monkeypatch, 2)
    for _ in range(2):
        assert stage.received() == []
    assert len(stage.loop.timers) == 1
    assert stage.received() == [{"READY": "1"}]


def test_the_end_of_a_pause_does_not_disturb_the_thread(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = nonblocking_pipe()
    stage.send("READY=1", writer)
    refuse(stage, monkeypatch, 1)
    assert stage.received() == []
    monkeypatch.setattr(_thread, "start_new_thread", lambda *_: None)
    assert stage.received() == [{"READY": "1"}]
    pass_time(stage)
    assert not stage.is_watched
    os.close(reader)
    os.close(writer)


# --- Descriptors. ---------------------------------------------------------------------------------------------------


def nonblocking_pipe() -> tuple[int, int]:
    return os.pipe2(os.O_NONBLOCK)


def is_open(reader: int) -> bool:
    """Whether any process holds the other end of a pipe."""
    try:
        return os.read(reader, 1) != b""
    except BlockingIOError:
        return True


def opened() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


def test_a_descriptor_is_closed_after_its_message_was_handled(stage: Stage) -> None:
    """That is the answer to BARRIER=1 (sd_notify(3))."""
    reader, writer = nonblocking_pipe()
    stage.send("BARRIER=1", writer)
    os.close(writer)
    handled = []

    def handle(fields: dict[str, str]) -> None:
        handled.append(fields)
        assert is_open(reader)

    stage.receive(handle)
    assert handled == [{"BARRIER": "1"}]
    until(lambda: not is_open(reader), "the pipe to be closed")
    stage.until_it_is_watched()
    os.close(reader)


@pytest.fixture(params=["pipe", "file", "directory", "socket", "eventfd", "a notify socket"])
def descriptor(request: pytest.FixtureRequest, tmp_path: Path, stage: Stage) -> int:
    """A descriptor of any kind. The test closes it."""
    if request.param == "pipe":
        reader, writer = os.pipe()
        os.close(reader)
        return writer
    if request.param == "file":
        return os.open(tmp_path / "any", os.O_RDWR | os.O_CREAT)
    if request.param == "directory":
        return os.open(tmp_path, os.O_RDONLY)
    if request.param == "socket":
        with socket.socket() as unconnected:
            return unconnected.detach()
    if request.param == "eventfd":
        return os.eventfd(0)
    return os.dup(stage.inner.fileno())


@pytest.mark.parametrize("count", [1, 253])
def test_descriptors_of_any_kind_are_not_opened_here(stage: Stage, descriptor: int, count: int) -> None:
    """Up to as many as can be sent at once (SCM_MAX_FD, unix(7)), even where no descriptor is left."""
    stage.send("READY=1", *[descriptor] * count)
    os.close(descriptor)
    before = opened()
    during: list[list[str]] = []
    stage.receive(lambda _: during.append(opened()))
    stage.until_it_is_watched()
    assert during == [before]
    assert opened() == before


def test_a_message_with_descriptors_is_received_where_none_is_left(stage: Stage) -> None:
    reader, writer = nonblocking_pipe()
    stage.send("BARRIER=1", *[writer] * 3)
    stage.send("READY=1")
    os.close(writer)
    found: list[dict[str, str]] = []
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    sender = me()
    with pytest.MonkeyPatch.context() as full:
        full.setattr(procfs, "look", lambda _: sender)  # which opens a file
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limit[1]))
        try:
            stage.receive(found.append)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert found == [{"BARRIER": "1"}]
    stage.until_it_is_watched()
    assert not is_open(reader)
    assert stage.received() == [{"READY": "1"}]
    os.close(reader)


def test_descriptors_are_closed_by_a_thread(stage: Stage, file: int) -> None:
    """The next message is received when the thread is done: closing may take long."""
    before = opened()
    gate = _thread.allocate_lock()
    with gate, pytest.MonkeyPatch.context() as slow:
        start, drop = _thread.start_new_thread, NotifySocket._drop_aside

        def gated(self: NotifySocket) -> None:
            with gate:
                drop(self)

        slow.setattr(
            _thread, "start_new_thread", lambda function, arguments: start(gated, (function.__self__, *arguments))
        )
        stage.send("READY=1", file)
        stage.send("STATUS=next")
        assert stage.received() == [{"READY": "1"}]
        assert stage.received() == []
        assert not stage.is_watched
    stage.until_it_is_watched()
    assert stage.received() == [{"STATUS": "next"}]
    assert opened() == before


def test_a_message_is_received_again_if_the_thread_fails(
    stage: Stage, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NotifySocket, "_drop", failing(NotifySocket._drop, MemoryError()))
    stage.send("READY=1", file)
    for _ in range(2):
        assert stage.received() == [{"READY": "1"}]
        stage.until_it_is_watched()
    assert stage.received() == []


def test_if_no_thread_can_be_had_it_is_tried_again_later(
    stage: Stage, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message was handled, and is not again. The next one waits."""
    errors = [RuntimeError("can't start new thread"), MemoryError()]
    monkeypatch.setattr(_thread, "start_new_thread", failing(_thread.start_new_thread, *errors))
    stage.send("READY=1", file)
    stage.send("STATUS=next")
    assert stage.received() == [{"READY": "1"}]
    for _ in errors:
        assert not stage.is_watched
        assert stage.received() == []
        assert not stage.is_watched
        [(when, callback)] = stage.loop.timers
        assert when == stage.loop.now + RETRY_AFTER
        stage.loop.timers.clear()
        stage.loop.now = when
        callback()
    assert stage.loop.timers == []
    stage.until_it_is_watched()
    assert stage.received() == [{"STATUS": "next"}]


def test_without_memory_for_a_thread_and_a_timer_the_message_is_received_again(
    stage: Stage, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not block those behind it for ever."""
    monkeypatch.setattr(_thread, "start_new_thread", failing(_thread.start_new_thread, MemoryError()))
    monkeypatch.setattr(stage.loop, "call_at", failing(stage.loop.call_at, MemoryError()))
    stage.send("READY=1", file)
    stage.send("STATUS=next")
    found: list[dict[str, str]] = []
    with pytest.raises(MemoryError):
        stage.receive(found.append)
    assert not stage.is_watched
    stage.socket.resume()
    assert stage.is_watched
    stage.receive(found.append)
    assert found == [{"READY": "1"}] * 2
    stage.until_it_is_watched()
    assert stage.received() == [{"STATUS": "next"}]
    assert stage.loop.timers == []


def test_without_memory_for_another_timer_the_message_is_received_again(
    stage: Stage, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_thread, "start_new_thread", failing(_thread.start_new_thread, *[MemoryError()] * 2))
    stage.send("READY=1", file)
    assert stage.received() == [{"READY": "1"}]
    [(_, callback)] = stage.loop.timers
    monkeypatch.setattr(stage.loop, "call_at", failing(stage.loop.call_at, MemoryError()))
    with pytest.raises(MemoryError):
        callback()
    assert stage.received() == [{"READY": "1"}]
    stage.until_it_is_watched()
    assert stage.received() == []


def test_the_thread_wakes_the_loop_by_sigchld(stage: Stage, file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(posix, "kill", lambda pid, number: sent.append((pid, number)))
    stage.send("READY=1", file)
    assert stage.received() == [{"READY": "1"}]
    until(lambda: sent, "the thread to be done")
    assert sent == [(os.getpid(), signal.SIGCHLD)]
    stage.socket.resume()
    assert stage.is_watched


@pytest.mark.parametrize("refused", [1, 2])
def test_where_kill_is_refused_the_thread_wakes_the_loop_by_another_call(
    stage: Stage, file: int, monkeypatch: pytest.MonkeyPatch, refused: int
) -> None:
    """If both are refused, the socket is read again when the loop wakes up for another reason."""
    sent: list[tuple[int, int]] = []

    def refuse(*_: int) -> None:
        sent.append((0, 0))
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(posix, "kill", refuse)
    wake = refuse if refused == 2 else lambda thread, number: sent.append((thread, number))
    monkeypatch.setattr("_signal.pthread_kill", wake)
    stage.send("READY=1", file)
    assert stage.received() == [{"READY": "1"}]
    until(lambda: len(sent) == 2, "the thread to be done")
    assert sent == [(0, 0), (0, 0) if refused == 2 else (_thread.get_ident(), signal.SIGCHLD)]
    stage.socket.resume()
    assert stage.is_watched


@pytest.mark.parametrize(
    "text",
    ["X=" + "x" * notify.MAX_DATAGRAM_BYTES, "READY=1\0\0", "", "READY=1"],
    ids=["long", "NULs", "empty", "stranger"],
)
def test_descriptors_of_ignored_messages_are_closed_too(stage: Stage, text: str) -> None:
    reader, writer = nonblocking_pipe()
    stage.send(text, writer)
    os.close(writer)
    if text == "READY=1":
        stage.agent.pid = 1
    assert stage.received() == []
    until(lambda: not is_open(reader), "the pipe to be closed")
    stage.until_it_is_watched()
    os.close(reader)


# --- Senders. -------------------------------------------------------------------------------------------------------


def test_the_first_stranger_is_logged_as_a_warning(stage: Stage) -> None:
    stage.agent.pid = 1
    for _ in range(2):
        stage.send("READY=1")
        assert stage.received() == []
    [first, second] = stage.console.lines
    who = f"{me().name} (pid {os.getpid()})"
    assert first == f"0 stranger: ignored a message to the notify socket from {who} (--notify-access main)"
    assert second == "2" + first[1:]


def me() -> procfs.Process:
    found = procfs.look(os.getpid())
    assert found is not None
    return found


def test_the_named_main_process_is_known_and_another_one_with_its_pid_is_not(stage: Stage) -> None:
    stage.agent.pid, stage.agent.named = 1, me()
    stage.send("READY=1")
    assert stage.received() == [{"READY": "1"}]
    stage.send("READY=1")
    stage.agent.named.start += 1
    assert stage.received() == []


def test_a_main_process_named_in_one_message_is_known_in_the_next(stage: Stage) -> None:
    """Also if both are received together."""
    found: list[tuple[dict[str, str], int]] = []

    def handle(fields: dict[str, str], sender: procfs.Process) -> None:
        found.append((fields, sender.pid))
        if "MAINPID" in fields:
            stage.agent.name_successor(int(fields["MAINPID"]), ())

    with sender_of("READY=1", stage, before=lambda pid: stage.send(f"MAINPID={pid}")) as child:
        stage.socket.receive(stage.agent, handle)
    assert found == [({"MAINPID": str(child)}, os.getpid()), ({"READY": "1"}, child)]
    assert stage.console.lines == []


@contextlib.contextmanager
def sender_of(message: str, stage: Stage, before: Callable[[int], object] = int) -> Iterator[int]:
    """A child that has sent a message, and lives; yields its pid. `before` is called with that before it sends."""
    name = stage.inner.getsockname()
    line = f"import socket, time; input(); socket.socket(1, 2).sendto({message.encode()!r}, {name!r}); print(); input()"
    argv = [sys.executable, "-u", "-S", "-c", line]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin
        assert child.stdout
        before(child.pid)
        child.stdin.write(b"\n")
        child.stdin.flush()
        child.stdout.readline()
        yield child.pid
        child.kill()


@pytest.mark.parametrize("access", ["main", "all"])
def test_descendants_are_known_with_access_all(stages: Callable[..., Stage], access: str) -> None:
    stage = stages(access=access)
    stage.agent.pid = 1
    with sender_of("READY=1", stage):
        assert stage.received() == ([{"READY": "1"}] if access == "all" else [])


def test_a_sender_that_has_exited_is_logged_by_its_pid(stage: Stage) -> None:
    name = stage.inner.getsockname()
    line = f"import socket; socket.socket(1, 2).sendto(b'READY=1', {name!r})"
    with subprocess.Popen(["python3", "-S", "-c", line]) as child:
        pass
    assert stage.received() == []
    assert f"ignored a message to the notify socket from pid {child.pid}, which is gone (" in stage.console.lines[0]


def test_a_sender_in_another_pid_namespace_is_logged_as_another_container(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel reports the pid of a process that is not in our namespace as 0."""
    monkeypatch.setattr(notify_socket, "_sender_pid", lambda _: 0)
    stage.send("READY=1")
    assert stage.received() == []
    assert "ignored a message to the notify socket from another container (" in stage.console.lines[0]


def test_the_sender_comes_from_the_credentials() -> None:
    """Whatever else comes with a message; a real one always has credentials (SO_PASSCRED)."""
    other = (_socket.SOL_SOCKET, 29, bytes(16))  # SO_TIMESTAMP
    rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, (7).to_bytes(4, sys.byteorder))
    foreign = (_socket.IPPROTO_IP, _socket.SCM_CREDENTIALS, bytes([9] * 12))
    credentials = (_socket.SOL_SOCKET, _socket.SCM_CREDENTIALS, array.array("i", [0x1020304, 12, 13]).tobytes())
    assert notify_socket._sender_pid([other, rights, foreign, credentials]) == 0x1020304
    assert notify_socket._sender_pid([other, rights, foreign]) == 0
    assert notify_socket._sender_pid([]) == 0


def test_without_proc_the_kernel_vouches_for_the_agent(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procfs, "MOUNTED", False)
    stage.send("READY=1")
    found: list[tuple[dict[str, str], procfs.Process]] = []
    stage.socket.receive(stage.agent, lambda *message: found.append(message))
    [(fields, sender)] = found
    assert (fields, sender.pid, sender.name) == ({"READY": "1"}, os.getpid(), "the agent")
    stage.agent.pid = 1
    stage.send("READY=1")
    assert stage.received() == []


# --- A supervisor above. --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "passed"),
    [
        ("READY=1\nMAINPID=7\nWATCHDOG=1\nFDSTORE=1", ["READY=1", "WATCHDOG=1", "MAINPID={}"]),
        ("STATUS=x\nWATCHDOG=trigger", ["STATUS=x", "MAINPID={}"]),
        ("WATCHDOG=trigger", []),
        ("MAINPID=7", []),
    ],
)
def test_some_fields_are_passed_on_to_a_supervisor_above_with_our_pid(
    stages: Callable[..., Stage],
    parent: socket.socket,
    recwarn: pytest.WarningsRecorder,
    message: str,
    passed: list[str],
) -> None:
    stage = stages(parent=parent.getsockname())
    stage.send(message)
    stage.received()
    assert passed_on(parent) == [line.format(os.getpid()) for line in passed]
    assert not recwarn.list  # of a socket left open


def test_a_message_is_passed_on_after_it_was_handled(stages: Callable[..., Stage], parent: socket.socket) -> None:
    stage = stages(parent=parent.getsockname())
    stage.send("READY=1")
    while_handled: list[list[str]] = []
    stage.receive(lambda _: while_handled.append(passed_on(parent)))
    assert while_handled == [[]]
    assert passed_on(parent) == ["READY=1", f"MAINPID={os.getpid()}"]


def test_a_full_queue_of_a_supervisor_above_is_not_waited_for(
    stages: Callable[..., Stage], parent: socket.socket
) -> None:
    stage = stages(parent=parent.getsockname())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other, contextlib.suppress(BlockingIOError):
        while True:
            other.sendto(b"x", socket.MSG_DONTWAIT, parent.getsockname())
    stage.send("READY=1")
    assert stage.received() == [{"READY": "1"}]
    assert "cannot pass a message of the agent on" in stage.console.lines[0]


def test_process_1_passes_on_no_pid(
    stages: Callable[..., Stage], parent: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = stages(parent=parent.getsockname())
    stage.send("READY=1")
    monkeypatch.setattr(posix, "getpid", lambda: 1)
    assert stage.received() == [{"READY": "1"}]
    assert passed_on(parent) == ["READY=1"]


def test_an_unreachable_supervisor_above_is_logged(stages: Callable[..., Stage], tmp_path: Path) -> None:
    stage = stages(parent=str(tmp_path / "none"))
    stage.send("READY=1")
    assert stage.received() == [{"READY": "1"}]
    assert stage.console.lines == [
        f"2 not-passed-on: cannot pass a message of the agent on to '{tmp_path}/none': No such file or directory"
    ]


def test_a_malformed_address_of_a_supervisor_above_is_logged_at_once(stages: Callable[..., Stage]) -> None:
    stage = stages(parent="vsock:2:1")
    assert [line.split(";")[0] for line in stage.console.lines] == [
        "0 not-passed-on: NOTIFY_SOCKET as given to agent-init: 'vsock:2:1' is no address of a socket"
    ]
    stage.send("READY=1")
    assert stage.received() == [{"READY": "1"}]
    assert len(stage.console.lines) == 1

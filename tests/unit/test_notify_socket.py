"""Messages through the notify socket, with this process as the agent. With real ones: tests/process1/test_notify.py."""

from __future__ import annotations

import _socket
import _thread
import array
import contextlib
import os
import signal
import socket
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from entrypoint import notify
from entrypoint.init import notify_socket, procfs
from entrypoint.init.notify_socket import MAX_MESSAGES, RETRY_AFTER, NotifySocket
from tests.support.init import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class FakeLoop:
    """In the loop's place. Its clock stands still unless it is set."""

    def __init__(self) -> None:
        self.now = 0.0
        self.readers: dict[int, Callable[[], object]] = {}
        self.timers: list[tuple[float, Callable[[], object]]] = []

    def time(self) -> float:
        return self.now

    def add_reader(self, fd: int, callback: Callable[[], object]) -> None:
        self.readers[fd] = callback

    def remove_reader(self, fd: int) -> None:
        self.readers.pop(fd, None)

    def call_at(self, when: float, callback: Callable[[], object]) -> object:
        self.timers.append((when, callback))
        return callback


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
        self.readable = 0  # how often it was called
        self.socket = NotifySocket(
            self.inner,
            parent,
            access,
            self.console,  # type: ignore[arg-type]
            self.loop,  # type: ignore[arg-type]
            self.on_readable,
        )

    def on_readable(self) -> None:
        self.readable += 1

    def send(self, text: str | bytes, *descriptors: int) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        self.outer.sendmsg([text if isinstance(text, bytes) else text.encode()], rights)

    def received(self, agent: int | None = None, named: procfs.Process | None = None) -> list[dict[str, str]]:
        return [fields for fields, _ in self.socket.receive(os.getpid() if agent is None else agent, named)]

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
    """A descriptor that is no pipe."""
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


def test_after_20_ms_the_other_messages_have_to_wait(stage: Stage) -> None:
    for number in range(3):
        stage.send(f"N={number}")
    first = []
    for fields, _ in stage.socket.receive(os.getpid(), None):
        first.append(fields)
        stage.loop.now += 0.015
    assert first == [{"N": "0"}, {"N": "1"}]
    assert stage.received() == [{"N": "2"}]


@pytest.mark.parametrize(
    "message", ["STATUS=" + "x" * notify.MAX_DATAGRAM_BYTES, "READY=1\0STATUS=x\0", "READY=1\0\0"], ids=["long", "torn", "NULs"]
)
def test_malformed_messages_are_ignored(stage: Stage, message: str) -> None:
    stage.send(message)
    stage.send("READY=1")
    assert stage.received() == [{"READY": "1"}]


def test_other_ancillary_data_is_ignored(stage: Stage) -> None:
    stage.inner.setsockopt(_socket.SOL_SOCKET, 29, 1)  # SO_TIMESTAMP
    stage.send("READY=1")
    assert stage.received() == [{"READY": "1"}]


# --- Descriptors. ---------------------------------------------------------------------------------------------------


def test_a_pipe_is_closed_after_its_message_was_handled(stage: Stage) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    opened = len(os.listdir("/proc/self/fd"))
    stage.send("BARRIER=1", writer)
    os.close(writer)
    for fields, _ in stage.socket.receive(os.getpid(), None):
        assert fields == {"BARRIER": "1"}
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)
    assert os.read(reader, 1) == b""
    assert stage.is_watched
    assert len(os.listdir("/proc/self/fd")) == opened - 1
    os.close(reader)


def test_253_pipes_are_closed(stage: Stage) -> None:
    opened = len(os.listdir("/proc/self/fd"))
    reader, writer = os.pipe()
    stage.send("BARRIER=1", *[writer] * 253)  # SCM_MAX_FD
    os.close(writer)
    assert stage.received() == [{"BARRIER": "1"}]
    assert stage.is_watched
    assert os.read(reader, 1) == b""
    os.close(reader)
    assert len(os.listdir("/proc/self/fd")) == opened


def test_received_descriptors_are_not_inheritable(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    inherited: list[bool] = []

    def look(fd: int) -> bool:
        inherited.append(os.get_inheritable(fd))
        return True

    monkeypatch.setattr(notify_socket, "_is_pipe", look)
    reader, writer = os.pipe()
    stage.send("BARRIER=1", reader, writer)
    assert stage.received() == [{"BARRIER": "1"}]
    assert inherited == [False, False]
    os.close(reader)
    os.close(writer)


def test_a_descriptor_can_be_any_number() -> None:
    """Up to fs.nr_open, which may be above 2^24."""
    numbers = [7, 0x1020304, 0x7FFFFFFF]
    sent = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", numbers).tobytes())
    sender = (_socket.SOL_SOCKET, _socket.SCM_CREDENTIALS, array.array("i", [11, 12, 13]).tobytes())
    assert notify_socket._unpack([sender, sent]) == (11, numbers)


def test_a_descriptor_that_may_take_long_to_close_is_closed_by_a_thread(stage: Stage, file: int) -> None:
    """The message is received at once, the next one when the thread is done."""
    opened = len(os.listdir("/proc/self/fd"))
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
    assert len(os.listdir("/proc/self/fd")) == opened


def test_a_message_is_received_again_if_the_thread_fails(
    stage: Stage, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop, failures = NotifySocket._drop, [MemoryError()]

    def fails_at_first(self: NotifySocket) -> None:
        if failures:
            raise failures.pop()
        drop(self)

    monkeypatch.setattr(NotifySocket, "_drop", fails_at_first)
    stage.send("READY=1", file)
    for _ in range(2):
        assert stage.received() == [{"READY": "1"}]
        stage.until_it_is_watched()
    assert stage.received() == []


def test_without_a_thread_the_message_is_received_later(
    stage: Stage, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise RuntimeError("can't start new thread")

    stage.send("READY=1", file)
    with monkeypatch.context() as full:
        full.setattr(_thread, "start_new_thread", refuse)
        assert stage.received() == []
        assert not stage.is_watched
        stage.socket.resume()
        assert stage.received() == []  # not before its time
        [(when, callback)] = stage.loop.timers
        assert 0 < when == RETRY_AFTER < 1
    callback()
    assert stage.readable == 1
    assert stage.received() == [{"READY": "1"}]
    stage.until_it_is_watched()


def test_a_descriptor_of_unknown_kind_is_closed_by_a_thread(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int) -> os.stat_result:
        raise OSError(f"{fd}")

    reader, writer = os.pipe()
    stage.send("BARRIER=1", writer)
    with monkeypatch.context() as blind:
        blind.setattr(os, "fstat", refuse)
        assert stage.received() == [{"BARRIER": "1"}]
        assert not stage.is_watched
    os.close(writer)
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_without_memory_for_a_retry_the_message_is_received_at_the_next_resume(
    stage: Stage, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise MemoryError

    stage.send("READY=1", file)
    with monkeypatch.context() as full:
        full.setattr(_thread, "start_new_thread", fail)
        full.setattr(stage.loop, "call_at", fail)
        with pytest.raises(MemoryError):
            stage.received()
    assert not stage.is_watched
    stage.socket.resume()
    assert stage.is_watched
    assert stage.received() == [{"READY": "1"}]
    stage.until_it_is_watched()


def test_the_thread_wakes_the_loop_by_sigchld(stage: Stage, file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    stage.send("READY=1", file)
    assert stage.received() == [{"READY": "1"}]
    until(lambda: sent, "the thread to be done")
    assert sent == [(os.getpid(), signal.SIGCHLD)]
    stage.socket.resume()
    assert stage.is_watched


@pytest.mark.parametrize("what", ["a long message", "a stranger's", "a malformed message"])
def test_descriptors_of_ignored_messages_are_closed_too(stage: Stage, what: str) -> None:
    reader, writer = os.pipe()
    text = {"a long message": "X=" + "x" * notify.MAX_DATAGRAM_BYTES, "a malformed message": "READY=1\0\0"}.get(what, "READY=1")
    stage.send(text, writer)
    os.close(writer)
    assert stage.received(agent=1 if what == "a stranger's" else None) == []
    assert os.read(reader, 1) == b""
    os.close(reader)


# --- Senders. -------------------------------------------------------------------------------------------------------


def test_the_first_stranger_is_logged_as_a_warning(stage: Stage) -> None:
    for _ in range(2):
        stage.send("READY=1")
        assert stage.received(agent=1) == []
    [first, second] = stage.console.lines
    who = f"{me().name} (pid {os.getpid()})"
    assert first == f"0 stranger: ignored a message to the notify socket from {who} (--notify-access main)"
    assert second == "2" + first[1:]


def me() -> procfs.Process:
    found = procfs.look(os.getpid())
    assert found is not None
    return found


def test_the_named_main_process_is_known_and_another_one_with_its_pid_is_not(stage: Stage) -> None:
    stage.send("READY=1")
    assert stage.received(agent=1, named=me()) == [{"READY": "1"}]
    stage.send("READY=1")
    other = me()
    other.start += 1
    assert stage.received(agent=1, named=other) == []


@pytest.mark.parametrize("access", ["main", "all"])
def test_descendants_are_known_with_access_all(stages: Callable[..., Stage], access: str) -> None:
    stage = stages(access=access)
    name = stage.inner.getsockname()
    line = f"import socket, time; s = socket.socket(1, 2); s.sendto(b'READY=1', {name!r}); print(); time.sleep(100)"
    with subprocess.Popen(["python3", "-u", "-S", "-c", line], stdout=subprocess.PIPE) as child:
        assert child.stdout
        child.stdout.readline()
        assert stage.received(agent=1) == ([{"READY": "1"}] if access == "all" else [])
        child.kill()


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
    monkeypatch.setattr(_socket, "SCM_CREDENTIALS", -1)  # not read
    stage.send("READY=1")
    assert stage.received() == []
    assert "ignored a message to the notify socket from another container (" in stage.console.lines[0]


def test_without_proc_the_kernel_vouches_for_the_agent(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procfs, "MOUNTED", False)
    stage.send("READY=1")
    [(fields, sender)] = stage.socket.receive(os.getpid(), None)
    assert (fields, sender.pid, sender.name) == ({"READY": "1"}, os.getpid(), "the agent")
    stage.send("READY=1")
    assert stage.received(agent=1) == []


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
    for _ in stage.socket.receive(os.getpid(), None):
        assert passed_on(parent) == []
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
    stage, agent = stages(parent=parent.getsockname()), os.getpid()
    stage.send("READY=1")
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert stage.received(agent) == [{"READY": "1"}]
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

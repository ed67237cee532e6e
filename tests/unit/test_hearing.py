"""The notify socket's ear by itself, this process for the agent. With real agents: tests/process1/test_notify.py."""

from __future__ import annotations

import _socket
import _thread
import array
import os
import socket
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from entrypoint import notify
from entrypoint.init import notify_socket as hearing
from entrypoint.init import tree
from entrypoint.init.notify_socket import AT_ONCE, REST, Ear
from tests.support.init import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Watched:
    """Takes the loop's place: its clock stands still unless it is set."""

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


class Lines:
    """Takes the console's place."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, level: int, event: str, text: str, **_: object) -> None:
        self.said.append(f"{level} {event}: {text}")


class Stage:
    """An ear at one end of a socket; the other is the agent's."""

    def __init__(self, above: str = "", access: str = "main") -> None:
        # As in `offer`: one that stands for itself, as nothing of the `socket` module is in process 1.
        self.inner = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK)
        self.inner.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
        self.inner.bind("")  # a name that the kernel chooses
        self.outer = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.outer.connect(self.inner.getsockname())
        self.loop, self.console = Watched(), Lines()
        self.told = 0
        self.ear = Ear(self.inner, above, access, self.console, self.loop, self.tell)  # type: ignore[arg-type]

    def tell(self) -> None:
        self.told += 1

    def send(self, text: str | bytes, *descriptors: int) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        self.outer.sendmsg([text if isinstance(text, bytes) else text.encode()], rights)

    def heard(self, agent: int | None = None, main: tree.Process | None = None) -> list[dict[str, str]]:
        return [fields for fields, _ in self.ear.hear(os.getpid() if agent is None else agent, main)]

    @property
    def listens(self) -> bool:
        return self.inner.fileno() in self.loop.readers

    def until_it_listens(self) -> None:
        """The thread is done."""

        def again() -> bool:
            self.ear.resume()
            return self.listens

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
    """No pipe."""
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


@pytest.fixture
def above(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket of a supervisor above."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as made:
        made.bind(str(tmp_path / "above"))
        yield made


def received(above: socket.socket) -> list[str]:
    found = []
    try:
        while True:
            found += above.recv(4096).decode().split("\n")
    except BlockingIOError:
        return found


def test_messages_are_heard_in_order_each_once(stage: Stage) -> None:
    for text in ("READY=1", "STATUS=a\nX=b"):
        stage.send(text)
    assert stage.heard() == [{"READY": "1"}, {"STATUS": "a", "X": "b"}]
    assert stage.heard() == []
    assert stage.listens


def test_of_many_only_some_are_heard_at_once(stage: Stage) -> None:
    for number in range(AT_ONCE // 8 + 1):
        stage.send(f"N={number}")
    hearing_eight = pytest.MonkeyPatch()
    with hearing_eight.context() as few:  # the queue of a socket may take no more than ten (unix(7))
        few.setattr(hearing, "AT_ONCE", AT_ONCE // 8)
        assert len(stage.heard()) == AT_ONCE // 8
    assert stage.heard() == [{"N": str(AT_ONCE // 8)}]


def test_what_takes_long_gives_the_clock_its_turn(stage: Stage) -> None:
    for number in range(3):
        stage.send(f"N={number}")
    first = []
    for fields, _ in stage.ear.hear(os.getpid(), None):
        first.append(fields)
        stage.loop.now += 0.015
    assert first == [{"N": "0"}, {"N": "1"}]
    assert stage.heard() == [{"N": "2"}]


@pytest.mark.parametrize(
    "message", ["STATUS=" + "x" * notify.LONGEST, "READY=1\0STATUS=x\0", "READY=1\0\0"], ids=["long", "torn", "NULs"]
)
def test_what_is_no_message_is_passed_over(stage: Stage, message: str) -> None:
    stage.send(message)
    stage.send("READY=1")
    assert stage.heard() == [{"READY": "1"}]


def test_what_else_comes_with_a_message_changes_nothing(stage: Stage) -> None:
    """A time stamp, say."""
    stage.inner.setsockopt(_socket.SOL_SOCKET, 29, 1)  # SO_TIMESTAMP
    stage.send("READY=1")
    assert stage.heard() == [{"READY": "1"}]


# --- Descriptors. ---------------------------------------------------------------------------------------------------


def test_a_pipe_is_closed_when_its_message_has_been_dealt_with(stage: Stage) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    opened = len(os.listdir("/proc/self/fd"))
    stage.send("BARRIER=1", writer)
    os.close(writer)
    for fields, _ in stage.ear.hear(os.getpid(), None):
        assert fields == {"BARRIER": "1"}
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)
    assert os.read(reader, 1) == b""
    assert stage.listens
    assert len(os.listdir("/proc/self/fd")) == opened - 1
    os.close(reader)


def test_as_many_pipes_as_can_be_sent_at_once_are_closed(stage: Stage) -> None:
    opened = len(os.listdir("/proc/self/fd"))
    reader, writer = os.pipe()
    stage.send("BARRIER=1", *[writer] * 253)  # SCM_MAX_FD
    os.close(writer)
    assert stage.heard() == [{"BARRIER": "1"}]
    assert stage.listens
    assert os.read(reader, 1) == b""
    os.close(reader)
    assert len(os.listdir("/proc/self/fd")) == opened


def test_no_child_inherits_what_was_sent(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    inherited: list[bool] = []

    def look(fd: int) -> bool:
        inherited.append(os.get_inheritable(fd))
        return True

    monkeypatch.setattr(hearing, "_is_pipe", look)
    reader, writer = os.pipe()
    stage.send("BARRIER=1", reader, writer)
    assert stage.heard() == [{"BARRIER": "1"}]
    assert inherited == [False, False]
    os.close(reader)
    os.close(writer)


def test_a_descriptor_can_be_any_number() -> None:
    """Above 2^24 where fs.nr_open is."""
    numbers = [7, 0x1020304, 0x7FFFFFFF]
    sent = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", numbers).tobytes())
    sender = (_socket.SOL_SOCKET, _socket.SCM_CREDENTIALS, array.array("i", [11, 12, 13]).tobytes())
    assert hearing._unpack([sender, sent]) == (11, numbers)


def test_what_may_take_long_to_close_is_closed_by_a_thread(stage: Stage, file: int) -> None:
    """The message counts at once; the next is heard when the thread is done."""
    opened = len(os.listdir("/proc/self/fd"))
    gate = _thread.allocate_lock()
    with gate, pytest.MonkeyPatch.context() as slow:
        start, drop = _thread.start_new_thread, Ear._drop_aside

        def gated(self: Ear) -> None:
            with gate:
                drop(self)

        slow.setattr(_thread, "start_new_thread", lambda function, words: start(gated, (function.__self__, *words)))
        stage.send("READY=1", file)
        stage.send("STATUS=next")
        assert stage.heard() == [{"READY": "1"}]
        assert stage.heard() == []
        assert not stage.listens
    stage.until_it_listens()
    assert stage.heard() == [{"STATUS": "next"}]
    assert len(os.listdir("/proc/self/fd")) == opened


def test_a_thread_that_fails_has_it_heard_once_more(stage: Stage, file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    drop, failures = Ear._drop, [MemoryError()]

    def fails_at_first(self: Ear) -> None:
        if failures:
            raise failures.pop()
        drop(self)

    monkeypatch.setattr(Ear, "_drop", fails_at_first)
    stage.send("READY=1", file)
    for _ in range(2):
        assert stage.heard() == [{"READY": "1"}]
        stage.until_it_listens()
    assert stage.heard() == []


def test_without_a_thread_it_is_left_where_it_is_and_tried_again(
    stage: Stage, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise RuntimeError("can't start new thread")

    stage.send("READY=1", file)
    with monkeypatch.context() as full:
        full.setattr(_thread, "start_new_thread", refuse)
        assert stage.heard() == []
        assert not stage.listens
        stage.ear.resume()
        assert stage.heard() == []  # not before its time
        [(when, callback)] = stage.loop.timers
        assert 0 < when == REST < 1
    callback()
    assert stage.told == 1
    assert stage.heard() == [{"READY": "1"}]
    stage.until_it_listens()


def test_a_descriptor_of_which_nothing_is_known_is_left_to_a_thread(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int) -> os.stat_result:
        raise OSError(f"{fd}")

    reader, writer = os.pipe()
    stage.send("BARRIER=1", writer)
    with monkeypatch.context() as blind:
        blind.setattr(os, "fstat", refuse)
        assert stage.heard() == [{"BARRIER": "1"}]
        assert not stage.listens
    os.close(writer)
    assert os.read(reader, 1) == b""
    os.close(reader)


# --- Senders. -------------------------------------------------------------------------------------------------------


def test_strangers_are_told_of_with_a_warning_once(stage: Stage) -> None:
    for _ in range(2):
        stage.send("READY=1")
        assert stage.heard(agent=1) == []
    [first, second] = stage.console.said
    assert first.startswith(f"0 stranger: a message to the notify socket from {me().name} (pid {os.getpid()}) does not")
    assert first.endswith("(--notify-access main)")
    assert second == "2" + first[1:]


def me() -> tree.Process:
    found = tree.look(os.getpid())
    assert found is not None
    return found


def test_the_main_process_is_heard_and_one_of_its_pid_is_not(stage: Stage) -> None:
    stage.send("READY=1")
    assert stage.heard(agent=1, main=me()) == [{"READY": "1"}]
    stage.send("READY=1")
    other = me()
    other.start += 1
    assert stage.heard(agent=1, main=other) == []


@pytest.mark.parametrize("access", ["main", "all"])
def test_descendants_are_heard_where_all_are(stages: Callable[..., Stage], access: str) -> None:
    stage = stages(access=access)
    name = stage.inner.getsockname()
    line = f"import socket, time; s = socket.socket(1, 2); s.sendto(b'READY=1', {name!r}); print(); time.sleep(100)"
    with subprocess.Popen(["python3", "-u", "-S", "-c", line], stdout=subprocess.PIPE) as child:
        assert child.stdout
        child.stdout.readline()
        assert stage.heard(agent=1) == ([{"READY": "1"}] if access == "all" else [])
        child.kill()


def test_who_is_gone_is_no_stranger_by_name(stage: Stage) -> None:
    name = stage.inner.getsockname()
    line = f"import socket; socket.socket(1, 2).sendto(b'READY=1', {name!r})"
    with subprocess.Popen(["python3", "-S", "-c", line]) as child:
        pass
    assert stage.heard() == []
    assert f"from pid {child.pid}, which is gone does not count" in stage.console.said[0]


def test_another_container_has_no_pid_here(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whom our PID namespace does not know the kernel tells as 0."""
    monkeypatch.setattr(_socket, "SCM_CREDENTIALS", -1)  # not read
    stage.send("READY=1")
    assert stage.heard() == []
    assert "from another container does not count" in stage.console.said[0]


def test_without_proc_the_kernel_vouches_for_the_agent(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "PROC", False)
    stage.send("READY=1")
    [(fields, sender)] = stage.ear.hear(os.getpid(), None)
    assert (fields, sender.pid, sender.name) == ({"READY": "1"}, os.getpid(), "the agent")
    stage.send("READY=1")
    assert stage.heard(agent=1) == []


# --- Above. ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "passed"),
    [
        ("READY=1\nMAINPID=7\nWATCHDOG=1\nFDSTORE=1", ["READY=1", "WATCHDOG=1", "MAINPID={}"]),
        ("STATUS=x\nWATCHDOG=trigger", ["STATUS=x", "MAINPID={}"]),
        ("WATCHDOG=trigger", []),
        ("MAINPID=7", []),
    ],
)
def test_what_concerns_a_supervisor_above_is_passed_on_as_ours(
    stages: Callable[..., Stage], above: socket.socket, recwarn: pytest.WarningsRecorder, said: str, passed: list[str]
) -> None:
    stage = stages(above=above.getsockname())
    stage.send(said)
    stage.heard()
    assert received(above) == [line.format(os.getpid()) for line in passed]
    assert not recwarn.list  # of a socket left open


def test_process_1_has_another_pid_out_there(
    stages: Callable[..., Stage], above: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, agent = stages(above=above.getsockname()), os.getpid()
    stage.send("READY=1")
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert stage.heard(agent) == [{"READY": "1"}]
    assert received(above) == ["READY=1"]


def test_a_supervisor_above_that_cannot_be_reached_is_told_of(stages: Callable[..., Stage], tmp_path: Path) -> None:
    stage = stages(above=str(tmp_path / "none"))
    stage.send("READY=1")
    assert stage.heard() == [{"READY": "1"}]
    assert stage.console.said == [
        f"2 not-passed-on: what the agent said could not be passed on to '{tmp_path}/none': No such file or directory"
    ]


def test_a_socket_above_whose_address_makes_no_sense_is_told_of_at_once(stages: Callable[..., Stage]) -> None:
    stage = stages(above="vsock:2:1")
    assert [line.split(";")[0] for line in stage.console.said] == [
        "0 not-passed-on: NOTIFY_SOCKET as given to agent-init: 'vsock:2:1' is no address of a socket"
    ]
    stage.send("READY=1")
    assert stage.heard() == [{"READY": "1"}]
    assert len(stage.console.said) == 1

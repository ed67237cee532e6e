"""The control socket by itself: who gets in, what a client can do to it, and what clients may use of the time."""

from __future__ import annotations

import _socket
import _thread
import array
import contextlib
import errno
import os
import select
import socket
import sys
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from entrypoint import control
from entrypoint.init import control_access, control_socket
from entrypoint.init.control_socket import MAX_CLIENTS, MAX_FOLLOWERS, RETRY_AFTER, Client, ControlSocket
from entrypoint.init.history import History
from tests.support.fake_loop import FakeLoop
from tests.support.world import failing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

INFO = 1


class Stage:
    """A control socket with its loop. `answers`: the packets of each answer. `follows`: whether clients then follow."""

    def __init__(self) -> None:
        self.loop, self.history = FakeLoop(), History()
        self.answers, self.follows = [control.LINES + b"yes\n"], False
        self.asked: list[dict[str, str]] = []
        self.render: Callable[[Any], list[bytes]] = lambda record: [control.LINES + record[3].encode()]
        agent: Any = None
        loop: Any = self.loop
        self.socket = ControlSocket(loop, self.history, agent, self.answer)
        self.address = self.socket._listener.getsockname()
        self.open: list[socket.socket] = []

    def answer(self, client: Client, fields: dict[str, str]) -> list[bytes]:
        self.asked.append(fields)
        if self.follows:
            client.render = self.render
        return self.answers

    def connect(self, request: bytes | None = b"COMMAND=status") -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        made.settimeout(5)
        made.connect(self.address)
        self.open.append(made)
        if request is not None:
            made.send(request)
        return made

    def turn(self) -> None:
        """Call the readers of all descriptors that are ready."""
        import select

        ready, _, _ = select.select(list(self.loop.readers), [], [], 0)
        for fd in ready:
            if fd in self.loop.readers:
                self.loop.readers[fd]()


def be_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own pid at the other end would be that of a kernel which does not report the peer's."""
    monkeypatch.setattr(control_socket, "posix", SimpleNamespace(getpid=lambda: 1, close=os.close))


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(control_access, "of", lambda pid, uid, agent: control_access.ALL)
    made = Stage()
    be_another_process(monkeypatch)
    yield made
    for theirs in made.open:
        theirs.close()
    for client in list(made.socket._clients.values()):
        client.connection.close()
    made.socket._listener.close()


def received(client: socket.socket) -> list[bytes]:
    """All packets up to the end."""
    found: list[bytes] = []
    with contextlib.suppress(ConnectionResetError):
        while packet := client.recv(100_000):
            found.append(packet)
    return found


def test_a_request_is_answered_and_the_connection_closed(stage: Stage) -> None:
    client = stage.connect(b"COMMAND=stop\nGRACE=3")
    stage.turn()
    assert stage.asked == [{"COMMAND": "stop", "GRACE": "3"}]
    assert received(client) == stage.answers
    assert stage.loop.readers.keys() == {stage.socket._listener.fileno()}


def test_a_request_may_come_later(stage: Stage) -> None:
    client = stage.connect(None)
    stage.turn()
    assert len(stage.socket._clients) == 1
    stage.turn()
    client.send(b"COMMAND=status")
    stage.turn()
    assert received(client) == stage.answers
    assert stage.socket._clients == {}


@pytest.mark.parametrize("request_", [b"", b"\0x\0", b"x" * (control.MAX_REQUEST_BYTES + 1)])
def test_what_is_no_request_ends_the_connection(stage: Stage, request_: bytes) -> None:
    client = stage.connect(request_)
    stage.turn()
    assert stage.asked == []
    assert received(client) == []


def test_a_client_that_has_gone_is_forgotten(stage: Stage) -> None:
    client = stage.connect(None)
    stage.turn()
    client.close()
    stage.turn()
    assert stage.socket._clients == {}
    stage.socket._accept_next()  # nobody is there
    assert stage.asked == []


def test_a_stranger_is_refused_and_counted(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_access, "of", lambda pid, uid, agent: control_access.NONE)
    client = stage.connect()
    stage.turn()
    assert stage.asked == []
    assert stage.socket.refused == 1
    with pytest.raises(ConnectionResetError):  # the request was not read
        client.recv(1000)
    assert received(client) == [control.PROBLEM + control_socket.DENIED]


@pytest.mark.parametrize(("rights", "may"), [("all", True), ("read", False)])
def test_rights_are_those_of_the_pid_and_the_user(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, rights: str, may: bool
) -> None:
    asked: list[tuple[int, int]] = []

    def rights_of(pid: int, uid: int, agent: object) -> str:
        asked.append((pid, uid))
        return rights

    seen: list[tuple[bool, str]] = []

    def answer(client: Client, fields: dict[str, str]) -> list[bytes]:
        seen.append((client.may_command, str(client)))
        return []

    monkeypatch.setattr(control_access, "of", rights_of)
    monkeypatch.setattr(stage.socket, "_answer", answer)
    stage.connect()
    stage.turn()
    assert asked == [(os.getpid(), os.getuid())]
    assert seen == [(may, f"agent-initctl (pid {os.getpid()}, user {os.getuid()})")]


@pytest.mark.parametrize("rights", [control_access.READ, control_access.NONE])
def test_where_the_peer_is_not_known_the_message_has_the_credentials(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, rights: str
) -> None:
    """gVisor reports the asking process as its own peer."""
    asked: list[tuple[int, int]] = []

    def rights_of(pid: int, uid: int, agent: object) -> str:
        asked.append((pid, uid))
        return rights

    monkeypatch.setattr(control_access, "of", rights_of)
    monkeypatch.setattr(control_socket, "posix", os)
    client = stage.connect(None)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    stage.turn()
    assert asked == []
    client.send(b"COMMAND=status")
    stage.turn()
    assert asked == [(os.getpid(), os.getuid())]
    assert stage.socket.refused == (rights == control_access.NONE)
    expected = stage.answers if rights else [control.PROBLEM + control_socket.DENIED]
    assert received(client) == expected


def test_a_message_without_credentials_is_nobodys() -> None:
    assert control.sender([]) == (0, -1)
    assert control.sender([(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, bytes(4))]) == (0, -1)


def test_only_so_many_clients_are_kept(stage: Stage) -> None:
    clients = [stage.connect(None) for _ in range(MAX_CLIENTS)]
    for _ in clients:
        stage.turn()
    more = stage.connect(None)
    stage.turn()
    assert len(stage.socket._clients) == MAX_CLIENTS
    assert received(clients[0]) == []  # the oldest had to go
    more.send(b"COMMAND=status")
    stage.turn()
    assert received(more) == stage.answers


def test_whoever_waits_for_the_stop_is_kept(stage: Stage) -> None:
    """Others can connect as often as they like."""
    stage.follows = True
    follower = stage.connect()
    stage.turn()
    for _ in range(2 * MAX_CLIENTS):
        stage.connect(None)
        stage.turn()
    assert len(stage.socket._clients) == MAX_CLIENTS
    assert stage.socket.is_awaited()
    follower.close()
    stage.turn()
    assert not stage.socket.is_awaited()


# --- Followers. -----------------------------------------------------------------------------------------------------


def test_a_follower_gets_each_new_record(stage: Stage) -> None:
    stage.follows = True
    client = stage.connect()
    stage.turn()
    assert client.recv(100) == b">yes\n"
    stage.history.add(INFO, "event", "first", {})
    stage.history.add(INFO, "event", "second", {})
    assert [client.recv(100), client.recv(100)] == [b">first", b">second"]
    client.send(b"COMMAND=stop")  # one request for a connection
    stage.turn()
    assert stage.asked == [{"COMMAND": "status"}]
    assert stage.socket._clients == {}


def test_a_follower_that_does_not_read_is_cut_off(stage: Stage) -> None:
    stage.follows = True
    stage.connect()
    stage.turn()
    for _ in range(1000):
        stage.history.add(INFO, "event", "x" * 1000, {})
    assert stage.socket._clients == {}
    assert stage.loop.readers.keys() == {stage.socket._listener.fileno()}


def test_a_follower_that_there_is_no_memory_for_is_cut_off(stage: Stage) -> None:
    stage.follows = True
    stage.connect()
    stage.turn()
    (client,) = stage.socket._clients.values()
    client.render = failing(lambda _: [], MemoryError())
    stage.history.add(INFO, "event", "first", {})
    assert stage.socket._clients == {}


def test_an_answer_that_does_not_fit_ends_the_connection(stage: Stage) -> None:
    stage.follows, stage.answers = True, [b">" + b"x" * 60_000] * 20
    client = stage.connect()
    stage.turn()
    assert stage.socket._clients == {}
    assert 0 < len(received(client)) < 20


def follower(stage: Stage) -> socket.socket:
    stage.follows = True
    client = stage.connect()
    stage.turn()
    client.recv(100)
    return client


def test_a_follower_has_time_to_read_the_end(stage: Stage) -> None:
    """It closes its connection when it has read all."""
    assert not stage.history.is_followed()
    client = follower(stage)
    assert stage.history.is_followed()
    stage.history.add(INFO, "event", "the end", {})
    packets: list[bytes] = []

    def read() -> None:
        time.sleep(0.03)
        packets.extend(received(client))
        client.close()

    thread = threading.Thread(target=read)
    thread.start()
    stage.socket.finish()
    assert packets == [b">the end"]
    thread.join()


def test_a_follower_that_stays_holds_up_the_exit_for_a_moment_only(stage: Stage) -> None:
    follower(stage)
    polls = []

    class Poll:
        def register(self, *_: int) -> None: ...

        def poll(self, milliseconds: float) -> list[tuple[int, int]]:
            polls.append(milliseconds)
            stage.loop.now += milliseconds / 1000
            return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(select, "poll", Poll)
        stage.socket.finish()
    assert sum(polls) == pytest.approx(1000 * control_socket.MAX_LAST_SECONDS)


def test_the_end_waits_for_no_client_that_may_only_read(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_access, "of", lambda pid, uid, agent: control_access.READ)
    follower(stage)
    monkeypatch.setattr(control_socket, "MAX_LAST_SECONDS", 3600)
    stage.socket.finish()


def test_only_so_many_may_follow(stage: Stage) -> None:
    stage.follows = True
    clients = [stage.connect() for _ in range(MAX_FOLLOWERS + 1)]
    for _ in clients:
        stage.turn()
    assert received(clients[-1]) == [*stage.answers, control.PROBLEM + control_socket.BUSY]
    assert len(stage.socket._clients) == MAX_FOLLOWERS


def test_followers_of_the_log_take_no_place_of_those_that_wait_for_a_stop(stage: Stage) -> None:
    stage.follows = True
    for _ in range(MAX_FOLLOWERS):
        stage.connect()
        stage.turn()
    stage.render = lambda record: [control.DONE]
    waits = stage.connect()
    stage.turn()
    stage.history.add(INFO, "ended", "the end", {})
    assert [waits.recv(100), waits.recv(100)] == [*stage.answers, control.DONE]
    assert len(stage.socket._clients) == MAX_FOLLOWERS + 1


# --- Time. ----------------------------------------------------------------------------------------------------------


def test_clients_get_a_tenth_of_the_time(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    idle = stage.connect(None)
    stage.turn()

    used = 0.0

    def slowly(client: Client, fields: dict[str, str]) -> list[bytes]:
        nonlocal used
        stage.loop.now += 0.03
        used += 0.03
        return stage.answers

    monkeypatch.setattr(control_socket, "_processor_time", lambda: used)
    monkeypatch.setattr(stage.socket, "_answer", slowly)
    stage.connect()
    stage.turn()
    [(when, resume)] = stage.loop.timers
    assert when == pytest.approx(0.03 + 0.3)
    assert stage.loop.readers == {}
    stage.loop.now = when
    resume()
    assert len(stage.loop.readers) == 2
    idle.send(b"COMMAND=status")
    stage.turn()
    assert received(idle) == stage.answers
    stage.loop.now += 10  # what they have not used for long is theirs again
    monkeypatch.setattr(stage.socket, "_answer", stage.answer)
    stage.loop.timers.clear()
    stage.connect()
    stage.turn()
    assert stage.loop.timers == []


def test_time_without_a_processor_is_not_the_clients(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine, or with a small quota, process 1 may stand still for long in the middle of an answer."""

    def interrupted(client: Client, fields: dict[str, str]) -> list[bytes]:
        stage.loop.now += 3.0
        return stage.answers

    monkeypatch.setattr(stage.socket, "_answer", interrupted)
    client = stage.connect()
    stage.turn()
    assert received(client) == stage.answers
    assert stage.loop.timers == []
    assert len(stage.loop.readers) == 1


def test_where_the_processor_time_is_not_known_it_is_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    times = SimpleNamespace(thread_time=failing(time.thread_time, PermissionError()), monotonic=lambda: 7.0)
    monkeypatch.setattr(control_socket, "time", times)
    assert control_socket._processor_time() == 7.0
    assert control_socket._processor_time() > 0


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.EPERM])
def test_a_connection_that_cannot_be_accepted_waits(stage: Stage, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    class Listener:
        def __init__(self, real: Any) -> None:
            self.fileno, self._accept = real.fileno, failing(real._accept, OSError(number, "no"))

    listener: Any = Listener(stage.socket._listener)
    real = stage.socket._listener
    stage.socket._listener = listener
    client = stage.connect()
    stage.turn()
    [(when, resume)] = stage.loop.timers
    assert when == RETRY_AFTER
    assert stage.loop.readers == {}
    resume()
    stage.turn()
    assert received(client) == stage.answers
    stage.socket._listener = real


def test_no_memory_for_a_client_closes_its_connection(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    client = stage.connect(None)
    monkeypatch.setattr(control_socket, "Client", failing(Client, MemoryError()))
    with pytest.raises(MemoryError):
        stage.turn()
    assert received(client) == []


def test_an_answer_that_fails_closes_the_connection(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage.socket, "_answer", failing(stage.answer, MemoryError()))
    client = stage.connect()
    with pytest.raises(MemoryError):
        stage.turn()
    assert received(client) == []


# --- Descriptors that a client sends. -------------------------------------------------------------------------------


def test_no_descriptor_can_be_sent(stage: Stage) -> None:
    client = stage.connect(None)
    passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))]
    if stage.socket._close == stage.socket._close_aside:
        pytest.skip("this kernel has no SO_PASSRIGHTS")
    with pytest.raises(PermissionError):
        client.sendmsg([b"COMMAND=status"], passed)


class Old(_socket.socket):
    """A socket of a kernel that does not know SO_PASSRIGHTS."""

    def setsockopt(self, *arguments: Any) -> None:
        if arguments[1] == control_socket.SO_PASSRIGHTS:
            raise OSError(errno.ENOPROTOOPT, "Protocol not available")
        super().setsockopt(*arguments)


@pytest.fixture
def old_stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(control_access, "of", lambda pid, uid, agent: control_access.ALL)
    with monkeypatch.context() as patch:
        patch.setattr(_socket, "socket", Old)
        made = Stage()
    be_another_process(monkeypatch)
    yield made
    for client in made.open:
        client.close()
    made.socket._listener.close()


def test_where_descriptors_can_be_sent_a_thread_closes_the_connection(
    old_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Callable[[], object]] = []
    monkeypatch.setattr(
        _thread, "start_new_thread", lambda function, arguments: started.append(lambda: function(*arguments))
    )
    client = old_stage.connect(None)
    client.sendmsg([b"COMMAND=status"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))])
    old_stage.turn()
    assert old_stage.asked == []  # a message with descriptors is no request
    assert len(started) == 1
    started[0]()
    assert received(client) == []


def test_a_connection_that_no_thread_closes_is_closed_with_the_next(
    old_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = [old_stage.connect(), old_stage.connect()]
    monkeypatch.setattr(_thread, "start_new_thread", failing(_thread.start_new_thread, RuntimeError("no thread")))
    old_stage.turn()
    assert len(old_stage.socket._unclosed) == 1
    old_stage.turn()
    assert old_stage.socket._unclosed == []
    assert [received(client) for client in clients] == [old_stage.answers] * 2


def test_a_close_that_fails_does_not_keep_the_others_open() -> None:
    class Failing:
        def close(self) -> None:
            raise OSError

    ours, theirs = _socket.socketpair()
    broken: Any = Failing()
    control_socket._close_all([broken, ours])
    assert theirs.recv(1) == b""
    theirs.close()


# --- The address. ---------------------------------------------------------------------------------------------------


def test_a_name_that_is_taken_gets_a_suffix(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_socket, "posix", os)
    second = Stage()
    assert second.address.startswith(stage.address + b"/")
    assert stage.address == control.address(os.getpid(), control.namespace()).encode()
    second.socket._listener.close()


def test_a_socket_that_cannot_be_opened_is_logged() -> None:
    class Console:
        lines: list[str] = []

        def log(self, level: int, event: str, text: str) -> None:
            self.lines.append(f"{level} {event}: {text}")

    console: Any = Console()
    made: Any = "made"
    make = failing(lambda: made, OSError(errno.EMFILE, "Too many open files"), OSError("no number"))
    assert [control_socket.open_or_log(console, make) for _ in range(3)] == [None, None, made]
    assert console.lines == [
        "0 no-control: agent-initctl cannot be answered: Too many open files",
        "0 no-control: agent-initctl cannot be answered: no number",
    ]


def test_the_namespace_is_that_of_the_process() -> None:
    assert control.namespace() == os.stat("/proc/self/ns/pid").st_ino
    assert control.namespace(os.getpid()) == control.namespace()
    assert control.namespace(2**22 + 1) == 0
    assert sys.platform == "linux"


def test_lines_are_packed_into_as_few_packets_as_hold_them() -> None:
    lines = [b"x" * 9_999 + b"\n", b"y" * 5_999 + b"\n", b"z" * 9_999 + b"\n", b"w" * 20_000]
    made = control.packets(b">", lines)
    assert {packet[:1] for packet in made} == {b">"}
    assert max(map(len, made)) <= control.MAX_PACKET_BYTES
    assert made[0][1:] == lines[0] + lines[1]
    assert made[1][1:] == lines[2]
    assert made[2][1:] + made[3][1:] == lines[3]
    assert control.packets(b">", []) == []

"""The notify socket (sd_notify(3)): the variables that the agent gets, and the effect of its messages."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from tests.support.init import actor_line, clean_environment
from tests.support.proc import AS_NOBODY, IDLE, children_of, descriptors, environment, inner_pid, wait_for_agent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Start
    from tests.support.init import Init

root_only = pytest.mark.skipif(os.getuid() != 0, reason="changes the user, which takes root")


def variables(init: Init) -> dict[str, str]:
    """The agent's environment."""
    entries = environment(wait_for_agent(init), with_added=True).decode().split("\0")
    return dict(entry.partition("=")[::2] for entry in entries if entry)


def stop(init: Init) -> None:
    init.signal("TERM")
    assert init.wait() == 143


# --- The agent's environment. ---------------------------------------------------------------------------------------


def test_variables_added_to_the_agents_environment(start_in_role: Start) -> None:
    given = clean_environment(PYTHONPATH="/app", AGENT_INIT_STOP_SECONDS="7", AGENT_INIT_RESPONDERS="@other")
    init = start_in_role("-t", "25s", "--stop-delay", "500ms", "--watchdog", "90s", "--stacks", command=IDLE, env=given)
    agent = wait_for_agent(init)
    seen = variables(init)
    added = {name: value for name, value in seen.items() if given.get(name) != value and name not in TEST_VARIABLES}
    name = added.pop("AGENT_INIT_RESPONDERS")
    assert name.startswith("@agent-init-")
    assert added.pop("NOTIFY_SOCKET") == f"/run/{name[1:]}"
    assert added.pop("PYTHONPATH").endswith("/entrypoint/agent/site:/app")
    assert added == {
        "AGENT_INIT_STOP_SECONDS": "23.0",
        "WATCHDOG_USEC": "90000000",
        "WATCHDOG_PID": str(inner_pid(agent)),
    }
    stop(init)
    assert not Path(seen["NOTIFY_SOCKET"]).exists()


TEST_VARIABLES = ("EVENTS", "TEST_RUN")


def test_stop_seconds_is_unset_without_a_deadline(start_in_role: Start) -> None:
    init = start_in_role(command=IDLE, env=clean_environment(AGENT_INIT_STOP_SECONDS="7"))
    assert "AGENT_INIT_STOP_SECONDS" not in variables(init)
    stop(init)


def test_environment_is_unchanged_with_notify_off(start_in_role: Start) -> None:
    given = clean_environment(NOTIFY_SOCKET="/elsewhere", AGENT_INIT_NOTIFY="off", WATCHDOG_USEC="5", LAST="1")
    init = start_in_role("-t", "5s", command=IDLE, env=given)
    agent = wait_for_agent(init)
    assert environment(agent, with_added=True) == environment(init.outer.pid, with_added=True)
    stop(init)


def test_inherited_watchdog_pid_becomes_the_agents(start: Start) -> None:
    """As in a systemd unit: the agent's keep-alive messages are passed on to systemd."""
    init = start(command=IDLE, env=clean_environment(WATCHDOG_USEC="5", WATCHDOG_PID="1"))
    assert variables(init)["WATCHDOG_PID"] == "2"
    stop(init)


def test_notify_socket_of_root_is_writable(start_in_role: Start) -> None:
    init = start_in_role(command=IDLE)
    assert Path(variables(init)["NOTIFY_SOCKET"]).stat().st_mode & 0o777 == 0o666
    stop(init)


@root_only
def test_notify_socket_of_another_user_is_private(start_in_role: Start) -> None:
    with TemporaryDirectory(dir="/tmp") as place:  # a socket's path is limited to 107 bytes
        Path(place).chmod(0o777)
        init = start_in_role(command=IDLE, before=AS_NOBODY, env=clean_environment(TMPDIR=place))
        path = Path(variables(init)["NOTIFY_SOCKET"])
        assert path.parent == Path(place)
        assert path.stat().st_mode & 0o777 == 0o600
        stop(init)
        assert list(Path(place).iterdir()) == []


@root_only
@pytest.mark.parametrize("place", ["/nonexistent", "/" + "x" * 100], ids=["nowhere", "too long"])
def test_notify_socket_is_abstract_when_no_directory_is_writable(start_in_role: Start, place: str) -> None:
    agent = "notify('READY=1'); forever()"
    init = start_in_role(agent=agent, before=AS_NOBODY, env=clean_environment(TMPDIR=place))
    assert init.wait_for_line("the agent is ready")
    assert any(f"@{name}/notify" in Path("/proc/net/unix").read_text() for name in names(init))
    init.signal("TERM")
    init.wait()


def names(init: Init) -> list[str]:
    child = children_of(init)[0]
    return [child.environ()["AGENT_INIT_RESPONDERS"].removeprefix("@")]


# --- The senders that are accepted. ---------------------------------------------------------------------------------


@root_only
def test_message_of_an_agent_that_dropped_privileges_is_accepted(start_in_role: Start) -> None:
    agent = "import array, socket; os.setgroups([]); os.setgid(65534); os.setuid(65534); notify('READY=1'); forever()"
    init = start_in_role("--stop-signal", "TERM", agent=agent)
    assert init.wait_for_line("the agent is ready")
    stop(init)


def test_message_from_outside_the_tree_is_refused(start_in_role: Start) -> None:
    init = start_in_role("-t", "1s", agent="on('TERM', lambda: log('TERM')); ready()")
    init.wait_for_event("ready")
    path = children_of(init)[0].environ()["NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        for _ in range(5):
            out.sendto(b"READY=1\nEXTEND_TIMEOUT_USEC=99000000\nWATCHDOG=trigger\nMAINPID=1", path)
    assert init.wait_for_line("a message to the notify socket from")
    requested_at = time.monotonic()
    init.signal("TERM")
    assert init.wait() == 137
    assert 1 <= time.monotonic() - requested_at < 11
    assert not init.lines("ready")
    assert len(init.lines("a message to the notify socket from")) == 1


NOISE = [
    "''",
    "'READY'",
    "'=1'",
    "'READY=1\\0x'",
    "'READY=1\\n' + 'X' * 5000",
    "'X_READY=1'",
    "'READY=yes'",
    "'ready=1'",
]


@pytest.mark.parametrize("text", NOISE)
def test_malformed_message_is_ignored(start: Start, text: str) -> None:
    init = start(agent=f"on('TERM', leave); notify({text}); notify('STATUS=after'); notify('ERRNO=2'); ready()")
    assert init.wait_for_line("agent reported errno 2")
    init.signal("TERM")
    assert init.wait() == 0
    assert not init.lines("is ready")


def test_received_descriptors_are_closed_and_a_barrier_is_answered(start_in_role: Start) -> None:
    """BARRIER=1 comes with the writing end of a pipe; closing it is the answer."""
    agent = """
for text in ("FDSTORE=1", "READY=1", "", "BARRIER=1"):
    for _ in range(20):
        reader, writer = os.pipe()
        notify(text, writer, *[0] * (text == "FDSTORE=1"))
        os.close(writer)
        assert os.read(reader, 1) == b""
        os.close(reader)
on("TERM", leave)
log("answered")
ready()
"""
    init = start_in_role(agent=agent)
    init.wait_for_event("answered")
    kinds = [leads_to for fd, leads_to in descriptors(init.pid).items() if fd > 2]
    assert len([leads_to for leads_to in kinds if leads_to.startswith("pipe:")]) <= 2  # its own, for a foreign stderr
    init.signal("TERM")
    assert init.wait() == 0


# A connection with unsent data. Its last close(2) waits an hour for them (SO_LINGER, socket(7)).
LINGERING = """
import socket, struct
listening = socket.create_server(('127.0.0.1', 0))
slow = socket.create_connection(listening.getsockname())
unread, _ = listening.accept()
slow.setblocking(False)
try:
    while True:
        slow.send(bytes(65536))
except BlockingIOError:
    pass
slow.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 3600))
on('TERM')

def send():
    notify('BARRIER=1', SENT)
    slow.close()
    log('sent')

on('USR1', send)
ready()
"""


@pytest.mark.parametrize("sent", ["slow.fileno()", "0, slow.fileno()", "*[slow.fileno()] * 253"])
def test_descriptor_that_is_slow_to_close_does_not_delay_the_deadline(start_in_role: Start, sent: str) -> None:
    init = start_in_role("-t", "500ms", agent=LINGERING.replace("SENT", sent))
    init.wait_for_event("ready")
    [agent] = children_of(init)
    init.signal("STOP")  # until the agent has closed its own, so that process 1's is the last
    agent.send_signal(signal.SIGUSR1)
    init.wait_for_event("sent")
    init.signal("CONT")
    init.signal("TERM")
    requested_at = time.monotonic()
    assert init.wait() == 137
    assert time.monotonic() - requested_at < 5
    assert init.events() == ["ready", "USR1", "sent", "TERM"]


def test_messages_after_received_descriptors_are_still_handled(start_in_role: Start) -> None:
    """FDSTORE=1 with a socket and a file: they are closed, and later messages are handled."""
    agent = """
import socket
on('TERM', leave)
here, there = socket.socketpair()
notify('FDSTORE=1', there.fileno(), 0)
there.close()
here.recv(1)
log('closed')
notify('STATUS=later')
notify('READY=1')
ready()
"""
    init = start_in_role("-v", agent=agent)
    init.wait_for_event("closed")
    init.wait_for_line("the agent is ready")
    assert init.lines('agent status: "later"')
    init.signal("TERM")
    assert init.wait() == 0


# --- Their effect. --------------------------------------------------------------------------------------------------


def test_ready_and_status_are_logged_once(start_in_role: Start) -> None:
    agent = """
for text in ("READY=1\\nSTATUS=serving", "READY=1", "STATUS=serving", "RELOADING=1\\nMONOTONIC_USEC=5", "READY=1",
             "STOPPING=1", "STATUS=a\\tb"):
    notify(text)
on('USR1', lambda: leave(3))
ready()
"""
    init = start_in_role("-v", agent=agent)
    init.wait_for_line('agent status: "a')
    init.wait_for_event("ready")
    children_of(init)[0].send_signal(signal.SIGUSR1)
    assert init.wait() == 3
    logged = [line for line in init.lines("agent ") if not line.startswith(("started", "ended"))]
    assert logged[0].startswith("the agent is ready, after ") or logged[0] == 'agent status: "serving"'
    assert [line.split(", after")[0] for line in logged] == [
        'agent status: "serving"',
        "the agent is ready",
        "the agent is reloading",
        "the agent is stopping by itself",
        'agent status: "a\\tb"',
    ]
    assert init.lines("ended")[0].endswith('exit code 3; its last status: "a\\tb"')


def test_each_extend_timeout_extends_the_deadline(start_in_role: Start) -> None:
    """A grace of 1 s and a stop that takes 2.5 s; the agent extends it every 0.5 s."""
    agent = """
def drain():
    for _ in range(5):
        notify("EXTEND_TIMEOUT_USEC=2000000")
        time.sleep(0.5)
    log("drained")
    leave()
on("TERM", drain)
ready()
"""
    init = start_in_role("-t", "1s", agent=agent)
    init.wait_for_event("ready")
    init.signal("TERM")
    assert init.wait() == 0
    assert init.wait_for_event("drained")["t"] - init.wait_for_event("TERM")["t"] >= 2.5
    assert init.wait_for_line("the agent asked for more time")


@pytest.mark.parametrize("usec", ["2000000", "60000000", "18446744073709551615"])
def test_extend_timeout_is_limited_by_max_grace(start_in_role: Start, usec: str) -> None:
    agent = f"on('TERM', lambda: notify('EXTEND_TIMEOUT_USEC={usec}')); ready()"
    init = start_in_role("-t", "1s", "--max-grace", "2500ms", agent=agent)
    init.wait_for_event("ready")
    requested_at = time.monotonic()
    init.signal("TERM")
    assert init.wait() == 137
    lived = time.monotonic() - requested_at
    low, high = (1.0, 2.0) if len(usec) == 20 else (2.0, 2.5)  # 2^64 - 1 is refused as invalid
    assert low <= lived < high + 10
    if len(usec) == 8:
        assert lived >= 2.5


@pytest.mark.parametrize("text", ["0", "-5", "x", "1.5", "", "1e9"])
def test_invalid_extend_timeout_is_ignored(start: Start, text: str) -> None:
    init = start("-t", "500ms", agent=f"on('TERM', lambda: notify('EXTEND_TIMEOUT_USEC={text}')); ready()")
    init.wait_for_event("ready")
    init.signal("TERM")
    assert init.wait() == 137
    assert not init.lines("more time")


# --- Watchdog and readiness. ----------------------------------------------------------------------------------------

PINGS = """
def ping(times):
    for _ in range(times):
        notify("WATCHDOG=1")
        time.sleep(0.1)
"""


def test_agent_that_stops_pinging_is_stopped_as_hung(start_in_role: Start) -> None:
    init = start_in_role("-t", "5s", "--watchdog", "1s", agent=PINGS + "ping(13); log('silent'); ready()")
    init.wait_for_event("silent")
    assert init.wait() == 134
    assert "the agent gave no sign of life for 1s: stall report, then ABRT to the agent" in init.wait_for_line(
        "sign of life"
    )
    assert "was killed by SIGABRT" in init.wait_for_line("ended")


def test_watchdog_does_not_stop_an_agent_that_never_pings_or_pings_in_time(start_in_role: Start) -> None:
    silent = "on('TERM', leave); time.sleep(1); ready()"
    init = start_in_role("--watchdog", "500ms", agent=silent)
    init.wait_for_event("ready")
    init.signal("TERM")
    assert init.wait() == 0
    init = start_in_role("--watchdog", "1500ms", agent=PINGS + "notify('READY=1'); ping(20); leave(7)")
    assert init.wait() == 7


def test_agent_can_change_and_trigger_its_watchdog(start_in_role: Start) -> None:
    init = start_in_role("--watchdog", "600s", agent="notify('WATCHDOG_USEC=200000'); notify('WATCHDOG=1'); ready()")
    assert init.wait() == 134
    init = start_in_role("--watchdog", "300ms", agent="notify('READY=1\\nWATCHDOG_USEC=0'); time.sleep(0.8); leave(5)")
    assert init.wait() == 5
    init = start_in_role(agent="notify('WATCHDOG=trigger'); ready()")
    assert init.wait() == 134
    assert init.wait_for_line("triggered its watchdog")


def test_hung_agent_that_exits_with_0_gives_134(start_in_role: Start) -> None:
    agent = "on('ABRT', leave); notify('WATCHDOG=1'); ready()"
    init = start_in_role("--watchdog", "300ms", "--termination-log", "none", agent=agent)
    assert init.wait() == 134
    assert init.events() == ["ready", "ABRT", "end"]
    assert init.wait_for_line("ended").endswith("exit code 134 (it hung)")


def test_stop_schedule_follows_abrt(start_in_role: Start) -> None:
    agent = "on('ABRT'); on('INT'); on('TERM'); notify('READY=1'); ready()"
    options = ("--watchdog", "300ms", "--stop-schedule", "TERM/500ms/INT/500ms/KILL")
    init = start_in_role(*options, agent=agent)
    assert init.wait() == 137
    assert init.events() == ["ready", "ABRT", "INT"]


def test_hung_agent_is_killed_even_if_the_schedule_has_no_kill(start: Start) -> None:
    init = start(
        "--watchdog",
        "300ms",
        "--stop-schedule",
        "TERM/500ms/INT/500ms/USR1/1s",
        agent="""
on('ABRT'); on('INT'); on('USR1'); notify('READY=1'); ready()
""",
    )
    assert init.wait() == 137
    assert init.events() == ["ready", "ABRT", "INT", "USR1"]


def test_abrt_goes_to_the_sender_behind_a_shell(start_in_role: Start, tmp_path: Path) -> None:
    inner = "on('ABRT', lambda: leave(9)); notify('WATCHDOG=1'); ready()"
    init = start_in_role("--watchdog", "300ms", command=["--", "sh", "-c", actor_line("agent", inner) + "; exit $?"])
    assert init.wait() == 9
    assert init.events() == ["ready", "ABRT", "end"]


def test_agent_behind_a_shell_is_watched_only_after_its_first_ping(start_in_role: Start) -> None:
    """WATCHDOG_PID names the shell, so the agent's client sends no pings."""
    inner = "notify('READY=1'); log('sent'); on('TERM', leave); time.sleep(1.5); ready()"
    init = start_in_role("--watchdog", "500ms", command=["--", "sh", "-c", actor_line("agent", inner) + "; exit $?"])
    assert "waits for its first WATCHDOG=1" in init.wait_for_line("is ready, but")
    init.wait_for_event("ready")
    init.signal("TERM")
    assert init.wait() == 0


def test_agent_that_is_not_ready_in_time_is_stopped(start_in_role: Start) -> None:
    init = start_in_role("--ready-timeout", "500ms", agent="notify('STATUS=loading'); ready()")
    assert init.wait() == 134
    assert "the agent is not ready after 500ms" in init.wait_for_line("not ready")
    assert 'its last status: "loading"' in init.wait_for_line("ended")
    init = start_in_role("--ready-timeout", "30s", agent="notify('READY=1'); leave(4)")
    assert init.wait() == 4
    init = start_in_role(
        "--ready-timeout",
        "500ms",
        agent="""
for _ in range(5):
    notify("EXTEND_TIMEOUT_USEC=1000000"); time.sleep(0.2)
notify("READY=1"); time.sleep(1.2); leave(6)
""",
    )
    assert init.wait() == 6


def test_frozen_container_is_not_treated_as_hung(start_in_role: Start) -> None:
    """A pause stops process 1 and the agent. Afterwards the watchdog interval starts again."""
    init = start_in_role("--watchdog", "1s", agent=PINGS + "on('TERM', leave); log('on'); ping(600)")
    init.wait_for_event("on")
    agent = children_of(init)[0]
    init.signal("STOP")
    agent.suspend()
    time.sleep(1.5)
    init.signal("CONT")
    agent.resume()
    time.sleep(1.2)
    init.signal("TERM")
    assert init.wait() == 0
    assert not init.lines("sign of life")


# --- The parent socket. ---------------------------------------------------------------------------------------------


@pytest.fixture(params=["path", "abstract"])
def parent_socket(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """The socket of a supervisor above agent-init, and its address as in NOTIFY_SOCKET."""
    name = str(tmp_path / "parent") if request.param == "path" else f"@parent-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + name[1:] if name[0] == "@" else name)
        listening.settimeout(30)
        if request.param == "path":
            Path(name).chmod(0o666)
        yield listening, name


def test_messages_are_passed_on_to_the_parent_socket(
    start_in_role: Start, parent_socket: tuple[socket.socket, str]
) -> None:
    listening, name = parent_socket
    agent = """
notify("MAINPID=%d\\nREADY=1\\nSTATUS=up\\nX_OWN=1\\nFDSTORE=1" % os.getpid())
notify("WATCHDOG=1")
notify("BARRIER=1")
notify("STOPPING=1")
leave()
"""
    init = start_in_role(agent=agent, env=clean_environment(NOTIFY_SOCKET=name))
    assert init.wait() == 0
    ours = b"" if init.process1 else b"\nMAINPID=%d" % init.pid
    got = [listening.recv(4096) for _ in range(3)]
    assert got == [b"READY=1\nSTATUS=up" + ours, b"WATCHDOG=1" + ours, b"STOPPING=1" + ours]


@pytest.mark.parametrize("name", ["/nowhere/notify", "@nobody-listens", "vsock:2:1234", "x", "/"])
def test_unreachable_parent_socket_is_ignored(start_in_role: Start, name: str) -> None:
    init = start_in_role(agent="notify('READY=1'); leave(3)", env=clean_environment(NOTIFY_SOCKET=name))
    assert init.wait() == 3
    assert init.wait_for_line("the agent is ready")


def test_full_parent_socket_does_not_block(start_in_role: Start, parent_socket: tuple[socket.socket, str]) -> None:
    _, name = parent_socket
    agent = "[notify(f'STATUS={n}') for n in range(300)]; notify('READY=1'); leave()"
    init = start_in_role("-v", agent=agent, env=clean_environment(NOTIFY_SOCKET=name))
    assert init.wait() == 0
    assert init.wait_for_line("cannot pass a message of the agent on")


def test_nested_agent_init_has_its_own_notify_socket(start: Start) -> None:
    from tests.support.init import AGENT_INIT

    inner = [str(AGENT_INIT), "--", "sh", "-c", "sleep 0.1; exit 3"]
    init = start(command=["--", *inner])
    assert init.wait() == 3
    assert not init.lines("is no variable")


# --- Event loops. ---------------------------------------------------------------------------------------------------


def test_what_a_process_reports_of_its_event_loop_is_logged(start_in_role: Start) -> None:
    """As --loop-watch makes it send. It says nothing about the agent's state."""
    text = "X_AGENT_INIT_LOOP=blocked 0.512 event loop blocked for 512ms so far: agent.py:3 in f"
    init = start_in_role(agent=f"notify({text!r}); notify('X_AGENT_INIT_LOOP=odd'); notify('READY=1'); ready()")
    init.wait_for_line("event loop blocked for 512ms so far: agent.py:3 in f")
    init.wait_for_line("the agent is ready")
    assert "odd" not in init.stderr
    init.signal("TERM")
    assert init.wait() == 130, "an actor without a handler of TERM is interrupted"

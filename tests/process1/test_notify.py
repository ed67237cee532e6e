"""What agent-init offers its agent, and what comes of what the agent says (sd_notify(3))."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support.init import actor_line, clean_environment
from tests.support.proc import AS_NOBODY, IDLE, agent_of, descriptors, environment, inner_pid

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Start
    from tests.support.init import Init

root_only = pytest.mark.skipif(os.getuid() != 0, reason="changes the user, which takes root")


def variables(init: Init) -> dict[str, str]:
    """The agent's environment."""
    entries = environment(agent_of(init), offered=True).decode().split("\0")
    return dict(entry.partition("=")[::2] for entry in entries if entry)


def stop(init: Init) -> None:
    init.signal("TERM")
    assert init.wait() == 143


# --- What is offered. -----------------------------------------------------------------------------------------------


def test_what_is_added_to_the_environment(started: Start) -> None:
    given = clean_environment(PYTHONPATH="/app", AGENT_INIT_STOP_SECONDS="7", AGENT_INIT_RESPONDERS="@other")
    init = started("-t", "25s", "--stop-delay", "5s", "--watchdog", "90s", "--stacks", command=IDLE, env=given)
    agent = agent_of(init)
    seen = variables(init)
    added = {name: value for name, value in seen.items() if given.get(name) != value and name not in RUN}
    name = added.pop("AGENT_INIT_RESPONDERS")
    assert name.startswith("@agent-init-")
    assert added.pop("NOTIFY_SOCKET") == f"/run/{name[1:]}/notify"
    assert added.pop("PYTHONPATH").endswith("/entrypoint/agent/site:/app")
    assert added == {
        "AGENT_INIT_STOP_SECONDS": "18.5",
        "WATCHDOG_USEC": "90000000",
        "WATCHDOG_PID": str(inner_pid(agent)),
    }
    stop(init)
    assert not Path(seen["NOTIFY_SOCKET"]).parent.exists()


RUN = ("EVENTS", "TEST_RUN")


def test_where_the_deadline_is_not_ours_to_say_it_is_not_said(started: Start) -> None:
    init = started(command=IDLE, env=clean_environment(AGENT_INIT_STOP_SECONDS="7"))
    assert "AGENT_INIT_STOP_SECONDS" not in variables(init)
    stop(init)


def test_without_notify_the_environment_is_as_given(started: Start) -> None:
    given = clean_environment(NOTIFY_SOCKET="/elsewhere", AGENT_INIT_NOTIFY="off", WATCHDOG_USEC="5", LAST="1")
    init = started("-t", "5s", command=IDLE, env=given)
    agent = agent_of(init)
    assert environment(agent, offered=True) == environment(init.outer.pid, offered=True)
    stop(init)


def test_a_watchdog_that_was_meant_for_us_is_meant_for_the_agent(start: Start) -> None:
    """A systemd unit's: the agent's signs of life go up."""
    init = start(command=IDLE, env=clean_environment(WATCHDOG_USEC="5", WATCHDOG_PID="1"))
    assert variables(init)["WATCHDOG_PID"] == "2"
    stop(init)


def test_the_socket_of_root_can_be_reached_by_who_knows_its_name(started: Start) -> None:
    init = started(command=IDLE)
    path = Path(variables(init)["NOTIFY_SOCKET"])
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o666, 0o711)
    stop(init)


@root_only
def test_the_socket_of_anybody_else_is_private(started: Start) -> None:
    with TemporaryDirectory(dir="/tmp") as place:  # a socket's path has 107 bytes at most
        Path(place).chmod(0o777)
        init = started(command=IDLE, before=AS_NOBODY, env=clean_environment(TMPDIR=place))
        path = Path(variables(init)["NOTIFY_SOCKET"])
        assert path.parent.parent == Path(place)
        assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        stop(init)
        assert list(Path(place).iterdir()) == []


@root_only
@pytest.mark.parametrize("place", ["/nonexistent", "/" + "x" * 100], ids=["nowhere", "too long"])
def test_where_nothing_can_be_written_it_is_abstract(started: Start, place: str) -> None:
    agent = "tell('READY=1'); forever()"
    init = started(agent=agent, before=AS_NOBODY, env=clean_environment(TMPDIR=place))
    assert init.said("the agent is ready")
    assert any(f"@{name}/notify" in Path("/proc/net/unix").read_text() for name in names(init))
    init.signal("TERM")
    init.wait()


def names(init: Init) -> list[str]:
    child = psutil.Process(init.pid).children()[0]
    return [child.environ()["AGENT_INIT_RESPONDERS"].removeprefix("@")]


# --- Who is heard. --------------------------------------------------------------------------------------------------


@root_only
def test_an_agent_that_dropped_its_privileges_is_heard(started: Start) -> None:
    agent = "import array, socket; os.setgroups([]); os.setgid(65534); os.setuid(65534); tell('READY=1'); forever()"
    init = started(agent=agent)
    assert init.said("the agent is ready")
    stop(init)


@pytest.mark.parametrize("access", ["all", "main"])
def test_descendants_are_heard_where_all_are(started: Start, access: str) -> None:
    says = "tell('STATUS=from a descendant'); tell('READY=1'); log('told'); ready()"
    init = started("-v", "--notify-access", access, agent=f"child('child', {says!r}); on('TERM', leave); ready()")
    init.event("told", "child")
    if access == "all":
        assert init.said("the agent is ready")
        assert init.said('says: "from a descendant"')
    else:
        assert "does not count (--notify-access main)" in init.said("a message to the notify socket")
    init.signal("TERM")
    assert init.wait() == 0
    assert bool(init.lines("the agent is ready")) == (access == "all")


def test_a_daemon_of_the_agents_is_heard(started: Start) -> None:
    init = started(agent="on('TERM', leave); orphan('daemon', 'tell(\"READY=1\"); ready()'); ready()")
    assert init.said("the agent is ready")
    init.signal("TERM")
    assert init.wait() == 0


def test_a_stranger_is_not_heard(started: Start) -> None:
    init = started("-t", "1s", agent="on('TERM', lambda: log('asked')); ready()")
    init.event("ready")
    path = psutil.Process(init.pid).children()[0].environ()["NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        for _ in range(5):
            out.sendto(b"READY=1\nEXTEND_TIMEOUT_USEC=99000000\nWATCHDOG=trigger\nMAINPID=1", path)
    assert init.said("a message to the notify socket from")
    asked = time.monotonic()
    init.signal("TERM")
    assert init.wait() == 137
    assert 1 <= time.monotonic() - asked < 11
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
def test_what_is_no_message_changes_nothing(start: Start, text: str) -> None:
    init = start(agent=f"on('TERM', leave); tell({text}); tell('STATUS=after'); tell('ERRNO=2'); ready()")
    assert init.said("the agent tells error 2")
    init.signal("TERM")
    assert init.wait() == 0
    assert not init.lines("is ready")


def test_descriptors_are_closed_and_a_barrier_is_answered(started: Start) -> None:
    """With BARRIER=1 comes the writing end of a pipe; that it was closed is the answer."""
    agent = """
for text in ("FDSTORE=1", "READY=1", "", "BARRIER=1"):
    for _ in range(20):
        reader, writer = os.pipe()
        tell(text, writer, *[0] * (text == "FDSTORE=1"))
        os.close(writer)
        assert os.read(reader, 1) == b""
        os.close(reader)
on("TERM", leave)
log("answered")
ready()
"""
    init = started(agent=agent)
    init.event("answered")
    kinds = [leads_to for fd, leads_to in descriptors(init.pid).items() if fd > 2]
    assert len([leads_to for leads_to in kinds if leads_to.startswith("pipe:")]) <= 2  # its own, for a foreign stderr
    init.signal("TERM")
    assert init.wait() == 0


# A connection with unsent data, whose last close(2) waits for them for an hour (SO_LINGER, socket(7)).
LINGERING = """
import socket, struct
listening = socket.create_server(('127.0.0.1', 0))
slow = socket.create_connection(listening.getsockname())
deaf, _ = listening.accept()
slow.setblocking(False)
try:
    while True:
        slow.send(bytes(65536))
except BlockingIOError:
    pass
slow.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 3600))
on('TERM')

def send():
    tell('BARRIER=1', SENT)
    slow.close()
    log('sent')

on('USR1', send)
ready()
"""


@pytest.mark.parametrize("sent", ["slow.fileno()", "0, slow.fileno()", "*[slow.fileno()] * 253"])
def test_a_descriptor_that_takes_an_hour_to_close_does_not_hold_up_the_deadline(started: Start, sent: str) -> None:
    init = started("-t", "500ms", agent=LINGERING.replace("SENT", sent))
    init.event("ready")
    [agent] = psutil.Process(init.pid).children()
    init.signal("STOP")  # until it has closed its own, so that ours is the last
    agent.send_signal(signal.SIGUSR1)
    init.event("sent")
    init.signal("CONT")
    init.signal("TERM")
    asked = time.monotonic()
    assert init.wait() == 137
    assert time.monotonic() - asked < 5
    assert init.events() == ["ready", "USR1", "sent", "TERM"]


def test_after_descriptors_of_any_kind_it_listens_on(started: Start) -> None:
    """As with FDSTORE=1: a socket, and a file; they are closed, and what follows is heard."""
    agent = """
import socket
on('TERM', leave)
here, there = socket.socketpair()
tell('FDSTORE=1', there.fileno(), 0)
there.close()
here.recv(1)
log('closed')
tell('STATUS=later')
tell('READY=1')
ready()
"""
    init = started("-v", agent=agent)
    init.event("closed")
    init.said("the agent is ready")
    assert init.lines('the agent says: "later"')
    init.signal("TERM")
    assert init.wait() == 0


# --- What comes of it. ----------------------------------------------------------------------------------------------


def test_ready_and_status_are_told_once(started: Start) -> None:
    agent = """
for text in ("READY=1\\nSTATUS=serving", "READY=1", "STATUS=serving", "RELOADING=1\\nMONOTONIC_USEC=5", "READY=1",
             "STOPPING=1", "STATUS=a\\tb"):
    tell(text)
leave(3)
"""
    init = started("-v", agent=agent)
    assert init.wait() == 3
    told = [line for line in init.lines("the agent ") if not line.startswith(("started", "ended"))]
    assert told[0].startswith("the agent is ready, after ") or told[0] == 'the agent says: "serving"'
    assert [line.split(", after")[0] for line in told] == [
        'the agent says: "serving"',
        "the agent is ready",
        "the agent is reloading",
        "the agent is stopping by itself",
        'the agent says: "a\\tb"',
    ]
    assert init.lines("ended")[0].endswith('exit code 3; its last status: "a\\tb"')


def test_each_message_buys_the_time_it_names(started: Start) -> None:
    """Two seconds of grace, a stop of six, asked for second by second; then silence."""
    agent = """
def drain():
    for _ in range(6):
        tell("EXTEND_TIMEOUT_USEC=3000000")
        time.sleep(1)
    log("drained")
    leave()
on("TERM", drain)
ready()
"""
    init = started("-t", "2s", agent=agent)
    init.event("ready")
    init.signal("TERM")
    assert init.wait() == 0
    assert init.event("drained")["t"] - init.event("TERM")["t"] >= 6
    assert init.said("the agent asks for more time")


@pytest.mark.parametrize("bought", ["2000000", "60000000", "18446744073709551615"])
def test_no_time_is_bought_beyond_the_bound(started: Start, bought: str) -> None:
    agent = f"on('TERM', lambda: tell('EXTEND_TIMEOUT_USEC={bought}')); ready()"
    init = started("-t", "1s", "--max-grace", "2500ms", agent=agent)
    init.event("ready")
    asked = time.monotonic()
    init.signal("TERM")
    assert init.wait() == 137
    lived = time.monotonic() - asked
    low, high = (1.0, 2.0) if len(bought) == 20 else (2.0, 2.5)  # what is beyond 64 bits is no number
    assert low <= lived < high + 10
    if len(bought) == 8:
        assert lived >= 2.5


@pytest.mark.parametrize("text", ["0", "-5", "x", "1.5", "", "1e9"])
def test_what_is_no_time_buys_none(start: Start, text: str) -> None:
    init = start("-t", "500ms", agent=f"on('TERM', lambda: tell('EXTEND_TIMEOUT_USEC={text}')); ready()")
    init.event("ready")
    init.signal("TERM")
    assert init.wait() == 137
    assert not init.lines("more time")


# --- Watchdog and readiness. ----------------------------------------------------------------------------------------

PINGS = """
def ping(times):
    for _ in range(times):
        tell("WATCHDOG=1")
        time.sleep(0.1)
"""


def test_silence_is_a_hang(started: Start) -> None:
    init = started("-t", "5s", "--watchdog", "1s", agent=PINGS + "ping(20); log('silent'); ready()")
    init.event("silent")
    assert init.wait() == 134
    assert "the agent gave no sign of life for 1s: a report, ABRT to the agent" in init.said("sign of life")
    assert "was killed by SIGABRT" in init.said("ended")


def test_who_never_speaks_is_not_watched_and_who_speaks_in_time_lives(started: Start) -> None:
    silent = "on('TERM', leave); time.sleep(2); ready()"
    init = started("--watchdog", "500ms", agent=silent)
    init.event("ready")
    init.signal("TERM")
    assert init.wait() == 0
    init = started("--watchdog", "2s", agent=PINGS + "tell('READY=1'); ping(30); leave(7)")
    assert init.wait() == 7


def test_the_interval_can_be_changed_and_the_watchdog_triggered(started: Start) -> None:
    init = started("--watchdog", "600s", agent="tell('WATCHDOG_USEC=200000'); tell('WATCHDOG=1'); ready()")
    assert init.wait() == 134
    init = started("--watchdog", "300ms", agent="tell('READY=1\\nWATCHDOG_USEC=0'); time.sleep(1.5); leave(5)")
    assert init.wait() == 5
    init = started(agent="tell('WATCHDOG=trigger'); ready()")
    assert init.wait() == 134
    assert init.said("triggered its watchdog")


def test_an_agent_that_hung_does_not_end_well(started: Start) -> None:
    agent = "on('ABRT', leave); tell('WATCHDOG=1'); ready()"
    init = started("--watchdog", "300ms", "--termination-log", "none", agent=agent)
    assert init.wait() == 134
    assert init.events() == ["ready", "ABRT", "end"]
    assert init.said("ended").endswith("exit code 134 (it hung)")


def test_after_abrt_the_schedule_goes_on(started: Start) -> None:
    agent = "on('ABRT'); on('INT'); on('TERM'); tell('READY=1'); ready()"
    words = ("--watchdog", "300ms", "--stop-schedule", "TERM/500ms/INT/500ms/KILL")
    init = started(*words, agent=agent)
    assert init.wait() == 137
    assert init.events() == ["ready", "ABRT", "INT"]


def test_a_schedule_without_an_end_has_one_for_an_agent_that_hangs(start: Start) -> None:
    init = start(
        "--watchdog",
        "300ms",
        "--stop-schedule",
        "TERM/500ms/INT/500ms/USR1/1s",
        agent="""
on('ABRT'); on('INT'); on('USR1'); tell('READY=1'); ready()
""",
    )
    assert init.wait() == 137
    assert init.events() == ["ready", "ABRT", "INT", "USR1"]


def test_abrt_goes_to_who_was_heard_of_behind_a_shell(started: Start, tmp_path: Path) -> None:
    inner = "on('ABRT', lambda: leave(9)); tell('WATCHDOG=1'); ready()"
    init = started("--watchdog", "300ms", command=["--", "sh", "-c", actor_line("agent", inner) + "; exit $?"])
    assert init.wait() == 9
    assert init.events() == ["ready", "ABRT", "end"]


def test_of_who_is_behind_a_shell_no_sign_of_life_is_expected_until_it_gives_one(started: Start) -> None:
    """WATCHDOG_PID is the shell's, so that the agent's client does not send any."""
    inner = "tell('READY=1'); log('told'); on('TERM', leave); time.sleep(1.5); ready()"
    init = started("--watchdog", "500ms", command=["--", "sh", "-c", actor_line("agent", inner) + "; exit $?"])
    assert "waits for its first WATCHDOG=1" in init.said("is ready, but")
    init.event("ready")
    init.signal("TERM")
    assert init.wait() == 0


def test_not_ready_in_time(started: Start) -> None:
    init = started("--ready-timeout", "500ms", agent="tell('STATUS=loading'); ready()")
    assert init.wait() == 134
    assert "the agent is not ready after 500ms" in init.said("not ready")
    assert 'its last status: "loading"' in init.said("ended")
    init = started("--ready-timeout", "30s", agent="tell('READY=1'); leave(4)")
    assert init.wait() == 4
    init = started(
        "--ready-timeout",
        "500ms",
        agent="""
for _ in range(8):
    tell("EXTEND_TIMEOUT_USEC=2000000"); time.sleep(0.2)
tell("READY=1"); time.sleep(1); leave(6)
""",
    )
    assert init.wait() == 6


def test_a_container_that_was_frozen_is_not_taken_for_hanging(started: Start) -> None:
    """Pausing stops process 1 and the agent alike; then the agent gets its time anew."""
    init = started("--watchdog", "1s", agent=PINGS + "on('TERM', leave); log('on'); ping(600)")
    init.event("on")
    agent = psutil.Process(init.pid).children()[0]
    init.signal("STOP")
    agent.suspend()
    time.sleep(2.5)
    init.signal("CONT")
    agent.resume()
    time.sleep(1.5)
    init.signal("TERM")
    assert init.wait() == 0


# --- Upwards. -------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["path", "abstract"])
def above(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A supervisor's socket, and its NOTIFY_SOCKET."""
    name = str(tmp_path / "above") if request.param == "path" else f"@above-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + name[1:] if name[0] == "@" else name)
        listening.settimeout(30)
        if request.param == "path":
            Path(name).chmod(0o666)
        yield listening, name


def test_what_concerns_a_supervisor_above_is_passed_on(started: Start, above: tuple[socket.socket, str]) -> None:
    listening, name = above
    agent = """
tell("MAINPID=%d\\nREADY=1\\nSTATUS=up\\nX_OWN=1\\nFDSTORE=1" % os.getpid())
tell("WATCHDOG=1")
tell("BARRIER=1")
tell("STOPPING=1")
leave()
"""
    init = started(agent=agent, env=clean_environment(NOTIFY_SOCKET=name))
    assert init.wait() == 0
    ours = b"" if init.process1 else b"\nMAINPID=%d" % init.pid
    got = [listening.recv(4096) for _ in range(3)]
    assert got == [b"READY=1\nSTATUS=up" + ours, b"WATCHDOG=1" + ours, b"STOPPING=1" + ours]


@pytest.mark.parametrize("name", ["/nowhere/notify", "@nobody-listens", "vsock:2:1234", "x", "/"])
def test_a_supervisor_that_cannot_be_reached_changes_nothing(started: Start, name: str) -> None:
    init = started(agent="tell('READY=1'); leave(3)", env=clean_environment(NOTIFY_SOCKET=name))
    assert init.wait() == 3
    assert init.said("the agent is ready")


def test_a_supervisor_that_does_not_read_holds_nothing_up(started: Start, above: tuple[socket.socket, str]) -> None:
    _, name = above
    agent = "[tell(f'STATUS={n}') for n in range(300)]; tell('READY=1'); leave()"
    init = started("-v", agent=agent, env=clean_environment(NOTIFY_SOCKET=name))
    assert init.wait() == 0
    assert init.said("could not be passed on")


def test_nested_each_hears_its_own(start: Start) -> None:
    from tests.support.init import AGENT_INIT

    inner = [str(AGENT_INIT), "--", "sh", "-c", "sleep 0.1; exit 3"]
    init = start(command=["--", *inner])
    assert init.wait() == 3
    assert not init.lines("is no variable")

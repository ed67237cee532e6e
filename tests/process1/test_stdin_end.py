"""--stop-on EOF: the other end of stdin is gone. Nothing is read, and the agent reads what is left first."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.init import clean_environment, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Start
    from tests.support.init import Init

EOF = ("--stop-on", "TERM,INT,EOF", "-t", "20s")
DRAINS = "on('TERM', lambda: leave(7, after=0.2)); ready()"
# Reads a byte at each USR1.
READS = "on('USR1', lambda: log('read', data=os.read(0, 1).decode())); on('TERM', lambda: leave(7)); ready()"


@pytest.fixture(params=["pipe", "socket", "half-closed socket", "terminal"])
def stdin(request: pytest.FixtureRequest) -> Iterator[tuple[int, Callable[[], None]]]:
    """A descriptor for stdin, and a function that closes its other end."""
    if request.param == "pipe":
        ours, theirs = os.pipe()
        close: Callable[[], None] = lambda: os.close(theirs)  # noqa: E731
    elif request.param == "terminal":
        theirs, ours = os.openpty()
        close = lambda: os.close(theirs)  # noqa: E731
    else:
        one, other = socket.socketpair()
        ours = one.detach()
        close = other.close if request.param == "socket" else lambda: other.shutdown(socket.SHUT_WR)
    yield ours, close
    os.close(ours)


def seconds_of_cpu(init: Init) -> float:
    fields = Path(f"/proc/{init.pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def wake_ups(init: Init) -> int:
    status = Path(f"/proc/{init.pid}/status").read_text()
    return sum(int(line.split()[1]) for line in status.splitlines() if "ctxt_switches" in line)


def test_agent_is_stopped_when_the_other_end_is_gone(
    start_in_role: Start, stdin: tuple[int, Callable[[], None]]
) -> None:
    ours, close = stdin
    init = start_in_role(*EOF, agent=DRAINS, stdin=ours)
    init.wait_for_event("ready")
    time.sleep(0.3)
    assert init.events() == ["ready"]
    close()
    assert init.wait() == 7
    assert init.events() == ["ready", "TERM", "end"]
    assert init.lines("stop requested by the end of stdin, whose other end is gone: TERM to the agent")


def test_without_eof_in_stop_on_nothing_happens(start_in_role: Start) -> None:
    ours, theirs = os.pipe()
    init = start_in_role("-t", "20s", agent=DRAINS, stdin=ours)
    os.close(ours)
    init.wait_for_event("ready")
    os.close(theirs)
    time.sleep(1)
    assert init.events() == ["ready"]
    init.signal("TERM")
    assert init.wait() == 7


def test_agent_reads_what_is_left_before_the_stop(start_in_role: Start) -> None:
    ours, theirs = os.pipe()
    init = start_in_role(*EOF, agent=READS, stdin=ours)
    os.close(ours)
    init.wait_for_event("ready")
    os.write(theirs, b"ab")
    os.close(theirs)
    time.sleep(0.5)
    cpu, before = seconds_of_cpu(init), wake_ups(init)
    time.sleep(1)
    assert seconds_of_cpu(init) - cpu < 0.1
    assert wake_ups(init) - before < 40
    assert init.events() == ["ready"]
    for count in (1, 2):
        init.signal("USR1")
        until(lambda: len(init.records(event="read")) == count, "a read")  # noqa: B023
    assert init.wait() == 7
    assert "".join(record["data"] for record in init.records(event="read")) == "ab"
    assert init.events()[-2:] == ["TERM", "end"]


def test_server_that_exits_at_the_end_of_its_input_keeps_its_exit_code(start_in_role: Start) -> None:
    ours, theirs = os.pipe()
    init = start_in_role(*EOF, command=["sh", "-c", "cat; sleep 0.2; exit 3"], stdin=ours)
    os.close(ours)
    os.write(theirs, b"request\n")
    os.close(theirs)
    assert init.wait() == 3
    assert not init.lines("stop requested")
    assert init.outer.stdout is not None
    assert init.outer.stdout.read() == b"request\n"


@pytest.mark.parametrize("what", ["/dev/null", "file", "closed"])
def test_stdin_without_another_end_never_ends(start_in_role: Start, tmp_path: Path, what: str) -> None:
    file = tmp_path / "file"
    file.touch()
    path = {"/dev/null": what, "file": str(file)}.get(what)
    before = ["sh", "-c", f'exec "$@" {"<&-" if path is None else f"<{path}"}', "sh"]
    init = start_in_role(*EOF, agent=DRAINS, before=before)
    init.wait_for_event("ready")
    time.sleep(0.8)
    assert init.events() == ["ready"]
    init.signal("TERM")
    assert init.wait() == 7


def test_no_wake_ups_while_the_other_end_is_there(start_in_role: Start) -> None:
    ours, theirs = os.pipe()
    init = start_in_role(*EOF, agent=DRAINS, stdin=ours)
    os.close(ours)
    init.wait_for_event("ready")
    os.write(theirs, b"not read")
    time.sleep(0.3)
    before = wake_ups(init)
    time.sleep(1)
    assert wake_ups(init) == before
    init.signal("TERM")
    assert init.wait() == 7
    os.close(theirs)


def test_end_of_stdin_during_a_stop_is_no_second_request(start_in_role: Start) -> None:
    """A client that is stopped sends its signal on, and is gone."""
    ours, theirs = os.pipe()
    init = start_in_role(
        *EOF, "--repeat", "escalate", agent="on('TERM', lambda: leave(7, after=1.5)); ready()", stdin=ours
    )
    os.close(ours)
    init.wait_for_event("ready")
    init.signal("TERM")
    init.wait_for_event("TERM")
    os.close(theirs)
    assert init.wait() == 7
    assert len(init.lines("stop requested")) == 1
    assert not init.lines("already in progress")


def test_other_end_that_is_gone_before_the_start(start_in_role: Start) -> None:
    ours, theirs = os.pipe()
    os.close(theirs)
    init = start_in_role(*EOF, agent="on('TERM', lambda: leave(7)); ready()", stdin=ours)
    os.close(ours)
    assert init.wait() in (7, 143)  # stopped before or after it had its handler
    assert init.lines("stop requested by the end of stdin")


def test_platform_that_did_not_request_the_stop_does_not_end_it(start: Start) -> None:
    """On a platform we have no deadline, except here: nobody else knows that the client is gone."""
    ours, theirs = os.pipe()
    env = clean_environment(RAILWAY_DEPLOYMENT_DRAINING_SECONDS="2")
    init = start("--stop-on", "TERM,EOF", agent="ignore('TERM'); ready()", stdin=ours, env=env)
    os.close(ours)
    init.wait_for_event("ready")
    os.close(theirs)
    assert init.wait() == 137
    assert init.lines("KILL after 2s")

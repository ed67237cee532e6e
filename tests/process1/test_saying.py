"""What agent-init says, to whom, and that saying it never holds it up."""

from __future__ import annotations

import datetime
import json
import os
import pty
import socket
import termios
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.support.init import clean_environment, until
from tests.support.proc import AS_NOBODY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Start
    from tests.support.init import Init

LATE = 0.5  # how late the end may be after the grace, as promised
SECRET = "hunter2"

GRACEFUL = "on('TERM', leave); ready()"
STUBBORN = "on('USR1'); on('USR2'); ignore('TERM'); ready()"
NOISY = "import sys; on('TERM', leave); on('USR1', lambda: (sys.stderr.write('agent\\n'), log('wrote'))); ready()"


@pytest.fixture(params=["same user", "another user"])
def before(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """The words that make agent-init run as the one who opened its stderr, or as somebody else."""
    log = tmp_path / "events.jsonl"
    log.touch()
    log.chmod(0o666)
    if request.param == "same user":
        return []
    if os.getuid() != 0:
        pytest.skip("to become another user takes root")
    return AS_NOBODY


# --- Which lines. ---------------------------------------------------------------------------------------------------


def test_a_normal_life_is_a_handful_of_lines(started: Start) -> None:
    init = started("-t", "25s", agent=GRACEFUL)
    init.event("ready")
    init.signal("TERM")
    assert init.wait() == 0
    first, second, third = init.lines()
    role = "process 1" if init.process1 else "subreaper"
    assert first.startswith("started python")
    assert f"as {role}; grace 25s (-t)" in first
    assert second.startswith("stop requested by TERM from ")
    assert "TERM to the agent, KILL after 25s" in second
    assert third.startswith("ended: the agent exited with code 0, ")
    assert third.endswith("; exit code 0")


@pytest.mark.parametrize(
    ("variables", "why"),
    [
        ({"AGENT_INIT_GRACE": "25s"}, "grace 25s (AGENT_INIT_GRACE)"),
        (
            {"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
            "grace: Kubernetes's own, 30s unless raised; AGENT_INIT_GRACE not set",
        ),
        ({"RAILWAY_DEPLOYMENT_DRAINING_SECONDS": "45"}, "grace: Railway's own, 45s as set"),
        ({"AGENT_INIT_STOP_SCHEDULE": "TERM/5s/INT/1s/KILL"}, "schedule TERM/5s/INT/1s/KILL"),
    ],
)
def test_the_start_line_tells_the_grace_and_why(started: Start, variables: dict[str, str], why: str) -> None:
    init = started(command=["true"], env=clean_environment(**variables))
    assert init.wait() == 0
    assert why in init.said("started")


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("-q", {"warning"}),
        ("-qq", set()),
        ("-qqq", set()),
        ("-vq", {"", "warning"}),
        ("-v", {"", "warning", "debug"}),
    ],
)
def test_quiet_and_verbose(started: Start, option: str, expected: set[str]) -> None:
    """The life has something to say at each level: USR2 nobody handles, WINCH is passed on."""
    init = started(option, agent=GRACEFUL)
    init.event("ready")
    init.signal("WINCH")
    init.signal("USR2")
    init.signal("TERM")
    assert init.wait() == 0
    labels = {"warning" if line.startswith("warning: ") else "" for line in init.lines()}
    if init.lines("WINCH"):
        labels.add("debug")
    assert labels == expected, init.stderr


def test_a_failed_start_is_told_however_quiet(started: Start) -> None:
    init = started("-qqq", command=["/no/such"])
    assert init.wait() == 127
    assert init.said("'/no/such'")


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("level", [[], ["-q"], ["-v"]], ids=str)
def test_arguments_and_environment_are_not_told(started: Start, level: list[str], form: str) -> None:
    """They can hold secrets. Each kind of line is provoked: a drain that lingers, a warning, a deadline."""
    code = "orphan('child', 'ignore(\"TERM\"); ready()'); on('TERM'); ready()"
    env = clean_environment(TOKEN=SECRET, AGENT_INIT_TOKEN=SECRET)
    init = started(*level, "-w", "-t", "300ms", "--log-format", form, agent=f"'{SECRET}'; {code}", env=env)
    init.event("ready")
    init.event("ready", "child")
    for name in ("USR2", "TERM", "TERM"):
        init.signal(name)
    assert init.wait() == 137
    assert init.stderr
    assert SECRET not in init.stderr


@pytest.mark.parametrize("program", ["/no/such", "no-such", "/etc"])
def test_arguments_are_not_told_by_a_failed_start(started: Start, program: str) -> None:
    init = started(command=[program, f"--password={SECRET}"], env=clean_environment(TOKEN=SECRET))
    assert init.wait() in (126, 127)
    assert init.stderr
    assert SECRET not in init.stderr


def test_arguments_are_told_when_asked_for_twice(started: Start) -> None:
    init = started("-vv", command=["sh", "-c", ":", f"--password={SECRET}"], env=clean_environment(TOKEN="unsaid"))
    assert init.wait() == 0
    assert f"sh -c : --password={SECRET}" in init.said("started")
    assert "unsaid" not in init.stderr


@pytest.mark.parametrize(
    ("variable", "near"),
    [
        ("AGENT_INIT_GRACEE", "AGENT_INIT_GRACE"),
        ("AGENT_INIT_STOPON", "AGENT_INIT_STOP_ON"),
        ("AGENT_INIT_LOGFORMAT", "AGENT_INIT_LOG_FORMAT"),
        ("AGENT_INIT_grace", ""),
        ("AGENT_INIT_XYZZY_PLUGH", ""),
        ("AGENT_INIT_", ""),
    ],
)
def test_an_unknown_variable_is_warned_about(started: Start, variable: str, near: str) -> None:
    init = started(command=["true"], env=clean_environment(**{variable: "5"}))
    assert init.wait() == 0
    line = init.said(f"{variable} is no variable")
    assert line.startswith("warning: ")
    assert ("did you mean" in line) is bool(near)
    assert line.endswith(f"did you mean {near}?") or not near


def test_variables_of_ours_are_not_warned_about(started: Start) -> None:
    init = started(
        command=["true"], env=clean_environment(AGENT_INIT_GRACE="5", AGENT_INIT_VERBOSE="", AGENTINIT_X="1")
    )
    assert init.wait() == 0
    assert not init.lines("warning")


# --- JSON. ----------------------------------------------------------------------------------------------------------


def json_lines(text: str) -> list[dict[str, Any]]:
    """Each line an object, with what every line has."""
    records: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
    for record in records:
        assert record.keys() >= {"time", "level", "event", "message"}
        at = datetime.datetime.fromisoformat(record["time"])
        assert abs((datetime.datetime.now(datetime.UTC) - at).total_seconds()) < 600
        assert record["level"] in ("debug", "info", "warning", "error")
    return records


def test_a_normal_life_in_json(started: Start) -> None:
    init = started("--log-format", "json", "-t", "25s", agent=GRACEFUL)
    agent = init.event("ready")["pid"]
    init.signal("TERM")
    assert init.wait() == 0
    first, second, third = json_lines(init.stderr)
    assert (first["event"], second["event"], third["event"]) == ("started", "stop-requested", "ended")
    assert (first["pid"], first["program"], first["grace"]) == (agent, first["program"], 25)
    assert first["program"].startswith("python")
    assert first["role"] == ("process 1" if init.process1 else "subreaper")
    assert first["grace_from"] == "grace 25s (-t)"
    assert second["signal"] == "TERM"
    assert (third["code"], third["agent_code"]) == (0, 0)
    assert 0 <= third["stop_seconds"] <= third["seconds"]


def test_a_hard_end_in_json(started: Start) -> None:
    code = "orphan('a \"quoted\" child', 'ignore(\"TERM\"); ready()'); ignore('TERM'); ready()"
    init = started("--log-format=json", "-v", "-w", "-t", "500ms", agent=code)
    init.event("ready")
    init.event("ready", 'a "quoted" child')
    init.signal("USR2")
    init.signal("TERM")
    until(lambda: '"stop-requested"' in init.stderr, "the stop request")
    init.signal("TERM")
    assert init.wait() == 137
    records = json_lines(init.stderr)
    events = [record["event"] for record in records]
    for event in ("started", "shielded", "stop-requested", "stop-repeated", "deadline", "ended"):
        assert event in events
    deadline = records[events.index("deadline")]
    assert (deadline["level"], len(deadline["processes"])) == ("warning", 2)


def test_odd_names_in_json(started: Start, tmp_path: Path) -> None:
    """The program's name holds what JSON, and a terminal, must not get raw."""
    program = tmp_path / 'a "b"\n\\\x1b[31m\u00fc\udcff'
    program.symlink_to("/bin/true")
    for form in ("json", "text"):
        init = started("--log-format", form, command=[str(program)])
        assert init.wait() == 0
        assert init.stderr_path.read_bytes().count(b"\n") == 2
        assert "\x1b" not in init.stderr
        if form == "json":
            assert json_lines(init.stderr)[0]["program"] == program.name


# --- To whom. -------------------------------------------------------------------------------------------------------


def fill_pipe(writer: int) -> int:
    """Write until nothing more goes in; returns how much went in. The pipe stays a blocking one."""
    os.set_blocking(writer, False)
    written = 0
    for size in (4096, 1):
        try:
            while True:
                written += os.write(writer, b"x" * size)
        except BlockingIOError:
            continue
    os.set_blocking(writer, True)
    return written


def handled(init: Init, count: int) -> None:
    """The agent has seen so many USR1."""
    until(lambda: len(init.records("agent", "USR1")) >= count, f"{count} signals to arrive")


def stops_in_time(init: Init, grace: float) -> None:
    """It has an agent that ignores TERM."""
    init.event("ready")
    asked = time.monotonic()
    init.signal("TERM")
    assert init.wait() == 137
    assert grace <= time.monotonic() - asked < grace + LATE


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for fd in (reader, writer):
        try:
            os.close(fd)
        except OSError:
            continue


def test_a_full_pipe_does_not_delay_the_end(started: Start, pipe: tuple[int, int], before: list[str]) -> None:
    reader, writer = pipe
    size = fill_pipe(writer)
    init = started("-t", "500ms", agent=STUBBORN, stderr=writer, before=before)
    stops_in_time(init, 0.5)
    assert os.read(reader, 2 * size) == b"x" * size


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_a_full_pipe_lost_is_counted(started: Start, pipe: tuple[int, int], before: list[str], form: str) -> None:
    reader, writer = pipe
    size = fill_pipe(writer)
    init = started("--log-format", form, agent="on('TERM', leave); on('USR1'); ready()", stderr=writer, before=before)
    init.event("ready")
    for count in range(3):  # nobody handles TRAP: a warning; USR1, with a higher number, comes after it
        init.signal("TRAP")
        init.signal("USR1")
        handled(init, count + 1)
    assert os.read(reader, 2 * size) == b"x" * size
    init.signal("TERM")
    assert init.wait() == 0
    os.close(writer)
    with os.fdopen(os.dup(reader)) as end:
        first, *more = end.read().splitlines()
    if form == "json":
        record = json.loads(first)
        assert (record["event"], record["lines"], record["level"]) == ("dropped", 4, "warning")
    else:
        assert first == "agent-init: warning: 4 lines before this one could not be written"
    assert "stop requested" in more[0]
    assert "ended" in more[1]
    assert len(more) == 2


def test_a_pipe_that_nobody_reads_any_more(started: Start, pipe: tuple[int, int], before: list[str]) -> None:
    reader, writer = pipe
    os.close(reader)
    init = started("-t", "500ms", agent=STUBBORN, stderr=writer, before=before)
    stops_in_time(init, 0.5)


def test_a_pipe_whose_reader_goes_away_later(started: Start, pipe: tuple[int, int], before: list[str]) -> None:
    reader, writer = pipe
    init = started("-t", "500ms", agent=STUBBORN, stderr=writer, before=before)
    init.event("ready")
    assert b"started" in os.read(reader, 4096)
    os.close(reader)
    init.signal("USR2")
    stops_in_time(init, 0.5)


def test_a_pipe_that_is_read(started: Start, pipe: tuple[int, int], before: list[str]) -> None:
    reader, writer = pipe
    init = started(agent=GRACEFUL, stderr=writer, before=before)
    init.event("ready")
    init.signal("TERM")
    assert init.wait() == 0
    os.close(writer)
    with os.fdopen(os.dup(reader)) as end:
        lines = end.read().splitlines()
    assert [line.split()[1] for line in lines] == ["started", "stop", "ended:"]


def test_a_full_disk(started: Start, before: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        init = started("-t", "500ms", agent=STUBBORN, stderr=full, before=before)
        stops_in_time(init, 0.5)


def test_a_full_file_system(started: Start) -> None:
    """As a regular file meets it, by the limit of a file's size: the agent gets no signal for a line of ours."""
    reader, writer = os.pipe()
    command = ["sh", "-c", "trap 'exit 3' TERM; echo; while :; do sleep 0.02; done"]
    init = started("-v", command=command, before=["prlimit", "--fsize=0"], stdout=writer)
    assert os.read(reader, 1) == b"\n"
    idle(init)
    init.signal("TERM")
    assert init.wait() == 3
    assert init.stderr == ""
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("words", [[], ["-v"]], ids=str)
@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_the_signal_that_comes_with_a_closed_pipe_is_not_passed_on(
    started: Start, before: list[str], kind: str, words: list[str]
) -> None:
    """SIGPIPE is for who wrote. Taken for somebody's, each line about it would bring the next, without end."""
    reader, writer = os.pipe() if kind == "pipe" else (end.detach() for end in socket.socketpair())
    os.close(reader)
    init = started(*words, agent="on('PIPE'); on('TERM', leave); ready()", stderr=writer, before=before)
    os.close(writer)
    init.event("ready")
    init.signal("USR2")
    idle(init)
    init.signal("TERM")
    assert init.wait() == 0
    assert init.events() == ["ready", "TERM", "end"]


def idle(init: Init) -> None:
    """It uses no processor time to speak of."""
    process = psutil.Process(init.pid)
    began, before = time.monotonic(), sum(process.cpu_times()[:2])
    time.sleep(0.3)
    assert sum(process.cpu_times()[:2]) - before < 0.2 * (time.monotonic() - began)


def test_a_closed_stderr(started: Start) -> None:
    init = started("-t", "500ms", agent=STUBBORN, before=["sh", "-c", 'exec "$@" 2>&-', "sh"])
    stops_in_time(init, 0.5)
    assert init.stderr == ""


def test_a_file_is_gone_on_with(started: Start) -> None:
    """With one offset for all who write to it, and what was there before kept."""
    init = started(agent=NOISY, before=["sh", "-c", 'echo before >&2; exec "$@"', "sh"])
    init.event("ready")
    init.signal("USR1")
    init.event("wrote")
    init.signal("TERM")
    assert init.wait() == 0
    words = [line.removeprefix("agent-init: ").split()[0] for line in init.stderr.splitlines()]
    assert words == ["before", "started", "agent", "stop", "ended:"]


def test_a_socket(started: Start, before: list[str]) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            init = started(agent=NOISY, stderr=theirs, before=before)
        init.event("ready")
        init.signal("USR1")
        init.event("wrote")
        init.signal("TERM")
        assert init.wait() == 0
        text = b"".join(iter(lambda: ours.recv(4096), b"")).decode()
    assert [line.removeprefix("agent-init: ").split()[0] for line in text.splitlines()] == [
        "started",
        "agent",
        "stop",
        "ended:",
    ]


def test_a_full_socket_does_not_delay_the_end(started: Start, before: list[str]) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            theirs.setblocking(False)
            try:
                while True:
                    theirs.send(b"x" * 1000)
            except BlockingIOError:
                theirs.setblocking(True)
            init = started("-t", "500ms", agent=STUBBORN, stderr=theirs, before=before)
        stops_in_time(init, 0.5)


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Both ends of a pseudo-terminal; what is written to the second can be read from the first."""
    master, slave = pty.openpty()
    attributes = termios.tcgetattr(slave)
    attributes[1] &= ~termios.OPOST
    termios.tcsetattr(slave, termios.TCSANOW, attributes)
    yield master, slave
    os.close(master)
    os.close(slave)


def test_a_terminal(started: Start, terminal: tuple[int, int], before: list[str]) -> None:
    master, slave = terminal
    init = started(agent=GRACEFUL, stderr=slave, before=before)
    init.event("ready")
    init.signal("TERM")
    assert init.wait() == 0
    os.set_blocking(master, False)
    text = ""

    def read() -> bool:
        nonlocal text
        try:
            text += os.read(master, 4096).decode()
        except BlockingIOError:
            pass
        return text.count("\n") >= 3

    until(read, "three lines on the terminal")
    assert [line.split()[1] for line in text.splitlines()] == ["started", "stop", "ended:"]


def test_a_terminal_that_nobody_reads(started: Start, terminal: tuple[int, int], before: list[str]) -> None:
    """Its buffer fills up with our own lines; not one of them may wait."""
    _, slave = terminal
    os.set_blocking(slave, False)
    try:
        for size in (1000, 1):
            while os.write(slave, b"x" * size):
                continue
    except BlockingIOError:
        os.set_blocking(slave, True)
    init = started("-t", "500ms", agent=STUBBORN, stderr=slave, before=before)
    stops_in_time(init, 0.5)


@pytest.mark.parametrize("words", [["-v"], ["-v", "--log-format", "json"]], ids=["text", "json"])
def test_a_terminal_filled_by_our_own_lines(
    started: Start, terminal: tuple[int, int], before: list[str], words: list[str]
) -> None:
    _, slave = terminal
    init = started(*words, "-t", "500ms", agent=STUBBORN, stderr=slave, before=before)
    init.event("ready")
    for count in range(1, 150):
        init.signal("USR1")
        handled(init, count)
    stops_in_time(init, 0.5)


def test_a_stopped_terminal(started: Start, terminal: tuple[int, int], before: list[str]) -> None:
    """Somebody has pressed Ctrl-S."""
    _, slave = terminal
    termios.tcflow(slave, termios.TCOOFF)
    init = started("-t", "500ms", agent=STUBBORN, stderr=slave, before=before)
    stops_in_time(init, 0.5)
    termios.tcflow(slave, termios.TCOON)


def test_long_lines_are_cut(started: Start) -> None:
    """One line is one write that a pipe takes whole (PIPE_BUF)."""
    for form in ("text", "json"):
        init = started("-vv", "--log-format", form, command=["true", "\u00fc" * 60_000])
        assert init.wait() == 0
        assert max(len(line) for line in init.stderr_path.read_bytes().splitlines()) < 4096
        if form == "json":
            assert len(json_lines(init.stderr)) == 2

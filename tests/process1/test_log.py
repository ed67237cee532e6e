"""The log: which lines are written, in which form, and that a blocked stderr never delays agent-init."""

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

TOLERANCE = 0.5  # seconds; agent-init exits at most this long after the grace, as promised
SECRET = "hunter2"

GRACEFUL = "on('TERM', leave); ready()"
STUBBORN = "on('USR1'); on('USR2'); ignore('TERM'); ready()"
NOISY = "import sys; on('TERM', leave); on('USR1', lambda: (sys.stderr.write('agent\\n'), log('wrote'))); ready()"


@pytest.fixture(params=["same user", "another user"])
def as_user(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """The prefix that runs agent-init as the user who opened its stderr, or as another one."""
    log = tmp_path / "events.jsonl"
    log.touch()
    log.chmod(0o666)
    if request.param == "same user":
        return []
    if os.getuid() != 0:
        pytest.skip("changing the user takes root")
    return AS_NOBODY


# --- The lines. -----------------------------------------------------------------------------------------------------


def test_normal_stop_logs_three_lines(start_in_role: Start) -> None:
    init = start_in_role("-t", "25s", agent=GRACEFUL)
    init.wait_for_event("ready")
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
        ({"CONTAINER_APP_NAME": "agent"}, "grace: Azure Container Apps's own, 30s unless raised"),
        ({"AGENT_INIT_STOP_SCHEDULE": "TERM/5s/INT/1s/KILL"}, "schedule TERM/5s/INT/1s/KILL"),
    ],
)
def test_start_line_gives_the_grace_and_its_source(start_in_role: Start, variables: dict[str, str], why: str) -> None:
    init = start_in_role(command=["true"], env=clean_environment(**variables))
    assert init.wait() == 0
    assert why in init.wait_for_line("started")


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
def test_log_levels_of_quiet_and_verbose(start_in_role: Start, option: str, expected: set[str]) -> None:
    """The run logs at every level: USR2 is dropped with a warning, WINCH is forwarded with a debug line."""
    init = start_in_role(option, agent=GRACEFUL)
    init.wait_for_event("ready")
    init.signal("WINCH")
    init.signal("USR2")
    init.signal("TERM")
    assert init.wait() == 0
    labels = {"warning" if line.startswith("warning: ") else "" for line in init.lines()}
    if init.lines("WINCH"):
        labels.add("debug")
    assert labels == expected, init.stderr


def test_failed_start_is_logged_at_any_log_level(start_in_role: Start) -> None:
    init = start_in_role("-qqq", command=["/no/such"])
    assert init.wait() == 127
    assert init.wait_for_line("'/no/such'")


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("level", [[], ["-q"], ["-v"]], ids=str)
def test_arguments_and_environment_are_not_logged(start_in_role: Start, level: list[str], form: str) -> None:
    """They can hold secrets. The run logs lines of all kinds: leftover processes, a warning, a deadline."""
    code = "orphan('child', 'ignore(\"TERM\"); ready()'); on('TERM'); ready()"
    env = clean_environment(TOKEN=SECRET, AGENT_INIT_TOKEN=SECRET)
    init = start_in_role(*level, "-w", "-t", "300ms", "--log-format", form, agent=f"'{SECRET}'; {code}", env=env)
    init.wait_for_event("ready")
    init.wait_for_event("ready", "child")
    for name in ("USR2", "TERM", "TERM"):
        init.signal(name)
    assert init.wait() == 137
    assert init.stderr
    assert SECRET not in init.stderr


@pytest.mark.parametrize("program", ["/no/such", "no-such", "/etc"])
def test_failed_start_does_not_log_the_arguments(start_in_role: Start, program: str) -> None:
    init = start_in_role(command=[program, f"--password={SECRET}"], env=clean_environment(TOKEN=SECRET))
    assert init.wait() in (126, 127)
    assert init.stderr
    assert SECRET not in init.stderr


def test_arguments_are_logged_with_vv(start_in_role: Start) -> None:
    init = start_in_role(
        "-vv", command=["sh", "-c", ":", f"--password={SECRET}"], env=clean_environment(TOKEN="unsaid")
    )
    assert init.wait() == 0
    assert f"sh -c : --password={SECRET}" in init.wait_for_line("started")
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
def test_unknown_variable_is_warned_about(start_in_role: Start, variable: str, near: str) -> None:
    init = start_in_role(command=["true"], env=clean_environment(**{variable: "5"}))
    assert init.wait() == 0
    line = init.wait_for_line(f"unknown variable {variable}")
    assert line.startswith("warning: ")
    assert ("did you mean" in line) is bool(near)
    assert line.endswith(f"did you mean {near}?") or not near


def test_known_variables_are_not_warned_about(start_in_role: Start) -> None:
    init = start_in_role(
        command=["true"], env=clean_environment(AGENT_INIT_GRACE="5", AGENT_INIT_VERBOSE="", AGENTINIT_X="1")
    )
    assert init.wait() == 0
    assert not init.lines("warning")


def test_service_links_of_kubernetes_are_not_warned_about(start_in_role: Start) -> None:
    links = {
        "AGENT_INIT_SERVICE_HOST": "10.0.0.11",
        "AGENT_INIT_SERVICE_PORT_HTTP": "80",
        "AGENT_INIT_PORT": "tcp://10.0.0.11:80",
        "AGENT_INIT_PORT_80_TCP": "tcp://10.0.0.11:80",
        "AGENT_INIT_PORT_80_TCP_ADDR": "10.0.0.11",
    }
    init = start_in_role(command=["true"], env=clean_environment(**links, AGENT_INIT_GRACEE="5"))
    assert init.wait() == 0
    assert init.lines("warning") == ["warning: unknown variable AGENT_INIT_GRACEE; did you mean AGENT_INIT_GRACE?"]


@pytest.mark.parametrize("verbosity", ["0", "1", "2"])
def test_honoured_variables_of_other_inits_are_logged(start_in_role: Start, verbosity: str) -> None:
    env = clean_environment(TINI_SUBREAPER="", DUMB_INIT_SETSID="0", DUMB_INIT_DEBUG="1", TINI_VERBOSITY=verbosity)
    init = start_in_role(command=["true"], env=env)
    assert init.wait() == 0
    (line,) = init.lines("honoured")
    level = {"0": "-qq", "1": "-q", "2": "the default level"}[verbosity]
    for text in ("TINI_SUBREAPER as --subreaper", "DUMB_INIT_SETSID as --target child", f"TINI_VERBOSITY as {level}"):
        assert text in line
    assert "DUMB_INIT_DEBUG" not in line
    assert len(init.lines()) == (3 if verbosity == "2" else 1)


def test_variables_of_other_inits_without_effect_are_not_logged(start_in_role: Start) -> None:
    env = clean_environment(TINI_KILL_PROCESS_GROUP="1", DUMB_INIT_SETSID="1", TINI_VERBOSITY="0")
    init = start_in_role("-c", "-v", command=["true"], env=env)
    assert init.wait() == 0
    assert init.lines("started")
    assert not init.lines("honoured")


# --- JSON. ----------------------------------------------------------------------------------------------------------


def json_lines(text: str) -> list[dict[str, Any]]:
    """Parse the lines and check the fields that every line has."""
    records: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
    for record in records:
        assert record.keys() >= {"time", "level", "severity", "event", "message"}
        at = datetime.datetime.fromisoformat(record["time"])
        assert abs((datetime.datetime.now(datetime.UTC) - at).total_seconds()) < 600
        assert record["level"] in ("debug", "info", "warning", "error")
        assert record["severity"] == record["level"].upper()
    return records


def test_normal_stop_in_json(start_in_role: Start) -> None:
    init = start_in_role("--log-format", "json", "-t", "25s", agent=GRACEFUL)
    agent = init.wait_for_event("ready")["pid"]
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


def test_stop_with_sigkill_in_json(start_in_role: Start) -> None:
    code = "orphan('a \"quoted\" child', 'ignore(\"TERM\"); ready()'); ignore('TERM'); ready()"
    init = start_in_role("--log-format=json", "-v", "-w", "-t", "500ms", agent=code)
    init.wait_for_event("ready")
    init.wait_for_event("ready", 'a "quoted" child')
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
    assert (deadline["level"], deadline["severity"], len(deadline["processes"])) == ("warning", "WARNING", 2)


def test_odd_program_name_is_escaped(start_in_role: Start, tmp_path: Path) -> None:
    """The program's name contains characters that must be escaped for JSON and for a terminal."""
    program = tmp_path / 'a "b"\n\\\x1b[31m\u00fc\udcff'
    program.symlink_to("/bin/true")
    for form in ("json", "text"):
        init = start_in_role("--log-format", form, command=[str(program)])
        assert init.wait() == 0
        assert init.stderr_path.read_bytes().count(b"\n") == 2
        assert "\x1b" not in init.stderr
        if form == "json":
            assert json_lines(init.stderr)[0]["program"] == program.name


# --- Where it goes. -------------------------------------------------------------------------------------------------


def test_log_to_stdout_leaves_stderr_empty(start_in_role: Start) -> None:
    init = start_in_role("--log-to", "stdout", agent=GRACEFUL)
    init.wait_for_event("ready")
    init.signal("TERM")
    assert init.wait() == 0
    assert init.stderr == ""
    assert init.outer.stdout is not None
    lines = init.outer.stdout.read().decode().splitlines()
    assert [line.split()[1] for line in lines] == ["started", "stop", "ended:"]


def test_log_to_stdout_by_its_variable(start_in_role: Start) -> None:
    init = start_in_role(
        "--log-format", "json", command=["/no/such"], env=clean_environment(AGENT_INIT_LOG_TO="stdout")
    )
    assert init.wait() == 127
    assert init.stderr == ""
    assert init.outer.stdout is not None
    assert json.loads(init.outer.stdout.read())["event"] == "not-started"


@pytest.mark.parametrize(("to", "closing"), [("stdout", "1>&-"), ("stderr", "2>&-")])
def test_log_to_a_closed_descriptor_goes_nowhere(start_in_role: Start, to: str, closing: str) -> None:
    """What the agent opens on that number is no place for the log."""
    before = ["sh", "-c", f'exec "$@" {closing}', "sh"]
    init = start_in_role("--log-to", to, command=["true"], before=before)
    assert init.wait() == 0
    assert init.stderr == ""
    assert init.outer.stdout is not None
    assert init.outer.stdout.read() == b""


def test_full_stdout_does_not_delay_the_exit(start_in_role: Start, pipe: tuple[int, int], as_user: list[str]) -> None:
    _, writer = pipe
    fill_pipe(writer)
    init = start_in_role("--log-to", "stdout", "-t", "500ms", agent=STUBBORN, stdout=writer, before=as_user)
    assert_killed_on_time(init, 0.5)


# --- Kinds of stderr. -----------------------------------------------------------------------------------------------


def fill_pipe(writer: int) -> int:
    """Fill a pipe and return how many bytes it took. The pipe stays in blocking mode."""
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


def wait_for_usr1(init: Init, count: int) -> None:
    """Wait until the agent has received this many USR1."""
    until(lambda: len(init.records("agent", "USR1")) >= count, f"{count} signals to arrive")


def assert_killed_on_time(init: Init, grace: float) -> None:
    """Stop an agent that ignores TERM."""
    init.wait_for_event("ready")
    requested_at = time.monotonic()
    init.signal("TERM")
    assert init.wait() == 137
    assert grace <= time.monotonic() - requested_at < grace + TOLERANCE


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for fd in (reader, writer):
        try:
            os.close(fd)
        except OSError:
            continue


def test_full_pipe_does_not_delay_the_exit(start_in_role: Start, pipe: tuple[int, int], as_user: list[str]) -> None:
    reader, writer = pipe
    size = fill_pipe(writer)
    init = start_in_role("-t", "500ms", agent=STUBBORN, stderr=writer, before=as_user)
    assert_killed_on_time(init, 0.5)
    assert os.read(reader, 2 * size) == b"x" * size


@pytest.mark.parametrize("form", ["text", "json"])
def test_lines_lost_to_a_full_pipe_are_counted(
    start_in_role: Start, pipe: tuple[int, int], as_user: list[str], form: str
) -> None:
    reader, writer = pipe
    size = fill_pipe(writer)
    init = start_in_role(
        "--log-format", form, agent="on('TERM', leave); on('USR1'); ready()", stderr=writer, before=as_user
    )
    init.wait_for_event("ready")
    for count in range(3):  # TRAP is unhandled: a warning; USR1 has a higher number and is received after it
        init.signal("TRAP")
        init.signal("USR1")
        wait_for_usr1(init, count + 1)
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


def test_pipe_without_a_reader_does_not_delay_the_exit(
    start_in_role: Start, pipe: tuple[int, int], as_user: list[str]
) -> None:
    reader, writer = pipe
    os.close(reader)
    init = start_in_role("-t", "500ms", agent=STUBBORN, stderr=writer, before=as_user)
    assert_killed_on_time(init, 0.5)


def test_pipe_whose_reader_closes_later_does_not_delay_the_exit(
    start_in_role: Start, pipe: tuple[int, int], as_user: list[str]
) -> None:
    reader, writer = pipe
    init = start_in_role("-t", "500ms", agent=STUBBORN, stderr=writer, before=as_user)
    init.wait_for_event("ready")
    assert b"started" in os.read(reader, 4096)
    os.close(reader)
    init.signal("USR2")
    assert_killed_on_time(init, 0.5)


def test_pipe_receives_every_line(start_in_role: Start, pipe: tuple[int, int], as_user: list[str]) -> None:
    reader, writer = pipe
    init = start_in_role(agent=GRACEFUL, stderr=writer, before=as_user)
    init.wait_for_event("ready")
    init.signal("TERM")
    assert init.wait() == 0
    os.close(writer)
    with os.fdopen(os.dup(reader)) as end:
        lines = end.read().splitlines()
    assert [line.split()[1] for line in lines] == ["started", "stop", "ended:"]


def test_full_disk_does_not_delay_the_exit(start_in_role: Start, as_user: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        init = start_in_role("-t", "500ms", agent=STUBBORN, stderr=full, before=as_user)
        assert_killed_on_time(init, 0.5)


def test_file_size_limit_on_stderr_sends_the_agent_no_signal(start_in_role: Start) -> None:
    """The size limit stands for a full file system: the agent gets no signal for a line of agent-init's."""
    reader, writer = os.pipe()
    command = ["sh", "-c", "trap 'exit 3' TERM; echo; while :; do sleep 0.02; done 2>/dev/null"]
    init = start_in_role("-v", command=command, before=["prlimit", "--fsize=0"], stdout=writer)
    assert os.read(reader, 1) == b"\n"
    assert_idle(init)
    init.signal("TERM")
    assert init.wait() == 3
    assert init.stderr == ""
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("options", [[], ["-v"]], ids=str)
@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_sigpipe_from_writing_a_log_line_is_not_forwarded(
    start_in_role: Start, as_user: list[str], kind: str, options: list[str]
) -> None:
    """SIGPIPE goes to the writer. If it were forwarded, each line about it would cause the next, without end."""
    reader, writer = os.pipe() if kind == "pipe" else (end.detach() for end in socket.socketpair())
    os.close(reader)
    init = start_in_role(*options, agent="on('PIPE'); on('TERM', leave); ready()", stderr=writer, before=as_user)
    os.close(writer)
    init.wait_for_event("ready")
    init.signal("USR2")
    assert_idle(init)
    init.signal("TERM")
    assert init.wait() == 0
    assert init.events() == ["ready", "TERM", "end"]


def assert_idle(init: Init) -> None:
    """agent-init uses next to no processor time."""
    process = psutil.Process(init.pid)
    began, before = time.monotonic(), sum(process.cpu_times()[:2])
    time.sleep(0.3)
    assert sum(process.cpu_times()[:2]) - before < 0.2 * (time.monotonic() - began)


def test_closed_stderr_does_not_delay_the_exit(start_in_role: Start) -> None:
    init = start_in_role("-t", "500ms", agent=STUBBORN, before=["sh", "-c", 'exec "$@" 2>&-', "sh"])
    assert_killed_on_time(init, 0.5)
    assert init.stderr == ""


def test_log_lines_are_appended_to_a_shared_file(start_in_role: Start) -> None:
    """All writers share one file offset, and earlier content is kept."""
    init = start_in_role(agent=NOISY, before=["sh", "-c", 'echo before >&2; exec "$@"', "sh"])
    init.wait_for_event("ready")
    init.signal("USR1")
    init.wait_for_event("wrote")
    init.signal("TERM")
    assert init.wait() == 0
    first_words = [line.removeprefix("agent-init: ").split()[0] for line in init.stderr.splitlines()]
    assert first_words == ["before", "started", "agent", "stop", "ended:"]


def test_socket_receives_every_line(start_in_role: Start, as_user: list[str]) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            init = start_in_role(agent=NOISY, stderr=theirs, before=as_user)
        init.wait_for_event("ready")
        init.signal("USR1")
        init.wait_for_event("wrote")
        init.signal("TERM")
        assert init.wait() == 0
        text = b"".join(iter(lambda: ours.recv(4096), b"")).decode()
    assert [line.removeprefix("agent-init: ").split()[0] for line in text.splitlines()] == [
        "started",
        "agent",
        "stop",
        "ended:",
    ]


def test_full_socket_does_not_delay_the_exit(start_in_role: Start, as_user: list[str]) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            theirs.setblocking(False)
            try:
                while True:
                    theirs.send(b"x" * 1000)
            except BlockingIOError:
                theirs.setblocking(True)
            init = start_in_role("-t", "500ms", agent=STUBBORN, stderr=theirs, before=as_user)
        assert_killed_on_time(init, 0.5)


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Both ends of a pseudo-terminal, without output processing: (master, slave)."""
    master, slave = pty.openpty()
    attributes = termios.tcgetattr(slave)
    attributes[1] &= ~termios.OPOST
    termios.tcsetattr(slave, termios.TCSANOW, attributes)
    yield master, slave
    os.close(master)
    os.close(slave)


def test_terminal_receives_every_line(start_in_role: Start, terminal: tuple[int, int], as_user: list[str]) -> None:
    master, slave = terminal
    init = start_in_role(agent=GRACEFUL, stderr=slave, before=as_user)
    init.wait_for_event("ready")
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


def test_full_terminal_does_not_delay_the_exit(
    start_in_role: Start, terminal: tuple[int, int], as_user: list[str]
) -> None:
    """The terminal's buffer is full before agent-init starts."""
    _, slave = terminal
    os.set_blocking(slave, False)
    try:
        for size in (1000, 1):
            while os.write(slave, b"x" * size):
                continue
    except BlockingIOError:
        os.set_blocking(slave, True)
    init = start_in_role("-t", "500ms", agent=STUBBORN, stderr=slave, before=as_user)
    assert_killed_on_time(init, 0.5)


@pytest.mark.parametrize("options", [["-v"], ["-v", "--log-format", "json"]], ids=["text", "json"])
def test_terminal_filled_by_log_lines_does_not_delay_the_exit(
    start_in_role: Start, terminal: tuple[int, int], as_user: list[str], options: list[str]
) -> None:
    _, slave = terminal
    init = start_in_role(*options, "-t", "500ms", agent=STUBBORN, stderr=slave, before=as_user)
    init.wait_for_event("ready")
    for count in range(1, 150):
        init.signal("USR1")
        wait_for_usr1(init, count)
    assert_killed_on_time(init, 0.5)


def test_terminal_stopped_by_ctrl_s_does_not_delay_the_exit(
    start_in_role: Start, terminal: tuple[int, int], as_user: list[str]
) -> None:
    """As after Ctrl-S."""
    _, slave = terminal
    termios.tcflow(slave, termios.TCOOFF)
    init = start_in_role("-t", "500ms", agent=STUBBORN, stderr=slave, before=as_user)
    assert_killed_on_time(init, 0.5)
    termios.tcflow(slave, termios.TCOON)


def test_long_lines_are_truncated(start_in_role: Start) -> None:
    """A line is written with one write(2) that is atomic for a pipe (PIPE_BUF, pipe(7))."""
    for form in ("text", "json"):
        init = start_in_role("-vv", "--log-format", form, command=["true", "\u00fc" * 60_000])
        assert init.wait() == 0
        assert max(len(line) for line in init.stderr_path.read_bytes().splitlines()) < 4096
        if form == "json":
            assert len(json_lines(init.stderr)) == 2

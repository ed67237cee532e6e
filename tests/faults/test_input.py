"""Arbitrary input: options, environment variables, and datagrams on the notify socket."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from entrypoint import notify, options, parsed
from entrypoint import settings as reader
from tests.support.init import AGENT_INIT, clean_environment, until
from tests.support.proc import children_of, descriptors

if TYPE_CHECKING:
    from collections.abc import Collection

    from tests.conftest import Start
    from tests.support.init import Init

TOLERANCE = 8.0  # seconds, for a busy machine; less than the extension that the messages ask for
FLAGS = [flag for option in options.OPTIONS for flag in (*option.flags, *option.constants)]
VARIABLES = [option.variable for option in options.OPTIONS]

# Valid values, typing errors, and values that nobody would type.
PLAUSIBLE = ["TERM", "KILL", "15", "-1", "0", "1", "-5s", "1h", "infinity", "auto", "none", "on", "off", "TERM/5s/KILL"]
PLAUSIBLE += [
    "TERM,INT",
    "HUP:QUIT",
    "HUP:0",
    "255",
    "256",
    "1e9",
    "9" * 5000,
    "\u0661",
    "\uff11s",
    "5\n",
    "",
    " ",
    ",",
]
PLAUSIBLE += ["RTMIN+31", "RTMIN+99", "TERM/KILL/TERM", "/", "//", ":", "group", "json", "366d", "367d", "0.0000001s"]
texts = st.one_of(st.sampled_from(PLAUSIBLE), st.text(st.characters(exclude_characters="\0"), max_size=30))
arguments = st.one_of(
    st.sampled_from(FLAGS),
    st.builds("{}={}".format, st.sampled_from(FLAGS), texts),
    st.builds("{}{}".format, st.sampled_from([flag for flag in FLAGS if len(flag) == 2]), texts),
    texts,
)
variables = st.dictionaries(st.sampled_from(VARIABLES), texts, max_size=4)


@settings(max_examples=3000, deadline=None)
@given(st.lists(arguments, max_size=6), variables)
def test_any_command_line_gives_settings_or_a_one_line_error(typed: list[str], environment: dict[str, str]) -> None:
    try:
        found = reader.read([*typed, "--", "true"], environment)
    except parsed.InfoRequested:
        return
    except parsed.UsageError as error:
        message = str(error)
    else:
        assert found.command
        assert min(found.linger, found.stop_delay, 0.0 if found.grace is None else found.grace) >= 0
        assert all(0 <= code < 256 for code in found.ok_exit)
        return
    assert message.isprintable()
    assert len(message) < 1500


@settings(max_examples=1500, deadline=None)
@given(st.sampled_from([option for option in options.OPTIONS if option.flags]), texts, texts)
def test_flag_overrides_any_value_of_its_variable(option: options.Option, typed: str, preset: str) -> None:
    line = [option.flags[0], typed, "--", "true"]
    alone, both = (_read(line, environment) for environment in ({}, {option.variable: preset}))
    assert alone == both


def _read(line: list[str], environment: dict[str, str]) -> object:
    try:
        found = reader.read(line, environment)
    except parsed.UsageError as error:
        return str(error)
    return vars(found)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(arguments, max_size=5), variables)
@example(["-t", "0", "--linger", "0"], {})
@example(["--stop-on", "none", "-p", "KILL"], {"AGENT_INIT_LOG_FORMAT": "json"})
def test_any_command_line_runs_the_agent_or_prints_one_line(typed: list[str], environment: dict[str, str]) -> None:
    """Either the agent runs and its code is passed on, or agent-init prints one line and runs nothing."""
    with tempfile.TemporaryDirectory() as directory:
        ran_at = Path(directory) / "ran"
        command = ["sh", "-c", f": >{ran_at}; exit 9"]
        try:
            encoded = [os.fsencode(text) for text in (*typed, *environment.values())][: len(typed)]
        except UnicodeEncodeError:
            return  # a lone surrogate, which no system passes on
        if "AGENT_INIT_TERMINATION_LOG" in environment or any(word.startswith("--termination-log") for word in typed):
            return  # agent-init would write to that path
        ran = subprocess.run(
            [os.fsencode(AGENT_INIT), *encoded, b"--", *command],
            env=clean_environment(**environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
        )
        assert ran.returncode in (0, 9, 125, 126, 127), ran.stderr
        assert b"Traceback" not in ran.stderr
        if ran.returncode in (125, 126, 127):
            assert not ran_at.exists()
            assert ran.stderr.count(b"\n") == 1
            assert ran.stderr.startswith((b"agent-init: ", b"{"))


# --- The notify socket. ---------------------------------------------------------------------------------------------


@given(st.binary(max_size=200))
def test_any_datagram_is_parsed_or_refused(datagram: bytes) -> None:
    try:
        fields = notify.parse(datagram)
    except ValueError:
        assert b"\0" in datagram
        return
    assert all(key and "\n" not in key + value and "=" not in key for key, value in fields.items())


@given(st.dictionaries(st.from_regex(r"[A-Z_]{1,12}", fullmatch=True), st.text(st.characters(codec="utf-8"))))
def test_encoded_message_can_be_parsed(fields: dict[str, str]) -> None:
    plain = {key: value.replace("\n", " ") for key, value in fields.items()}
    if any("\0" in value for value in plain.values()):
        return
    assert notify.parse(notify.encode(dict(fields))) == plain


# Sends from inside the process tree: random bytes, invalid messages, many descriptors.
RANDOM_SENDER = """
import array, random, socket
talk = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
talk.connect(os.environ['NOTIFY_SOCKET'].replace('@', chr(0)))
talk.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
randomly = random.Random(SEED)
keys = [b'READY', b'STATUS', b'RELOADING', b'ERRNO', b'MAINPID', b'EXTEND_TIMEOUT_USEC', b'BARRIER', b'FDSTORE',
        b'MONOTONIC_USEC', b'X_MINE', b'', b'FDNAME', b'NOTIFYACCESS']
values = [b'1', b'0', b'-1', b'1' * 4000, b'99999999999999999999', b'\\xff\\xfe', b'a\\0b', b' 1', b'', b'1\\x1b[31m']
log('ready')
for count in range(2500):
    lines = [randomly.choice(keys) + b'=' + randomly.choice(values) for _ in range(randomly.randrange(4))]
    text = randomly.choice([b'\\n'.join(lines), randomly.randbytes(randomly.choice([0, 1, 40, 5000, 150000]))])
    fds = array.array('i', [0] * randomly.choice([0, 0, 1, 3, 250]))
    extra = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)] if fds else []
    try:
        talk.sendmsg([text], extra)
    except OSError as error:
        log('refused', error=str(error))
"""


def address(pid: int) -> str:
    """The address of the notify socket that this process was given."""
    environment = psutil.Process(pid).environ()
    return notify.address(environment["NOTIFY_SOCKET"])


@pytest.mark.parametrize("seed", [1, 2])
def test_random_messages_from_the_agent_do_no_harm(start_in_role: Start, seed: int) -> None:
    agent = RANDOM_SENDER.replace("SEED", str(seed)) + "\non('TERM', lambda: leave(7)); log('done'); forever()"
    init = start_in_role("-t", "2s", "--notify-access", "all", agent=agent)
    init.wait_for_event("ready")
    init.wait_for_event("done")
    init.signal("USR2")
    init.wait_for_line("USR2 from")  # agent-init has handled all earlier messages
    until(lambda: len(descriptors(init.pid)) < 16, f"the descriptors to be closed: {descriptors(init.pid)}")
    assert not init.lines("unexpected"), init.lines("unexpected")[0]
    assert all(line.isprintable() for line in init.stderr.splitlines())
    init.signal("TERM")
    assert init.wait() == 7


def closed_or_ended(init: Init, before: Collection[int]) -> bool:
    """Whether process 1 has no other descriptors than before, or has ended: then it is a zombie, or gone."""
    try:
        return (descriptors(init.pid).keys() or before) == before
    except FileNotFoundError:
        return True


def test_messages_from_outside_the_tree_do_no_harm(start_in_role: Start) -> None:
    """The sender is root but not in the tree: it can write to the socket, but its messages are ignored."""
    init = start_in_role("-t", "500ms", "--notify-access", "all", agent="on('TERM'); ready()")
    init.wait_for_event("ready")
    [agent] = children_of(init)
    before = descriptors(init.pid).keys()
    texts = [b"READY=1", b"STOPPING=1", b"WATCHDOG=trigger", b"WATCHDOG_USEC=1", b"MAINPID=1", b"STATUS=stranger"]
    texts += [b"EXTEND_TIMEOUT_USEC=60000000", b"BARRIER=1", os.urandom(4000), b""]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as talk:
        talk.connect(address(agent.pid))
        for _ in range(200):
            for text in texts:
                socket.send_fds(talk, [text or b"\0"], [0, 1, 2])
        requested_at = time.monotonic()
        init.signal("TERM")
        init.wait_for_event("TERM")
        while time.monotonic() - requested_at < 0.4:
            socket.send_fds(talk, [b"EXTEND_TIMEOUT_USEC=60000000"], [0])
        until(lambda: closed_or_ended(init, before), "closed descriptors")
    assert init.wait() == 137
    assert time.monotonic() - requested_at < 0.5 + TOLERANCE
    assert "stranger" not in init.stderr
    assert not init.lines("unexpected")

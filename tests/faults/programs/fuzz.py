"""`fuzz.py PACKAGE TARGET [LIBFUZZER-OPTION]...`: fuzz one function of agent-init with atheris, guided by coverage.

Exits with 77 and a traceback at the first input that breaks a promise, else with 0.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import socket
import sys
from types import SimpleNamespace
from typing import Any

import atheris

PACKAGE, TARGET = sys.argv[1:3]
sys.path.insert(0, PACKAGE)
with atheris.instrument_imports(include=["entrypoint"]):
    from entrypoint import control, notify, options, parsed
    from entrypoint import settings as reader
    from entrypoint.ctl import connection, probes, status
    from entrypoint.init import console, control_answers, history, planning
    from entrypoint.init.counters import Counters
    from entrypoint.init.lifecycle import Lifecycle

from entrypoint.init import control_socket  # noqa: E402 - it keeps code as bytes, which does not work with the fuzzer's

FLAGS = [flag for option in options.OPTIONS for flag in (*option.flags, *option.constants)]
VARIABLES = [option.variable for option in options.OPTIONS]
MAX_GRACE, WATCHDOG = 60, 5  # seconds
KEYS = "READY RELOADING STOPPING STATUS ERRNO MAINPID WATCHDOG WATCHDOG_USEC EXTEND_TIMEOUT_USEC".split()


def read_options(data: bytes) -> None:
    """Any options and variables give settings or a one-line error."""
    source = atheris.FuzzedDataProvider(data)
    typed = []
    for _ in range(source.ConsumeIntInRange(0, 5)):
        flag = source.PickValueInList(["", *FLAGS])
        typed.append(flag + source.PickValueInList(["", "="]) + source.ConsumeUnicodeNoSurrogates(20))
    environment = {
        source.PickValueInList(VARIABLES): source.ConsumeUnicodeNoSurrogates(20)
        for _ in range(source.ConsumeIntInRange(0, 3))
    }
    try:
        settings = reader.read([*typed, "--", "true"], environment)
        made = planning.make(settings, environment, lambda _path: False)
    except parsed.InfoRequested:
        return
    except parsed.UsageError as error:
        message = str(error)
    else:
        message = ""
    assert message.isprintable()
    if message:
        return
    assert settings.command
    assert made.grace >= 0
    assert all(wait >= 0 for _, wait in made.steps)


def receive_messages(data: bytes) -> None:
    """Any datagrams are parsed or refused, and the life cycle still comes to an end within its limits."""
    source = atheris.FuzzedDataProvider(data)
    settings = reader.read(["-t", "25s", "--watchdog", f"{WATCHDOG}", "--max-grace", f"{MAX_GRACE}", "agent"], {})
    life = Lifecycle(settings, planning.make(settings, {}, lambda _path: False), 0.0)
    now = 0.0
    for _ in range(source.ConsumeIntInRange(1, 6)):
        now += source.ConsumeFloatInRange(0.0, 20.0)
        while life.due <= now:
            life.tick(life.due)
        key = source.PickValueInList([*KEYS, ""])
        datagram = source.ConsumeBytes(60)
        if key:
            datagram = key.encode() + b"=" + datagram
        try:
            fields = notify.parse(datagram)
        except ValueError:
            assert b"\0" in datagram
            continue
        if source.ConsumeBool():
            life.signal(now, 15, "a test")
        life.notified(now, fields, "a test")
    last = now
    while life.due < math.inf:
        last = max(last, life.due)
        life.tick(last)
    assert life.state in ("running", "ended")
    assert last <= now + MAX_GRACE + WATCHDOG + 1.0


def write_lines(data: bytes) -> None:
    """Any log line is one printable line that a pipe takes in one write; with JSON it is valid JSON."""
    source = atheris.FuzzedDataProvider(data)
    size = source.ConsumeIntInRange(0, 6000)
    text = source.ConsumeUnicode(200) * (1 + size // 200)
    line = console.text_line(source.ConsumeIntInRange(-1, 3), text)
    assert line.endswith(b"\n")
    assert len(line) <= console.MAX_LINE_BYTES
    assert line[:-1].decode("utf-8").isprintable()
    fields = {"text": source.ConsumeUnicode(50), "number": source.ConsumeFloat(), "list": [1, None, True]}
    line = console.json_line(0.0, 1, "event", text, fields)
    assert line.endswith(b"\n")
    assert len(line) <= console.MAX_LINE_BYTES
    assert json.loads(line)["event"] == "event"


COMMANDS = [*control_answers.COMMANDS, ""]
FIELDS = "COMMAND GRACE SECONDS SIGNAL WAIT FOLLOW".split()
KINDS = [control.FIELDS, control.LINES, control.PROBLEM, control.DONE]


def answer_requests(data: bytes) -> None:
    """Any packet gets an answer that fits the format, or none, and a stop still ends within its limits."""
    source = atheris.FuzzedDataProvider(data)
    settings = reader.read(["-t", "25s", "--max-grace", f"{MAX_GRACE}", "agent"], {})
    life = Lifecycle(settings, planning.make(settings, {}, lambda _path: False), 0.0)
    now = 0.0
    process_1: Any = SimpleNamespace(
        settings=settings,
        plan=planning.make(settings, {}, lambda _path: False),
        lifecycle=life,
        loop=SimpleNamespace(time=lambda: now),
        agent=SimpleNamespace(pid=os.getpid(), name="agent", has_exited=False),
        execution=SimpleNamespace(counters=Counters(), event=lambda method, *more: method(now, *more)),
        history=history.History(),
        memory=SimpleNamespace(new_kills=0),
        helper_pids=set(),
        control=None,
        reporter=SimpleNamespace(request=lambda *_: json.dumps({"root": 1})),
    )
    for _ in range(source.ConsumeIntInRange(1, 4)):
        now += source.ConsumeFloatInRange(0.0, 20.0)
        while life.due <= now:
            life.tick(life.due)
        packet = "COMMAND=" + source.PickValueInList(COMMANDS)
        for _ in range(source.ConsumeIntInRange(0, 3)):
            packet += f"\n{source.PickValueInList(FIELDS)}={source.ConsumeUnicode(20)}"
        sent = packet.encode("utf-8", "surrogatepass") + source.ConsumeBytes(source.PickValueInList([0, 8]))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            client = control_socket.Client(ours.detach())
            client.may_command = source.ConsumeBool()
            theirs.send(sent * source.PickValueInList([1, 60]))
            try:
                fields = client.receive()
            except ValueError:
                assert b"\0" in sent or len(sent) * 60 > control.MAX_REQUEST_BYTES
                fields = None
            for answer in control_answers.answer(process_1, client, fields) if fields else ():
                assert answer[:1] in KINDS
                assert len(answer) <= control.MAX_PACKET_BYTES
                answer.decode()
            client.connection.close()
    last = now
    while life.due < math.inf:
        last = max(last, life.due)
        life.tick(last)
    assert life.state in ("running", "ended")
    assert last <= now + 366 * 86400.0  # --grace D of `stop` and `extend` are not beyond that


ANSWER_FIELDS = (
    "VERSION STATE SINCE UPTIME READY HUNG AGENT NAME STATUS STOPPING_FOR NEXT PLATFORM LEFT WATCHDOG LAST_PING "
    "OOM_KILLS FORWARDED DROPPED REAPED REFUSED"
).split()
VALUES = ["0", "-1", "nan", "inf", "1e400", "HUP:1", "ready", "watchdog", "9" * 5000, *["\x1b[2J"] * 6]


def read_answers(data: bytes) -> None:
    """Any answer is printed on lines that a terminal does not act on, or it is a failure with one line."""
    source = atheris.FuzzedDataProvider(data)
    whole = control_fields(source)
    packets = [control.FIELDS + notify.encode(dict(whole))[: source.PickValueInList([10000, 10000, 10000, 100])]]
    for _ in range(source.ConsumeIntInRange(0, 2)):
        packets.append(source.PickValueInList([*KINDS, b""]) + source.ConsumeBytes(30) + b"x")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, contextlib.redirect_stdout(io.StringIO()) as out:
        for packet in packets:
            theirs.send(packet)
        theirs.shutdown(socket.SHUT_WR)
        connection._connect = lambda *_: (ours, True)
        connection.find = lambda pid=None: pid or os.getpid()
        how = source.ConsumeIntInRange(0, 3)
        problem, code = "", 0
        try:
            if how < 2:
                code = (probes.ready, probes.live)[how](None, 5.0)
            else:
                print(connection.read(lambda fields: status.text(fields, 1, as_json=how == 2), 1, 5.0))
        except connection.Failure as failure:
            problem, code = str(failure), failure.code
    assert code in (0, 1, 125)
    assert connection.printable(problem).isprintable()
    assert all(line.isprintable() for line in out.getvalue().split("\n"))


def control_fields(source: Any) -> dict[str, object]:
    """Most of the fields of an answer, with values that are right or wrong."""
    found: dict[str, object] = dict.fromkeys(ANSWER_FIELDS[: source.ConsumeIntInRange(15, len(ANSWER_FIELDS))], "1")
    for _ in range(source.ConsumeIntInRange(0, 5)):
        value = source.PickValueInList([*VALUES, ""]) or source.ConsumeUnicodeNoSurrogates(30)
        found[source.PickValueInList(ANSWER_FIELDS)] = value
    return found


atheris.Setup([sys.argv[0], *sys.argv[3:]], globals()[TARGET])
atheris.Fuzz()

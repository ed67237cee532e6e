"""`fuzz.py PACKAGE TARGET [LIBFUZZER-OPTION]...`: fuzz one function of agent-init with atheris, guided by coverage.

Exits with 77 and a traceback at the first input that breaks a promise, else with 0.
"""

from __future__ import annotations

import json
import math
import sys

import atheris

PACKAGE, TARGET = sys.argv[1:3]
sys.path.insert(0, PACKAGE)
with atheris.instrument_imports(include=["entrypoint"]):
    from entrypoint import notify, options
    from entrypoint import settings as reader
    from entrypoint.init import console
    from entrypoint.init import stop_plan as plan
    from entrypoint.init.lifecycle import Lifecycle

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
        made = plan.make(settings, environment, lambda _path: False)
    except reader.InfoRequested:
        return
    except reader.UsageError as error:
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
    life = Lifecycle(settings, plan.make(settings, {}, lambda _path: False), 0.0)
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


atheris.Setup([sys.argv[0], *sys.argv[3:]], globals()[TARGET])
atheris.Fuzz()

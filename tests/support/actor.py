"""Play an agent: `python actor.py LOG NAME CODE` runs CODE with the functions below.

Events are appended to LOG, one JSON object per line: pid, name, event, t (time.monotonic(), in seconds; the clock is
the same for all processes of the machine).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

LOG, NAME, CODE = sys.argv[1:4] if __name__ == "__main__" else ("", "", "")
ARGUMENTS = sys.argv[4:]


def log(event: str, **fields: object) -> None:
    record = {"pid": os.getpid(), "name": NAME, "event": event, "t": time.monotonic(), **fields}
    fd = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(fd, json.dumps(record).encode() + b"\n")
    os.close(fd)


def number(name: str) -> int:
    base, _, offset = name.partition("+")
    return int(getattr(signal, f"SIG{base}")) + int(offset or 0)


def on(name: str, action: Callable[[], object] | None = None) -> None:
    """Handle a signal: log its name, then call `action`."""

    def handler(*_: object) -> None:
        log(name)
        if action is not None:
            action()

    signal.signal(number(name), handler)


def ignore(*names: str) -> None:
    for name in names:
        signal.signal(number(name), signal.SIG_IGN)


def leave(code: int = 0, *, after: float = 0.0) -> NoReturn:
    """Exit with `code` after a clean-up that takes `after` seconds."""
    time.sleep(after)
    log("end")
    os._exit(code)


def child(name: str, code: str, *, session: bool = False) -> int:
    """Start another actor and return its pid."""
    argv = [sys.executable, "-S", __file__, LOG, name, code]
    return subprocess.Popen(argv, start_new_session=session).pid


def orphan(name: str, code: str) -> None:
    """Start another actor as a daemon: in its own session, with a parent that exits at once."""
    if (pid := os.fork()) == 0:
        os.setsid()
        child(name, code)
        os._exit(0)
    os.waitpid(pid, 0)


def notify(text: str, *descriptors: int) -> None:
    """Send a message to the notify socket, with these descriptors."""
    import array
    import socket

    address = os.environ["NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        out.sendmsg([text.encode()], rights, 0, "\0" + address[1:] if address[0] == "@" else address)


def ready() -> NoReturn:
    """Log `ready`, then only handle signals."""
    log("ready")
    forever()


def forever() -> NoReturn:
    """Handle signals until one of them exits.

    `signal.pause` in a loop would miss a signal that arrives just before the call.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    while True:
        os.read(reader, 1000)


if __name__ == "__main__":
    signal.alarm(100)  # an actor that a test leaves behind exits by itself
    exec(compile(CODE, f"<{NAME}>", "exec"))

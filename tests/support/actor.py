"""Play an agent: `python actor.py LOG NAME CODE` runs CODE with the functions below.

Events are appended to LOG, one JSON object per line: pid, name, event, t (time.monotonic(), in seconds; the clock is
the same for all processes of the machine).
"""

from __future__ import annotations

import os
import signal
import sys
import time

# Actors start a thousand times in a test run. `json`, `subprocess` and `typing` would double the time that takes.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

LOG, NAME, CODE = sys.argv[1:4] if __name__ == "__main__" else ("", "", "")
ARGUMENTS = sys.argv[4:]


def log(event: str, **fields: object) -> None:
    record = {"pid": os.getpid(), "name": NAME, "event": event, "t": time.monotonic(), **fields}
    fd = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(fd, to_json(record).encode() + b"\n")
    os.close(fd)


def to_json(value: object) -> str:
    """Encode what the actors log: printable text, numbers, lists, and dicts whose keys are text or numbers."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{to_json(str(key))}: {to_json(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(to_json, value)) + "]"
    if isinstance(value, (int, float)):
        return repr(int(value) if isinstance(value, int) else value)
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


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
    closing = [(os.POSIX_SPAWN_CLOSE, fd) for fd in range(3, 256) if is_inheritable(fd)]
    return os.posix_spawn(sys.executable, argv, os.environ, file_actions=closing, setsid=session)


def is_inheritable(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False  # not open


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
    os.write(writer, b".")  # for a signal that came before that, and whose handler has not run yet
    while True:
        os.read(reader, 1000)


if __name__ == "__main__":
    signal.alarm(100)  # an actor that a test leaves behind exits by itself
    exec(compile(CODE, f"<{NAME}>", "exec"))

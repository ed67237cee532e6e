"""Send notify messages with the given client, serve until TERM, then extend the stop timeout."""

# mypy: disable-error-code="import-not-found"
# Its imports are installed only in its own environment.

from __future__ import annotations

import importlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from record import note


def sdnotify() -> Callable[[str], object]:
    notify = importlib.import_module("sdnotify").SystemdNotifier().notify
    return lambda text: notify(text)


def cysystemd() -> Callable[[str], object]:
    sd_notify = importlib.import_module("cysystemd.daemon").sd_notify
    return lambda text: sd_notify(text, False)


def systemd_notify() -> Callable[[str], object]:
    def send(text: str) -> None:
        subprocess.run(["systemd-notify", *text.splitlines()], check=True)

    return send


def main(client: str) -> None:
    send = globals()[client.replace("-", "_")]()
    send("STATUS=loading")
    send("READY=1\nSTATUS=serving")
    send("WATCHDOG=1")
    stop_requests: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stop_requests.append(number))
    note("serving")
    while not stop_requests:
        time.sleep(0.01)
    send("STOPPING=1\nEXTEND_TIMEOUT_USEC=20000000\nSTATUS=draining")
    time.sleep(2)
    note("drained")


main(sys.argv[1])

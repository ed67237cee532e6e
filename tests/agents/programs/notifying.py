"""Tell process 1 what there is to tell, by the client that is named; then serve until TERM, and ask for more time."""

# mypy: disable-error-code="import-not-found"
# What it imports is in its own environment only.

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
    def tell(text: str) -> None:
        subprocess.run(["systemd-notify", *text.splitlines()], check=True)

    return tell


def main(client: str) -> None:
    tell = globals()[client.replace("-", "_")]()
    tell("STATUS=loading")
    tell("READY=1\nSTATUS=serving")
    tell("WATCHDOG=1")
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    note("serving")
    while not asked:
        time.sleep(0.01)
    tell("STOPPING=1\nEXTEND_TIMEOUT_USEC=20000000\nSTATUS=draining")
    time.sleep(2)
    note("drained")


main(sys.argv[1])

"""An agent with handlers for TERM, HUP and USR1. It prints what it gets. TERM begins a drain of `argv[1]` seconds."""

from __future__ import annotations

import signal
import sys
import time


def got(number: int, _: object) -> None:
    print("got", signal.Signals(number).name, flush=True)
    if number == signal.SIGTERM:
        time.sleep(float(sys.argv[1]))
        print("drained", flush=True)
        sys.exit(0)


for handled in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(handled, got)
print("up", flush=True)
while True:
    signal.pause()

"""An agent that drains: `drain.py SECONDS NAME [LOG]`.

It prints `NAME: up`, and `NAME: TERM` for each TERM that it gets. After the first it works on for SECONDS, prints
`NAME: drained` and exits 0. At a second TERM it prints `NAME: work lost` and exits 1. LOG is a file that gets the same
as events, in the format of `tests/support/actor.py`: some wrappers keep their child's output to themselves.

Standard library only: it runs under any interpreter, as any user.
"""

import os
import signal
import sys
import time

SECONDS, NAME = float(sys.argv[1]), sys.argv[2]
LOG = sys.argv[3] if len(sys.argv) > 3 else None

signalled: list[float] = []


def say(text: str) -> None:
    """Print at once, in one system call: this also runs in a signal handler."""
    if LOG is not None:  # first: the output may be a pipe that nobody reads any longer
        event = f'{{"pid": {os.getpid()}, "name": "{NAME}", "event": "{text}", "t": {time.monotonic()}}}\n'
        descriptor = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.write(descriptor, event.encode())
        os.close(descriptor)
    os.write(1, f"{NAME}: {text}\n".encode())


def on_term(number: int, frame: object) -> None:
    signalled.append(time.monotonic())
    say("TERM")
    if len(signalled) > 1:
        say("work lost")
        os._exit(1)


signal.signal(signal.SIGTERM, on_term)
say("up")
while not signalled or time.monotonic() < signalled[0] + SECONDS:
    time.sleep(0.05)
say("drained")

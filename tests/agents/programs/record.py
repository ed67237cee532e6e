"""Log events to a file, each line with one write, so that lines of several processes do not mix."""

import os
import time


def note(what: str) -> None:
    line = f"{time.monotonic():.6f} {os.getpid()} {what}\n"
    events = os.open(os.environ["AGENT_EVENTS"], os.O_WRONLY | os.O_APPEND)
    try:
        os.write(events, line.encode())
    finally:
        os.close(events)

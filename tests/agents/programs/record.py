"""Events, written so that the test outside reads whole lines however many processes write."""

import os
import time


def note(what: str) -> None:
    line = f"{time.monotonic():.6f} {os.getpid()} {what}\n"
    events = os.open(os.environ["AGENT_EVENTS"], os.O_WRONLY | os.O_APPEND)
    try:
        os.write(events, line.encode())
    finally:
        os.close(events)

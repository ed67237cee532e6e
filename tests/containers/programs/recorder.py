"""An agent for the tests: it prints each signal that it receives, and stops as its options say.

Lines on stdout: `ready`, `got TERM` for each signal, `cleaned up` before it exits.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from types import FrameType

HANDLED = ("TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "WINCH")


def print_line(line: str) -> None:
    """Print a line with one write, so that a signal handler may call this."""
    os.write(1, f"{line}\n".encode())


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--handle", default=",".join(HANDLED), help="the signals to handle")
    parser.add_argument("--stop-on", default="TERM,INT", help="the handled signals that stop it")
    parser.add_argument("--cleanup", type=float, default=0.2, help="seconds from the stop to the exit")
    parser.add_argument("--code", type=int, default=0, help="exit code after a stop")
    parser.add_argument("--children", type=int, default=0, help="number of children to leave behind at the exit")
    parser.add_argument("--orphans", type=int, default=0, help="number of orphans to create, which exit after 0.2 s")
    options = parser.parse_args()

    stop_requests = []

    def handle(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name.removeprefix("SIG")
        print_line(f"got {name}")
        if name in options.stop_on.split(","):
            stop_requests.append(name)

    for name in filter(None, options.handle.split(",")):
        signal.signal(signal.Signals[f"SIG{name}"], handle)
    for _ in range(options.children):
        if os.fork() == 0:
            os.execvp(sys.executable, [sys.executable, __file__, "--cleanup=0"])
    for _ in range(options.orphans):
        if (child := os.fork()) == 0:
            if os.fork() == 0:
                os.execvp("sleep", ["sleep", "0.2"])
            os._exit(0)
        os.waitpid(child, 0)
    print_line("ready")
    while not stop_requests:
        time.sleep(0.02)
    time.sleep(options.cleanup)
    print_line("cleaned up")
    return int(options.code)


if __name__ == "__main__":
    sys.exit(main())

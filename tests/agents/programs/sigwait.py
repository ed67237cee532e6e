"""An agent without a handler: it blocks TERM and waits for it. Its child handles TERM."""

# mypy: disable-error-code="import-not-found"
# Its imports are installed only in its own environment.

import signal
import subprocess
import sys

from record import note


def child() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    signal.signal(signal.SIGTERM, lambda *_: note("child cut off"))
    note("child ready")
    sys.stdin.read()
    note("child done")


def main() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    with subprocess.Popen([sys.executable, __file__, "child"], stdin=subprocess.PIPE) as running:
        if signal.sigtimedwait({signal.SIGTERM}, 5) is not None:
            note("agent stopped")
        assert running.stdin is not None
        running.stdin.close()


if __name__ == "__main__":
    child() if sys.argv[1:] == ["child"] else main()

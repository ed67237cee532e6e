"""An agent that prints the USR1 that it gets, and then runs a shell in its own place, which runs `argv[1:]`."""

from __future__ import annotations

import os
import signal
import sys

signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
print("waiting", flush=True)
signal.sigwait([signal.SIGUSR1])
print("got SIGUSR1", flush=True)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
os.execv("/bin/sh", ["sh", "-c", '"$@"; exit $?', "sh", *sys.argv[1:]])

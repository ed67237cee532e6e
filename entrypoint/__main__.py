#!/usr/bin/env python3
"""First instructions of process 1; `agent-init` and `python -m entrypoint` are this file.

It is compiled anew at every start when it runs as a script, so it is short; what follows is in `start.py`.
"""

import _signal

# Before anything else: until process 1 blocks or handles a signal, the kernel discards it.
try:
    _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
    refused = None
except OSError as error:
    refused = error.strerror

import os
import sys

if refused:
    text = f"agent-init: error: cannot start: sigprocmask is refused: {refused} (a seccomp profile?)\n"
    os.write(2, text.encode())
    os._exit(125)

# The package lies in one of these, most likely the last; an `entrypoint.py` of the agent's must not be taken for it.
home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
for entry in (home, *reversed(sys.path)):
    if os.path.isfile(entry + "/entrypoint/start.py"):
        sys.path.insert(0, entry)
        break

from entrypoint.start import main  # noqa: E402

if __name__ == "__main__":
    os._exit(main(sys.argv[1:], entry))

#!/usr/bin/env python3
"""First statements of process 1: the launcher and `python -m entrypoint` run this file, and where there is no launcher
`agent-init` is a copy of it.

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

if os.environ.get("PYTHONDONTWRITEBYTECODE"):  # -I ignores it; this is about the container's files
    sys.dont_write_bytecode = True
# The package lies in one of these, most likely the last; an `entrypoint.py` of the agent's must not be taken for it.
home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if "/../" in __file__:  # from the launcher, behind a link
    home = os.path.realpath(os.path.dirname(os.path.dirname(__file__)))
for entry in (home, *reversed(sys.path)):
    if os.path.isfile(entry + "/entrypoint/start.py"):
        sys.path.insert(0, entry)
        break

from entrypoint.start import main  # noqa: E402

if __name__ == "__main__":
    os._exit(main(sys.argv[1:], entry))

#!/usr/bin/env python3
"""The command `agent-initctl`. Probes call it every few seconds: what they need is imported first, and alone.

`os` is not among that: with -S the interpreter has not loaded it, and it takes as long as all the rest.
"""

import posix
import sys

# The package lies above this file, or above the folder of commands that has a copy of it (pip install --target), or in
# the path, most likely its last entry; an `entrypoint.py` of the agent's must not be taken for it.
OWN = "/entrypoint/ctl/__main__.py"
if __file__.endswith(OWN):
    sys.path.insert(0, __file__.removesuffix(OWN) or "/")
else:
    import os

    home = os.path.realpath(os.path.dirname(os.path.dirname(__file__)))
    for entry in (home, *reversed(sys.path)):
        if os.path.isfile(entry + "/entrypoint/ctl/main.py"):
            sys.path.insert(0, entry)
            break

from entrypoint.ctl.main import main  # noqa: E402

if __name__ == "__main__":
    posix._exit(main(sys.argv[1:]))

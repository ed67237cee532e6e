#!/usr/bin/env python3
"""The command `agent-initctl`. Probes call it every few seconds: what they need is imported first, and alone."""

import os
import sys

# The package lies above this file, or above the folder of commands that has a copy of it (pip install --target), or in
# the path, most likely its last entry; an `entrypoint.py` of the agent's must not be taken for it. The launcher leaves
# the `..` in the path to the kernel: behind a link it is not the directory before it.
home = os.path.realpath(os.path.dirname(os.path.dirname(__file__)))
for entry in (os.path.dirname(home), home, *reversed(sys.path)):
    if os.path.isfile(entry + "/entrypoint/ctl/main.py"):
        sys.path.insert(0, entry)
        break

from entrypoint.ctl.main import main  # noqa: E402

if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))

#!/usr/bin/env python3
"""The command `agent-initctl`. Probes call it every few seconds: what they need is imported first, and alone.

`os` is not among that: with -S the interpreter has not loaded it, and it takes as long as all the rest.
"""

import posix
import sys

# The package lies above this file, or above the folder of commands that has a copy of it (pip install --target), or in
# the path, most likely its last entry; an `entrypoint.py` of the agent's must not be taken for it.
OWN = "/entrypoint/ctl/__main__.py"
try:
    if __file__.endswith(OWN):
        sys.path.insert(0, __file__[: -len(OWN)] or "/")
    else:
        import os

        home = os.path.realpath(os.path.dirname(os.path.dirname(__file__)))
        for entry in (home, *reversed(sys.path)):
            if os.path.isfile(entry + "/entrypoint/ctl/main.py"):
                sys.path.insert(0, entry)
                break

    if sys.version_info < (3, 11):  # noqa: UP036 - after `pip install --target` the launcher takes any python3
        from entrypoint.older_python import leave

        leave(__file__)
    from entrypoint.ctl.main import main
except Exception as error:  # exit code 1 would be the answer to a probe
    what = "" if type(error) is RuntimeError else f" ({type(error).__name__}; {__file__})"
    try:
        posix.write(2, f"agent-initctl: error: cannot start: {error}{what}\n".encode(errors="surrogateescape"))
    finally:
        posix._exit(125)

if __name__ == "__main__":
    posix._exit(main(sys.argv[1:]))

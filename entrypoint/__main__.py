#!/usr/bin/env python3
"""Executed by the launcher and by `python -m entrypoint`.

The interpreter compiles this file anew at every start, and keeps its syntax tree until the end: 8 KiB for two or three
statements. So there are as few as possible, and the rest is in `first`.
"""

import posix
import sys

try:
    sys.dont_write_bytecode |= bool(posix.environ.get(b"PYTHONDONTWRITEBYTECODE"))  # -I ignores it
    sys.path.insert(0, __file__[: -len("entrypoint/__main__.py")])
    from entrypoint.first import main

    if __name__ == "__main__":
        main(__file__)
except Exception as error:
    try:
        posix.write(2, b"agent-init: error: cannot start: %a (%a)\n" % (error, __file__))
    finally:
        posix._exit(125)

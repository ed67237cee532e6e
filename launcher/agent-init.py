#!/usr/bin/env python3
"""The command `agent-init` where there is no launcher: finds the package, and goes on in `entrypoint/first.py`."""

import _signal
import posix
import sys

try:
    # Before anything else: until process 1 blocks or handles a signal, the kernel discards it.
    try:
        _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
    except (AttributeError, OSError):  # an old Python, or refused: reported there
        pass
    # -I ignores it, and this is about the container's files.
    sys.dont_write_bytecode |= bool(posix.environ.get(b"PYTHONDONTWRITEBYTECODE"))
    # The package lies in one of these, most likely the last; the agent's `entrypoint` must not be taken for it.
    home = __file__.rpartition("/")[0].rstrip("/").rpartition("/")[0] or "/"
    for entry in (home, *reversed(sys.path)):
        try:
            posix.stat(entry + "/entrypoint/init/spawn.py")
        except OSError:
            continue
        sys.path.insert(0, entry)
        break
    from entrypoint.first import main

    main(__file__)
except Exception as error:
    try:
        posix.write(2, b"agent-init: error: cannot start: %a (%a)\n" % (error, __file__))
    finally:
        posix._exit(125)

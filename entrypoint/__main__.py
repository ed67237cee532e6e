#!/usr/bin/env python3
"""First statements of process 1: the launcher and `python -m entrypoint` run this file, and where there is no launcher
`agent-init` is a copy of it.

It is compiled anew at every start when it runs as a script, so it is short; what follows is in `start.py`.
"""

import _signal
import posix  # not `os`: see paths.py
import sys

if sys.version_info < (3, 11):  # noqa: UP036 - after `pip install --target` the launcher takes any python3
    problem = f"it needs Python 3.11 or later, and {sys.executable} is Python {sys.version.split()[0]}"
else:
    # Before anything else: until process 1 blocks or handles a signal, the kernel discards it.
    try:
        _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
        problem = ""
    except OSError as error:
        problem = f"sigprocmask is refused: {error.strerror} (a seccomp profile?)"

if problem:
    posix.write(2, f"agent-init: error: cannot start: {problem}\n".encode())
    posix._exit(125)

if posix.environ.get(b"PYTHONDONTWRITEBYTECODE"):  # -I ignores it; this is about the container's files
    sys.dont_write_bytecode = True
# The package lies in one of these, most likely the last; an `entrypoint.py` of the agent's must not be taken for it.
# The launcher leaves the `..` in the path to the kernel: behind a link it is not the directory before it.
home = __file__.rpartition("/")[0].rstrip("/").rpartition("/")[0] or "/"
try:
    fd = posix.open(home, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        home = posix.readlink(f"/proc/self/fd/{fd}")
    finally:
        posix.close(fd)
except OSError:  # no /proc: then the path stays as it is
    pass
for entry in (home, *reversed(sys.path)):
    try:
        posix.stat(entry + "/entrypoint/start.py")
    except OSError:
        continue
    sys.path.insert(0, entry)
    break

from entrypoint.start import main  # noqa: E402

if __name__ == "__main__":
    posix._exit(main(sys.argv[1:], entry))

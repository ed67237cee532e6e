#!/usr/bin/env python3
"""First statements of process 1: the launcher and `python -m entrypoint` run this file, and where there is no launcher
`agent-init` is a copy of it.

It is compiled anew at every start when it runs as a script, so it is short; what follows is in `start.py`.
"""

import _signal
import posix  # not `os`: see paths.py
import sys

try:
    if sys.version_info >= (3, 11):  # noqa: UP036 - after `pip install --target` the launcher takes any python3
        # Before anything else: until process 1 blocks or handles a signal, the kernel discards it.
        try:
            _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
        except OSError as error:
            raise RuntimeError(f"sigprocmask is refused: {error.strerror} (a seccomp profile?)") from None

    if posix.environ.get(b"PYTHONDONTWRITEBYTECODE"):  # -I ignores it; this is about the container's files
        sys.dont_write_bytecode = True
    # The package lies in one of these, most likely the last; the agent's `entrypoint` must not be taken for it.
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
            posix.stat(entry + "/entrypoint/init/spawn.py")
        except OSError:
            continue
        sys.path.insert(0, entry)
        break

    if sys.version_info < (3, 11):  # noqa: UP036
        from entrypoint.older_python import leave

        leave(__file__)
    from entrypoint.start import main

    if __name__ == "__main__":
        posix._exit(main(sys.argv[1:], entry))
except Exception as error:
    what = "" if type(error) is RuntimeError else f" ({type(error).__name__}; {__file__})"
    try:
        posix.write(2, f"agent-init: error: cannot start: {error}{what}\n".encode(errors="surrogateescape"))
    finally:
        posix._exit(125)

"""Run the HTTP server: `python -I -S __main__.py ADDRESS PORT`, with the state on stdin (see `http_state`).

With `--check` in place of these it exits at once: with 0 if it has found its packages.
"""

from __future__ import annotations

import os
import signal
import sys

# If memory runs out, the kernel kills this process before the agent.
try:
    with open("/proc/self/oom_score_adj", "wb", buffering=0) as adjustment:
        adjustment.write(b"1000")
except OSError:
    pass
# Signals to all processes are not for this one: it ends with process 1, whose end of the pipe is closed then.
for number in ("HUP", "INT", "QUIT", "TERM", "USR1", "USR2"):
    signal.signal(getattr(signal, f"SIG{number}"), signal.SIG_IGN)

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
try:
    import h11  # noqa: F401
    import prometheus_client  # noqa: F401
except ImportError:  # they are not beside this package: an editable installation, or they are not installed
    import site

    site.main()

from entrypoint import http_state  # noqa: E402

try:
    from entrypoint.serve.main import main
except ImportError:
    os._exit(http_state.NOT_INSTALLED)

if __name__ == "__main__":
    os._exit(0 if sys.argv[1] == "--check" else main(sys.argv[1], int(sys.argv[2])))

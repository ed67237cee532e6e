"""`gated.py PACKAGE FD ...`: run agent-init, but wait just after the spawn until the pipe FD is closed.

It waits in readv(2), which agent-init itself never calls, so a tracer that attaches then can count the calls exactly.
"""

import _signal
import os
import sys
from typing import Any

_signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
PACKAGE, GATE = sys.argv[1], int(sys.argv[2])
sys.path.insert(0, PACKAGE)

from entrypoint import start  # noqa: E402
from entrypoint.init import spawn as module  # noqa: E402

spawn = module.spawn


def gated(*arguments: Any, **more: Any) -> int:
    pid = spawn(*arguments, **more)
    os.readv(GATE, [bytearray(1)])
    return pid


module.spawn = gated
os._exit(start.main(sys.argv[3:], PACKAGE))

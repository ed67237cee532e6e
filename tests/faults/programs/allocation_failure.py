"""`allocation_failure.py PACKAGE SITE REPORT ...`: run agent-init with one allocation that fails.

SITE is FILE:LINE. The first allocation after that line of agent-init is first reached after the spawn fails, and the
file REPORT is created. If SITE is `survey`, nothing fails, and the lines that ran are written to REPORT.
"""

import _signal
import os
import sys
from _testcapi import set_nomemory  # type: ignore[import-not-found]
from types import FrameType
from typing import Any

_signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
PACKAGE, SITE, REPORT = sys.argv[1:4]
sys.path.insert(0, PACKAGE)

from entrypoint import start  # noqa: E402
from entrypoint.init import spawn as module  # noqa: E402

OURS = PACKAGE + "/entrypoint/"
seen: dict[str, None] = {}


def tracer(frame: FrameType, event: str, _: object) -> Any:
    file = frame.f_code.co_filename
    if not file.startswith(OURS):
        return None
    if event == "line":
        site = f"{file[len(OURS) :]}:{frame.f_lineno}"
        seen[site] = None
        if site == SITE:
            os.close(os.open(REPORT, os.O_CREAT | os.O_WRONLY))
            sys.settrace(None)
            set_nomemory(1, 2)
            return None
    return tracer


spawn = module.spawn


def spawn_and_trace(*arguments: Any, **more: Any) -> int:
    pid = spawn(*arguments, **more)
    sys._getframe(1).f_trace = tracer
    sys.settrace(tracer)
    return pid


module.spawn = spawn_and_trace
code = start.main(sys.argv[4:], PACKAGE)
sys.settrace(None)
if SITE == "survey":
    with open(REPORT, "w") as report:
        report.write("\n".join(seen))
os._exit(code)

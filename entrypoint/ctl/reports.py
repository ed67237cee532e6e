"""A stall report of now: made in this process, from what process 1 would pass on to a reporter of its own."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from .connection import Failure

REPORTER = os.path.join(os.path.dirname(os.path.dirname(__file__)), "report", "__main__.py")


def make(request: dict[str, Any], seconds: float, *, tasks: bool) -> int:
    """Become the reporter. `request`: what process 1 would pass on to one. Raises Failure.

    `seconds`: how long the report may take. Half of that is for processes that do not answer.
    """
    asked = dict(request, seconds=seconds, answers=seconds / 2, room=None, tasks=tasks)
    sys.stdout.flush()
    try:
        os.execv(sys.executable, [sys.executable, "-I", "-S", REPORTER, json.dumps(asked)])
    except OSError as error:
        raise Failure(f"cannot make a report: {error.strerror}") from None

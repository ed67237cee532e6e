"""A WSGI agent that thinks for two seconds."""

import time
from collections.abc import Callable
from typing import Any


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    time.sleep(2)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"I think so.\n"]

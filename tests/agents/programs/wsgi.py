"""A WSGI agent without a framework: one slow response."""

# mypy: disable-error-code="import-not-found"
# Its imports are installed only in its own environment.

import time
from collections.abc import Callable, Iterable

from record import note


def application(request: dict[str, object], start: Callable[[str, list[tuple[str, str]]], object]) -> Iterable[bytes]:
    start("200 OK", [("Content-Type", "text/plain")])
    if request["PATH_INFO"] == "/slow":
        note("request begun")
        time.sleep(2.5)
        note("request done")
    return [b"whole"]

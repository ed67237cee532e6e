"""Numbers for X servers. Their sockets and locks lie in /tmp, shared with the whole machine.

A lock holds the server's pid, which means nothing in another PID namespace: a server that was killed leaves a lock that
others take for that of a living one. So each run takes a number that nobody has used, and cleans up behind its server.
"""

from __future__ import annotations

import random
from pathlib import Path


def _files(number: int) -> tuple[Path, Path]:
    return Path(f"/tmp/.X{number}-lock"), Path(f"/tmp/.X11-unix/X{number}")


def free() -> int:
    """A display number without a server."""
    while True:
        number = random.randrange(1_000, 50_000)
        if not any(file.exists() for file in _files(number)):
            return number


def clean(number: int) -> None:
    """Remove what a killed server left."""
    for file in _files(number):
        file.unlink(missing_ok=True)

"""The agent's end of sd_notify(3): tells whoever started us how we are, and never waits for an answer.

Every failure is silence: an agent must not end, or hang, because nobody listens. The environment stays as it is, so
that what else speaks the protocol in this process goes on doing so.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from .. import notify

if TYPE_CHECKING:
    from collections.abc import Mapping


class Notifier:
    """A datagram socket for NOTIFY_SOCKET, or nothing where there is none. Usable from every thread."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._socket: socket.socket | None = None
        self._address = ""
        self.watchdog_seconds = _watchdog(environment)
        try:
            self._address = notify.address(environment.get("NOTIFY_SOCKET", ""))
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)  # closed on exec, as all of Python's
            self._socket.setblocking(False)
        except (ValueError, OSError, AttributeError):
            self.close()

    def send(self, **fields: object) -> bool:
        """Say this in one message. False: the other end is full just now, so that it is worth another try."""
        if self._socket is None:
            return True
        try:
            self._socket.sendto(notify.encode(fields)[: notify.MAX_DATAGRAM_BYTES], self._address)
        except BlockingIOError:
            return False
        except (OSError, ValueError):
            pass  # nobody is there, or the address is none
        return True

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None


def _watchdog(environment: Mapping[str, str]) -> float | None:
    """How often this process has to say that it is alive, in seconds; None: it need not (sd_watchdog_enabled(3))."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        seconds = int(environment.get("WATCHDOG_USEC", "")) / 1e6
    except ValueError:
        return None
    return seconds if seconds > 0 else None

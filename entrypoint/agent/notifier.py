"""The agent's side of sd_notify(3): reports how the agent is to the process that started it.

Rules of this file:
- Nothing here waits, and nothing here raises. An agent must not hang or fail because nobody listens.
- The environment stays as it is, so that other clients of the protocol in this process go on working.
- Every message of `Supervisor` is sent from the loop. A ping therefore shows that the loop runs, and a loop that is
  blocked gets no extension.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from typing import TYPE_CHECKING

from .. import notify

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

RETRY_SECONDS = 0.1  # after the receiver's queue was full
EXTEND_EVERY_SECONDS = 3.0
EXTEND_BY_SECONDS = 8.0  # a loop that is blocked for longer than the difference loses its extension


class Notifier:
    """A datagram socket to NOTIFY_SOCKET, or none. Every thread may use it."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._socket: socket.socket | None = None
        self._address = ""
        self.watchdog_seconds = _watchdog_seconds(environment)
        try:
            self._address = notify.address(environment.get("NOTIFY_SOCKET", ""))
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)  # closed on exec, as Python's sockets are
            self._socket.setblocking(False)
        except (ValueError, OSError, AttributeError):
            self.close()

    def send(self, **fields: object) -> bool:
        """Send one message. Returns False if the receiver's queue is full, so that it is worth another try."""
        if self._socket is None:
            return True
        try:
            self._socket.sendto(notify.encode(fields)[: notify.MAX_DATAGRAM_BYTES], self._address)
        except BlockingIOError:
            return False
        except (OSError, ValueError):
            pass  # nobody listens there, or the address is not valid
        return True

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None


class Supervisor:
    """What one run reports to its supervisor. Only the thread of `loop` may call the methods."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._notifier = Notifier()
        self._unsent: dict[str, object] = {}
        self._reports_handlers = "AGENT_INIT_RESPONDERS" in os.environ  # agent-init is the supervisor
        self._handlers = ""  # as last reported
        self._is_ready = self._is_stopping = False

    def close(self) -> None:
        self._notifier.close()

    def report(self, fields: Mapping[str, object]) -> None:
        """Send `fields`, and which signals this process handles if that has changed.

        If the receiver's queue is full, send the latest value of each key as soon as it has room.
        """
        is_retrying = bool(self._unsent)
        self._unsent.update(fields)
        if self._reports_handlers and (handlers := ",".join(map(str, handled_signals()))) != self._handlers:
            self._handlers = self._unsent[notify.HANDLES] = handlers
        if self._unsent and not is_retrying:
            self._send_unsent()

    def ready(self, text: str | None = None) -> None:
        """Report READY once, and `text` as the status. Pings for the watchdog begin here."""
        status = {} if text is None else {"STATUS": text}
        if not self._is_ready:
            self._is_ready = True
            self.report({"READY": "1", **status})
            self._ping()
        elif status:
            self.report(status)

    def stopping(self) -> None:
        if not self._is_stopping:
            self._is_stopping = True
            self.report({"STOPPING": "1"})

    def extend_until(self, deadline: float) -> None:
        """Ask for more time again and again until `deadline`, on the monotonic clock."""
        if (left := deadline - time.monotonic()) > 0:
            self._notifier.send(EXTEND_TIMEOUT_USEC=int(min(EXTEND_BY_SECONDS, left) * 1e6))
            self._loop.call_later(EXTEND_EVERY_SECONDS, self.extend_until, deadline)

    def _send_unsent(self) -> None:
        # The status comes last: it is the only value that can be too long for a message, and is cut then.
        fields = dict(sorted(self._unsent.items(), key=lambda field: field[0] == "STATUS"))
        if self._notifier.send(**fields):
            self._unsent.clear()
        elif not self._loop.is_closed():
            self._loop.call_later(RETRY_SECONDS, self._send_unsent)

    def _ping(self) -> None:
        if self._notifier.watchdog_seconds:
            self._notifier.send(WATCHDOG="1")
            self.report({})
            self._loop.call_later(self._notifier.watchdog_seconds / 2, self._ping)


def handled_signals() -> list[int]:
    """The signals for which this process has a handler, or which it ignores or blocks, in order."""
    numbers = {int(number) for number in signal.valid_signals() if signal.getsignal(number) != signal.SIG_DFL}
    return sorted(numbers | set(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))))


def report_once(**fields: object) -> None:
    """Send one message where no loop runs."""
    notifier = Notifier()
    notifier.send(**fields)
    notifier.close()


def _watchdog_seconds(environment: Mapping[str, str]) -> float | None:
    """How often this process has to send a ping (sd_watchdog_enabled(3)); None if it need not."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        seconds = int(environment.get("WATCHDOG_USEC", "")) / 1e6
    except ValueError:
        return None
    return seconds if seconds > 0 else None

"""The stop of a run: how it is requested, how long it may take, and which signals request it.

Decides the limit of a stop and its deadline. What happens until that deadline is decided in `runner.py` (the drain and
`main`) and in `ending.py` (everything else).

Rules of this file:
- A signal only sets a flag and wakes the loop. Nothing is raised in a signal handler, so no busy loop can swallow it.
- The first request counts. Further ones are logged and change nothing.
- A handler that the agent sets for TERM or INT goes before ours, for as long as it is set.
- TERM and INT are blocked while no handler is in place: before the loop runs they would be lost, and between two
  handlers they would kill the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import signal
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

from .. import platforms
from .notifier import Supervisor

STOP_SIGNALS = signal.SIGTERM, signal.SIGINT
RESERVED_SHARE = 0.1  # of the limit, kept for `ending.py`,
MIN_RESERVED_SECONDS = 0.5  # ... at least this much
MAX_RESERVED_SECONDS = 2.0  # ... and at most this much

log = logging.getLogger("agent-init")


class StopRequest:
    """Whether a stop was requested. It is true from then on, and can be awaited until then, from any loop."""

    def __init__(self) -> None:
        self._until = math.inf
        self._is_made = False
        self._waiting: set[asyncio.Future[None]] = set()

    def __bool__(self) -> bool:
        return self._is_made

    def __await__(self) -> Generator[Any, None, None]:
        return self._wait().__await__()

    @property
    def seconds_left(self) -> float:
        """Seconds until `main` is cancelled; infinity if no stop was requested, or if it has no limit."""
        return max(0.0, self._until - time.monotonic())

    async def _wait(self) -> None:
        if not self._is_made:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(future)
            try:
                if not self._is_made:  # another thread may have made it just now
                    await future
            finally:
                self._waiting.discard(future)

    def _make(self, until: float) -> None:
        self._until, self._is_made = until, True
        for future in list(self._waiting):
            with contextlib.suppress(RuntimeError):  # its loop is closed
                future.get_loop().call_soon_threadsafe(wake, future)


class Stop:
    """The stop of one run.

    `grace`: the agent's own limit in seconds from the signal on, or None for what the supervisor or the platform
    grants. `on_request` is called once, on the loop, when the stop begins.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        supervisor: Supervisor,
        grace: float | None,
        on_request: Callable[[], None],
    ) -> None:
        granted, is_known = granted_seconds(os.environ)
        self.request = StopRequest()
        self.is_watched = False  # the agent called `stop_requested()` before the stop, and ends by itself
        self.limit = granted if grace is None else max(0.0, grace)
        self.deadline = math.inf
        self._needs_extension = grace is not None and (grace > granted or not is_known)
        self._loop, self._supervisor, self._on_request = loop, supervisor, on_request

    def handle_signal(self, number: signal.Signals) -> None:
        if self.request:
            log.info("%s: stop already in progress", number.name)
        else:
            log.info("%s: stop requested, %s", number.name, describe_time_left(self.limit))
            self.begin()

    def begin(self) -> None:
        if self.request:
            return
        self.deadline = time.monotonic() + self.limit
        self.request._make(self.deadline - reserved_seconds(self.limit))
        self._supervisor.stopping()
        if self._needs_extension:
            self._supervisor.extend_until(self.deadline)
        self._on_request()

    def begin_from_any_thread(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: that run has ended
            self._loop.call_soon_threadsafe(self.begin)


class SignalHandlers:
    """Our handlers for TERM and INT, on a loop of the main thread. `handle` is called on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, handle: Callable[[signal.Signals], None]) -> None:
        self._loop, self._handle = loop, handle
        self._previous: dict[signal.Signals, Any] = {}
        self._ours: dict[signal.Signals, Any] = {}  # as `signal.getsignal` returns them
        self._mask: set[Any] | None = None  # to restore once the loop runs

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Install them, and afterwards put back what was there. The signals stay blocked until `unblock`."""
        # uvloop loses signals that arrive before it runs.
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            self._previous = {number: signal.getsignal(number) for number in STOP_SIGNALS}
            for number in STOP_SIGNALS:
                self._loop.add_signal_handler(number, self._received, number)
                self._ours[number] = signal.getsignal(number)
            yield
        finally:
            self.unblock()
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # between two handlers TERM would kill
            self._put_back()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def unblock(self) -> None:
        """Let the signals in; to be called once the loop runs."""
        if self._mask is not None:
            mask, self._mask = self._mask, None
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def undo_in_child(self) -> None:
        """Put back the previous handlers in a forked child, and leave the loop alone: it belongs to the parent."""
        signal.set_wakeup_fd(-1)  # it leads to the parent
        for number, handler in self._previous.items():
            if signal.getsignal(number) is self._ours.get(number):
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _put_back(self) -> None:
        for number, previous in self._previous.items():
            current = signal.getsignal(number)
            self._loop.remove_signal_handler(number)
            handler = previous if current is self._ours.get(number) else current
            if handler is not None:  # None: it was not set from Python, and cannot be set again from there
                signal.signal(number, handler)

    def _received(self, number: signal.Signals) -> None:
        if signal.getsignal(number) is self._ours[number]:  # else the agent's own handler has received it
            self._handle(number)


def granted_seconds(
    environment: Mapping[str, str], exists: Callable[[str], bool] = platforms.is_there
) -> tuple[float, bool]:
    """How many seconds the supervisor or the platform grants a stop, and whether that is known for certain."""
    with contextlib.suppress(KeyError, ValueError):
        if (seconds := float(environment["AGENT_INIT_STOP_SECONDS"])) >= 0:  # false for nan
            return seconds, True
    if "NOTIFY_SOCKET" in environment and "AGENT_INIT_RESPONDERS" not in environment:
        return math.inf, False  # systemd or the like, which does not pass its limit on
    if platforms.recognise(environment, exists):
        return math.inf, True
    return platforms.DEFAULT_GRACE, True


def reserved_seconds(limit: float) -> float:
    """The part of a limit that is kept for what comes after `main`."""
    return max(min(limit * RESERVED_SHARE, MAX_RESERVED_SECONDS), MIN_RESERVED_SECONDS)


def describe_time_left(seconds: float) -> str:
    return "without a limit" if seconds == math.inf else f"{seconds:.1f}s left"


def wake(future: asyncio.Future[None]) -> None:
    """Make whoever awaits `future` go on."""
    if not future.done():
        future.set_result(None)

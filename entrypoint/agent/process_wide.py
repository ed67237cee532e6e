"""What concerns the whole process and not one run: the current run, the owner of the stop signals, and forks.

Decides which run `ready`, `status` and `stop_requested` mean, which runs a signal stops, and what a forked child keeps.

Rules of this file:
- Several runs may exist at a time, each in a thread of its own. Code on the loop of a run, and what it calls with
  `asyncio.to_thread`, means that run. A thread that the agent starts inherits no context; it means the first run.
- Python delivers signals to the main thread only. The run there owns TERM and INT and passes a stop on to the others.
- A forked child has copies of the parent's handlers and of the descriptor that they write to. TERM and INT stay
  blocked in it until these are undone; otherwise a TERM sent to the child would stop the parent.
- A forked child is part of no run. Its own calls of `run` begin afresh.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import signal
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .stopping import STOP_SIGNALS, SignalHandlers

if TYPE_CHECKING:
    import asyncio

    from .notifier import Supervisor
    from .stopping import Stop


class Run(Protocol):
    """One call of `run`, as far as other threads know it."""

    loop: asyncio.AbstractEventLoop
    supervisor: Supervisor
    stop: Stop


class _Owner(NamedTuple):
    """The run in the main thread, which receives the signals."""

    stop: Stop
    handlers: SignalHandlers


_current: contextvars.ContextVar[Run | None] = contextvars.ContextVar("agent_init_run", default=None)
_first: Run | None = None
_owner: _Owner | None = None
_other_stops: set[Stop] = set()  # of runs outside the main thread
_masks: dict[int, set[Any]] = {}  # signal masks of threads that are forking, by thread


def current() -> Run | None:
    """The run that the caller belongs to; None outside of any."""
    return _current.get() or _first


@contextlib.contextmanager
def entered(run: Run) -> Iterator[contextvars.Context]:
    """Make `run` the current one in the context that is yielded, a copy of the caller's."""
    global _first
    context = contextvars.copy_context()
    context.run(_current.set, run)
    is_first = _first is None
    if is_first:
        _first = run
    try:
        yield context
    finally:
        if is_first:
            _first = None


@contextlib.contextmanager
def stop_signals(run: Run) -> Iterator[SignalHandlers | None]:
    """Let TERM and INT stop `run`. Yields the handlers in the main thread, None in any other."""
    if threading.current_thread() is threading.main_thread():
        with _owned_signals(run) as handlers:
            yield handlers
    else:
        with _stopped_with_owner(run.stop):
            yield None


@contextlib.contextmanager
def _owned_signals(run: Run) -> Iterator[SignalHandlers]:
    global _owner

    def handle(number: signal.Signals) -> None:
        run.stop.handle_signal(number)
        for other in list(_other_stops):
            other.begin_from_any_thread()

    handlers = SignalHandlers(run.loop, handle)
    _owner = _Owner(run.stop, handlers)
    try:
        with handlers.installed():
            yield handlers
    finally:
        _owner = None


@contextlib.contextmanager
def _stopped_with_owner(stop: Stop) -> Iterator[None]:
    _other_stops.add(stop)
    try:
        if _owner and _owner.stop.request:
            stop.begin_from_any_thread()
        yield
    finally:
        _other_stops.discard(stop)


def _before_fork() -> None:
    if _owner:
        # A handler of the agent's may raise in the first of these calls, and in the second once it has blocked.
        _masks[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def _after_fork() -> None:
    if (mask := _masks.pop(threading.get_ident(), None)) is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _after_fork_in_child() -> None:
    global _first, _owner
    if _owner:
        _owner.handlers.undo_in_child()
    _first = _owner = None
    _other_stops.clear()
    _current.set(None)
    _after_fork()
    _masks.clear()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)

"""The public API: `run(main())` in place of `asyncio.run(main())`, and what an agent reports and asks meanwhile.

Decides the course of a run: when READY is reported, what happens between a stop request and the end, and what `run`
returns or raises. The limit of a stop is decided in `stopping.py`, the end of everything else in `ending.py`, and which
run a caller belongs to in `process_wide.py`.

Rules of this file:
- Everything happens in one coroutine beside `main`, `_Run._supervise`, on the same loop. So there is a running loop
  while anything is brought to its end.
- The end is gone through whatever interrupts the loop: KeyboardInterrupt or SystemExit from a task, or `loop.stop()`.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

from . import process_wide
from .ending import Ending, deadlines
from .notifier import Supervisor, report_once
from .responder import install
from .stopping import SignalHandlers, Stop, StopRequest, wake

T = TypeVar("T")
Drain = Callable[[float], Awaitable[object]]

log = logging.getLogger("agent-init")


def run(
    main: Coroutine[Any, Any, T],
    *,
    drain: Drain | None = None,
    grace: float | None = None,
    debug: bool | None = None,
    auto_ready: bool = True,
    loop_watch: float | None = None,
) -> T | None:
    """Run `main` on a new event loop (uvloop's, if it is installed) and return what it returns.

    The first TERM or INT requests a stop. Then `drain` is awaited with the seconds that are left, and `main` is
    cancelled. If the agent has called `stop_requested` by then, its `main` has the rest of the time to return before it
    is cancelled. If `main` ends because it was cancelled, None is returned, so that the process exits with 0.

    `grace`: the seconds that a stop may take, counted from the signal. Without it, the limit is what agent-init or the
    platform grants; with it, the supervisor is asked for more time if it grants less. `debug`: as for `asyncio.run`.
    `auto_ready`: report READY when `main` waits for the first time; if false, only `ready` does. `loop_watch`: log what
    holds an event loop of this process for longer than this many seconds, 0.01 or more, from now on; the option
    --loop-watch of agent-init goes before it. It has no effect unless it is given to a `run` in the main thread.

    Raises what `main` raises, or else what `drain` raises; TimeoutError if `main` does not end when it is cancelled;
    ValueError if `main` is not a coroutine or `loop_watch` is not accepted; RuntimeError if an event loop runs in this
    thread.
    """
    if not asyncio.iscoroutine(main):
        raise ValueError(f"a coroutine was expected, got {main!r}")
    if loop_watch is not None and not 0.01 <= loop_watch < math.inf:
        main.close()
        raise ValueError(f"loop_watch is {loop_watch!r}; accepted: 0.01 seconds or more, or None")
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        main.close()
        raise RuntimeError("run() cannot be called from a running event loop")
    install(loop_watch)
    runner = asyncio.Runner(debug=debug, loop_factory=_loop_factory())
    # The Runner itself is not closed: that would wait without limit for what `ending` had to leave.
    with contextlib.closing(runner.get_loop()) as loop, contextlib.closing(Supervisor(loop)) as supervisor:
        return _Run(loop, supervisor, main, drain, grace, auto_ready).complete(runner)


def stop_requested() -> StopRequest:
    """The stop request: `if stop_requested():` asks whether there was one, `await stop_requested()` waits for it.

    Any thread may call it. An agent that calls it before the stop ends by itself: its `main` is not cancelled at once.
    Outside of `run` the result is false, and waits for ever.
    """
    current = process_wide.current()
    if current is None:
        return StopRequest()
    if not current.stop.request:
        current.stop.is_watched = True
    return current.stop.request


def ready(text: str | None = None) -> None:
    """Report to the supervisor that the agent is ready, with `text` as its status. Any thread may call it."""
    current = process_wide.current()
    if current is None:
        report_once(READY="1", **({} if text is None else {"STATUS": text}))
    else:
        _call_on_loop(current, current.supervisor.ready, text)


def status(text: str) -> None:
    """Report to the supervisor what the agent does: `status("draining 3 calls")`. Any thread may call it."""
    current = process_wide.current()
    if current is None:
        report_once(STATUS=text)
    else:
        _call_on_loop(current, current.supervisor.report, {"STATUS": text})


def _call_on_loop(run: process_wide.Run, function: Callable[..., object], argument: object) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: the run has ended
        run.loop.call_soon_threadsafe(function, argument)


class _Run(Generic[T]):
    """One call of `run`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        supervisor: Supervisor,
        main: Coroutine[Any, Any, T],
        drain: Drain | None,
        grace: float | None,
        auto_ready: bool,
    ) -> None:
        self.loop, self.supervisor = loop, supervisor
        self.stop = Stop(loop, supervisor, grace, on_request=self._interrupt)
        self._ending = Ending(loop)
        self._coroutine, self._drain, self._auto_ready = main, drain, auto_ready
        self._interrupted: asyncio.Future[None] = loop.create_future()  # by a stop request, or by `_broken_off`
        self._broken_off: BaseException | None = None  # what came out of the loop before its time
        self._supervising: asyncio.Task[None]
        self._main: asyncio.Task[T]
        self._draining: asyncio.Task[None] | None = None
        self._is_cancelled = False  # `main`, by us

    def complete(self, runner: asyncio.Runner) -> T | None:
        with process_wide.entered(self) as context, process_wide.stop_signals(self) as handlers:
            self._run_loop(runner, context, handlers)
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())  # and lets transports close
        return self._outcome()

    def _run_loop(self, runner: asyncio.Runner, context: contextvars.Context, handlers: SignalHandlers | None) -> None:
        part: Any = self._supervise(handlers)
        while True:
            self._ending.tasks.own.append(part)
            try:
                runner.run(part, context=context)
                return
            except (KeyboardInterrupt, SystemExit) as error:  # a task raised it, and the loop let it through
                self._broken_off = self._broken_off or error
            except RuntimeError as error:
                if part.cr_frame is None:  # it has ended, so the error is its own
                    raise
                if not self._main.done():  # somebody stopped the loop, which is no harm once main has its result
                    self._broken_off = self._broken_off or error
            self._interrupt()
            part = self._go_on()

    def _interrupt(self) -> None:
        wake(self._interrupted)

    # --- On the loop. -----------------------------------------------------------------------------------------------

    async def _supervise(self, handlers: SignalHandlers | None) -> None:
        task = asyncio.current_task()
        assert task
        self._supervising = task
        if handlers:
            handlers.unblock()
        self.supervisor.report({})  # the signals that it handles
        self._ending.watch_generators()
        self._main = asyncio.create_task(self._coroutine, name="main")
        self._ending.tasks.raised_by_run.add(self._main)
        await asyncio.sleep(0)  # main takes its first step
        self.supervisor.report({})  # it may have set handlers of its own
        if self._auto_ready and not self._main.done():
            self.supervisor.ready()
        await self._wait_for(self._main, math.inf)
        if self.stop.request and not self._broken_off:
            self._interrupted = self.loop.create_future()
            await self._let_it_end()
        self.supervisor.stopping()
        until = deadlines(self.stop.limit, self.stop.deadline)
        self._is_cancelled = not self._main.done()
        first = {self._main, self._draining or self._main} if self._is_cancelled else set()
        await self._ending.end_everything(first, until)

    async def _go_on(self) -> None:
        """Take the loop up again after an interruption."""
        self._ending.watch_generators()
        await asyncio.wait({self._supervising})

    async def _let_it_end(self) -> None:
        """Give the agent its time to drain, and to end by itself if it watches the request."""
        seconds = self.stop.request.seconds_left
        if self._drain:
            self._draining = asyncio.create_task(_await(self._drain, seconds), name="drain")
            self._ending.tasks.raised_by_run.add(self._draining)
            await self._wait_for(self._draining, seconds)
            if not self._draining.done() and not self._broken_off:
                log.warning("the drain did not end within its time; cancelling it")
        if self.stop.is_watched:
            await self._wait_for(self._main, self.stop.request.seconds_left)

    async def _wait_for(self, task: asyncio.Task[Any], seconds: float) -> None:
        timeout = None if seconds == math.inf else seconds
        await asyncio.wait({task, self._interrupted}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)

    # --- The result. ------------------------------------------------------------------------------------------------

    def _outcome(self) -> T | None:
        """What `run` returns or raises."""
        tasks, main, draining = self._ending.tasks, self._main, self._draining
        error = None if main.cancelled() else main.exception() if main.done() else None
        if self._broken_off:
            raise self._broken_off
        if main in tasks.refused or (main in tasks.forced and main.cancelled()):
            raise TimeoutError("the agent's main did not end when it was cancelled")
        if error:
            raise error
        if draining and draining not in tasks.refused and not draining.cancelled() and (e := draining.exception()):
            raise e
        return None if main.cancelled() and self._is_cancelled else main.result()


async def _await(drain: Drain, seconds: float) -> None:
    await drain(seconds)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except (ImportError, AttributeError):  # the latter: it is older than this Python, and looks for what has gone
        return asyncio.new_event_loop
    return uvloop.new_event_loop

"""Runs an asyncio agent: `run(main())` in place of `asyncio.run(main())`, with an end that is asked for and awaited.

The first TERM or INT asks for a stop; the handler notes that and raises nothing. Everything else happens in one
coroutine around `main`, `_Run._live`, on the same loop: the drain, the cancelling, and all of the end, so that there
is always a running loop while something is brought to its end.

The time of a stop, counted from the signal:

    0                              limit - reserve                                            limit
    |<- drain, or main by itself ->|<- main cancelled ->|<- tasks ->|<- generators ->|<- threads ->|

Each part begins as soon as the one before it is done; the marks are where it is broken off. Times are seconds on the
monotonic clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import logging
import math
import os
import signal
import sys
import threading
import time
import traceback
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, NamedTuple, TypeVar

from .. import platforms
from . import leftovers
from .notifier import Notifier
from .responder import install

T = TypeVar("T")
Drain = Callable[[float], Awaitable[object]]

STOP_SIGNALS = signal.SIGTERM, signal.SIGINT
RESERVE = 0.1  # of the limit, kept for the end itself,
MOST_RESERVE = 2.0  # ... at most these seconds
LEAST_RESERVE = 0.5
PARTS = 0.8, 0.6, 0.4, 0.25  # of the reserve, still left where each part of the end is broken off
LIMIT_OF_END = 10.0  # seconds for the end where there is no limit: it must not hang for ever
LAST_TRY = 0.05  # seconds that a task has for its second CancelledError
TELL_AFTER = 2.0  # seconds after which the end names what it waits for
EXTEND_EVERY = 3.0
EXTEND_BY = 8.0  # seconds that each message buys: a loop that is blocked for longer than the difference loses the right
TRY_AGAIN = 0.1  # seconds, where the receiver of a message was full
ROUNDS = 10  # of looking for what was started meanwhile

log = logging.getLogger("agent-init")


class StopRequest:
    """Whether a stop was asked for: true in a condition when it was, and awaitable until then, from any loop."""

    def __init__(self) -> None:
        self._until = math.inf
        self._requested = False
        self._waiting: set[asyncio.Future[None]] = set()

    def __bool__(self) -> bool:
        return self._requested

    def __await__(self) -> Generator[Any, None, None]:
        return self._wait().__await__()

    async def _wait(self) -> None:
        if not self._requested:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(future)
            try:
                if not self._requested:  # asked for in another thread meanwhile
                    await future
            finally:
                self._waiting.discard(future)

    @property
    def seconds_left(self) -> float:
        """Until `main` is cancelled; infinity where no stop was asked for, or where it has no limit."""
        return max(0.0, self._until - time.monotonic())

    def _ask(self, until: float) -> None:
        self._until, self._requested = until, True
        for future in list(self._waiting):
            with contextlib.suppress(RuntimeError):  # its loop is closed
                future.get_loop().call_soon_threadsafe(_wake, future)


def run(
    main: Coroutine[Any, Any, T],
    *,
    drain: Drain | None = None,
    grace: float | None = None,
    debug: bool | None = None,
    auto_ready: bool = True,
) -> T | None:
    """Run `main` on a new event loop (uvloop's, where it is installed) and return what it returns.

    On the first TERM or INT, `drain` is awaited with the seconds that are left, then `main` is cancelled. An agent
    that has called `stop_requested` by then looks after the stop itself: its `main` has the rest of the time to return
    before it is cancelled. Where `main` ends because of that, None is returned, so that the process ends with code 0.

    `grace`: the seconds that a stop may take, from the signal on. Without it, what agent-init or the platform gives;
    with it, more time is asked for while it lasts. `debug`: as with `asyncio.run`. `auto_ready`: tell the supervisor
    that the agent is ready when `main` waits for the first time; if false, only `ready` does.

    Raises what `main` raises, or else what `drain` raises; TimeoutError when `main` does not end when it is cancelled;
    ValueError where `main` is no coroutine; RuntimeError in a thread whose event loop is running.
    """
    if not asyncio.iscoroutine(main):
        raise ValueError(f"a coroutine was expected, got {main!r}")
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        main.close()
        raise RuntimeError("run() cannot be called from a running event loop")
    install()
    return _Run[T](drain, grace, auto_ready).run(main, debug)


def stop_requested() -> StopRequest:
    """`await stop_requested()` waits for a stop request; `if stop_requested():` asks whether there was one.

    From any thread. To call it before the stop means that the agent looks after the stop itself: `main` is then not
    cancelled at once. Outside of `run` nobody asks for a stop: it is false, and waits for ever.
    """
    current = _current()
    if current is None:
        return StopRequest()
    if not current.stop:
        current.looks_after_itself = True
    return current.stop


def ready(text: str | None = None) -> None:
    """Tell the supervisor that the agent is ready, and how it is if given. From any thread."""
    current = _current()
    if current is None:
        _say_once(READY="1", **({} if text is None else {"STATUS": text}))
    else:
        current.from_any_thread(current.ready, text)


def status(text: str) -> None:
    """Tell the supervisor in a few words what the agent does: `status("draining 3 calls")`. From any thread."""
    current = _current()
    if current is None:
        _say_once(STATUS=text)
    else:
        current.from_any_thread(current.say, {"STATUS": text})


class Nested(NamedTuple):
    """A loop that another thread has made while ours runs."""

    loop: weakref.ref[asyncio.AbstractEventLoop]  # one that is dropped unclosed is closed by the collector
    thread: threading.Thread
    tasks: set[asyncio.Task[Any]]


class _Run(Generic[T]):
    """One call of `run`."""

    def __init__(self, drain: Drain | None, grace: float | None, auto_ready: bool) -> None:
        granted, known = _granted(os.environ)
        self.stop = StopRequest()
        self.looks_after_itself = False
        self._limit = granted if grace is None else max(0.0, grace)
        self._extends = grace is not None and (grace > granted or not known)
        self._deadline = math.inf  # of the stop
        self._drain, self._auto_ready = drain, auto_ready
        self._notifier = Notifier()
        self._said_ready = self._said_stopping = False
        self._unsaid: dict[str, object] = {}

        self._loop: asyncio.AbstractEventLoop
        self._living: asyncio.Task[None]  # in which all of this happens
        self._own: list[Coroutine[Any, Any, None]] = []  # that one, and another where it has to be taken up again
        self._main: asyncio.Task[T]
        self._draining: asyncio.Task[None] | None = None
        self._wake_up: asyncio.Future[None]  # done when a stop is asked for, or the run is broken off
        self._broken_off: BaseException | None = None
        self._cancelled = False  # main, by us
        self._before: dict[signal.Signals, Any] = {}  # handlers that ours have replaced,
        self._handlers: dict[signal.Signals, Any] = {}  # ... and ours, as Python has them
        self._mask: set[Any] | None = None  # of signals, to be put back when the loop runs
        self._policy: Any = None  # that makes loops by way of us

        self._kept: set[asyncio.Task[Any]] = set()
        self._generators: weakref.WeakSet[AsyncGenerator[Any, Any]] = weakref.WeakSet()
        self._pools: list[ThreadPoolExecutor] = []
        self._nested: list[Nested] = []
        self._asked: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()  # to end; a second time would hurt
        self._cancelled_before: dict[asyncio.Task[Any], int] = {}  # how often, when the end began
        self._forced: set[asyncio.Task[Any]] = set()  # did not end when they were cancelled
        self._refused: set[asyncio.Task[Any]] = set()  # ... nor by any other means
        self._ending: dict[asyncio.Task[Any], object] = {}  # what each of these tasks brings to its end

    def run(self, main: Coroutine[Any, Any, T], debug: bool | None) -> T | None:
        context = contextvars.copy_context()
        context.run(_run.set, self)
        with contextlib.closing(self._notifier), asyncio.Runner(debug=debug, loop_factory=_loop_factory()) as runner:
            self._prepare(runner.get_loop())
            with self._process_wide(), self._signals():
                part: Any = self._live(main)
                while True:
                    self._own.append(part)
                    try:
                        runner.run(part, context=context)
                        break
                    except (KeyboardInterrupt, SystemExit) as error:  # some task raised it, and the loop let it through
                        self._broken_off = self._broken_off or error
                    except RuntimeError as error:
                        if part.cr_frame is None:  # it has ended: this is its own
                            raise
                        if not self._main.done():  # somebody stopped the loop: no harm once main has its result
                            self._broken_off = self._broken_off or error
                    _wake(self._wake_up)
                    part = self._go_on()
            # Threads that are stuck are all that is left in the executors; the Runner would join them.
            self._loop.set_default_executor(ThreadPoolExecutor(1))
        return self._outcome()

    def _prepare(self, loop: asyncio.AbstractEventLoop) -> None:
        """Keep hold of what the loop starts: it does not itself, or does not tell."""
        self._loop = loop
        self._wake_up = loop.create_future()
        set_default_executor = loop.set_default_executor

        def set_and_note(executor: Any) -> None:
            set_default_executor(executor)
            self._pools.append(executor)

        hidden: Any = loop
        hidden.set_default_executor = set_and_note
        loop.set_default_executor(ThreadPoolExecutor(thread_name_prefix="asyncio"))
        _keep_tasks(loop, self._kept)

    @contextlib.contextmanager
    def _process_wide(self) -> Iterator[None]:
        """Of several runs at a time, the first is there for threads that the agent starts, and for their loops."""
        global _first
        if _first:
            yield
            return
        _first = self  # before anything else: other threads may be here, too
        self._policy = getattr(asyncio.events, "_get_event_loop_policy", asyncio.get_event_loop_policy)()
        self._policy.new_event_loop = functools.partial(self._make_nested, self._policy.new_event_loop)
        try:
            yield
        finally:
            self._leave_policy()
            _first = None

    def _leave_policy(self) -> None:
        vars(self._policy).pop("new_event_loop", None)

    def _make_nested(self, make: Callable[[], asyncio.AbstractEventLoop]) -> asyncio.AbstractEventLoop:
        """A loop for another thread: what it leaves in mid-air is ended on ours."""
        for nested in list(self._nested):
            if (loop := nested.loop()) is None or loop.is_closed():
                with contextlib.suppress(ValueError):  # another thread sees to it
                    self._nested.remove(nested)
                    self.from_any_thread(self._end_abandoned, [task for task in list(nested.tasks) if not task.done()])
        loop = make()
        nested = Nested(weakref.ref(loop), threading.current_thread(), set())
        self._nested.append(nested)
        _keep_tasks(loop, nested.tasks)
        return loop

    def _is_over(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Nothing will run on this loop any more."""
        if loop is self._loop or loop.is_closed():
            return True
        mine = next((nested for nested in self._nested if nested.loop() is loop), None)
        return mine is not None and not mine.thread.is_alive() and not loop.is_running()

    def _note_generators(self) -> None:
        """Asynchronous generators are noted by us and not by the loop, which would wait for them without limit."""
        sys.set_asyncgen_hooks(firstiter=self._generators.add, finalizer=self._finalize)

    def _finalize(self, generator: AsyncGenerator[Any, Any]) -> None:
        """The collector has found it, in whatever thread; or we end it, who call this too."""
        if all(left is not generator for left in list(self._ending.values())):
            self.from_any_thread(self._start_to_end, generator)

    def _outcome(self) -> T | None:
        """What `run` returns or raises."""
        main, draining = self._main, self._draining
        failed = None if main.cancelled() else main.exception() if main.done() else None
        if self._broken_off:
            raise self._broken_off
        if main in self._refused or (main in self._forced and main.cancelled()):
            raise TimeoutError("the agent's main did not end when it was cancelled")
        if failed:
            raise failed
        if draining and draining not in self._refused and not draining.cancelled() and (error := draining.exception()):
            raise error
        return None if main.cancelled() and self._cancelled else main.result()

    # --- The stop request. ------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """TERM and INT ask for a stop. The main thread alone can have it so; it asks runs elsewhere, too."""
        global _in_main
        if threading.current_thread() is not threading.main_thread():
            _elsewhere.add(self)
            try:
                if _in_main and _in_main.stop:
                    self.from_any_thread(self._ask_to_stop)
                yield
            finally:
                _elsewhere.discard(self)
            return
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # until the loop runs: uvloop loses them
        try:
            self._before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
            _in_main = self
            for number in STOP_SIGNALS:
                self._loop.add_signal_handler(number, self._signalled, number)
                self._handlers[number] = signal.getsignal(number)
            yield
        finally:
            self._let_signals_in()
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # between the two calls TERM would kill
            for number, handler in self._before.items():
                now = signal.getsignal(number)
                self._loop.remove_signal_handler(number)
                handler = handler if now is self._handlers.get(number) else now
                if handler is not None:  # None: not set by Python, which cannot set it again either
                    signal.signal(number, handler)
            _in_main = None
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _let_signals_in(self) -> None:
        if self._mask is not None:
            mask, self._mask = self._mask, None
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def leave_to_parent(self) -> None:
        """In a forked child. The loop is not ours, and not to be touched."""
        if self is _in_main:
            signal.set_wakeup_fd(-1)  # it leads to the parent
            for number, handler in self._before.items():
                if signal.getsignal(number) is self._handlers.get(number):
                    signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if self is _first:
            self._leave_policy()

    def _signalled(self, number: signal.Signals) -> None:
        if signal.getsignal(number) is not self._handlers[number]:
            return  # the agent has one of its own by now, and has been told by that
        if self.stop:
            log.info("%s: a stop is under way already", number.name)
            return
        log.info("%s: stop requested, %s", number.name, _words(self._limit))
        self._ask_to_stop()
        for other in list(_elsewhere):
            other.from_any_thread(other._ask_to_stop)

    def _ask_to_stop(self) -> None:
        if self.stop:
            return
        self._deadline = time.monotonic() + self._limit
        self.stop._ask(self._deadline - _reserve(self._limit))
        self._say_stopping()
        if self._extends:
            self._extend()
        _wake(self._wake_up)

    # --- What the supervisor is told. -------------------------------------------------------------------------------

    def from_any_thread(self, call: Callable[..., object], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: there is nothing to tell any more
            self._loop.call_soon_threadsafe(call, *arguments)

    def say(self, fields: Mapping[str, object]) -> None:
        """Where the receiver is full, the last value of each key is said when it has room."""
        is_waiting = bool(self._unsaid)
        self._unsaid.update(fields)
        if not is_waiting:
            self._say_rest()

    def _say_rest(self) -> None:
        # The status is the one that can be too long for a message, and is cut.
        fields = dict(sorted(self._unsaid.items(), key=lambda field: field[0] == "STATUS"))
        if self._notifier.send(**fields):
            self._unsaid.clear()
        elif not self._loop.is_closed():
            self._loop.call_later(TRY_AGAIN, self._say_rest)

    def ready(self, text: str | None = None) -> None:
        more = {} if text is None else {"STATUS": text}
        if not self._said_ready:
            self._said_ready = True
            self.say({"READY": "1", **more})
            self._ping()
        elif more:
            self.say(more)

    def _say_stopping(self) -> None:
        if not self._said_stopping:
            self._said_stopping = True
            self.say({"STOPPING": "1"})

    def _extend(self) -> None:
        """Ask for some more time, again and again: who stops asking has lost his claim."""
        if (left := self._deadline - time.monotonic()) > 0:
            self._notifier.send(EXTEND_TIMEOUT_USEC=int(min(EXTEND_BY, left) * 1e6))
            self._loop.call_later(EXTEND_EVERY, self._extend)

    def _ping(self) -> None:
        """From the loop itself, so that one that is blocked is noticed."""
        if self._notifier.watchdog_seconds:
            self._notifier.send(WATCHDOG="1")
            self._loop.call_later(self._notifier.watchdog_seconds / 2, self._ping)

    # --- The life of the agent. -------------------------------------------------------------------------------------

    async def _live(self, main: Coroutine[Any, Any, T]) -> None:
        self._living = _this_task()
        self._let_signals_in()
        self._note_generators()
        self._main = asyncio.create_task(main, name="main")
        await asyncio.sleep(0)  # main takes its first step
        if self._auto_ready and not self._main.done():
            self.ready()
        await self._wait(self._main, math.inf)
        if self.stop and not self._broken_off:
            self._wake_up = self._loop.create_future()
            await self._stop()
        await self._end()

    async def _go_on(self) -> None:
        self._note_generators()
        await asyncio.wait({self._living})

    async def _stop(self) -> None:
        """Give the agent the time to end by itself."""
        if self._drain:
            self._draining = asyncio.create_task(_await(self._drain, self.stop.seconds_left), name="drain")
            await self._wait(self._draining, self.stop.seconds_left)
            if not self._draining.done() and not self._broken_off:
                log.warning("the drain has not ended within its time, and is broken off")
        if self.looks_after_itself:
            await self._wait(self._main, self.stop.seconds_left)

    async def _wait(self, task: asyncio.Task[Any], seconds: float) -> None:
        timeout = None if seconds == math.inf else seconds
        await asyncio.wait({task, self._wake_up}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)

    # --- The end. ---------------------------------------------------------------------------------------------------

    async def _end(self) -> None:
        """Bring to its end all that runs on the loop, in order, each part within its time."""
        self._say_stopping()
        now = time.monotonic()
        limit = self._limit if self._limit < math.inf else LIMIT_OF_END
        reserve = _reserve(limit)
        end = max(min(self._deadline, now + limit), now + reserve)
        for_main, for_tasks, for_generators, for_threads = (end - part * reserve for part in PARTS)

        self._cancelled_before = {task: task.cancelling() for task in self._tasks()}
        if not self._main.done():
            self._cancelled = True
            await self._end_tasks({self._main, self._draining or self._main}, for_main)
        await self._end_all_tasks(for_tasks)
        await self._end_leftovers(for_generators)
        if self._threads():
            await self._end_threads(for_threads, reserve)
            await self._end_all_tasks(for_threads)  # that the threads have started
            await self._end_leftovers(for_threads)
        await self._close_tasks()

    async def _end_all_tasks(self, until: float) -> None:
        """Cancel all tasks and await them; then those that their clean-up has started; and so on."""
        for _ in range(ROUNDS):
            tasks = self._tasks() - self._ending.keys()
            if not tasks or not await self._end_tasks(tasks, until):
                return

    async def _end_tasks(self, tasks: set[asyncio.Task[Any]], until: float) -> bool:
        """Cancel these tasks, once, and await them. Returns whether all have ended."""
        for task in tasks - set(self._asked):
            self._asked.add(task)
            if task.cancelling() <= self._cancelled_before.get(task, 0):  # else by what awaited it: gather, a group
                task.cancel()
        return await self._await_tasks(tasks, until)

    async def _await_tasks(self, tasks: set[asyncio.Task[Any]], until: float) -> bool:
        silent_until = time.monotonic() + TELL_AFTER
        for time_is_up in (min(silent_until, until), until):
            done, tasks = await asyncio.wait(tasks, timeout=max(0.0, time_is_up - time.monotonic()))
            for task in done:
                self._report_error(task)
            if not tasks:
                return True
            if (left := until - time.monotonic()) > 0:
                log.warning("the end waits for %s, %s", ", ".join(sorted(t.get_name() for t in tasks)), _words(left))
        return False

    async def _end_leftovers(self, until: float) -> None:
        """End what no task resumes any more: coroutines that were dropped half-way, then generators."""
        seen: dict[int, object] = {}
        for _ in range(ROUNDS):
            if self._ending and not await self._await_tasks(set(self._ending), until):
                return
            orphans = leftovers.find_orphans(self._is_over)
            self._end_abandoned(orphans.tasks)
            idle = [generator for generator in self._generators if leftovers.is_idle(generator)]
            found = [left for left in orphans.suspended or idle if id(left) not in seen]
            if not found and not self._ending:
                return
            for left in found:
                seen[id(left)] = left
                self._start_to_end(left)

    def _end_abandoned(self, tasks: list[asyncio.Task[Any]]) -> None:
        """Tasks of loops that are over."""
        for task in tasks:
            leftovers.forget_task(task)
            self._start_to_end(task.get_coro())

    def _start_to_end(self, left: leftovers.Suspended) -> None:
        task = self._loop.create_task(leftovers.end(left), name=f"end of {leftovers.name_of(left)}")
        self._ending[task] = left
        task.add_done_callback(self._ending.pop)

    async def _end_threads(self, until: float, last_word: float) -> None:
        """Shut the default executor down; a thread that is stuck is told and left.

        `last_word`: seconds before that, in which loops that run in such threads have their tasks cancelled.
        """
        for pool in self._pools:
            pool.shutdown(wait=False)
        pause, told = 0.001, time.monotonic() + TELL_AFTER
        while (stuck := self._threads()) and (left := until - (now := time.monotonic())) > 0:
            if left < last_word:
                self._cancel_nested(stuck)
                last_word = 0.0
            if now > told:
                log.warning("the end waits for %s, %s", ", ".join(thread.name for thread in stuck), _words(left))
                told = math.inf
            await asyncio.sleep(min(pause, left - last_word))
            pause = min(pause * 2, 0.05)
        for thread in stuck:
            frame = sys._current_frames().get(thread.ident or 0)
            lines = "".join(traceback.format_stack(frame)).rstrip() if frame else "  (nowhere)"
            left_behind = "is left" if leftovers.leave_thread(thread) else "cannot be left"
            log.warning("thread %s is stuck in the executor and %s; it is in:\n%s", thread.name, left_behind, lines)
        for pool in self._pools:
            pool.shutdown(wait=False, cancel_futures=True)

    def _cancel_nested(self, threads: list[threading.Thread]) -> None:
        for nested in self._nested:
            if nested.thread in threads and (loop := nested.loop()) is not None:
                with contextlib.suppress(RuntimeError):  # it is closed
                    loop.call_soon_threadsafe(_cancel_all, nested.tasks)

    def _threads(self) -> list[threading.Thread]:
        return [thread for pool in self._pools for thread in getattr(pool, "_threads", ()) if thread.is_alive()]

    async def _close_tasks(self) -> None:
        """Whatever has not ended is told, and ended by force."""
        for _ in range(ROUNDS):
            if not (tasks := self._tasks()):
                return
            stacks = {task: leftovers.stack_of(self._ending.get(task) or task.get_coro()) for task in tasks}
            self._forced |= tasks
            for task in tasks:
                task.cancel()  # once more: it can have been swallowed by accident
            await asyncio.wait(tasks, timeout=LAST_TRY)
            for task, stack in stacks.items():
                log.warning("task %s did not end when it was cancelled; it was in:\n%s", task.get_name(), stack)
                if not task.done():
                    self._refused.add(task)
                    await leftovers.close_task(task)

    def _tasks(self) -> set[asyncio.Task[Any]]:
        tasks = (self._kept | asyncio.all_tasks()) - self._refused
        return {task for task in tasks if not task.done() and task.get_coro() not in self._own}

    def _report_error(self, task: asyncio.Task[Any]) -> None:
        """As `asyncio.run` does with a task that fails at the end. Those of `main` and of the drain are for `run`."""
        if task in (self._main, self._draining) or task.cancelled() or not (error := task.exception()):
            return
        message = f"task {task.get_name()} failed at the end"
        self._loop.call_exception_handler({"message": message, "exception": error, "task": task})


_run: contextvars.ContextVar[_Run[Any] | None] = contextvars.ContextVar("agent_init_run", default=None)
_first: _Run[Any] | None = None  # for threads that the agent starts: they do not inherit the context


_in_main: _Run[Any] | None = None  # the one that has the signals
_elsewhere: set[_Run[Any]] = set()  # those that have none


def _current() -> _Run[Any] | None:
    return _run.get() or _first


# A forked child has the handlers of its parent, and what they write to. Until they are put back it takes no signal.
_masks: dict[int, set[Any]] = {}  # of threads that fork


def _before_fork() -> None:
    if _in_main:
        _masks[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, ())  # a handler may raise here,
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # ... and here, when it is done


def _after_fork() -> None:
    if (mask := _masks.pop(threading.get_ident(), None)) is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _after_fork_in_child() -> None:
    """What the parent runs is none of ours: a run of our own has its own stop, and without one TERM ends us."""
    global _first, _in_main
    for of_parent in (_first, _in_main):
        if of_parent:
            of_parent.leave_to_parent()
    _first = _in_main = None
    _elsewhere.clear()
    _run.set(None)
    _after_fork()
    _masks.clear()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)


def _keep_tasks(loop: asyncio.AbstractEventLoop, kept: set[asyncio.Task[Any]]) -> None:
    """Refer to each task until it is done: asyncio forgets one that nobody refers to, in the middle of its work.

    A task factory would be in the way of one that the agent sets.
    """
    create_task = loop.create_task

    def create_and_keep(*arguments: Any, **more: Any) -> asyncio.Task[Any]:
        task = create_task(*arguments, **more)
        if not task.done():
            kept.add(task)
            task.add_done_callback(kept.discard)
        return task

    hidden: Any = loop
    hidden.create_task = create_and_keep


def _cancel_all(tasks: set[asyncio.Task[Any]]) -> None:
    for task in list(tasks):
        task.cancel()


def _say_once(**fields: object) -> None:
    with contextlib.closing(Notifier()) as notifier:
        notifier.send(**fields)


def _granted(environment: Mapping[str, str], exists: Callable[[str], bool] = os.path.exists) -> tuple[float, bool]:
    """How many seconds a stop may take as those above us have it, and whether they told that."""
    with contextlib.suppress(KeyError, ValueError):
        if (seconds := float(environment["AGENT_INIT_STOP_SECONDS"])) >= 0:  # which nan is not
            return seconds, True
    if "NOTIFY_SOCKET" in environment and "AGENT_INIT_RESPONDERS" not in environment:
        return math.inf, False  # systemd or the like ends us when it sees fit
    if platforms.recognise(environment, exists):
        return math.inf, True
    return platforms.DEFAULT_GRACE, True


def _reserve(limit: float) -> float:
    return max(min(limit * RESERVE, MOST_RESERVE), LEAST_RESERVE)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _await(drain: Drain, seconds: float) -> None:
    await drain(seconds)


def _this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task
    return task


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _words(seconds: float) -> str:
    return "without a limit" if seconds == math.inf else f"{seconds:.1f}s left"

"""The end of a run: brings everything that its loop has started to an end, while the loop still runs.

Decides what is ended in which order, how long each step may take, and what is logged about the rest. Times are seconds
on the monotonic clock. Counted from the signal:

    0                              limit - reserved                                           limit
    |<- drain, or main by itself ->|<- main cancelled ->|<- tasks ->|<- leftovers ->|<- threads ->|

Rules of this file:
- A step begins as soon as the one before it is done. Its deadline only says when it is broken off.
- We cancel each task once. A second CancelledError would break its clean-up off, so a task that was cancelled by
  what awaits it (`gather`, a TaskGroup) since the end began is only awaited.
- What clean-up starts is ended too: each step looks again until it finds nothing.
- What refuses to end is logged with its stack before force is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import sys
import threading
import time
import traceback
import weakref
from collections.abc import AsyncGenerator, Coroutine
from concurrent.futures import Executor
from typing import Any, NamedTuple

from . import leftovers
from .executor import DaemonThreadPool
from .stopping import describe_time_left, reserved_seconds

SHARES_LEFT = 0.8, 0.6, 0.4, 0.25  # of the reserved time, still left when each step is broken off
SECONDS_WITHOUT_LIMIT = 10.0  # for the end, where a stop has no limit: the process must not hang
SECOND_CANCEL_SECONDS = 0.05  # for a task to end after its second CancelledError
LOG_AFTER_SECONDS = 2.0  # of waiting for the same things
MAX_ROUNDS = 10  # of looking for what was started meanwhile
MIN_POLL_SECONDS, MAX_POLL_SECONDS = 0.001, 0.05

log = logging.getLogger("agent-init")


class Deadlines(NamedTuple):
    """When each step is broken off."""

    main: float
    tasks: float
    leftovers: float
    threads: float


def deadlines(limit: float, stop_deadline: float) -> Deadlines:
    """`limit`: of a stop, in seconds. `stop_deadline`: infinity if no stop was requested."""
    limit = limit if limit < math.inf else SECONDS_WITHOUT_LIMIT
    reserved = reserved_seconds(limit)
    now = time.monotonic()
    end = max(min(stop_deadline, now + limit), now + reserved)
    return Deadlines(*(end - share * reserved for share in SHARES_LEFT))


class Ending:
    """Ends what a loop has started. To be made before the loop runs; `watch_generators` each time that it begins to."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.tasks = Tasks(loop)
        self._leftovers = Leftovers(loop, self.tasks)
        self._threads = Threads(loop)
        self.watch_generators = self._leftovers.watch_generators

    async def end_everything(self, first: set[asyncio.Task[Any]], until: Deadlines) -> None:
        """Cancel and await the tasks `first`, then end all others, leftovers, and the threads of the executor."""
        self.tasks.start_ending()
        if first:
            await self.tasks.end(first, until.main)
        await self.tasks.end_all(until.tasks)
        await self._leftovers.end_all(until.leftovers)
        self._threads.close()
        if self._threads.busy():
            await self._threads.end(until.threads)
            await self.tasks.end_all(until.threads)  # the threads may have started some
            await self._leftovers.end_all(until.threads)
        await self._force()

    async def _force(self) -> None:
        """Log whatever has not ended, and end it by force."""
        for _ in range(MAX_ROUNDS):
            if not (tasks := self.tasks.unfinished()):
                return
            stacks = {task: leftovers.stack_of(self.tasks.closing.get(task) or task.get_coro()) for task in tasks}
            self.tasks.forced |= tasks
            for task in tasks:
                task.cancel()  # once more: the first one can have been swallowed by accident
            await asyncio.wait(tasks, timeout=SECOND_CANCEL_SECONDS)
            for task, stack in stacks.items():
                log.warning("task %s did not end when it was cancelled; it was in:\n%s", task.get_name(), stack)
                if not task.done():
                    self.tasks.refused.add(task)
                    await leftovers.close_task(task)


class Tasks:
    """The tasks of a loop.

    It refers to each task until it is done, because asyncio itself does not: the collector may take one that waits and
    that nobody else refers to. docs/runner.md promises that such a task is ended too. A task factory is the public way
    to see each task; if the agent sets another one, the promise does not hold for what that makes.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.own: list[Coroutine[Any, Any, Any]] = []  # coroutines of the runner itself, which are not to be ended
        self.closing: dict[asyncio.Task[Any], leftovers.Awaitable] = {}  # which leftover each ends; never cancelled
        self.raised_by_run: set[asyncio.Task[Any]] = set()  # their errors are raised by `run`, so not reported here
        self.forced: set[asyncio.Task[Any]] = set()  # did not end when they were cancelled
        self.refused: set[asyncio.Task[Any]] = set()  # ... nor by their second CancelledError
        self._kept: set[asyncio.Task[Any]] = set()
        self._cancelled: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()  # by us
        self._cancels_before: dict[asyncio.Task[Any], int] = {}  # how often by others, when the end began
        make: Any = self._make
        loop.set_task_factory(make)

    def _make(
        self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
        if not task.done():
            self._kept.add(task)
            task.add_done_callback(self._kept.discard)
        return task

    def unfinished(self) -> set[asyncio.Task[Any]]:
        tasks = (self._kept | asyncio.all_tasks()) - self.refused
        return {task for task in tasks if not task.done() and task.get_coro() not in self.own}

    def start_ending(self) -> None:
        self._cancels_before = {task: task.cancelling() for task in self.unfinished()}

    async def end(self, tasks: set[asyncio.Task[Any]], until: float) -> bool:
        """Cancel these tasks once and await them. Returns whether all have ended."""
        for task in tasks - set(self._cancelled):
            self._cancelled.add(task)
            if task.cancelling() <= self._cancels_before.get(task, 0):
                task.cancel()
        return await self.wait(tasks, until)

    async def end_all(self, until: float) -> None:
        """End all tasks, then those that their clean-up has started, and so on."""
        for _ in range(MAX_ROUNDS):
            tasks = self.unfinished() - self.closing.keys()
            if not tasks or not await self.end(tasks, until):
                return

    async def wait(self, tasks: set[asyncio.Task[Any]], until: float) -> bool:
        """Await these tasks. Returns whether all have ended."""
        log_at = time.monotonic() + LOG_AFTER_SECONDS
        for deadline in (min(log_at, until), until):
            done, tasks = await asyncio.wait(tasks, timeout=max(0.0, deadline - time.monotonic()))
            for task in done:
                self._report_error(task)
            if not tasks:
                return True
            if time.monotonic() < until:
                _log_waiting([task.get_name() for task in tasks], until)
        return False

    def _report_error(self, task: asyncio.Task[Any]) -> None:
        """As `asyncio.run` does for a task that fails while it is being cancelled."""
        if task in self.raised_by_run or task.cancelled() or not (error := task.exception()):
            return
        message = f"task {task.get_name()} failed while it was being ended"
        task.get_loop().call_exception_handler({"message": message, "exception": error, "task": task})


class Leftovers:
    """What is suspended and has no task to resume it. Each is ended in a task of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tasks: Tasks) -> None:
        self._loop, self._tasks = loop, tasks
        self._generators: weakref.WeakSet[AsyncGenerator[Any, Any]] = weakref.WeakSet()

    def watch_generators(self) -> None:
        """Take over the loop's hooks for asynchronous generators, whose own end, shutdown_asyncgens(), has no limit.

        docs/runner.md promises that none outlives the run. Each time that a loop begins to run, it sets its hooks anew.
        """
        sys.set_asyncgen_hooks(firstiter=self._generators.add, finalizer=self._finalize)

    async def end_all(self, until: float) -> None:
        """Coroutines that were dropped half-way first, then generators: the former may still use the latter."""
        seen: dict[int, leftovers.Awaitable] = {}  # refers to them, so that no id is used twice
        for _ in range(MAX_ROUNDS):
            if self._tasks.closing and not await self._tasks.wait(set(self._tasks.closing), until):
                return
            found = [left for left in self._find() if id(left) not in seen]
            if not found and not self._tasks.closing:
                return
            for left in found:
                seen[id(left)] = left
                self._start_to_end(left)

    def _find(self) -> list[leftovers.Awaitable]:
        tasks = asyncio.all_tasks() | self._tasks.unfinished()
        return leftovers.find_abandoned(tasks) or [each for each in self._generators if leftovers.is_idle(each)]

    def _finalize(self, generator: AsyncGenerator[Any, Any]) -> None:
        """The collector has found it, in whatever thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the generator is dropped
            self._loop.call_soon_threadsafe(self._start_to_end, generator)

    def _start_to_end(self, left: leftovers.Awaitable) -> None:
        task = self._loop.create_task(leftovers.end(left), name=f"end of {leftovers.name_of(left)}")
        self._tasks.closing[task] = left
        task.add_done_callback(self._tasks.closing.pop)


class Threads:
    """The threads of the loop's default executors: ours, and those that the agent sets in its place.

    docs/runner.md promises that calls in them are awaited, and that a stuck one does not hold the process; the latter
    only in a DaemonThreadPool.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._executors: list[Executor] = []
        self._closers: list[threading.Thread] = []  # one for each executor of the agent's
        self._set_default_executor = loop.set_default_executor
        replaceable: Any = loop  # no public name returns the default executor, so note each one that is set
        replaceable.set_default_executor = self._set
        loop.set_default_executor(DaemonThreadPool(thread_name_prefix="asyncio"))

    def _set(self, executor: Any) -> None:
        self._set_default_executor(executor)
        self._executors.append(executor)

    def close(self) -> None:
        """Let the executors accept no more calls."""
        for executor in self._executors:
            if isinstance(executor, DaemonThreadPool):
                executor.shutdown(wait=False)
            else:
                closer = threading.Thread(target=executor.shutdown, name="the agent's executor", daemon=True)
                closer.start()
                self._closers.append(closer)

    def busy(self) -> list[threading.Thread]:
        """Those that still run a call, once the executors are closed. An executor of the agent's counts as one."""
        pools = [executor for executor in self._executors if isinstance(executor, DaemonThreadPool)]
        busy = [thread for pool in pools for thread in pool.busy_threads()]
        return busy + [closer for closer in self._closers if closer.is_alive()]

    async def end(self, until: float) -> None:
        """Wait for the threads; those that are stuck are logged and left behind."""
        log_at = time.monotonic() + LOG_AFTER_SECONDS
        pause = MIN_POLL_SECONDS
        while (busy := self.busy()) and (now := time.monotonic()) < until:
            if now > log_at:
                _log_waiting([thread.name for thread in busy], until)
                log_at = math.inf
            await asyncio.sleep(min(pause, until - now))
            pause = min(pause * 2, MAX_POLL_SECONDS)
        for thread in busy:
            _log_stuck(thread, is_left=thread not in self._closers)
        for executor in self._executors:
            executor.shutdown(wait=False, cancel_futures=True)


def _log_waiting(names: list[str], until: float) -> None:
    log.warning("still waiting for %s, %s", ", ".join(sorted(names)), describe_time_left(until - time.monotonic()))


def _log_stuck(thread: threading.Thread, *, is_left: bool) -> None:
    if not is_left:
        log.warning("an executor that the agent has set is stuck; the process cannot end before its threads do")
        return
    frame = sys._current_frames().get(thread.ident or 0)
    stack = "".join(traceback.format_stack(frame)).rstrip() if frame else "  (it has just ended)"
    log.warning("thread %s is stuck and is left behind; it is in:\n%s", thread.name, stack)

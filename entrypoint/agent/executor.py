"""A thread pool that never keeps the process alive.

The interpreter joins the threads of a `concurrent.futures.ThreadPoolExecutor` when it ends, so one call that never
returns keeps the process from ending. It does not join daemon threads. docs/runner.md promises that the process ends
even when a thread of the default executor is stuck; that promise depends on this pool.

Rules of this file:
- It uses only what the standard library documents. It overrides the public methods of ThreadPoolExecutor and touches
  none of its attributes, which change from one Python to the next.
- A thread never holds a reference to a call that has finished.
"""

from __future__ import annotations

import contextvars
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")


class DaemonThreadPool(ThreadPoolExecutor):
    """A ThreadPoolExecutor with daemon threads: the process can end while one of its calls still runs.

    Calls that have not finished when the process ends are lost. `run` waits for those of the default executor.

    Each call runs in a copy of the context that submitted it, as with `asyncio.to_thread`. Tracing packages patch
    `ThreadPoolExecutor.submit` to get the same effect, and this class does not call that method.

    It derives from ThreadPoolExecutor because `loop.set_default_executor` accepts nothing else.

    `max_workers`: the most threads at a time; by default the number of processors plus 4, at most 32.
    `thread_name_prefix`: threads are named `<prefix>_<number>`. Raises ValueError if `max_workers` is less than 1.
    """

    def __init__(self, max_workers: int | None = None, thread_name_prefix: str = "daemon") -> None:
        self._most_threads = min(32, (os.cpu_count() or 1) + 4) if max_workers is None else max_workers
        super().__init__(self._most_threads, thread_name_prefix)
        self._prefix = thread_name_prefix
        self._daemons: list[threading.Thread] = []
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()  # None: no more calls will come
        self._idle_daemons = threading.Semaphore(0)
        self._submitting = threading.Lock()
        self._is_closed = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `fn` in a thread. Raises RuntimeError after `shutdown`."""
        future: Future[T] = Future()
        call = _Call(future, contextvars.copy_context(), fn, args, kwargs)
        with self._submitting:
            if self._is_closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._calls.put(call)
            if not self._idle_daemons.acquire(blocking=False) and len(self._daemons) < self._most_threads:
                name = f"{self._prefix}_{len(self._daemons)}"
                thread = threading.Thread(target=self._work, name=name, daemon=True)
                thread.start()
                self._daemons.append(thread)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more calls; let the threads end once they have run, or with `cancel_futures` dropped, the rest."""
        with self._submitting:
            self._is_closed = True
            if cancel_futures:
                self._cancel_queued()
            self._calls.put(None)
        if wait:
            for thread in self._daemons:
                thread.join()

    def busy_threads(self) -> list[threading.Thread]:
        """Threads that have not ended; after `shutdown`, those that still run a call."""
        return [thread for thread in self._daemons if thread.is_alive()]

    def _cancel_queued(self) -> None:
        while True:
            try:
                call = self._calls.get_nowait()
            except queue.Empty:
                return
            if call is not None:
                call.future.cancel()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call.run()
            del call
            self._idle_daemons.release()
        self._calls.put(None)  # for the next thread


class _Call:
    def __init__(
        self,
        future: Future[Any],
        context: contextvars.Context,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.future = future
        self._context, self._function, self._args, self._kwargs = context, function, args, kwargs

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self._context.run(self._function, *self._args, **self._kwargs)
        except BaseException as error:
            self.future.set_exception(error)
            del self  # the traceback holds this frame, and would make a cycle of it
        else:
            self.future.set_result(result)

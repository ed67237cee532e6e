"""What can be left when a loop ends (coroutines in mid-air, threads that hang), and how to bring it to its own end.

A suspended coroutine that outlives its loop is ended by the interpreter's collector, wherever that happens to run: its
`finally` finds no running loop, and the clean-up is lost. So everything here is called while the loop still runs.

Nothing registers coroutines, therefore they are looked for among all objects that the collector knows, those included
that are garbage already and not collected yet. Whose they are is told by the future that they wait for, at the end of
the chain of awaits: it knows its loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import threading
import traceback
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from .responder import awaited_by

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

_CHAIN = (CoroutineType, AsyncGeneratorType, GeneratorType, asyncio.Future)
_ATTEMPTS = 3  # how often something is closed that answers GeneratorExit with another await

Suspended: TypeAlias = Any  # a coroutine, an asynchronous generator, or a begun step of one (`asend`, `aclose`)


class Orphans(NamedTuple):
    """What is suspended and will be resumed by nobody any more."""

    suspended: list[Suspended]  # a generator only where its step is gone, so that it can take no other
    tasks: list[asyncio.Task[Any]]  # of other loops that are over, still pending


def find_orphans(is_over: Callable[[asyncio.AbstractEventLoop], bool]) -> Orphans:
    """Whatever waits for a loop that is over, without a task of another loop that could resume it.

    The tasks of the loop that runs are left out: they can be cancelled.
    """
    running = asyncio.get_running_loop()
    steps = _types_of_steps()
    wanted = {CoroutineType, AsyncGeneratorType, *steps}
    objects = [thing for thing in gc.get_objects() if type(thing) in wanted or issubclass(type(thing), asyncio.Task)]
    task_of = {id(task.get_coro()): task for task in objects if isinstance(task, asyncio.Task) and not task.done()}
    chains = [chain for thing in objects if _suspended(thing) and len(chain := chain_of(thing)) > 1]
    awaited = {id(link) for chain in chains for link in chain[1:]}

    found = Orphans([], [])
    for root, *_, leaf in chains:
        task = task_of.get(id(root))
        if id(root) in awaited:
            continue
        if task is None and _waits_for(leaf, is_over):
            found.suspended.append(root)
        elif task and task.get_loop() is not running and is_over(task.get_loop()):
            found.tasks.append(task)
    return found._replace(suspended=_without_task(found.suspended))


def _without_task(suspended: list[Suspended]) -> list[Suspended]:
    """Other threads went on while we looked: what had no task may have one by now, or have ended in it."""
    tasks = gc.get_referrers(*suspended) if suspended else []
    taken = {id(task.get_coro()) for task in tasks if issubclass(type(task), asyncio.Task)}
    return [left for left in suspended if id(left) not in taken and _suspended(left)]


def chain_of(thing: object) -> list[object]:
    """The thing, what it awaits, what that awaits in turn, and so on; the last is often a future."""
    chain, seen = [thing], {id(thing)}
    while (following := _awaited_by(chain[-1])) is not None and id(following) not in seen:
        chain.append(following)
        seen.add(id(following))
    return chain


def is_idle(generator: AsyncGenerator[Any, Any]) -> bool:
    """It has begun and has not ended, and takes a next step."""
    return isinstance(generator, AsyncGeneratorType) and generator.ag_frame is not None and not generator.ag_running


async def end(left: Suspended) -> None:
    """Resume it with CancelledError, or close a generator, and await what its clean-up awaits.

    Raises what the clean-up raises.
    """
    with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
        if not isinstance(left, AsyncGeneratorType):
            await _Cancelled(left)
        elif not left.ag_running:
            await left.aclose()
        else:  # half-way in a step that is gone
            if _suspended(awaited := awaited_by(left)):
                with contextlib.suppress(asyncio.CancelledError):
                    await _Cancelled(awaited)
            close(left)


def close(left: Suspended) -> bool:
    """Resume it with GeneratorExit, so that it must end at once. Returns whether it did."""
    for _ in range(_ATTEMPTS):
        if not _suspended(left):
            return True
        with contextlib.suppress(BaseException):
            if isinstance(left, AsyncGeneratorType):
                left.__del__()  # type: ignore[attr-defined]  # nothing else may end it
            else:
                left.close()
    return not _suspended(left)


async def close_task(task: asyncio.Task[Any]) -> None:
    """End a task that does not end when it is cancelled."""
    left = task.get_coro()
    ended = close(left)
    task.cancel()  # its next step finds that the coroutine has ended
    for _ in range(_ATTEMPTS):
        await asyncio.sleep(0)
    if task.done():
        if not task.cancelled():
            task.exception()  # told already
        return
    forget_task(task)
    if not ended:
        keep_for_ever(task)


def forget_task(task: asyncio.Task[Any]) -> None:
    """What this task had to do is over, though it does not know."""
    asyncio.tasks._unregister_task(task)
    task._log_destroy_pending = False  # type: ignore[attr-defined]


def keep_for_ever(thing: object) -> None:
    """Never finalize it: what does not end by any means is at least not ended where there is no loop."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def name_of(left: Suspended) -> str:
    return str(getattr(left, "__qualname__", type(left).__name__))


def stack_of(awaitable: object) -> str:
    """Where it is suspended, the innermost frame last, and what it waits for."""
    chain = chain_of(awaitable)
    frames = [frame for link in chain if (frame := _frame_of(link)) is not None]
    lines = traceback.StackSummary.extract((frame, frame.f_lineno) for frame in frames).format()
    if isinstance(chain[-1], asyncio.Future):
        lines.append(f"  waiting for {chain[-1]!r}\n")
    return "".join(lines).rstrip()


def leave_thread(thread: threading.Thread) -> bool:
    """Let the interpreter end without this thread, as if it were a daemon. False where this Python offers no way.

    Worker threads are joined twice at the end: by `concurrent.futures`, which made them, and by `threading`.
    """
    from concurrent.futures import thread as pool

    hidden: Any = thread
    try:
        pool._threads_queues.pop(thread, None)  # type: ignore[attr-defined]
        if hasattr(hidden, "_handle"):  # from 3.13 on
            hidden._handle._set_done()
        else:
            threading._shutdown_locks.discard(hidden._tstate_lock)  # type: ignore[attr-defined]
    except AttributeError:
        return False
    return True


class _Cancelled:
    """Awaits the rest of something suspended, into which a CancelledError is thrown."""

    def __init__(self, left: Any) -> None:
        self._left = left

    def __await__(self) -> Generator[Any, Any, None]:
        resume: Callable[[Any], Any] = self._left.throw
        value: Any = asyncio.CancelledError()
        try:
            while True:
                future = resume(value)
                try:
                    value = yield future
                except BaseException as error:
                    resume, value = self._left.throw, error
                else:
                    resume = self._left.send
        except StopIteration:
            return


def _waits_for(leaf: object, is_over: Callable[[asyncio.AbstractEventLoop], bool]) -> bool:
    if isinstance(leaf, asyncio.Future):
        return is_over(leaf.get_loop())
    return isinstance(leaf, GeneratorType) and leaf.gi_code is _SLEEP_0


_SLEEP_0 = getattr(getattr(asyncio.tasks, "__sleep0", None), "__code__", None)  # asyncio.sleep(0) has no future


def _suspended(thing: object) -> bool:
    """Begun, and in the middle of an await. For a step, whether its generator is."""
    if isinstance(thing, CoroutineType):
        return thing.cr_suspended
    if isinstance(thing, AsyncGeneratorType):
        return thing.ag_running and awaited_by(thing) is not None
    generator = _awaited_by(thing)
    return isinstance(generator, AsyncGeneratorType) and _suspended(generator)


def _awaited_by(thing: object) -> object:
    if isinstance(thing, (CoroutineType, AsyncGeneratorType, GeneratorType)):
        return awaited_by(thing)
    if isinstance(thing, asyncio.Future):
        return None
    # What the interpreter puts in between: the iterator of a future or a coroutine, the step of a generator.
    return next((link for link in gc.get_referents(thing) if issubclass(type(link), _CHAIN)), None)


def _frame_of(link: object) -> Any:
    for name in ("cr_frame", "ag_frame", "gi_frame"):
        if (frame := getattr(link, name, None)) is not None:
            return frame
    return None


def _types_of_steps() -> set[type]:
    async def sample() -> Any:
        yield

    generator = sample()
    steps = [generator.asend(None), generator.aclose()]
    for step in steps:
        step.close()
    return {type(step) for step in steps}

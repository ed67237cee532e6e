"""Coroutines and generators that no task resumes any more: how to find them, and how to end them.

A suspended coroutine that outlives its loop is closed by the garbage collector, wherever that happens to run. Its
`finally` then finds no running loop, and the clean-up is lost. docs/runner.md promises that none is left on the loop of
a run; so everything here happens while that loop still runs.

How they are found: nothing registers coroutines, so all objects that the collector tracks are searched, garbage that it
has not collected yet included. A coroutine belongs to the loop of the future at the end of its chain of awaits. One
that is suspended on anything else (`asyncio.sleep(0)`, another framework's trap) belongs to nobody we know, and is left
alone.

Rules of this file:
- Other threads go on while we look. Only objects of the loop in this thread are touched, which stands still meanwhile.
- Stacks of other threads are not read: CPython 3.11 and 3.12 may crash on that (`responder.awaited_by`).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import traceback
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, TypeAlias

from .responder import awaited_by

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator

CLOSE_ATTEMPTS = 3  # for a coroutine that answers GeneratorExit with another await

Awaitable: TypeAlias = Any  # a coroutine, an asynchronous generator, or a step of one (what asend() returned)


def find_abandoned(tasks: Collection[asyncio.Task[Any]]) -> list[Awaitable]:
    """Coroutines and steps of generators that wait for the running loop, and that none of its `tasks` resumes."""
    loop = asyncio.get_running_loop()
    kinds = {CoroutineType, AsyncGeneratorType, *_STEP_TYPES}
    chains = [chain_of(thing) for thing in gc.get_objects() if type(thing) in kinds and _is_suspended(thing)]
    resumed = {id(link) for chain in chains for link in chain[1:]} | {id(task.get_coro()) for task in tasks}
    return [
        root
        for root, *_, last in (chain for chain in chains if len(chain) > 1)
        if id(root) not in resumed
        and type(root) is not AsyncGeneratorType  # its step is gone, and it accepts no other
        and isinstance(last, asyncio.Future)
        and last.get_loop() is loop
    ]


def chain_of(thing: object) -> list[object]:
    """The thing, what it awaits, what that awaits in turn, and so on; the last one is often a future."""
    chain, seen = [thing], {id(thing)}
    while (following := _awaited_by(chain[-1])) is not None and id(following) not in seen:
        chain.append(following)
        seen.add(id(following))
    return chain


def is_idle(generator: object) -> bool:
    """Whether it is an asynchronous generator between two steps."""
    return isinstance(generator, AsyncGeneratorType) and generator.ag_frame is not None and not generator.ag_running


async def end(left: Awaitable) -> None:
    """Close a generator, or throw CancelledError into anything else, and await its clean-up.

    Raises what the clean-up raises.
    """
    with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
        if is_idle(left):
            await left.aclose()
        elif not isinstance(left, AsyncGeneratorType):
            await _Cancelled(left)


def close(coroutine: Any) -> bool:
    """Throw GeneratorExit into it, so that it must end at once. Returns whether it has."""
    for _ in range(CLOSE_ATTEMPTS):
        if not _is_suspended(coroutine):
            return True
        with contextlib.suppress(BaseException):
            coroutine.close()
    return not _is_suspended(coroutine)


async def close_task(task: asyncio.Task[Any]) -> None:
    """End a task that does not end when it is cancelled."""
    close(task.get_coro())
    task.cancel()  # its next step finds that the coroutine has ended
    for _ in range(CLOSE_ATTEMPTS):
        await asyncio.sleep(0)
    if not task.done():
        keep_for_ever(task)
    elif not task.cancelled():
        task.exception()  # marks it as retrieved; it is logged already


def keep_for_ever(thing: object) -> None:
    """Never let it be finalized.

    docs/runner.md promises that the process ends. A coroutine that catches everything would be closed once more when
    the interpreter ends, outside of any loop, and could go round for ever there.
    """
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def name_of(left: Awaitable) -> str:
    return str(getattr(left, "__qualname__", type(left).__name__))


def stack_of(awaitable: object) -> str:
    """Where it is suspended, the innermost frame last, and what it waits for."""
    chain = chain_of(awaitable)
    frames = [frame for link in chain if (frame := _frame_of(link)) is not None]
    lines = traceback.StackSummary.extract((frame, frame.f_lineno) for frame in frames).format()
    if isinstance(chain[-1], asyncio.Future):
        lines.append(f"  waiting for {chain[-1]!r}\n")
    return "".join(lines).rstrip()


class _Cancelled:
    """Awaits the rest of something suspended, after throwing a CancelledError into it."""

    def __init__(self, left: Awaitable) -> None:
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


def _is_suspended(thing: object) -> bool:
    """Whether it has begun and is in the middle of an await; of a step, whether its generator is."""
    if isinstance(thing, CoroutineType):
        return thing.cr_suspended
    if isinstance(thing, AsyncGeneratorType):
        return thing.ag_running and awaited_by(thing) is not None
    generator = _awaited_by(thing)
    return isinstance(generator, AsyncGeneratorType) and _is_suspended(generator)


def _awaited_by(thing: object) -> object:
    if isinstance(thing, (CoroutineType, AsyncGeneratorType, GeneratorType)):
        return awaited_by(thing)
    if isinstance(thing, asyncio.Future):
        return None
    # The interpreter's objects in between have no attribute for it: the iterator of a future or of a coroutine, the
    # step of a generator. The collector knows what they refer to.
    links = (CoroutineType, AsyncGeneratorType, GeneratorType, asyncio.Future)
    return next((link for link in gc.get_referents(thing) if issubclass(type(link), links)), None)


def _frame_of(link: object) -> Any:
    for name in ("cr_frame", "ag_frame", "gi_frame"):
        if (frame := getattr(link, name, None)) is not None:
            return frame
    return None


def _step_types() -> set[type]:
    async def sample() -> Any:
        yield

    generator = sample()
    steps = [generator.asend(None), generator.aclose()]
    for step in steps:
        step.close()
    return {type(step) for step in steps}


_STEP_TYPES = _step_types()

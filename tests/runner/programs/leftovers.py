"""What an agent leaves suspended when it ends: `leftovers.py SHAPE asyncio|uvloop returns|stopped|plain`.

Each shape has clean-up that needs a running loop. It prints `cleaned` for each clean-up that ran to its end, then what
is still suspended after the run, then `end`. `stopped`: a stop request ends main; otherwise it returns. `plain`: uses
`asyncio.run`, for comparison.
"""

import asyncio
import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator
from types import CoroutineType
from typing import Any

if sys.argv[2] == "asyncio":
    sys.modules["uvloop"] = None  # type: ignore[assignment]

from entrypoint.agent import run

held: list[Any] = []  # outlives the loop


def cleaned() -> None:
    asyncio.get_running_loop()
    print("cleaned", flush=True)


async def work() -> None:
    """Clean-up that fails without a running loop."""
    try:
        await asyncio.Event().wait()
    finally:
        asyncio.get_running_loop()
        await asyncio.sleep(0.01)
        cleaned()


async def values() -> AsyncIterator[int]:
    try:
        yield 1
        await asyncio.Event().wait()
        yield 2
    finally:
        try:
            await asyncio.sleep(0.01)
        finally:
            cleaned()


async def task() -> None:
    held.append(asyncio.create_task(work()))
    await asyncio.sleep(0)


async def forgotten_task() -> None:
    """Only its own future refers to it, and nothing to that."""
    loop = asyncio.get_running_loop()
    for _ in range(3):
        loop.create_task(work())  # noqa: RUF006
    await asyncio.sleep(0.01)
    gc.collect()
    await asyncio.sleep(0.01)


async def task_not_begun() -> None:
    async def begin() -> None:
        cleaned()

    held.append(asyncio.create_task(begin()))
    await asyncio.sleep(0)


async def held_coroutine() -> None:
    """Resumed by hand, and no task has it."""
    held.append(work())
    held[0].send(None)


async def coroutine_in_a_cycle() -> None:
    """Garbage that the collector has not found yet."""
    gc.disable()
    cycle: list[Any] = [work()]
    cycle[0].send(None)
    cycle.append(cycle)
    del cycle


async def nested_coroutines() -> None:
    async def outer() -> None:
        try:
            await work()
        finally:
            await asyncio.sleep(0.01)
            cleaned()

    held.append(outer())
    held[0].send(None)


async def clean_up_starts_tasks() -> None:
    async def parent() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            held.append(asyncio.create_task(parent() if len(held) < 5 else work()))
            await asyncio.sleep(0.01)
            cleaned()

    held.append(asyncio.create_task(parent()))
    await asyncio.sleep(0.01)


async def clean_up_awaits_a_task() -> None:
    """What clean-up starts and awaits is not cancelled under it."""

    async def save() -> None:
        await asyncio.sleep(0.1)
        cleaned()

    async def parent() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.wait_for(asyncio.create_task(save()), 5)

    held.append(asyncio.create_task(parent()))
    await asyncio.sleep(0)


async def idle_generator() -> None:
    held.append(values())
    await anext(held[0])


async def dropped_generator() -> None:
    async for _ in values():
        break


async def dropped_generator_that_saves() -> None:
    """The collector has it closed, and nothing cancels that."""

    async def saves() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0.1)
            cleaned()

    async for _ in saves():
        break


async def generator_in_its_finally() -> None:
    """Its clean-up has begun by hand; the step is still there."""
    await idle_generator()
    held.append(held[0].aclose())
    held[1].send(None)


async def generator_half_way() -> None:
    await idle_generator()
    held.append(anext(held[0]))
    held[1].send(None)


async def generator_in_a_forgotten_task() -> None:
    async def consume() -> None:
        async for _ in values():
            pass

    asyncio.get_running_loop().create_task(consume())
    await asyncio.sleep(0.01)
    gc.collect()


async def generator_whose_consumer_was_closed() -> None:
    async def consume() -> None:
        async for _ in values():
            pass

    consumer = consume()
    consumer.send(None)
    with contextlib.suppress(RuntimeError):  # from 3.13 on it raises: the generator goes on
        consumer.close()
    gc.collect()


async def loop_in_a_thread() -> None:
    """It has its own end, which the end of the run waits for."""
    begun = threading.Event()

    async def inner() -> None:
        begun.set()
        await asyncio.sleep(0.05)
        cleaned()

    held.append(asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(inner()))))
    while not begun.is_set():
        await asyncio.sleep(0.001)


def suspended() -> list[str]:
    return [thing.__qualname__ for thing in gc.get_objects() if type(thing) is CoroutineType and thing.cr_suspended]


async def main(shape: str, how: str) -> None:
    await globals()[shape]()
    if how == "stopped":
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()


if __name__ == "__main__":
    _, shape, _, how = sys.argv
    if how == "plain":
        asyncio.run(main(shape, how))
    else:
        run(main(shape, how), grace=60.0)
    if left := suspended():
        print("left:", *left, flush=True)
    held.clear()
    gc.collect()
    print("end", flush=True)

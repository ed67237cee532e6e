"""A plain asyncio program: tasks, an async generator, a thread, and a slow clean-up.

With the argument `handler` it handles TERM; with `bare` it relies on `asyncio.run`, which handles INT only. With `late`
it handles TERM after some seconds, as an agent that imports much.
"""

# mypy: disable-error-code="import-not-found"
# Its imports are installed only in its own environment.

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncGenerator

from record import note


async def numbers() -> AsyncGenerator[int, None]:
    number = 0
    try:
        while True:
            yield number
            number += 1
            await asyncio.sleep(0.05)
    finally:
        await asyncio.sleep(0.2)
        note("generator closed")


async def count() -> None:
    async with contextlib.aclosing(numbers()) as generator:
        async for _ in generator:
            pass


def work() -> None:
    note("work begun")
    time.sleep(2.5)
    note("work done")


async def main(mode: str) -> None:
    stop = asyncio.Event()
    if mode != "bare":
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    counting = asyncio.create_task(count())
    working = asyncio.create_task(asyncio.to_thread(work))
    try:
        await stop.wait()
    finally:
        await working
        counting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await counting
        note("cleaned up")


if __name__ == "__main__":
    if sys.argv[1] == "late":
        time.sleep(5)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1]))
    note("ended")

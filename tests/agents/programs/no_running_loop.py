"""The smallest program with the failure: a coroutine's clean-up needs its event loop, but that is closed.

With the argument `awaited` the same program uses `asyncio.run`, which cancels and awaits pending tasks.
"""

import asyncio
import sys

started: list[asyncio.Task[None]] = []


async def call() -> None:
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0.1)
        print("call saved", flush=True)


async def main() -> None:
    started.append(asyncio.create_task(call()))
    await asyncio.sleep(0.1)


if sys.argv[1:] == ["awaited"]:
    asyncio.run(main())
else:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    started.clear()  # the task is collected here: `finally` runs without a loop

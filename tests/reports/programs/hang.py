"""An asyncio agent that hangs when it is asked to stop: `python hang.py KIND`. Prints `ready` once it handles TERM."""

import asyncio
import ctypes
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator

KIND = sys.argv[1]
if "uvloop" in sys.argv:
    import uvloop as loops
else:
    loops = asyncio  # type: ignore[misc]


async def flush_recordings() -> None:
    if KIND == "task":
        await asyncio.Event().wait()
    elif KIND == "loop":
        compress()
    elif KIND == "gil":
        ctypes.PyDLL(None).sleep(100)  # unlike CDLL it keeps the GIL
    elif KIND == "executor":
        await asyncio.get_running_loop().run_in_executor(None, upload)
    elif KIND == "thread":
        threading.Thread(target=upload, name="uploader").start()
    elif KIND == "refuses":
        task = asyncio.create_task(hold_on(), name="stubborn")
        await asyncio.sleep(0)
        task.cancel()
        await task
    elif KIND == "many":
        await asyncio.gather(*(asyncio.create_task(close_call()) for _ in range(12)))
    elif KIND == "generator":
        async for _ in chunks():
            pass


def compress() -> None:
    while True:
        pass


def upload() -> None:
    time.sleep(100)


async def hold_on() -> None:
    try:
        await asyncio.sleep(100)
    except asyncio.CancelledError:
        await asyncio.sleep(100)


async def close_call() -> None:
    await asyncio.sleep(100)


async def chunks() -> AsyncIterator[int]:
    await asyncio.sleep(100)
    yield 1


async def main() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    print("ready", flush=True)
    await stop.wait()
    await flush_recordings()


signal.alarm(100)
loops.run(main())

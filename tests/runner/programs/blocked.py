"""An agent whose event loop is blocked now and then: `blocked.py LOOP LIMIT THREAD`."""

import asyncio
import sys
import threading
import time

from entrypoint.agent import run

if sys.argv[1] == "asyncio":
    sys.modules["uvloop"] = None  # type: ignore[assignment]


def wait_for_disk() -> None:
    time.sleep(0.8)


async def main() -> None:
    print("ready", flush=True)
    while True:
        await asyncio.sleep(0.2)
        wait_for_disk()


def start() -> None:
    run(main(), loop_watch=None if sys.argv[2] == "-" else float(sys.argv[2]))


if sys.argv[3:] == ["in a thread"]:
    threading.Thread(target=start, daemon=True).start()
    run(asyncio.sleep(100), loop_watch=float(sys.argv[2]))
else:
    start()

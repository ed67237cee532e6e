"""An agent with a pool of worker processes; the argument is the start method of `multiprocessing`."""

# mypy: disable-error-code="import-not-found"
# Its imports are installed only in its own environment.

import asyncio
import multiprocessing
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from record import note


def work(number: int) -> int:
    note(f"work {number} begun")
    time.sleep(2.5)
    note(f"work {number} done")
    return number


async def main(method: str) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
        working = [loop.run_in_executor(pool, work, number) for number in range(2)]
        await stop.wait()
        assert await asyncio.gather(*working) == [0, 1]
        note("answers read")
    note("cleaned up")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
    note("ended")

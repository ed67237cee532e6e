"""A server with an engine in a process of its own, as vLLM has one: requests go over a pipe, words come back.

At a stop the server finishes its answers, and then asks the engine to end. The engine ignores INT, as vLLM's does.
"""

import asyncio
import multiprocessing
import signal
import time
from collections.abc import AsyncIterator
from multiprocessing.connection import Connection

import agent


def engine(pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while pipe.recv() is not None:
        for word in agent.WORDS:
            pipe.send(word)
            time.sleep(0.5)


async def think() -> AsyncIterator[str]:
    async with one_at_a_time:
        pipe.send("request")
        for _ in agent.WORDS:
            yield await asyncio.to_thread(pipe.recv)


if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    pipe, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=engine, args=(theirs,))
    process.start()
    theirs.close()
    one_at_a_time = asyncio.Lock()
    agent.think = think
    asyncio.run(agent.main())
    pipe.send(None)
    process.join()

"""An agent on plain asyncio: it answers over HTTP, word by word, and finishes its answers when it is stopped."""

import asyncio
import signal
from collections.abc import AsyncIterator

WORDS = ["I\n", "think\n", "so\n", "too.\n"]
answers: set[asyncio.Task[None]] = set()


async def think() -> AsyncIterator[str]:
    for word in WORDS:
        yield word
        await asyncio.sleep(0.5)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:  # a probe, which connects and leaves
        writer.close()
        return
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len("".join(WORDS)))
    async for word in think():
        writer.write(word.encode())
        await writer.drain()
    writer.close()


def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    task = asyncio.create_task(answer(reader, writer))
    answers.add(task)
    task.add_done_callback(answers.discard)


async def main() -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = await asyncio.start_server(take, port=8000)
    await stop.wait()
    server.close()
    await asyncio.gather(*answers)


if __name__ == "__main__":
    asyncio.run(main())

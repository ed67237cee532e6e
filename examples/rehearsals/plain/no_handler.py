"""An agent on `asyncio.run` without a handler: INT cancels it, and it finishes its answers in a `finally`."""

import asyncio

from agent import answers, take


async def main() -> None:
    server = await asyncio.start_server(take, port=8000)
    try:
        await asyncio.Event().wait()
    finally:
        server.close()
        await asyncio.gather(*answers)


if __name__ == "__main__":
    asyncio.run(main())

"""Call the pipecat agent on port 8000, and listen until it has said everything. Fails if it hangs up before."""

import asyncio

from websockets import connect


async def main() -> None:
    async with connect("ws://localhost:8000") as agent:
        async for words in agent:
            print(words, flush=True)
            if b"too." in words:
                return
    raise SystemExit("the agent has hung up")


asyncio.run(main())

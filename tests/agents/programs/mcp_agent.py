"""An agent with two MCP servers on stdin and stdout, as editors and agent frameworks start them.

With the argument `die` it also has a child that ignores its stdin, and dies without a clean-up.
"""

# mypy: disable-error-code="import-not-found, untyped-decorator"
# Its imports are installed only in its own environment.

import asyncio
import os
import signal
import sys
import time
from contextlib import AsyncExitStack

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.server.fastmcp import FastMCP
from record import note

STUBBORN = """
import signal, time
from record import note

def stop(number, frame):
    time.sleep(1)
    note("stubborn cleaned up")
    raise SystemExit

signal.signal(signal.SIGTERM, stop)
note("stubborn ready")
while True:
    time.sleep(60)
"""


def serve() -> None:
    server = FastMCP("tools")

    @server.tool()
    def think() -> str:
        note("tool begun")
        time.sleep(2.5)
        note("tool done")
        return "thought"

    server.run()
    note("server closed")


async def main(dies: bool) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    if dies:
        await asyncio.create_subprocess_exec(sys.executable, "-c", STUBBORN, stdin=asyncio.subprocess.PIPE)
    async with AsyncExitStack() as stack:
        sessions = []
        for _ in range(2):
            server = StdioServerParameters(command=sys.executable, args=[__file__, "serve"], env=dict(os.environ))
            session = ClientSession(*await stack.enter_async_context(stdio_client(server)))
            await stack.enter_async_context(session)
            await session.initialize()
            sessions.append(session)
        answer = asyncio.create_task(sessions[0].call_tool("think", {}))
        await stop.wait()
        if dies:
            os._exit(7)
        assert (await answer).content[0].text == "thought"
        note("answer read")
    note("cleaned up")


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    else:
        asyncio.run(main(dies=sys.argv[1:] == ["die"]))
        note("ended")

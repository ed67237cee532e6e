"""An agent with an MCP server on its stdin and stdout: it answers over HTTP what the server's tool says."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mcp import Client, StdioServerParameters
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route


@asynccontextmanager
async def tools(app: Starlette) -> AsyncIterator[None]:
    async with Client(StdioServerParameters(command=sys.executable, args=["server.py", "stdio"])) as app.state.tools:
        yield


async def answer(request: Request) -> StreamingResponse:
    async def words() -> AsyncIterator[str]:
        yield "thinking\n"
        result = await request.app.state.tools.call_tool("think")
        yield result.content[0].text + "\n"

    return StreamingResponse(words())


app = Starlette(routes=[Route("/", answer)], lifespan=tools)

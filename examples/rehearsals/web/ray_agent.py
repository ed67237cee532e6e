"""A Ray Serve agent that answers word by word."""

import asyncio
from collections.abc import AsyncIterator

from ray import serve
from starlette.requests import Request
from starlette.responses import StreamingResponse


async def words() -> AsyncIterator[str]:
    for word in ["I\n", "think\n", "so\n", "too.\n"]:
        yield word
        await asyncio.sleep(0.5)


@serve.deployment
class Agent:
    async def __call__(self, request: Request) -> StreamingResponse:
        return StreamingResponse(words())


app = Agent.bind()

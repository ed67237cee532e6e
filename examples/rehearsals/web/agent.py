"""An ASGI agent that answers word by word."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any


async def app(scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Any]) -> None:
    if scope["type"] != "http":
        raise NotImplementedError
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for word in ["I\n", "think\n", "so\n", "too.\n"]:
        await send({"type": "http.response.body", "body": word.encode(), "more_body": True})
        await asyncio.sleep(0.5)
    await send({"type": "http.response.body", "body": b""})

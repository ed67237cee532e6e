"""An ASGI agent without a framework: one slow response in several pieces, and a lifespan."""

# mypy: disable-error-code="import-not-found"
# Its imports are installed only in its own environment.

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from record import note

Message = MutableMapping[str, Any]

PIECES = 5


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    if scope["type"] == "lifespan":
        await receive()
        note("lifespan begun")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await asyncio.sleep(0.5)
        note("lifespan closed")
        await send({"type": "lifespan.shutdown.complete"})
        return

    if scope["path"] == "/ready":
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        return

    note("request begun")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for piece in range(PIECES):
        await asyncio.sleep(0.5)
        await send({"type": "http.response.body", "body": f"piece {piece}\n".encode(), "more_body": True})
    await send({"type": "http.response.body", "body": b"whole\n"})
    note("request done")

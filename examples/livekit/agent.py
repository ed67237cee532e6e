"""A LiveKit worker that finishes each call and saves its result.

    LIVEKIT_URL=wss://... LIVEKIT_API_KEY=... LIVEKIT_API_SECRET=... agent-init -- python agent.py start

When the container is stopped, agent-init sends the worker one TERM. The worker takes no new calls and waits until the
current callers have hung up. Each call then ends with its shutdown callback.
"""

# mypy: disable-error-code="import-not-found, untyped-decorator"

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncGenerator

from livekit import rtc
from livekit.agents import JobContext, WorkerOptions, cli

log = logging.getLogger("call")
log.setLevel(logging.INFO)


async def words() -> AsyncGenerator[str, None]:
    """The words of the caller. The clean-up needs the loop, so the generator must be closed while the loop runs."""
    try:
        while True:
            await asyncio.sleep(0.1)
            yield "word"
    finally:
        await asyncio.sleep(0.1)
        log.info("transcript closed")


async def listen() -> None:
    async with contextlib.aclosing(words()) as heard:
        async for _ in heard:
            pass


def look_up() -> None:
    """A blocking call, for a thread."""
    time.sleep(5)
    log.info("look-up finished")


async def answer(ctx: JobContext) -> None:
    await ctx.connect()
    listening = asyncio.create_task(listen())
    looking = asyncio.create_task(asyncio.to_thread(look_up))

    @ctx.room.on("participant_disconnected")
    def hung_up(caller: rtc.RemoteParticipant) -> None:
        ctx.shutdown(f"{caller.identity} hung up")

    async def save() -> None:
        # Cancel and await your tasks: after the loop is closed, their `finally` cannot run.
        listening.cancel()
        await asyncio.gather(listening, looking, return_exceptions=True)
        await asyncio.sleep(3)  # a real agent would store a summary here
        log.info("call saved")

    ctx.add_shutdown_callback(save)
    log.info("call answered")


if __name__ == "__main__":
    cli.run_app(
        WorkerOptions(
            entrypoint_fnc=answer,
            port=int(os.environ.get("PORT", "8081")),
            load_threshold=float(os.environ.get("MAX_LOAD", "0.7")),  # of the CPU; above it, calls are refused
        )
    )

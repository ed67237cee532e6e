"""A LiveKit worker whose calls end well: what a call has begun is finished, and what it has learned is saved.

    LIVEKIT_URL=wss://... LIVEKIT_API_KEY=... LIVEKIT_API_SECRET=... agent-init -- python agent.py start

When the container is stopped, agent-init gives the worker one TERM. The worker takes no more calls, and waits for those
in hand until the callers have hung up; each call then ends with its shutdown callback.
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
    """What the caller says. Its clean-up needs the loop, so somebody has to see to it while there is one."""
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
    """Something that blocks, in a thread."""
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
        # Cancel your tasks and await them: once the loop is gone, their `finally` cannot run any more.
        listening.cancel()
        await asyncio.gather(listening, looking, return_exceptions=True)
        await asyncio.sleep(3)  # in place of storing a summary
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

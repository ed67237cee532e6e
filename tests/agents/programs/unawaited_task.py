"""A LiveKit worker that starts a task in its call and never awaits it."""

# mypy: disable-error-code="import-not-found, untyped-decorator"
# Its imports are installed only in its own environment.

import asyncio
import math
import os

from livekit import rtc
from livekit.agents import JobContext, WorkerOptions, cli


async def listen() -> None:
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0.1)
        print("listener closed", flush=True)


async def answer(ctx: JobContext) -> None:
    await ctx.connect()
    listening = asyncio.create_task(listen())

    @ctx.room.on("participant_disconnected")
    def hung_up(caller: rtc.RemoteParticipant) -> None:
        print("hung up while", listening.get_name(), "is running", flush=True)
        ctx.shutdown("hung up")

    print("call answered", flush=True)


if __name__ == "__main__":
    cli.run_app(WorkerOptions(entrypoint_fnc=answer, port=int(os.environ["PORT"]), load_threshold=math.inf))

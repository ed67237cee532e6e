"""A LiveKit worker with a call whose clean-up never ends."""

# mypy: disable-error-code="import-not-found"

import asyncio
import logging

from livekit import rtc
from livekit.agents import JobContext, WorkerOptions, cli

log = logging.getLogger("call")
log.setLevel(logging.INFO)


async def answer(ctx: JobContext) -> None:
    await ctx.connect()

    def hung_up(caller: rtc.RemoteParticipant) -> None:
        ctx.shutdown(f"{caller.identity} hung up")

    async def save_summary() -> None:
        log.info("saving")
        await asyncio.Event().wait()

    ctx.room.on("participant_disconnected", hung_up)
    ctx.add_shutdown_callback(save_summary)
    log.info("call answered")


if __name__ == "__main__":
    options = WorkerOptions(
        entrypoint_fnc=answer, port=0, load_threshold=float("inf"), num_idle_processes=1, shutdown_process_timeout=1000
    )
    cli.run_app(options)

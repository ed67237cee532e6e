"""The LiveKit agent of agent.py, with a mistake: a task that is neither awaited nor cancelled, and has a clean-up."""

import asyncio

from agent import answer
from livekit.agents import JobContext, WorkerOptions, cli


async def listen() -> None:
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0.1)


async def answer_and_listen(ctx: JobContext) -> None:
    await answer(ctx)
    listening = asyncio.create_task(listen())
    ctx.room.on("disconnected", lambda *_: print(f"{listening.get_name()} is still listening"))


if __name__ == "__main__":
    cli.run_app(WorkerOptions(entrypoint_fnc=answer_and_listen, load_fnc=lambda *_: 0.0, port=0))

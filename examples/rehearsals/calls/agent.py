"""A LiveKit agent: it stays in the room until its caller hangs up, and then saves the call."""

from pathlib import Path

from livekit.agents import JobContext, WorkerOptions, cli


async def answer(ctx: JobContext) -> None:
    await ctx.connect()
    ctx.room.on("participant_disconnected", lambda caller: ctx.shutdown(f"{caller.identity} hung up"))

    async def save() -> None:
        Path(f"{ctx.room.name}.call").write_text("saved")

    ctx.add_shutdown_callback(save)


if __name__ == "__main__":
    # Its load on a developer's machine is no reason to refuse a call.
    cli.run_app(WorkerOptions(entrypoint_fnc=answer, load_fnc=lambda *_: 0.0, port=0))

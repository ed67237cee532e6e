"""Call the agent, hang up after some seconds, and wait until it has saved the call. Fails if it leaves or does not."""

import asyncio
import os
import time
import uuid
from pathlib import Path

from livekit import api, rtc

CALL_SECONDS, SAVED_WITHIN = 4, 15


async def main() -> None:
    name = f"call-{uuid.uuid4().hex}"
    joined, left = asyncio.Event(), asyncio.Event()
    room = rtc.Room()
    room.on("participant_connected", lambda _: joined.set())
    room.on("participant_disconnected", lambda _: left.set())
    token = api.AccessToken().with_identity("caller").with_grants(api.VideoGrants(room_join=True, room=name))
    await room.connect(os.environ["LIVEKIT_URL"], token.to_jwt())
    if not room.remote_participants:
        await asyncio.wait_for(joined.wait(), 30)
    print("answered", flush=True)
    await asyncio.sleep(CALL_SECONDS)
    assert not left.is_set(), "the agent has left its caller"
    await room.disconnect()
    saved, end = Path(f"{name}.call"), time.monotonic() + SAVED_WITHIN
    while not saved.exists():
        assert time.monotonic() < end, "the call is not saved"
        await asyncio.sleep(0.1)
    print("saved", flush=True)
    os._exit(0)  # LiveKit's native library sometimes crashes at the end of the interpreter


asyncio.run(main())

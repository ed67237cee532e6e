"""A caller: joins a room, says a tone every two seconds, listens, and notes what happens.

    caller.py URL ROOM FOLDER [SECONDS]

Hangs up after SECONDS of conversation, or when its stdin ends, or on its own if the agent has left. The records are in
`FOLDER/ROOM.caller` (records.py):

    joined                  the caller is in the room
    agent joined, left      the agent's participant
    heard                   the agent has begun to speak
    reconnecting, reconnected   the connection to the server
    hung up                 the call has ended; `by`: caller or agent
"""

# mypy: disable-error-code="import-not-found, no-untyped-call, no-any-unimported, untyped-decorator"

import asyncio
import os
import sys
import threading

import tones
from livekit import api, rtc
from records import Records

PAUSE = 2.0  # seconds between two tones of the caller
NO_AGENT = 90.0  # seconds until it gives up


def token(room: str) -> str:
    grants = api.VideoGrants(room_join=True, room=room)
    key, secret = os.environ["LIVEKIT_API_KEY"], os.environ["LIVEKIT_API_SECRET"]
    return str(api.AccessToken(key, secret).with_identity("caller").with_grants(grants).to_jwt())


class Call:
    def __init__(self, room: str, records: Records) -> None:
        self._name, self._note = room, records.note
        self._room = rtc.Room()
        self._answered, self._over = asyncio.Event(), asyncio.Event()
        self._by = "caller"
        self._listeners: set[asyncio.Task[None]] = set()

    async def run(self, url: str, seconds: float) -> None:
        self._watch()
        await self._room.connect(url, token(self._name))
        self._note("joined")
        source = rtc.AudioSource(tones.RATE, 1)
        track = rtc.LocalAudioTrack.create_audio_track("voice", source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        await self._room.local_participant.publish_track(track, options)
        speaking = asyncio.create_task(self._speak(source))
        try:
            await asyncio.wait_for(self._answered.wait(), NO_AGENT)
            await asyncio.wait_for(self._over.wait(), seconds)
        except TimeoutError:
            pass
        speaking.cancel()
        self._note("hung up", by=self._by)
        await self._room.disconnect()

    def end(self) -> None:
        self._answered.set()
        self._over.set()

    def _watch(self) -> None:
        @self._room.on("participant_connected")
        def _joined(agent: rtc.RemoteParticipant) -> None:
            self._note("agent joined", identity=agent.identity)

        @self._room.on("participant_disconnected")
        def _left(agent: rtc.RemoteParticipant) -> None:
            if agent.disconnect_reason is None:  # a restart of the server
                return
            self._note("agent left", identity=agent.identity, reason=agent.disconnect_reason)
            self._by = "agent"
            self.end()

        @self._room.on("track_subscribed")
        def _subscribed(track: rtc.Track, *_: object) -> None:
            listener = asyncio.create_task(self._listen(track))
            self._listeners.add(listener)

        self._room.on("reconnecting", lambda: self._note("reconnecting"))
        self._room.on("reconnected", lambda: self._note("reconnected"))
        self._room.on("disconnected", self._disconnected)

    def _disconnected(self, *_: object) -> None:
        if not self._over.is_set():
            self._note("disconnected")
        self.end()

    async def _listen(self, track: rtc.Track) -> None:
        quiet = 1.0
        async for event in rtc.AudioStream(track):
            if not tones.is_speech(event.frame):
                quiet += event.frame.samples_per_channel / event.frame.sample_rate
                continue
            if quiet > 0.2:
                self._note("heard")
                self._answered.set()
            quiet = 0.0

    async def _speak(self, source: rtc.AudioSource) -> None:
        while True:
            for frame in tones.frames(tones.CALLER, 0.6) + tones.frames(0, PAUSE):
                await source.capture_frame(frame)


async def main(url: str, room: str, folder: str, seconds: str = "inf") -> None:
    call = Call(room, Records(f"{folder}/{room}.caller"))
    loop = asyncio.get_running_loop()

    def read() -> None:
        while os.read(0, 100):
            continue
        loop.call_soon_threadsafe(call.end)

    if seconds == "inf":
        threading.Thread(target=read, daemon=True).start()
    await call.run(url, float(seconds))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

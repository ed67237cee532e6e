"""The worker of examples/livekit with another call: an AgentSession that hears tones and answers with tones.

`CALL_RECORDS` is a folder; each call writes `ROOM.agent` there (records.py): begun, heard, caller left, saving, saved.
`SAVE_SECONDS` is how long its shutdown callback takes.
"""

# mypy: disable-error-code="import-not-found, misc, no-untyped-call, no-any-unimported, untyped-decorator"
# Its imports are installed only in its own environments.

import asyncio
import logging
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterable
from typing import Any, NoReturn

import agent as example
import tones
from livekit import rtc
from livekit.agents import Agent, AgentSession, JobContext, llm, stt, tts
from records import Records

log = logging.getLogger("call")


class Ears(stt.STT):
    """Stands for a model: `Caretaker.stt_node` does the work."""

    def __init__(self) -> None:
        super().__init__(capabilities=stt.STTCapabilities(streaming=True, interim_results=False))

    async def _recognize_impl(self, *_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError


class Brain(llm.LLM):
    def chat(self, **_: Any) -> NoReturn:
        raise NotImplementedError


class Voice(tts.TTS):
    def __init__(self) -> None:
        super().__init__(capabilities=tts.TTSCapabilities(streaming=False), sample_rate=tones.RATE, num_channels=1)

    def synthesize(self, *_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError


class Caretaker(Agent):
    def __init__(self, records: Records) -> None:
        super().__init__(instructions="Answer each tone.")
        self._records = records

    async def stt_node(self, audio: AsyncIterable[rtc.AudioFrame], _: Any) -> AsyncGenerator[stt.SpeechEvent, None]:
        quiet = 0.0
        speaking = False
        async for frame in audio:
            if tones.is_speech(frame):
                quiet = 0.0
                if not speaking:
                    speaking = True
                    yield stt.SpeechEvent(type=stt.SpeechEventType.START_OF_SPEECH)
                continue
            quiet += frame.samples_per_channel / frame.sample_rate
            if speaking and quiet > 0.3:
                speaking = False
                self._records.note("heard")
                words = [stt.SpeechData(language="en", text="a tone", confidence=1.0)]
                yield stt.SpeechEvent(type=stt.SpeechEventType.FINAL_TRANSCRIPT, alternatives=words)
                yield stt.SpeechEvent(type=stt.SpeechEventType.END_OF_SPEECH)

    async def llm_node(self, *_: Any) -> AsyncGenerator[str, None]:
        yield "A tone."

    async def tts_node(self, text: AsyncIterable[str], _: Any) -> AsyncGenerator[rtc.AudioFrame, None]:
        async for _ in text:
            continue
        for frame in tones.frames(tones.AGENT, 0.6):
            yield frame

    async def on_enter(self) -> None:
        self.session.say("Hello.")


async def answer(ctx: JobContext) -> None:
    records = Records(f"{os.environ['CALL_RECORDS']}/{ctx.job.room.name}.agent")
    await ctx.connect()
    session: AgentSession = AgentSession(vad=None, stt=Ears(), llm=Brain(), tts=Voice(), turn_detection="stt")

    @ctx.room.on("participant_disconnected")
    def hung_up(caller: rtc.RemoteParticipant) -> None:
        records.note("caller left", reason=caller.disconnect_reason)
        if caller.disconnect_reason is not None:
            ctx.shutdown(f"{caller.identity} hung up")

    async def save(reason: str) -> None:
        records.note("saving", reason=reason)
        await asyncio.sleep(float(os.environ.get("SAVE_SECONDS", "1")))
        records.note("saved")
        log.info("call saved")

    ctx.add_shutdown_callback(save)
    await session.start(agent=Caretaker(records), room=ctx.room)
    records.note("begun", process=os.getpid(), host=socket.gethostname())
    log.info("call answered")


if __name__ == "__main__":
    example.run(answer)

"""Speech of the tests: the caller and the agent have one tone each."""

# mypy: disable-error-code="import-not-found"

import functools
import math
from array import array

from livekit import rtc

RATE = 24_000  # samples a second
FRAME = RATE // 50  # samples
LOUD = 1_000  # of 32767: more than this is speech

CALLER, AGENT = 300, 600  # Hz


@functools.cache
def frames(pitch: int, seconds: float) -> list[rtc.AudioFrame]:
    """A tone, in frames of 20 ms; silence with pitch 0."""
    samples = [int(8_000 * math.sin(2 * math.pi * pitch * n / RATE)) for n in range(int(RATE * seconds))]
    return [
        rtc.AudioFrame(array("h", samples[start : start + FRAME]).tobytes(), RATE, 1, FRAME)
        for start in range(0, len(samples) - FRAME + 1, FRAME)
    ]


def is_speech(frame: rtc.AudioFrame) -> bool:
    return max(array("h", bytes(frame.data)), default=0) > LOUD

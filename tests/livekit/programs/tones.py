"""Speech of the tests: tones. The caller and the agent have one each, and the agent's goodbye is a third."""

# mypy: disable-error-code="import-not-found"

import itertools
import math
from array import array

from livekit import rtc

RATE = 24_000  # samples a second
FRAME = RATE // 50  # samples
LOUD = 1_000  # of 32767: more than this is speech

CALLER, AGENT, GOODBYE = 300, 600, 1200  # Hz


def frames(pitch: int, seconds: float) -> list[rtc.AudioFrame]:
    """A tone, in frames of 20 ms; silence with pitch 0."""
    samples = [int(8_000 * math.sin(2 * math.pi * pitch * n / RATE)) for n in range(int(RATE * seconds))]
    return [
        rtc.AudioFrame(array("h", samples[start : start + FRAME]).tobytes(), RATE, 1, FRAME)
        for start in range(0, len(samples) - FRAME + 1, FRAME)
    ]


def pitch(frame: rtc.AudioFrame) -> int:
    """The frequency of a frame in Hz, roughly: from its zero crossings. 0 is silence."""
    samples = array("h", bytes(frame.data))
    if max(samples, default=0) < LOUD:
        return 0
    crossings = sum((a < 0) != (b < 0) for a, b in itertools.pairwise(samples))
    return int(crossings / 2 * frame.sample_rate / len(samples))


def is_near(heard: int, wanted: int) -> bool:
    return abs(heard - wanted) < wanted / 3

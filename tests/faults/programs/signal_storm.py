"""`signal_storm.py PID ROUNDS NUMBER...`: send these signals in random order, ROUNDS times (0: until PID exits)."""

import os
import random
import sys
import time

pid, rounds, *numbers = map(int, sys.argv[1:])
end = time.monotonic() + 60
done = 0
try:
    while (not rounds or done < rounds) and time.monotonic() < end:
        done += 1
        random.shuffle(numbers)
        for number in numbers:
            os.kill(pid, number)
except ProcessLookupError:
    sys.exit(1 if rounds else 0)

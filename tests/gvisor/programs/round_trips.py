"""An agent that sends USR1 to its init and waits until it comes back, `argv[1]` times. It prints the milliseconds.

What counts is the fastest tenth: the others have waited for whatever else this machine does.
"""

from __future__ import annotations

import os
import signal
import sys
import time

signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
time.sleep(0.5)  # the init may still be starting
times = []
for _ in range(int(sys.argv[1])):
    began = time.perf_counter()
    os.kill(os.getppid(), signal.SIGUSR1)
    signal.sigwait([signal.SIGUSR1])
    times.append(time.perf_counter() - began)
print(f"a round trip takes {sorted(times)[len(times) // 10] * 1000:.3f} ms", flush=True)

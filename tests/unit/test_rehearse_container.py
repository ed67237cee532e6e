"""What an agent in a rehearsal inherits."""

from __future__ import annotations

import subprocess
import sys

BACKGROUND_JOB = """
import signal, subprocess
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGQUIT, signal.SIG_IGN)
from entrypoint.rehearse import container
container.ignore_nothing()
print(subprocess.check_output(["grep", "SigIgn", "/proc/self/status"], text=True).split()[1])
"""


def test_an_agent_inherits_no_ignored_signal() -> None:
    done = subprocess.run([sys.executable, "-c", BACKGROUND_JOB], capture_output=True, text=True, check=True)
    assert int(done.stdout, 16) == 0

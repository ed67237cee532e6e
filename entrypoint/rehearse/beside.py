"""Commands that run beside the agent, by `sh -c`: --work, --break and --mend."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

from ..init import tree
from . import container

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..init import procfs

PREFIX = "AGENT_INIT_REHEARSAL_"
TICK = 0.02
TERM_SECONDS, KILL_SECONDS = 2.0, 5.0
# Waits for the end of agent-initctl, which no signal announces if it is killed, and kills the group then.
GUARD = 'read -r _; kill -s KILL -- "-$0"'


class Command:
    """A command of the user's, in a session of its own."""

    def __init__(self, line: str, environment: Mapping[str, str], **variables: str) -> None:
        """Start it. `variables`: for its environment, as AGENT_INIT_REHEARSAL_NAME. Raises OSError."""
        self.began = time.monotonic()
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", line],
            env={**environment, **{PREFIX + name.upper(): value for name, value in variables.items()}},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self.output = os.dup(self._process.stdout.fileno())  # its reader closes it
        self._process.stdout.close()
        try:
            self._guard = subprocess.Popen(
                ["/bin/sh", "-c", GUARD, str(self._process.pid)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError:
            self._signal(signal.SIGKILL)
            os.close(self.output)
            raise

    def is_waiting(self) -> bool:
        """Whether each of its processes sleeps: none of them computes, or waits for a processor or a disk."""
        try:
            seen = tree.everything()
        except OSError:
            return True
        own = seen.get(self._process.pid)
        processes: list[procfs.Process] = [*([own] if own else []), *tree.below(self._process.pid, seen)]
        return all(process.waits or not process.alive for process in processes)

    def exit_code(self) -> int | None:
        """Return its exit code; None as long as it runs."""
        return container.exit_code(self._process)

    def end(self) -> None:
        """End it with all that it has started, and wait for that."""
        self._guard.kill()
        self._guard.wait()
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        if self._process.poll() is None:
            self._signal(signal.SIGTERM)
            self._wait(TERM_SECONDS)
        self._signal(signal.SIGKILL)
        self._wait(KILL_SECONDS)

    def _signal(self, number: int) -> None:
        try:
            below = tree.below(self._process.pid, tree.everything())
        except OSError:
            below = []
        # The group may outlive the shell. It is ours: a session keeps the number of its leader while it has members.
        for pid in (-self._process.pid, *(process.pid for process in below)):
            container.send(pid, number)

    def _wait(self, seconds: float) -> None:
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass


def run(
    line: str, environment: Mapping[str, str], seconds: float, wait: Callable[[float], None] = time.sleep
) -> tuple[int | None, str]:
    """Run a command to its end; return its exit code, None if it took too long, and its output.

    `wait`: lets a little time pass.
    """
    command = Command(line, environment)
    end = time.monotonic() + seconds
    try:
        while command.exit_code() is None and time.monotonic() < end:
            wait(TICK)
        code = command.exit_code()
    finally:
        command.end()
    os.set_blocking(command.output, False)
    try:
        text = os.read(command.output, 65536).decode("utf-8", "backslashreplace")
    except BlockingIOError:
        text = ""
    finally:
        os.close(command.output)
    return code, text.strip()

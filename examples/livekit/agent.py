"""A LiveKit worker that finishes each call and saves its result.

    LIVEKIT_URL=wss://... LIVEKIT_API_KEY=... LIVEKIT_API_SECRET=... agent-init -t 590s -- python agent.py start

When the container is stopped, agent-init sends the worker one TERM. The worker takes no new calls and waits until the
current callers have hung up. Each call then ends with its shutdown callback. A call that is too long for the grace is
ended by the worker itself, with its callback, before agent-init has to kill it.
"""

# mypy: disable-error-code="import-not-found, untyped-decorator"

import asyncio
import contextlib
import logging
import math
import os
import socket
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from livekit import rtc
from livekit.agents import JobContext, JobProcess, WorkerOptions, cli

MAX_LOAD = float(os.environ.get("MAX_LOAD", "0.7"))  # of the CPU; above it, there are no new calls
FULL = 0.7  # the load from which on LiveKit's server assigns no call. The caller then waits for nobody.

# Seconds of the grace that are left when the drain is over: for the sentence in hand (11), the end of the session (2),
# the shutdown callbacks (10: LiveKit kills a job whose callbacks take longer), the end of the processes (5).
AFTER_DRAIN = 28
LIVEKIT_DRAIN_TIMEOUT = 3600

log = logging.getLogger("call")
log.setLevel(logging.INFO)


async def words() -> AsyncGenerator[str, None]:
    """The words of the caller. The clean-up needs the loop, so the generator must be closed while the loop runs."""
    try:
        while True:
            await asyncio.sleep(0.1)
            yield "word"
    finally:
        await asyncio.sleep(0.1)
        log.info("transcript closed")


async def listen() -> None:
    async with contextlib.aclosing(words()) as heard:
        async for _ in heard:
            pass


def look_up() -> None:
    """A blocking call, for a thread."""
    time.sleep(5)
    log.info("look-up finished")


async def answer(ctx: JobContext) -> None:
    await ctx.connect()
    listening = asyncio.create_task(listen())
    looking = asyncio.create_task(asyncio.to_thread(look_up))

    @ctx.room.on("participant_disconnected")
    def hung_up(caller: rtc.RemoteParticipant) -> None:
        if caller.disconnect_reason is not None:  # else the server was restarted: both sides connect again
            ctx.shutdown(f"{caller.identity} hung up")

    async def save() -> None:
        # Cancel and await your tasks: after the loop is closed, their `finally` cannot run.
        listening.cancel()
        await asyncio.gather(listening, looking, return_exceptions=True)
        await asyncio.sleep(3)  # a real agent would store a summary here
        log.info("call saved")

    ctx.add_shutdown_callback(save)
    log.info("call answered")


def drain_timeout() -> int:
    """How many seconds calls may go on after the stop request; 0 means that there is no limit.

    agent-init grants AGENT_INIT_STOP_SECONDS. Without that variable the platform decides; LiveKit's default is kept.
    """
    granted = os.environ.get("AGENT_INIT_STOP_SECONDS")
    if granted is None:
        return LIVEKIT_DRAIN_TIMEOUT
    seconds = float(granted)
    return 0 if seconds == math.inf else max(1, int(seconds - AFTER_DRAIN))


def address(name: str) -> str:
    """A socket's name for `sendto`. One that begins with @ has no file."""
    return "\0" + name[1:] if name.startswith("@") else name


class Reports:
    """What the worker reports to agent-init (sd_notify(3)): ready, its number of calls, and the time that they need."""

    def __init__(self) -> None:
        self._warm_processes = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._warm_processes.bind("")  # the kernel chooses a name
        os.environ["WARM_PROCESSES"] = "@" + self._warm_processes.getsockname()[1:].decode()
        self._warm = self._ready = False
        self._calls, self._extended = -1, 0.0

    def load(self, worker: Any) -> float:
        """The load of the worker. LiveKit asks twice a second, also while it drains, so reports are sent from here."""
        load = WorkerOptions.load_fnc(worker) / MAX_LOAD * FULL
        calls, now = len(worker.active_jobs), time.monotonic()
        if not self._ready and self._is_warm() and worker.id != "unregistered" and load < FULL:
            self._ready = True
            send("READY=1")
            self._let_probes_know()
        if calls != self._calls:
            self._calls = calls
            send(f"STATUS={calls} call{'s' * (calls != 1)}")
        if "WATCHDOG_USEC" in os.environ:
            send("WATCHDOG=1")
        if calls and now - self._extended >= 5:
            self._extended = now
            send("EXTEND_TIMEOUT_USEC=20000000")  # has an effect during a stop only
        return float(load)

    def _let_probes_know(self) -> None:
        """Create the file READY_FILE, for a readiness probe on Kubernetes: `test -e /tmp/ready`."""
        if path := os.environ.get("READY_FILE"):
            try:
                Path(path).touch()
            except OSError as error:
                log.error("READY_FILE: %s", error)

    def _is_warm(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            self._warm = self._warm or bool(self._warm_processes.recv(10))
        return self._warm


def prewarm(process: JobProcess) -> None:
    """Runs in each job process before it takes a call. Load your models here."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as warm, contextlib.suppress(OSError):
        warm.setblocking(False)  # the worker reads the first of these only
        warm.sendto(b"warm", address(os.environ["WARM_PROCESSES"]))


def send(message: str) -> None:
    """Send a message to agent-init, if it runs this worker."""
    if name := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to, contextlib.suppress(OSError):
            to.settimeout(1)
            to.sendto(message.encode(), address(name))


def run(answer: Any) -> None:
    if sys.argv[1:2] == ["start"] and not any(word.startswith("--drain-timeout") for word in sys.argv):
        sys.argv += ["--drain-timeout", str(drain_timeout())]  # LiveKit Agents 1.0 knows it as a flag only
    cli.run_app(
        WorkerOptions(
            entrypoint_fnc=answer,
            prewarm_fnc=prewarm,
            initialize_process_timeout=60,  # on a busy node
            port=int(os.environ.get("PORT", "8081")),
            load_fnc=Reports().load,
            load_threshold=FULL,
        )
    )


if __name__ == "__main__":
    run(answer)

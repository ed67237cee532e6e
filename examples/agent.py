"""An asyncio agent: on a stop request it takes no new calls, finishes the current ones, and cleans up.

Run it with `agent-init -- python agent.py`. It needs only the standard library, and uses uvloop if that is installed
(agent-init brings it). WORK_SECONDS is how long a call takes. READY=1 is for readiness probes (docs/operate.md).
"""

import asyncio
import itertools
import os
import signal
import socket
import time

WORK_SECONDS = float(os.environ.get("WORK_SECONDS", "2"))


def new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def say(text: str) -> None:
    print(f"agent: {text}", flush=True)


def notify(message: str) -> None:
    """Send a message to agent-init, or another supervisor, as sd_notify(3) does."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.sendto(message.encode(), "\0" + address[1:] if address.startswith("@") else address)


async def call(number: int) -> None:
    """One call; a real agent would talk to the caller here."""
    say(f"call {number} begins")
    await asyncio.sleep(WORK_SECONDS)
    say(f"call {number} ends")


async def main() -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for asked_by in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(asked_by, stop.set)

    say(f"ready, on {type(loop).__module__}")
    notify("READY=1")
    async with asyncio.TaskGroup() as calls:
        for number in itertools.count(1):
            calls.create_task(call(number))
            try:
                await asyncio.wait_for(stop.wait(), timeout=WORK_SECONDS / 2)
                break
            except TimeoutError:
                continue
        asked = time.monotonic()
        say("stop requested: finishing the calls in hand")
    say(f"cleaned up after {time.monotonic() - asked:.1f}s")


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())

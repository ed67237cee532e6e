"""The agent of `agent.py`, with agent-init's runner: a drain that says how far it is, and buys the time that it takes.

Run it as process 1's child, `agent-init -- python runner.py`, or by itself. WORK_SECONDS is how long one call takes.
The stop may take 60 seconds, whatever shorter grace agent-init has: the runner asks for more as long as its loop runs.
"""

import asyncio
import itertools
import os

from entrypoint.agent import run, status, stop_requested

WORK_SECONDS = float(os.environ.get("WORK_SECONDS", "2"))

calls: set[asyncio.Task[None]] = set()


def say(text: str) -> None:
    print(f"agent: {text}", flush=True)


async def call(number: int) -> None:
    """One call: a second voice would be here."""
    say(f"call {number} begins")
    await asyncio.sleep(WORK_SECONDS)
    say(f"call {number} ends")


async def main() -> None:
    """Take calls until there is a stop request; nothing here handles a signal."""
    say(f"ready, on {type(asyncio.get_running_loop()).__module__}")
    for number in itertools.count(1):
        if stop_requested():
            break
        calls.add(asyncio.create_task(call(number)))
        try:
            await asyncio.wait_for(stop_requested(), timeout=WORK_SECONDS / 2)
        except TimeoutError:
            continue


async def drain(seconds: float) -> None:
    """Finish the calls in hand, which has `seconds`."""
    say(f"stop requested: {seconds:.0f}s to finish the calls in hand")
    while unfinished := {task for task in calls if not task.done()}:
        status(f"draining {len(unfinished)} calls")
        await asyncio.wait(unfinished, return_when=asyncio.FIRST_COMPLETED)
    say("cleaned up")


if __name__ == "__main__":
    run(main(), drain=drain, grace=60)

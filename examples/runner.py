"""The agent of `agent.py`, with agent-init's runner: its drain reports progress and gets the time that it needs.

Run it under agent-init, `agent-init -- python runner.py`, or by itself. WORK_SECONDS is how long one call takes.
The stop may take 60 seconds, even if agent-init's grace period is shorter: the runner asks for more time as long as its
loop runs.
"""

import asyncio
import itertools
import os

from entrypoint.agent import run, status, stop_requested

WORK_SECONDS = float(os.environ.get("WORK_SECONDS", "2"))

calls: set[asyncio.Task[None]] = set()


def print_line(text: str) -> None:
    print(f"agent: {text}", flush=True)


async def call(number: int) -> None:
    """Stands for a real call."""
    print_line(f"call {number} begins")
    await asyncio.sleep(WORK_SECONDS)
    print_line(f"call {number} ends")


async def main() -> None:
    """Take calls until a stop is requested. The runner handles the signals."""
    print_line(f"ready, on {type(asyncio.get_running_loop()).__module__}")
    for number in itertools.count(1):
        if stop_requested():
            break
        calls.add(asyncio.create_task(call(number)))
        try:
            await asyncio.wait_for(stop_requested(), timeout=WORK_SECONDS / 2)
        except TimeoutError:
            continue


async def drain(seconds: float) -> None:
    """Finish the calls in hand within `seconds`."""
    print_line(f"stop requested: {seconds:.0f}s to finish the calls in hand")
    while unfinished := {task for task in calls if not task.done()}:
        status(f"draining {len(unfinished)} calls")
        await asyncio.wait(unfinished, return_when=asyncio.FIRST_COMPLETED)
    print_line("cleaned up")


if __name__ == "__main__":
    run(main(), drain=drain, grace=60)

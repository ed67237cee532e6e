"""Agents that fork: `forks.py KIND LOOP`."""

import asyncio
import multiprocessing
import os
import signal
import sys
import threading
import time

from entrypoint.agent import run, status, stop_requested

if sys.argv[2] == "asyncio":
    sys.modules["uvloop"] = None  # type: ignore[assignment]
fork = multiprocessing.get_context("fork")


def print_now(*values: object) -> None:
    print(*values, flush=True)


def work() -> None:
    time.sleep(3600)


async def ended(child: multiprocessing.process.BaseProcess) -> int | None:
    while child.is_alive():
        await asyncio.sleep(0.005)
    return child.exitcode


async def terminates() -> None:
    """Some children are terminated before they have done anything."""
    codes = set()
    for seconds in (0.0, 0.0, 0.0, 0.0, 0.001, 0.001, 0.002, 0.2):
        child = fork.Process(target=work)
        child.start()
        await asyncio.sleep(seconds)
        child.terminate()
        codes.add(await asyncio.wait_for(ended(child), 10))
    print_now("ended by", codes)


def run_too() -> None:
    async def main() -> str:
        asyncio.get_running_loop().call_later(0.2, os.kill, os.getpid(), signal.SIGTERM)
        seen = asyncio.get_running_loop().run_in_executor(None, watch)
        thread = threading.Thread(target=watch)
        thread.start()
        await stop_requested()
        await seen
        await asyncio.to_thread(thread.join)
        status("stopping")
        return "the child's"

    def watch() -> None:
        while not stop_requested():
            time.sleep(0.005)

    print_now(run(main()))


async def child_runs() -> None:
    child = fork.Process(target=run_too)
    child.start()
    print_now("exit code", await asyncio.wait_for(ended(child), 10))
    assert not stop_requested()


def look() -> None:
    """Outside of `run` each stop request is a new one, which nobody makes."""
    print_now(signal.getsignal(signal.SIGTERM) is mine, signal.getsignal(signal.SIGINT) is signal.SIG_IGN)
    print_now(stop_requested() is stop_requested())
    os.kill(os.getpid(), signal.SIGTERM)


def mine(*_: object) -> None:
    print_now("mine")


async def handlers() -> None:
    """The child has the handlers from before `run`, also if another thread forks."""
    for start in (lambda child: child.start(), lambda child: threading.Thread(target=child.start).start()):
        child = fork.Process(target=look)
        start(child)
        while child.pid is None:
            await asyncio.sleep(0.005)
        print_now("exit code", await asyncio.wait_for(ended(child), 10))
    os.kill(os.getpid(), signal.SIGTERM)
    await stop_requested()
    print_now("asked")


if __name__ == "__main__":
    if sys.argv[1] == "handlers":
        signal.signal(signal.SIGTERM, mine)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    run(globals()[sys.argv[1]]())

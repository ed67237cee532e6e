"""Programs whose event loops are blocked now and then, or seem to be: `blocked.py KIND LOOP`."""

import asyncio
import multiprocessing
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

SECONDS = 0.8  # that the loop is blocked
PAUSE = 0.2


def print_now(*values: object) -> None:
    print(*values, flush=True)


def wait_for_disk() -> None:
    time.sleep(SECONDS)


def compute() -> None:
    end = time.thread_time() + SECONDS  # on a busy machine this takes longer
    while time.thread_time() < end:
        pass


def keep_the_gil() -> None:
    began, number = time.monotonic(), 100_000
    while time.monotonic() - began < SECONDS:  # each call is longer than all before
        number *= 2
        sum(range(number))


def run_tool() -> None:
    subprocess.run(["sleep", str(SECONDS)], check=True)


async def again_and_again(function: Callable[[], object]) -> None:
    while True:
        await asyncio.sleep(PAUSE)
        function()


async def sleep() -> None:
    await again_and_again(wait_for_disk)


async def loop() -> None:
    await again_and_again(compute)


async def native() -> None:
    await again_and_again(keep_the_gil)


async def native_first() -> None:
    """Native code keeps the GIL from the loop's first turn on."""
    re.match(r"(a+)+$", "a" * 26 + "b")  # takes a second or two
    await asyncio.sleep(100)


async def library() -> None:
    await again_and_again(run_tool)


async def no_frames() -> None:
    """A callback without a line of Python."""
    while True:
        asyncio.get_running_loop().call_soon(time.sleep, SECONDS)
        await asyncio.sleep(PAUSE)


async def many() -> None:
    """No callback takes long, but all of one turn do."""
    while True:
        for _ in range(80):
            asyncio.get_running_loop().call_soon(a_little)
        await asyncio.sleep(PAUSE)


def a_little() -> None:
    time.sleep(SECONDS / 80)


async def idle() -> None:
    print_now("ready")
    await asyncio.sleep(100)


async def call() -> None:
    await asyncio.sleep(100)


async def never_ends() -> None:
    while True:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            continue


async def gather(*tasks: asyncio.Task[None]) -> None:
    await asyncio.gather(*tasks)


async def tasks() -> None:
    calls = [asyncio.create_task(call(), name=f"call-{number}") for number in range(30)]
    group = asyncio.create_task(gather(*calls[:2]), name="group")
    stubborn = asyncio.create_task(never_ends(), name="stubborn")
    await asyncio.sleep(0.01)
    stubborn.cancel()
    await asyncio.sleep(0.01)
    print_now("ready")
    await asyncio.wait([group, stubborn])


async def busy() -> None:
    """Work all the time, but never for long."""
    print_now("ready")
    while True:
        end = time.monotonic() + 0.02
        while time.monotonic() < end:
            pass
        await asyncio.sleep(0)


async def threads() -> None:
    """The loops of two other threads, one of which is blocked."""
    for name, function in (("healthy", idle), ("stuck", sleep)):
        threading.Thread(target=start, args=(function(),), name=name, daemon=True).start()
    await asyncio.sleep(100)


def in_child() -> None:
    print_now(os.getpid())
    asyncio._set_running_loop(None)  # it is its parent's
    start(sleep())


def quiet_child() -> None:
    """It has its parent's loop on its stack, which never turns here."""
    print_now(os.getpid())
    compute()
    compute()
    print_now("done")


async def fork() -> None:
    await child("fork", in_child)


async def spawn() -> None:
    await child("spawn", in_child)


async def fork_without_loop() -> None:
    await child("fork", quiet_child)


async def child(method: str, function: Callable[[], object]) -> None:
    process: Any = multiprocessing.get_context(method).Process(target=function)  # type: ignore[attr-defined]
    process.start()
    while process.is_alive():
        await asyncio.sleep(0.01)


async def debugged() -> None:
    """A person who looks at a breakpoint."""
    import pdb

    print_now("ready")
    pdb.Pdb(stdin=sys.stdin).set_trace()
    await asyncio.sleep(100)


async def ends() -> None:
    """The loop ends, and another one begins."""
    for _ in range(3):
        await asyncio.sleep(PAUSE)
        wait_for_disk()


async def last() -> None:
    """The last thing that the loop does blocks it."""
    await asyncio.sleep(PAUSE)
    wait_for_disk()


async def exits() -> None:
    """The loop does not turn again."""
    await asyncio.sleep(PAUSE)
    wait_for_disk()
    sys.exit()


async def idle_after() -> None:
    """A loop that does not turn again, and after it one that is idle, in the same thread."""
    threading.Thread(target=one_after_the_other, name="stuck").start()


def one_after_the_other() -> None:
    try:
        asyncio.new_event_loop().run_until_complete(exits())
    except SystemExit:
        start(asyncio.sleep(SECONDS))


async def last_of_thread() -> None:
    threading.Thread(target=start, args=(last(),), name="stuck").start()
    await asyncio.sleep(2 * PAUSE + SECONDS)


async def last_of_daemon() -> None:
    """The process ends while the loop of a thread is blocked."""
    threading.Thread(target=start, args=(last(),), name="stuck", daemon=True).start()
    await asyncio.sleep(PAUSE + SECONDS / 2)


def last_of_child() -> None:
    asyncio._set_running_loop(None)  # it is its parent's
    start(last())


async def last_of_fork() -> None:
    await child("fork", last_of_child)


async def last_of_spawn() -> None:
    await child("spawn", last_of_child)


def start(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run it on the kind of loop that was asked for. `bare`: on uvloop, without asyncio.Runner."""
    if sys.argv[2] == "asyncio":
        asyncio.run(coroutine)
        return
    import uvloop

    if sys.argv[2] == "uvloop":
        uvloop.run(coroutine)
    else:
        uvloop.new_event_loop().run_until_complete(coroutine)


def closed_and_ended() -> None:
    """Five children, one after the other, that close their descriptors and end: print the seconds that takes."""
    began = time.monotonic()
    for _ in range(5):
        pid = os.fork()
        if pid == 0:
            os.closerange(3, 256)
            return
        os.waitpid(pid, 0)
    print(time.monotonic() - began, flush=True)


if __name__ == "__main__":
    program = globals()[sys.argv[1]]()
    if program is not None:
        start(program)

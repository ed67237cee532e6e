"""Agents that are stopped or end in other ways: `stops.py KIND [GRACE]`. Each prints `ready` when it has begun."""

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from entrypoint.agent import DaemonThreadPool, ready, run, status, stop_requested

GRACE = float(sys.argv[2]) if sys.argv[2:] else None


def print_now(*values: object) -> None:
    print(*values, flush=True)


async def plain() -> None:
    """Has no code for a stop."""
    print_now("ready")
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0.05)
        print_now("cleaned")


async def watches() -> str:
    """Awaits the request, and takes a moment to clean up."""
    print_now("ready")
    await stop_requested()
    print_now("asked")
    await asyncio.sleep(0.3)
    print_now("cleaned")
    return "result"


async def returns_at_once() -> str:
    print_now("ready")
    await stop_requested()
    return "result"


async def polls() -> str:
    """In a thread, which nothing can cancel."""

    def work() -> None:
        assert not stop_requested()
        print_now("ready")
        while not stop_requested():
            time.sleep(0.01)
        print_now("asked")

    await asyncio.to_thread(work)
    print_now("cleaned")
    return "result"


async def waits_elsewhere() -> str:
    """The request reaches another loop, in a thread that inherits nothing."""

    async def wait() -> None:
        request = stop_requested()
        print_now("ready")
        await request
        print_now("asked")

    thread = threading.Thread(target=lambda: asyncio.run(wait()))
    thread.start()
    while thread.is_alive():
        await asyncio.sleep(0.01)
    print_now("cleaned")
    return "result"


async def runs_elsewhere() -> str:
    """A run in another thread, and one that begins after the stop request."""

    async def other() -> str:
        print_now("ready")
        await stop_requested()
        return "other's"

    async def late() -> None:
        await asyncio.sleep(10)

    request = stop_requested()
    print_now(await asyncio.to_thread(run, other()))
    await request
    print_now(await asyncio.to_thread(run, late()))
    return "result"


async def waits_for_ever() -> None:
    """Awaits the request, and yet does not end."""
    try:
        await watches()
        await asyncio.Event().wait()
    finally:
        print_now(f"cancelled, {stop_requested().seconds_left:.1f}s left")


async def drain(seconds: float) -> None:
    print_now(f"drain: {seconds:.0f}s")
    assert stop_requested()
    await asyncio.sleep(0.3)
    print_now("drained")


async def long_drain(seconds: float) -> None:
    await asyncio.sleep(3.5)
    print_now("drained")


async def drain_without_end(seconds: float) -> None:
    print_now("drain")
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)
        print_now("drain cancelled")


async def drain_that_fails(seconds: float) -> None:
    raise ValueError("the drain failed")


async def refuses() -> None:
    """Catches every CancelledError."""
    print_now("ready")
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            print_now("refused")


async def gathers_who_hang() -> None:
    """`gather` cancels them, and their clean-up waits for something that never comes."""

    async def saves() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            print_now("saving")
            await asyncio.Event().wait()

    print_now("ready")
    await asyncio.gather(asyncio.create_task(saves(), name="saves"))


async def refuses_everything() -> None:
    print_now("ready")
    while True:
        try:
            await asyncio.sleep(3600)
        except BaseException:
            print_now("refused")


async def stubborn_task(refuse: Any) -> None:
    task = asyncio.create_task(refuse(), name="stubborn")
    await asyncio.sleep(0.01)
    assert not task.done()


async def stuck_thread() -> str:
    """Main ends, a thread of the default executor does not."""

    def get_stuck() -> None:
        time.sleep(3600)

    asyncio.get_running_loop().run_in_executor(None, get_stuck)
    await asyncio.sleep(0.1)
    return "result"


async def stuck_loop_in_a_thread() -> str:
    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            asyncio.get_running_loop()

    def get_stuck() -> None:
        asyncio.run(wait())

    asyncio.get_running_loop().run_in_executor(None, get_stuck)
    await asyncio.sleep(0.1)
    return "result"


async def stuck_in_own_daemon_pool() -> str:
    asyncio.get_running_loop().set_default_executor(DaemonThreadPool(2, thread_name_prefix="mine"))
    return await stuck_thread()


async def stuck_in_own_executor() -> str:
    """Until `run` has returned, plus a moment."""
    loop = asyncio.get_running_loop()

    def get_stuck() -> None:
        while not loop.is_closed():
            time.sleep(0.01)
        time.sleep(0.5)

    loop.set_default_executor(ThreadPoolExecutor(2))
    loop.run_in_executor(None, get_stuck)
    return "result"


async def work_in_own_executor() -> str:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
    return await work_in_a_thread()


async def work_in_a_thread() -> str:
    """A call that nobody awaits."""

    def work() -> None:
        time.sleep(0.3)
        print_now("cleaned")

    asyncio.get_running_loop().run_in_executor(None, work)
    return "result"


EXECUTING = """
async def values():
    for number in range(calls): lock.acquire(True, 0.00001 if number < calls - 1 else 3600)
    yield
async def hold():
    for number in range(calls): lock.acquire(True, 0.00001 if number < calls - 1 else 3600)
async def consume():
    async for _ in values(): pass
"""


async def others_execute() -> str:
    """Coroutines in other threads block in C code, each at another place in its code."""
    lock = threading.Lock()
    lock.acquire()
    for calls in range(60, 140):
        names: dict[str, Any] = {"lock": lock, "calls": calls}
        exec(EXECUTING, names)
        for name in ("hold", "consume"):
            threading.Thread(target=asyncio.run, args=(names[name](),), daemon=True).start()
    await asyncio.sleep(1)
    return "result"


async def fails() -> None:
    raise ValueError("main failed")


async def fails_when_stopped() -> None:
    try:
        await plain()
    finally:
        raise ValueError("the clean-up failed")


async def exits() -> None:
    await asyncio.sleep(0)
    sys.exit(7)


async def task_exits() -> None:
    async def leave() -> None:
        sys.exit(7)

    task = asyncio.create_task(leave())
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0.05)
        print_now("cleaned")
        assert task.exception()


async def cancels_itself() -> None:
    task = asyncio.current_task()
    assert task
    task.cancel()
    await asyncio.sleep(1)


async def swallows_the_first_exception() -> None:
    """A busy loop that survives whatever is raised in it: a handler that raised would be lost here."""
    print_now("ready")
    while not stop_requested():
        try:
            end = time.monotonic() + 0.02
            while time.monotonic() < end:
                pass
        except BaseException:
            print_now("swallowed")
        await asyncio.sleep(0)
    print_now("cleaned")


async def handles_term_itself() -> str:
    """Sets a handler while `run` has its own, and puts that back afterwards, as uvicorn does."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    before = signal.signal(signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(asked.set))
    print_now("ready")
    await asked.wait()
    await asyncio.sleep(0.3)
    print_now("drained", bool(stop_requested()))
    signal.signal(signal.SIGTERM, before)
    signal.raise_signal(signal.SIGTERM)
    await stop_requested()
    return "result"


async def asked_before_the_loop_runs() -> str:
    print_now("loop", type(asyncio.get_running_loop()).__module__.partition(".")[0])
    await asyncio.sleep(3)
    return "result"


def ask_before_the_loop_runs() -> None:
    run_it = asyncio.Runner.run

    def ask(*arguments: Any, **more: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return run_it(*arguments, **more)

    asyncio.Runner.run = ask  # type: ignore[method-assign]


async def cleans_up_late() -> None:
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0.05)
        print_now("cleaned")


async def stops_the_loop_and_returns() -> str:
    task = asyncio.create_task(cleans_up_late())
    await asyncio.sleep(0)
    asyncio.get_running_loop().stop()
    assert not task.done()
    return "result"


async def stops_the_loop() -> None:
    """Stops the loop twice: in main, and again in its clean-up."""
    loop = asyncio.get_running_loop()
    loop.call_soon(loop.stop)
    try:
        await cleans_up_late()
    finally:
        loop.stop()
        await asyncio.sleep(0.05)
        print_now("cleaned up")


async def reports_much() -> None:
    await asyncio.sleep(0.1)
    for number in range(40):
        status(f"{number} " + "x" * 5000)
    print_now("ready")
    try:
        await asyncio.Event().wait()
    finally:
        print_now("stopping")
        await asyncio.sleep(1)


async def reports_its_status() -> None:
    await asyncio.sleep(0.1)
    ready("two calls")
    status("three calls")
    await asyncio.to_thread(status, "from a thread")
    print_now("ready")
    await asyncio.Event().wait()


async def sets_handlers() -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, print)
    await asyncio.sleep(0.1)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    status("one more")
    await asyncio.sleep(0.1)
    loop.remove_signal_handler(signal.SIGUSR1)
    status("one less")
    print_now("ready")
    await asyncio.Event().wait()


async def blocks() -> None:
    """Blocks the loop for as long as a file exists."""
    await asyncio.sleep(0.3)
    print_now("blocking")
    while os.path.exists(os.environ["WHILE"]):
        time.sleep(0.01)
    print_now("ready")
    await asyncio.Event().wait()


KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "drains": (plain, {"drain": drain}),
    "drains_long": (plain, {"drain": long_drain}),
    "drains_without_end": (plain, {"drain": drain_without_end}),
    "drain_fails": (plain, {"drain": drain_that_fails}),
    "drains_and_returns": (returns_at_once, {"drain": drain}),
    "drains_and_watches": (watches, {"drain": drain}),
    "stubborn_task": (lambda: stubborn_task(refuses), {}),
    "very_stubborn_task": (lambda: stubborn_task(refuses_everything), {}),
    "reports_its_status": (reports_its_status, {"auto_ready": False}),
}

if __name__ == "__main__":
    if "LOG" in os.environ:
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    if os.environ.get("LOOP") == "asyncio":
        sys.modules["uvloop"] = None  # type: ignore[assignment]
    if sys.argv[1] == "asked_before_the_loop_runs":
        ask_before_the_loop_runs()
    main, more = KINDS.get(sys.argv[1]) or (globals()[sys.argv[1]], {})
    result = run(main(), grace=GRACE, **more)
    print_now("returned", result)

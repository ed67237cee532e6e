"""DaemonThreadPool: what an executor has to do, and that its threads do not hold the process."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import CancelledError

import pytest

from entrypoint.agent import DaemonThreadPool
from tests.support.init import PATIENCE

from .pythons import environment


def test_calls_return_results_and_errors() -> None:
    with DaemonThreadPool(2) as pool:
        assert list(pool.map(abs, [-1, -2, -3])) == [1, 2, 3]
        assert pool.submit(divmod, 7, 2).result(PATIENCE) == (3, 1)
        assert pool.submit(int, "10", base=2).result(PATIENCE) == 2
        with pytest.raises(ZeroDivisionError):
            pool.submit(divmod, 1, 0).result(PATIENCE)
        with pytest.raises(SystemExit):  # which does not end the thread
            pool.submit(sys.exit, 1).result(PATIENCE)
        assert pool.submit(abs, -1).result(PATIENCE) == 1


def test_idle_threads_are_used_again_and_the_limit_holds() -> None:
    pool = DaemonThreadPool(3, thread_name_prefix="mine")
    for _ in range(20):
        assert pool.submit(lambda: threading.current_thread().name).result(PATIENCE) == "mine_0"
        time.sleep(0.001)  # until the thread is idle
    together = threading.Barrier(4)
    waiting = [pool.submit(together.wait, PATIENCE) for _ in range(6)]
    while len(pool.busy_threads()) < 3:
        time.sleep(0.001)
    assert not any(future.done() for future in waiting)
    together.wait(PATIENCE)
    together.wait(PATIENCE)
    pool.shutdown()
    assert not pool.busy_threads()
    assert all(future.done() for future in waiting)


def test_shutdown_finishes_or_cancels_the_queue() -> None:
    for cancel in (False, True):
        pool, go_on = DaemonThreadPool(1), threading.Event()
        first, second = pool.submit(go_on.wait, PATIENCE), pool.submit(abs, -1)
        while not first.running():
            time.sleep(0.001)
        pool.shutdown(wait=False, cancel_futures=cancel)
        with pytest.raises(RuntimeError, match="after shutdown"):
            pool.submit(abs, -1)
        go_on.set()
        assert first.result(PATIENCE)
        if cancel:
            with pytest.raises(CancelledError):
                second.result(PATIENCE)
        else:
            assert second.result(PATIENCE) == 1
        pool.shutdown()


def test_a_cancelled_call_does_not_run() -> None:
    pool, go_on, ran = DaemonThreadPool(1), threading.Event(), threading.Event()
    pool.submit(go_on.wait, PATIENCE)
    assert pool.submit(ran.set).cancel()
    go_on.set()
    pool.shutdown()
    assert not ran.is_set()


def test_calls_see_the_context_of_their_submitter() -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    with DaemonThreadPool(1) as pool:
        variable.set("set")
        assert pool.submit(variable.get).result(PATIENCE) == "set"
        pool.submit(variable.set, "changed").result(PATIENCE)
        assert variable.get() == "set"


def test_a_finished_call_is_not_referred_to() -> None:
    class Argument: ...

    def fail(argument: Argument) -> None:
        raise ValueError

    pool, gone = DaemonThreadPool(1), []
    gc.disable()
    try:
        for function in (id, fail):
            argument = Argument()
            gone.append(weakref.ref(argument))
            future = pool.submit(function, argument)
            while not future.done():
                time.sleep(0.001)
            del argument, future
        pool.submit(abs, -1).result(PATIENCE)
        assert [reference() for reference in gone] == [None, None]
    finally:
        gc.enable()
        pool.shutdown()


def test_the_number_of_threads_is_checked() -> None:
    with pytest.raises(ValueError, match="max_workers"):
        DaemonThreadPool(0)


def test_asyncio_accepts_it() -> None:
    async def main() -> str:
        asyncio.get_running_loop().set_default_executor(DaemonThreadPool(1, thread_name_prefix="mine"))
        return await asyncio.to_thread(lambda: threading.current_thread().name)

    assert asyncio.run(main()) == "mine_0"


STUCK = """
import time, entrypoint.agent
pool = entrypoint.agent.DaemonThreadPool()
pool.submit(time.sleep, 3600)
pool.submit(abs, -1).result()
print("end")
"""


def test_the_process_ends_with_stuck_and_idle_threads(python: str) -> None:
    command = [python, "-X", "dev", "-c", STUCK]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


STUCK_IN_RUN = """
import asyncio, time, entrypoint.agent
async def main():
    asyncio.get_running_loop().run_in_executor(None, time.sleep, 3600)
    await asyncio.sleep(0.1)
    return "result"
print(entrypoint.agent.run(main(), grace=1))
"""


def test_a_process_with_a_stuck_thread_ends_after_run(python: str) -> None:
    """From 3.13 on a stuck daemon thread of `concurrent.futures` holds the process; 3.13.0 uses a whole core."""
    command = [python, "-X", "dev", "-c", STUCK_IN_RUN]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout) == (0, "result\n")
    assert "thread asyncio_0 is stuck and is left behind" in done.stderr

"""The functions of `entrypoint.agent`: arguments, results, and what `run` leaves as it was."""

from __future__ import annotations

import asyncio
import contextvars
import signal
import subprocess
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest

from entrypoint.agent import ready, run, status, stop_requested
from tests.support.init import PATIENCE

from .pythons import environment


async def nothing() -> str:
    await asyncio.sleep(0)
    return "result"


def test_run_returns_the_result_of_main() -> None:
    assert run(nothing()) == "result"
    assert run(nothing(), debug=True) == "result"


# Python 3.16 has none of these. Before 3.14 asyncio itself needs one for its first loop.
WITHOUT_POLICIES = """
import asyncio
asyncio.new_event_loop().close()
for name in [name for name in dir(asyncio) if "olicy" in name]: vars(asyncio).pop(name, None)
def missing(name): raise AttributeError(name)
asyncio.__getattr__ = missing  # 3.14 and 3.15 have some of them there
from entrypoint.agent import run
async def main(): return type(asyncio.get_running_loop()).__module__.partition(".")[0]
print(run(main()))
"""


@pytest.mark.parametrize("uvloop", ["", "import asyncio\nasyncio.DefaultEventLoopPolicy\n"], ids=["", "old uvloop"])
def test_run_needs_no_event_loop_policies(python: str, tmp_path: Path, uvloop: str) -> None:
    """Where uvloop needs them, the loop is asyncio's."""
    if uvloop:
        (tmp_path / "uvloop.py").write_text(uvloop)
    env = environment()
    env["PYTHONPATH"] = f"{tmp_path}:{env['PYTHONPATH']}"
    done = subprocess.run(
        [python, "-c", WITHOUT_POLICIES], env=env, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.stdout, done.stderr) == ("asyncio\n" if uvloop else "uvloop\n", "")


def test_signal_handlers_are_restored() -> None:
    def mine(*_: object) -> None: ...

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        signal.signal(signal.SIGTERM, mine)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        assert run(nothing()) == "result"
        assert signal.getsignal(signal.SIGTERM) is mine
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_handler_that_main_sets_is_kept() -> None:
    def mine(*_: object) -> None: ...

    async def main() -> None:
        signal.signal(signal.SIGTERM, mine)

    before = signal.getsignal(signal.SIGTERM)
    try:
        run(main())
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_signal_mask_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the loop never runs."""

    def fail(_: object, part: Any, **more: object) -> None:
        part.close()
        raise OSError("no loop")

    async def main() -> set[Any]:
        return set(signal.pthread_sigmask(signal.SIG_BLOCK, ()))

    mask = {signal.SIGINT, signal.SIGUSR1}
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        assert run(main()) == mask
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
        monkeypatch.setattr(asyncio.Runner, "run", fail)
        never_run = main()
        with pytest.raises(OSError, match="no loop"):
            run(never_run)
        never_run.close()
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())


def test_run_in_a_thread_leaves_signals_alone() -> None:
    results: list[Any] = []
    before = signal.getsignal(signal.SIGTERM)

    async def main() -> None:
        results.append(signal.getsignal(signal.SIGTERM))
        results.append(bool(stop_requested()))

    thread = threading.Thread(target=lambda: results.append(run(main())))
    thread.start()
    thread.join()
    assert results == [before, False, None]


def test_several_runs_at_a_time() -> None:
    results: list[Any] = []

    async def main() -> None:
        await asyncio.sleep(0.05)
        results.append(await asyncio.to_thread(run, nothing()))

    threads = [threading.Thread(target=lambda: run(main())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == ["result"] * 4


def test_run_accepts_only_a_coroutine() -> None:
    with pytest.raises(ValueError, match="a coroutine was expected"):
        run(nothing)  # type: ignore[arg-type]


def test_run_inside_a_running_loop_is_an_error() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="running event loop"):
            run(nothing())

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(main())


def test_outside_of_run_reports_are_dropped_and_no_stop_is_requested() -> None:
    ready("nobody receives it")
    status("nor this")

    async def main() -> None:
        assert not stop_requested()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stop_requested(), 0.05)

    asyncio.run(main())


def test_main_runs_in_a_copy_of_the_callers_context() -> None:
    variable = contextvars.ContextVar("variable", default="unset")

    async def main() -> str:
        seen = variable.get()
        variable.set("inside")
        return seen

    variable.set("outside")
    assert run(main()) == "outside"
    assert variable.get() == "outside"


def test_a_task_factory_that_the_agent_sets_is_used() -> None:
    made: list[str] = []

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **more: Any) -> asyncio.Task[Any]:
        made.append(coro.__qualname__)
        return asyncio.Task(coro, loop=loop, **more)

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        await asyncio.create_task(nothing(), name="named")

    run(main())
    assert "nothing" in made

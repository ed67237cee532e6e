"""agent-init with uvloop in place of its own poll loop, to measure that choice.

    python uvloop_init.py [OPTIONS] [--] COMMAND [ARG]...

Everything else is agent-init's own. Nothing heavy is imported before the agent runs. A module from elsewhere, even
`__future__`, would make agent-init restart itself without this file.
"""

import _signal

_signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())

import os  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import TimerHandle
    from collections.abc import Callable

    Callback = Callable[[], object]


class Timer:
    """What `call_at` returns."""

    def __init__(self, when: float, handle: "TimerHandle") -> None:
        self.when, self.handle = when, handle


class Loop:
    """`entrypoint.init.loop.Loop` on uvloop. It calls `recover` at the start and after an error."""

    time = staticmethod(time.monotonic)

    def __init__(self, *, report: "Callable[[BaseException], object]", recover: "Callback") -> None:
        import uvloop

        self._loop = uvloop.new_event_loop()
        self._report, self._recover = report, recover
        self._running = True

    def add_reader(self, fd: int, callback: "Callback", *_: object) -> None:
        self._loop.add_reader(fd, self._guarded, callback)

    def remove_reader(self, fd: int) -> None:
        self._loop.remove_reader(fd)

    def call_at(self, when: float, callback: "Callback") -> Timer:
        delay = max(0.0, when - self.time())  # uvloop has another clock, in whole milliseconds
        return Timer(when, self._loop.call_later(delay, self._guarded, callback))

    def cancel(self, timer: Timer) -> None:
        timer.handle.cancel()

    def run_forever(self) -> None:
        if self._running:
            self._loop.call_soon(self._guarded, self._recover)  # something may have happened before the loop runs
            self._loop.run_forever()

    def stop(self) -> None:
        self._running = False
        self._loop.stop()

    def _guarded(self, callback: "Callback") -> None:
        try:
            callback()
        except BaseException as error:
            self._report(error)
            self._loop.call_later(0.01, self._guarded, self._recover)


if __name__ == "__main__":
    import entrypoint
    from entrypoint import start

    sys.modules["entrypoint.init.loop"] = sys.modules["__main__"]
    start.OWN_MODULES |= {"entrypoint.init.loop"}
    os._exit(start.main(sys.argv[1:], os.path.dirname(os.path.dirname(entrypoint.__file__))))

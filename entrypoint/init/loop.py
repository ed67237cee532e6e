"""A poll loop with asyncio's method names: add_reader, remove_reader, call_at, run_forever, stop, time.

It begins with a call of `recover`. It cannot die: an exception from a callback goes to `report`, and `recover` is
called again and again until it succeeds. The loop goes on meanwhile: nothing that fails, once or for ever, keeps
timers and other readers from being called. While idle it sleeps in poll(2) without a timeout.
"""

import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Callback = Callable[[], object]

MAX_POLL = 3600.0  # seconds; poll(2) counts milliseconds in an int, so a longer wait is split
AFTER_ERROR = 0.01  # seconds; an error that repeats at once must not use up the processor


class Timer:
    """What `call_at` returns. `when` is on the loop's clock."""

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: "Callback") -> None:
        self.when, self.callback = when, callback


class Loop:
    """One thread, one poll(2); timers that are due run before descriptors that are ready."""

    def __init__(self, *, report: "Callable[[BaseException], object]", recover: "Callback") -> None:
        self._poll = select.poll()
        self._readers: dict[int, Callback] = {}
        self._timers: list[Timer] = []
        self._report, self._recover = report, recover
        self._running = True  # from the start: a stop before `run_forever` counts

    time = staticmethod(time.monotonic)

    def add_reader(self, fd: int, callback: "Callback", events: int = select.POLLIN) -> None:
        """Call `callback` whenever `fd` has one of `events`, is hung up, or in error (poll(2)); until it is removed."""
        self._poll.register(fd, events)
        self._readers[fd] = callback

    def remove_reader(self, fd: int) -> None:
        """Stop watching `fd`; to be called while it is open."""
        if self._readers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def call_at(self, when: float, callback: "Callback") -> Timer:
        """Call `callback` once, when the clock has reached `when` (seconds of `time()`)."""
        timer = Timer(when, callback)
        self._timers.append(timer)
        return timer

    def cancel(self, timer: Timer) -> None:
        """Cancel a timer; no effect if it has gone off."""
        if timer in self._timers:
            self._timers.remove(timer)

    def run_forever(self) -> None:
        """Run until `stop`, which may have been called before."""
        while self._running:
            recovered = self._try(self._recover)  # at the start too: something may have happened before the first poll
            if self._running and recovered:
                self._try(self._run)
            elif self._running:  # as long as the recovery fails, the rest goes on without waiting
                self._try(self._run_once, 0.0)

    def _try(self, step: "Callable[..., object]", *arguments: object) -> bool:
        """Return whether a step succeeds. If not, report the error and sleep a moment."""
        try:
            step(*arguments)
            return True
        except BaseException as error:  # process 1 outlives MemoryError and everything else
            try:
                self._report(error)
            except BaseException:  # nor may the report hold up the sleep
                pass
            try:
                time.sleep(AFTER_ERROR)
            except BaseException:
                pass
            return False

    def stop(self) -> None:
        """Leave `run_forever` once the current callback has returned."""
        self._running = False

    def _run(self) -> None:
        """Run until `stop`. Raises the first error."""
        while self._running:
            self._run_once()

    def _run_once(self, timeout: float | None = None) -> None:
        """Call the first timer that is due; else wait at most `timeout` ms for descriptors, and call their readers.

        Each reader is called, even if another one fails. Raises the first error.
        """
        if self._timers:
            first = min(self._timers, key=_when)
            left = first.when - self.time()
            if left <= 0:
                self._timers.remove(first)
                first.callback()
                return
            if timeout is None:
                timeout = min(left, MAX_POLL) * 1000  # rounded up by poll: never early
        failure: BaseException | None = None
        for fd, _ in self._poll.poll(timeout):
            try:
                if self._running and fd in self._readers:
                    self._readers[fd]()
            except BaseException as error:
                failure = failure or error
        if failure is not None:
            raise failure


def _when(timer: Timer) -> float:
    return timer.when

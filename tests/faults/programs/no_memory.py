"""`no_memory.py PACKAGE WHEN REST ...`: run agent-init, which from some moment on gets no memory any more, for ever.

WHEN is `spawn` (just after the agent has started), `ready` (the supervisor is about to run) or `stop` (it looks at the
first stop request). At that moment no memory can be mapped any more (RLIMIT_AS), and all that was free is used up, but
for REST KiB in small pieces all over the heap.
"""

import _signal
import os
import random
import resource
import sys
from typing import Any

_signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
PACKAGE, WHEN, REST = sys.argv[1:4]
sys.path.insert(0, PACKAGE)

from entrypoint import start  # noqa: E402
from entrypoint.init import lifecycle, loop, spawn  # noqa: E402

LIMIT = (1, resource.getrlimit(resource.RLIMIT_AS)[1])
BIGGEST, SMALLEST, PIECE = 1 << 16, 16, 512
hoard: list[Any] = [None] * 200_000
numbers = random.Random(1)
picked = [numbers.random() for _ in range(int(REST) * 1024 // SMALLEST)]


def use_up() -> None:
    """Take all free memory: first in large blocks, then in small ones."""
    resource.setrlimit(resource.RLIMIT_AS, LIMIT)
    at, size = 0, BIGGEST
    while size >= SMALLEST:
        try:
            hoard[at] = bytes(size)
            at += 1
        except MemoryError:
            size //= 2
    left = int(REST) * 1024
    for number in picked:
        index = int(number * at)
        if left > 0 and hoard[index] is not None and len(hoard[index]) < PIECE:
            left -= sys.getsizeof(hoard[index])
            hoard[index] = None


def after(module: Any, name: str) -> None:
    """Use up the memory when a function has returned."""
    real = getattr(module, name)

    def call(*arguments: Any, **more: Any) -> Any:
        result = real(*arguments, **more)
        use_up()
        return result

    setattr(module, name, call)


def before(owner: Any, name: str) -> None:
    """Use up the memory when a method is called for the first time."""
    real = getattr(owner, name)

    def call(*arguments: Any, **more: Any) -> Any:
        setattr(owner, name, real)
        use_up()
        return real(*arguments, **more)

    setattr(owner, name, call)


if WHEN == "spawn":
    after(spawn, "spawn")
elif WHEN == "ready":
    before(loop.Loop, "run_forever")
else:
    before(lifecycle.Lifecycle, "_stop_requested")
os._exit(start.main(sys.argv[4:], PACKAGE))

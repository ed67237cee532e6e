"""`alternate.py COUNT COMMANDS`: run each of some commands COUNT times, in turns and random order, and time them.

COMMANDS is a JSON object of argument vectors by name. Writes a line for each run: the name, and the milliseconds from
before the start to the exit.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time

UNCOUNTED = 3  # runs of each that bring files into the cache


def main(count: int, commands: dict[str, list[str]]) -> None:
    """Run them."""
    null = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1, 2)]
    for turn in range(-UNCOUNTED, count):
        for name in random.sample(list(commands), len(commands)):
            argv = commands[name]
            began = time.monotonic_ns()
            os.waitpid(os.posix_spawn(argv[0], argv, os.environ, file_actions=null), 0)
            took = time.monotonic_ns() - began
            if turn >= 0:
                print(name, took / 1e6)


if __name__ == "__main__":
    main(int(sys.argv[1]), json.loads(sys.argv[2]))

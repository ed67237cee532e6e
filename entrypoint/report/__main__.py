"""Print a stall report: `python -I -S __main__.py REQUEST`, as process 1 starts it.

REQUEST is a JSON object:

    root        pid of process 1; what descends from it is told of
    agent       pid of the agent
    since       time.monotonic() of the moment when `cpu` was noted
    cpu         {"pid": [start, used]} of that moment, both in clock ticks as in /proc/<pid>/stat; may be empty
    responders  how the sockets of processes that answer are named, `@...`; may be empty
    stacks      whether each Python of the agent's was to be one of these (--stacks)
    seconds     how long the report may take
    arguments   whether the arguments of programs may be told; they can hold secrets
    room        bytes of memory that are left, or null
"""

from __future__ import annotations

import os
import sys

# The kernel is to take this process before the agent when memory runs out.
try:
    with open("/proc/self/oom_score_adj", "wb", buffering=0) as adjustment:
        adjustment.write(b"1000")
except OSError:
    pass

import json
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

NEEDS = 12 << 20  # bytes of memory; 8 MiB were measured
FOR_PRINTING = 0.15  # seconds of those that there are, or a quarter of them
LONGEST_ANSWER_TIME = 1.0  # seconds
LONGEST_LINE = 3400  # bytes
MOST_LINES = 160


def main(request: dict[str, Any]) -> int:
    """Print the report, line by line. Returns the exit code."""
    out = sys.stdout.buffer
    for number, line in enumerate(report(request)):
        if number == MOST_LINES:
            line = "and more, left out here"
        text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in f"report: {line}")
        try:
            out.write(text.encode("utf-8", "backslashreplace")[:LONGEST_LINE] + b"\n")
            out.flush()
        except BrokenPipeError:
            return 1
        if number == MOST_LINES:
            break
    return 0


def report(request: dict[str, Any]) -> Iterator[str]:
    """The lines, the most valuable first."""
    end = time.monotonic() + request["seconds"]
    room = request["room"]
    if room is not None and room < NEEDS:
        yield f"too little memory for more: {room >> 20} MiB are left"
        return
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    sys.path.insert(0, home)
    try:
        try:
            import psutil
        except ImportError:  # it does not lie beside us (an editable install)
            import site

            site.main()
            import psutil  # noqa: F401
    except ImportError as error:
        yield f"nothing more can be told: {error}; install agent-init with its dependencies"
        return

    from entrypoint.report import answers, processes, words

    found = processes.below(request["root"], request["agent"], request["cpu"], arguments=request["arguments"])
    yield from words.tree(found)
    if not request["responders"]:
        return
    seconds = min(LONGEST_ANSWER_TIME, (left := end - time.monotonic()) - min(FOR_PRINTING, left / 4))
    answered = answers.ask(request["responders"], found, seconds)
    yield from words.answers(found, answered, stacks=request["stacks"])


if __name__ == "__main__":
    try:
        code = main(json.loads(sys.argv[1]))
    except Exception as error:
        print(f"report: failed: {type(error).__name__}: {error}"[:LONGEST_LINE].replace("\n", " "), flush=True)
        code = 1
    os._exit(code)

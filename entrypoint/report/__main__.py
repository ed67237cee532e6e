"""Print a stall report. Process 1 runs this file as `python -I -S __main__.py REQUEST`.

REQUEST is a JSON object:

    root        pid of process 1; the report covers its descendants
    agent       pid of the agent
    since       time.monotonic() when `cpu` was measured
    cpu         {"pid": [start time, CPU time used]}, both in clock ticks as in /proc/<pid>/stat (proc(5)); may be empty
    responders  prefix of the abstract sockets that processes answer on, `@...`; may be empty
    stacks      true if every Python process was asked to answer (--stacks)
    seconds     how long the report may take
    answers     how long it may wait for the stacks of processes, at most; may be missing
    tasks       true for every task too, on a line of its own, at the end; may be missing
    arguments   true if program arguments may be shown; they can hold secrets
    room        bytes of memory still available, or null if unknown
"""

from __future__ import annotations

import os
import sys

# If memory runs out, the kernel kills this process before the agent.
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

REQUIRED_BYTES = 12 << 20  # of memory; a report was measured to take 8 MiB
RENDER_SECONDS = 0.15  # kept back for rendering, or a quarter of the remaining time if that is less
MAX_ANSWER_SECONDS = 1.0
MAX_LINE_BYTES = 3400
MAX_LINES = 160
MAX_TASK_LINES = 20000
OWN_FAULT = 125  # the exit code of `agent-initctl` where it cannot go on


def main(request: dict[str, Any]) -> int:
    """Print the report line by line. Return the exit code: that of `put` for a line that was not written, else 0."""
    most = MAX_TASK_LINES if request.get("tasks") else MAX_LINES
    for number, line in enumerate(report(request)):
        if code := put("truncated" if number == most else line):
            return code
        if number == most:
            break
    return 0


def put(line: str) -> int:
    """Print a line of the report. Return 0; 1 if nobody reads it; 125 if it cannot be written, after saying why.

    Then this was `agent-initctl report`, whose stdout may be a full disk. Process 1 reads a pipe.
    """
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in f"report: {line}")
    out = sys.stdout.buffer
    try:
        out.write(text.encode("utf-8", "backslashreplace")[:MAX_LINE_BYTES] + b"\n")
        out.flush()
    except BrokenPipeError:
        return 1
    except OSError as error:
        try:
            os.write(2, f"agent-initctl: cannot go on: {error}\n".encode())
        except OSError:
            pass
        return OWN_FAULT
    return 0


def report(request: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the report, the most valuable first."""
    deadline = time.monotonic() + request["seconds"]
    available_bytes = request["room"]
    if available_bytes is not None and available_bytes < REQUIRED_BYTES:
        yield f"not enough memory for a report: {available_bytes >> 20} MiB left"
        return
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    try:
        import psutil  # noqa: F401
    except ImportError:  # it is not beside this package: an editable install, or it is not installed
        import site

        site.main()
    from entrypoint.report import answers, processes, render

    if not os.path.exists("/proc/self/stat") and (sys.platform == "linux" or processes.MISSING_PSUTIL):
        yield f"no process list: {processes.MISSING_PSUTIL or '/proc is not mounted'}"
        return
    found = processes.descendants(
        request["root"],
        request["agent"],
        request["cpu"],
        arguments=request["arguments"],
        helpers=request.get("helpers", ()),
    )
    yield from render.process_lines(found)
    if processes.MISSING_PSUTIL:
        yield f"without memory and arguments: {processes.MISSING_PSUTIL} (install psutil)"
    if not request["responders"]:
        return
    remaining = deadline - time.monotonic()
    seconds = min(request.get("answers", MAX_ANSWER_SECONDS), remaining - min(RENDER_SECONDS, remaining / 4))
    answered = answers.ask(request["responders"], found, seconds)
    yield from render.answer_lines(found, answered, stacks=request["stacks"])
    if request.get("tasks"):
        asked = [process for process in found if isinstance(answered.get(process.pid), answers.Answer)]
        answered = answers.ask(request["responders"], asked, max(0.0, deadline - time.monotonic()), "tasks")
        yield from render.task_lines(found, answered)


if __name__ == "__main__":
    try:
        code = main(json.loads(sys.argv[1]))
    except Exception as error:
        code = put(f"failed: {type(error).__name__}: {error}") or 1
    os._exit(code)

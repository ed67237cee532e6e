"""Log lines that betray a broken end: texts that Python prints when a loop or an interpreter was closed too early.

Only lines after the stop request count. The traceback of a KeyboardInterrupt is exempt: a plain Python program prints
it when it is interrupted, with whatever `asyncio.run` puts before it. So is an error that the agent has also logged
before the request, such as that of a broker that is away: the stop is not its cause.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .model import BrokenLine

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .records import Line

# The text of the rule, and the pattern; the sources are CPython's (Lib/asyncio, Lib/threading.py, Lib/concurrent).
RULES: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (rule, re.compile(pattern))
    for rule, pattern in (
        ("no running event loop", r"RuntimeError: no running event loop"),
        ("Event loop is closed", r"RuntimeError: Event loop is closed"),
        ("Event loop stopped before Future completed", r"Event loop stopped before Future completed"),
        ("Task was destroyed but it is pending", r"Task was destroyed but it is pending"),
        ("Exception in thread", r"Exception in thread \S"),
        ("cannot schedule new futures after shutdown", r"cannot schedule new futures after (interpreter )?shutdown"),
        ("can't start new thread at interpreter shutdown", r"can't (start|create) new thread at interpreter shutdown"),
        ("was never awaited", r"RuntimeWarning: coroutine .+ was never awaited"),
        ("attached to a different loop", r"attached to a different (event )?loop"),
        ("Fatal Python error", r"Fatal Python error: (?!\w*init)"),  # an interrupted start (`init_import_site`) is none
    )
)
TRACEBACK = "traceback"
OF_ERRORS = frozenset((TRACEBACK, "Exception in thread"))  # what an agent may print for a reason of its own
BEGINNING = "Traceback (most recent call last)"
CHAINS = ("During handling of the above exception", "The above exception was the direct cause")
EXEMPT = ("KeyboardInterrupt",)
# The last line of a traceback: `ValueError: text`, `asyncio.exceptions.CancelledError`, `KeyboardInterrupt`.
LAST = re.compile(r"^[A-Za-z_][\w.]*(: .*)?$")
MARGIN = re.compile(r"^[\s|+-]*")  # of an exception group


def find(lines: Iterable[Line], request: float, started: float) -> tuple[BrokenLine, ...]:
    """Return the lines after the request, each with the rule that it breaks. All times by the monotonic clock."""
    lines = list(lines)
    after = [line for line in lines if line.at >= request]
    usual = {line.text.strip() for line in lines if line.at < request}
    found = [
        (line.at, BrokenLine(max(0.0, line.at - started), line.text.strip(), rule))
        for line in after
        if (rule := rule_of(line.text))
    ]
    named = {line.line for _, line in found}
    for stream in ("out", "err"):  # a traceback is in one of them
        for line in _ends_of_tracebacks(_of(after, stream)):
            if line.text.strip() not in named | usual:
                found.append((line.at, BrokenLine(max(0.0, line.at - started), line.text.strip(), TRACEBACK)))
    return tuple(line for _, line in sorted(found, key=lambda item: item[0]))


def rule_of(text: str) -> str:
    """Return the rule that a line breaks, tracebacks aside; an empty text if there is none."""
    return next((rule for rule, pattern in RULES if pattern.search(text)), "")


def last_error(lines: Iterable[Line]) -> str:
    """Return the last line of a stream that ends with a traceback; an empty text if none does."""
    lines = [line for line in lines if line.text.strip()]
    for stream in ("err", "out"):
        *_, last = [None, *_of(lines, stream)]
        if last is not None and last in _ends_of_tracebacks(_of(lines, stream)):
            return last.text.strip()
    return ""


def _of(lines: Iterable[Line], stream: str) -> Iterator[Line]:
    return (line for line in lines if line.stream == stream)


def _ends_of_tracebacks(lines: Iterable[Line]) -> Iterator[Line]:
    """Yield the last line of each traceback, but not of those that another one follows from, nor of an exempt one."""
    end: Line | None = None  # of a traceback that may go on
    inside = False
    for line in lines:
        text = MARGIN.sub("", line.text)
        if BEGINNING in line.text:
            if not line.text.rstrip().endswith(BEGINNING + ":"):  # all of it in one line: a log in JSON
                if not any(name in line.text for name in EXEMPT):
                    yield line
                continue
            if end is not None and not inside:
                yield end
            inside, end = True, None
        elif inside:
            end = line
            if LAST.match(text) and (line.text[:1].strip() or line.text.lstrip().startswith("|")):
                inside = False
                if text.startswith(EXEMPT):
                    end = None
        elif end is not None:
            if text.startswith(CHAINS):
                end = None  # the next traceback has the exception that counts
            elif text:
                yield end
                end = None
    if end is not None:
        yield end

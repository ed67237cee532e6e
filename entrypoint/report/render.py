"""Render what `processes` and `answers` found as the lines of a stall report."""

from __future__ import annotations

import re
import shlex
from itertools import groupby
from typing import TYPE_CHECKING

from entrypoint.units import format_bytes, format_duration

from .answers import Answer, Frame, NoAnswer
from .processes import is_alive
from .sources import Sources
from .states import DEAD, DISK_SLEEP, STOPPED, TRACING_STOP, ZOMBIE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from .answers import StackGroup
    from .processes import Process

MAX_PROCESSES = 40
MAX_ARGUMENT_CHARACTERS = 500
MAX_STACKS = 12  # of each kind, for one process
MAX_OWN_FRAMES = 8  # frames of the agent's own code in a stack
INNERMOST_FRAMES = 3  # always shown
PACKAGES = re.compile(r".*/(site|dist)-packages/")
LIBRARY = re.compile(r".*/lib/python3(\.\d+t?)?/")

STATES = {
    DISK_SLEEP: "in uninterruptible sleep",
    STOPPED: "stopped by a signal",
    TRACING_STOP: "stopped by a debugger",
    ZOMBIE: "zombie, not reaped by its parent",
    DEAD: "dead",
}

# --- The process tree. ------------------------------------------------------------------------------------------------


def process_lines(found: Sequence[Process]) -> Iterator[str]:
    """Yield a line for each process, parents first. Of more than MAX_PROCESSES, the most likely causes are shown."""
    if not found:
        yield "no processes left below agent-init"
    shown = {process.pid for process in sorted(found, key=_rank)[:MAX_PROCESSES]}
    for process in found:
        if process.pid in shown:
            yield _process_line(process)
    if len(found) > len(shown):
        yield f"and {_count(len(found) - len(shown), 'more process')}"


def _rank(process: Process) -> tuple[bool, bool, float, int]:
    """Sort key: the agent first, then what uses the most CPU time and memory, zombies last."""
    return not process.is_agent, process.is_dead, -(process.cpu or 0.0), -(process.memory or 0)


def _name(process: Process) -> str:
    return f"{process.title} (pid {process.pid})"


def _process_line(process: Process) -> str:
    parent = process.parent_name if process.parent_name == "agent-init" else f"{process.parent_name} ({process.parent})"
    parts = [_name(process), "the agent" if process.is_agent else f"child of {parent}"]
    if process.age is not None:
        parts.append(f"{_rounded_duration(process.age)} old")
    parts.append(STATES.get(process.state, process.state))
    if not process.is_dead:
        if process.threads is not None:
            parts.append(_count(process.threads, "thread"))
        if process.cpu is not None:
            parts.append(f"cpu {process.cpu:.2f}s {'since the stop' if process.is_cpu_since_baseline else 'in total'}")
        if process.memory is not None:
            parts.append(format_bytes(process.memory))
        if process.wait_channel:
            parts.append(f"waits in {process.wait_channel}")
    line = ", ".join(parts)
    return f"{line}: {shlex.join(process.arguments)[:MAX_ARGUMENT_CHARACTERS]}" if process.arguments else line


def _rounded_duration(seconds: float) -> str:
    return format_duration(round(seconds) if seconds >= 10 else round(seconds, 1))


def _count(number: int, noun: str) -> str:
    """Return `1 thread`, `3 threads`, `2 processes`."""
    plural = "" if number == 1 else "es" if noun.endswith("ss") else "s"
    return f"{number} {noun}{plural}"


# --- Answers, and processes without one. ------------------------------------------------------------------------------


def answer_lines(found: Sequence[Process], answered: Mapping[int, Answer | NoAnswer], *, stacks: bool) -> Iterator[str]:
    """Yield stacks and tasks: first the agent's own code in all processes, then who did not answer, then the rest.

    Processes with the same lines share them. `stacks`: whether every Python process was asked to answer (--stacks).
    """
    views = {p.pid: _AnswerView(answer) for p in found if isinstance(answer := answered.get(p.pid), Answer)}
    is_own_code_seen = any(view.has_own_code for view in views.values())
    pids_by_lines: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for process in sorted(found, key=lambda process: (not _has_own(views.get(process.pid)), not process.is_agent)):
        if (view := views.get(process.pid)) and not view.helper:
            lines = view.lines(Sources(process.pid), is_own_code_seen)
            pids_by_lines.setdefault(lines, []).append(str(process.pid))
    for (important, _), pids in pids_by_lines.items():
        yield from _with_pids(pids, important)
    for process in found:
        if isinstance(no_answer := answered.get(process.pid), NoAnswer):
            yield _no_answer_line(process, no_answer)
    for (_, other), pids in pids_by_lines.items():
        yield from _with_pids(pids, other)
    for process in found:
        if (view := views.get(process.pid)) and view.helper:
            yield f"{_name(process)} is multiprocessing's {view.helper}"
    yield from _unanswerable_lines(found, answered, stacks)


def task_lines(found: Sequence[Process], answered: Mapping[int, Answer | NoAnswer]) -> Iterator[str]:
    """Yield every task of every process that answers, with its state and where it is."""
    for process in found:
        answer = answered.get(process.pid)
        if isinstance(answer, Answer):
            sources = Sources(process.pid)
            yield from _with_pids([str(process.pid)], (_task_line(task, sources) for task in answer.tasks))
            if answer.tasks_cut:
                yield f"pid {process.pid}, {_count(answer.tasks_cut, 'more task')}"
            if not answer.is_complete:
                yield f"pid {process.pid}, incomplete answer"


def _task_line(task: StackGroup, sources: Sources) -> str:
    frame = task.frames[-1] if task.frames else None
    return f"{_head(task)}: " + (
        _frame_line(frame, sources).strip() if isinstance(frame, Frame) else "no Python frames"
    )


def _with_pids(pids: list[str], lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines, with the pids in front of those that are not indented."""
    for line in lines:
        yield line if line.startswith(" ") else f"pid {', '.join(pids)}, {line}"


def _no_answer_line(process: Process, no_answer: NoAnswer) -> str:
    line = f"{_name(process)} did not answer within {format_duration(round(no_answer.seconds, 1))}: "
    if process.state in (STOPPED, TRACING_STOP):
        return f"{line}it is {STATES[process.state]}"
    used = "" if no_answer.cpu is None else f", used {no_answer.cpu:.2f}s of CPU time meanwhile"
    waits = f", waits in {process.wait_channel}" if process.wait_channel else ""
    return f"{line}native code holds the GIL, or the process gets no CPU time{used}{waits}"


def _unanswerable_lines(found: Sequence[Process], answered: Mapping[int, object], stacks: bool) -> Iterator[str]:
    """Yield a line that names the Python processes that cannot answer, and why, if there are any."""
    candidates = (p for p in found if p.is_python and not p.is_dead and p.pid not in answered)
    unanswerable = [process for process in candidates if is_alive(process.pid)]  # some have ended since they were found
    if unanswerable:
        names = ", ".join(_name(process) for process in unanswerable[:5]) + (", ..." if len(unanswerable) > 5 else "")
        why = "started with -I, -E or -S, behind another sitecustomize, or in another network namespace"
        how = "run agent-init with --stacks, or use entrypoint.agent.run() in the agent"
        yield f"no stacks from {names}: {why if stacks else how}"


class _AnswerView:
    """The stacks of one process's answer, sorted by how much they explain.

    `has_own_code`: a stack has a frame of the agent's own code. `helper`: the kind of multiprocessing helper, or "".
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        main = [thread for thread in answer.threads if "main" in thread.flags]
        others = [thread for thread in answer.threads if thread not in main]
        self._in_loop = [thread for thread in main if _is_idle_in_loop(thread, answer)]
        self._idle = [thread for thread in others if _is_idle_in_pool(thread)]
        busy = [thread for thread in main if thread not in self._in_loop]
        tasks = sorted(answer.tasks, key=lambda task: (not task.flags & {"cancelling", "running"}, -task.count))
        self._stacks = [*busy, *tasks, *(thread for thread in others if thread not in self._idle)]
        self.has_own_code = any(_has_own_code(group) for group in self._stacks)
        self.helper = _helper(answer)

    def lines(self, sources: Sources, is_own_code_seen: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the important lines and the other lines.

        Important stacks are shown whole: the agent's own code, a main thread that is not idle, a task that was
        cancelled and has not ended. Library stacks take a line each, unless no process runs code of the agent's own.
        """
        important = [group for group in self._stacks if _is_important(group) or not is_own_code_seen]
        # A framework's idle connection may wait in a task that was cancelled too.
        important = sorted(important, key=lambda group: not ("main" in group.flags or _has_own_code(group)))[
            :MAX_STACKS
        ]
        others = [group for group in self._stacks if group not in important]
        loop = [f"{_head(group)}: idle in its event loop" for group in self._in_loop]
        whole = [line for group in important for line in _whole_stack(group, sources)]
        brief = [*self._lag_lines(), *(_one_line(group, sources) for group in others[:MAX_STACKS])]
        if idle := sum(group.count for group in self._idle):
            brief.append(_count(idle, "idle pool thread"))
        brief += self._cut(others[MAX_STACKS:])
        return (tuple(loop + whole), tuple(brief)) if whole else ((), tuple(loop + brief))

    def _lag_lines(self) -> list[str]:
        lags = self._answer.lags
        if lags is None or not lags.blocked:
            return []
        times = "once" if lags.blocked == 1 else f"{lags.blocked} times"
        return [f"an event loop was blocked {times} for more than {format_duration(lags.limit)}"]

    def _cut(self, groups: Sequence[StackGroup]) -> list[str]:
        """Return lines that count what is not shown: these groups, and what the process left out of its answer."""
        tasks = self._answer.tasks_cut + sum(group.count for group in groups if group.is_task)
        threads = self._answer.threads_cut + sum(group.count for group in groups if not group.is_task)
        counts = [_count(number, f"more {noun}") for number, noun in ((tasks, "task"), (threads, "thread")) if number]
        lines = [" and ".join(counts)] if counts else []
        return lines if self._answer.is_complete else [*lines, "incomplete answer"]


def _has_own(view: _AnswerView | None) -> bool:
    return view is not None and view.has_own_code


def _helper(answer: Answer) -> str:
    """Return multiprocessing's name for a helper process of its own that waits for work, or "" for any other."""
    for thread in answer.threads:
        files = [_short_path(frame.file)[0] for frame in thread.frames if isinstance(frame, Frame)]
        if "main" in thread.flags and files and not answer.tasks:
            if "multiprocessing/resource_tracker.py" in files:
                return "resource tracker"
            if "multiprocessing/forkserver.py" in files and files[-1] in (
                "selectors.py",
                "multiprocessing/forkserver.py",
            ):
                return "fork server"
    return ""


def _has_own_code(group: StackGroup) -> bool:
    return any(isinstance(frame, Frame) and _short_path(frame.file)[1] for frame in group.frames)


def _is_important(group: StackGroup) -> bool:
    return bool(group.flags & {"main", "cancelling", "running"}) or _has_own_code(group)


def _is_idle_in_pool(thread: StackGroup) -> bool:
    """Whether it is a thread pool's worker that waits for work."""
    last = thread.frames[-1] if thread.frames else None
    idle = (("_worker", "concurrent/futures/thread.py"), ("DaemonThreadPool._work", "agent/executor.py"))
    return isinstance(last, Frame) and any(last.function == name and last.file.endswith(file) for name, file in idle)


def _is_idle_in_loop(thread: StackGroup, answer: Answer) -> bool:
    """Whether this thread's event loop waits for events. uvloop has no Python frames of its own."""
    frames = [frame for frame in thread.frames if isinstance(frame, Frame)]
    if not frames:
        return False
    last = _short_path(frames[-1].file)[0]
    if last == "selectors.py":
        return any(_short_path(frame.file)[0] == "asyncio/base_events.py" for frame in frames)
    return last == "asyncio/runners.py" and any(task.loop.startswith("uvloop") for task in answer.tasks)


def _head(group: StackGroup) -> str:
    """Return `task save`, `12 tasks (Task-3, ...), awaits task x`, `thread uploader (daemon)`, `main thread`."""
    if "main" in group.flags:
        return "main thread"
    kind = "task" if group.is_task else "thread"
    more = ", ..." if group.count > group.names.count(", ") + 1 else ""
    parts = [f"{kind} {group.names}" if group.count == 1 else f"{group.count} {kind}s ({group.names}{more})"]
    if "daemon" in group.flags:
        parts[0] += " (daemon)"
    if "cancelling" in group.flags:
        parts.append("cancelled but not finished")
    if "running" in group.flags:
        parts.append("running: see its thread")
    elif group.is_task and not group.awaits:
        parts.append("ready to run")
    elif group.awaits.startswith("task ") or " of " in group.awaits:
        parts.append(f"awaits {group.awaits}")
    elif group.is_task and not group.awaits.endswith(".Future"):
        parts.append(f"awaits a {group.awaits}")
    return ", ".join(parts)


def _whole_stack(group: StackGroup, sources: Sources) -> list[str]:
    if "running" in group.flags:
        return [_head(group)]
    return [f"{_head(group)}:", *_stack_lines(group.frames, sources)]


def _one_line(group: StackGroup, sources: Sources) -> str:
    """Return the head and the innermost frame of an installed package, or of any code if there is none."""
    frames = [frame for frame in group.frames if isinstance(frame, Frame)]
    packages = [frame for frame in frames if PACKAGES.search(frame.file)] or frames
    return f"{_head(group)}: " + (_frame_line(packages[-1], sources).strip() if packages else "no Python frames")


# --- Stacks. ----------------------------------------------------------------------------------------------------------


def _stack_lines(frames: Sequence[Frame | int], sources: Sources) -> list[str]:
    """Return a line for each frame, innermost last, without library code in the middle and without thread start-up."""
    begin = 0
    while begin < len(frames) - 1 and _is_thread_startup(frames[begin]):
        begin += 1
    frames = frames[begin:]
    own = [at for at, frame in enumerate(frames) if isinstance(frame, Frame) and _short_path(frame.file)[1]]
    shown = {*own[-MAX_OWN_FRAMES:], *range(max(0, len(frames) - INNERMOST_FRAMES), len(frames))}
    lines = []
    for is_shown, run in groupby(range(len(frames)), key=lambda at: at in shown):
        if is_shown:
            lines += [_frame_line(frame, sources) for at in run if isinstance(frame := frames[at], Frame)]
        else:
            lines.append(_omitted_line([frames[at] for at in run]))
    return lines or ["    no Python frames"]


def _is_thread_startup(frame: Frame | int) -> bool:
    return (
        isinstance(frame, Frame)
        and _short_path(frame.file)[0] == "threading.py"
        and frame.function.rpartition(".")[2] in ("_bootstrap", "_bootstrap_inner", "run")
    )


def _omitted_line(frames: Iterable[Frame | int]) -> str:
    number, packages = 0, dict[str, None]()  # a dict keeps the order
    for frame in frames:
        number += frame if isinstance(frame, int) else 1
        if isinstance(frame, Frame):
            packages[_short_path(frame.file)[0].partition("/")[0].removesuffix(".py")] = None
    return f"    ... {_count(number, 'frame')}" + (f" in {', '.join(list(packages)[:4])}" if packages else "")


def _frame_line(frame: Frame, sources: Sources) -> str:
    source = sources.line(frame.file, frame.line)
    line = f":{frame.line}" if frame.line else ""  # Cython code may have no line numbers
    return f"    {_short_path(frame.file)[0]}{line} in {frame.function}" + (f": {source}" if source else "")


def _short_path(file: str) -> tuple[str, bool]:
    """Return the path relative to its library, and whether it is the agent's own code: in no package or library."""
    library = PACKAGES.match(file) or LIBRARY.match(file)
    return (file[library.end() :], False) if library else (file, not file.startswith("<frozen "))

"""The lines of a stall report, made of what `processes` and `answers` found."""

from __future__ import annotations

import re
import shlex
from itertools import groupby
from typing import TYPE_CHECKING

import psutil

from entrypoint.units import format_bytes, format_duration

from .answers import Answer, Frame, Silence
from .processes import is_alive
from .sources import Sources

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from .answers import Alike
    from .processes import Process

MOST_PROCESSES = 40
MOST_ARGUMENTS = 500  # characters
MOST_ALIKE = 12  # stacks of a process
OWN_FRAMES = 8  # that are told of a stack: the agent's own
INNERMOST = 3  # those that are told whoever's they are
PACKAGES = re.compile(r".*/(site|dist)-packages/")
LIBRARY = re.compile(r".*/lib/python3(\.\d+t?)?/")

STATES = {
    psutil.STATUS_DISK_SLEEP: "in uninterruptible sleep",
    psutil.STATUS_STOPPED: "stopped by a signal",
    psutil.STATUS_TRACING_STOP: "stopped by a debugger",
    psutil.STATUS_ZOMBIE: "dead, its parent has not noticed",
    psutil.STATUS_DEAD: "dead",
}

# --- The tree. --------------------------------------------------------------------------------------------------------


def tree(found: Sequence[Process]) -> Iterator[str]:
    """A line for each process, parents first; of very many, those that are most likely to be the cause."""
    if not found:
        yield "no process is left below agent-init"
    useful = sorted(found, key=_rank)[:MOST_PROCESSES]
    kept = {process.pid for process in useful}
    for process in found:
        if process.pid in kept:
            yield _process(process)
    if len(found) > len(kept):
        yield f"and {_many(len(found) - len(kept), 'process')} more"


def _rank(process: Process) -> tuple[bool, bool, float, int]:
    return not process.is_agent, process.is_dead, -(process.cpu or 0.0), -(process.memory or 0)


def name_of(process: Process) -> str:
    return f"{process.name} (pid {process.pid})"


def _process(process: Process) -> str:
    parent = process.parent_name if process.parent_name == "agent-init" else f"{process.parent_name} ({process.parent})"
    parts = [name_of(process), "the agent" if process.is_agent else f"child of {parent}"]
    if process.age is not None:
        parts.append(f"{_seconds(process.age)} old")
    parts.append(STATES.get(process.state, process.state))
    if not process.is_dead:
        if process.threads is not None:
            parts.append(_many(process.threads, "thread"))
        if process.cpu is not None:
            parts.append(f"cpu {process.cpu:.2f}s {'since the stop' if process.is_cpu_since else 'in all'}")
        if process.memory is not None:
            parts.append(format_bytes(process.memory))
        if process.waits_in:
            parts.append(f"waits in {process.waits_in}")
    line = ", ".join(parts)
    return f"{line}: {shlex.join(process.arguments)[:MOST_ARGUMENTS]}" if process.arguments else line


def _seconds(seconds: float) -> str:
    return format_duration(round(seconds) if seconds >= 10 else round(seconds, 1))


def _many(number: int, what: str) -> str:
    plural = "" if number == 1 else "es" if what.endswith("ss") else "s"
    return f"{number} {what}{plural}"


# --- Who answered, and who did not. -----------------------------------------------------------------------------------


def answers(found: Sequence[Process], answered: Mapping[int, Answer | Silence], *, stacks: bool) -> Iterator[str]:
    """Stacks and tasks: of all processes those in the agent's own code first, then who does not answer, then the rest.

    Processes that tell the same are told of together. `stacks`: whether each Python was to answer (--stacks).
    """
    looks = {p.pid: _Look(answer) for p in found if isinstance(answer := answered.get(p.pid), Answer)}
    is_own_code_seen = any(look.is_own_code_seen for look in looks.values())
    bodies: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for process in sorted(found, key=lambda process: not process.is_agent):
        if (look := looks.get(process.pid)) and not look.helper:
            body = look.lines(Sources(process.pid), is_own_code_seen)
            bodies.setdefault(body, []).append(str(process.pid))
    for (first, _), pids in bodies.items():
        yield from _of(pids, first)
    for process in found:
        if isinstance(silence := answered.get(process.pid), Silence):
            yield _silence(process, silence)
    for (_, second), pids in bodies.items():
        yield from _of(pids, second)
    for process in found:
        if (look := looks.get(process.pid)) and look.helper:
            yield f"{name_of(process)} is multiprocessing's {look.helper}"
    yield from _mute(found, answered, stacks)


def _of(pids: list[str], lines: Iterable[str]) -> Iterator[str]:
    """Lines, the heads among them with the processes in front."""
    for line in lines:
        yield line if line.startswith(" ") else f"pid {', '.join(pids)}, {line}"


def _silence(process: Process, silence: Silence) -> str:
    line = f"{name_of(process)} did not answer within {format_duration(round(silence.seconds, 1))}: "
    used = "" if silence.cpu is None else f", used {silence.cpu:.2f}s of a processor meanwhile"
    if process.state in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP):
        return f"{line}it is {STATES[process.state]}"
    waits = f", waits in {process.waits_in}" if process.waits_in else ""
    return f"{line}code in C holds the GIL, or the process gets no processor{used}{waits}"


def _mute(found: Sequence[Process], answered: Mapping[int, object], stacks: bool) -> Iterator[str]:
    """Python processes that have no way to answer, and how that may be."""
    candidates = (p for p in found if p.is_python and not p.is_dead and p.pid not in answered)
    mute = [process for process in candidates if is_alive(process.pid)]  # many a one has ended meanwhile
    if mute:
        names = ", ".join(name_of(process) for process in mute[:5]) + (", ..." if len(mute) > 5 else "")
        why = "started with -I, -E or -S, behind another sitecustomize, or in another network namespace"
        how = "agent-init --stacks, or entrypoint.agent.run() in the agent, would have them"
        yield f"no stacks from {names}: {why if stacks else how}"


class _Look:
    """What a process told, in order of its value."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        main = [alike for alike in answer.threads if "main" in alike.flags]
        others = [alike for alike in answer.threads if alike not in main]
        self._in_loop = [alike for alike in main if _is_in_loop(alike, answer)]
        self._idle = [alike for alike in others if _is_idle(alike)]
        busy = [alike for alike in main if alike not in self._in_loop]
        tasks = sorted(answer.tasks, key=lambda task: (not task.flags & {"cancelling", "running"}, -task.count))
        self._stacks = [*busy, *tasks, *(alike for alike in others if alike not in self._idle)]
        self.is_own_code_seen = any(_has_own_code(alike) for alike in self._stacks)
        self.helper = _helper(answer)

    def lines(self, sources: Sources, is_own_code_seen: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """First whole stacks: of the agent's own code, of a main thread that is not idle, of a task that was cancelled
        and goes on. Then in a line each what libraries do; whole, where no code of the agent's own is seen anywhere.
        """
        valued = [alike for alike in self._stacks if _is_valued(alike) or not is_own_code_seen][:MOST_ALIKE]
        others = [alike for alike in self._stacks if alike not in valued]
        loop = [f"{_head(alike)}: waits in its event loop" for alike in self._in_loop]
        first = [line for alike in valued for line in _whole(alike, sources)]
        second = [_in_a_line(alike, sources) for alike in others[:MOST_ALIKE]]
        if idle := sum(alike.count for alike in self._idle):
            second.append(f"{_many(idle, 'thread')} of a pool idle")
        left = others[MOST_ALIKE:]
        tasks = self._answer.tasks_left + sum(alike.count for alike in left if alike.is_task)
        threads = self._answer.threads_left + sum(alike.count for alike in left if not alike.is_task)
        if tasks or threads:
            counts = [_many(number, what) for number, what in ((tasks, "task"), (threads, "thread")) if number]
            second.append(f"{' and '.join(counts)} more")
        if not self._answer.is_whole:
            second.append("the answer was cut short")
        return (tuple(loop + first), tuple(second)) if first else ((), tuple(loop + second))


def _helper(answer: Answer) -> str:
    """What `multiprocessing` calls a process of its own that waits for something to do; "" for any other."""
    for alike in answer.threads:
        files = [_short(frame.file)[0] for frame in alike.frames if isinstance(frame, Frame)]
        if "main" in alike.flags and files and not answer.tasks:
            if "multiprocessing/resource_tracker.py" in files:
                return "resource tracker"
            if "multiprocessing/forkserver.py" in files and files[-1] in (
                "selectors.py",
                "multiprocessing/forkserver.py",
            ):
                return "fork server"
    return ""


def _has_own_code(alike: Alike) -> bool:
    return any(isinstance(frame, Frame) and _short(frame.file)[1] for frame in alike.frames)


def _is_valued(alike: Alike) -> bool:
    return bool(alike.flags & {"main", "cancelling", "running"}) or _has_own_code(alike)


def _is_idle(thread: Alike) -> bool:
    """A worker of a pool that waits for work."""
    last = thread.frames[-1] if thread.frames else None
    return isinstance(last, Frame) and last.function == "_worker" and last.file.endswith("concurrent/futures/thread.py")


def _is_in_loop(thread: Alike, answer: Answer) -> bool:
    """Whether nothing runs in the event loop of this thread. uvloop has no frames of its own."""
    frames = [frame for frame in thread.frames if isinstance(frame, Frame)]
    if not frames:
        return False
    last = _short(frames[-1].file)[0]
    if last == "selectors.py":
        return any(_short(frame.file)[0] == "asyncio/base_events.py" for frame in frames)
    return last == "asyncio/runners.py" and any(task.loop.startswith("uvloop") for task in answer.tasks)


def _head(alike: Alike) -> str:
    """`task save`, `12 tasks (Task-3, ...), awaits task x`, `thread uploader (daemon)`, `main thread`."""
    if "main" in alike.flags:
        return "main thread"
    kind = "task" if alike.is_task else "thread"
    more = ", ..." if alike.count > alike.names.count(", ") + 1 else ""
    parts = [f"{kind} {alike.names}" if alike.count == 1 else f"{alike.count} {kind}s ({alike.names}{more})"]
    if "daemon" in alike.flags:
        parts[0] += " (daemon)"
    if "cancelling" in alike.flags:
        parts.append("cancelled, goes on")
    if "running" in alike.flags:
        parts.append("is running: see its thread")
    elif alike.is_task and not alike.awaits:
        parts.append("is to run next")
    elif alike.awaits.startswith("task ") or " of " in alike.awaits:
        parts.append(f"awaits {alike.awaits}")
    elif alike.is_task and not alike.awaits.endswith(".Future"):
        parts.append(f"awaits a {alike.awaits}")
    return ", ".join(parts)


def _whole(alike: Alike, sources: Sources) -> list[str]:
    if "running" in alike.flags:
        return [_head(alike)]
    return [f"{_head(alike)}:", *_stack(alike.frames, sources)]


def _in_a_line(alike: Alike, sources: Sources) -> str:
    """The innermost frame of a library, as what the standard library does for it is much alike."""
    frames = [frame for frame in alike.frames if isinstance(frame, Frame)]
    libraries = [frame for frame in frames if PACKAGES.search(frame.file)] or frames
    return f"{_head(alike)}: " + (_frame(libraries[-1], sources).strip() if libraries else "no Python frame")


# --- Stacks. ----------------------------------------------------------------------------------------------------------


def _stack(frames: Sequence[Frame | int], sources: Sources) -> list[str]:
    """The innermost frame last. Of others' code that in the middle is left out, and how threads begin."""
    begins = 0
    while begins < len(frames) - 1 and _begins_thread(frames[begins]):
        begins += 1
    frames = frames[begins:]
    own = [at for at, frame in enumerate(frames) if isinstance(frame, Frame) and _short(frame.file)[1]]
    kept = {*own[-OWN_FRAMES:], *range(max(0, len(frames) - INNERMOST), len(frames))}
    lines = []
    for is_kept, run in groupby(range(len(frames)), key=lambda at: at in kept):
        if is_kept:
            lines += [_frame(frame, sources) for at in run if isinstance(frame := frames[at], Frame)]
        else:
            lines.append(_left_out([frames[at] for at in run]))
    return lines or ["    no Python frame"]


def _begins_thread(frame: Frame | int) -> bool:
    return (
        isinstance(frame, Frame)
        and _short(frame.file)[0] == "threading.py"
        and frame.function.rpartition(".")[2] in ("_bootstrap", "_bootstrap_inner", "run")
    )


def _left_out(frames: Iterable[Frame | int]) -> str:
    number, places = 0, dict[str, None]()
    for frame in frames:
        number += frame if isinstance(frame, int) else 1
        if isinstance(frame, Frame):
            places[_short(frame.file)[0].partition("/")[0].removesuffix(".py")] = None
    return f"    ... {_many(number, 'frame')}" + (f" in {', '.join(list(places)[:4])}" if places else "")


def _frame(frame: Frame, sources: Sources) -> str:
    source = sources.line(frame.file, frame.line)
    line = f":{frame.line}" if frame.line else ""  # code in Cython may have none
    return f"    {_short(frame.file)[0]}{line} in {frame.function}" + (f": {source}" if source else "")


def _short(file: str) -> tuple[str, bool]:
    """A path as people know it, and whether it is the agent's own code: no package, not the standard library."""
    library = PACKAGES.match(file) or LIBRARY.match(file)
    return (file[library.end() :], False) if library else (file, not file.startswith("<frozen "))

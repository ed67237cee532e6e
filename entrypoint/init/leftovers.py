"""What is below an agent that exits during a stop: work that has been signalled, or not yet, or mere helpers.

An agent that got the stop signal itself may be a wrapper that exits before the program that it runs (an EXIT trap, a
launcher in Node or Go without a handler, npm). Then that program has the rest of the grace period, as below a wrapper
that was looked through. What counts as such a wrapper:

    it died of the stop signal      of the default action that its runtime leaves in force, mostly (Node, Go, Ruby), or
                                    once it has ended its own shell (npm, yarn), or after an EXIT trap (bash). But one
                                    that handles INT has cleaned up before it died of it (Python's KeyboardInterrupt)
    it exited with a code           a shell, a wrapper known by name, any process whose main thread waited for just that
                                    child (wait4(2), waitid(2)), and a program for Node that has no sockets and exits
                                    within a second; any other is an agent that has finished its drain

A wrapper whose work has exited does not count: it has waited for it, and what is left beside it (Xvfb) is not work. But
a shell with two jobs may have waited for one of them, and have signalled both. A child on a pipe that it made is a
helper (an MCP server), no work either.

Whether the wrapper has sent the stop signal to a process below it, no system call shows. A second one ends many servers
at once, and without one none stops, so the evidence is weighed. In this order:

    the process has slept all the time          no: a signal wakes the main thread (its context switches in `status`)
    it is no direct child                       no: a wrapper signals its child, a shell mostly, which has died of it
    a shell's script (-c) without `kill`        no
    a shell's foreground job                    no: a trap runs once the job is over, an EXIT trap at once; both are
                                                there to clean up. See `foreground`
    a shell's background job                    yes: `trap 'kill $!' TERM`, `trap 'kill 0' EXIT`; but if the script is
                                                a file, not where the shell died of the signal: without a trap, or
                                                after an EXIT trap. mksh that dies of a signal sends it to its group.
    any other wrapper that died of the signal   no: it is its runtime's default action
    watch(1)                                    no: it exits at once
    any other wrapper that exited with a code   yes: it caught the signal

A process that was signalled for certain, or in all likelihood, gets no second signal, but at the end: 2 s before the
SIGKILL the stop signal can do no more harm. All others get it at once.
"""

import posix
import time

from ..signals import INT
from . import dispositions, foreground, names, procfs, recipients, tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .procfs import Process

SIGNALS_NOBODY = frozenset(("watch",))  # ... but exits with a code
EVENT_LOOPS = frozenset(("node", "nodejs", "bun", "deno"))  # they wait for everything in one place
AT_ONCE = 1.0  # seconds in which such a launcher exits if it has no work of its own
MAX_DESCRIPTORS = 256  # of a wrapper
# At what is below wrappers: the stop signal waits for it. So many are looked at in any case, as process 1 may get no
# processor meanwhile.
MAX_LOOK_SECONDS, MIN_LOOKED_AT = 0.05, 16
P_PID = 1  # the first argument of waitid(2): the second is a pid


class _Allowance:
    """How many processes may be looked at."""

    __slots__ = ("_left", "_until")

    def __init__(self) -> None:
        self._until, self._left = time.monotonic() + MAX_LOOK_SECONDS, MIN_LOOKED_AT

    def is_used_up(self) -> bool:
        """Whether no other may be looked at; if not, one is."""
        self._left -= 1
        return self._left < 0 and time.monotonic() > self._until


class _Below:
    """A process below a wrapper, as it was before the wrapper got the stop signal.

    `is_work`: it is not ended by the signal at once.
    """

    __slots__ = ("handles", "in_background", "is_work", "process", "switches")

    def __init__(self, process: "Process", number: int, *, adapts: bool, in_background: bool) -> None:
        self.process, self.in_background = process, in_background
        self.handles = dispositions.handles(process, number) is True or (adapts and dispositions.prefers_int(process))
        self.is_work = self.handles or dispositions.handles_or_ignores(process, number) is True
        status = _status(process.pid)
        self.switches = _switches_asleep(status, number)


class Wrapper:
    """A process that gets the stop signal itself, and what is below it at that moment.

    That is all that does not handle the signal, and the topmost that do, as for the agent itself.
    """

    __slots__ = (
        "_awaited",
        "_below",
        "_cleans_up",
        "_has_trap",
        "_is_known",
        "_is_shell",
        "_number",
        "_only_runs_until",
        "_pid",
        "_script",
        "_signals_group",
        "_signals_nobody",
    )

    def __init__(
        self,
        process: "Process",
        children_of: "Callable[[int], list[Process]]",
        number: int,
        *,
        adapts: bool,
        is_enough: "Callable[[], bool]" = bool,  # False
    ) -> None:
        """`adapts`: see `Delivery.stop`. `is_enough`: whether to look no further; asked before each look."""
        self._pid, self._number = process.pid, number
        self._is_shell = procfs.is_shell(process)
        self._is_known = self._is_shell or names.is_wrapper(process)
        programs = procfs.program_names(process)
        self._signals_nobody = not SIGNALS_NOBODY.isdisjoint(programs)
        self._script = _script(process.pid) if self._is_shell else None
        self._has_trap = self._is_shell and foreground.has_trap(process, number)
        self._signals_group = process.group == process.pid and not procfs.PDKSH.isdisjoint(programs)
        is_event_loop = not EVENT_LOOPS.isdisjoint(programs)
        self._cleans_up = number == INT and not is_event_loop and dispositions.handles(process, number) is True
        self._awaited = {_awaited_child(process.pid)} - {0}  # and what is below it
        self._below: list[_Below] = []
        to_look_at = children_of(process.pid)
        may_have_helpers = not self._is_known and bool(to_look_at)
        held: dict[str, list[str]] | None = {}
        if is_event_loop or may_have_helpers:
            held = procfs.descriptors(process.pid, MAX_DESCRIPTORS)  # once: there may be many children
        only_runs = is_event_loop and not _has_sockets(held)
        self._only_runs_until = time.monotonic() + AT_ONCE if only_runs else 0.0
        if may_have_helpers:
            if held is None:  # no wrapper has so many
                return
            to_look_at = [child for child in to_look_at if not recipients.is_helper(child, process, held)]
        to_look_at = list(to_look_at)
        in_foreground = {child.pid for child in foreground.children(process, to_look_at)} if self._is_shell else set()
        for child in to_look_at:  # grows meanwhile
            if is_enough():
                break
            if child.parent in self._awaited:
                self._awaited.add(child.pid)
            entry = _Below(child, number, adapts=adapts, in_background=child.pid not in in_foreground)
            self._below.append(entry)
            if not entry.handles:
                to_look_at += children_of(child.pid)

    def left(self, *, died: bool) -> "tuple[list[Process], list[Process]]":
        """It has exited. Return the work below it, and those of it that it may have signalled.

        `died`: of the stop signal, as far as is known.
        """
        there = [entry for entry in self._below if procfs.is_there(entry.process)]
        jobs = [entry for entry in there if entry.is_work and self._may_have_signalled(entry, died=died)]
        if any(entry.handles and entry not in there for entry in self._below):
            # It has waited for its work. A shell with two jobs may have waited for one of them: `wait $a; wait $b`.
            of_shell = [entry.process for entry in jobs] if self._is_shell else []
            return of_shell, of_shell
        died_by_default = died and not self._cleans_up
        is_wrapper = died_by_default or self._is_known or time.monotonic() < self._only_runs_until
        work = [entry for entry in there if entry.is_work and (is_wrapper or entry.process.pid in self._awaited)]
        return [entry.process for entry in work], [entry.process for entry in work if entry in jobs]

    def _may_have_signalled(self, entry: _Below, *, died: bool) -> bool:
        switches = _switches_asleep(_status(entry.process.pid), self._number)
        has_slept = switches is not None and switches == entry.switches
        if has_slept or entry.process.parent != self._pid:
            return False
        if self._is_shell and died and self._signals_group:
            return entry.in_background
        if self._is_shell:
            may_have = not died or self._has_trap if self._script is None else "kill" in self._script
            return entry.in_background and may_have
        return not died and not self._signals_nobody


class Departures:
    """Finds the work that goes on after the exit of wrappers: of the agent, of those below it, and so on.

    `work`: processes that have got the stop signal, or are to get it. `statuses`: the wait statuses of those that have
    exited, by pid, as far as they are known.
    """

    __slots__ = ("_wrappers", "statuses", "work")

    def __init__(self) -> None:
        self._wrappers: dict[tuple[int, int], tuple[int, Wrapper]] = {}
        self.work: list[Process] = []
        self.statuses: dict[int, int] = {}

    def note(self, processes: "Sequence[Process]", seen: "Sequence[Process]", number: int, *, adapts: bool) -> None:
        """These are about to get the stop signal. `seen`: all our descendants."""
        children_of = tree.children_among({process.pid: process for process in seen})
        is_enough = _Allowance().is_used_up
        for process in processes:
            self.statuses.pop(process.pid, None)  # of another that had its pid
            if children_of(process.pid):
                made = Wrapper(process, children_of, number, adapts=adapts, is_enough=is_enough)
                self._wrappers[process.identity] = number, made

    def look(self, former: "Sequence[Process]", *, died: bool = False) -> "list[Process]":
        """Find the work: those of the former that are still there, and what was below those that have exited.

        `died`: whether these have died of the stop signal, where no status is known. Return those that a wrapper is
        likely to have signalled in our place.
        """
        signalled: list[Process] = []
        self.work = [process for process in former if process.pid not in self.statuses and procfs.is_there(process)]
        for process in former:
            if process in self.work or process.identity not in self._wrappers:
                continue
            number, wrapper = self._wrappers[process.identity]
            status = self.statuses.get(process.pid)
            killed_by = posix.WTERMSIG(status) if status is not None and posix.WIFSIGNALED(status) else 0
            below, of_them = wrapper.left(died=died if status is None else killed_by == number)
            self.work += below
            signalled += of_them
        return signalled


def topmost(
    processes: "Sequence[Process]",
    acts_on_it: "Callable[[Process], bool]",
    had_it: "Callable[[Process], bool]",
    foreground_of: "Callable[[Process], Sequence[Process]]" = lambda _: (),
    *,
    works_on: bool,
) -> "tuple[list[Process], list[Process]]":
    """Return which leftover processes are to get the stop signal now, and which have to wait.

    `processes`: all of them, parents before their children. `acts_on_it`: whether a process acts on the signal;
    `had_it`: whether it has had it. Below one that does, processes wait until it has exited: a pool's workers. So do
    those above and beside it, the shell that runs it and tee(1), and where work goes on, all that do not act on it.
    """
    top: dict[int, int] = {}  # for each process the topmost above it
    busy: set[int] = set()  # of them those at or below which a process acts on the signal, or has had it
    covered: set[int] = set()  # such processes, and those below them
    awaited: set[int] = set()  # by a shell that has had it or gets it now, and runs its trap after their exit
    now, others, later = [], [], []
    for process in processes:
        top[process.pid] = top.get(process.parent, process.pid)
        if (process.parent in covered and process.pid not in awaited) or had_it(process):
            covered.add(process.pid)
            busy.add(top[process.pid])
            if had_it(process):
                awaited.update(child.pid for child in foreground_of(process))
            else:
                later.append(process)
        elif acts_on_it(process):
            covered.add(process.pid)
            awaited.update(child.pid for child in foreground_of(process))
            busy.add(top[process.pid])
            now.append(process)
        else:
            others.append(process)
    for process in others:
        (later if works_on or top[process.pid] in busy else now).append(process)
    return now, later


def _awaited_child(pid: int) -> int:
    """Return the child that its main thread waits for; 0 if it waits for any or for none, or if that is not known."""
    if not procfs.waits_for_child(pid) or not (call := procfs.system_call(pid)):
        return 0
    _, first, second, *_ = call
    child = second if first == P_PID else first
    return child if child < 1 << 31 else 0  # a negative number names any child, or a process group


def _has_sockets(held: "dict[str, list[str]] | None") -> bool:
    """Whether there are sockets other than stdin, stdout and stderr; True if that is not known. `held`: descriptors."""
    if not held:
        return True
    return any(target.startswith("socket:") and {"0", "1", "2"}.isdisjoint(fds) for target, fds in held.items())


def _script(pid: int) -> str | None:
    """Return the text that a shell runs, if that is an argument of it (-c)."""
    argv = procfs.argv_of(pid)
    for index, option in enumerate(argv[1:-1], 1):
        if option.startswith("-") and not option.startswith("--") and option.endswith("c"):
            return argv[index + 1]
        if not option.startswith(("-", "+")) and not argv[index - 1].endswith("o"):  # bash -o pipefail
            break  # a file
    return None


def _status(pid: int) -> dict[bytes, bytes]:
    """Return the fields of /proc/pid/status; none if it cannot be read, or if it does not show what is true."""
    if dispositions.masks_are_false():
        return {}
    try:
        lines = procfs.read_file(f"/proc/{pid}/status", 65536).split(b"\n")  # its groups are in it, all of them
    except OSError:
        return {}
    return dict(line.split(b":\t", 1) for line in lines if b":\t" in line)


def _mask(status: dict[bytes, bytes], name: bytes) -> int:
    """Return a signal mask; 0 if it is not known."""
    return int(status.get(name, b"0"), 16)


def _switches_asleep(status: dict[bytes, bytes], number: int) -> int | None:
    """Return how often its main thread has been switched from; None while it runs, or if that is not known.

    As long as the number stays the same, the thread has slept, and has seen no signal. A blocked signal does not
    wake it, and a pending one may have come before.
    """
    try:
        voluntary, others = status[b"voluntary_ctxt_switches"], status[b"nonvoluntary_ctxt_switches"]
        on_its_way = (
            _mask(status, b"SigPnd") | _mask(status, b"ShdPnd") | _mask(status, b"SigBlk")
        ) & dispositions.signal_bit(number)
        return None if on_its_way or status[b"State"].startswith(b"R") else int(voluntary) + int(others)
    except (KeyError, ValueError):
        return None

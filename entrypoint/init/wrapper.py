"""What a wrapper does once the processes behind it have exited by the stop signal.

exiting     it has no children any more, or only other wrappers: most exit at once, with the right code
working     it has started something new, such as an upload, or it runs itself: clean-up, which has the rest of the
            grace period
serving     what it has started handles the stop signal, as a server does: it may be its next program, and no clean-up
waiting     for a child that is older than the stop, such as `tail -f /dev/null`, or for sleep(1): it would stay
cleaning    it does so in its trap for EXIT, most likely: for a job that it has signalled (`kill $!; wait`), or with
            sleeps of a second at most (`while kill -0 $!; do sleep 0.1; done`)
restarting  it has started one of its programs again: nothing starts work after a stop request. With other arguments
            that may be clean-up (`manage.py`), unless it handles the stop signal, as a program that stays does, or
            is the second one
"""

from . import dispositions, foreground, names, procfs, recipients, tree
from .lifecycle import CLEANING, EXITING, RESTARTING, SERVING, WAITING, WORKING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .procfs import Process


MAX_SLEEP = 1.0  # seconds of a sleep(1) in a loop that waits for the end of a process


class Wrapper:
    """The agent as a wrapper: what was below it when the stop signal was sent to `recipients`."""

    __slots__ = ("_argv", "_argvs", "_between", "_has_exit_trap", "_number", "_older", "_programs", "_root", "_started")

    def __init__(
        self, root: "Process", recipients: "Sequence[Process]", number: int, seen: "dict[int, Process]"
    ) -> None:
        self._root, self._number, self._argv = root, number, procfs.argv_of(root.pid)
        self._argvs = [argv for recipient in recipients if (argv := procfs.argv_of(recipient.pid))]
        self._programs = {program for argv in self._argvs if (program := names.program(argv))}
        self._started: set[tuple[int, int]] = set()  # of these programs, after the recipients have exited
        self._older = {process.identity for process in tree.below(root.pid, seen)}
        self._between = {root.identity}  # the wrappers from the root down to the recipients
        self._has_exit_trap = foreground.has_exit_trap(root)
        for recipient in recipients:
            above = seen.get(recipient.parent)
            while above is not None and above.identity not in self._between:
                self._between.add(above.identity)
                self._has_exit_trap = self._has_exit_trap or foreground.has_exit_trap(above)
                above = seen.get(above.parent)

    def look(self) -> "tuple[str, list[Process]]":
        """Return what it does, and the processes that need the stop signal so that it stops. Raises OSError.

        Where it is working, these may be clean-up, and get the signal late.
        """
        seen = tree.everything()
        below = [p for p in tree.below(self._root.pid, seen) if p.identity not in self._between]
        new = [process for process in below if process.identity not in self._older]
        if again := [process for process in new if self._runs_again(process)]:
            return RESTARTING, [*again, self._root]
        if started := [process for process in new if not _is_sleep(process)]:
            serving = [process for process in started if dispositions.handles(process, self._number)]
            # All programs in Node do, from their start: clean-up, too.
            is_server = not all(map(recipients.is_in_runtime, serving))
            return (SERVING, [*serving, self._root]) if is_server else (WORKING, serving)
        if procfs.argv_of(self._root.pid) != self._argv and dispositions.handles(self._root, self._number):
            return SERVING, [self._root]  # by exec(2)
        wrappers = (seen.get(pid) for pid, _ in self._between)
        if any(process is not None and not process.waits for process in wrappers):
            return WORKING, []  # on a busy machine it may not have had its turn yet
        if below and self._waits():
            backends = [process for process in below if names.is_backend(process)]
            return CLEANING if self._may_clean_up(below, new) else WAITING, [*backends, self._root]
        return EXITING, [self._root]

    def _may_clean_up(self, below: "Sequence[Process]", new: "Sequence[Process]") -> bool:
        """Whether it may wait in its trap for EXIT. `below`: what is below it; `new`: of that what it sleeps in."""
        if not self._has_exit_trap:
            return False
        return all(map(_is_short, new)) if new else not all(map(names.is_idle, below))

    def _runs_again(self, process: "Process") -> bool:
        """Whether it is one of the programs of the recipients, and no clean-up."""
        argv = procfs.argv_of(process.pid)
        if argv in self._argvs:
            return True
        if names.program(argv) not in self._programs:
            return False
        self._started.add(process.identity)
        return len(self._started) > 1 or dispositions.handles(process, self._number) is True

    def _waits(self) -> bool:
        """Whether a wrapper waits for a child, as far as that is known."""
        channels = [procfs.wait_channel(pid) for pid, _ in self._between]
        waits = any(procfs.is_for_child(channel) or b"sigsuspend" in channel for channel in channels)
        return waits or not any(channels)


def _is_sleep(process: "Process") -> bool:
    return "sleep" in procfs.program_names(process)


def _is_short(sleep: "Process") -> bool:
    """Whether a sleep(1) is a short one, as in a loop."""
    try:
        return float(procfs.argv_of(sleep.pid)[1]) <= MAX_SLEEP
    except (ValueError, IndexError):  # with a unit; it has gone
        return False

"""What a wrapper does once the processes behind it have exited by the stop signal.

exiting     it has no children any more, or only other wrappers: most exit at once, with the right code
working     it has started something new, such as an upload, or it runs itself: clean-up, which has the rest of the
            grace period
waiting     for a child that is older than the stop, such as `tail -f /dev/null`, or for sleep(1): it would stay
restarting  it has started one of its programs again: nothing starts work after a stop request. With other arguments
            that may be clean-up (`manage.py`), unless it handles the stop signal, as a program that stays does, or
            is the second one
"""

from . import dispositions, names, procfs, tree
from .lifecycle import EXITING, RESTARTING, WAITING, WORKING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .procfs import Process


class Wrapper:
    """The agent as a wrapper: what was below it when the stop signal was sent to `recipients`."""

    __slots__ = ("_argvs", "_between", "_number", "_older", "_programs", "_root", "_started")

    def __init__(
        self, root: "Process", recipients: "Sequence[Process]", number: int, seen: "dict[int, Process]"
    ) -> None:
        self._root, self._number = root, number
        self._argvs = [argv for recipient in recipients if (argv := procfs.argv_of(recipient.pid))]
        self._programs = {program for argv in self._argvs if (program := names.program(argv))}
        self._started: set[tuple[int, int]] = set()  # of these programs, after the recipients have exited
        self._older = {process.identity for process in tree.below(root.pid, seen)}
        self._between = {root.identity}  # the wrappers from the root down to the recipients
        for recipient in recipients:
            above = seen.get(recipient.parent)
            while above is not None and above.identity not in self._between:
                self._between.add(above.identity)
                above = seen.get(above.parent)

    def look(self) -> "tuple[str, list[Process]]":
        """Return what it does, and the processes that need the stop signal so that it stops. Raises OSError."""
        seen = tree.everything()
        below = [p for p in tree.below(self._root.pid, seen) if p.identity not in self._between]
        new = [process for process in below if process.identity not in self._older]
        if again := [process for process in new if self._runs_again(process)]:
            return RESTARTING, [*again, self._root]
        if any("sleep" not in procfs.program_names(process) for process in new):
            return WORKING, []
        wrappers = (seen.get(pid) for pid, _ in self._between)
        if any(process is not None and not process.waits for process in wrappers):
            return WORKING, []  # on a busy machine it may not have had its turn yet
        if below and self._waits():
            return WAITING, [self._root]
        return EXITING, [self._root]

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

"""Which processes below an agent get a signal in its place where signal masks cannot be seen (gVisor, qemu-user).

What a program handles is not known there, and mostly not what it waits for either. So its name decides:

    a wrapper                      a shell, `su`, `uv run`, `npm` and the like: look through it
    a filter, or a mere wait       `tee` behind a pipe, `sleep`: never a recipient
    any other program              an agent: it gets the stop signal, and what is below it gets none

Signals that request no stop reach a process below a shell only if it has reported that it handles them
(`dispositions.note_report`): the commands of a script come and go, and most die of such a signal.
"""

import posix

from ..signals import HARMLESS
from . import dispositions, names, procfs, recipients, tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .procfs import Process


def resolve(agent: "Process", number: int, *, to_stop: bool) -> recipients.Recipients:
    """Return the recipients of a signal of which it is not known whether `agent` handles it. Raises OSError.

    `to_stop`: every program below a wrapper counts, and where there is none, the innermost wrapper. Nobody is held
    back.
    """
    found = recipients.Recipients()
    if not names.is_wrapper(agent) and not procfs.wait_channel(agent.pid):
        return found  # a look at all processes would show nothing more
    found.seen = tree.everything()
    children_of = tree.children_among(found.seen)
    to_all = to_stop or number in HARMLESS
    agents: list[Process] = []
    innermost: list[Process] = []  # wrappers that have only passive children, or none
    seen = {agent.pid}  # a pid that was reused during the look may lead round in a circle
    to_look_through = [(agent, procfs.is_shell(agent))]
    while to_look_through:
        process, below_shell = to_look_through.pop()
        if process is agent and not is_wrapper(agent, children_of(agent.pid)):
            break
        children = [child for child in children_of(process.pid) if child.alive and child.pid not in seen]
        active = [child for child in children if not (names.is_passive(child) or names.is_server(child))]
        active = [child for child in active if not names.is_backend(child)] or active
        if not active and process is not agent:
            innermost.append(process)
        for child in active:
            seen.add(child.pid)
            handles = dispositions.handles(child, number)
            if handles is None and is_wrapper(child, children_of(child.pid)):
                to_look_through.append((child, below_shell or procfs.is_shell(child)))
            elif handles or to_all or (handles is None and not below_shell and may_be_handled(number)):
                agents.append(child)
    found.processes = agents or (innermost if to_all else [])
    return found


def may_be_handled(number: int) -> bool:
    """Whether a signal is forwarded to a program of which nothing is known.

    Few programs handle real-time signals, all others die of them, and the one that platforms send most often is
    systemd's request for a halt (RTMIN+3).
    """
    return number < 32


def is_wrapper(process: "Process", children: "list[Process]") -> bool:
    """Whether it is a wrapper by its name, or by what it is seen waiting for (qemu's processes wait as any other)."""
    return names.is_wrapper(process) or recipients.is_wrapper(process, children)


class PlainProgram:
    """Whether a process is known not to be a wrapper: then `resolve` finds no recipients in its place.

    A system call takes 30 to 60 us in gVisor, so one look at its command line serves until that changes.
    """

    __slots__ = ("_argv", "_fd", "_is_plain", "_pid")

    def __init__(self) -> None:
        self._pid, self._fd = 0, -1
        self._argv, self._is_plain = b"", False

    def is_plain(self, pid: int) -> bool:
        """Whether that is known of the process with this pid, a child that is not reaped."""
        try:
            if pid != self._pid:
                self._open(pid)
            argv = posix.pread(self._fd, 4096, 0)
        except OSError:
            return False
        if argv != self._argv:
            process = procfs.look(pid)
            # What it waits for is seen in qemu's emulation, and may change at any moment.
            plain = process is not None and not names.is_wrapper(process) and not procfs.wait_channel(pid)
            self._argv, self._is_plain = argv, plain
        return self._is_plain

    def _open(self, pid: int) -> None:
        if self._fd >= 0:
            posix.close(self._fd)
        self._pid, self._fd, self._argv, self._is_plain = 0, -1, b"", False
        self._fd = posix.open(f"/proc/{pid}/cmdline", posix.O_RDONLY)
        self._pid = pid

"""Whose messages count (--notify-access): who is the agent, who speaks for it, and who only reports about itself.

    main   the agent, and the main process that it has named
    auto   these, and what runs behind a wrapper in the agent's place; every descendant too, except for what concerns
           the agent as a whole (`ABOUT_THE_AGENT`)
    all    every descendant

A line for the log about an event loop counts from every descendant (`FOR_THE_LOG`).

A helper inherits NOTIFY_SOCKET: podman and runc, a database, a supervisor below the agent. It reports that it is ready,
and names its own main process.

Behind a wrapper: each process from the sender's parent up to the agent does nothing but run another program. A shell
does that, and so does any other wrapper known by name, whatever signals it handles; its children count as it does,
above all `systemd-notify` in a script. Any other program must be seen waiting for its child, and not handle TERM, or it
would get the stop signal itself (`recipients`). One that polls for its child's exit looks like an agent with a database
beside it: its children do not speak for it. But systemd-notify(1) speaks for the program that runs it, as it also does
by itself if it has the privileges.

A sender that has exited and was reaped is unknown; systemd has the same race. Its parent cannot be found out: it is a
child of ours only if its own parent exited before it. Where the agent is a shell or another wrapper by name, such a
sender is most likely a command of the script that has done its work. Only the fields that do no harm if it is another
process count (`OF_EXITED`): that the agent is ready, its status, a ping.
"""

import posix

from .. import notify
from ..signals import TERM
from . import dispositions, names, procfs, recipients, tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .main_process import MainProcess
    from .procfs import Process

ABOUT_THE_AGENT = frozenset("MAINPID READY RELOADING MONOTONIC_USEC STOPPING ERRNO WATCHDOG_USEC".split())
FOR_THE_LOG = (notify.LOOP,)
OF_EXITED = ("READY", "STATUS", "WATCHDOG")  # WATCHDOG=1 only
MAX_WRAPPERS = 100  # above one another; a parent that exits during the climb may lead round in a circle


class Accepted:
    """The `fields` of a message that count, and its `sender`: None if that is unknown, and nothing counts.

    `is_helpers`: the sender runs below the agent, but does not speak for it.
    """

    __slots__ = ("fields", "is_helpers", "sender")

    def __init__(self, fields: "dict[str, str]", sender: "Process | None", *, is_helpers: bool = False) -> None:
        self.fields, self.sender, self.is_helpers = fields, sender, is_helpers


def accept(fields: "dict[str, str]", pid: int, agent: "MainProcess", access: str) -> Accepted:
    """Return what counts of a message. `pid`: the sender's in our PID namespace, 0 if it is outside it."""
    sender = procfs.look(pid) if pid else None
    if pid == agent.pid:  # without /proc the kernel vouches for it
        return Accepted(fields, sender or procfs.Process(pid, "the agent", posix.getpid(), pid, 0))
    if sender is None:
        return _of_exited(fields, pid, agent) if pid and access == "auto" else Accepted({}, None)
    if _is_named(sender, agent):
        return Accepted(fields, sender)
    if not tree.is_below(posix.getpid(), sender):
        return Accepted({}, sender)
    if access == "main":
        return Accepted({key: fields[key] for key in FOR_THE_LOG if key in fields}, sender)
    if access == "all" or ABOUT_THE_AGENT.isdisjoint(fields) or _speaks_for(agent, sender):
        return Accepted(fields, sender)
    own = {key: value for key, value in fields.items() if key not in ABOUT_THE_AGENT}
    return Accepted(own, sender, is_helpers=True)


def _is_named(process: "Process", agent: "MainProcess") -> bool:
    return agent.named is not None and process.identity == agent.named.identity


def _speaks_for(agent: "MainProcess", sender: "Process") -> bool:
    """Whether only wrappers are between the sender and the agent, which is one too; or its named main process."""
    process = procfs.look(sender.parent)
    is_wrapper = "systemd-notify" in procfs.program_names(sender)  # whatever runs that
    for _ in range(MAX_WRAPPERS):
        if process is None or not (is_wrapper or _is_wrapper(process)):
            return False
        if process.pid == agent.pid or _is_named(process, agent):
            return True
        process, is_wrapper = procfs.look(process.parent), False
    return False


def _is_wrapper(process: "Process") -> bool:
    if names.is_wrapper(process) or names.is_init(process):
        return True
    return recipients.is_wrapper(process, procfs.children(process.pid)) and not dispositions.handles(process, TERM)


def _of_exited(fields: "dict[str, str]", pid: int, agent: "MainProcess") -> Accepted:
    """Return what counts of a message whose sender has exited."""
    process = procfs.look(agent.pid)
    if process is None or not names.is_wrapper(process):
        return Accepted({}, None)
    kept = {key: fields[key] for key in OF_EXITED if key in fields}
    if kept.get("WATCHDOG", "1") != "1":
        del kept["WATCHDOG"]
    return Accepted(kept, procfs.Process(pid, "a command", agent.pid, agent.group, 0, alive=False) if kept else None)

"""Which processes below an agent get a signal in its place.

An agent that handles the signal gets it itself. One that does not is either a wrapper (`sh -c`, `xargs`, a launcher in
Python), whose child is the one to signal, or an agent with helpers (an MCP server, Playwright's driver, a database),
which must be signalled itself: a helper's exit does not stop it. The two look alike in the signal masks, so each
process is judged by what it is doing at that moment:

    it waits for a child           its main thread sits in wait4(2) or waitid(2), or reads its only child's output, or
                                   it is a shell or a wrapper known by name: a wrapper, look through it
    it talks to a child            the child's stdin or stdout is a pipe or a socket that it made: an agent with a
                                   helper, whatever the helper handles
    neither                        a launcher that polls, but also an agent with a database beside it: the children
                                   that handle the signal come first, and the process itself is held back

A process that is held back gets the signal later; `lifecycle` decides when. A launcher that is signalled first takes
its child with it (asyncio's does so at once); an agent that is signalled last loses a moment.
"""

import os

from . import procfs, tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .procfs import Process

# They only run a program, but wait for it in poll(2) or the like, and some copy its output from a pipe.
WRAPPERS = frozenset("bwrap catatonit chronic inv invoke py-spy script unbuffer".split())
O_ACCMODE = 0o3  # the access mode in the flags of open(2)


class Recipients:
    """What `resolve` returns.

    `processes`: those that get the signal in the agent's place; none: the agent gets it. `held_back`: those between
    the agent and them, the agent included, that may need it too. `seen`: all processes, by pid; empty if `quickly`.
    """

    __slots__ = ("held_back", "processes", "seen")

    def __init__(self) -> None:
        self.processes: list[Process] = []
        self.held_back: list[Process] = []
        self.seen: dict[int, Process] = {}


HANDLER, WRAPPER, HELPED, UNCERTAIN = range(4)


class _Node:
    """A process at or below the agent that was looked at, and what it is."""

    __slots__ = ("children", "kind", "process")

    def __init__(self, process: "Process") -> None:
        self.process, self.kind = process, WRAPPER
        self.children: list[Process] = []


def resolve(agent: "Process", number: int, *, to_stop: bool, quickly: bool = False, adapts: bool = False) -> Recipients:
    """Return the recipients of a signal that `agent` does not handle. Raises OSError when /proc cannot be read.

    `to_stop`: below a wrapper, an agent with helpers is a recipient even if it does not handle the signal; otherwise
    only processes that handle it are. `quickly`: look at no more processes than necessary; one may be missed if a
    sibling of it exits at that moment (proc(5), /proc/pid/task/tid/children). `adapts`: where no process below handles
    the signal, one that prefers INT to TERM is a recipient; behind a wrapper rather than the wrapper itself.
    """
    if quickly:
        found = _resolve(agent, number, procfs.children, to_stop=to_stop, adapts=adapts)
        if found.processes:
            return found
    seen = tree.everything()
    found = _resolve(agent, number, tree.children_among(seen), to_stop=to_stop, adapts=adapts)
    found.seen = seen
    return found


def _resolve(
    agent: "Process", number: int, children_of: "Callable[[int], list[Process]]", *, to_stop: bool, adapts: bool
) -> Recipients:
    found = Recipients()
    nodes = _look_through(agent, number, children_of)
    recipients: dict[int, list[Process]] = {}  # at or below each process
    for node in reversed(nodes):  # children before their parents
        process = node.process
        below = [recipient for child in node.children for recipient in recipients.pop(child.pid, [])]
        if node.kind in (HANDLER, HELPED):
            below = [process] if node.kind == HANDLER or to_stop else []
        elif adapts and _takes_int(node, below, number):
            below = [process]
        elif below and node.kind == UNCERTAIN:
            found.held_back.append(process)
        recipients[process.pid] = below
    found.processes = [process for process in recipients[agent.pid] if process is not agent]
    return found


def _takes_int(node: _Node, below: "list[Process]", number: int) -> bool:
    """Whether the process itself gets INT, rather than those below it, which come first behind a wrapper."""
    if below and (node.kind == WRAPPER or any(procfs.handles(process, number) for process in below)):
        return False
    return procfs.prefers_int(node.process)


def _look_through(agent: "Process", number: int, children_of: "Callable[[int], list[Process]]") -> list[_Node]:
    """Return the processes from the agent down to those that handle the signal, or have helpers."""
    nodes = [_Node(agent)]
    known = {agent.pid}
    for node in nodes:  # grows meanwhile
        process = node.process
        if process is not agent and procfs.handles(process, number):
            node.kind = HANDLER
            continue
        # A pid that was reused during the look may lead round in a circle.
        children = [child for child in children_of(process.pid) if child.alive and child.pid not in known]
        if children and not is_wrapper(process, children):
            node.kind = HELPED if any(is_helper(child, process) for child in children) else UNCERTAIN
        if node.kind != HELPED:
            node.children = children
            known.update(child.pid for child in children)
            nodes += map(_Node, children)
    return nodes


def is_wrapper(process: "Process", children: "list[Process]") -> bool:
    """Whether it does nothing but wait for a child."""
    if procfs.is_shell(process) or not WRAPPERS.isdisjoint(map(os.path.basename, procfs.argv_of(process.pid)[:2])):
        return True
    where = procfs.wait_channel(process.pid)
    return b"do_wait" in where or (b"pipe_read" in where and len(children) == 1 and _reads_output(process, children[0]))


def _reads_output(process: "Process", child: "Process") -> bool:
    """Whether the pipe that the process reads is the child's stdout, and it does not write to the child's stdin.

    A process that writes as well has a conversation with the child.
    """
    fd = procfs.blocking_descriptor(process.pid)
    output = procfs.descriptor_target(child.pid, 1)
    reads = fd is not None and output != "" and procfs.descriptor_target(process.pid, fd) == output
    return reads and not _leads_to(process, child, 0)


def is_helper(child: "Process", parent: "Process") -> bool:
    """Whether the child's stdin or stdout is a pipe or a socket that its parent made. False where nothing is known."""
    return _leads_to(parent, child, 0) or _leads_to(parent, child, 1)


def _leads_to(parent: "Process", child: "Process", fd: int) -> bool:
    """Whether the child's stdin (`fd` 0) or stdout (1) leads to the parent.

    The parent holds the other end of a pipe. The ends of a socket pair have different numbers, so any socket counts
    that the child has not inherited as one of the parent's own stdin, stdout and stderr.
    """
    target = procfs.descriptor_target(child.pid, fd)
    if target.startswith("socket:"):
        return target not in (procfs.descriptor_target(parent.pid, own) for own in range(3))
    if not target.startswith("pipe:"):
        return False
    other_end = (os.O_WRONLY, os.O_RDWR) if fd == 0 else (os.O_RDONLY, os.O_RDWR)
    return any(flags & O_ACCMODE in other_end for flags in procfs.open_modes(parent.pid, target))

"""Which processes below an agent get a signal in its place.

An agent that handles the signal gets it itself. One that does not is either a wrapper (`sh -c`, `xargs`, a launcher in
Python), whose child is the one to signal, or an agent with helpers (an MCP server, Playwright's driver, a database),
which must be signalled itself: a helper's end does not end it. The two look alike in the signal masks, so the
processes are asked what they are doing at that moment:

    it waits for a child           its main thread sits in wait4(2) or waitid(2), or reads its only child's output, or
                                   it is a shell or a wrapper known by name: a wrapper, look through it
    it talks to a child            the child's stdin or stdout is a pipe or a socket that it made: an agent with a
                                   helper, whatever the helper handles
    neither                        a launcher that polls, but also an agent with a database beside it: the children
                                   that handle the signal come first, and the process itself is held back

A process that is held back gets the signal later; `lifecycle` says when. Killed first, a launcher takes its child with
it (asyncio's does so at once); signalled last, an agent loses a moment.
"""

import os

from . import tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# They do nothing but run a program, but wait for it in poll(2) or the like, and some copy its output through a pipe.
WRAPPERS = frozenset("bwrap catatonit chronic inv invoke py-spy script unbuffer".split())
O_ACCMODE = 0o3  # the low bits of open(2)'s flags: 0 read, 1 write, 2 both


class Recipients:
    """The result of `resolve`.

    `processes`: who gets the signal in the agent's place, nobody for the agent itself. `held_back`: those between the
    agent and them, the agent included, that may need it too.
    """

    __slots__ = ("held_back", "processes")

    def __init__(self) -> None:
        self.processes: list[tree.Process] = []
        self.held_back: list[tree.Process] = []


def resolve(agent: tree.Process, number: int, *, to_stop: bool, quickly: bool) -> Recipients:
    """The recipients of a signal that `agent` does not handle. Raises OSError when /proc cannot be read.

    `to_stop`: below a wrapper, an agent with helpers is a recipient even if it does not handle the signal; otherwise
    only processes that handle it are. `quickly`: look at no more processes than it takes; one may be missed if a
    sibling of its ends at that moment (proc(5), /proc/pid/task/tid/children).
    """
    if quickly:
        found = _resolve(agent, number, tree.children, to_stop=to_stop)
        if found.processes:
            return found
    return _resolve(agent, number, tree.children_among(tree.everything()), to_stop=to_stop)


def _resolve(
    agent: tree.Process, number: int, children_of: "Callable[[int], list[tree.Process]]", *, to_stop: bool
) -> Recipients:
    found = Recipients()
    held_back: dict[int, tree.Process] = {}
    uncertain: dict[int, tree.Process | None] = {agent.pid: None}  # the nearest process above each that may be an agent
    to_look_through = [agent]
    while to_look_through:
        process = to_look_through.pop()
        children = [child for child in children_of(process.pid) if child.alive]
        if not children:
            continue
        above = uncertain[process.pid]
        if not is_wrapper(process, children):
            if any(is_helper(child, process) for child in children):
                if to_stop and process is not agent:
                    found.processes.append(process)
                continue
            above = process
        for child in children:
            uncertain[child.pid] = above
            if not tree.really_catches(child, number):
                to_look_through.append(child)
                continue
            found.processes.append(child)
            while above is not None and above.pid not in held_back:
                held_back[above.pid] = above
                above = uncertain[above.pid]
            above = uncertain[child.pid]
    found.held_back = list(held_back.values())
    return found


def is_wrapper(process: tree.Process, children: list[tree.Process]) -> bool:
    """Whether it does nothing but wait for a child."""
    if tree.is_shell(process) or not WRAPPERS.isdisjoint(map(os.path.basename, tree.argv_of(process.pid)[:2])):
        return True
    where = tree.wait_channel(process.pid)
    return b"do_wait" in where or (b"pipe_read" in where and len(children) == 1 and _reads_output(process, children[0]))


def _reads_output(process: tree.Process, child: tree.Process) -> bool:
    """Whether the pipe that the process reads is its child's stdout, and the child's stdin is not a pipe of its own.

    One that writes to its child as well is in a conversation with it.
    """
    fd = tree.blocking_descriptor(process.pid)
    output = tree.descriptor(child.pid, 1)
    return (
        fd is not None and output != "" and tree.descriptor(process.pid, fd) == output and not _talks(process, child, 0)
    )


def is_helper(child: tree.Process, parent: tree.Process) -> bool:
    """Whether the child's stdin or stdout is a pipe or a socket that its parent made. False where nothing is known."""
    return _talks(parent, child, 0) or _talks(parent, child, 1)


def _talks(parent: tree.Process, child: tree.Process, fd: int) -> bool:
    """Whether the child's descriptor `fd`, its stdin or stdout, leads to the parent.

    The parent holds the other end of a pipe. Of a socket pair the ends have different numbers, so any socket counts
    that the child has not inherited as one of the parent's own three.
    """
    link = tree.descriptor(child.pid, fd)
    if link.startswith("socket:"):
        return link not in (tree.descriptor(parent.pid, own) for own in range(3))
    if not link.startswith("pipe:"):
        return False
    wanted = (os.O_WRONLY, os.O_RDWR) if fd == 0 else (os.O_RDONLY, os.O_RDWR)
    return any(mode & O_ACCMODE in wanted for mode in tree.modes_of(parent.pid, link))

"""Which processes below an agent get a signal in its place.

An agent that handles the signal gets it itself. One that does not is either a wrapper (`sh -c`, `xargs`, a launcher in
Python), whose child is the one to signal, or an agent with helpers (an MCP server, Playwright's driver, a database),
which must be signalled itself: a helper's exit does not stop it. The two look alike in the signal masks, so each
process is judged by what it is doing at that moment:

    it waits for a child           its main thread sits in wait4(2) or waitid(2), or it does nothing but read its only
                                   child's output (see `output_pipes`), or it is a shell or a wrapper known by name: a
                                   wrapper, look through it
    it talks to a child            the child's stdin or stdout is a pipe or a socket that it made: an agent with a
                                   helper, whatever the helper handles
    neither                        a launcher that polls, but also an agent with a database beside it: the children
                                   that handle the signal come first, and the process itself is held back

A process that is held back gets the signal later; `lifecycle` decides when. A launcher that is signalled first takes
its child with it (asyncio's does so at once); an agent that is signalled last loses a moment.

A display or a bus beside the program (Xvfb, dbus-daemon) gets no signal in the agent's place.

Some wrappers handle or ignore signals themselves, and are looked through all the same if a process behind them can act
on the signal:

    a relay (see `names`)          what it catches says nothing about the program behind it
    a relay or a shell that starts one
                                   it may keep the signal, and the program would begin its work: both are signalled
    a shell with a trap            it runs the trap only after the program in its foreground has ended (`foreground`).
                                   So the program is signalled, and the shell just before it: the shell then runs
                                   its trap instead of the next command. With a trap for EXIT bash would end at once
                                   and leave the program behind, so it gets the signal only if it stays after that.
    a tracer                       it ignores signals, and the program that it traces does not
    a launcher in Node, Ruby, PHP  that does nothing but read its child's output; only for the stop signal
"""

import posix

from . import dispositions, foreground, names, output_pipes, procfs, tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .procfs import Process

RUNTIMES = ("node", "ruby", "php")  # of languages: they handle TERM from their start, whatever the program does
O_ACCMODE = 0o3  # the access mode in the flags of open(2)


class Recipients:
    """What `resolve` returns.

    `processes`: those that get the signal in the agent's place; none: the agent gets it. `held_back`: those between
    the agent and them, the agent included, that may need it too. `shells`: those above them that get it before them.
    `idle`: those that get it after a shell, so that its trap runs now, or that are starting behind a relay.
    `guardians`: by the pid of a recipient, who gets the signal if that one may not be signalled. `unhandled`: the agent
    only relays the signal, and no process behind it handles it. `awaited`: those that a recipient, a shell, waits for
    before it runs its trap; they do not handle the signal. `unsure`: those that it may wait for so, or may signal.
    `seen`: all processes, by pid; empty if `quickly`.
    """

    __slots__ = ("awaited", "guardians", "held_back", "idle", "processes", "seen", "shells", "unhandled", "unsure")

    def __init__(self, *processes: "Process") -> None:
        self.processes = list(processes)
        self.held_back: list[Process] = []
        self.shells: list[Process] = []
        self.idle: list[Process] = []
        self.awaited: list[Process] = []
        self.unsure: list[Process] = []
        self.guardians: dict[int, Process] = {}
        self.unhandled = False
        self.seen: dict[int, Process] = {}


HANDLER, WRAPPER, RELAY, HELPED, UNCERTAIN = range(5)


class _Node:
    """A process at or below the agent that was looked at, and what it is."""

    __slots__ = ("children", "kind", "process")

    def __init__(self, process: "Process") -> None:
        self.process, self.kind = process, WRAPPER
        self.children: list[Process] = []


def is_tracer(agent: "Process") -> bool:
    """Whether it traces a child (ptrace(2)); strace(1) and the like ignore signals meanwhile."""
    return any(procfs.tracer_of(child.pid) == agent.pid for child in procfs.children(agent.pid))


def resolve(agent: "Process", number: int, *, to_stop: bool, quickly: bool = False, adapts: bool = False) -> Recipients:
    """Return the recipients of a signal that is not meant for `agent`, or may not be. Raises OSError without /proc.

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


def handling(process: "Process", number: int) -> "list[Process]":
    """Return who handles a signal by now, of a process that was looked at before and those that it waits for.

    Nobody where the process has exited. One that is starting may still have its parent's handlers: the next look shows.
    """
    now = procfs.look(process.pid)
    if now is None or now.identity != process.identity or now.is_starting:
        return []
    found = _resolve(now, number, procfs.children, to_stop=True, adapts=False)
    if to := [*found.shells, *found.processes]:
        return to
    return [now] if dispositions.handles(now, number) else []


def _resolve(
    agent: "Process", number: int, children_of: "Callable[[int], list[Process]]", *, to_stop: bool, adapts: bool
) -> Recipients:
    found = Recipients()
    nodes = _look_through(agent, number, children_of, to_stop=to_stop)
    recipients: dict[int, list[Process]] = {}  # at or below each process
    for node in reversed(nodes):  # children before their parents
        process = node.process
        below = [recipient for child in node.children for recipient in recipients.pop(child.pid, [])]
        if node.kind in (HANDLER, HELPED):
            below = [process] if node.kind == HANDLER or to_stop else []
            if to_stop and procfs.is_shell(process):
                found.unsure += foreground.unsure(process, children_of(process.pid), number)
        elif node.kind == RELAY:
            below = _behind_relay(found, node, below, number, to_stop=to_stop)
        elif adapts and _takes_int(node, below, number):
            below = [process]
        elif below and node.kind == UNCERTAIN:
            found.held_back.append(process)
            if adapts and dispositions.prefers_int(process):  # so do its pool's workers, which it may need
                below = [recipient for recipient in below if dispositions.handles(recipient, number)]
        recipients[process.pid] = below
    found.processes = [process for process in recipients[agent.pid] if process is not agent]
    _keep_what_is_above(found, recipients[agent.pid], {node.process.pid: node.process for node in nodes})
    found.unhandled = nodes[0].kind == RELAY and not recipients[agent.pid]
    return found


def _keep_what_is_above(found: Recipients, to: "list[Process]", nodes: "dict[int, Process]") -> None:
    """Take back shells and others that are not above a recipient: one above them gets the signal itself."""
    above: set[int] = set()
    for process in to:
        parent = nodes.get(process.parent)
        while parent is not None and parent.pid not in above:
            above.add(parent.pid)
            parent = nodes.get(parent.parent)
    recipients = {process.pid for process in to}
    found.shells = [shell for shell in found.shells if shell.pid in above]
    found.held_back = [process for process in found.held_back if process.pid in above]
    found.idle = [process for process in found.idle if process.parent in recipients]
    found.awaited = [process for process in found.awaited if process.parent in recipients]
    found.unsure = [process for process in found.unsure if process.parent in recipients]


def _behind_relay(
    found: Recipients, node: _Node, below: "list[Process]", number: int, *, to_stop: bool
) -> "list[Process]":
    """Return the recipients at or below a process that handles the signal and was looked through."""
    process = node.process
    is_shell = procfs.is_shell(process)
    # mksh catches HUP and QUIT too, and ends by them.
    by_habit = not to_stop and not procfs.PDKSH.isdisjoint(procfs.program_names(process))
    has_trap = is_shell and not by_habit and foreground.has_trap(process, number)
    if below and names.is_init(process):
        # It would pass TERM on to a program that prefers INT, or to a shell that dies of it before its program.
        is_direct = all(recipient.parent == process.pid for recipient in below)
        handled = not to_stop or any(dispositions.handles(recipient, number) for recipient in below)
        if (is_direct and handled) or not names.runs_one_program(process):
            return [process]
    if below:
        found.guardians = {**{recipient.pid: process for recipient in below}, **found.guardians}
        if has_trap:
            found.shells.insert(0, process)  # the outermost one first
        return below
    if to_stop:
        lose_nothing = _lose_nothing(node.children, is_shell=is_shell)
        found.idle += lose_nothing
        if has_trap:
            found.awaited += [child for child in node.children if child not in lose_nothing]
        return [process]
    is_idle = bool(node.children) and all(map(names.is_idle, node.children))
    # The shell would end at once, or it would run a trap after its foreground: of use only in a loop around sleep(1).
    if is_shell:
        return [process] if has_trap or is_idle else []
    programs = (child for child in node.children if not procfs.is_shell(child))
    return [process] if any(dispositions.handles_or_ignores(program, number) for program in programs) else []


def _lose_nothing(children: "list[Process]", *, is_shell: bool) -> "list[Process]":
    """Return the children of a process that may keep the stop signal to itself which end by it and lose no work.

    A program that is starting has no work yet, and would begin with it once the signal has gone by. What is idle keeps
    a shell from running its trap.
    """
    lose_nothing = [child for child in children if child.is_starting or (is_shell and names.is_idle(child))]
    others = [child for child in children if child not in lose_nothing]
    return [] if is_shell and not all(map(names.is_passive, others)) else lose_nothing


def _takes_int(node: _Node, below: "list[Process]", number: int) -> bool:
    """Whether the process itself gets INT, rather than those below it, which come first behind a wrapper."""
    if below and (node.kind == WRAPPER or any(dispositions.handles(process, number) for process in below)):
        return False
    return dispositions.prefers_int(node.process)


def _look_through(
    agent: "Process", number: int, children_of: "Callable[[int], list[Process]]", *, to_stop: bool
) -> list[_Node]:
    """Return the processes from the agent down to those that handle the signal, or have helpers."""
    nodes = [_Node(agent)]
    known = {agent.pid}
    for node in nodes:  # grows meanwhile
        process = node.process
        # A pid that was reused during the look may lead round in a circle.
        children = [
            child
            for child in children_of(process.pid)
            if child.alive and child.pid not in known and not names.is_server(child)
        ]
        others = [child for child in children if not names.is_backend(child)]
        # A wrapper's only program may be one. An agent's is what it works with.
        if len(others) < len(children) and (
            not all(map(names.is_passive, others)) or not is_wrapper(process, children)
        ):
            children = others
        if dispositions.handles(process, number):
            children = _behind(process, children, to_stop=to_stop)
            # A fork that has not executed its program yet still has its parent's handlers, and loses them.
            may_be_fork = not children and process.is_starting
            is_fork = may_be_fork and (
                procfs.is_shell(process) or not dispositions.handles_once_started(process, number)
            )
            node.kind = RELAY if children else WRAPPER if is_fork else HANDLER
        elif children and not is_wrapper(process, children):
            node.kind = HELPED if any(is_helper(child, process) for child in children) else UNCERTAIN
        if node.kind != HELPED:
            node.children = children
            known.update(child.pid for child in children)
            nodes += map(_Node, children)
    return nodes


def _behind(process: "Process", children: "list[Process]", *, to_stop: bool) -> "list[Process]":
    """Return the children that a signal may be meant for which the process itself handles."""
    if to_stop and is_launcher(process, children):
        return children
    if not children:
        return []
    if procfs.is_shell(process):
        return foreground.children(process, children)
    if names.is_init(process):
        return children
    if names.is_relay(process):
        # It leaves its stdin to the program: a pipe into a child would be a conversation with a helper. And one that
        # only has a relay's name may have forks of itself as workers.
        argv = procfs.argv_of(process.pid) if len(children) > 1 else []  # watch(1) has one fork of itself
        return [
            child
            for child in children
            if (not _leads_to(process, child, 0) or names.feeds_its_program(process))
            and not (argv and procfs.argv_of(child.pid) == argv)
        ]
    return []


def only_reads_output(process: "Process", children: "list[Process]") -> bool:
    """Whether it does nothing but read its only child's output."""
    if len(children) != 1:
        return False
    [child] = children
    where = procfs.wait_channel(process.pid)
    return _reads_output(process, child) if b"pipe_read" in where else output_pipes.copies_output(process, child)


def is_launcher(process: "Process", children: "list[Process]") -> bool:
    """Whether it does nothing but read its child's output, and handles TERM only as every program of its language does.

    It would end by that TERM, and its child of the broken pipe; or it would wait for the child.
    """
    return len(children) == 1 and is_in_runtime(process) and only_reads_output(process, children)


def is_in_runtime(process: "Process") -> bool:
    """Whether it is a program in a language whose runtime handles TERM."""
    return any(name.startswith(RUNTIMES) for name in procfs.program_names(process))


def is_wrapper(process: "Process", children: "list[Process]") -> bool:
    """Whether it does nothing but wait for a child."""
    if names.is_wrapper(process):
        return True
    return procfs.waits_for_child(process.pid) or only_reads_output(process, children)


def _reads_output(process: "Process", child: "Process") -> bool:
    """Whether the pipe that the process reads is the child's stdout, and it does not write to the child's stdin.

    A process that writes as well has a conversation with the child.
    """
    fd = procfs.blocking_descriptor(process.pid)
    output = procfs.descriptor_target(child.pid, 1)
    reads = fd is not None and output != "" and procfs.descriptor_target(process.pid, fd) == output
    return reads and not _leads_to(process, child, 0)


def is_helper(child: "Process", parent: "Process", held: "dict[str, list[str]] | None" = None) -> bool:
    """Whether the child's stdin or stdout is a pipe or a socket that its parent made. False where nothing is known.

    `held`: the parent's `procfs.descriptors`, where many children are looked at.
    """
    return _leads_to(parent, child, 0, held) or _leads_to(parent, child, 1, held)


def _leads_to(parent: "Process", child: "Process", fd: int, held: "dict[str, list[str]] | None" = None) -> bool:
    """Whether the child's stdin (`fd` 0) or stdout (1) leads to the parent.

    The parent holds the other end of a pipe. The ends of a socket pair have different numbers, so any socket counts
    that the child has not inherited as one of the parent's own stdin, stdout and stderr.
    """
    target = procfs.descriptor_target(child.pid, fd)
    if target.startswith("socket:"):
        return target not in (procfs.descriptor_target(parent.pid, own) for own in range(3))
    if not target.startswith("pipe:") or target == procfs.descriptor_target(parent.pid, fd):
        return False  # a pipe that both have for it was inherited: a container's stdout
    other_end = (posix.O_WRONLY, posix.O_RDWR) if fd == 0 else (posix.O_RDONLY, posix.O_RDWR)
    return any(flags & O_ACCMODE in other_end for flags in procfs.open_modes(parent.pid, target, held))

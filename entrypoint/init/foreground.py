"""Which children a shell waits for in its foreground, and whether it has a trap for a signal.

A shell runs a trap only after the command in its foreground has ended: with `trap 'exit 0' TERM; agent` a TERM to the
shell alone stops nobody. In `agent & wait $!` the trap runs at once, and may forward the signal. In the signal masks
and in the system call of a shell the two look alike, so each child is judged:

    it ignores INT or QUIT        a background job: a shell without job control has these ignored (POSIX, 2.11); fish
                                  has them blocked. Of a child that is a shell itself only INT counts: most shells
                                  ignore QUIT for their own sake, and do not touch INT where it was ignored.
    it has QUIT's default action  in the foreground: programs leave QUIT alone, and what is ignored survives exec(2).
                                  But with traps of its own for INT and QUIT mksh leaves them to a job; its stdin tells.
    neither                       it has handlers for both, or its runtime resets all signals at its start, as Node
                                  does. A background job would have got /dev/null for its stdin, for reading only
                                  (where that is ours too, `own_process` opens it for writing); and some shells wait
                                  in different ways: dash and busybox sh in wait4(2) for the foreground and in
                                  sigsuspend(2) for a job, zsh with INT blocked only for the foreground.

A child that blocks almost all signals does so itself, for a moment or for good: that shows nothing.

A child in a process group of its own has made that itself (timeout(1), setsid(1)), or is a job of a shell with job
control (`set -m`), in the foreground or not. bash waits with WUNTRACED only if it has job control.

Where even that shows nothing, the child counts as a background job, and the shell gets the signal alone; the child gets
it before the KILL. fish is an exception: it runs no handler in `wait`, so its jobs count as in the foreground unless
something else is.
"""

import _signal
import posix

from . import dispositions, procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .procfs import Process

LEADERS = frozenset(("timeout", "setsid"))  # they make a process group of their own
RESETTING = frozenset("node nodejs bun".split())  # runtimes that reset all signals to their default action
INT, QUIT = 1 << (_signal.SIGINT - 1), 1 << (_signal.SIGQUIT - 1)
# With a trap for EXIT bash and ksh catch all signals that would end them. They run that trap and end at once, and leave
# the command in their foreground behind. XCPU is one of those signals, and nobody sets a trap for it.
OF_EXIT_TRAP = int(_signal.SIGXCPU)
O_WRITES = posix.O_WRONLY | posix.O_RDWR


def children(shell: "Process", among: "list[Process]") -> "list[Process]":
    """Return those of the shell's children that it waits for in its foreground, as far as that is known."""
    return _judged(shell, among)[0]


def unsure(shell: "Process", among: "list[Process]", number: int) -> "list[Process]":
    """Return the children of a shell with a trap for a signal of which nothing shows whether it waits for them."""
    return _judged(shell, among)[1] if has_trap(shell, number) else []


def _judged(shell: "Process", among: "list[Process]") -> "tuple[list[Process], list[Process]]":
    """Return the children in the foreground of a shell, and those of which that is not known."""
    own = dispositions.masks(shell.pid)
    if own is None:
        return [], []
    certain: list[Process] = []
    unknown: list[Process] = []
    for child in among:
        known = _is_in_foreground(shell, own[1], child)
        if known:
            certain.append(child)
        elif known is None:
            unknown.append(child)
    if unknown and not certain and _waits_for_foreground(shell, own[0]):
        certain = [max(unknown, key=lambda child: child.start)]  # what was started before is in the background
    if not certain and "fish" in procfs.program_names(shell):
        certain = [child for child in among if child.group == shell.group]
    return certain, [child for child in unknown if child not in certain]


def behind_trap(process: "Process", among: "list[Process]", number: int) -> "list[Process]":
    """Return the children that have to exit before a shell runs its trap; none of any other process."""
    if not among or not procfs.is_shell(process) or not dispositions.handles(process, number):
        return []
    return children(process, among)


def has_trap(shell: "Process", number: int) -> bool:
    """Whether the shell certainly has a trap for a signal that it handles, which it will run after the foreground."""
    return dispositions.handles(shell, number) is True and not dispositions.handles(shell, OF_EXIT_TRAP)


def has_exit_trap(shell: "Process") -> bool:
    """Whether it is a shell with a trap for EXIT, as far as that shows: with bash and ksh."""
    return procfs.is_shell(shell) and dispositions.handles(shell, OF_EXIT_TRAP) is True


def _is_in_foreground(shell: "Process", ignored_by_shell: int, child: "Process") -> bool | None:
    masks = dispositions.masks(child.pid)
    if masks is None:
        return False
    blocked, ignored, caught = masks
    if dispositions.are_almost_all(blocked):  # by the program: while it starts a thread, or for sigwait(3)
        blocked = 0
    programs = procfs.program_names(child)
    # What the shell ignored from its start, all its children ignore. QUIT it may ignore for its own sake.
    inherited = INT | QUIT if ignored_by_shell & INT else 0
    is_shell = not procfs.SHELLS.isdisjoint(programs)
    of_job = ignored & INT if is_shell else (ignored | blocked) & (INT | QUIT)
    if of_job & ~inherited:
        return False
    if _may_be_job(shell, child, programs):
        return None
    if is_shell:
        return True if "fish" not in programs else _shares_stdin(shell, child)  # fish takes INT back
    if not (ignored | caught) & QUIT and RESETTING.isdisjoint(programs):
        return procfs.PDKSH.isdisjoint(procfs.program_names(shell)) or _shares_stdin(shell, child) is not False
    return _shares_stdin(shell, child)


def _may_be_job(shell: "Process", child: "Process", programs: "frozenset[str]") -> bool:
    """Whether a child may be in a process group of its own because the shell has job control. `programs`: its names."""
    if child.group == shell.group:
        return False
    is_bash = "bash" in procfs.program_names(shell)
    if is_bash and procfs.waits_for_child(shell.pid) and (call := procfs.system_call(shell.pid)):
        return bool(call[3] & posix.WUNTRACED)
    return LEADERS.isdisjoint(programs)


def _shares_stdin(shell: "Process", child: "Process") -> bool | None:
    """Whether the child has inherited its stdin from the shell; None if that shows nothing."""
    if not {"zsh", "fish"}.isdisjoint(procfs.program_names(shell)):  # they leave a job its stdin
        return None
    of_shell, of_child = procfs.opened(shell.pid, 0), procfs.opened(child.pid, 0)
    if of_shell is None or of_child is None:
        return None
    target, flags, _ = of_child
    is_jobs = target == "/dev/null" and not flags & O_WRITES  # as shells open it for a background job
    if of_shell == of_child:
        return None if is_jobs else True
    return False if is_jobs else None


def _waits_for_foreground(shell: "Process", blocked: int) -> bool:
    """Whether the way in which the shell waits shows that it does so for its foreground."""
    programs = procfs.program_names(shell)
    if "zsh" in programs:
        return b"sigsuspend" in procfs.wait_channel(shell.pid) and bool(blocked & INT)
    return (
        procfs.waits_for_child(shell.pid) and not programs.isdisjoint(("dash", "ash", "sh")) and "bash" not in programs
    )

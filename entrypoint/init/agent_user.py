"""Whose user the agent runs as, where a wrapper that stays its parent is root: `su -c`, or a shell in front of it."""

from . import names, procfs

MAX_WRAPPERS = 16
MAX_CHILDREN = 8  # of a wrapper, those that have exited included


def find(agent: int) -> int:
    """Return the pid of the process whose user is the agent's: the first of another user below its wrappers, if any.

    Where a wrapper runs several programs at once, nobody knows which is meant.
    """
    if procfs.user_of(agent) != 0:  # it has nothing to drop
        return agent
    pid = agent
    for _ in range(MAX_WRAPPERS):
        process = procfs.look(pid)
        if process is None or not names.is_wrapper(process):
            break
        pids = procfs.child_pids(pid)
        if len(pids) > MAX_CHILDREN:  # a stranger's request must cost little
            break
        children = [child for number in pids if (child := procfs.look(number)) is not None and child.alive]
        if len(children) != 1:
            break
        pid = children[0].pid
        if procfs.user_of(pid):
            return pid
    return agent

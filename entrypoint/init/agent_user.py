"""Whose user the agent runs as, where a wrapper that stays its parent is root: `su -c`, or a shell in front of it."""

from . import names, procfs

MAX_WRAPPERS = 16


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
        children = [child for child in procfs.children(pid) if child.alive]
        if len(children) != 1:
            break
        pid = children[0].pid
        if procfs.user_of(pid):
            return pid
    return agent

"""Our own helper processes: reporters and the HTTP server. They are our children, and not the agent's.

With one of them running, waitpid(2) does not report that nothing else is left.
"""

import posix

from . import procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .main_process import MainProcess
    from .tree import Descendants


def are_alone(helper_pids: set[int], agent: "MainProcess", descendants: "Descendants") -> bool:
    """Whether helpers are the only children that we have. `helper_pids`: at least one.

    To be called when all children that had exited were reaped. As only we reap them, none goes while the kernel lists
    them, and the list is complete (proc(5), /proc/tid/children).
    """
    if not (agent.has_exited or _is_lost(agent.pid)):
        return False
    children = procfs.child_pids(posix.getpid())
    if children:
        return helper_pids.issuperset(children)
    descendants.forget()
    return descendants.listable() == []  # the kernel does not list them


def _is_lost(pid: int) -> bool:
    """Whether the agent is no child of ours any more, though we have not reaped it: its exit status is lost."""
    try:
        posix.waitid(posix.P_PID, pid, posix.WEXITED | posix.WNOHANG | posix.WNOWAIT)
    except ChildProcessError:
        return True
    except OSError:  # refused (seccomp)
        pass
    return False

"""Who may ask process 1, and who may command it.

A client is known by its pid and user id, both from the kernel (SO_PEERCRED, unix(7)). The namespace of the socket's
name is the network's, so strangers see it too: other containers of a pod, with hostNetwork every process of the host.
Their pids are not visible here, unless the PID namespace is shared as well; user ids coincide. So a client must be

  - visible here, and
  - below us, or in our mount namespace; where that is not known, in our control group, which is the container's; where
    there is none either (gVisor), any that process 1 sees in its PID namespace; and
  - root or our own user; the agent's user, behind a wrapper that of the program it runs, may read.
"""

import posix

from . import procfs, tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .main_process import MainProcess

NONE, READ, ALL = "", "read", "all"


def of(pid: int, uid: int, agent: "MainProcess") -> str:
    """Return what a client may do. `pid`: 0 if it is not visible here."""
    if pid == 0:
        return NONE
    rights = ALL if uid in (0, posix.geteuid()) else READ if uid == agent.user else NONE
    if rights == NONE or not (tree.is_below(posix.getpid(), procfs.look(pid)) or _is_in_our_container(pid)):
        return NONE
    return rights


def _is_in_our_container(pid: int) -> bool:
    known = procfs.is_in_our_container(pid)
    return posix.getpid() == 1 if known is None else known

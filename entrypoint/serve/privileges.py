"""The server runs as the agent's user, without capabilities, and can never get any.

The agent may drop its privileges after its start (gosu, su-exec, setpriv). It mostly has when the server looks, as that
takes longer to start. If it does later, the server ends and process 1 starts it again, as the agent's user.
"""

from __future__ import annotations

import ctypes
import os
import time

from ..init import agent_user

PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38  # prctl(2)
CAP_SETGID, CAP_SETUID, CAP_LAST = 6, 7, 63  # capabilities(7)
CAPABILITY_VERSION_3 = 0x20080522  # capset(2)
SETTLED = 3.0  # seconds for which the same process has to run before the server follows its user
NOBODY = 65534, 65534, list[int]()  # in the place of an agent that has exited: whose user it was is not known


class User:
    """Whom the server runs as. `may_change`: it could have become another user, when it was started."""

    def __init__(self, *, may_change: bool) -> None:
        self._may_change = may_change
        self._is_changing = False
        self._pid, self._since = 0, 0.0  # whose user counts, and since when it is the same process

    def has_changed(self, agent: int) -> bool:
        """Whether the agent has another user than we; True once. `agent`: its pid, 0 if it has exited.

        It drops its privileges for ever. A wrapper may run a step as somebody else, and then the agent.
        """
        if not self._may_change or self._is_changing or not agent:
            return False
        pid, now = agent_user.find(agent), time.monotonic()
        if pid != self._pid:
            self._pid, self._since = pid, now
        found = _user_of(pid)
        if found is not None and found[0] != os.getuid():
            has_dropped = pid == agent and found[0] != 0
            self._is_changing = has_dropped or now - self._since >= SETTLED
        return self._is_changing


def drop(agent: int) -> User:
    """Become the agent's user, if we may, and drop all capabilities. Does not raise. `agent`: as in `has_changed`."""
    may_change = _may_become_others()
    user = NOBODY
    if agent:
        user = _user_of(agent_user.find(agent)) or _user_of(agent) or NOBODY  # the first may have exited meanwhile
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(CAP_LAST + 1):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    if may_change and user[:2] != (os.getuid(), os.getgid()):
        uid, gid, groups = user
        try:
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
        except OSError:  # not a user of this user namespace
            may_change = False
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    libc.capset(header, (ctypes.c_uint32 * 6)())
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return User(may_change=may_change)


def _may_become_others() -> bool:
    needed = 1 << CAP_SETUID | 1 << CAP_SETGID
    effective = _status("self").get("CapEff", "0")
    return int(effective, 16) & needed == needed


def _user_of(pid: int) -> tuple[int, int, list[int]] | None:
    """Return the real user id, group id and other groups of a process; None if they are not known."""
    found = _status(str(pid))
    try:
        return (
            int(found["Uid"].split()[0]),
            int(found["Gid"].split()[0]),
            [int(group) for group in found["Groups"].split()],
        )
    except (KeyError, IndexError, ValueError):
        return None


def _status(pid: str) -> dict[str, str]:
    """Return the fields of /proc/pid/status (proc(5)); none if it cannot be read."""
    try:
        with open(f"/proc/{pid}/status") as file:
            return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    except OSError:
        return {}

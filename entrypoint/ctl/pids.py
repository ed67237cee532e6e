"""Pids of another PID namespace as they are seen here: agent-init's, where that is below ours (pid_namespaces(7))."""

import os

from ..init import procfs


def visible(pid: int, agent_init: int) -> int:
    """Return the pid here of the process that agent-init knows as `pid`; 0 if it is not found.

    `agent_init`: the pid of agent-init, as it is seen here.
    """
    depth = len(_numbers(agent_init))
    if depth <= 1:
        return pid
    namespace = _namespace(agent_init)
    for candidate in procfs.pids():
        numbers = _numbers(candidate)
        if (
            len(numbers) >= depth
            and numbers[depth - 1] == pid
            and (len(numbers) > depth or _namespace(candidate) == namespace)
        ):
            return candidate
    return 0


def _numbers(pid: int) -> list[int]:
    """Return its pids, in our PID namespace first, then in each one below that it is in."""
    try:
        lines = procfs.read_file(f"/proc/{pid}/status").splitlines()
        return next(([int(number) for number in line.split()[1:]] for line in lines if line.startswith(b"NSpid:")), [])
    except OSError:
        return []


def _namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""

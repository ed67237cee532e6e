"""How a process ended: its wait status (waitpid(2)), and what else is known about the reason."""

import posix

from ..signals import KILL, name_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .cgroup import Memory

STATUS_LOST = 125  # the exit code where somebody else has taken the status


def exit_code(status: int) -> int:
    """Return what a shell makes of a wait status: the exit code, or 128 + the signal."""
    code = posix.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def describe(status: int) -> str:
    """Return a wait status as text: `exited with code 3`, `was killed by SIGKILL`."""
    code = posix.waitstatus_to_exitcode(status)
    return f"exited with code {code}" if code >= 0 else f"was killed by SIG{name_of(-code)}"


class Ending:
    """How the agent ended, and the evidence for the reason.

    `status`: its wait status, None if somebody else has taken it. `kill_forwarded`: agent-init had forwarded a
    SIGKILL to it. `oom_kills`: how many processes of the container the kernel's OOM killer has killed since the
    start; None if not known. `memory_limit`, `memory_peak`: bytes, None if not known. `code`: the exit code as a shell
    has it. `signalled`: whether a signal ended it; `killed`: whether that was SIGKILL.
    """

    __slots__ = ("code", "kill_forwarded", "killed", "memory_limit", "memory_peak", "oom_kills", "signalled", "status")

    def __init__(self, status: int | None, memory: "Memory | None" = None, *, kill_forwarded: bool = False) -> None:
        self.status, self.kill_forwarded = status, kill_forwarded
        self.code = STATUS_LOST if status is None else exit_code(status)
        self.signalled = status is not None and posix.WIFSIGNALED(status)
        self.killed = self.signalled and self.code == 128 + KILL
        self.oom_kills = memory.new_kills if memory is not None else None
        self.memory_limit = memory.limit if self.oom_kills and memory is not None else None
        self.memory_peak = memory.peak if self.oom_kills and memory is not None else None

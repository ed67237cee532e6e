"""The controlling terminal on descriptor 0: whose process group is in the foreground (tcsetpgrp(3), credentials(7))."""

import _signal
import posix

from ..signals import CONT, STOP


def give_to(group: int) -> None:
    """Make `group` the foreground process group."""
    before = _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGTTOU,))  # it would stop us (tcsetpgrp(3))
    try:
        posix.tcsetpgrp(0, group)
    except OSError:
        pass  # not our controlling terminal (any longer): there is no job control to lose
    finally:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, before)


def foreground() -> int | None:
    """Return the foreground process group, or None if descriptor 0 is not our controlling terminal."""
    try:
        return posix.tcgetpgrp(0)
    except OSError:
        return None


def stop() -> None:
    """Stop this process, as a job, until it is continued, and take the SIGCONT that does that."""
    posix.kill(posix.getpid(), STOP)
    try:
        _signal.sigtimedwait((CONT,), 0)
    except (OSError, AttributeError):  # refused (seccomp); not on macOS
        pass


def has_shell_above() -> bool:
    """Whether our parent is a shell that runs us as a job: it notices when we stop, and can continue us."""
    try:
        parent = posix.getppid()
        in_session = posix.getpid() != 1 and posix.getsid(parent) == posix.getsid(0)
        return in_session and posix.getpgid(parent) != posix.getpgrp()
    except OSError:
        return False

"""The file of --ready-file: it exists while the agent is ready, so that `cat` is a readiness probe.

A file system can hang, one that the agent serves for example. A thread does the work, and nobody waits for it long.
Each waits for the one before, so a file that is made late does not outlast its removal.
"""

import _thread
import posix

from .. import paths
from .spare_memory import NO_MEMORY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MAX_SECONDS = 0.2  # that the stop signal waits for the file to be gone
NO_ANSWER = "the file system does not answer"
_last: "_thread.LockType | None" = None  # held until the last piece of work is done


def make(path: str) -> str:
    """Make the file, which must not exist. Return why that failed, or nothing."""
    return _without_waiting(_create, path)


def remove(path: str) -> str:
    """Remove the file. Return why that failed, or nothing."""
    return _without_waiting(paths.unlink_file, path)


def _create(path: str) -> None:
    posix.close(posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW, 0o644))


def _without_waiting(work: "Callable[[str], None]", path: str) -> str:
    """Do the work, and wait MAX_SECONDS at most. Return why it failed, or nothing."""
    global _last
    result: list[str] = []
    before, done = _last, _thread.allocate_lock()
    done.acquire()
    _last = done

    def run(patience: float = -1) -> None:
        try:
            if before is not None:
                if not before.acquire(timeout=patience):
                    result.append(NO_ANSWER)
                    return
                before.release()
            work(path)
            result.append("")
        except OSError as error:
            result.append(error.strerror or str(error))
        except NO_MEMORY:
            result.append("out of memory")
        finally:
            done.release()

    try:
        _thread.start_new_thread(run, ())
    except Exception:  # the pids limit, no memory
        run(MAX_SECONDS)
    if not done.acquire(timeout=MAX_SECONDS):
        return NO_ANSWER
    done.release()
    return result[0]

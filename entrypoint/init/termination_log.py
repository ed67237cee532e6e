"""The termination log: a file that an orchestrator reads when the container has ended.

Kubernetes shows the last 4096 bytes of /dev/termination-log with the container's state, whatever the exit code. Where
the file is empty it can show the end of the log instead (`FallbackToLogsOnError`).

The agent may write to the same file, at any time. So the file is read before each write, our part comes after the
agent's, and only our own bytes are replaced. It cannot be replaced by another file: it is a mount.
"""

import _stat
import posix
import time

from . import procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from ..parsed import Settings

MAX_BYTES = 4096
ATTEMPTS = 3  # at a file that grows meanwhile
MIN_BYTES = 64  # for our part; less says nothing
FLAGS = posix.O_RDWR | posix.O_NONBLOCK | posix.O_NOFOLLOW | posix.O_NOCTTY
CLOCK_STEP = 0.05  # seconds; file times and the start times of processes are that coarse


class TerminationLog:
    """Our part of the file that `settings` name.

    `error`: why the last attempt failed, as text; empty if it did not, or if there is no file.
    `is_written`: the file holds our part.
    """

    __slots__ = ("_ours", "_path", "_start", "_was_named", "error")

    def __init__(self, settings: "Settings") -> None:
        self._path = settings.termination_log
        self._was_named = "termination_log" in settings.sources
        self._ours, self._start = b"", 0  # what we have written last, and where
        self.error = ""

    @property
    def is_written(self) -> bool:
        """Whether the file holds our part, as far as we know."""
        return bool(self._ours)

    def write(self, lines: "Sequence[str]") -> None:
        """Make `lines` our part, the most important first, as many as fit. None of them remove our part.

        A file that --termination-log names is created. Does not block, and raises nothing but MemoryError.
        """
        self.error = ""
        if self._path is None or not (lines or self._ours or self._was_named):
            return
        try:
            # O_NONBLOCK: the name may be that of a FIFO. O_NOFOLLOW: a user who may write to the directory could have
            # us write elsewhere.
            fd = posix.open(self._path, FLAGS | (posix.O_CREAT if self._was_named and lines else 0), 0o644)
            try:
                self._update(fd, lines)
            finally:
                posix.close(fd)
        except FileNotFoundError as error:
            self._ours = b""
            self.error = str(error.strerror) if self._was_named and lines else ""
        except OSError as error:
            self.error = str(error.strerror)

    def _update(self, fd: int, lines: "Sequence[str]") -> None:
        """Write the new part, then make the file shorter if it has become that. Raises OSError."""
        found = posix.fstat(fd)
        if not _stat.S_ISREG(found.st_mode):
            raise OSError(0, "not a regular file")
        if self._was_named and not self._ours and found.st_size and _is_older_than_we(found.st_mtime):
            posix.ftruncate(fd, 0)  # of an earlier run of the container
        for _ in range(ATTEMPTS):
            content = posix.pread(fd, 2 * MAX_BYTES + 1, 0)
            # With more there is no more room, and what we have written does not show.
            if len(content) > 2 * MAX_BYTES or self._replace(fd, content, lines):
                return

    def _replace(self, fd: int, content: bytes, lines: "Sequence[str]") -> bool:
        """Replace our part of the file, which has this content. Return False if it has grown meanwhile. Raises OSError.

        Between the last look and the write there is a moment in which the agent's bytes can still be lost: the file
        cannot be locked, as the agent does not know of us.
        """
        start, after = self._place(content)
        text = _text(lines, content[:start] + after)
        written = after + text
        complete = True
        if written != content[start:]:
            if posix.fstat(fd).st_size != len(content):
                return False
            done = posix.pwrite(fd, written, start) if written else 0
            if done < len(written):  # the disk is full
                self._undo(fd, content, start, done, after)
            rest = content[start + done :]
            if rest and posix.fstat(fd).st_size == len(content):
                posix.ftruncate(fd, start + done)
            elif rest:
                text, complete = text + rest, False
        self._ours, self._start = text, start + len(after)
        return complete

    def _undo(self, fd: int, content: bytes, start: int, done: int, after: bytes) -> "NoReturn":
        """Not all could be written: restore the agent's bytes, and remove our own. Raises OSError."""
        posix.pwrite(fd, after, start)  # in place of bytes that were there: this takes no room
        if posix.fstat(fd).st_size <= max(len(content), start + done):
            posix.ftruncate(fd, start + len(after))
        self._ours = b""
        raise OSError(0, "no room for all of it")

    def _place(self, content: bytes) -> tuple[int, bytes]:
        """Return where our part begins in the file, and what the agent has written after it."""
        if not self._ours:
            return len(content), b""
        at = content.find(self._ours, max(0, self._start - len(self._ours)))
        at = content.find(self._ours) if at < 0 else at
        if at >= 0:
            return at, content[at + len(self._ours) :]
        if len(content) == self._start + len(self._ours):
            # It has written over the beginning of our part, with a file offset from before that was there.
            end = len(content)
            while end > self._start and content[end - 1] == self._ours[end - 1 - self._start]:
                end -= 1
            return end, b""
        return len(content), b""  # it has begun the file anew


def _text(lines: "Sequence[str]", before: bytes) -> bytes:
    """Return our part as bytes, cut to what is left after the agent's part."""
    room = MAX_BYTES - len(before)
    if not lines or room < MIN_BYTES:
        return b""
    text = "\n".join(lines).encode("utf-8", "backslashreplace")
    if before:
        text = (b"agent-init: " if before.endswith(b"\n") else b"\nagent-init: ") + text
    if len(text) >= room:
        text = text[: room - 4].decode("utf-8", "ignore").encode() + b"..."
    return text + b"\n"


def _is_older_than_we(changed: float) -> bool:
    """Whether a file was last changed before this process was started: seconds since the epoch. False if not known.

    A script that writes the file and then executes agent-init is this process.
    """
    own = procfs.look(posix.getpid())
    if own is None or not procfs.LINUX:
        return False
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - own.start / posix.sysconf("SC_CLK_TCK")
    return changed < time.time() - age - CLOCK_STEP

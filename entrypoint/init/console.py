"""The log, on stderr or stdout: it never blocks and never fails.

A pipe that nobody reads must not stop process 1. O_NONBLOCK belongs to the open file, which we share with the agent,
so it cannot simply be set; each kind of file has its own way round (`_writer`). A line that does not fit is dropped
and counted, and the count is logged with the next line that does.
"""

import _stat
import posix
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .history import History

ERROR, WARNING, INFO, DEBUG, TRACE = -1, 0, 1, 2, 3
LEVEL_NAMES = {ERROR: "error", WARNING: "warning", INFO: "info", DEBUG: "debug", TRACE: "debug"}
# JSON lines have the level a second time, as Google Cloud Logging reads it: field `severity`, LogSeverity's names
# (https://cloud.google.com/logging/docs/structured-logging). Without it, it takes all of stderr for errors.
MAX_LINE_BYTES = 4096  # PIPE_BUF on Linux: a write of this much goes into a pipe whole or not at all (pipe(7))


class Console:
    """Writes lines up to `level` to the descriptor `fd`, as text or JSON."""

    def __init__(self, fd: int | None, *, level: int = INFO, json: bool = False) -> None:
        self.level, self.json = level, json
        self.dropped = 0
        self.history: History | None = None
        self._write = _writer(fd) if fd is not None else None

    def takes(self, level: int) -> bool:
        """Whether a line of this level is written, or kept in the history, which has more than a quiet log."""
        return level <= max(self.level, INFO)

    @property
    def wants_fields(self) -> bool:
        """Whether the fields of a line appear anywhere."""
        return self.json or self.history is not None

    def end_history(self) -> None:
        """The next line is the last. Nobody can ask for it later, so it is kept only for those that follow the log."""
        if self.history is not None and not self.history.is_followed():
            self.history = None

    def log(self, level: int, event: str, text: str, **fields: object) -> None:
        """Write one line. `event` and `fields` (str, int, float, bool, None, or lists of them) appear in JSON only."""
        if not self.takes(level):
            return
        if self.history is not None:
            try:
                self.history.add(level, event, text, fields)
            except Exception:  # MemoryError: only the record is lost
                pass
        if self._write is None or level > self.level:
            return
        try:
            line = self.line(level, event, text, **fields)
            if self.dropped:
                notice = f"{self.dropped} line{'s' if self.dropped > 1 else ''} before this one could not be written"
                line = self.line(WARNING, "dropped", notice, lines=self.dropped) + line
        except Exception:  # MemoryError: only a line is lost
            self.dropped += 1
        else:
            self.write(line)

    def line(self, level: int, event: str, text: str, **fields: object) -> bytes:
        """Return the line that `log` would write. May raise MemoryError."""
        return json_line(time.time(), level, event, text, fields) if self.json else text_line(level, text)

    def write(self, line: bytes) -> None:
        """Write a line that was made before: this takes no memory."""
        if self._write is None:
            return
        try:
            if self._write(line):
                self.dropped = 0
            else:
                self.dropped += 1
        except Exception:  # EPIPE, ENOSPC, EIO: only a line is lost
            self.dropped += 1


def text_line(level: int, text: str) -> bytes:
    """Return a line for people. May raise MemoryError."""
    label = "" if level >= INFO else LEVEL_NAMES[level] + ": "
    one_line = text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return _cut(f"agent-init: {label}{one_line}".encode("utf-8", "backslashreplace"), b"...\n")


def _cut(line: bytes, ending: bytes) -> bytes:
    """Return the line with its ending; cut, so that the notice of dropped lines fits into the same write."""
    longest = MAX_LINE_BYTES - 256
    return line + b"\n" if len(line) <= longest else line[:longest].decode("utf-8", "ignore").encode() + ending


def json_line(now: float, level: int, event: str, text: str, fields: dict[str, object]) -> bytes:
    """Return a line for programs; `now`: seconds since the epoch. May raise MemoryError."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
    name = LEVEL_NAMES[level]
    head = {"time": stamp, "level": name, "severity": name.upper(), "event": event}
    line = json_text({**head, "message": text, **fields}).encode("ascii")
    if len(line) >= MAX_LINE_BYTES - 256:
        record = {**head, "message": text[:300], "cut": True}
        line = json_text(record).encode("ascii")
    return line + b"\n"


def json_text(value: object) -> str:
    """Return a value as JSON; the module `json` would import `re`, but its C half can be used for strings."""
    if isinstance(value, str):
        from _json import encode_basestring_ascii

        return str(encode_basestring_ascii(value))
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json_text(key)}: {json_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(json_text, value)) + "]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 1e15 else "null"  # JSON has no infinity
    return str(value)


def _writer(fd: int) -> "Callable[[bytes], bool]":
    """Return a function that writes a line to `fd` without blocking, and returns whether it did; may raise OSError."""
    try:
        kind = posix.fstat(fd).st_mode
    except OSError:
        return lambda line: False
    if _stat.S_ISREG(kind):  # a file never blocks; opened again, it would be written from its beginning
        return lambda line: posix.write(fd, line) == len(line)
    if _stat.S_ISSOCK(kind):
        return _to_socket(fd)
    try:
        own = posix.open(f"/proc/self/fd/{fd}", posix.O_WRONLY | posix.O_NONBLOCK | posix.O_NOCTTY)
    except OSError:  # another user's pipe, or no /proc
        return _to_foreign(fd, pipe=_stat.S_ISFIFO(kind))
    return lambda line: posix.write(own, line) == len(line)


def _to_socket(fd: int) -> "Callable[[bytes], bool]":
    try:
        import _socket

        own = _socket.socket(fileno=posix.dup(fd))
    except (ImportError, OSError):
        return lambda line: False
    return lambda line: own.send(line, _socket.MSG_DONTWAIT) == len(line)


def _to_foreign(fd: int, *, pipe: bool) -> "Callable[[bytes], bool]":
    """Return a writer for a file that cannot be opened again: splice(2) for a pipe, else poll(2) before each write."""
    try:
        ends = posix.pipe() if pipe and hasattr(posix, "splice") else None
    except OSError:  # no descriptor left
        ends = None
    if ends is not None:
        reader, writer = ends

        def through_own_pipe(line: bytes) -> bool:
            posix.write(writer, line)
            moved = 0
            try:
                moved = posix.splice(reader, fd, len(line), flags=posix.SPLICE_F_NONBLOCK)
            finally:
                if moved < len(line):
                    posix.read(reader, MAX_LINE_BYTES)  # full or closed: empty ours, the line is lost
            return moved == len(line)

        return through_own_pipe

    import select

    poll = select.poll()
    poll.register(fd, select.POLLOUT)

    def asked_first(line: bytes) -> bool:
        return bool(poll.poll(0)) and posix.write(fd, line) == len(line)

    return asked_first

"""Secrets from files (--secret NAME): the agent gets the content of the file that NAME_FILE names, as NAME.

Only the agent's environment has the content. Process 1 keeps its own environment as it was given, and so do the
processes that it starts for itself; nothing here logs the content or the path, which may be a misplaced secret.
"""

import _stat
import posix

from .spawn import OWN_FAULT, NotStarted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..parsed import Settings

MAX_BYTES = 128 << 10  # of `NAME=content` with its final NUL: execve(2) takes no longer string (MAX_ARG_STRLEN)


def put_into(environment: dict[bytes, bytes], settings: "Settings") -> None:
    """Replace NAME_FILE with NAME for each secret in `settings`. Raises NotStarted, which names the variable."""
    contents = {}
    for name in settings.secret:
        try:
            contents[name.encode()] = _content(name, environment)
        except ValueError as error:
            raise NotStarted(OWN_FAULT, f"{settings.sources['secret']} {name}: {error}") from None
        except OSError as error:
            text = f"{settings.sources['secret']} {name}: cannot read the file that {name}_FILE names"
            raise NotStarted(OWN_FAULT, f"{text}: {posix.strerror(error.errno or 0)}") from None
    for variable in contents:
        environment.pop(variable + b"_FILE", None)
    environment.update(contents)


def _content(name: str, environment: dict[bytes, bytes]) -> bytes:
    """Return the secret, without one trailing newline. Raises ValueError and OSError.

    The open and the reads end at once: not for a FIFO without a writer, and not for a file that grows for ever.
    """
    if environment.get(name.encode()):
        raise ValueError(f"{name} is already set; accepted: {name}_FILE alone")
    path = environment.get(name.encode() + b"_FILE")
    if not path:
        raise ValueError(f"{name}_FILE is not set; accepted: the path of a file")
    fd = posix.open(path, posix.O_RDONLY | posix.O_NONBLOCK | posix.O_NOCTTY)
    try:
        if not _stat.S_ISREG(posix.fstat(fd).st_mode):
            raise ValueError(f"{name}_FILE does not name a regular file")
        content = b""
        while len(content) <= MAX_BYTES and (block := posix.read(fd, MAX_BYTES)):
            content += block
    finally:
        posix.close(fd)
    content = content.removesuffix(b"\n")
    if len(name) + len(content) + 2 > MAX_BYTES:
        raise ValueError(f"the file that {name}_FILE names is too large for a variable; accepted: up to 128 KiB")
    if b"\0" in content:
        raise ValueError(f"the file that {name}_FILE names contains a NUL byte, which no variable can have")
    return content

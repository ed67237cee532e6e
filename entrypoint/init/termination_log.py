"""The termination log: the file that an orchestrator keeps of a container that did not end well.

Kubernetes shows the first 4096 bytes of /dev/termination-log with the container's last state.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..settings import Settings

MAX_BYTES = 4096
FLAGS = os.O_WRONLY | os.O_TRUNC | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY


def write(settings: "Settings", lines: "Sequence[str]") -> None:
    """Write `lines`, the most important first, as many as fit; none empty it. No effect where there is no such file.

    A file that --termination-log names is created. O_NONBLOCK: the name may be that of a FIFO; O_NOFOLLOW: a user who
    may write to the directory could have us write elsewhere.
    """
    path = settings.termination_log
    if path is None:
        return
    create = os.O_CREAT if "termination_log" in settings.sources else 0
    text = "\n".join(lines).encode("utf-8", "backslashreplace")
    if len(text) >= MAX_BYTES:
        text = text[: MAX_BYTES - 4].decode("utf-8", "ignore").encode() + b"..."
    try:
        fd = os.open(path, FLAGS | create, 0o644)
        try:
            os.write(fd, text + b"\n" if text else text)
        finally:
            os.close(fd)
    except OSError:  # nobody asked for it, or it cannot be opened; the log on stderr has the same lines
        return

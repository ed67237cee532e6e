"""What process 1 gives its agent: variables in its environment, and the notify socket that one of them names.

    NOTIFY_SOCKET             the socket to send messages to (sd_notify(3))
    WATCHDOG_USEC, _PID       how often a ping is expected, and from which process (sd_watchdog_enabled(3))
    AGENT_INIT_STOP_SECONDS   from the stop signal until our first action, where that is known
    AGENT_INIT_RESPONDERS     the prefix of the sockets on which processes report their stacks
    AGENT_INIT_LOOP_WATCH     with --loop-watch: its limit, in seconds
    PYTHONPATH                with --stacks: in front, the sitecustomize that starts such a responder

Nothing else in the environment is changed. All of it is made before the agent starts.
"""

import _socket
import posix
import sys

from .. import paths
from ..parsed import LOOP_WATCH, RESPONDERS, STOP_SECONDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..parsed import Settings


class AgentEnvironment:
    """The notify socket, if there is one; its file, if it has one; and the responders' prefix.

    `parent_socket`: the NOTIFY_SOCKET that we were started with, or nothing.
    """

    __slots__ = ("file", "parent_socket", "responders", "socket")

    def __init__(self, responders: str) -> None:
        self.socket: _socket.socket | None = None
        self.file = self.parent_socket = ""
        self.responders = responders

    def cleanup(self) -> None:
        """Remove the socket's file."""
        if self.file:
            try:
                posix.unlink(self.file)
            except OSError:  # somebody else has removed it, for example
                return


def make(
    settings: "Settings", environment: dict[bytes, bytes], package: str, problems: list[str]
) -> AgentEnvironment | None:
    """Add what `settings` ask for to `environment`; what cannot be made is added to `problems`."""
    environment.pop(LOOP_WATCH.encode(), None)
    if not (settings.notify or settings.stacks) or sys.platform != "linux":
        return None
    token = f"agent-init-{posix.getpid()}-{posix.urandom(6).hex()}"
    made = AgentEnvironment("@" + token)
    environment[RESPONDERS.encode()] = made.responders.encode()
    if settings.stacks:
        path = environment.get(b"PYTHONPATH")
        site = paths.fsencode(package) + b"/entrypoint/agent/site"
        environment[b"PYTHONPATH"] = site + (b":" + path if path else b"")
    if settings.loop_watch is not None:
        environment[LOOP_WATCH.encode()] = b"%r" % settings.loop_watch
    if not settings.notify:
        return made
    environment.pop(STOP_SECONDS.encode(), None)  # of another agent-init above us
    if (settings.grace, settings.stop_schedule, settings.platform_grace) != (None, None, None):
        from . import cpu_limit, stop_steps  # only here: the agent's start does not wait for what it does not need

        environment[STOP_SECONDS.encode()] = b"%r" % stop_steps.stop_seconds(settings, cpu_limit.cpus())
    try:
        address = _bind(made, token, environment)
    except OSError as error:
        problems.append(f"no notify socket for the agent: {error.strerror or error}")
        made.socket = None
        return made
    made.parent_socket = paths.fsdecode(environment.get(b"NOTIFY_SOCKET", b""))
    environment[b"NOTIFY_SOCKET"] = paths.fsencode(address)
    if settings.watchdog is not None:
        environment[b"WATCHDOG_USEC"] = b"%d" % max(1, settings.watchdog * 1e6)
        environment[b"WATCHDOG_PID"] = b"%d" % posix.getpid()  # the spawn makes it the agent's
    return made


def _bind(made: AgentEnvironment, token: str, environment: dict[bytes, bytes]) -> str:
    """Open the socket and return its address as NOTIFY_SOCKET has it. Raises OSError.

    If we are not root, only our own user may use it. Root's agent may drop its privileges (gosu, setpriv) and must
    still reach it: there any user may. Either way a message counts by its sender's pid, which comes from the kernel
    (SO_PASSCRED, unix(7)).

    Where no directory can be written (a read-only root) the socket has a name in the abstract namespace.
    """
    temporary = paths.fsdecode(environment.get(b"TMPDIR", b""))
    made.socket = _open()
    # The mode of the file that bind(2) makes. The agent inherits the mask that we were started with.
    previous = posix.umask(0o111 if posix.geteuid() == 0 else 0o177)
    try:
        for place in ("/run", temporary if temporary.startswith("/") else "/tmp"):
            path = f"{place}/{token}"
            try:
                made.socket.bind(path)
            except OSError:
                continue
            made.file = path
            return path
    finally:
        posix.umask(previous)
    made.socket.bind(f"\0{token}/notify")
    return f"@{token}/notify"


def _open() -> _socket.socket:
    socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_NONBLOCK)
    socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
    return socket

"""What process 1 offers its agent, made before the agent starts: the notify socket, and what tells where things are.

All of it is in the environment, and nothing else there is changed:

    NOTIFY_SOCKET             where to send to (sd_notify(3))
    WATCHDOG_USEC, _PID       how often a sign of life is wanted, and from whom (sd_watchdog_enabled(3))
    AGENT_INIT_STOP_SECONDS   from the stop signal until we begin to act, where that is known
    AGENT_INIT_RESPONDERS     how processes that can tell their stacks name their sockets
    PYTHONPATH                with --stacks: in front, the sitecustomize that makes a process one of them
"""

import _socket
import os
import sys

from .. import settings as names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..settings import Settings


class Offer:
    """The notify socket, if there is one; the directory it lies in, if it has one; and the responders' prefix."""

    __slots__ = ("above", "directory", "responders", "socket")

    def __init__(self, responders: str, above: str) -> None:
        self.socket: _socket.socket | None = None
        self.directory = ""
        self.responders = responders
        self.above = above  # the NOTIFY_SOCKET that we were started with, or nothing

    def withdraw(self) -> None:
        """Leave no file behind."""
        if self.directory:
            for remove, path in ((os.unlink, self.directory + "/notify"), (os.rmdir, self.directory)):
                try:
                    remove(path)
                except OSError:
                    continue


def make(settings: "Settings", environment: dict[bytes, bytes], package: str, problems: list[str]) -> Offer | None:
    """Make what `settings` ask for and put it into `environment`; what cannot be made is added to `problems`."""
    if not (settings.notify or settings.stacks) or sys.platform != "linux":
        return None
    token = f"agent-init-{os.getpid()}-{os.urandom(6).hex()}"
    offer = Offer("@" + token, "")
    environment[names.RESPONDERS.encode()] = offer.responders.encode()
    if settings.stacks:
        path = environment.get(b"PYTHONPATH")
        environment[b"PYTHONPATH"] = os.fsencode(package) + b"/entrypoint/agent/site" + (b":" + path if path else b"")
    if not settings.notify:
        return offer
    environment.pop(names.STOP_SECONDS.encode(), None)  # of another agent-init, around us
    if settings.stop_seconds is not None:
        environment[names.STOP_SECONDS.encode()] = b"%r" % settings.stop_seconds
    try:
        address = _bind(offer, token, environment)
    except OSError as error:
        problems.append(f"no notify socket for the agent: {error.strerror or error}")
        offer.socket = None
        return offer
    offer.above = os.fsdecode(environment.get(b"NOTIFY_SOCKET", b""))
    environment[b"NOTIFY_SOCKET"] = os.fsencode(address)
    if settings.watchdog is not None:
        environment[b"WATCHDOG_USEC"] = b"%d" % max(1, settings.watchdog * 1e6)
        environment[b"WATCHDOG_PID"] = b"%d" % os.getpid()  # the spawn makes it the agent's
    return offer


def _bind(offer: Offer, token: str, environment: dict[bytes, bytes]) -> str:
    """Open the socket, and return the address as NOTIFY_SOCKET has it. Raises OSError.

    It lies in a directory of its own. A process that is not root offers it to its own user only. Root's agent may
    drop its privileges (gosu, setpriv) and must still reach it: there anybody may who knows the name, which has 48
    random bits. Either way a message counts by its sender's pid, which the kernel tells (SO_PASSCRED, unix(7)).

    Where nothing can be written (a read-only root) it has a name in the abstract namespace.
    """
    made = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_NONBLOCK)
    made.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
    offer.socket = made
    privileged = os.geteuid() == 0
    for place in ("/run", os.fsdecode(environment.get(b"TMPDIR") or b"/tmp")):
        offer.directory = f"{place}/{token}"
        path = offer.directory + "/notify"
        try:
            os.mkdir(offer.directory, 0o700)
            made.bind(path)
            os.chmod(path, 0o666 if privileged else 0o600)
            if privileged:
                os.chmod(offer.directory, 0o711)
            return path
        except OSError:
            offer.withdraw()
    offer.directory = ""
    made.bind(f"\0{token}/notify")
    return f"@{token}/notify"

"""`ready` and `live`: one line, and exit code 0 for yes, 1 for no.

They are asked every few seconds for years, so they have to answer as fast as an interpreter can: nothing is imported
that they do not need, click least of all.
"""

from .. import units
from . import connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TIMEOUT = 5.0  # seconds, unless --timeout says otherwise


def parse(arguments: "Sequence[str]") -> tuple[int | None, float] | None:
    """Return what --pid and --timeout (seconds) are set to; None for anything that click has to parse, or refuse."""
    pid, timeout = None, TIMEOUT
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            value = next(words, "")
        if name == "--pid" and is_pid(value):
            pid = int(value)
        elif name == "--timeout":
            try:
                timeout = units.parse_duration(value, infinite=False)
            except ValueError:
                return None
            if not timeout:
                return None
        else:
            return None
    return pid, timeout


def is_pid(text: str) -> bool:
    """Whether it is a number that a pid may have."""
    return text.isascii() and text.isdigit() and len(text) < 20 and int(text) > 0


def ready(pid: int | None, timeout: float) -> int:
    """Whether READY=1 came and no stop was requested."""
    return _answer(_ready, pid, timeout)


def live(pid: int | None, timeout: float) -> int:
    """Whether no hang was detected."""
    return _answer(_live, pid, timeout)


def _answer(question: "Callable[[dict[str, str]], tuple[int, str]]", pid: int | None, timeout: float) -> int:
    code, text = connection.read(question, connection.find(pid), timeout)
    print(connection.printable(text))
    return int(code)


def _ready(fields: dict[str, str]) -> tuple[int, str]:
    since = units.format_duration(round(float(fields["SINCE"]), 1))
    if fields["READY"] == "1":
        return 0, f"ready since {since}"
    if fields["STATE"] == "starting":
        return 1, f"not ready: the agent has not sent READY=1 in {since} (sd_notify; see docs/notify.md)"
    return 1, f"not ready: {fields['STATE']} since {since}"


def _live(fields: dict[str, str]) -> tuple[int, str]:
    if hung := fields.get("HUNG"):
        return 1, f"the agent hangs: {HANGS.get(hung, hung)}"
    return 0, f"no hang detected; {fields['STATE']}"


HANGS = {"watchdog": "no sign of life (--watchdog)", "ready-timeout": "not ready in time (--ready-timeout)"}
PROBES: "dict[str, Callable[[int | None, float], int]]" = {"ready": ready, "live": live}

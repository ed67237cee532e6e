"""What `lifecycle` has done: it decides, `execution` carries out."""

from .stop_plan import OUTSIDE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Action:
    """Something for the supervisor to do."""

    __slots__: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self._values() == other._values()

    def __repr__(self) -> str:
        return f"{type(self).__name__}{self._values()}"

    def _values(self) -> tuple[object, ...]:
        names = (name for kind in type(self).__mro__ for name in kind.__dict__.get("__slots__", ()))
        return tuple(getattr(self, name) for name in names)

    __hash__ = None  # type: ignore[assignment]


class Signalling(Action):
    """An action that sends a signal."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


class Stop(Signalling):
    """Send a step of the stop schedule to the agent or its recipients, each followed by SIGCONT.

    If some processes are held back from it, the event `held_back` follows.
    """

    __slots__ = ()


class NoteAllSignalled(Signalling):
    """Note that every process has got the stop signal from the platform: nobody is sent it again."""

    __slots__ = ()


class ForgetAllSignalled(Action):
    """Take `NoteAllSignalled` back."""

    __slots__ = ()


class StopHeldBack(Signalling):
    """Send the stop signal and SIGCONT to the processes that were held back from it."""

    __slots__ = ()


class StopSuccessor(Signalling):
    """Send the stop signal and SIGCONT to the process that has become the agent, unless it has had it."""

    __slots__ = ()


class StopInterrupted(Signalling):
    """Send a signal to those that are still there and were sent INT in place of TERM, or nothing by us."""

    __slots__ = ()


class StopLeftovers(Signalling):
    """Send the stop signal and SIGCONT to each descendant that has not had it yet, and whose turn it is."""

    __slots__ = ()


class Forward(Action):
    """Forward a signal that is no stop request, `always` or only to a process that handles or ignores it.

    If there is none, the event `unhandled` follows, with the `origin`.
    """

    __slots__ = ("always", "number", "origin", "sender")

    def __init__(self, number: int, sender: object, *, always: bool, origin: str = OUTSIDE) -> None:
        self.number, self.sender, self.always, self.origin = number, sender, always, origin


class KillAll(Action):
    """Send SIGKILL to every descendant."""

    __slots__ = ()


class MarkReady(Action):
    """Make the file of --ready-file, or remove it."""

    __slots__ = ("is_ready",)

    def __init__(self, *, is_ready: bool) -> None:
        self.is_ready = is_ready


class LookAtWrapper(Action):
    """Find out what the agent does now that its recipients have exited; the event `wrapper_seen` follows."""

    __slots__ = ()


class LookAtAwaited(Signalling):
    """Send the stop signal to those that a shell waits for before its trap, once they handle it.

    The event `awaited_seen` follows.
    """

    __slots__ = ()


class LookForOrphans(Action):
    """Stop the orphans that were adopted too long ago; the event `orphans_seen` follows."""

    __slots__ = ()


class LookAtWork(Action):
    """Find out whether work goes on below wrappers that have exited; the event `work_seen` follows."""

    __slots__ = ()


class LookAtRest(Action):
    """Find out what has not exited after SIGKILL; the event `rest_seen` follows."""

    __slots__ = ()


class TakeCpuSnapshot(Action):
    """Note how much processor time each process has used: a stall report shows what it has used since."""

    __slots__ = ()


class MakeStallReport(Action):
    """Make a stall report, in `seconds`; the event `reported` follows if it is complete before that."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class Log(Action):
    """Log an event. `narrator` and `events` have each event's level and text; `facts` are what the text is made of."""

    __slots__ = ("event", "facts")

    def __init__(self, event: str, **facts: "Any") -> None:
        self.event, self.facts = event, facts


class Exit(Action):
    """End process 1 with this exit code."""

    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        self.code = code

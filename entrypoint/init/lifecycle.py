"""The life of an agent as process 1 sees it: when to stop it, what to send, what to answer for it in the end.

Theory of operation. Each method is an event: something happened at a time (`now`, seconds on a monotonic clock). It
answers with the list of actions to carry out, in order. Between events nothing happens, except that the time `due`
comes and `tick` is called. There is no clock in here, no process, no I/O; everything that decides lives in this file.

    RUNNING ----- stop request ----> STOPPING       the schedule runs, step by step
    RUNNING, STOPPING -- agent ends -> LINGERING    what it left behind gets the stop signal and the linger time
    STOPPING, LINGERING -- time up --> KILLING      SIGKILL to everything, again and again
    any of them -- nothing is left --> ENDED        with the agent's exit code

Rules that hold whatever the order of events:
  - a step of the schedule is sent once; a further stop request is noted, passed on or moves on, as `repeat` says
  - nothing is addressed to the agent after its end was seen
  - the end comes at most GIVE_UP_AFTER seconds after the SIGKILL, and the SIGKILL at the end of the grace
  - the exit code is the agent's
"""

from ..options import INFINITY, format_duration
from .console import DEBUG, ERROR, INFO, WARNING
from .signals import HUP, KILL, QUIT, VALID, name_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..options import Settings
    from .platforms import Plan

RUNNING, STOPPING, LINGERING, KILLING, ENDED = "running", "stopping", "lingering", "killing", "ended"

PROGRESS_EVERY = 10.0
SWEEP_EVERY = 0.02  # while killing: who was forked since the last look
GIVE_UP_AFTER = 0.4  # what has not died of SIGKILL by then sits in the kernel; it does not hold up the container's end


class Action:
    """Something for the supervisor to do."""

    __slots__: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self._values() == other._values()

    def __repr__(self) -> str:
        return f"{type(self).__name__}{self._values()}"

    def _values(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]


class Stop(Action):
    """Send a step of the stop schedule to the agent or whoever stands for it, then SIGCONT."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


class Forward(Action):
    """Pass on a signal that is no stop request, `always` or only to a process that handles or ignores it.

    Where nobody does, the event `unhandled` follows.
    """

    __slots__ = ("always", "number", "sender")

    def __init__(self, number: int, sender: object, *, always: bool) -> None:
        self.number, self.sender, self.always = number, sender, always


class StopSurvivors(Action):
    """Send the stop signal and SIGCONT to each descendant that has not had it yet."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


class KillAll(Action):
    """SIGKILL to every descendant."""

    __slots__ = ()


class Say(Action):
    """Tell the user. `census`: with the processes that are still there ("names"), or how many they are ("count")."""

    __slots__ = ("census", "event", "fields", "level", "text")

    def __init__(self, level: int, event: str, text: str, *, census: str = "", **fields: object) -> None:
        self.level, self.event, self.text, self.census, self.fields = level, event, text, census, fields


class End(Action):
    """Leave, with this exit code."""

    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        self.code = code


class Lifecycle:
    """One agent's life, from its start at `now`. `due` is when `tick` wants to be called next, or infinity."""

    def __init__(self, settings: "Settings", plan: "Plan", now: float) -> None:
        self.settings, self.plan = settings, plan
        self.state = RUNNING
        # What is simply passed on to an agent that handles it, while there is one: no stop request, no rewrite.
        self.plain = VALID - settings.stop_on - settings.rewrite.keys()
        self.exit_code: int | None = None  # the agent's, once it has ended
        self.how = ""  # ... and in words
        self._started = now
        self._requested = INFINITY  # when the stop was asked for
        self._steps: list[tuple[int, float]] = []  # what is still to be sent, each with the wait that follows it
        self._next_at = INFINITY  # when the first of them goes off
        self._first_sent = False
        self._report_at = INFINITY  # the one report where the end is the platform's
        self._progress_at = INFINITY
        self._kill_at = INFINITY  # LINGERING: when it is over
        self._sweep_at = INFINITY  # KILLING
        self._give_up_at = INFINITY

    # --- Events. ----------------------------------------------------------------------------------------------------

    def signal(self, now: float, number: int, sender: object) -> list[Action]:
        """Process 1 got a signal from `sender`, which is only printed."""
        rewritten = self.settings.rewrite.get(number, number)
        if rewritten == 0:
            name = name_of(number)
            return [Say(DEBUG, "dropped", f"{name} from {sender} dropped (--rewrite)", signal=name)]
        if number in self.settings.stop_on or rewritten in self.settings.stop_on:
            instead = rewritten if rewritten != number else None
            return self._stop_requested(now, number, sender, instead)
        if self.exit_code is not None or self.state == KILLING:
            return [Say(DEBUG, "not-forwarded", f"{name_of(number)} from {sender} comes too late for the agent")]
        return [Forward(rewritten, sender, always=self.settings.unhandled == "forward")]

    def unhandled(self, now: float, number: int, sender: object) -> list[Action]:
        """A signal was not forwarded because nobody handles it: by default it would end the agent."""
        if number in (HUP, QUIT) and self.settings.stop_on:
            return self._stop_requested(now, number, sender, None)
        text = f"{name_of(number)} from {sender} dropped: nobody handles it (--unhandled forward would send it)"
        return [Say(WARNING, "shielded", text, signal=name_of(number))]

    def agent_ended(self, now: float, code: int, how: str, *, alone: bool) -> list[Action]:
        """The agent's exit was seen. `alone`: it left nothing behind."""
        at_deadline = self.state == KILLING and code == 128 + KILL
        self.exit_code, self.how = code, how + (" when its time was up" if at_deadline else "")
        self.plain = frozenset()
        if alone:
            return self._end(now)
        if self.state == KILLING:
            return []
        time_left = (self._time_of_kill() if self.state == STOPPING else now + self.plan.grace) - now
        linger = max(0.0, min(self.settings.linger, time_left))
        self.state, self._kill_at, self._steps = LINGERING, now + linger, []
        self._progress_at = min(self._progress_at, now + PROGRESS_EVERY)
        number = self.settings.stop_signal
        text = f"the agent {how}, and left processes behind; {name_of(number)} to them, up to {format_duration(linger)}"
        return [
            Say(INFO, "lingering", text, census="names", code=code, linger=linger),
            StopSurvivors(number),
        ]

    def nothing_left(self, now: float) -> list[Action]:
        """There is no child any more. Says nothing while the agent's own end has not been seen."""
        return self._end(now) if self.exit_code is not None and self.state != ENDED else []

    def tick(self, now: float) -> list[Action]:
        """The time `due` has come. What is due at the same time is done in the order of its time."""
        if self.state == KILLING:
            return self._sweep(now)
        if self.state == LINGERING and now >= self._kill_at:
            return self._kill(now, "linger-over", "the time to linger is over, SIGKILL to what the agent left behind")
        if self.state == STOPPING and self._report_at <= now and self._report_at <= self._next_at:
            self._report_at = INFINITY
            return [Say(WARNING, "limit-near", self._limit_text(now), census="names")]
        if self.state == STOPPING and self._next_at <= now:
            return self._step(now)
        if self.state in (STOPPING, LINGERING) and self._progress_at <= now:
            self._progress_at += PROGRESS_EVERY * (1 + (now - self._progress_at) // PROGRESS_EVERY)
            return [self._progress(now)]
        return []

    @property
    def due(self) -> float:
        """When `tick` is to be called, on the clock of `now`; infinity where nothing waits."""
        if self.state == KILLING:
            return min(self._sweep_at, self._give_up_at)
        if self.state == LINGERING:
            return min(self._kill_at, self._progress_at)
        if self.state == STOPPING:
            return min(self._next_at, self._report_at, self._progress_at)
        return INFINITY

    # --- What follows from them. ------------------------------------------------------------------------------------

    def _stop_requested(self, now: float, number: int, sender: object, instead: int | None) -> list[Action]:
        if self.state == RUNNING:
            return self._start_stop(now, number, sender, instead)
        if self.state in (KILLING, ENDED):
            return []
        noted = f"{name_of(number)} from {sender}: a stop is under way already ({self._time_text(now)})"
        if self._requested == INFINITY:  # the agent had ended by itself; from now on the grace counts too
            self._requested = now
            self._kill_at = min(self._kill_at, now + self.plan.grace)
        elif self.settings.repeat == "escalate" and self.state == LINGERING:
            return self._kill(now, "escalated", f"{noted}; SIGKILL at once")
        elif self.settings.repeat == "escalate" and self._steps:
            self._next_at = now
            return [Say(INFO, "escalated", f"{noted}; on to the next step"), *self._step(now)]
        elif self.settings.repeat == "forward" and self.state == STOPPING and self._first_sent:
            passed = self.settings.stop_signal if instead is None else instead
            return [Say(INFO, "stop-repeated", f"{noted}; {name_of(passed)} passed on"), Stop(passed)]
        return [Say(INFO, "stop-repeated", f"{noted}; not passed on", signal=name_of(number), sender=str(sender))]

    def _start_stop(self, now: float, number: int, sender: object, instead: int | None) -> list[Action]:
        self.state, self._requested, self._progress_at = STOPPING, now, now + PROGRESS_EVERY
        if self.plan.report_after is not None:
            self._report_at = now + self.plan.report_after
        delay = self.settings.stop_delay
        (first, wait), *later = self.plan.steps
        if instead is not None and first != KILL:
            first = instead
        self._steps = [(first, wait - delay), *later]
        self._next_at = now + delay
        name = name_of(number)
        text = f"stop requested by {name} from {sender}: {self._plan_text(now)}"
        say = Say(INFO, "stop-requested", text, signal=name, sender=str(sender))
        return [say, *self._step(now)] if self._next_at <= now else [say]

    def _take_step(self) -> int:
        (number, wait), *self._steps = self._steps
        self._next_at = self._next_at + wait if self._steps else INFINITY
        self._first_sent = True
        return number

    def _step(self, now: float) -> list[Action]:
        """Send the next signal of the schedule."""
        first = not self._first_sent
        number = self._take_step()
        after = f"{format_duration(now - self._requested)} after the stop request"
        if number == KILL:
            return self._kill(now, "deadline", f"{after}, SIGKILL")
        if first:
            return [Stop(number)]
        return [Say(WARNING, "escalated", f"{after}, {name_of(number)}", census="names"), Stop(number)]

    def _kill(self, now: float, event: str, text: str) -> list[Action]:
        self.state, self._steps, self.plain = KILLING, [], frozenset()
        self._sweep_at, self._give_up_at = now + SWEEP_EVERY, now + GIVE_UP_AFTER
        return [Say(WARNING, event, text, census="names"), KillAll()]

    def _sweep(self, now: float) -> list[Action]:
        if now < self._give_up_at:
            self._sweep_at = now + SWEEP_EVERY
            return [KillAll()]
        if self.exit_code is None:
            self.exit_code, self.how = 128 + KILL, "was sent SIGKILL and has not died of it yet"
        text = f"gave up waiting for what does not die of SIGKILL {format_duration(GIVE_UP_AFTER)} after it was sent"
        return [KillAll(), Say(ERROR, "left-behind", text, census="names"), *self._end(now)]

    def _end(self, now: float) -> list[Action]:
        self.state = ENDED
        code = self.exit_code or 0
        told = 0 if code in self.settings.ok_exit else code
        lived = now - self._started
        stopping = now - self._requested if self._requested < INFINITY else None
        since = "" if stopping is None else f", {format_duration(stopping)} after the stop request"
        mapped = f" (--ok-exit {code})" if told != code else ""
        text = f"ended: the agent {self.how}{since}, after {format_duration(lived)} in all; exit code {told}{mapped}"
        say = Say(INFO, "ended", text, code=told, agent_code=code, how=self.how, seconds=lived, stop_seconds=stopping)
        return [say, End(told)]

    # --- Words. -----------------------------------------------------------------------------------------------------

    def _time_of_kill(self) -> float:
        if not self._steps or self._steps[-1][0] != KILL:
            return INFINITY
        return self._next_at + sum(wait for _, wait in self._steps[:-1])

    def _plan_text(self, now: float) -> str:
        """The steps to come, `TERM to the agent, KILL after 25s`, and who ends it where that is not us."""
        words: list[str] = []
        at = self._next_at
        for number, wait in self._steps:
            if not words:
                words.append(f"{name_of(number)} to the agent")
                if at > now:
                    words[0] += f" after {format_duration(at - now)}"
            elif at < INFINITY:
                words.append(f"{name_of(number)} after {format_duration(at - now)}")
            at += wait
        if self._time_of_kill() == INFINITY:
            words.append(f"no deadline but that of {self.plan.platform}" if self.plan.platform else "no deadline")
        return ", ".join(words)

    def _time_text(self, now: float) -> str:
        """How long there still is."""
        end = self._kill_at if self.state == LINGERING else self._time_of_kill()
        if end < INFINITY:
            return f"{format_duration(max(0.0, end - now))} left"
        return f"for {format_duration(now - self._requested)} now, no deadline of ours"

    def _progress(self, now: float) -> Say:
        end = self._kill_at if self.state == LINGERING else self._time_of_kill()
        left = end - now if end < INFINITY else None
        return Say(INFO, "stopping", f"stopping: {self._time_text(now)}", census="count", left=left)

    def _limit_text(self, now: float) -> str:
        return (
            f"{format_duration(now - self._requested)} after the stop request the agent is still there; the wait of "
            f"{self.plan.platform} ends with a SIGKILL from outside; agent-init goes on waiting (AGENT_INIT_GRACE "
            "sets a deadline of its own)"
        )

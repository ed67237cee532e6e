"""The life of an agent as process 1 sees it: when to stop it, what to send, what to answer for it in the end.

Theory of operation. Each method is an event: something happened at a time (`now`, seconds on a monotonic clock). It
answers with the list of actions to carry out, in order. Between events nothing happens, except that the time `due`
comes and `tick` is called. There is no clock in here, no process, no I/O; everything that decides lives in this file.

    RUNNING ----- stop request ----> STOPPING       the schedule runs, step by step
    RUNNING ----- hangs -----------> STOPPING       the same, with ABRT for the stop signal
    RUNNING, STOPPING -- agent ends -> LINGERING    what it left behind gets the stop signal and the linger time
    STOPPING, LINGERING -- time up --> KILLING      SIGKILL to everything, again and again
    any of them -- nothing is left --> ENDED        with the agent's exit code

Rules that hold whatever the order of events:
  - a step of the schedule is sent once; a further stop request is noted, passed on or moves on, as `repeat` says
  - nothing is addressed to the agent after its end was seen
  - the end comes at most GIVE_UP_AFTER seconds after the SIGKILL, and the SIGKILL at the end of the grace
  - the agent can buy more time, each message what it names, but none beyond --max-grace
  - the exit code is the agent's; one that hung does not end with 0
"""

import os

from ..platforms import DEFAULT_GRACE
from ..settings import REPORT_TIME, report_time
from ..signals import ABRT, HUP, KILL, QUIT, VALID, name_of
from ..units import INFINITY, format_duration
from .console import DEBUG, ERROR, INFO, WARNING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..settings import Settings
    from .stop_plan import StopPlan

RUNNING, STOPPING, LINGERING, KILLING, ENDED = "running", "stopping", "lingering", "killing", "ended"

PROGRESS_EVERY = 10.0
SWEEP_EVERY = 0.02  # while killing: who was forked since the last look
SHORTEST_REPORT = 0.2  # in less than this there will be none
FROZEN_FOR = 0.1  # a timer that is this late: the whole container may have been stopped, and the agent with it
REPRIEVE = 1.0  # what the agent has at least to give a sign of life after that
LONGEST_STATUS = 200
MAX_ERRNO = 4095  # what a system call can fail with (include/linux/err.h)
# An agent that may be a launcher is signalled this long after the children that got the stop signal have exited: one
# that polls for its child's exit does so every second or more often, and is to exit by itself, with the child's code.
HELD_BACK_FOR = 1.5
HELD_BACK_AT_MOST = 5.0  # ... or this long after the stop signal, if there is no deadline of which to take the half
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


class StopHeldBack(Action):
    """Send the stop signal, then SIGCONT, to whoever did not get it because a descendant of his got it first."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


class StopSurvivors(Action):
    """Send the stop signal and SIGCONT to each descendant that has not had it yet."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


class KillAll(Action):
    """SIGKILL to every descendant."""

    __slots__ = ()


class Measure(Action):
    """Note what each process has used of the processor: a report tells what it used since."""

    __slots__ = ()


class MakeReport(Action):
    """Make a stall report, in `seconds`; the event `reported` follows where it is done before that."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class Say(Action):
    """Tell the user.

    `census`: with the processes that are still there ("names"), how many they are ("count"), or those that were there
    when it was told the last time ("last"). `tail` follows it.
    """

    __slots__ = ("census", "event", "fields", "level", "tail", "text")

    def __init__(
        self, level: int, event: str, text: str, *, census: str = "", tail: str = "", **fields: object
    ) -> None:
        self.level, self.event, self.text, self.census, self.tail = level, event, text, census, tail
        self.fields = fields


class End(Action):
    """Leave, with this exit code."""

    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        self.code = code


class Lifecycle:
    """One agent's life, from its start at `now`. `due` is when `tick` wants to be called next, or infinity."""

    def __init__(self, settings: "Settings", plan: "StopPlan", now: float) -> None:
        self.settings, self.plan = settings, plan
        self.state = RUNNING
        # What is simply passed on to an agent that handles it, while there is one: no stop request, no rewrite.
        self.plain = VALID - settings.stop_on - settings.rewrite.keys()
        self.exit_code: int | None = None  # the agent's, once it has ended
        self.how = ""  # ... and in words
        self.cause = ""  # ... in a word: exited, signal, deadline, escalated, oom, killed, lost
        self.hung = ""  # ... if it hung: watchdog, ready-timeout
        self.ready = False
        self.status = ""  # what it said last of what it does
        self._started = now
        self._watchdog = settings.watchdog  # how long it may be silent, once it has spoken
        self._silent_at = INFINITY  # when it will have been
        self._reprieved = False  # it has had its reprieve, and given no sign of life since
        self._ready_by = INFINITY if settings.ready_timeout is None else now + settings.ready_timeout
        self._requested = INFINITY  # when the stop was asked for
        self._steps: list[tuple[int, float]] = []  # what is still to be sent, each with the wait that follows it
        self._next_at = INFINITY  # when the first of them goes off
        self._first_sent = False
        self._extended = False
        self._last_sent = 0  # the signal of the last step
        self._held_back_until = INFINITY  # when whoever was held back from the stop signal gets it
        self._all_signalled = False  # they have got it
        self._stall_at = INFINITY  # the stall report before the next step
        self._reported_at = -INFINITY
        self._report_at = INFINITY  # the one report where the end is the platform's
        self._progress_at = INFINITY
        self._kill_at = INFINITY  # LINGERING: when it is over
        self._killed_for = ""  # KILLING: deadline, linger-over, escalated
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

    def notified(
        self, now: float, fields: "Mapping[str, str]", sender: object, *, by_agent: bool = True
    ) -> list[Action]:
        """A message came through the notify socket (sd_notify(3)); what it says takes effect in a fixed order.

        `by_agent`: it is of the process that WATCHDOG_PID names; of another one no sign of life can be expected.
        """
        actions: list[Action] = []
        if (status := fields.get("STATUS")) is not None and (status := status[:LONGEST_STATUS]) != self.status:
            self.status = status
            actions.append(Say(DEBUG, "status", f'the agent says: "{status}"', status=status))
        if 0 < (number := _whole(fields.get("ERRNO")) or 0) <= MAX_ERRNO:
            text = f"the agent tells error {number} ({os.strerror(number)})"
            actions.append(Say(WARNING, "errno", text, errno=number))
        if (microseconds := _whole(fields.get("WATCHDOG_USEC"))) is not None:
            self._watchdog = microseconds / 1e6 if microseconds else None
            if self._silent_at < INFINITY:
                self._silent_at = INFINITY if self._watchdog is None else now + self._watchdog
        if fields.get("RELOADING") == "1":
            actions.append(Say(INFO, "reloading", "the agent is reloading"))
        elif fields.get("STOPPING") == "1" and self.state == RUNNING:
            actions.append(Say(INFO, "agent-stopping", "the agent is stopping by itself"))
        if fields.get("READY") == "1":
            actions += self._is_ready(now)
            if self._watchdog is not None and self._silent_at == INFINITY and not by_agent:
                text = (
                    f"{sender} is ready, but WATCHDOG_PID names the agent: the watchdog waits for its first WATCHDOG=1"
                )
                actions.append(Say(WARNING, "watchdog-waits", text))
        if fields.get("WATCHDOG") == "trigger" and self.state == RUNNING:
            return [*actions, *self._hangs(now, "watchdog", f"the agent triggered its watchdog ({sender})")]
        if fields.get("WATCHDOG") == "1" or (fields.get("READY") == "1" and by_agent):
            self._silent_at = INFINITY if self._watchdog is None else now + self._watchdog
            self._reprieved = False
        if microseconds := _whole(fields.get("EXTEND_TIMEOUT_USEC")):
            actions += self._extend(now, microseconds / 1e6)
        return actions

    def held_back(self, now: float) -> list[Action]:
        """The stop signal went to descendants of the agent, which may be a launcher or may be helpers."""
        if self.state != STOPPING or self._all_signalled:
            return []
        end = self._time_of_kill()
        half = now + HELD_BACK_AT_MOST if end == INFINITY else (self._requested + end) / 2
        self._held_back_until = max(now + HELD_BACK_FOR, half)
        wait = format_duration(self._held_back_until - now)
        text = f"the agent itself gets {name_of(self._last_sent)} when they have exited, or after {wait}"
        return [Say(INFO, "held-back", text, signal=name_of(self._last_sent))]

    def recipients_ended(self, now: float) -> list[Action]:
        """The descendants that got the stop signal in the agent's place have all exited."""
        self._held_back_until = min(self._held_back_until, now + HELD_BACK_FOR)
        return []

    def reported(self, now: float) -> list[Action]:
        """The stall report is complete; what waited for it need not wait longer."""
        if self.state == STOPPING and self.hung and not self._first_sent:
            self._next_at = now
        return []

    def agent_ended(self, now: float, code: int, how: str, *, alone: bool, cause: str = "exited") -> list[Action]:
        """The agent's exit was seen. `alone`: it left nothing behind; `how` and `cause`: in words, and in a word."""
        self.exit_code, self.how, self.cause = code, how, cause
        if self.state == KILLING and code == 128 + KILL:
            escalated = self._killed_for == "escalated"
            self.how += " at a further stop request (--repeat escalate)" if escalated else " when its time was up"
            self.cause = "escalated" if escalated else "deadline"
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
        if self.state == RUNNING:
            return self._silence(now)
        if self.state == KILLING:
            return self._sweep(now)
        if self.state == LINGERING and now >= self._kill_at:
            return self._kill(now, "linger-over", "the time to linger is over, SIGKILL to what the agent left behind")
        if self.state == STOPPING and self._report_at <= now and self._report_at <= self._next_at:
            self._report_at, self._reported_at = INFINITY, now
            return [Say(WARNING, "limit-near", self._limit_text(now), census="names"), MakeReport(REPORT_TIME)]
        if self.state == STOPPING and self._stall_at <= now:
            self._stall_at = INFINITY
            if self._next_at - now >= SHORTEST_REPORT:
                self._reported_at = now
                return [MakeReport(self._next_at - now)]
        if self.state == STOPPING and self._next_at <= now:
            return self._step(now)
        if self.state == STOPPING and self._held_back_until <= now:
            return self._stop_held_back()
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
            return min(self._next_at, self._report_at, self._progress_at, self._stall_at, self._held_back_until)
        if self.state == RUNNING:
            return min(self._silent_at, self._ready_by)
        return INFINITY

    # --- What follows from them. ------------------------------------------------------------------------------------

    def _is_ready(self, now: float) -> list[Action]:
        self._ready_by = INFINITY
        if self.ready:
            return []
        self.ready = True
        lived = now - self._started
        return [Say(INFO, "ready", f"the agent is ready, after {format_duration(lived)}", seconds=lived)]

    def _silence(self, now: float) -> list[Action]:
        """Nothing was heard of the agent for as long as it may be silent."""
        not_ready = self._ready_by <= self._silent_at
        allowed = self.settings.ready_timeout if not_ready else self._watchdog
        late = now - min(self._ready_by, self._silent_at)
        if allowed is None or late < 0:
            return []
        if late > REPRIEVE or (late > FROZEN_FOR and not self._reprieved):  # it could not speak either; now it can
            self._reprieved = True
            self._ready_by = self._put_off(now, late, self._ready_by, self.settings.ready_timeout)
            self._silent_at = self._put_off(now, late, self._silent_at, self._watchdog)
            return []
        if not_ready:
            return self._hangs(now, "ready-timeout", f"the agent is not ready after {format_duration(allowed)}")
        return self._hangs(now, "watchdog", f"the agent gave no sign of life for {format_duration(allowed)}")

    @staticmethod
    def _put_off(now: float, late: float, at: float, allowed: float | None) -> float:
        """Until when the agent may be silent that could not speak for a time of which `late` is the end."""
        if at > now or allowed is None:
            return at + late
        return now + (allowed if late > REPRIEVE else REPRIEVE)

    def _hangs(self, now: float, hung: str, text: str) -> list[Action]:
        """Report, ABRT, and the rest of the schedule. Nobody else ends a hung agent, so there is always an end."""
        (_, wait), *later = self.plan.steps
        wait = DEFAULT_GRACE if wait == INFINITY else wait
        later = [(number, DEFAULT_GRACE if pause == INFINITY else pause) for number, pause in later]
        if not later or later[-1][0] != KILL:
            later.append((KILL, INFINITY))
        self._begin(now, [(ABRT, wait), *later], REPORT_TIME)
        self.hung, self._reported_at = hung, now
        plan = self._plan_text(now)
        return [Say(ERROR, hung, f"{text}: a report, {plan}", status=self.status), MakeReport(REPORT_TIME)]

    def _extend(self, now: float, seconds: float) -> list[Action]:
        """The agent buys time: that which it names, counted from now, where what it has does not reach so far."""
        if self.state == RUNNING and self._ready_by < INFINITY:
            self._ready_by = max(self._ready_by, now + seconds)
        if self.state != STOPPING or not self._first_sent or self.hung or self._next_at == INFINITY:
            return []
        later = sum(wait for _, wait in self._steps[:-1])
        bound = self.settings.max_grace
        latest = INFINITY if bound == INFINITY else self._requested + bound - later
        granted = min(now + seconds, latest)
        if granted <= self._next_at:
            return []
        actions: list[Action] = []
        if not self._extended:
            limit = "" if bound == INFINITY else f", {format_duration(bound)} in all at most (--max-grace)"
            actions.append(Say(INFO, "extended", f"the agent asks for more time{limit}"))
            self._extended = True
        self._next_at = granted
        if now > self._reported_at + PROGRESS_EVERY:
            self._plan_report(now, self._next_at - now)
        return actions

    def _plan_report(self, now: float, wait: float) -> None:
        """A stall report some time before the step that comes after `wait`."""
        time = report_time(wait)
        self._stall_at = now + wait - time if time >= SHORTEST_REPORT and wait < INFINITY else INFINITY

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
            return [Say(INFO, "escalated", f"{noted}; on to the next step"), *self._step(now, "escalated")]
        elif self.settings.repeat == "forward" and self.state == STOPPING and self._first_sent:
            passed = self.settings.stop_signal if instead is None else instead
            return [Say(INFO, "stop-repeated", f"{noted}; {name_of(passed)} passed on"), Stop(passed)]
        return [Say(INFO, "stop-repeated", f"{noted}; not passed on", signal=name_of(number), sender=str(sender))]

    def _start_stop(self, now: float, number: int, sender: object, instead: int | None) -> list[Action]:
        if self.plan.report_after is not None:
            self._report_at = now + self.plan.report_after
        delay = self.settings.stop_delay
        (first, wait), *later = self.plan.steps
        if instead is not None and first != KILL:
            first = instead
        self._begin(now, [(first, wait - delay), *later], delay)
        name = name_of(number)
        text = f"stop requested by {name} from {sender}: {self._plan_text(now)}"
        say = Say(INFO, "stop-requested", text, signal=name, sender=str(sender))
        return [say, *self._step(now)] if self._next_at <= now else [say]

    def _begin(self, now: float, steps: list[tuple[int, float]], delay: float) -> None:
        self.state, self._requested, self._progress_at = STOPPING, now, now + PROGRESS_EVERY
        self._steps, self._next_at = steps, now + delay

    def _take_step(self) -> int:
        (number, wait), *self._steps = self._steps
        self._next_at = self._next_at + wait if self._steps else INFINITY
        self._stall_at = INFINITY
        self._first_sent = True
        self._last_sent = number
        return number

    def _stop_held_back(self) -> list[Action]:
        self._held_back_until, self._all_signalled = INFINITY, True
        text = f"the agent has not exited: {name_of(self._last_sent)} to it as well"
        return [Say(INFO, "agent-too", text, signal=name_of(self._last_sent)), StopHeldBack(self._last_sent)]

    def _step(self, now: float, why: str = "deadline") -> list[Action]:
        """Send the next signal of the schedule."""
        first = not self._first_sent
        number = self._take_step()
        after = f"{format_duration(now - self._requested)} after {self._reason}"
        if number == KILL:
            return self._kill(now, why, f"{after}, SIGKILL")
        if self._steps and not self.hung:
            self._plan_report(now, self._next_at - now)
        if first:
            return [Stop(number)] if self.hung else [Stop(number), Measure()]
        return [Say(WARNING, "escalated", f"{after}, {name_of(number)}", census="names"), Stop(number)]

    def _kill(self, now: float, event: str, text: str) -> list[Action]:
        self.state, self._killed_for, self._steps, self.plain = KILLING, event, [], frozenset()
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
        told, why = code, ""
        if code in self.settings.ok_exit:
            told, why = 0, f" (--ok-exit {code})"
        if self.hung and told == 0:
            told, why = 128 + ABRT, " (it hung)"
        lived = now - self._started
        stopping = now - self._requested if self._requested < INFINITY else None
        since = "" if stopping is None else f", {format_duration(stopping)} after {self._reason}"
        text = f"ended: the agent {self.how}{since}, after {format_duration(lived)} in all; exit code {told}{why}"
        say = Say(
            INFO,
            "ended",
            text,
            census="last" if self.cause == "deadline" else "",
            tail=f'; its last status: "{self.status}"' if told and self.status else "",
            code=told,
            agent_code=code,
            cause=self.hung or self.cause,
            how=self.how,
            seconds=lived,
            stop_seconds=stopping,
            status=self.status,
        )
        return [say, End(told)]

    # --- Words. -----------------------------------------------------------------------------------------------------

    @property
    def _reason(self) -> str:
        return "it was found to hang" if self.hung else "the stop request"

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
            extended = " (extended by the agent)" if self._extended and self.state == STOPPING else ""
            return f"{format_duration(max(0.0, end - now))} left{extended}"
        return f"for {format_duration(now - self._requested)} now, no deadline of ours"

    def _progress(self, now: float) -> Say:
        end = self._kill_at if self.state == LINGERING else self._time_of_kill()
        left = end - now if end < INFINITY else None
        text = f"stopping: {self._time_text(now)}"
        tail = f', "{self.status}"' if self.status else ""
        return Say(INFO, "stopping", text, census="count", tail=tail, left=left, status=self.status)

    def _limit_text(self, now: float) -> str:
        return (
            f"{format_duration(now - self._requested)} after {self._reason} the agent is still there; the wait of "
            f"{self.plan.platform} ends with a SIGKILL from outside; agent-init goes on waiting (AGENT_INIT_GRACE "
            "sets a deadline of its own)"
        )


def _whole(text: str | None) -> int | None:
    """A number without a sign, as the protocol has them; None for anything else."""
    return int(text) if text and len(text) < 20 and text.isascii() and text.isdigit() else None

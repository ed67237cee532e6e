"""The life of an agent as process 1 sees it: when to stop it, what to send, and with which exit code to end.

Theory of operation. Each public method is an event: something happened at a time (`now`, seconds on a monotonic
clock). It returns the actions to carry out, in order. Between events nothing happens, except that the time `due` comes
and `tick` is called. There is no clock in here, no process, no I/O and no prose: actions carry facts, and `narrator`
turns them into text.

    RUNNING ----- stop request ----> STOPPING       the schedule runs, step by step
    RUNNING ----- hangs -----------> STOPPING       the same, with ABRT for the stop signal
    RUNNING, STOPPING -- agent ends -> LINGERING    what it left behind gets the stop signal and the linger time
    STOPPING -- a wrapper ends, its work does not   the stop goes on until the work has ended
    STOPPING, LINGERING -- time up --> KILLING      SIGKILL to everything, again and again
    any of them -- nothing is left --> ENDED        with the agent's exit code

Whatever the order of events:
  - a step of the schedule is sent once; a repeated stop request is noted, passed on or moves on, as `repeat` says
  - nothing is addressed to the agent after its exit was seen
  - SIGKILL comes by the end of the grace, and our own exit at most GIVE_UP_AT_LAST seconds later
  - the agent can extend its time, each message to the time it names, and so can a person, each time by so much; neither
    past --max-grace and --platform-grace
  - the ready file is removed before the stop signal is sent
  - where the platform ends a stop, we have no deadline; but one that was requested from inside has the platform's limit
    for its deadline, until a request from outside comes
  - the exit code is the agent's; an agent that hung does not end with 0, and where the agent was a wrapper and we have
    killed the work below it, the exit code is SIGKILL's

Rules of this file:
  - Everything that decides when to send what, and the exit code, is in here. One decision is taken elsewhere, for
    speed: a signal in `sent_at_once` goes to an agent that handles it without an event (`fast_path`).
  - Every timer is in TIMERS, from which both `due` and `tick` derive.
  - State is replaced, never mutated in place: `snapshot` copies references only, and `restore` undoes an event.
"""

from ..signals import ABRT, EOF, HUP, INT, KILL, QUIT, TERM, VALID
from ..units import INFINITY
from . import stop_plan, stop_steps
from .actions import (
    Action,
    Exit,
    ForgetAllSignalled,
    Forward,
    KillAll,
    Log,
    LookAtAwaited,
    LookAtRest,
    LookAtWork,
    LookAtWrapper,
    LookForOrphans,
    MakeStallReport,
    MarkReady,
    NoteAllSignalled,
    Stop,
    StopHeldBack,
    StopInterrupted,
    StopLeftovers,
    TakeCpuSnapshot,
)
from .stop_plan import INSIDE, OUTSIDE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ..parsed import Settings
    from .exit_status import Ending
    from .stop_plan import StopPlan
    from .stop_steps import Steps

RUNNING, STOPPING, LINGERING, KILLING, ENDED = "running", "stopping", "lingering", "killing", "ended"

# For each state its timers, each with the method that it calls. If several are due, the first one listed goes
# off: if we wake late, signals come before reports.
TIMERS: "dict[str, dict[str, str]]" = {
    RUNNING: {"ready": "_check_silence", "silence": "_check_silence", "orphans": "_look_for_orphans"},
    STOPPING: {
        "step": "_next_step",
        "last_term": "_send_last_term",  # some seconds before the KILL, to those that have not had it
        "held_back": "_stop_held_back",
        "settle": "_look_at_wrapper",  # all recipients have exited, the agent has not
        "awaited": "_look_at_awaited",  # what a shell waits for before its trap may handle the stop signal by now
        "confirm": "_platform_has_not_signalled",  # TERM to every process was presumed, and none came to us
        "turn": "_next_turn",  # a leftover process has exited, others may get the stop signal
        "limit": "_report_limit",  # just before the platform's limit, where the end is not ours
        "stall_report": "_report_stall",  # some time before the next step
        "long": "_report_long_stop",  # --report-after
        "progress": "_log_progress",
    },
    LINGERING: {
        "kill": "_linger_is_over",
        "deferred": "_log_lingering",
        "confirm": "_platform_has_not_signalled",
        "turn": "_next_turn",
        "progress": "_log_progress",
    },
    KILLING: {"give_up": "_give_up", "sweep": "_kill_again"},
    ENDED: {},
}

# What a wrapper does once its recipients have exited, see `wrapper`.
EXITING, WORKING, WAITING, RESTARTING = "exiting", "working", "waiting", "restarting"
CLEANING, SERVING = "cleaning", "serving"

PROGRESS_EVERY = 10.0  # seconds between log lines of a long stop
ORPHANS_AGAIN = 10.0  # seconds to the next look at orphans, if a look fails
# Seconds between two SIGKILLs to everything, as processes may have been forked meanwhile: so long, or this share of the
# time since the first. What has not exited after many of them waits for the kernel, perhaps for want of CPU.
SWEEP_EVERY, SWEEP_SHARE = 0.02, 0.05
FROZEN_AFTER = 0.1  # a timer that is so many seconds late: the container may have been frozen, and the agent with it
REPRIEVE = 1.0  # seconds that the agent then has at least to send a sign of life
# Seconds from SIGKILL. What has not exited after the first sits in the kernel and must not hold up the end; but what is
# exiting has until the second: to free memory takes time, most of all on a busy machine.
GIVE_UP_AFTER, GIVE_UP_AT_LAST = 2.0, 5.0
REST_AGAIN = 0.2  # seconds to the next look at what is still exiting
# An agent that may be a launcher is signalled this long after the children that got the stop signal have exited: one
# that polls for its child's exit does so every second or more often, and is to exit by itself, with the child's code.
HELD_BACK_FOR = 1.5
CONFIRM_AFTER = 0.3  # seconds in which a TERM to every process has come to us too
LOOK_AGAIN = 0.2  # seconds to the next look at the work below a wrapper that has exited, if a look fails
SETTLE_EVERY = 0.2  # seconds between looks at a wrapper whose recipients have exited
# Seconds between looks at what a shell waits for before its trap: so long, or this share of the time since the stop
# request, but no longer than the last. A program that is starting may take seconds to set its handlers.
AWAITED_EVERY, AWAITED_SHARE, AWAITED_AT_MOST = 0.1, 0.2, 1.0
# Seconds in which helpers that end by themselves after the agent are not logged as leftovers. On a busy machine 0.2 s
# were not enough.
HELPERS_LEAVE = 1.0
NEXT_TURN_AFTER = (
    0.05  # seconds from the exit of a leftover process until others get the stop signal: many exit together
)
MAX_HELD_BACK = 5.0  # seconds, where there is no deadline of which to take the half
MAX_STATUS_CHARACTERS = 200
MAX_ERRNO = 4095  # what a system call can fail with (include/linux/err.h)


class Lifecycle:
    """One agent's life, from its start at `now`. `due` is when `tick` wants to be called next, or infinity."""

    def __init__(self, settings: "Settings", plan: "StopPlan", now: float) -> None:
        self.settings, self.plan = settings, plan
        self.state = RUNNING
        # Sent to the agent without an event while it runs and handles them: no stop requests, no rewritten signals.
        self.sent_at_once = VALID - settings.stop_on - settings.rewrite.keys() - settings.report_on
        self.ending: Ending | None = None  # the agent's, once its exit was seen
        self.hung = ""  # why it counts as hung: watchdog, ready-timeout
        self.ready = False
        self.since = now  # when the state was entered, or READY=1 came
        self._last_sign: float | None = None  # of life, which a watchdog would have got
        self.status = ""  # the last STATUS that it sent
        self._cause = ""  # why it ended: exited, signal, stop-signal, deadline, escalated, oom, killed, lost
        self._started = now
        self._watchdog = settings.watchdog  # seconds that it may be silent after READY=1 or its first ping
        self._reprieved = False  # its time was extended after a freeze, and there was no sign of life since
        self._requested = INFINITY  # when the stop was requested
        self._steps: Steps = ()  # still to be sent, each with the wait that follows it
        self.last_sent = 0  # the signal of the last step
        self.adapts = False  # whether the last step was the stop signal, which may be INT for some processes
        self._instead = False  # the stop signal was replaced by --rewrite
        self._enforces_limit = False  # the platform's, as it does not know of this stop
        self._sent_by_platform = False  # the stop signal, to every process
        self._interrupted = False  # INT was sent in its place
        self._recipients_gone = INFINITY  # when all recipients had exited
        self._extended = False  # by the agent
        self._all_signalled = False  # those held back from the stop signal have got it
        self._reported_at = -INFINITY  # the last stall report
        self._works_on = False  # the agent was a wrapper and has exited, its work has not
        self._was_cut = False  # ... and was killed by us, which decides the exit code
        self._is_wrapper = True  # for certain, where it works on: else its own exit code counts
        self._deferred: list[Action] = []  # logged if helpers have not exited soon
        self._killed_at = INFINITY
        self._killed_for = ""  # KILLING: stop-signal, deadline, linger-over, older-left, escalated
        self._timers: dict[str, float] = {}
        if settings.ready_timeout is not None:
            self._set(ready=now + settings.ready_timeout)
        if settings.orphans is not None:
            self._set(orphans=now)

    def snapshot(self) -> "dict[str, Any]":
        """Return the state, for `restore`."""
        return dict(vars(self))

    def restore(self, state: "Mapping[str, Any]") -> None:
        """Undo all events since the `snapshot`."""
        vars(self).update(state)

    # --- Events. ----------------------------------------------------------------------------------------------------

    def signal(self, now: float, number: int, sender: object, origin: str = OUTSIDE) -> list[Action]:
        """Process 1 got a signal, or EOF, which repeats no stop request.

        `sender` is only logged. `origin`: where it comes from, see `request_origin`.
        """
        if number == EOF:
            return self._start_stop(now, EOF, None, None, origin) if self.state == RUNNING else []
        if number in self.settings.report_on:
            return self._report_on_request(now, number, sender)
        rewritten = self.settings.rewrite.get(number, number)
        if rewritten == 0:
            return [Log("dropped", signal=number, sender=sender)]
        if number in self.settings.stop_on or rewritten in self.settings.stop_on:
            instead = rewritten if rewritten != number else None
            return self._stop_requested(now, number, sender, instead, origin)
        if self.ending is not None or self.state in (KILLING, ENDED):
            return [Log("not-forwarded", signal=number, sender=sender)]
        return [Forward(rewritten, sender, always=self.settings.unhandled == "forward", origin=origin)]

    def stop(self, now: float, sender: object, origin: str, grace: float | None) -> list[Action]:
        """A stop was requested by command: as by TERM, but --stop-on and a rewrite to nothing do not prevent it.

        `grace`: for this stop, unless it has begun already.
        """
        rewritten = self.settings.rewrite.get(TERM, TERM)
        instead = rewritten if rewritten not in (TERM, 0) else None
        if self.state == RUNNING and grace is not None:
            return self._start_stop(now, TERM, sender, instead, origin, grace=grace)
        return self._stop_requested(now, TERM, sender, instead, origin)

    def more_time(self, now: float, seconds: float, sender: object) -> list[Action]:
        """The stop gets so much more time by command, as far as `why_no_more_time` allows; see there."""
        if self.why_no_more_time:
            return []
        latest = self._latest_step()
        if self.state == LINGERING:
            self._set(kill=min(self._at("kill") + seconds, latest))
        elif self.last_sent:
            self._extend_step(now, min(self._at("step") + seconds, latest))
        else:  # what is due is the stop signal itself
            (first, wait), *later = self._steps
            self._steps = [(first, wait + min(seconds, latest - self._at("step"))), *later]
        return [Log("extended-by-command", sender=sender, left=self.kill_due - now)]

    @property
    def why_no_more_time(self) -> str:
        """Why a stop cannot get more time, or nothing: not-stopping, over, no-deadline, the option that bounds it."""
        if self.state in (KILLING, ENDED):
            return "over"
        if self._requested == INFINITY:  # the agent may have exited by itself
            return "not-stopping"
        if self.kill_due == INFINITY:
            return "no-deadline"
        bound = self._requested + self.plan.max_grace
        return self.bounding_option if self.kill_due >= bound else ""

    def unhandled(self, now: float, number: int, sender: object, origin: str = OUTSIDE) -> list[Action]:
        """A signal was not forwarded because no process handles it: its default action would end the agent."""
        if number in (HUP, QUIT) and self.settings.stop_on:
            return self._stop_requested(now, number, sender, None, origin)
        return [Log("shielded", signal=number, sender=sender)]

    def notified(
        self, now: float, fields: "Mapping[str, str]", sender: object, *, by_agent: bool = True
    ) -> list[Action]:
        """A message came through the notify socket (sd_notify(3)); its fields take effect in a fixed order.

        `by_agent`: it came from the process that WATCHDOG_PID names; others do not know that pings are expected.
        """
        actions = self._noted(fields)
        if (microseconds := _whole(fields.get("WATCHDOG_USEC"))) is not None:
            self._watchdog = microseconds / 1e6 if microseconds else None
            if "silence" in self._timers:
                self._expect_sign_of_life(now)
        if fields.get("READY") == "1":
            actions += self._is_ready(now)
            waits = self._watchdog is not None and "silence" not in self._timers and not by_agent
            if waits and self.state == RUNNING:
                actions.append(Log("watchdog-waits", sender=sender))
        if fields.get("WATCHDOG") == "trigger" and self.state == RUNNING:
            return [*actions, *self._hangs(now, "watchdog", allowed=None, sender=sender)]
        if fields.get("WATCHDOG") == "1" or (fields.get("READY") == "1" and by_agent):
            self._expect_sign_of_life(now)
            self._reprieved = False
        if microseconds := _whole(fields.get("EXTEND_TIMEOUT_USEC")):
            actions += self._extend(now, microseconds / 1e6)
        return actions

    def held_back(self, now: float) -> list[Action]:
        """The stop signal went to descendants of processes that may be agents themselves."""
        if self.state != STOPPING or self._all_signalled:
            return []
        self._set(held_back=max(now + HELD_BACK_FOR, self._half_time(now, self._requested)))
        return [Log("held-back", signal=self.last_sent, seconds=self._at("held_back") - now)]

    def recipients_ended(self, now: float) -> list[Action]:
        """The descendants that got the stop signal in place of the agent, or after its exit, have all exited."""
        if self.ending is not None:
            return self.leftover_ended(now)
        if self.state == STOPPING and not self._all_signalled:
            self._recipients_gone = now
            if "held_back" in self._timers:
                self._set(held_back=min(self._at("held_back"), now + HELD_BACK_FOR))
            else:
                self._set(settle=now + SETTLE_EVERY)
        return []

    def wrapper_seen(self, now: float, what: str) -> list[Action]:
        """The answer to LookAtWrapper: see `wrapper`. One that would stay gets the stop signal too."""
        if self.state != STOPPING or self._all_signalled:
            self._set(settle=INFINITY)
            return []
        stays = what in (WAITING, RESTARTING)
        if what == EXITING:
            stays = now >= self._recipients_gone + HELD_BACK_FOR
        elif what in (CLEANING, SERVING):
            kill, longest = self._time_of_kill(), self._recipients_gone + MAX_HELD_BACK
            stays = now >= (longest if kill == INFINITY else stop_plan.middle(self._requested, kill))
        if not stays:
            if what == WORKING:
                self._recipients_gone = now  # when it has finished, it has time to exit
            self._set(settle=now + SETTLE_EVERY)
            return []
        self._all_signalled = True
        self._set(settle=INFINITY)
        return [Log("wrapper-stays", signal=self.last_sent, what=what), StopHeldBack(self.last_sent)]

    def interrupted(self, now: float) -> list[Action]:
        """INT was sent in place of TERM; a process that stays after it gets TERM before the KILL."""
        self._interrupted = True
        return self.not_signalled(now)

    def awaited(self, now: float) -> list[Action]:
        """A shell waits for a process before it runs its trap, and the process does not handle the stop signal.

        It may be finishing its work, or starting. It gets the signal once it handles it, and before the KILL anyway.
        """
        if self.state == STOPPING:
            self._set(awaited=now + AWAITED_EVERY)
        return self.not_signalled(now)

    def awaited_seen(self, now: float, are_left: bool) -> list[Action]:
        """The answer to LookAtAwaited. `are_left`: some have not exited, and have not got the stop signal."""
        if not are_left:
            self._set(awaited=INFINITY)
        return []

    def not_signalled(self, now: float) -> list[Action]:
        """A process did not get the stop signal, which a wrapper may have sent in our place.

        It gets it before the KILL.
        """
        kill = self._time_of_kill()
        if self.state == STOPPING and kill < INFINITY:
            self._set(last_term=stop_plan.time_of_last_term(now, kill))
        return []

    def orphans_seen(self, now: float, next_look: float) -> list[Action]:
        """The answer to LookForOrphans: the time of the next one. When a stop begins, orphans are left to the stop."""
        if self.state == RUNNING:
            self._set(orphans=next_look)
        return []

    def reported(self, now: float) -> list[Action]:
        """The stall report is complete; what waited for it need not wait longer."""
        if self.state == STOPPING and self.hung and not self.last_sent:
            self._set(step=now)
        return []

    def agent_ended(
        self,
        now: float,
        ending: "Ending",
        *,
        alone: bool,
        works_on: bool = False,
        has_had_it: bool | None = False,
        is_wrapper: bool = True,
        only_older: bool = False,
        only_helpers: bool = False,
        successor: object = None,
    ) -> list[Action]:
        """The agent's exit was seen.

        `alone`: it left no processes behind. `works_on`: it left its work behind. `has_had_it`: whether the work had
        the stop signal; None where that is not certain. `is_wrapper`: that it was one is certain. `only_older`: nothing
        is left but what `older_left` is about. `only_helpers`: nothing but processes that end by themselves after the
        agent. `successor`: a process that runs the same program.
        """
        unasked = self.state == RUNNING
        not_ready = self._not_ready()
        self.ending, self._cause, self.sent_at_once = ending, self._find_cause(ending), frozenset()
        if alone:
            return [*not_ready, *self._end(now)]
        if self.state == KILLING:
            return []
        if only_older:
            return [*not_ready, *self.older_left(now)]
        if works_on and self.state == STOPPING:
            self._works_on, self._is_wrapper = True, is_wrapper
            self._set(held_back=INFINITY, settle=INFINITY)
            number, left = stop_steps.stop_signal(self.settings), self._time_left(now)["left"]
            facts = {"code": ending.code, "ending": ending, "cause": self._cause, "signal": number, "left": left}
            log = Log("wrapper-left", **facts, has_had_it=self._sent_by_platform or has_had_it)
            return [log, StopLeftovers(number)]
        replaced = [Log("replaced", successor=str(successor))] if unasked and successor is not None else []
        return [*not_ready, *replaced, *self._linger(now, only_helpers=only_helpers)]

    def leftover_ended(self, now: float) -> list[Action]:
        """A process that the agent left behind has exited: it may be the turn of others."""
        if self.ending is not None and "turn" in TIMERS[self.state]:
            self._set(turn=min(self._at("turn"), now + NEXT_TURN_AFTER))
        return []

    def work_seen(self, now: float, works_on: bool) -> list[Action]:
        """The answer to LookAtWork."""
        if self.state != STOPPING or self.ending is None:
            return []
        self._works_on = works_on
        self._set(turn=INFINITY)
        return [StopLeftovers(stop_steps.stop_signal(self.settings))] if works_on else self._linger(now)

    def rest_seen(self, now: float, is_left: bool, is_exiting: bool) -> list[Action]:
        """The answer to LookAtRest. `is_left`: not all have exited. `is_exiting`: those that have not will soon."""
        if self.state != KILLING or (is_left and is_exiting):
            return []
        return self._end(now) if self.ending is not None and not is_left else self._end_without(now)

    def older_left(self, now: float) -> list[Action]:
        """Nothing is left but processes from before the agent's start that do not handle the stop signal."""
        if self.ending is None or self.state in (KILLING, ENDED):
            return []
        number = stop_steps.stop_signal(self.settings)
        return self._kill(now, "older-left", Log("older-left", signal=number))

    def platform_has_signalled(self, ending: "Ending") -> bool:
        """Whether the agent has died of TERM that the platform sends to every process, before our own one was read."""
        died = self.state == RUNNING and ending.code == 128 + TERM
        is_stop = TERM in self.settings.stop_on and TERM not in self.settings.rewrite
        return died and is_stop and bool(self.plan.platform_signals_all) and self.plan.steps[0][0] == TERM

    def platform_stops(self, now: float) -> list[Action]:
        """`platform_has_signalled`: so the stop has begun.

        But somebody may have signalled the agent alone: until a request comes, the platform's limit is ours to enforce.
        If none comes soon, the others have not been signalled.
        """
        sender = f"{self.plan.platform_signals_all}, it seems"
        actions = self._start_stop(now, TERM, sender, None, INSIDE, has_begun=True)
        self._set(confirm=now + CONFIRM_AFTER)
        return actions

    def _platform_has_not_signalled(self, now: float) -> list[Action]:
        self._set(confirm=INFINITY)
        return [ForgetAllSignalled(), StopLeftovers(stop_steps.stop_signal(self.settings))]

    def nothing_left(self, now: float) -> list[Action]:
        """There are no children any more. No effect before the agent's own exit was seen."""
        return self._end(now) if self.ending is not None and self.state != ENDED else []

    def tick(self, now: float) -> list[Action]:
        """The time `due` has come. One timer goes off; its method sets or stops it."""
        for timer, method in TIMERS[self.state].items():
            if self._at(timer) <= now:
                actions: list[Action] = getattr(self, method)(now)
                return actions
        return []

    @property
    def due(self) -> float:
        """When `tick` is to be called, on the clock of `now`; infinity where no timer runs."""
        return min(map(self._at, TIMERS[self.state]), default=INFINITY)

    @property
    def last_ping(self) -> float | None:
        """When the watchdog got its last sign of life; None for never, and without a watchdog."""
        return self._last_sign if self._watchdog is not None else None

    @property
    def next_signal(self) -> int:
        """The signal of the next step; 0 for none."""
        return self._steps[0][0] if self._steps else 0

    @property
    def kill_due(self) -> float:
        """When everything is to have got SIGKILL, as things are; infinity where no such time is set."""
        if self.state == KILLING:
            return -INFINITY
        return self._at("kill") if self.state == LINGERING else self._time_of_kill()

    @property
    def shown_state(self) -> str:
        """Return the state by the name that is shown: an agent that runs is starting or ready."""
        return ("ready" if self.ready else "starting") if self.state == RUNNING else self.state

    @property
    def outline(self) -> tuple[object, ...]:
        """Return what `facts` and the state depend on, but for the time and the pings: another one, other facts."""
        return (
            self.state,
            self.since,
            self.ready,
            self.hung,
            self._requested,
            self.kill_due,
            self.last_sent,
            len(self._steps),
            self._watchdog,
        )

    def facts(self, now: float) -> "dict[str, Any]":
        """Return what only this knows of how things stand; times in seconds from now, None where there is none."""
        if self.state == STOPPING:
            upcoming = self._upcoming(now)
        else:
            steps = [(KILL, self._at("kill") - now)] if self.state == LINGERING else []
            upcoming = {"steps": steps, "platform": None}
        return {
            "uptime": now - self._started,
            "elapsed": now - self._requested if self._requested < INFINITY else None,
            "left": self.kill_due - now if -INFINITY < self.kill_due < INFINITY else None,
            "next": upcoming["steps"],
            "platform": upcoming["platform"],
            "watchdog": self._watchdog,
            "last_ping": now - self.last_ping if self.last_ping is not None else None,
        }

    # --- Timers. ----------------------------------------------------------------------------------------------------

    def _at(self, timer: str) -> float:
        """Return when a timer goes off; infinity where it does not run."""
        return self._timers.get(timer, INFINITY)

    def _set(self, **times: float) -> None:
        """Set timers of the current state; infinity stops one."""
        self._timers = {timer: at for timer, at in {**self._timers, **times}.items() if at < INFINITY}

    def _enter(self, state: str, now: float, **times: float) -> None:
        """Change the state; timers that it does not have are stopped."""
        self.state, self.since = state, now
        self._timers = {timer: at for timer, at in self._timers.items() if timer in TIMERS[state]}
        self._set(**times)

    # --- Readiness, watchdog, messages. -----------------------------------------------------------------------------

    def _noted(self, fields: "Mapping[str, str]") -> list[Action]:
        """What a message reports, and nothing follows from."""
        actions: list[Action] = []
        status = fields.get("STATUS", self.status)[:MAX_STATUS_CHARACTERS]
        if status != self.status:
            self.status = status
            actions.append(Log("status", status=status))
        if 0 < (number := _whole(fields.get("ERRNO")) or 0) <= MAX_ERRNO:
            actions.append(Log("errno", errno=number))
        if fields.get("RELOADING") == "1":
            actions.append(Log("reloading"))
        elif fields.get("STOPPING") == "1" and self.state == RUNNING:
            actions.append(Log("agent-stopping"))
        return actions

    def _is_ready(self, now: float) -> list[Action]:
        self._set(ready=INFINITY)
        if self.ready:
            return []
        self.ready = True
        log = Log("ready", seconds=now - self._started)
        if self.state != RUNNING:
            return [log]
        self.since = now
        return [log, MarkReady(is_ready=True)] if self.settings.ready_file is not None else [log]

    def _not_ready(self) -> list[Action]:
        """The agent is not ready any more, if it was."""
        was_shown = self.state == RUNNING and self.ready and self.settings.ready_file is not None
        return [MarkReady(is_ready=False)] if was_shown else []

    def _expect_sign_of_life(self, now: float) -> None:
        self._last_sign = now
        if self.state == RUNNING:
            self._set(silence=INFINITY if self._watchdog is None else now + self._watchdog)

    def _check_silence(self, now: float) -> list[Action]:
        """The time has come by which the agent must have sent READY=1, or a ping."""
        ready_by, silent_at = self._at("ready"), self._at("silence")
        not_ready = ready_by <= silent_at
        late = now - min(ready_by, silent_at)
        if late > REPRIEVE or (late > FROZEN_AFTER and not self._reprieved):  # the agent was frozen too; now it is not
            self._reprieved = True
            self._set(
                ready=_after_freeze(now, late, ready_by, self.settings.ready_timeout),
                silence=_after_freeze(now, late, silent_at, self._watchdog),
            )
            return []
        if not_ready:
            return self._hangs(now, "ready-timeout", allowed=self.settings.ready_timeout)
        return self._hangs(now, "watchdog", allowed=self._watchdog)

    def _hangs(self, now: float, hung: str, *, allowed: float | None, sender: object = None) -> list[Action]:
        """Make a stall report, then send SIGABRT, then go on with the schedule."""
        not_ready = self._not_ready()
        self.hung, self._reported_at = hung, now
        seconds = self.plan.report_seconds
        self._begin(now, stop_plan.of_a_hang(self.plan, ABRT), seconds)
        log = Log(hung, allowed=allowed, sender=sender, upcoming=self._upcoming(now), status=self.status)
        return [*not_ready, log, MakeStallReport(seconds)]

    def _extend(self, now: float, seconds: float) -> list[Action]:
        """Extend the current step to now + `seconds`; never shorten it."""
        if self.state == RUNNING and "ready" in self._timers:
            self._set(ready=max(self._at("ready"), now + seconds))
        if self.state != STOPPING or not self.last_sent or self.hung or "step" not in self._timers:
            return []
        until = min(now + seconds, self._latest_step())
        if until <= self._at("step"):
            return []
        first, self._extended = not self._extended, True
        self._extend_step(now, until)
        facts = {"max_grace": self.plan.max_grace, "limited_by": self.bounding_option}
        return [Log("extended", **facts)] if first else []

    def _latest_step(self) -> float:
        """Return the latest time for what is due next that the bound of the grace leaves."""
        return self._requested + self.plan.max_grace - stop_steps.seconds_to_last(self._steps)

    @property
    def bounding_option(self) -> str:
        """The option that bounds the time of a stop."""
        return "--max-grace" if self.plan.max_grace == self.settings.max_grace else "--platform-grace"

    def _extend_step(self, now: float, until: float) -> None:
        """Put the next step off, and what depends on it."""
        self._set(step=until)
        if "held_back" in self._timers:  # they are working: leave them half of the new time too
            self._set(held_back=max(self._at("held_back"), self._half_time(now, now)))
        if "last_term" in self._timers:
            self._set(last_term=stop_plan.time_of_last_term(now, self._time_of_kill()))
        if now > self._reported_at + PROGRESS_EVERY:
            self._plan_stall_report(now, until - now)

    def _look_for_orphans(self, now: float) -> list[Action]:
        self._set(orphans=now + ORPHANS_AGAIN)
        return [LookForOrphans()]

    # --- The stop. --------------------------------------------------------------------------------------------------

    def _stop_requested(
        self, now: float, number: int, sender: object, instead: int | None, origin: str
    ) -> list[Action]:
        """A stop request came; `instead` is what the agent gets in place of the stop signal, if anything."""
        if self.state == RUNNING:
            return self._start_stop(now, number, sender, instead, origin)
        if self.state in (KILLING, ENDED):
            return []
        if origin == OUTSIDE:
            self._set(confirm=INFINITY)
        # With `escalate`, or once the agent has ended, what comes next is due anyway.
        may_lift = self.state == STOPPING and self.settings.repeat != "escalate"
        lifted = may_lift and self._enforces_limit and origin == OUTSIDE
        if lifted:
            self._lift_limit(now)
        facts = {"signal": number, "sender": sender, **self._time_left(now)}
        if lifted:
            facts["lifted_by"] = self.plan.platform
        if self._requested == INFINITY:  # the agent had exited by itself; from now on the grace counts too
            self._requested = now
            facts["lingers"] = True
            self._enforces_limit = self._is_unknown_to_platform(number, origin)
            grace = self.plan.limit if self._enforces_limit and self.plan.limit is not None else self.plan.grace
            self._set(kill=min(self._at("kill"), now + grace))
        elif self.settings.repeat == "escalate" and self.state == LINGERING:
            return self._kill(now, "escalated", Log("repeat-kills", **facts))
        elif self.settings.repeat == "escalate" and self._steps:
            self._set(step=now)
            return [Log("repeat-escalates", **facts), *self._send_step(now, "escalated")]
        elif self.settings.repeat == "forward" and self.state == STOPPING and self.last_sent:
            passed_on = stop_steps.stop_signal(self.settings) if instead is None else instead
            if passed_on == TERM and self._is_signalled_by_platform(number, instead, origin):
                return [Log("stop-repeated", passed_on=None, **facts)]
            return [Log("stop-repeated", passed_on=passed_on, **facts), Stop(passed_on)]
        return [Log("stop-repeated", passed_on=None, **facts)]

    def _start_stop(
        self,
        now: float,
        number: int,
        sender: object,
        instead: int | None,
        origin: str,
        *,
        has_begun: bool = False,
        grace: float | None = None,
    ) -> list[Action]:
        """`has_begun`: the agent has exited by it already. `grace`: for this stop, in place of the plan's."""
        not_ready = self._not_ready()
        delay = 0.0 if has_begun else self.settings.stop_delay
        self._enforces_limit = grace is None and self._is_unknown_to_platform(number, origin)
        steps = stop_plan.unknown_to_platform(self.plan, delay) if self._enforces_limit else self.plan.steps
        if grace is not None:
            steps = stop_plan.with_grace(self.plan, grace)
            delay = delay if delay < steps[0][1] else 0.0  # it would leave no time for the stop signal
        (first, wait), *later = stop_steps.with_delay(steps, delay)
        if instead is not None and first != KILL:
            first, self._instead = instead, True
            later = [] if first == KILL else later
        by_platform = has_begun or self._is_signalled_by_platform(number, instead, origin)
        self._sent_by_platform = first == TERM and by_platform
        self._begin(now, [(first, wait), *later], delay)
        if self.plan.limit_report_after is not None and not self._enforces_limit and grace is None:
            self._set(limit=now + self.plan.limit_report_after)
        upcoming = self._upcoming(now)
        if self._sent_by_platform:
            upcoming["sent_by"] = self.plan.platform_signals_all
        if self._enforces_limit:
            upcoming["unknown_to"] = self.plan.platform
        elif origin == INSIDE and self.plan.has_hooks:
            upcoming["unknown_unless_hook"] = True
        log = Log("stop-requested", signal=number, sender=sender, upcoming=upcoming)
        first_step = self._next_step(now) if self._at("step") <= now else []
        return [*not_ready, log, *first_step]

    def _is_unknown_to_platform(self, number: int, origin: str) -> bool:
        """Whether the platform would end a stop, but has not requested this one."""
        return self.plan.limit is not None and (number == EOF or (origin == INSIDE and not self.plan.has_hooks))

    def _is_signalled_by_platform(self, number: int, instead: int | None, origin: str) -> bool:
        """Whether the platform itself has sent the request, TERM, to every process."""
        return bool(self.plan.platform_signals_all) and number == TERM and instead is None and origin == OUTSIDE

    def _lift_limit(self, now: float) -> None:
        """The platform has requested the stop after all, and ends it: our deadline, which was its limit, is void."""
        self._enforces_limit = False
        if self.last_sent:
            self._set(step=INFINITY, stall_report=INFINITY, last_term=INFINITY)
        else:
            (first, _), *later = self._steps
            self._steps = [(first, INFINITY), *later]
        assert self.plan.limit_report_after is not None
        self._set(limit=now + self.plan.limit_report_after)

    def _begin(self, now: float, steps: "Steps", delay: float) -> None:
        self._requested, self._steps = now, steps
        report_after = self.settings.report_after
        long = INFINITY if report_after is None else now + report_after
        self._enter(STOPPING, now, step=now + delay, progress=now + PROGRESS_EVERY, long=long)

    def _next_step(self, now: float) -> list[Action]:
        return self._send_step(now, "deadline" if self.last_sent else "stop-signal")

    def _send_step(self, now: float, why: str) -> list[Action]:
        """Send the next signal of the schedule. `why`: what made a KILL due, stop-signal, deadline or escalated."""
        first = not self.last_sent
        (number, wait), *self._steps = self._steps
        step = self._at("step") + wait if self._steps else INFINITY
        self._set(step=step, stall_report=INFINITY)
        self.last_sent = number
        by_platform = first and self._sent_by_platform
        self.adapts = first and self.plan.adapts and not (self._instead or self.hung or by_platform)
        facts = {"signal": number, "elapsed": now - self._requested, "hung": bool(self.hung)}
        if number == KILL:
            logs = [] if why == "stop-signal" else [Log("deadline" if why == "deadline" else "step", **facts)]
            return self._kill(now, why, *logs)
        if self._steps and not self.hung:
            self._plan_stall_report(now, step - now)
        if first:
            stop = NoteAllSignalled(number) if by_platform else Stop(number)
            return [stop] if self.hung else [stop, TakeCpuSnapshot()]
        return [Log("step", **facts), Stop(number)]

    def _plan_stall_report(self, now: float, wait: float) -> None:
        """Have a stall report made some time before the step that comes after `wait`."""
        seconds = self.plan.report_before(wait)
        enough = seconds >= stop_plan.MIN_REPORT_SECONDS and wait < INFINITY
        self._set(stall_report=now + wait - seconds if enough else INFINITY)

    def _report_stall(self, now: float) -> list[Action]:
        self._set(stall_report=INFINITY)
        left = self._at("step") - now
        if left < stop_plan.MIN_REPORT_SECONDS:
            return []
        self._reported_at = now
        return [MakeStallReport(left)]

    def _report_long_stop(self, now: float) -> list[Action]:
        self._set(long=INFINITY)
        self._reported_at = now
        log = Log("long-stop", elapsed=now - self._requested, hung=bool(self.hung))
        return [log, MakeStallReport(self.plan.report_seconds)]

    def _report_on_request(self, now: float, number: int, sender: object) -> list[Action]:
        if self.state in (KILLING, ENDED):
            return []
        self._reported_at = now
        log = Log("report-requested", signal=number, sender=sender)
        return [log, MakeStallReport(self.plan.report_seconds)]

    def _report_limit(self, now: float) -> list[Action]:
        self._set(limit=INFINITY)
        self._reported_at = now
        elapsed = now - self._requested
        log = Log("limit-near", elapsed=elapsed, hung=bool(self.hung), platform=self.plan.platform)
        return [log, MakeStallReport(self.plan.report_seconds)]

    def _stop_held_back(self, now: float) -> list[Action]:
        self._set(held_back=INFINITY)
        self._all_signalled = True
        return [Log("held-back-signalled", signal=self.last_sent), StopHeldBack(self.last_sent)]

    def _look_at_wrapper(self, now: float) -> list[Action]:
        self._set(settle=now + SETTLE_EVERY)  # the answer stops it; there may be none for want of memory
        return [LookAtWrapper()]

    def _look_at_awaited(self, now: float) -> list[Action]:
        share = AWAITED_SHARE * (now - self._requested)
        self._set(awaited=now + min(max(AWAITED_EVERY, share), AWAITED_AT_MOST))  # the answer may stop it
        return [LookAtAwaited(stop_steps.stop_signal(self.settings))]

    def _send_last_term(self, now: float) -> list[Action]:
        self._set(last_term=INFINITY)
        number = stop_steps.stop_signal(self.settings)  # TERM, where INT was sent
        return [StopInterrupted(number)]

    def _log_progress(self, now: float) -> list[Action]:
        at = self._at("progress")
        self._set(progress=at + PROGRESS_EVERY * (1 + (now - at) // PROGRESS_EVERY))
        return [Log("stopping", status=self.status, **self._time_left(now))]

    # --- The end. ---------------------------------------------------------------------------------------------------

    def _linger(self, now: float, *, only_helpers: bool = False) -> list[Action]:
        """The agent has exited, and nothing is left that has the rest of the grace."""
        assert self.ending is not None
        end = self._time_of_kill() if self.state == STOPPING else now + self.plan.grace
        linger = max(0.0, min(self.settings.linger, end - now))
        self._steps = ()
        progress = min(self._at("progress"), now + PROGRESS_EVERY)
        self._enter(LINGERING, now, kill=now + linger, progress=progress)
        number, ending = stop_steps.stop_signal(self.settings), self.ending
        log = Log("lingering", code=ending.code, ending=ending, cause=self._cause, signal=number, linger=linger)
        if only_helpers:
            self._deferred = [log]
            self._set(deferred=now + HELPERS_LEAVE)
            return [StopLeftovers(number)]
        return [log, StopLeftovers(number)]

    def _log_lingering(self, now: float) -> list[Action]:
        self._set(deferred=INFINITY)
        return self._deferred

    def _next_turn(self, now: float) -> list[Action]:
        if self.state == STOPPING:
            self._set(turn=now + LOOK_AGAIN)  # the answer stops it; there may be none for want of memory
            return [LookAtWork()]
        self._set(turn=INFINITY)
        return [StopLeftovers(stop_steps.stop_signal(self.settings))]

    def _linger_is_over(self, now: float) -> list[Action]:
        return self._kill(now, "linger-over", Log("linger-over"))

    def _kill(self, now: float, why: str, *logs: Log) -> list[Action]:
        deferred = self._deferred if "deferred" in self._timers else []
        self._killed_for, self._steps, self.sent_at_once = why, (), frozenset()
        self._was_cut, self._killed_at = self._works_on and self._is_wrapper, now
        self._enter(KILLING, now, sweep=now + SWEEP_EVERY, give_up=now + GIVE_UP_AFTER)
        return [*deferred, *logs, KillAll()]

    def _kill_again(self, now: float) -> list[Action]:
        self._set(sweep=now + max(SWEEP_EVERY, SWEEP_SHARE * (now - self._killed_at)))
        return [KillAll()]

    def _give_up(self, now: float) -> list[Action]:
        last = self._killed_at + GIVE_UP_AT_LAST
        if now >= last:
            return [KillAll(), *self._end_without(now)]
        self._set(give_up=min(now + REST_AGAIN, last))  # there may be no answer for want of memory
        return [KillAll(), LookAtRest()]

    def _end_without(self, now: float) -> list[Action]:
        return [Log("left-behind", seconds=now - self._killed_at), *self._end(now)]

    def _find_cause(self, ending: "Ending") -> str:
        """Return why the agent ended, in one word; no more than is certain."""
        if ending.status is None:
            return "lost"
        if not ending.killed:
            return "signal" if ending.signalled else "exited"
        if self.state == KILLING:
            return self._killed_for if self._killed_for in ("stop-signal", "escalated") else "deadline"
        if ending.kill_forwarded:
            return "signal"
        return "oom" if ending.oom_kills else "killed"

    def _end(self, now: float) -> list[Action]:
        self._enter(ENDED, now)
        agent_code = 128 + KILL if self.ending is None or self._was_cut else self.ending.code
        code, why = agent_code, ""
        by_int = self._interrupted and code == 128 + INT
        counts_as = code if code in self.settings.ok_exit or not by_int else 128 + TERM  # as ended by the stop signal
        if counts_as in self.settings.ok_exit:
            code, why = 0, "ok-exit"
        if self.hung and code == 0:
            code, why = 128 + ABRT, "hung"
        log = Log(
            "ended",
            code=code,
            why=why,
            agent_code=agent_code,
            ending=self.ending,
            cause=self._cause,
            hung=self.hung,
            seconds=now - self._started,
            stop_seconds=now - self._requested if self._requested < INFINITY else None,
            status=self.status,
        )
        if by_int:
            log.facts = {**log.facts, "by_int": True, "counts_as": counts_as}
        if self._was_cut:
            log.facts = {**log.facts, "cut": self._killed_for}
        return [log, Exit(code)]

    # --- Facts for the log. -----------------------------------------------------------------------------------------

    def _time_of_kill(self) -> float:
        """Return when the final KILL is due; infinity where there is none."""
        return self._at("step") + stop_steps.seconds_to_kill(self._steps)

    def _half_time(self, now: float, start: float) -> float:
        """Return the time half-way from `start` to the final KILL; where there is none, MAX_HELD_BACK from now."""
        end = self._time_of_kill()
        return now + MAX_HELD_BACK if end == INFINITY else stop_plan.middle(start, end)

    def _upcoming(self, now: float) -> "dict[str, object]":
        """Return the signals to come, each with the seconds until then, and the platform if the end is not ours."""
        steps, at = [], self._at("step")
        for number, wait in self._steps:
            if at < INFINITY:
                steps.append((number, at - now))
            at += wait
        endless = self._time_of_kill() == INFINITY
        return {"steps": steps, "platform": self.plan.platform if endless else None}

    def _time_left(self, now: float) -> "dict[str, Any]":
        """Return the seconds left, None without a deadline; those since the request, if any; whether extended."""
        end = self._at("kill") if self.state == LINGERING else self._time_of_kill()
        left = max(0.0, end - now) if end < INFINITY else None
        extended = self._extended and self.state == STOPPING
        elapsed = now - self._requested if self._requested < INFINITY else None
        return {"left": left, "elapsed": elapsed, "extended": extended}


def _after_freeze(now: float, late: float, at: float, allowed: float | None) -> float:
    """Push a deadline back after a freeze; `late` is how many seconds past it we woke."""
    if at > now or allowed is None:
        return at + late
    return now + (allowed if late > REPRIEVE else REPRIEVE)


def _whole(text: str | None) -> int | None:
    """Return a number without a sign, as the protocol has them; None for anything else."""
    return int(text) if text and len(text) < 20 and text.isascii() and text.isdigit() else None

"""Carries out what `lifecycle` decides: turns its actions into system calls, log lines and reports, in order.

Read `_do` for what each action does. An error is logged and the next action has its turn; what could not be done for
want of memory is tried again.
"""

from .. import signals
from ..units import INFINITY
from . import counters, delivery, later, narrator, procfs, stop_steps, tree
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
    Signalling,
    Stop,
    StopHeldBack,
    StopInterrupted,
    StopLeftovers,
    StopSuccessor,
    TakeCpuSnapshot,
)
from .lifecycle import LINGERING
from .spare_memory import NO_MEMORY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from .. import titles
    from ..parsed import Settings
    from . import exit_watch, ready_file
    from .console import Console
    from .faults import Faults
    from .lifecycle import Lifecycle
    from .loop import Loop
    from .main_process import MainProcess
    from .older_processes import OlderProcesses
    from .orphans import OrphanStopper
    from .stall_report import Reporter
else:
    exit_watch, ready_file, titles = map(later.Module, ("init.exit_watch", "init.ready_file", "titles"))

DROPPED = ("dropped", "not-forwarded", "shielded")  # events of a signal that was not sent to anybody
RETRIED = Signalling, ForgetAllSignalled, Forward
MAX_RETRIES = 20  # of an action that fails for want of memory
# How often, and for how many seconds, SIGKILL spares those who wait for the end of the stop.
KILLS_ONE_BY_ONE, SPARED_SECONDS = 5, 0.2


class Execution:
    """The actions that are to be done, and the parts of process 1 that do them.

    `counters`: of the signals. `handled`: whether a signal is handled: one look serves all that came together.
    `exit_code`: that of process 1, once it is to end. `older`: the processes that were below us before the agent.
    `recipients_exited` is called when all that got the stop signal in place of others have exited, `on_event` after
    each event, before its actions are carried out. `is_awaited` returns whether a client of ours waits for the end.
    """

    def __init__(
        self,
        settings: "Settings",
        agent: "MainProcess",
        lifecycle: "Lifecycle",
        loop: "Loop",
        faults: "Faults",
        console: "Console",
        reporter: "Reporter",
        older: "Collection[tuple[int, int]]",
        recipients_exited: "Callable[[], object]",
    ) -> None:
        self.counters = counters.Counters()
        self._settings, self._agent, self._lifecycle, self._loop = settings, agent, lifecycle, loop
        self._faults, self._reporter = faults, reporter
        self.descendants = tree.Descendants(reporter.helper_pids)
        self.narrator = narrator.Narrator(console, settings, self.descendants)
        self.delivery = delivery.Delivery(settings, agent, self.descendants, console)
        self.orphans: OrphanStopper | None = None
        if settings.orphans is not None:
            from . import orphans

            helper_pids = reporter.helper_pids
            self.orphans = orphans.OrphanStopper(settings, agent, helper_pids, older, self.delivery, self.narrator)
        self.older: OlderProcesses | None = None
        if older:
            from . import older_processes

            self.older = older_processes.OlderProcesses(older, self.descendants, stop_steps.stop_signal(settings))
        self._recipients_exited = recipients_exited
        self.on_event: Callable[[], object] | None = None
        self.is_awaited: Callable[[], bool] | None = None
        self._kills, self._spared_until = 0, INFINITY
        self._presumed = 0  # how many of `Delivery.presumed` are noted
        self._exit_watch: exit_watch.ExitWatch | None = None
        self.handled: dict[int, bool] = {}
        self.exit_code: int | None = None
        self.to_do: list[Action] = []  # what follows from the events so far and is not done yet
        self._leftovers_stopped: Action | None = None  # the last one that was sent
        self._retries = 0  # since the last time when nothing was left to do

    def event(self, event: "Callable[..., list[Action]]", *facts: object) -> None:
        """Pass an event to the state machine and do what follows."""
        self.note(event, *facts)
        self.carry_out()

    def note(self, event: "Callable[..., list[Action]]", *facts: object) -> None:
        """Pass an event to the state machine; what follows is done later. If it fails half-way, it has not happened."""
        before = self._lifecycle.snapshot()
        try:
            self.to_do += event(self._loop.time(), *facts)
        except NO_MEMORY:
            self._lifecycle.restore(before)
            raise
        if self.on_event is not None:
            self._faults.guarded(self.on_event)

    def owed(self) -> "tuple[int, list[int]]":
        """Return what the agent has not got yet: a step of the stop, 0 for none, and forwarded signals."""
        step = self._lifecycle.last_sent if self.delivery.holds_agent_back else 0
        forwarded = []
        for action in self.to_do:
            if isinstance(action, Stop) and not self.delivery.has_reached(action):
                step = step or action.number
            elif isinstance(action, Forward):
                forwarded.append(action.number)
        return step, forwarded

    def carry_out(self) -> None:
        """Do what is to be done, in order.

        For want of memory a line or a report may be lost. What is only a look comes again by a timer.
        """
        self.descendants.forget()
        while self.to_do:
            try:
                self._do(self.to_do[0])
            except Exception as error:
                self._retries += 1
                if isinstance(error, NO_MEMORY) and self._is_worth_a_retry(self.to_do[0]):
                    raise
                try:
                    self._signal_at_least(self.to_do[0])
                except Exception as another:
                    if isinstance(another, NO_MEMORY) and self._retries <= 2 * MAX_RETRIES:
                        raise
                self._faults.log(error)
            del self.to_do[0]
        self._retries = 0
        if self.narrator.has_news:  # after the signals are sent, and with the processes that were looked at
            self._faults.guarded(self.narrator.write_final_message)
        self.descendants.forget()

    def _signal_at_least(self, action: Action) -> None:
        """Send a step of the stop, whatever is wrong with finding out who should get it, and in which order."""
        if isinstance(action, Stop):
            self.delivery.stop_agent_at_least(action.number, action)
        elif isinstance(action, StopLeftovers) and self._leftovers_stopped is not action:
            self.delivery.stop_leftovers(action.number, at_once=True)

    def _is_worth_a_retry(self, action: Action) -> bool:
        """Exit always; a signal for a while, in which it holds up those after it. KillAll comes again by itself."""
        for_a_while = isinstance(action, RETRIED)
        return isinstance(action, Exit) or (for_a_while and self._retries <= MAX_RETRIES)

    def _do(self, action: Action) -> None:
        if isinstance(action, Log):
            if action.event in DROPPED:
                self.counters.dropped[action.facts["signal"]] += 1
            self.narrator.agent = "" if self._agent.has_exited else f"{self._agent.name} ({self._agent.pid})"
            if action.event in narrator.ESCALATIONS and not self._lifecycle.hung:
                self._faults.guarded(self._explain)
            try:
                self.narrator.log(action)
            except NO_MEMORY as error:
                self._faults.log(error)  # this releases the reserve: enough to load the text
                self.narrator.log(action)
        elif isinstance(action, Exit):
            self.exit_code = action.code
            self._loop.stop()
        elif isinstance(action, Forward):
            self._forward(action)
        elif isinstance(action, Stop):
            self._stop(action)
        elif isinstance(action, MarkReady):
            self._mark_ready(action.is_ready)
        elif isinstance(action, NoteAllSignalled):
            self.delivery.note_all_signalled(action.number)
        elif isinstance(action, ForgetAllSignalled):
            self.delivery.forget_all_signalled()
        elif isinstance(action, StopHeldBack):
            self._watch()
            self.delivery.stop_held_back(action.number, action)
        elif isinstance(action, StopSuccessor):
            self.delivery.stop_successor(action.number, action)
        elif isinstance(action, StopInterrupted):
            if to := self.delivery.stop_interrupted(action.number, action):
                self.narrator.log(Log("last-term", signal=action.number, to=to))
        elif isinstance(action, LookAtWrapper):
            self._look_at_wrapper()
        elif isinstance(action, LookAtAwaited):
            self._look_at_awaited(action)
        elif isinstance(action, LookForOrphans):
            assert self.orphans is not None
            self.note(self._lifecycle.orphans_seen, self.orphans.look(self._loop.time()))
        elif isinstance(action, LookAtWork):
            self.note(self._lifecycle.work_seen, self.delivery.look_at_work())
        elif isinstance(action, LookAtRest):
            self._look_at_rest()
        elif isinstance(action, StopLeftovers):
            if self.orphans is not None:
                self.delivery.note_stopped(self.orphans.signalled)
            self._stop_leftovers(action)
            self._faults.guarded(self.look_at_older)
        elif isinstance(action, KillAll):
            self._faults.guarded(self._end_report)
            self.delivery.kill_all(one_by_one=self._spares_clients())
        elif isinstance(action, TakeCpuSnapshot):
            self._reporter.take_cpu_snapshot(self.descendants.listable() or ())
        else:
            assert isinstance(action, MakeStallReport)
            self.narrator.report_begins()
            self._reporter.start(self._agent.pid, action.seconds)

    def _spares_clients(self) -> bool:
        """Whether somebody waits for the end of the stop, and not all may be killed by one call for now."""
        if self.is_awaited is None or self._kills == KILLS_ONE_BY_ONE:
            return False
        self._kills += 1
        try:
            now = self._loop.time()
            self._spared_until = min(self._spared_until, now + SPARED_SECONDS)
            return now <= self._spared_until and self.is_awaited()
        except NO_MEMORY:  # a client is less important than the kill
            return False

    def _look_at_wrapper(self) -> None:
        self.note(self._lifecycle.wrapper_seen, self.delivery.look_at_wrapper())
        self._note_presumed()

    def _note_presumed(self) -> None:
        """Some more processes are to get the stop signal late. Each such event puts that off, so once is enough."""
        if len(self.delivery.presumed) > self._presumed:
            self.note(self._lifecycle.not_signalled)
            self._presumed = len(self.delivery.presumed)

    def _look_at_rest(self) -> None:
        rest = self.descendants.listable()
        are_dying = rest is not None and all(map(procfs.is_dying, rest))
        self.note(self._lifecycle.rest_seen, rest != [], are_dying)

    def _mark_ready(self, is_ready: bool) -> None:
        path = self._settings.ready_file
        assert path is not None
        if error := ready_file.make(path) if is_ready else ready_file.remove(path):
            self.narrator.log(Log("ready-file", path=path, error=error))

    def _stop(self, action: Stop) -> None:
        number = action.number
        self._faults.guarded(self._end_report)
        adapts, hung = self._lifecycle.adapts, bool(self._lifecycle.hung)
        reached, reason = self.delivery.stop(number, adapts=adapts, hung=hung, step=action)
        # What follows from that comes first: a line may be lost.
        if self.delivery.interrupted:
            self.note(self._lifecycle.interrupted)
        if self.delivery.awaited:
            self.note(self._lifecycle.awaited)
        self._note_presumed()
        if reached:
            if self.delivery.all_signalled:
                self.delivery.stop_held_back(number, action)
            elif self.delivery.held_back:
                self.note(self._lifecycle.held_back)
            if self.delivery.wrapper is not None:
                self._watch(reached)
        self._faults.guarded(self._log_step, number, reached, reason)

    def _look_at_awaited(self, action: LookAtAwaited) -> None:
        to, are_left = self.delivery.look_at_awaited(action.number, action)
        self.note(self._lifecycle.awaited_seen, are_left)
        if to:
            self._faults.guarded(lambda: self.narrator.log(Log("handles-by-now", signal=action.number, to=to)))

    def _log_step(self, number: int, reached: "list[procfs.Process]", reason: str) -> None:
        if enders := self.delivery.enders():
            self.narrator.log(Log("ends-program", wrappers=enders))
        interrupted = self.delivery.interrupted
        if reached:
            to = [*self.delivery.also_reached, *reached]
            self.narrator.log(Log("looked-through", signal=number, to=to, reason=reason, interrupted=interrupted))
        elif interrupted:
            self.narrator.log(Log("interrupted", interrupted=interrupted))

    def _end_report(self) -> None:
        """The time for a stall report is over. If it was cut off, log that, and what is known without it."""
        if self._reporter.end():
            for line in self._reporter.replacement(self.descendants.listable()):
                self.narrator.report_line(line)
            self.narrator.report_is_complete()

    def _explain(self) -> None:
        """Log once who was left to a process above that handles the stop signal: that explains an escalation."""
        number = stop_steps.stop_signal(self._settings)
        caught, to = self.delivery.left_to_others(number)
        if to:
            self.narrator.log(Log("left-to-others", signal=number, caught=caught, to=to))

    def _stop_leftovers(self, action: StopLeftovers) -> None:
        delivery = self.delivery
        interrupted = len(delivery.interrupted)
        delivery.stop_leftovers(action.number)
        self._leftovers_stopped = action
        if len(delivery.interrupted) > interrupted:
            self.note(self._lifecycle.interrupted)
        self._note_presumed()
        self._watch(delivery.departures.work or delivery.ahead)
        if presumed := delivery.newly_presumed:
            delivery.newly_presumed = []
            self._faults.guarded(lambda: self.narrator.log(Log("not-signalled", to=presumed)))

    def _watch(self, processes: "Sequence[procfs.Process]" = ()) -> None:
        """Watch for the exit of these processes, and no longer of those before."""
        if self._exit_watch is not None:
            self._exit_watch.stop()
        if processes:
            self._exit_watch = self._exit_watch or exit_watch.ExitWatch(self._loop, self._recipients_exited)
            self._exit_watch.start(processes)

    def only_older_left(self) -> bool:
        """Whether nothing is left but processes from before the agent's start that are not waited for."""
        return self.older is not None and self.older.are_not_waited_for()

    def are_only_helpers_left(self) -> bool:
        """Whether nothing is left but multiprocessing's helpers: they notice the end of the agent by themselves."""
        try:
            left = self.descendants.listable() or ()
            return bool(left) and all(titles.of(p.name, procfs.argv_of(p.pid)) in titles.HELPERS for p in left)
        except Exception as error:
            self._faults.log(error)
            return False

    def look_at_older(self) -> None:
        """Do not wait for processes from before the agent's start, if nothing else is left."""
        if self._lifecycle.state == LINGERING and self.only_older_left():
            self.note(self._lifecycle.older_left)

    def _forward(self, action: Forward) -> None:
        number = action.number
        to: list[procfs.Process] = []
        handled = False
        if self.handled.get(number) is not False:
            to, handled = self.delivery.forward_recipients(number)
        if not (handled or action.always or number in signals.HARMLESS):
            self.handled[number] = False
            self.note(self._lifecycle.unhandled, number, action.sender, action.origin)
            return
        self.narrator.log(Log("forwarded", signal=number, sender=action.sender, to=to))
        self.counters.forwarded[number] += 1  # first: a failure of this later would have it sent again
        try:
            self.delivery.forward(number, to, action)
        except NO_MEMORY:
            self.counters.forwarded[number] -= 1
            raise

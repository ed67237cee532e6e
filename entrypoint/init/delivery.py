"""Which process gets which signal, and sends it there.

    a step of the stop   the main process that the agent has named; else the agent if it handles the signal; else its
                         recipients (see `recipients`), who also come before a relay or a shell that handles it;
                         else those of an earlier step; else the agent
    a forwarded signal   the same, but only to processes that handle or ignore it, or to the agent in any case
    ... with auto        TERM; INT for a process that handles INT and would die of TERM (`--stop-signal auto`)
    to leftovers         the topmost that act on the stop signal, once each; those below them when they have exited
    SIGKILL              everything below us

`--target child` and `--target group` send to the agent or to its process group, and look no further; a signal that only
other members of the group handle goes to those. Where signal masks cannot be seen, `by_name` finds the recipients.
"""

import _signal
import posix

from .. import notify, signals
from ..signals import CONT, INT, KILL, TERM, name_of
from . import dispositions, exit_status, later, procfs, tree
from .console import WARNING
from .lifecycle import WORKING
from .spare_memory import NO_MEMORY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from ..parsed import Settings
    from . import by_name, foreground, leftovers, names, recipients, wrapper
    from .console import Console
    from .main_process import MainProcess
    from .procfs import Process
    from .tree import Descendants
else:
    by_name, foreground, leftovers = map(later.Module, ("init.by_name", "init.foreground", "init.leftovers"))
    names, recipients, wrapper = map(later.Module, ("init.names", "init.recipients", "init.wrapper"))
    later.Module("init.output_pipes")  # which `recipients` imports

MAX_NAMED = 12  # processes that a line names as not signalled


class Delivery:
    """Sends signals to the agent, its recipients, and what they leave behind."""

    def __init__(
        self, settings: "Settings", agent: "MainProcess", descendants: "Descendants", console: "Console"
    ) -> None:
        self._settings, self._agent, self._descendants, self._console = settings, agent, descendants, console
        self.previous_recipients: list[Process] = []  # of the last step, in the agent's place
        self.held_back: list[Process] = []  # those that get the stop signal later, as they may be agents themselves
        self.all_signalled = False  # they have got it; a further step goes to them at once
        self.kill_forwarded = False  # the agent was sent a SIGKILL that was not for the end of the grace
        self.interrupted: list[Process] = []  # those that were sent INT in place of TERM
        self.wrapper: wrapper.Wrapper | None = None  # the agent, where recipients got the stop signal in its place
        self._departures: leftovers.Departures | None = None
        self.presumed: list[Process] = []  # what a wrapper may have signalled: gets it late, if it is still there
        self.newly_presumed: list[Process] = []  # of them those that were not logged yet
        self._last_stop: tuple[Process | None, int] = None, 0  # the agent, and the signal of the last step
        self.awaited: list[Process] = []  # what a shell waits for before its trap: gets it once it handles it, or late
        self.ahead: list[Process] = []  # leftover processes that have had it, while others wait for their exit
        self._is_wrapper = False  # the agent, for certain: recipients have exited before it
        self.was_wrapper = True  # the agent, for certain, if it has exited before its work
        self._looked_through = False  # recipients got the last step in the agent's place
        self._agent_may_signal = False  # and the agent, a shell, may signal its jobs in its trap after that
        self._adapts = False  # whether the current step may be INT
        self._platform_sent = 0  # the stop signal, if the platform has sent it to every process
        self._signalled_by_platform: set[tuple[int, int]] = set()
        self._stopped: set[tuple[int, int]] = set()  # processes that have had the stop signal
        self._sent_to_group: set[int] = set()  # steps that went to the agent's process group
        self._sent_blindly = False  # one of them, when it was not known who is in that group
        self._step: object = None  # the current one
        self._reached: list[Process] = []  # by the current step
        self.agent_reached = self._agent_continued = False  # the agent itself, by the signal and by SIGCONT
        self.also_reached: list[Process] = []  # shells among them, and what these waited for
        self._is_agents = False  # the current step goes to the agent, since nobody else gets it
        self._members: list[Process] | None = None  # of the agent's group, where they are known
        self._apart = False  # the members get the current step one by one
        self._action: object = None  # another action than a step, the current one or the last
        self._served: list[Process] = []  # by that
        self._plain: by_name.PlainProgram | None = None  # the agent, where masks are false
        self._not_killed: set[int] = set()  # to these pids SIGKILL could not be sent
        self._explained = False  # `left_to_others` was asked for
        self._image: tuple[bytes, bytes] | None = None  # the agent's, when it was looked at whether ...
        self._may_be_looked_through = False  # ... a signal that it handles may be meant for another process

    # --- The stop. --------------------------------------------------------------------------------------------------

    def stop(self, number: int, *, adapts: bool, hung: bool, step: object = None) -> "tuple[list[Process], str]":
        """Send a step of the stop, then SIGCONT; return the recipients, nobody for the agent itself, and the reason.

        `adapts`: INT takes the place of TERM for those that prefer it. `step`: what it is an attempt at. If an
        earlier one has failed half-way, those that it has reached do not get the signal again.
        """
        self._adapts = adapts
        self._begin(step)
        found, reason = self._stop_recipients(number, hung=hung)
        self._note_step(found, number)
        for shell in found.shells:
            self._stop_one(shell, number, self.also_reached)
        for process in found.processes:
            if not self._stop_one(process, number, self._reached) and procfs.is_there(process):
                guardian = found.guardians.get(process.pid)
                if guardian is not None and guardian.identity not in map(_identity, self.also_reached):
                    self._stop_one(guardian, number, self._reached)
        if self._is_agents or not (self._reached or self._agent.pid in [p.pid for p in self.also_reached]):
            self._is_agents = True
            self._stop_agents_group(number)
        for process in found.idle:
            self._stop_one(process, number, self.also_reached)
        self._stopped.update(map(_identity, (*self._reached, *self.also_reached)))
        known = {*self._stopped, *map(_identity, self.awaited)}
        self.awaited += [process for process in found.awaited if process.identity not in known]
        self._presume(found.unsure)
        if self._reached:
            self.previous_recipients = self._reached
            self.held_back = found.held_back or self.held_back  # those of an earlier step still are
        return self._reached, reason if self._reached else ""

    def _begin(self, step: object) -> None:
        if step is None or self._step is not step:
            self._reached, self.also_reached = [], []
            self.agent_reached = self._agent_continued = False
            self._is_agents, self._members, self._apart = False, None, False
            self._step = step

    def _begin_other(self, action: object) -> None:
        """Start an action other than a step, or go on with it: whom it has reached does not get its signal again."""
        if self._action is not action:
            self._served = []
            self.agent_reached = self._agent_continued = False
            self._action = action

    @property
    def holds_agent_back(self) -> bool:
        """Whether the agent is still held back from the stop signal."""
        is_held_back = self._agent.pid in [process.pid for process in self.held_back]
        return is_held_back and not (self.all_signalled or self.agent_reached)

    @property
    def departures(self) -> "leftovers.Departures":
        """Return the wrappers that exit before their work."""
        if self._departures is None:
            self._departures = leftovers.Departures()
        return self._departures

    @property
    def awaits_exits(self) -> bool:
        """Whether something depends on the exit of leftover processes."""
        return bool(self.ahead or (self._departures is not None and self._departures.work))

    def has_reached(self, step: object) -> bool:
        """Whether this step of the stop has reached somebody."""
        return self._step is step and bool(self._reached or self.also_reached or self.agent_reached)

    def stop_agent_at_least(self, number: int, step: object) -> None:
        """Send a step to the agent, unless it has reached somebody."""
        if not self.has_reached(step):
            self._begin(step)
            self._send_step(number)
            self.send_agent(CONT)

    def _stop_one(self, process: "Process", number: int, reached: "list[Process]") -> bool:
        """Send a step to this process, once; return whether it has got it."""
        return self._send_once(process, reached, self._adapted(process, number), CONT)

    def _send_once(self, process: "Process", reached: "list[Process]", *numbers: int) -> bool:
        """Send signals to a process that is not among those that an earlier attempt has reached."""
        if process.identity in map(_identity, reached):
            return True
        reached.append(process)  # first: a failure of this later would have it sent again
        is_sent = False
        try:
            is_sent = self.send(process, *numbers)
        finally:
            if not is_sent:
                reached.pop()
        return is_sent

    def _stop_agents_group(self, number: int) -> None:
        """Send a step to the agent, or to its group with --target group."""
        if self._settings.target == "group" and self._members is None:
            try:
                members = [p for p in self._descendants.all() if p.group == self._agent.group]
                self._apart = self._adapts and number == TERM and self._differ(members)
                self._members = members
            except OSError:  # no /proc to find them in
                pass
        if self._apart:
            for process in self._members or ():
                self._stop_one(process, number, self.also_reached)
        else:
            self._stop_agent(number)
            if self.agent_reached:
                self._stopped.update(map(_identity, self._members or ()))

    def _differ(self, members: "Sequence[Process]") -> bool:
        """Whether the agent gets INT in place of TERM, and another member of its group handles TERM."""
        agent = procfs.look(self._agent.pid)
        if agent is None or self._agent.shares_our_group or not dispositions.prefers_int(agent):
            return False
        return any(dispositions.handles(process, TERM) for process in members)

    def _note_step(self, found: "recipients.Recipients", number: int) -> None:
        """Remember who is about to get this step, for the exit of a wrapper."""
        self._looked_through = bool(found.processes)
        agent = None if self._agent.has_exited else procfs.look(self._agent.pid)
        self._last_stop = agent, number
        to = [*found.shells, *found.processes]
        is_shell = self._looked_through and procfs.is_shell(agent)
        self._agent_may_signal = is_shell and agent is not None and dispositions.handles(agent, number) is True
        if agent is not None and agent.pid not in [p.pid for p in to] and (not to or self._agent_may_signal):
            to.append(agent)
        self._note_wrappers(to, number)

    def _note_wrappers(self, to: "Sequence[Process]", number: int) -> None:
        """These are about to get the stop signal, and may be wrappers that exit before their work."""
        try:
            if (seen := self._descendants.listable()) is not None:
                self.departures.note(to, seen, number, adapts=self._adapts)
        except Exception:  # the signal itself is more important
            pass

    def _stop_agent(self, number: int) -> None:
        if self._agent.has_exited:
            return
        agent = procfs.look(self._agent.pid)
        if not self.agent_reached:
            self._send_step(number, number if agent is None else self._adapted(agent, number))
        if agent is not None:
            self._stopped.add(agent.identity)
        if not self._agent_continued:
            self.send_agent(CONT)
            self._agent_continued = True

    def _send_step(self, number: int, adapted: int = 0) -> None:
        """Send a step to the agent, or to its group with --target group; `adapted` in its place."""
        self.agent_reached = True  # first: a failure of this later would have it sent again
        try:
            if self._signals_group:
                self._sent_to_group.add(number)
            self.send_agent(adapted or number)
        except NO_MEMORY:
            self.agent_reached = False
            self._sent_to_group.discard(number)
            raise
        self._sent_blindly |= self._signals_group and self._members is None

    def _adapted(self, process: "Process", number: int) -> int:
        """Return the signal that stops this process."""
        if not self._adapts or number != TERM or not dispositions.prefers_int(process):
            return number
        if not self._was_interrupted(process):
            self.interrupted.append(process)
        return INT

    def _stop_recipients(self, number: int, *, hung: bool) -> "tuple[recipients.Recipients, str]":
        """Return who gets a step of the stop in the agent's place, and the reason."""
        if (named := self._named_process()) is not None:
            self.wrapper = self._wrapper_of(named, number)
            return recipients.Recipients(named), "the agent has named its main process"
        found = self.resolve(number, to_stop=True)
        if found.processes:
            agent = found.seen.get(self._agent.pid)
            self.wrapper = wrapper.Wrapper(agent, found.processes, number, found.seen) if agent is not None else None
            return found, self._why_others(number)
        # No process handles a later step, such as ABRT: then those of the first step get it rather than their shell.
        if there := [process for process in self.previous_recipients if procfs.is_there(process)]:
            return recipients.Recipients(*there), "as before"
        sender = self._agent.last_sender
        if hung and self._settings.target == "auto" and sender is not None and procfs.is_there(sender):
            return recipients.Recipients(sender), f"{sender.name} sent the last message"
        return found, ""

    def _wrapper_of(self, named: "Process", number: int) -> "wrapper.Wrapper | None":
        """Return the agent, if the process that it has named is below it; it may stay when that one has exited."""
        try:
            seen = tree.everything()
        except OSError:
            return None
        agent = None if named.pid == self._agent.pid else seen.get(self._agent.pid)
        return (
            wrapper.Wrapper(agent, [named], number, seen)
            if agent is not None and tree.is_below(agent.pid, named)
            else None
        )

    def _why_others(self, number: int) -> str:
        handles = self._agent.dispositions.handles(number)
        if handles is False:
            return f"{self._agent.name} does not handle {name_of(number)}"
        if handles and procfs.is_shell(procfs.look(self._agent.pid)) and number not in dispositions.SHELL_HABITS:
            return f"{self._agent.name} handles {name_of(number)}, but waits for what runs in its foreground"
        return f"{self._agent.name} is a wrapper"

    def stop_held_back(self, number: int, action: object) -> None:
        """Send the stop signal and SIGCONT to those that were held back from it and are still there."""
        self._begin_other(action)
        for process in self.held_back:
            if process.pid == self._agent.pid:
                self._stop_agent(number)
            elif self._stop_one(process, number, self._served):
                self._stopped.add(process.identity)
        self.all_signalled = True

    def look_at_wrapper(self) -> str:
        """Return what the wrapper does now that its recipients have exited; hold back whoever should be signalled."""
        assert self.wrapper is not None
        try:
            what, stay = self.wrapper.look()
        except OSError:  # no /proc: nothing is known
            return WORKING
        had_it = list(map(_identity, self.also_reached))  # a shell that runs its trap
        if what == WORKING:
            self._presume(stay)
            stay = []
        self.held_back = [process for process in stay if process.identity not in had_it]
        self._is_wrapper = True
        self.previous_recipients = [
            *self.previous_recipients,
            *(process for process in self.held_back if process.pid != self._agent.pid),
        ]
        return what if self.held_back else WORKING

    def _presume(self, processes: "Sequence[Process]") -> None:
        """These may have had the stop signal, or be clean-up: they get it late, once."""
        known = {*self._stopped, *map(_identity, (*self.awaited, *self.presumed))}
        self.presumed += [process for process in processes if process.identity not in known]

    def agent_left(self) -> bool:
        """The agent has exited during the stop. Return whether it was a wrapper, and work goes on below it.

        Where it is not known whether it was one, as it was held back from the stop signal, that is so if it has died of
        the signal when it got it: an agent that ends by itself leaves no work behind.
        """
        if self._platform_sent and self._agent.status is not None:
            return self._look_at_work_of_platform(self._platform_sent)
        agent, number = self._last_stop
        uncertain = not self._is_wrapper and agent is not None and any(p.pid == agent.pid for p in self.held_back)
        self.was_wrapper = not uncertain
        if agent is None or self._agent.status is None:
            return False
        code = exit_status.exit_code(self._agent.status)
        if uncertain and code != 128 + (INT if self._was_interrupted(agent) else number):
            return False
        if self._looked_through:
            died = code == 128 + number  # a shell's code is its program's
            former = [*self.previous_recipients, *self._stores()]
            if not self._agent_may_signal:
                return self._look_at_work(former, died=died)
            # Where it has not got the signal, it has died of one that it has sent itself (`kill 0`).
            self.departures.statuses[agent.pid] = self._agent.status if self.all_signalled else 0
            return self._look_at_work([agent, *former], died=died)
        self.departures.statuses[agent.pid] = self._agent.status
        return self._look_at_work([agent])

    def _stores(self) -> "list[Process]":
        """Return the data stores that a wrapper has left behind: they were spared, and have data to save."""
        ours = posix.getpid()
        return [p for p in self._descendants.listable() or () if p.parent == ours and names.is_store(p)]

    @property
    def work_had_it(self) -> bool | None:
        """Whether all that works on below wrappers has had the stop signal; None where a wrapper may have sent it."""
        work, presumed = self.departures.work, list(map(_identity, self.presumed))
        return None if any(process.identity in presumed for process in work) else all(map(self._had_it, work))

    def _was_interrupted(self, process: "Process") -> bool:
        """Whether it was sent INT in place of TERM."""
        return process.identity in map(_identity, self.interrupted)

    def look_at_work(self) -> bool:
        """Return whether work still goes on below wrappers that have exited."""
        return self._look_at_work(self.departures.work)

    def _look_at_work(self, former: "Sequence[Process]", *, died: bool = False) -> bool:
        signalled = self.departures.look(former, died=died)
        new = [process for process in signalled if not self._had_it(process)]
        self._note_wrappers(new, self._last_stop[1])
        self._stopped.update(process.identity for process in new)
        self.presumed += new
        self.newly_presumed += new
        if self.departures.work:
            self.previous_recipients, self.held_back, self.wrapper = self.departures.work, [], None
        return bool(self.departures.work)

    def stop_interrupted(self, number: int, action: object) -> "list[Process]":
        """Send a signal to those that were sent INT, have not exited, and still do not handle TERM; return who got it.

        It also goes to those that a wrapper may have signalled in our place, and to those that a shell still waits for
        before its trap.
        """
        self._begin_other(action)
        for process in (*self.presumed, *self.awaited):
            if self._send_once(process, self._served, number):
                self._stopped.add(process.identity)
        self.awaited = []  # a later step would send it again
        for process in self.interrupted:
            if procfs.is_there(process) and dispositions.prefers_int(process):
                self._send_once(process, self._served, number)
        return self._served

    def look_at_awaited(self, number: int, action: object) -> "tuple[list[Process], bool]":
        """Send the stop signal and SIGCONT to those that a shell waits for before its trap, if they handle it by now.

        Return who has got it, and whether others are left. Where that is another process below one of them, the one
        above is left, as it may start another.
        """
        self._begin_other(action)
        for process in self.awaited:
            for late in recipients.handling(process, number):
                if not self._had_it(late) and self._send_once(late, self._served, number, CONT):
                    self._stopped.add(late.identity)
        self.awaited = [process for process in self.awaited if procfs.is_there(process) and not self._had_it(process)]
        return self._served, bool(self.awaited)

    def enders(self) -> "list[str]":
        """Return the names of those that have got the last step and end their program by signals of their own."""
        agent = procfs.look(self._agent.pid)
        reached = self._reached or ([agent] if agent is not None else [])
        return [f"{name} ({process.pid})" for process in reached if (name := names.ender(process))]

    def left_to_others(self, number: int) -> "tuple[list[Process], list[Process]]":
        """Return who has got the stop signal and handles it, and who below these has got none, but could act on it.

        At most MAX_NAMED of the latter; nobody where there are too many processes to look at, or the second time.
        """
        caught: list[Process] = []
        below: list[Process] = []
        if self._explained:
            return [], []
        self._explained = True
        seen = {process.pid: process for process in self._descendants.listable() or ()}
        for process in seen.values():
            above = self._signalled_above(process, seen)
            if above is None or not dispositions.handles(above, number):
                continue
            # Behind a wrapper, anything may be what it waits for.
            if dispositions.handles(process, number) or dispositions.prefers_int(process) or names.is_wrapper(above):
                below.append(process)
                caught += [above] if above not in caught else []
            if len(below) == MAX_NAMED:
                break
        return caught, below

    def _signalled_above(self, process: "Process", seen: "dict[int, Process]") -> "Process | None":
        """Return the nearest process above that has got the stop signal; None if there is none, or if it has itself."""
        above: Process | None = process
        for _ in range(tree.MAX_DEPTH):
            if above is None or process.identity in self._stopped:
                break
            if above.identity in self._stopped:
                return above
            above = seen.get(above.parent)
        return None

    def stop_successor(self, number: int, action: object) -> None:
        """Send a step of the stop to the process that has become the agent, unless it has had it."""
        self._begin_other(action)
        successor = procfs.look(self._agent.pid)
        if successor is None or not self._had_it(successor):
            self._stop_agent(number)

    def note_stopped(self, identities: "Collection[tuple[int, int]]") -> None:
        """Note that these processes have had the stop signal from somebody else."""
        self._stopped.update(identities)

    def note_all_signalled(self, number: int) -> None:
        """Note that every process has had the stop signal: from the platform."""
        self._platform_sent = number
        try:
            self._signalled_by_platform = {process.identity for process in self._descendants.all()} - self._stopped
        except OSError:  # no /proc to find them in
            return
        self._stopped |= self._signalled_by_platform

    def forget_all_signalled(self) -> None:
        """The platform has signalled nobody."""
        self._platform_sent = 0
        self._stopped -= self._signalled_by_platform
        self._signalled_by_platform = set()

    def _look_at_work_of_platform(self, number: int) -> bool:
        """The agent has exited by a signal that every process has had. Return whether it was a wrapper with work below.

        It may have exited before anybody looked at what was below it. So it counts as a wrapper if it died of the
        signal or has a wrapper's name, and what handles the signal counts as work.
        """
        assert self._agent.status is not None
        has_name = self._agent.name in procfs.SHELLS | names.WRAPPERS
        if exit_status.exit_code(self._agent.status) != 128 + number and not has_name:
            return False
        self.departures.work, _ = leftovers.topmost(
            self._descendants.listable() or (),
            lambda process: dispositions.handles(process, number) is True,
            lambda _: False,
            works_on=True,
        )
        self.previous_recipients, self.held_back, self.wrapper = self.departures.work, [], None
        return bool(self.departures.work)

    def stop_leftovers(self, number: int, *, at_once: bool = False) -> None:
        """Send the stop signal and SIGCONT to what the agent left behind, once each, from the top down or `at_once`."""
        try:
            there = self._descendants.all()
        except OSError:  # no /proc to find them in, or no memory in the kernel; most will be in the agent's group
            if number not in self._sent_to_group:
                self._sent_to_group.add(number)  # first, as below
                try:
                    self.send_group(number)
                except NO_MEMORY:
                    self._sent_to_group.discard(number)
                    raise
                self._sent_blindly |= not self._agent.shares_our_group
                self.send_group(CONT)
            return
        works_on = not at_once and bool(self.departures.work)
        now: list[Process] = there
        later: list[Process] = []
        if len(there) <= tree.MAX_LISTED and not at_once:
            children_of = tree.children_among({process.pid: process for process in there})
            now, later = leftovers.topmost(
                there,
                lambda process: self._acts_on(process, number),
                self._had_it,
                lambda process: foreground.behind_trap(process, children_of(process.pid), number),
                works_on=works_on,
            )
        if works_on:
            self._note_wrappers(now, number)
        for process in now:
            if not self._had_it(process):
                adapted = self._adapted(process, number) if works_on else number
                self._stopped.add(process.identity)  # first: a failure of this later would have it sent again
                try:
                    self.send(process, adapted, CONT)
                except NO_MEMORY:
                    self._stopped.discard(process.identity)
                    raise
        self.ahead = [process for process in there if self._had_it(process)] if later else []

    def _had_it(self, process: "Process") -> bool:
        """Whether a process has had the stop signal."""
        with_group = self._sent_blindly and process.group == self._agent.group
        return with_group or process.identity in self._stopped

    def _acts_on(self, process: "Process", number: int) -> bool:
        """Whether the stop signal does more than end a leftover process, or may: it may have to end others first."""
        if dispositions.handles(process, number) is not False:
            return True
        return bool(self.departures.work) and self._adapts and dispositions.prefers_int(process)

    def kill_all(self, *, one_by_one: bool = False) -> None:
        """SIGKILL to everything below us.

        As process 1 that is one call which no fork escapes (kill(2), -1), and what it reaches outside our tree dies
        with us in a moment anyway. As a subreaper, or `one_by_one`, we can only look again and again; whole process
        groups go in one call, because their members may fork faster than we look.
        """
        if posix.getpid() == 1 and not one_by_one and self._kill(-1, KILL):
            return
        if not self._agent.has_exited:
            self._kill(self._agent.pid, KILL)
        try:
            seen = tree.everything()
        except OSError:  # no /proc to find them in
            self.send_group(KILL)
            return
        except NO_MEMORY:  # this comes again in a moment, but there may be no memory then either
            self.send_group(KILL)
            raise
        ours = tree.below(posix.getpid(), seen)
        shared = {posix.getpgrp(), *(seen[pid].group for pid in seen.keys() - {process.pid for process in ours})}
        for group in {process.group for process in ours} - shared:
            self._kill(-group, KILL)
        for process in ours:
            self.send(process, KILL)

    # --- Forwarded signals. -----------------------------------------------------------------------------------------

    def forward_recipients(self, number: int) -> "tuple[list[Process], bool]":
        """Return who a signal is for in the agent's place, and whether it is handled or ignored there."""
        if (named := self._named_process()) is not None:
            known = dispositions.handles_or_ignores(named, number)
            return [named], self._is_forwarded_unknown(named, number) if known is None else known
        if self._settings.target == "group" and not self.agent_handles_or_ignores(number):
            members = self._members_that_handle(number)
            return members, bool(members)
        found = self.resolve(number, to_stop=False)
        to = [*found.shells, *found.processes]
        return to, bool(to) or (not found.unhandled and self.agent_handles_or_ignores(number))

    def _members_that_handle(self, number: int) -> "list[Process]":
        """Return those in the agent's process group that handle a signal that the agent does not."""
        try:
            members = [process for process in self._descendants.all() if process.group == self._agent.group]
        except OSError:  # no /proc to find them in
            return []
        if self._agent.shares_our_group:
            return []
        return [process for process in members if dispositions.handles(process, number)]

    def forward(self, number: int, to: "Sequence[Process]", action: object) -> None:
        """Send a signal to some processes in the agent's place; to the agent where there are none."""
        self._begin_other(action)
        for process in to:
            self._send_once(process, self._served, number)
        if not to:
            self.send_agent(number)

    def agent_handles_or_ignores(self, number: int) -> bool:
        """Whether the agent handles or ignores the signal, or may. What a shell ignores by habit does not count."""
        if self._is_shells_habit(number):
            return bool(self._agent.dispositions.handles(number))
        known = self._agent.dispositions.handles_or_ignores(number)
        return self._is_forwarded_unknown(procfs.look(self._agent.pid), number) if known is None else known

    def _is_forwarded_unknown(self, process: "Process | None", number: int) -> bool:
        """Whether a process gets a signal of which it is not known whether it handles it.

        Always where that is unknown for the moment, or without /proc. Where masks are never shown, wrappers do not.
        """
        if process is None or not dispositions.masks_are_false():
            return True
        return by_name.may_be_handled(number) and not names.is_wrapper(process)

    def agent_gets_unknown(self, number: int) -> bool:
        """Whether a signal goes to the agent, and nobody else, although nothing shows whether it handles that.

        The same as `forward_recipients` and `_is_forwarded_unknown` decide where masks are never shown, with few looks.
        """
        if not dispositions.masks_are_false() or not by_name.may_be_handled(number):
            return False
        self._plain = self._plain or by_name.PlainProgram()
        return self._plain.is_plain(self._agent.pid)

    def resolve(self, number: int, *, to_stop: bool) -> "recipients.Recipients":
        """Return who gets a signal in the agent's place: nobody if it handles the signal, or no process below does."""
        agent = procfs.look(self._agent.pid)
        if self._settings.target != "auto" or agent is None or self._agent.has_exited:
            return recipients.Recipients()
        by_names = dispositions.masks_are_false()
        known = self._agent.dispositions.handles_or_ignores(number)
        if known is None and not by_names:
            return recipients.Recipients()
        if known and not self._is_shells_habit(number) and not self._is_transparent(agent, number, to_stop=to_stop):
            return recipients.Recipients()
        try:
            if by_names:
                return by_name.resolve(agent, number, to_stop=to_stop)
            adapts = to_stop and self._adapts
            return recipients.resolve(agent, number, to_stop=to_stop, quickly=not to_stop, adapts=adapts)
        except OSError:
            return recipients.Recipients()  # no /proc: nothing is known

    def _is_transparent(self, agent: "Process", number: int, *, to_stop: bool) -> bool:
        """Whether a signal that the agent handles or ignores may be meant for a process behind it."""
        if names.may_be_looked_through(agent):
            return True
        # Most agents are no such program, and may have thousands of children: that is looked at first.
        if to_stop and recipients.is_in_runtime(agent) and recipients.only_reads_output(agent, _only_child(agent.pid)):
            return True
        return not self._agent.dispositions.handles(number) and recipients.is_tracer(agent)

    def may_be_looked_through(self) -> bool:
        """Whether a signal that the agent handles may be meant for a process behind it; one look for each exec(2)."""
        image = self._agent.dispositions.image()
        if image is None or image != self._image:
            agent = procfs.look(self._agent.pid)
            self._may_be_looked_through = agent is not None and names.may_be_looked_through(agent)
            self._image = image
        return self._may_be_looked_through

    def _named_process(self) -> "Process | None":
        """Return the process that the agent named as its main one, if it is there and --target is auto."""
        named = self._agent.named
        return named if self._settings.target == "auto" and procfs.is_there(named) else None

    def _is_shells_habit(self, number: int) -> bool:
        return number in dispositions.SHELL_HABITS and procfs.is_shell(procfs.look(self._agent.pid))

    def note_handlers(self, fields: "Mapping[str, str]", sender: "Process") -> None:
        """Note which signals a process reports to handle; that counts where masks are not shown."""
        if (text := fields.get(notify.HANDLES)) is None:
            return
        try:
            handled = frozenset(signals.parse(name.strip()) for name in text.split(",") if name.strip())
        except ValueError as error:
            self._console.log(WARNING, "not-noted", f"{notify.HANDLES} from {sender}: {error}; ignored", pid=sender.pid)
            return
        dispositions.note_report(sender, handled)

    # --- Sending. ---------------------------------------------------------------------------------------------------

    def send_agent(self, number: int) -> None:
        """Send to the agent, or to its process group with --target group; nothing once it was reaped."""
        if self._agent.status is not None:
            return
        if number == KILL:
            self.kill_forwarded = True
        self._kill(-self._agent.group if self._signals_group else self._agent.pid, number)

    @property
    def _signals_group(self) -> bool:
        """Whether what is sent to the agent goes to its process group."""
        return self._settings.target == "group" and not self._agent.shares_our_group

    def send_group(self, number: int) -> None:
        """Send to the agent's process group, unless it is ours too."""
        if not self._agent.shares_our_group:
            self._kill(-self._agent.group, number)

    def continue_group(self) -> None:
        """Send SIGCONT to the agent's process group, which may be ours."""
        self._kill(-self._agent.group, CONT)

    def send(self, process: "Process", *numbers: int) -> bool:
        """Send signals to exactly this process. Returns False, and logs it, where none could be sent."""
        try:
            return send(process, *numbers)
        except OSError as error:
            self._log_not_sent(numbers[0], str(process), process.pid, error)
            return False

    def _kill(self, pid: int, number: int) -> bool:
        """Send a signal; return False, and log it, if that fails."""
        try:
            posix.kill(pid, number)
        except ProcessLookupError:
            pass  # it has exited meanwhile: waitpid(2) will report it
        except OSError as error:
            if not _send_by_pidfd(pid, number):
                self._log_not_sent(number, f"pid {pid}", pid, error)
                return False
        return True

    def _log_not_sent(self, number: int, to: str, pid: int, error: OSError) -> None:
        if number == KILL:  # it is sent again and again
            if pid in self._not_killed:
                return
            self._not_killed.add(pid)
        text = f"cannot send {name_of(number)} to {to}: {error.strerror}"
        self._console.log(WARNING, "not-sent", text, pid=pid)


def _only_child(pid: int) -> "list[Process]":
    """Return its child if it has just one."""
    return procfs.children(pid) if len(procfs.child_pids(pid)) == 1 else []


def _identity(process: "Process") -> tuple[int, int]:
    return process.identity


def send(process: "Process", *numbers: int) -> bool:
    """Send signals to exactly this process; False if it had exited before. Raises PermissionError.

    A pid from /proc may have been reused since. A pidfd (pidfd_open(2)) names one process for good, and the start time
    shows whether it is still the one that was looked at.
    """
    try:
        fd = posix.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    except (OSError, AttributeError):  # an older kernel, a sandbox, no descriptor left, not Linux
        return _is_same(process) and _send_all(lambda number: posix.kill(process.pid, number), numbers)
    try:
        return _is_same(process, unknown=True) and _send_all(
            lambda number: _signal.pidfd_send_signal(fd, number), numbers
        )
    except OSError:  # the call may be refused, and not the signal (seccomp): kill(2) shows which
        if not procfs.MOUNTED:
            raise
        return _is_same(process) and _send_all(lambda number: posix.kill(process.pid, number), numbers)
    finally:
        posix.close(fd)


def _send_by_pidfd(pid: int, number: int) -> bool:
    """Send a signal to a child that is not reaped: kill(2) may be refused, and not the signal (seccomp)."""
    try:
        fd = posix.pidfd_open(pid)  # fails for a group
        try:
            _signal.pidfd_send_signal(fd, number)
        finally:
            posix.close(fd)
    except (OSError, AttributeError):
        return False
    return True


def _is_same(process: "Process", *, unknown: bool = False) -> bool:
    """Whether it is there, and the one that was looked at; `unknown` if that is not known."""
    now = procfs.look(process.pid)
    return unknown if now is None else now.start == process.start and now.alive


def _send_all(send_one: "Callable[[int], object]", numbers: "Sequence[int]") -> bool:
    """Return whether at least one was sent: the process may exit by it."""
    sent = False
    try:
        for number in numbers:
            send_one(number)
            sent = True
    except ProcessLookupError:
        pass
    except PermissionError:  # it may have become another user's after the first
        if not sent:
            raise
    except NO_MEMORY:  # so an error means that the process has not got the first
        if not sent:
            raise
    return sent

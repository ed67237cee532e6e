"""--orphans: what the agent's tools leave behind is stopped while the agent runs, and nothing else is."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support.init import AGENT_INIT, actor_line

if TYPE_CHECKING:
    from tests.conftest import Start
    from tests.support.init import Init

ALLOWED = 1.0
OPTIONS = ("--orphans", f"{ALLOWED:g}s", "--linger", "1s", "-t", "20s")
STOPS = "on('TERM', lambda: leave(7)); ready()"
HANDLES = "on('TERM', lambda: leave(0)); ready()"
STUBBORN = "ignore('TERM'); ready()"
COUNTS = "on('TERM'); ready()"  # handles TERM, but stays


def agent_with(*orphans: tuple[str, str], rest: str = STOPS) -> str:
    return "; ".join([*(f"orphan({name!r}, {code!r})" for name, code in orphans), rest])


def stop(init: Init) -> None:
    """Stop the agent: it was not touched, and has its own exit code."""
    assert init.events() == ["ready"]
    init.signal("TERM")
    assert init.wait() == 7
    assert init.events() == ["ready", "TERM", "end"]


def wake_ups(init: Init) -> int:
    status = Path(f"/proc/{init.pid}/status").read_text()
    return sum(int(line.split()[1]) for line in status.splitlines() if "ctxt_switches" in line)


def test_orphan_gets_the_stop_signal_when_its_time_is_up(start_in_role: Start) -> None:
    init = start_in_role(*OPTIONS, agent=agent_with(("tool", HANDLES), ("other", HANDLES)))
    for name in ("tool", "other"):
        ready = init.wait_for_event("ready", name)
        term = init.wait_for_event("TERM", name)
        assert term["t"] >= ready["t"] + ALLOWED - 0.5  # it was adopted while its interpreter started
        init.wait_for_event("end", name)
    init.wait_for(lambda: len(init.lines(", adopted 1")) == 2, "two lines")
    assert all("TERM to python" in line for line in init.lines("orphan python"))
    stop(init)
    assert not init.lines("SIGKILL")
    assert len(init.records(event="TERM")) == 3


def test_orphan_is_killed_after_the_linger_time(start_in_role: Start) -> None:
    init = start_in_role(*OPTIONS, agent=agent_with(("tool", COUNTS), ("other", STUBBORN)))
    init.wait_for(lambda: len(init.lines("1s after TERM, SIGKILL to python")) == 2, "two lines")
    assert init.events("tool") == ["ready", "TERM"]
    init.wait_for(lambda: len(init.remaining_processes()) <= (3 if init.process1 else 2), "the end of the orphans")
    stop(init)


def test_whole_tree_goes_and_what_is_below_a_handler_gets_no_signal(start_in_role: Start) -> None:
    """The worker ends by its parent; a shell gets its turn once the program below it has exited."""
    worker = "on('TERM'); on('USR1', lambda: leave(0)); ready()"
    program = (
        f"w = child('worker', {worker!r}); on('TERM', lambda: (time.sleep(.3), os.kill(w, 10), leave(0))); ready()"
    )
    shell = f"import shlex; os.execvp('bash', ['bash', '-c', {actor_line('program', program) + '; sleep 100; exit'!r}])"
    init = start_in_role(*OPTIONS, agent=agent_with(("shell", shell)))
    init.wait_for_event("end", "program")
    init.wait_for_event("end", "worker")
    init.wait_for(lambda: len(init.remaining_processes()) <= (3 if init.process1 else 2), "the end of the tree")
    assert init.events("worker") == ["ready", "USR1", "end"]
    assert [line for line in init.lines("orphan bash") if "TERM to python" in line]
    stop(init)
    assert len(init.records("program", "TERM")) == 1


def test_tree_with_a_stubborn_descendant_is_killed_whole(start_in_role: Start) -> None:
    tool = f"on('TERM'); child('grandchild', {STUBBORN!r}, session=True); ready()"
    init = start_in_role("--orphans", "3s", "--linger", "1s", "-t", "20s", agent=agent_with(("tool", tool)))
    init.wait_for_event("ready", "grandchild")
    line = init.wait_for_line("SIGKILL to python")
    assert line.count("python") == 3  # the orphan, and both
    init.wait_for(lambda: len(init.remaining_processes()) <= (3 if init.process1 else 2), "the end of the tree")
    assert init.events("tool") == ["ready", "TERM"]
    stop(init)


def test_what_a_stopped_tree_leaves_behind_gets_the_signal_too(start_in_role: Start) -> None:
    """It had none, as its parent handled the signal; that has exited now."""
    tool = f"child('worker', {HANDLES!r}); on('TERM', lambda: leave(0)); ready()"
    init = start_in_role("--orphans", "1s", "--linger", "20s", "-t", "20s", agent=agent_with(("tool", tool)))
    end = init.wait_for_event("end", "tool")
    term = init.wait_for_event("TERM", "worker")
    assert term["t"] < end["t"] + ALLOWED  # it does not count as a new orphan
    init.wait_for_event("end", "worker")
    stop(init)


def test_stopped_orphan_is_continued(start_in_role: Start) -> None:
    suspended = "on('TERM', lambda: leave(0)); log('ready'); os.kill(os.getpid(), 19); forever()"
    init = start_in_role(*OPTIONS, agent=agent_with(("tool", suspended)))
    init.wait_for_event("end", "tool")
    stop(init)


def test_children_of_the_agent_are_no_orphans(start_in_role: Start) -> None:
    tool = f"child('grandchild', {STOPS!r}, session=True); {STOPS}"
    init = start_in_role(*OPTIONS, agent=f"child('tool', {tool!r}, session=True); {agent_with(('gone', HANDLES))}")
    init.wait_for_event("end", "gone")
    time.sleep(ALLOWED)
    assert init.events("tool") == init.events("grandchild") == ["ready"]
    stop(init)


@pytest.mark.parametrize(
    "message", ["MAINPID={pid}", "READY=1", "WATCHDOG=1"], ids=["main process", "ready", "watchdog"]
)
def test_process_that_speaks_for_the_agent_is_not_touched(start_in_role: Start, message: str) -> None:
    """A daemon that is the agent's main process, and the tree that it is in; it ends the agent."""
    text = f"notify({message!r}.format(pid=os.getpid()))"
    ends = "(os.kill(int(os.environ['AGENT']), 10), leave(7))"
    main = f"child('worker', {STOPS!r}); on('TERM', lambda: {ends}); {text}; ready()"
    agent = agent_with(("main", main), ("tool", HANDLES), rest=f"on('USR1', lambda: leave(7)); {STOPS}")
    agent = f"os.environ['AGENT'] = str(os.getpid()); {agent}"
    init = start_in_role("--notify-access", "all", *OPTIONS, agent=agent)
    init.wait_for_event("ready", "main")
    init.wait_for_event("end", "tool")
    time.sleep(ALLOWED)
    assert init.events("main") == init.events("worker") == ["ready"]
    assert len(init.lines("orphan ")) == 1
    init.signal("TERM")
    assert init.wait() == 7


def test_agents_group_is_not_touched_with_target_group(start_in_role: Start) -> None:
    """Its processes are recipients."""
    fork = "pid = os.fork()\nif pid == 0:\n child('member', %r); os._exit(0)\nos.waitpid(pid, 0)\n"
    init = start_in_role("-g", *OPTIONS, agent=fork % HANDLES + agent_with(("tool", HANDLES)))
    init.wait_for_event("end", "tool")
    time.sleep(ALLOWED)
    assert init.events("member") == ["ready"]
    stop(init)
    assert init.events("member") == ["ready", "TERM", "end"]


def test_processes_from_before_the_agent_are_no_orphans(start_in_role: Start) -> None:
    service = actor_line("service", HANDLES)
    agent = " ".join(["exec", str(AGENT_INIT), *OPTIONS, "--", actor_line("agent", agent_with(("tool", HANDLES)))])
    init = start_in_role(program=["sh", "-c", f"{service} & {agent}"])
    init.wait_for_event("ready", "service")
    init.wait_for_event("end", "tool")
    time.sleep(ALLOWED)
    assert init.events("service") == ["ready"]
    stop(init)
    assert init.events("service") == ["ready", "TERM", "end"]


@pytest.mark.parametrize("signalled", [False, True], ids=["before", "after"])
def test_stop_takes_over(start_in_role: Start, signalled: bool) -> None:
    """An orphan gets one stop signal, and is not killed while the agent drains."""
    drains = "on('TERM', lambda: leave(7, after=1.5)); ready()"
    options = ("--orphans", "1s" if signalled else "2s", "--linger", "800ms", "-t", "20s")
    init = start_in_role(*options, agent=agent_with(("tool", COUNTS), rest=drains))
    init.wait_for_event("TERM" if signalled else "ready", "tool")
    init.wait_for_event("ready")
    init.signal("TERM")
    assert init.wait() == 7
    assert init.events("tool") == ["ready", "TERM"]
    assert not init.lines("after TERM, SIGKILL")
    assert init.lines("linger time is over")


def test_without_the_option_nothing_is_stopped_and_nothing_wakes_up(start_in_role: Start) -> None:
    init = start_in_role("-t", "20s", agent=agent_with(("tool", HANDLES)))
    init.wait_for_event("ready", "tool")
    init.wait_for_event("ready")
    time.sleep(0.3)
    before = wake_ups(init)
    time.sleep(1.5)
    assert wake_ups(init) == before
    assert init.events("tool") == ["ready"]
    stop(init)
    assert init.events("tool") == ["ready", "TERM", "end"]


@pytest.mark.parametrize(("allowed", "each_second"), [("1s", 10), ("10m", 0)])
def test_looks_are_rare(start_in_role: Start, allowed: str, each_second: int) -> None:
    """Preemptions do not count: on a busy machine there are some."""
    init = start_in_role("--orphans", allowed, agent=STOPS)
    init.wait_for_event("ready")
    time.sleep(0.3)
    process = psutil.Process(init.pid)
    began, before = time.monotonic(), process.num_ctx_switches().voluntary
    time.sleep(1)
    seen, seconds = process.num_ctx_switches().voluntary - before, time.monotonic() - began
    assert seen <= each_second * seconds + 3
    stop(init)


def test_orphan_that_pings_when_it_is_stopped_makes_nothing_spin(start_in_role: Start) -> None:
    """It speaks for the agent then and is not touched any more, although the linger time has passed."""
    pings = "on('TERM', lambda: (notify('WATCHDOG=1'), log('pinged'))); ready()"
    init = start_in_role(*OPTIONS, agent=agent_with(("tool", pings)))
    init.wait_for_event("ready")
    pinged = init.wait_for_event("pinged", "tool")
    init.wait_for(lambda: time.monotonic() > pinged["t"] + 1.5, "the end of the linger time")
    before = wake_ups(init)
    time.sleep(2)
    assert wake_ups(init) - before <= 2 / (ALLOWED / 10) + 50  # a spin would make 200
    assert init.events("tool") == ["ready", "TERM", "pinged"]
    assert not init.lines("SIGKILL")
    stop(init)


def test_hundreds_of_orphans_are_stopped(start_in_role: Start) -> None:
    agent = "[os.spawnlp(os.P_WAIT, 'sh', 'sh', '-c', 'sleep 1000 & sleep 1000 & sleep 1000 &') for _ in range(100)]"
    init = start_in_role("-q", *OPTIONS, agent=f"{agent}; {STOPS}")
    init.wait_for_event("ready")
    init.wait_for(lambda: len(psutil.Process(init.pid).children()) == 1, "the end of the orphans")
    stop(init)


def test_orphans_with_a_bad_duration(start: Start) -> None:
    init = start("--orphans", "soon", agent=STOPS)
    assert init.wait() == 125
    assert init.stderr.count("\n") == 1
    assert "--orphans: 'soon' is not a duration; accepted: 25s" in init.stderr

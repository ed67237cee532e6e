"""Agents that do not handle the stop signal and have children that do: wrappers, and agents with helpers."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.init import ACTOR, actor_line

if TYPE_CHECKING:
    from tests.conftest import Start
    from tests.support.init import Init

SPAWN = "import subprocess; helper = [sys.executable, '-S', __file__, LOG, 'child', {code!r}]; "
CHILD = "on('TERM', lambda: leave(0)); ready()"
WORKER = "on('TERM', lambda: leave(7, after=0.5)); ready()"  # the program behind a launcher
STAYS = "on('TERM'); ready()"

TERM = ("--stop-signal", "TERM")  # by default these agents, in Python, would get INT

PIPES = "stdin=subprocess.PIPE, stdout=subprocess.PIPE"
SOCKETS = "stdin=far, stdout=far"
PAIR = "import socket; near, far = socket.socketpair(); "


def spawn(code: str, arguments: str = "") -> str:
    """The beginning of an agent that starts a child, which runs `code`."""
    return SPAWN.format(code=code) + PAIR + f"process = subprocess.Popen(helper, {arguments}); "


def stop(init: Init, child: str = "child") -> tuple[int, float]:
    """The exit code and the seconds from the stop request to the end."""
    init.wait_for_event("ready", child)
    init.wait_for_event("ready")
    asked = time.monotonic()
    init.signal("TERM")
    return init.wait(), time.monotonic() - asked


@pytest.mark.parametrize("how", [PIPES, "stdin=subprocess.PIPE", "stdout=subprocess.PIPE", SOCKETS, "stdin=far"])
def test_an_agent_with_a_helper_on_a_pipe_is_signalled_itself(start_in_role: Start, how: str) -> None:
    init = start_in_role(*TERM, "-t", "20s", agent=spawn(CHILD, how) + "log('ready'); time.sleep(90)")
    code, seconds = stop(init)
    assert code == 143
    assert seconds < 5
    assert init.events("child") == ["ready", "TERM", "end"]  # as a process left behind
    assert not init.lines("does not handle TERM")


def test_an_agent_that_talks_to_a_helper_and_waits_for_its_answer_is_signalled_itself(start_in_role: Start) -> None:
    init = start_in_role(*TERM, "-t", "20s", agent=spawn(CHILD, PIPES) + "log('ready'); process.stdout.read()")
    code, seconds = stop(init)
    assert code == 143
    assert seconds < 5


def test_an_agent_that_waits_for_a_thread_that_talks_to_a_helper_is_signalled_itself(start_in_role: Start) -> None:
    """The name of the kernel function for that ends like the one for a child (Linux 6.16: `futex_do_wait`)."""
    agent = spawn(CHILD, PIPES) + "import threading; log('ready'); threading.Event().wait()"
    init = start_in_role(*TERM, "-t", "20s", agent=agent)
    code, seconds = stop(init)
    assert code == 143
    assert seconds < 5
    assert not init.lines("does not handle TERM")


def test_an_agent_with_a_helper_behind_a_shell_is_signalled_itself(start_in_role: Start) -> None:
    agent = spawn(CHILD, PIPES) + "log('ready'); time.sleep(90)"
    init = start_in_role(*TERM, "-t", "20s", "--", "sh", "-c", f"{actor_line('agent', agent)}; exit 3")
    code, seconds = stop(init)
    assert code == 3
    assert seconds < 5
    assert init.events("child") == ["ready", "TERM", "end"]


def test_a_signal_that_only_a_helper_handles_is_not_sent_to_it(start_in_role: Start) -> None:
    helper = "on('USR1'); " + CHILD
    init = start_in_role(*TERM, "-t", "20s", agent=spawn(helper, PIPES) + "log('ready'); time.sleep(90)")
    init.wait_for_event("ready", "child")
    init.wait_for_event("ready")
    init.signal("USR1")
    init.wait_for_line("USR1")
    assert stop(init)[0] == 143
    assert "USR1" not in init.events("child")


@pytest.mark.parametrize(
    ("how", "wait"),
    [
        ("", "process.wait()"),
        (PIPES, "process.wait()"),  # nobody who waits for the end is in a conversation
        ("stdout=subprocess.PIPE", "process.stdout.read()"),
        ("stdout=subprocess.PIPE, stderr=subprocess.STDOUT", "list(process.stdout)"),
    ],
)
def test_a_launcher_that_waits_is_looked_through(start_in_role: Start, how: str, wait: str) -> None:
    launcher = spawn(WORKER, how) + f"log('ready'); {wait}; os._exit(process.wait())"
    init = start_in_role(*TERM, "-t", "20s", agent=launcher)
    assert stop(init)[0] == 7
    assert init.events("child") == ["ready", "TERM", "end"]
    assert init.lines("does not handle TERM")


@pytest.mark.parametrize("pause", [0.05, 1.0])
def test_a_launcher_that_polls_is_looked_through(start_in_role: Start, pause: float) -> None:
    poll = f"log('ready')\nwhile process.poll() is None: time.sleep({pause})\nos._exit(process.returncode)"
    init = start_in_role(*TERM, "-t", "20s", agent=spawn(WORKER) + poll)
    assert stop(init)[0] == 7
    assert init.events("child") == ["ready", "TERM", "end"]


def test_an_agent_beside_a_helper_that_has_ended_is_signalled_too(start_in_role: Start) -> None:
    init = start_in_role(*TERM, "-t", "20s", agent=spawn(CHILD) + "log('ready'); time.sleep(90)")
    code, seconds = stop(init)
    assert code == 143
    assert seconds < 5
    assert init.events("child") == ["ready", "TERM", "end"]


def test_an_agent_beside_a_helper_that_stays_is_signalled_at_half_of_the_grace(start_in_role: Start) -> None:
    """Nothing shows that the other one is a helper: it has the rest of the grace. The exit code is the agent's."""
    init = start_in_role(*TERM, "-t", "6s", agent=spawn(STAYS) + "log('ready'); time.sleep(90)")
    init.wait_for_event("ready", "child")
    init.wait_for_event("ready")
    asked = time.monotonic()
    init.signal("TERM")
    init.wait_for_line("the agent was killed by SIGTERM before the program that it runs, which has had TERM")
    assert 2.9 < time.monotonic() - asked < 5
    assert init.wait() == 143
    assert time.monotonic() - asked > 5.9


@pytest.mark.parametrize("options", [(), TERM], ids=["INT", "TERM"])
@pytest.mark.parametrize("grace", ["infinity", "12s"])
def test_the_program_behind_a_launcher_that_polls_is_not_cut_off_when_the_launcher_has_died(
    start_in_role: Start, grace: str, options: tuple[str, ...]
) -> None:
    """The launcher gets the signal at half of the grace, or after 5 s, and dies of it."""
    program = "on('TERM', lambda: leave(7, after=7)); ready()"
    launcher = spawn(program) + "log('ready')\nwhile process.poll() is None: time.sleep(0.2)"
    init = start_in_role(*options, "-t", grace, "--linger", "100ms", agent=launcher)
    code, seconds = stop(init)
    assert code in (143, 130)
    assert seconds < 9
    assert init.events("child") == ["ready", "TERM", "end"]
    assert init.lines("before the program that it runs, which has had TERM")


def test_a_loop_that_restarts_its_program_with_other_arguments_is_stopped(start_in_role: Start) -> None:
    """What it has started again gets the signal as well."""
    line = "n=0; while :; do n=$((n+1)); AGENT $n; done".replace("AGENT", actor_line("agent", WORKER))
    init = start_in_role("-t", "20s", command=["--", "sh", "-c", line])
    code, seconds = stop(init, "agent")
    assert code == 143
    assert seconds < 5
    events = init.events()
    assert events[:3] == ["ready", "TERM", "end"]
    assert events[3:] in ([], ["ready"], ["ready", "TERM"], ["ready", "TERM", "end"])


def test_an_agent_that_runs_one_tool_after_the_other_is_interrupted(start_in_role: Start) -> None:
    """Neither handles a signal but as Python does; the second tool shows that the agent has not been reached."""
    tool = [sys.executable, "-S", str(ACTOR), "LOG", "child", "log('ready'); time.sleep(1)"]
    agent = f"""
import subprocess
tool = {tool!r}
tool[3] = LOG
log('ready')
try:
    for number in range(90):
        subprocess.run([*tool, str(number)])
finally:
    leave(5)
"""
    init = start_in_role("-t", "20s", agent=agent)
    code, seconds = stop(init)
    assert code == 5
    assert seconds < 8
    assert init.events() == ["ready", "end"]


def test_a_helpers_end_is_seen_without_pidfds(start_in_role: Start) -> None:
    """As in some sandboxes and before Linux 5.3."""
    init = start_in_role(
        *TERM,
        "-t",
        "20s",
        agent=spawn(CHILD) + "log('ready'); time.sleep(90)",
        before=["strace", "-D", "-o", "/dev/null", "-e", "inject=pidfd_open:error=ENOSYS"],
    )
    code, seconds = stop(init)
    assert code == 143
    assert seconds < 8

"""From the stop request to the end: who gets which signal when, and what is left."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support.init import actor_line, clean_environment

if TYPE_CHECKING:
    from tests.conftest import Start

LATE = 0.5  # how late the end may be after the grace, as promised

GRACEFUL = "on('TERM', lambda: leave(0, after=0.3)); ready()"
STUBBORN = "ignore('INT'); on('TERM'); ready()"


@pytest.mark.parametrize("request_signal", ["TERM", "INT"])
def test_a_stop_request_reaches_the_agent_as_the_stop_signal(started: Start, request_signal: str) -> None:
    init = started("-t", "20s", agent=GRACEFUL)
    init.event("ready")
    init.signal(request_signal)
    assert init.wait() == 0
    assert init.events() == ["ready", "TERM", "end"]
    assert f"stop requested by {request_signal}" in init.said("stop requested")
    assert "exit code 0" in init.said("ended")


def test_a_repeated_request_is_noted_and_not_passed_on(started: Start) -> None:
    init = started("-t", "20s", agent="on('INT'); on('TERM', lambda: leave(0, after=1)); ready()")
    init.event("ready")
    init.signal("TERM")
    init.event("TERM")
    for again in ("TERM", "INT", "TERM"):
        init.signal(again)
    assert init.wait() == 0
    assert init.events() == ["ready", "TERM", "end"]
    assert init.lines("under way already")


def test_the_grace_is_a_deadline(started: Start) -> None:
    init = started("-t", "1s", agent=STUBBORN)
    init.event("ready")
    asked = time.monotonic()
    init.signal("TERM")
    assert init.wait() == 137
    assert 1.0 <= time.monotonic() - asked < 1.0 + LATE
    assert init.events() == ["ready", "TERM"]
    assert "still there: python" in init.said("SIGKILL")
    assert "was killed by SIGKILL when its time was up" in init.said("ended")


def test_the_agent_that_is_stopped_by_sigstop_is_continued_to_act_on_the_request(started: Start) -> None:
    init = started("-t", "20s", agent="on('TERM', lambda: leave(0)); log('ready'); os.kill(os.getpid(), 19); forever()")
    init.event("ready")
    init.signal("TERM")
    assert init.wait() == 0
    assert init.events() == ["ready", "TERM", "end"]


def test_on_a_platform_the_agent_is_told_of_and_never_killed_by_a_default(started: Start) -> None:
    platform = clean_environment(RAILWAY_DEPLOYMENT_DRAINING_SECONDS="3")
    init = started(agent="on('TERM'); on('USR1', lambda: leave(0)); ready()", env=platform)
    init.event("ready")
    assert "grace: Railway's own, 3s as set; AGENT_INIT_GRACE not set" in init.said("started")
    asked = time.monotonic()
    init.signal("TERM")
    report = init.said("goes on waiting")
    assert 1.0 <= time.monotonic() - asked < 1.0 + 2 * LATE
    assert "still there: python" in report
    time.sleep(2.5)  # the platform's limit passes; here nobody keeps it
    init.signal("USR1")
    assert init.wait() == 0
    assert init.events() == ["ready", "TERM", "USR1", "end"]
    assert len(init.lines("goes on waiting")) == 1


def test_a_schedule_is_run_step_by_step_on_time(started: Start) -> None:
    init = started(
        "--stop-schedule",
        "TERM/400ms/INT/300ms/USR1/300ms/KILL",
        agent="[on(n) for n in ('TERM', 'INT', 'USR1')]; ready()",
    )
    init.event("ready")
    asked = time.monotonic()
    init.signal("TERM")
    assert init.wait() == 137
    ended = time.monotonic()
    assert init.events() == ["ready", "TERM", "INT", "USR1"]
    due = {"TERM": 0.0, "INT": 0.4, "USR1": 0.7}
    for name, after in due.items():
        assert after <= init.event(name)["t"] - asked + 0.001 < after + LATE
    assert 1.0 <= ended - asked < 1.0 + LATE
    assert [line for line in init.lines("still there") if "INT" in line]


def test_a_schedule_without_kill_never_ends_the_agent(started: Start) -> None:
    init = started(
        "--stop-schedule", "TERM/100ms/INT", agent="on('TERM'); on('INT'); on('USR1', lambda: leave(4)); ready()"
    )
    init.event("ready")
    init.signal("TERM")
    init.event("INT")
    init.signal("TERM")
    init.said("under way already")
    init.signal("USR1")
    assert init.wait() == 4
    assert init.events() == ["ready", "TERM", "INT", "USR1", "end"]


def test_the_stop_signal_can_be_another(started: Start) -> None:
    init = started("-t", "20s", "--stop-signal", "QUIT", agent="on('TERM'); on('QUIT', lambda: leave(0)); ready()")
    init.event("ready")
    init.signal("TERM")
    assert init.wait() == 0
    assert init.events() == ["ready", "QUIT", "end"]


def test_the_stop_delay_holds_the_signal_back_and_counts_into_the_grace(started: Start) -> None:
    init = started("-t", "1200ms", "--stop-delay", "700ms", agent=STUBBORN)
    init.event("ready")
    asked = time.monotonic()
    init.signal("TERM")
    assert init.wait() == 137
    assert 1.2 <= time.monotonic() - asked < 1.2 + LATE
    assert 0.7 <= init.event("TERM")["t"] - asked + 0.001 < 0.7 + LATE


@pytest.mark.parametrize(
    ("repeat", "expected", "code"),
    [("ignore", ["ready", "TERM", "USR1", "end"], 0), ("forward", ["ready", "TERM", "TERM", "USR1", "end"], 0)],
)
def test_a_repeat_can_be_passed_on(started: Start, repeat: str, expected: list[str], code: int) -> None:
    init = started("-t", "20s", "--repeat", repeat, agent="on('TERM'); on('USR1', lambda: leave(0)); ready()")
    init.event("ready")
    init.signal("TERM")
    init.event("TERM")
    init.signal("INT")
    init.said("under way already")
    if repeat == "forward":
        init.wait_for(lambda: init.events().count("TERM") == 2, "a second TERM")
    init.signal("USR1")
    assert init.wait() == code
    assert init.events() == expected


def test_a_repeat_can_escalate(started: Start) -> None:
    init = started(
        "--stop-schedule", "TERM/20s/INT/20s/KILL", "--repeat", "escalate", agent="on('TERM'); on('INT'); ready()"
    )
    init.event("ready")
    init.signal("TERM")
    init.event("TERM")
    init.signal("TERM")
    init.event("INT")
    init.signal("TERM")
    assert init.wait(10) == 137
    assert init.events() == ["ready", "TERM", "INT"]


def test_without_a_deadline_a_repeat_can_still_escalate_to_kill(started: Start) -> None:
    init = started("--grace", "infinity", "--repeat", "escalate", agent=STUBBORN)
    init.event("ready")
    init.signal("TERM")
    init.event("TERM")
    init.signal("TERM")
    assert init.wait(10) == 137


def test_a_request_can_be_rewritten_to_what_the_agent_gets(started: Start) -> None:
    init = started(
        "-t",
        "1s",
        "-r",
        "TERM:QUIT",
        "-r",
        "USR1:USR2",
        "-r",
        "HUP:0",
        agent="[on(n) for n in ('TERM', 'QUIT', 'USR1', 'USR2', 'HUP')]; ready()",
    )
    init.event("ready")
    init.signal("HUP")
    init.signal("USR1")
    init.event("USR2")
    init.signal("TERM")
    assert init.wait() == 137
    assert init.events() == ["ready", "USR2", "QUIT"]


@pytest.mark.parametrize("code", [0, 1, 3, 125, 143, 255])
def test_the_exit_code_is_the_agents(start: Start, code: int) -> None:
    assert start(agent=f"leave({code})").wait() == code


@pytest.mark.parametrize(("name", "code"), [("TERM", 143), ("KILL", 137), ("ABRT", 134), ("SEGV", 139)])
def test_a_signals_death_is_told_as_a_shell_tells_it(started: Start, name: str, code: int) -> None:
    no_core = "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))"
    init = started(agent=f"{no_core}; os.kill(os.getpid(), number('{name}'))")
    assert init.wait() == code
    assert f"was killed by SIG{name}" in init.said("ended")


def test_ok_exit_turns_codes_into_0(started: Start) -> None:
    init = started("-e", "143", "-e3", agent="os.kill(os.getpid(), 15)")
    assert init.wait() == 0
    assert "exit code 0 (--ok-exit 143)" in init.said("ended")
    assert started("-e", "143", "-e3", agent="leave(3)").wait() == 0
    assert started("-e", "143", "-e3", agent="leave(4)").wait() == 4
    assert started(agent="leave(9)", env={**clean_environment(), "AGENT_INIT_OK_EXIT": "8,9"}).wait() == 0


# --- What the agent leaves behind. ---


def test_survivors_get_the_stop_signal_and_time_to_linger(started: Start) -> None:
    behind = "on('TERM', lambda: leave(0, after=0.5)); ready()"
    init = started(
        "-t",
        "20s",
        agent=f"child('heir', {behind!r}); orphan('daemon', {behind!r}); on('USR1', lambda: leave(5)); ready()",
    )
    for name in ("heir", "daemon", "agent"):
        init.event("ready", name)
    init.signal("USR1")
    assert init.wait() == 5
    for name in ("heir", "daemon"):
        assert init.events(name) == ["ready", "TERM", "end"]
    assert "left processes behind" in init.said("the agent exited with code 5")


def test_the_linger_time_ends_with_sigkill(started: Start) -> None:
    init = started(
        "--linger", "500ms", agent="child('heir', \"on('TERM'); ready()\"); on('USR1', lambda: leave(5)); ready()"
    )
    init.event("ready", "heir")
    init.signal("USR1")
    gone = init.event("end")["t"]
    assert init.wait() == 5
    assert 0.5 <= time.monotonic() - gone < 0.5 + LATE + 0.1
    assert init.events("heir") == ["ready", "TERM"]


def test_the_linger_time_is_cut_off_by_the_grace(started: Start) -> None:
    init = started(
        "-t",
        "1s",
        "--linger",
        "20s",
        agent="child('heir', \"on('TERM'); ready()\"); on('TERM', lambda: leave(5, after=0.4)); ready()",
    )
    init.event("ready", "heir")
    asked = time.monotonic()
    init.signal("TERM")
    assert init.wait() == 5
    assert 1.0 <= time.monotonic() - asked < 1.0 + LATE


def test_no_time_is_slept_that_nobody_needs(started: Start) -> None:
    init = started(
        "-t",
        "60s",
        "--linger",
        "60s",
        agent="child('heir', \"on('TERM', lambda: leave(0)); ready()\"); on('TERM', lambda: leave(0)); ready()",
    )
    init.event("ready", "heir")
    asked = time.monotonic()
    init.signal("TERM")
    assert init.wait() == 0
    assert time.monotonic() - asked < 5


def test_who_had_the_stop_signal_already_does_not_get_it_again(started: Start) -> None:
    """Behind a shell the real agent gets TERM; when the shell is killed, the agent goes on with what it does."""
    code = "on('TERM', lambda: leave(0, after=1.5)); ready()"
    init = started("-t", "20s", command=["sh", "-c", f"{actor_line('real', code)}; exit $?"])
    real = init.event("ready", "real")
    shell = psutil.Process(init.pid).children()[0]
    init.signal("TERM")
    init.event("TERM", "real")
    shell.kill()
    assert init.wait() == 137
    assert init.events("real") == ["ready", "TERM", "end"]
    assert real["pid"]


# --- Whatever the tree does. ---

# Both end by themselves should agent-init fail to end them.
HOPPER = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
end = time.monotonic() + 15
while time.monotonic() < end:
    if os.fork():
        os._exit(0)
    os.setsid()
"""
FORKS_ON = """
ignore('TERM', 'INT', 'HUP', 'QUIT', 'CHLD')
end = time.monotonic() + 15
log('ready')
while time.monotonic() < end:
    if os.fork() == 0:
        os.setsid()
        time.sleep(0.2)
        os._exit(0)
    time.sleep(0.004)
"""


@pytest.mark.parametrize(
    "agent",
    [
        pytest.param(
            "ignore('TERM'); child('x', 'ignore(\"TERM\"); ready()', session=True); ready()", id="a session of its own"
        ),
        pytest.param(
            "ignore('TERM'); [orphan('x', 'ignore(\"TERM\"); ready()') for _ in range(5)]; ready()", id="daemons"
        ),
        pytest.param("ignore('TERM'); child('x', 'log(\"ready\"); os.kill(os.getpid(), 19)'); ready()", id="stopped"),
        pytest.param(
            f"ignore('TERM'); subprocess.Popen([sys.executable, '-S', '-c', {HOPPER!r}]); ready()",
            id="hops from pid to pid",
        ),
        pytest.param(FORKS_ON, id="forks on and on"),
    ],
)
def test_the_end_comes_by_the_grace_whatever_the_tree_does(started: Start, agent: str) -> None:
    init = started("-t", "1s", agent=agent)
    init.event("ready")
    asked = time.monotonic()
    init.signal("TERM")
    assert init.wait() == 137
    assert 1.0 <= time.monotonic() - asked < 1.0 + LATE

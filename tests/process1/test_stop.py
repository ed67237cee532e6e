"""From the stop request to the exit: which process gets which signal when, and what happens to leftover processes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.support.init import actor_line, clean_environment
from tests.support.proc import children_of

if TYPE_CHECKING:
    from tests.conftest import Start

SIGKILL_SECONDS = 5.0  # that agent-init waits for SIGKILL to take effect, as promised (docs/reliability.md)
TOLERANCE = 0.5  # seconds; agent-init exits at most this long after the grace, as promised

GRACEFUL = "on('TERM', lambda: leave(0, after=0.3)); ready()"
STUBBORN = "ignore('INT'); on('TERM'); ready()"


@pytest.mark.parametrize("request_signal", ["TERM", "INT"])
def test_stop_request_reaches_the_agent_as_the_stop_signal(start_in_role: Start, request_signal: str) -> None:
    init = start_in_role("-t", "20s", agent=GRACEFUL)
    init.wait_for_event("ready")
    init.signal(request_signal)
    assert init.wait() == 0
    assert init.events() == ["ready", "TERM", "end"]
    assert f"stop requested by {request_signal}" in init.wait_for_line("stop requested")
    assert "exit code 0" in init.wait_for_line("ended")


def test_repeated_stop_request_is_not_passed_on(start_in_role: Start) -> None:
    init = start_in_role("-t", "20s", agent="on('INT'); on('TERM', lambda: leave(0, after=1)); ready()")
    init.wait_for_event("ready")
    init.signal("TERM")
    init.wait_for_event("TERM")
    for again in ("TERM", "INT", "TERM"):
        init.signal(again)
    assert init.wait() == 0
    assert init.events() == ["ready", "TERM", "end"]
    assert init.lines("already in progress")


def test_agent_is_killed_at_the_end_of_the_grace(start_in_role: Start) -> None:
    init = start_in_role("-t", "1s", agent=STUBBORN)
    init.wait_for_event("ready")
    requested_at = time.monotonic()
    init.signal("TERM")
    assert init.wait() == 137
    assert 1.0 <= time.monotonic() - requested_at < 1.0 + TOLERANCE
    assert init.events() == ["ready", "TERM"]
    assert "still running: python" in init.wait_for_line("SIGKILL")
    assert "was killed by SIGKILL at the deadline" in init.wait_for_line("ended")


def test_suspended_agent_is_continued_for_the_stop_signal(start_in_role: Start) -> None:
    init = start_in_role(
        "-t", "20s", agent="on('TERM', lambda: leave(0)); log('ready'); os.kill(os.getpid(), 19); forever()"
    )
    init.wait_for_event("ready")
    init.signal("TERM")
    assert init.wait() == 0
    assert init.events() == ["ready", "TERM", "end"]


def test_platform_limit_is_logged_but_does_not_kill_the_agent(start_in_role: Start) -> None:
    platform = clean_environment(RAILWAY_DEPLOYMENT_DRAINING_SECONDS="3")
    init = start_in_role(agent="on('TERM'); on('USR1', lambda: leave(0)); ready()", env=platform)
    init.wait_for_event("ready")
    assert "grace: Railway's own, 3s as set; AGENT_INIT_GRACE not set" in init.wait_for_line("started")
    requested_at = time.monotonic()
    init.signal("TERM")
    report = init.wait_for_line("goes on waiting")
    assert 1.0 <= time.monotonic() - requested_at < 1.0 + 2 * TOLERANCE
    assert "still running: python" in report
    time.sleep(max(0.0, requested_at + 3.2 - time.monotonic()))  # the limit passes; nothing enforces it here
    init.signal("USR1")
    assert init.wait() == 0
    assert init.events() == ["ready", "TERM", "USR1", "end"]
    assert len(init.lines("goes on waiting")) == 1


def test_schedule_steps_are_sent_on_time(start_in_role: Start) -> None:
    init = start_in_role(
        "--stop-schedule",
        "TERM/400ms/INT/300ms/USR1/300ms/KILL",
        agent="[on(n) for n in ('TERM', 'INT', 'USR1')]; ready()",
    )
    init.wait_for_event("ready")
    requested_at = time.monotonic()
    init.signal("TERM")
    assert init.wait() == 137
    ended = time.monotonic()
    assert init.events() == ["ready", "TERM", "INT", "USR1"]
    due = {"TERM": 0.0, "INT": 0.4, "USR1": 0.7}
    for name, after in due.items():
        assert after <= init.wait_for_event(name)["t"] - requested_at + 0.001 < after + TOLERANCE
    assert 1.0 <= ended - requested_at < 1.0 + TOLERANCE
    assert [line for line in init.lines("still running") if "INT" in line]


def test_schedule_without_kill_never_kills_the_agent(start_in_role: Start) -> None:
    init = start_in_role(
        "--stop-schedule", "TERM/100ms/INT", agent="on('TERM'); on('INT'); on('USR1', lambda: leave(4)); ready()"
    )
    init.wait_for_event("ready")
    init.signal("TERM")
    init.wait_for_event("INT")
    init.signal("TERM")
    init.wait_for_line("already in progress")
    init.signal("USR1")
    assert init.wait() == 4
    assert init.events() == ["ready", "TERM", "INT", "USR1", "end"]


def test_stop_signal_option_selects_the_stop_signal(start_in_role: Start) -> None:
    init = start_in_role(
        "-t", "20s", "--stop-signal", "QUIT", agent="on('TERM'); on('QUIT', lambda: leave(0)); ready()"
    )
    init.wait_for_event("ready")
    init.signal("TERM")
    assert init.wait() == 0
    assert init.events() == ["ready", "QUIT", "end"]


def test_stop_delay_postpones_the_signal_and_counts_towards_the_grace(start_in_role: Start) -> None:
    init = start_in_role("-t", "1200ms", "--stop-delay", "700ms", agent=STUBBORN)
    init.wait_for_event("ready")
    requested_at = time.monotonic()
    init.signal("TERM")
    assert init.wait() == 137
    assert 1.2 <= time.monotonic() - requested_at < 1.2 + TOLERANCE
    assert 0.7 <= init.wait_for_event("TERM")["t"] - requested_at + 0.001 < 0.7 + TOLERANCE


@pytest.mark.parametrize(
    ("repeat", "expected", "code"),
    [("ignore", ["ready", "TERM", "USR1", "end"], 0), ("forward", ["ready", "TERM", "TERM", "USR1", "end"], 0)],
)
def test_repeat_forward_passes_a_repeated_request_on(
    start_in_role: Start, repeat: str, expected: list[str], code: int
) -> None:
    init = start_in_role("-t", "20s", "--repeat", repeat, agent="on('TERM'); on('USR1', lambda: leave(0)); ready()")
    init.wait_for_event("ready")
    init.signal("TERM")
    init.wait_for_event("TERM")
    init.signal("INT")
    init.wait_for_line("already in progress")
    if repeat == "forward":
        init.wait_for(lambda: init.events().count("TERM") == 2, "a second TERM")
    init.signal("USR1")
    assert init.wait() == code
    assert init.events() == expected


def test_repeat_escalate_runs_the_next_step(start_in_role: Start) -> None:
    init = start_in_role(
        "--stop-schedule", "TERM/20s/INT/20s/KILL", "--repeat", "escalate", agent="on('TERM'); on('INT'); ready()"
    )
    init.wait_for_event("ready")
    init.signal("TERM")
    init.wait_for_event("TERM")
    init.signal("TERM")
    init.wait_for_event("INT")
    init.signal("TERM")
    assert init.wait(10) == 137
    assert init.events() == ["ready", "TERM", "INT"]


def test_repeat_escalate_kills_even_without_a_deadline(start_in_role: Start) -> None:
    init = start_in_role("--grace", "infinity", "--repeat", "escalate", agent=STUBBORN)
    init.wait_for_event("ready")
    init.signal("TERM")
    init.wait_for_event("TERM")
    init.signal("TERM")
    assert init.wait(10) == 137


def test_rewrite_changes_the_signal_the_agent_gets(start_in_role: Start) -> None:
    init = start_in_role(
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
    init.wait_for_event("ready")
    init.signal("HUP")
    init.signal("USR1")
    init.wait_for_event("USR2")
    init.signal("TERM")
    assert init.wait() == 137
    assert init.events() == ["ready", "USR2", "QUIT"]


@pytest.mark.parametrize("code", [0, 1, 3, 125, 143, 255])
def test_exit_code_is_the_agents(start: Start, code: int) -> None:
    assert start(agent=f"leave({code})").wait() == code


@pytest.mark.parametrize(("name", "code"), [("TERM", 143), ("KILL", 137), ("ABRT", 134), ("SEGV", 139)])
def test_exit_code_after_death_by_signal_is_128_plus_its_number(start_in_role: Start, name: str, code: int) -> None:
    no_core = "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))"
    init = start_in_role(agent=f"{no_core}; os.kill(os.getpid(), number('{name}'))")
    assert init.wait() == code
    assert f"was killed by SIG{name}" in init.wait_for_line("ended")


def test_ok_exit_turns_codes_into_0(start_in_role: Start) -> None:
    init = start_in_role("-e", "143", "-e3", agent="os.kill(os.getpid(), 15)")
    assert init.wait() == 0
    assert "exit code 0 (--ok-exit 143)" in init.wait_for_line("ended")
    assert start_in_role("-e", "143", "-e3", agent="leave(3)").wait() == 0
    assert start_in_role("-e", "143", "-e3", agent="leave(4)").wait() == 4
    assert start_in_role(agent="leave(9)", env={**clean_environment(), "AGENT_INIT_OK_EXIT": "8,9"}).wait() == 0


# --- Leftover processes. ---


def test_leftover_processes_get_the_stop_signal_and_the_linger_time(start_in_role: Start) -> None:
    behind = "on('TERM', lambda: leave(0, after=0.5)); ready()"
    init = start_in_role(
        "-t",
        "20s",
        agent=f"child('leftover', {behind!r}); orphan('daemon', {behind!r}); on('USR1', lambda: leave(5)); ready()",
    )
    for name in ("leftover", "daemon", "agent"):
        init.wait_for_event("ready", name)
    init.signal("USR1")
    assert init.wait() == 5
    for name in ("leftover", "daemon"):
        assert init.events(name) == ["ready", "TERM", "end"]
    assert "left processes behind" in init.wait_for_line("the agent exited with code 5")


def test_linger_time_ends_with_sigkill(start_in_role: Start) -> None:
    init = start_in_role(
        "--linger", "500ms", agent="child('leftover', \"on('TERM'); ready()\"); on('USR1', lambda: leave(5)); ready()"
    )
    init.wait_for_event("ready", "leftover")
    init.signal("USR1")
    gone = init.wait_for_event("end")["t"]
    assert init.wait() == 5
    assert 0.5 <= time.monotonic() - gone < 0.5 + TOLERANCE + 0.1
    assert init.events("leftover") == ["ready", "TERM"]


def test_linger_time_is_limited_by_the_grace(start_in_role: Start) -> None:
    init = start_in_role(
        "-t",
        "1s",
        "--linger",
        "20s",
        agent="child('leftover', \"on('TERM'); ready()\"); on('TERM', lambda: leave(5, after=0.4)); ready()",
    )
    init.wait_for_event("ready", "leftover")
    requested_at = time.monotonic()
    init.signal("TERM")
    assert init.wait() == 5
    assert 1.0 <= time.monotonic() - requested_at < 1.0 + TOLERANCE


def test_exit_is_immediate_once_every_process_has_exited(start_in_role: Start) -> None:
    init = start_in_role(
        "-t",
        "60s",
        "--linger",
        "60s",
        agent="child('leftover', \"on('TERM', lambda: leave(0)); ready()\"); on('TERM', lambda: leave(0)); ready()",
    )
    init.wait_for_event("ready", "leftover")
    requested_at = time.monotonic()
    init.signal("TERM")
    assert init.wait() == 0
    assert time.monotonic() - requested_at < 5


def test_leftover_process_does_not_get_the_stop_signal_twice(start_in_role: Start) -> None:
    """The real agent behind a shell gets TERM. When the shell is killed, the agent continues its clean-up."""
    code = "on('TERM', lambda: leave(0, after=1.5)); ready()"
    init = start_in_role("-t", "20s", command=["sh", "-c", f"{actor_line('real', code)}; exit $?"])
    real = init.wait_for_event("ready", "real")
    shell = children_of(init)[0]
    init.signal("TERM")
    init.wait_for_event("TERM", "real")
    shell.kill()
    assert init.wait() == 137
    assert init.events("real") == ["ready", "TERM", "end"]
    assert real["pid"]


# --- Difficult process trees. ---

# Both exit by themselves after 15 s if agent-init fails to kill them.
HOPPER = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
end = time.monotonic() + 15
while time.monotonic() < end:
    if os.fork():
        os._exit(0)
    os.setsid()
"""
FORKS_FOREVER = """
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
            "ignore('TERM'); child('x', 'ignore(\"TERM\"); ready()', session=True); ready()", id="new session"
        ),
        pytest.param(
            "ignore('TERM'); [orphan('x', 'ignore(\"TERM\"); ready()') for _ in range(5)]; ready()", id="daemons"
        ),
        pytest.param("ignore('TERM'); child('x', 'log(\"ready\"); os.kill(os.getpid(), 19)'); ready()", id="stopped"),
        pytest.param(
            f"ignore('TERM'); import subprocess; subprocess.Popen([sys.executable, '-S', '-c', {HOPPER!r}]); ready()",
            id="changes its pid all the time",
        ),
        pytest.param(FORKS_FOREVER, id="forks all the time"),
    ],
)
def test_exit_is_within_the_grace_whatever_the_process_tree_does(start_in_role: Start, agent: str) -> None:
    init = start_in_role("-t", "1s", agent=agent)
    init.wait_for_event("ready")
    requested_at = time.monotonic()
    init.signal("TERM")
    assert init.wait() == 137
    # Processes that are always a fork ahead may outlive the time that SIGKILL is given to take effect.
    assert 1.0 <= time.monotonic() - requested_at < 1.0 + TOLERANCE + SIGKILL_SECONDS


@pytest.mark.parametrize("grace", ["", "infinity"])
def test_deadline_comes_before_that_of_the_platform_if_it_is_known(start_in_role: Start, grace: str) -> None:
    variables = {"AGENT_INIT_PLATFORM_GRACE": "3s", "KUBERNETES_SERVICE_HOST": "10.0.0.1", "AGENT_INIT_GRACE": grace}
    init = start_in_role(agent="on('TERM'); ready()", env=clean_environment(**variables))
    init.wait_for_event("ready")
    assert "grace 2.25s, " in init.wait_for_line("started ")
    init.signal("TERM")
    term = init.wait_for_event("TERM")["t"]
    assert init.wait() == 137
    assert time.monotonic() - term > 2
    assert init.lines("after the stop request, SIGKILL; still running")


def test_wrong_time_of_the_platform_is_a_usage_error(start_in_role: Start) -> None:
    env = clean_environment(AGENT_INIT_PLATFORM_GRACE="soon")
    init = start_in_role(agent="ready()", env=env)
    assert init.wait() == 125
    [line] = init.stderr.splitlines()
    assert "AGENT_INIT_PLATFORM_GRACE: 'soon' is not" in line
    assert "accepted: " in line
